"""Memory that tensors no longer need stays with the process, where that can be had."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from gsva_ros.model.host_memory import DECIDED_BY

PROGRAM = """
import resource, sys
import torch
from gsva_ros.model.host_memory import keep_freed

said = keep_freed() if sys.argv[1] == "keep" else None
work = lambda: torch.ones(5 << 20).add(1).add(1)  # 60 MiB at most, in blocks of 20
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def ran(what: str, **environment: str) -> list[str]:
    clean = {k: v for k, v in os.environ.items() if k not in DECIDED_BY}
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(
        command, env={**clean, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
def test_pages_are_asked_for_once() -> None:
    pages = 20 * (60 << 20) // os.sysconf("SC_PAGE_SIZE")
    afresh = ran("leave", MALLOC_MMAP_THRESHOLD_="131072")
    assert int(afresh[1]) > pages // 2
    said, faults = ran("keep")
    assert said == "True"
    assert int(faults) < pages // 8


@pytest.mark.parametrize("name", DECIDED_BY)
def test_the_environment_decides(name: str) -> None:
    value = "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else "131072"
    assert ran("keep", **{name: value})[0] == "False"
