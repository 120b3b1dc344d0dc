"""torch.compile as an option: what it makes is used, and what it cannot make runs as before."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint

from gsva_ros.engine import Engine

RGB = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def embeddings(compiled: bool) -> tuple[Engine, torch.Tensor]:
    engine = Engine(tiny_checkpoint(), "tiny", torch.device("cpu"), "float32", compiled=compiled)
    return engine, engine.encode(RGB).image_embeddings


def compiler(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[int]:
    """Stand in for the compiler, which takes minutes; counts the runs of what it makes."""
    runs: list[int] = []

    def compile(function: Any, **_: Any) -> Any:
        def fast(*given: Any) -> Any:
            runs.append(1)
            if error:
                raise error
            return function(*given)

        return fast

    monkeypatch.setattr(torch, "compile", compile)
    return runs


def test_what_is_compiled_runs(monkeypatch):
    runs = compiler(monkeypatch, None)
    engine, ours = embeddings(True)
    engine.encode(RGB)
    assert len(runs) == 2
    assert torch.equal(ours, embeddings(False)[1])


def test_a_compiler_that_fails_is_told_of_once(monkeypatch, caplog):
    runs = compiler(monkeypatch, RuntimeError("no C++ compiler\nfound"))
    with caplog.at_level(logging.WARNING, "gsva_ros"):
        engine, ours = embeddings(True)
        engine.encode(RGB)
    assert len(runs) == 1
    assert [r.message for r in caplog.records] == [
        "SAM's encoder runs uncompiled: no C++ compiler found"
    ]
    assert torch.equal(ours, embeddings(False)[1])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_full_device_is_no_fault_of_the_compiler(error, monkeypatch):
    compiler(monkeypatch, error)
    with pytest.raises(MemoryError):
        embeddings(True)
