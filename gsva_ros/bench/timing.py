"""Times the stages of a frame: warm-up, median and spread, and this machine's ceilings."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine import EncodedFrame, Engine
from ..model.clip import ClipPreprocessor
from ..model.images import upload
from ..model.sam import SamPreprocessor
from ..model.segment_anything import modeling
from . import plain

EXPRESSIONS = tuple(
    f"the {colour} {kind}"
    for kind in ("mug", "box", "can", "bowl")
    for colour in ("red", "green", "blue", "white")
)
ASKED = "hand me the red mug, the blue can and the green bowl"
TOKENS = 32
#: Runs that measure the machine's ceilings.
CEILING_RUNS = 5


def expressions(count: int) -> list[str]:
    """This many of EXPRESSIONS, beginning anew after the last."""
    return list(islice(cycle(EXPRESSIONS), count))


@dataclass(frozen=True)
class Time:
    """Milliseconds of one measurement: the median of its runs, the quartiles, the number of runs."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Time:
        """From each run's seconds."""
        low, median, high = (1e3 * float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
        return cls(median, low, high, len(seconds))


@dataclass(frozen=True)
class Measured:
    """What is measured of a model.

    Attributes:
        how: the picture, the machine, the precision and the number of runs, in words.
        product: the dtype of the product that gives a ceiling.
        ceilings, times: see `ceilings` and `stages`.
        against, sam: see `against_plain` and `sam_against_stock`; empty unless asked for.
        peak_mib: see `peak_mib`.
    """

    how: str
    product: str
    ceilings: dict[str, float]
    times: dict[str, Time]
    against: dict[int, dict[str, Time]]
    sam: dict[str, dict[str, float]]
    peak_mib: float

    def record(self) -> dict[str, Any]:
        """The measurements by their names in a file."""
        asked = {"against plain": self.against, "sam": self.sam} if self.against else {}
        timed = {"ceilings": self.ceilings, "times": self.times}
        return {**timed, **asked, "peak_mib": self.peak_mib}


def alternating(runs: int, **things: Callable[[], Any]) -> dict[str, Time]:
    """Time several functions in turn, so that disturbances affect all of them; run 0 is a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in things}
    for number in range(runs + 1):
        for name, run in things.items():
            seconds = _seconds(run)
            if number:
                taken[name].append(seconds)
    return {name: Time.of(seconds) for name, seconds in taken.items()}


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    settle()
    return time.perf_counter() - began


def settle() -> None:
    """Wait for pending GPU work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def stages(
    engine: Engine, rgb: NDArray[np.uint8], counts: Sequence[int], runs: int
) -> dict[str, Time]:
    """Every stage of a frame; requests of each count on an encoded frame; a generated token."""
    model, config = engine.model, engine.config
    clip, sam = ClipPreprocessor(config.preprocessor), SamPreprocessor.of(config.sam)
    with torch.inference_mode():
        there, dtype = upload(rgb, engine.device), engine.dtype
        pixels, sam_pixels = clip(there)[None].to(dtype), sam(there)[None].to(dtype)
        found = alternating(
            runs,
            **{
                "pixels for SAM": lambda: sam(upload(rgb, engine.device)),
                "pixels for CLIP": lambda: clip(there),
                "SAM": lambda: model.encode_sam(sam_pixels),
                "CLIP": lambda: model.project(model.encode_clip(pixels)),
                "encode, all of it": lambda: engine.encode(rgb),
            },
        )
    frame = engine.encode(rgb)
    for count in counts:
        found |= _request(engine, frame, count, runs)
    found["a written token"] = _token(engine, frame, runs)
    return found


def _request(engine: Engine, frame: EncodedFrame, count: int, runs: int) -> dict[str, Time]:
    """A new request on an encoded frame: decisions only, and with every mask."""
    asked = expressions(count)
    return alternating(
        runs,
        **{
            f"decide {count}": lambda: engine.segment(frame, asked, threshold=1.0),
            f"decide and mask {count}": lambda: engine.segment(frame, asked, threshold=0.0),
        },
    )


def _token(engine: Engine, frame: EncodedFrame, runs: int) -> Time:
    """One token of an answer after the first; there are no masks, because everything is rejected."""

    def ask(most: int) -> float:
        return _seconds(lambda: engine.ask(frame, ASKED, threshold=1.0, max_new_tokens=most))

    more = max(1, engine.ask(frame, ASKED, threshold=1.0, max_new_tokens=TOKENS).tokens - 1)
    ask(1)
    return Time.of([(ask(TOKENS) - ask(1)) / more for _ in range(runs)])


def against_plain(
    engine: Engine, rgb: NDArray[np.uint8], counts: Sequence[int], runs: int
) -> dict[int, dict[str, Time]]:
    """A whole frame with each count: ours, the plain path's two passes, and only its first pass."""
    found = {}
    for count in counts:
        asked = expressions(count)
        found[count] = alternating(
            runs,
            ours=partial(_whole, engine, rgb, asked),
            plain=partial(plain.answer, engine, rgb, asked),
            first=partial(plain.answer, engine, rgb, asked, passes=1),
        )
    return found


def _whole(engine: Engine, rgb: NDArray[np.uint8], asked: Sequence[str]) -> object:
    return engine.segment(engine.encode(rgb), asked, threshold=0.0)


@torch.inference_mode()
def sam_against_stock(engine: Engine, runs: int) -> dict[str, dict[str, float]]:
    """Our forward pass of SAM's encoder and segment-anything's own: milliseconds and peak MiB."""
    encoder, side = engine.model.model.visual_model.image_encoder, engine.config.sam.image_size
    # Each has its own pixels: a backbone shared by the towers would answer the second from a cache.
    pixels, others = torch.randn(2, 1, 3, side, side, device=engine.device, dtype=engine.dtype)
    things = {
        "ours": lambda: encoder(pixels),
        "stock": lambda: modeling.ImageEncoderViT.forward(encoder, others),
    }
    memory = {name: peak_of(run, engine.device) for name, run in things.items()}
    times = alternating(runs, **things)
    return {name: {"ms": times[name].median, "peak_mib": memory[name]} for name in things}


def peak_of(run: Callable[[], Any], device: torch.device) -> float:
    """Peak MiB above the previous level while `run` runs: resident according to Linux, or on the GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_resident()
    run()
    return _peak_resident() - before


def _peak_resident() -> float:
    """Peak MiB of resident memory since the count was cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """This machine's maximum: GFLOP/s of a matrix product, GB/s of a copy."""
    n, mib = (8192, 1024) if device.type == "cuda" else (1024, 64)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    big, to = (torch.zeros(mib << 20, dtype=torch.uint8, device=device) for _ in range(2))
    times = alternating(CEILING_RUNS, product=lambda: a @ b, copy=lambda: to.copy_(big))
    return {
        "gflops": 2 * n**3 / times["product"].median / 1e6,
        "copy_gb_s": 2 * len(big) / times["copy"].median / 1e6,
    }


def peak_mib(device: torch.device) -> float:
    """This process's peak memory so far, MiB: resident, or allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
