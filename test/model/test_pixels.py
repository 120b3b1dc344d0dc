"""Preprocessing: the official numbers to the bit, on the host and on the model's device."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import tiny_checkpoint
from torch import Tensor

from gsva_ros.engine import Engine
from gsva_ros.errors import InputError
from gsva_ros.model import images
from gsva_ros.model.clip import ClipPreprocessor
from gsva_ros.model.images import Rgb, resize, upload
from gsva_ros.model.resample import FILTERS, in_strips, strips
from gsva_ros.model.sam import PIXEL_MEAN, PIXEL_STD, SamPreprocessor
from gsva_ros.model.schema import Preprocessor

SIZES = [(480, 640), (720, 1280), (37, 500), (64, 64), (256, 144), (5, 7)]
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def tiny_engine() -> Engine:
    return Engine(tiny_checkpoint(), "tiny", torch.device("cpu"), "float32")


def frame(size: tuple[int, int]) -> Rgb:
    """Noise with hard edges between black and white, where cubic weights leave 0 to 255."""
    rng = np.random.default_rng(size[0])
    rgb = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    rgb[: size[0] // 2] = np.where(rgb[: size[0] // 2] > 127, 255, 0)
    return rgb


def by_pil(rgb: Rgb, height: int, width: int, method: Image.Resampling) -> Rgb:
    return np.asarray(Image.fromarray(rgb).resize((width, height), method))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(224, 224), (256, 192), (576, 1024), (64, 64), (1, 3)])
@pytest.mark.parametrize("method", [BILINEAR, BICUBIC, Image.Resampling.LANCZOS])
def test_resizing_on_a_device_is_pils(
    size: tuple[int, int], target: tuple[int, int], method: Image.Resampling
) -> None:
    rgb = frame(size)
    wanted = by_pil(rgb, *target, method)
    assert np.array_equal(resize(rgb, *target, method), wanted)
    assert np.array_equal(resize(torch.from_numpy(rgb), *target, method), wanted)


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """Says how many threads torch has, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_picture_in_strips_is_the_whole_one(torch_threads: Callable[[int], None]) -> None:
    rng, cut = np.random.default_rng(0), 0
    for _ in range(60):
        height, resized = (int(part) for part in rng.integers(2, 40, 2))
        # What both are multiples of: the rows at which a cut is exact.
        common = int(rng.integers(1, 12))
        rgb = frame((height * common, int(rng.integers(3, 90))))
        target = (resized * common, int(rng.integers(3, 90)))
        torch_threads(int(rng.integers(2, 5)))
        cut += len(strips(len(rgb), target[0], 4)) > 2
        for method in FILTERS:
            assert np.array_equal(resize(rgb, *target, method), by_pil(rgb, *target, method))
    assert cut > 20


@pytest.mark.parametrize("target", [(326, 25), (27, 22)])
@pytest.mark.parametrize("method", [BILINEAR, BICUBIC])
def test_a_slit_is_resized_as_pil_does(
    target: tuple[int, int], method: Image.Resampling, torch_threads: Callable[[int], None]
) -> None:
    """Whose rows it resizes first."""
    torch_threads(3)
    rgb = frame((220, 2))
    wanted = by_pil(rgb, *target, method)
    assert np.array_equal(resize(rgb, *target, method), wanted)
    assert np.array_equal(resize(torch.from_numpy(rgb), *target, method), wanted)


IN_STRIPS = """
import atexit, os, signal, threading
import numpy as np
from gsva_ros.model.images import resize
from gsva_ros.model.resample import strips
rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
assert len(strips(96, 48, 4)) == 5
def resized(where):
    resize(rgb, 48, 64, 2)
    print(where, flush=True)
def in_a_thread():
    threading.main_thread().join()
    resized("after the main thread")
resized("main")
os.fork() or signal.alarm(30) or resized("child") or os._exit(0)
os.wait()
atexit.register(resized, "at exit")
threading.Thread(target=in_a_thread).start()
"""


def test_a_picture_is_resized_in_strips_after_a_fork_and_at_a_processs_end(tmp_path: Path) -> None:
    """Where a pool's threads are missing, and where it takes no work."""
    script = tmp_path / "resize.py"
    script.write_text(IN_STRIPS)
    ran = subprocess.run(
        [sys.executable, script], env=os.environ | {"OMP_NUM_THREADS": "2"},
        check=True, timeout=600, capture_output=True, text=True,
    )  # fmt: skip
    said = ["main", "child", "after the main thread", "at exit"]
    assert ran.stdout.splitlines() == said, ran.stderr


def test_a_strip_that_fails_fails_the_picture(torch_threads: Callable[[int], None]) -> None:
    torch_threads(2)
    failed = threading.Event()

    def put(rows: slice, pixels: Rgb) -> None:
        if threading.current_thread() is not threading.main_thread():
            failed.set()
            raise MemoryError("no room")
        failed.wait(10)

    with pytest.raises(MemoryError, match="no room"):
        in_strips(frame((96, 128)), 48, 64, BILINEAR, put)


