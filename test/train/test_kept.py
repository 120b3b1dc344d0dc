"""What processes share: features are computed once, and again if damaged; a tokenizer is always whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gsva_ros.train.kept import kept
from gsva_ros.train.text import train_tokenizer

SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
import torch
from gsva_ros.train.kept import kept

def compute(rows):
    time.sleep(0.05)
    print("computed", rows[0], flush=True)
    return [torch.from_numpy(rows), 2 * torch.from_numpy(rows)]

paths = [Path(sys.argv[1]) / name for name in ("a.npy", "b.npy")]
print("ready", flush=True)
sys.stdin.readline()
first, second = kept(paths, "key", 8, 2, compute)
assert (second == 2 * first).all() and list(first) == list(range(8)), first
"""


def test_processes_that_need_the_same_features_compute_them_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in both if process.stdout] == 2 * ["ready\n"]
    for process in both:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = "".join(process.communicate(timeout=600)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.count("computed") == 4


@pytest.mark.parametrize("damaged", ["a.npy", "a.key"])
def test_damaged_features_are_computed_again(tmp_path: Path, damaged: str) -> None:
    calls: list[int] = []

    def features() -> np.ndarray:
        def compute(rows: np.ndarray) -> list[torch.Tensor]:
            calls.extend(rows)
            return [torch.from_numpy(rows)]

        return kept([tmp_path / "a.npy"], "key", 3, 2, compute)[0]

    for _ in range(2):
        assert features().tolist() == [0, 1, 2]
    assert calls == [0, 1, 2]
    path = tmp_path / damaged
    path.write_bytes(path.read_bytes()[:-2] + b"\xff"[: damaged == "a.key"])
    assert features().tolist() == [0, 1, 2]
    assert calls == 2 * [0, 1, 2]


def test_a_tokenizer_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    train_tokenizer(["the red mug"] * 20, path, 300)
    before = path.read_bytes()
    with path.open("rb") as reading:  # another process's
        train_tokenizer(["a green can"] * 20, path, 300)
        assert reading.read() == before
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]
