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

said = keep_freed(whole=sys.argv[1] == "whole") if sys.argv[1] != "leave" else None
if sys.argv[1] == "whole":
    keep_freed()  # as a model that is loaded meanwhile does
size = int(sys.argv[2]) << 20
work = lambda: torch.ones(size // 4).add(1).add(1)  # three blocks of it at a time
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(said, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def ran(what: str, size: int, **environment: str) -> list[str]:
    clean = {k: v for k, v in os.environ.items() if k not in DECIDED_BY}
    command = [sys.executable, "-c", PROGRAM, what, str(size)]
    done = subprocess.run(
        command, env={**clean, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library is not glibc")
@pytest.mark.parametrize(("what", "size"), [("keep", 20), ("whole", 100)])  # MiB
def test_pages_are_asked_for_once(what: str, size: int) -> None:
    _, afresh = ran("leave", size, MALLOC_MMAP_THRESHOLD_="131072")
    said, faults = ran(what, size)
    assert said == "True"
    assert int(faults) < int(afresh) / 5


@pytest.mark.parametrize("name", DECIDED_BY)
def test_the_environment_decides(name: str) -> None:
    value = "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else "131072"
    assert ran("keep", 1, **{name: value})[0] == "False"