def test_strips_begin_where_rows_of_the_picture_do() -> None:
    assert strips(720, 576, 4) == [0, 144, 288, 432, 576]
    assert strips(7, 5, 4) == [0, 5]
    assert strips(6, 4, 8) == [0, 2, 4]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [64, 256, 1024])
@pytest.mark.parametrize("threads", [1, 3])
def test_sam_pixel_values(
    size: tuple[int, int], side: int, threads: int, torch_threads: Callable[[int], None]
) -> None:
    torch_threads(threads)
    rgb, sam = frame(size), SamPreprocessor(side)
    height, width = sam.resized(*size)
    pixels = (by_pil(rgb, height, width, BILINEAR).astype(np.float32) - PIXEL_MEAN) / PIXEL_STD
    wanted = torch.from_numpy(pixels).permute(2, 0, 1)
    wanted = F.pad(wanted, (0, side - width, 0, side - height))
    for given in (rgb, torch.from_numpy(rgb)):
        found = sam(given)
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)


def shortest(edge: int, height: int, width: int) -> tuple[int, int]:
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("changes", "edge", "crop"),
    [
        ({}, 224, 224),
        ({"resample": 2, "crop_size": 128, "size": 144}, 144, 128),
        ({"size": {"height": 96, "width": 64}, "do_center_crop": False}, None, None),
        ({"do_rescale": False}, 224, 224),
        ({"do_normalize": False}, 224, 224),
        ({"do_resize": False, "do_center_crop": False}, None, None),
    ],
)
def test_clip_pixel_values(
    size: tuple[int, int], changes: dict[str, Any], edge: int | None, crop: int | None
) -> None:
    fields = Preprocessor(**changes)
    rgb = pixels = frame(size)
    if fields.do_resize:
        target = shortest(edge, *size) if edge else (96, 64)
        pixels = by_pil(rgb, *target, Image.Resampling(fields.resample))
    if crop:
        top, left = (pixels.shape[0] - crop) // 2, (pixels.shape[1] - crop) // 2
        pixels = pixels[top : top + crop, left : left + crop]
    scale = fields.rescale_factor if fields.do_rescale else 1.0
    wanted = (pixels * scale).astype(np.float32)
    if fields.do_normalize:
        mean, std = (np.array(each, np.float32) for each in (fields.image_mean, fields.image_std))
        wanted = (wanted - mean) / std
    clip = ClipPreprocessor(fields)
    for given in (rgb, torch.from_numpy(rgb)):
        assert np.array_equal(clip(given).permute(1, 2, 0), wanted)


def test_a_frame_smaller_than_its_crop_is_named() -> None:
    clip = ClipPreprocessor(Preprocessor(do_resize=False))
    with pytest.raises(InputError, match=r"crop of .*224.* does not fit .*\(40, 300\)"):
        clip(frame((40, 300)))


def test_a_frame_that_may_not_be_written_stays_as_it_is_and_is_no_warning() -> None:
    """As a message's bytes are."""
    rgb = frame((48, 64))
    held = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    plain = ClipPreprocessor(Preprocessor(do_resize=False, do_center_crop=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (held, held[:, ::-1]):
            for preprocess in (SamPreprocessor(64), ClipPreprocessor(Preprocessor()), plain):
                preprocess(given)
            assert upload(given, torch.device("meta")).shape == rgb.shape
    assert np.array_equal(held, rgb)


def test_pixels_do_not_depend_on_torchs_defaults(request: pytest.FixtureRequest) -> None:
    rgb, sam = frame((48, 64)), SamPreprocessor(64)
    wanted = sam(rgb)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    request.addfinalizer(lambda: torch.set_default_device(None))
    torch.set_default_dtype(torch.float64)
    found = sam(torch.from_numpy(rgb))
    assert (found.dtype, found.tolist()) == (torch.float32, wanted.tolist())
    torch.set_default_device("meta")
    assert upload(rgb, torch.device("meta")).shape == rgb.shape


def test_sam_starts_before_clips_pixels_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_engine()
    steps: list[str] = []

    def noted(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            steps.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    noted(engine.model, "encode_sam")
    noted(engine.model, "encode_clip")
    noted(ClipPreprocessor, "__call__")
    engine.encode(frame((48, 64)))
    assert steps == ["encode_sam", "__call__", "encode_clip"]


def test_a_frame_is_sent_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rgb = tiny_engine(), frame((48, 64))
    on_host = engine.encode(rgb)
    sent: list[Tensor] = []

    def send(frame: Rgb, device: torch.device) -> Tensor:
        sent.append(torch.from_numpy(frame))
        return sent[-1]

    monkeypatch.setattr("gsva_ros.engine.upload", send)
    # From here on nothing may go through PIL, which is on the host.
    monkeypatch.setattr(images.Image, "fromarray", None)
    on_device = engine.encode(rgb)
    assert len(sent) == 1
    assert torch.equal(on_device.image_embeddings, on_host.image_embeddings)


def test_preprocessing_leaves_the_frame_as_it_is() -> None:
    rgb = frame((64, 64))
    pixels, before = torch.from_numpy(rgb), rgb.copy()
    SamPreprocessor(64)(pixels)
    ClipPreprocessor(Preprocessor())(pixels)
    assert np.array_equal(rgb, before)
