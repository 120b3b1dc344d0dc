"""Weights of 8 and 4 bits: what is stored how, what it takes, and how far answers move."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import gsva_ros
from gsva_ros.bench import counting
from gsva_ros.errors import InputError
from gsva_ros.model.host_memory import drop_pages
from gsva_ros.model.quantised import QUANTISED, large, nbytes

pytestmark = pytest.mark.skipif(
    find_spec("torchao") is None, reason="int8 and int4 need torchao (extra small)"
)
SCENE = Path(__file__).resolve().parents[1] / "data/scene.png"
ASKED = ["the mug", "the red box", "the ball", "all cans", "the bottle", "the farthest box"]


@pytest.fixture(scope="module")
def whole():
    return gsva_ros.load("gsva-mini", device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=QUANTISED)
def few(request):
    return gsva_ros.load("gsva-mini", device="cpu", dtype=request.param)


@pytest.fixture(scope="module")
def rgb():
    return cv2.imread(str(SCENE))[..., ::-1].copy()


def test_answers_stay_close(whole, few, rgb):
    want, got = (e.segment(e.encode(rgb), ASKED, threshold=0.0).slots for e in (whole, few))
    assert any(s.p_seg > 0.9 for s in want)
    assert any(s.p_seg < 0.1 for s in want)
    moved = [abs(a.p_seg - b.p_seg) for a, b in zip(want, got, strict=True)]
    assert 0 < max(moved) < 0.15
    alike = {"int8": 0.9, "int4": 0.8}[few.precision]
    for a, b in zip(want, got, strict=True):
        if a.p_seg > 0.9:
            assert (a.mask & b.mask).sum() > alike * (a.mask | b.mask).sum()
    assert few.ask(few.encode(rgb), "segment the mug").slots


def test_what_is_stored_in_few_bits(whole, few):
    layers = list(large(few.model, few.precision))
    language, towers = QUANTISED[few.precision]
    inside = {id(linear) for linear in few.model.model.layers.modules()}
    for linear, bits in layers:
        assert bits == (language if id(linear) in inside else towers)
        assert nbytes(linear.weight) < linear.weight.numel() * (0.6 if bits == 4 else 1.1)
    assert len(layers) > 7 * len(few.model.model.layers)
    # The rest is as it was, rounded.
    held = dict(few.model.named_parameters())
    kept = {name for name in held if not hasattr(held[name], "tensor_data_names")}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= kept
    for name in kept:
        want = whole.model.get_parameter(name).bfloat16()
        assert torch.equal(held[name], want), name


def test_each_layer_gives_nearly_what_it_gave(whole, few):
    originals = dict(whole.model.named_modules())
    names = {id(module): name for name, module in few.model.named_modules()}
    for linear, bits in large(few.model, few.precision):
        original: nn.Linear = originals[names[id(linear)]]
        x = torch.randn(5, linear.in_features)
        with torch.inference_mode():
            want, got = original(x), linear(x.bfloat16()).float()
        assert (got - want).norm() < (0.02 if bits == 8 else 0.15) * want.norm()


def test_the_count_is_what_the_weights_take(few):
    taken = sum(nbytes(p) for p in few.model.parameters())
    assert counting.weight_bytes(few.config)[few.precision] == taken


def test_without_torchao(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(
        InputError, match=r"torchao 0\.18.*\[small\].*on a robot, that package alone"
    ):
        gsva_ros.load("gsva-mini", device="cpu", dtype="int8")


def test_pages_go_and_numbers_stay(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.arange(4e6)}, path)
    os.sync()
    with safe_open(path, "pt") as opened:
        mapped = opened.get_tensor("a")

    def resident() -> int:
        maps = Path("/proc/self/smaps").read_text()
        return sum(map(int, re.findall(rf"{path}\n(?:.*\n)*?Rss: +(\d+) kB", maps)))

    assert mapped.sum() > 0
    before = resident()
    drop_pages(mapped)
    anonymous = torch.arange(4e6)
    drop_pages(anonymous)
    after = resident()
    assert torch.equal(mapped, anonymous)
    assert before > 15_000
    kind = os.popen(f"stat -f -c %T {tmp_path}").read().strip()
    assert after < 2_000 or kind == "tmpfs"  # which has no file to take pages from
