"""Several processes that share a run."""

import subprocess
import sys
from pathlib import Path


def test_processes_disconnect_before_python_ends(tmp_path: Path) -> None:
    """Threads of connections that outlive the interpreter's end abort the process, after all its work."""
    script = tmp_path / "share.py"
    script.write_text(
        "import atexit, os, torch\n"
        # A file each: what two processes print into one pipe may be interleaved.
        "said = open(os.environ['RANK'], 'w')\n"
        "def say(): print(torch.distributed.is_initialized(), file=said, flush=True)\n"
        # The handler that is registered first runs last.
        "atexit.register(say)\n"
        "from gsva_ros.processes import processes\n"
        "processes().wait_for_everyone()\n"
        "say()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    subprocess.run(
        [*launch, "--standalone", str(script)],
        check=True, timeout=600, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    for rank in "01":
        assert (tmp_path / rank).read_text().split() == ["True", "False"]
