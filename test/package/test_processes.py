"""Several processes that share a run."""

import subprocess
import sys
from pathlib import Path


def test_processes_disconnect_before_python_ends(tmp_path: Path) -> None:
    """Threads of connections that outlive the interpreter's end abort the process, after all its work."""
    script = tmp_path / "share.py"
    script.write_text(
        "import atexit, torch\n"
        # The handler that is registered first runs last.
        "atexit.register(lambda: print('connected', torch.distributed.is_initialized()))\n"
        "from gsva_ros.processes import processes\n"
        "processes().wait_for_everyone()\n"
        "print('connected', torch.distributed.is_initialized())\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "--standalone", str(script)],
        check=True, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == ["False"] * 2 + ["True"] * 2 + ["connected"] * 4
