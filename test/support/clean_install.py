"""`pip install .` in a fresh environment: each command works there, or names the extra that is missing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "test" / "data" / "scene.png"
DEMO, TRUTH = ROOT / "demo" / "tabletop", ROOT / "demo" / "tabletop_truth.json"


def main() -> int:
    """Install, run, and print one line per command; returns 1 if one fails."""
    with tempfile.TemporaryDirectory(prefix="gsva-install-") as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        commands = {
            "": [("segment", SCENE, "the red can", "--output", folder / "overlay.png")],
            "eval": [
                ("eval", "bag", DEMO, "--truth", TRUTH, "--out", folder / "out.json"),
                ("eval", "compare", folder / "out.json", folder / "out.json"),
                ("record-truth", DEMO, TRUTH, folder / "asked"),
                ("calibrate", "--help"),
            ],
            "sim": [
                ("sim", "render", "--split", "test", "--count", "1", "--out", folder / "scenes"),
            ],
            "train": [("train", ROOT / "config/train/mini-01-clip.yaml", "--help")],
        }
        failures = 0
        install(folder, ".")
        for extra in ("eval", "sim"):
            for command in commands[extra]:
                failures += not told(folder, command, 2)
        for extra, these in commands.items():
            install(folder, f".[{extra}]" if extra else ".")
            for command in these:
                failures += not told(folder, command, 0)
    return 1 if failures else 0


def install(folder: Path, what: str) -> None:
    pip = [folder / "venv" / "bin" / "pip", "install", "--quiet", what]
    subprocess.run(pip, cwd=ROOT, check=True)


def told(folder: Path, command: tuple[object, ...], wanted: int) -> bool:
    """Run a command outside the source tree; whether it exits with `wanted` and no traceback."""
    program = folder / "venv" / "bin" / "gsva"
    done = subprocess.run(
        [program, *map(str, command)], cwd=folder, capture_output=True, text=True, check=False
    )
    right = done.returncode == wanted and "Traceback" not in done.stderr
    if command[-1] == "--help" and wanted == 2:
        right = "Traceback" not in done.stderr
    print("ok  " if right else "WRONG", done.returncode, "gsva", *command[:2], done.stderr[-300:])
    return right


if __name__ == "__main__":
    sys.exit(main())
