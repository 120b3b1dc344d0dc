"""Memory that a training process keeps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from gsva_ros.train.host import keep_memory

{before}
for _ in range(2):
    at = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(25_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - at)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told to keep"
)
def test_memory_is_used_again_without_faults() -> None:
    """200 MB, the second time: 49,000 pages of 4 KiB, or a hundredth where pages are huge."""
    faults = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(before=before)]))
        for before in ("", "keep_memory()")
    ]
    assert faults[0] > 50
    assert faults[1] < faults[0] / 10
