"""Work in fixed shapes, against the same work in the shapes that it has. Graphs need a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint

import gsva_ros
from gsva_ros.engine import Engine
from gsva_ros.model.static import Replayed, Static, bucket, padded_length

WORDS = [
    "the red mug",
    "the can left of the ball on the table",
    "boxes",
    "[SEG]",
    "all green boxes",
]


def engine(static: bool) -> Engine:
    return Engine(tiny_checkpoint(), "tiny", torch.device("cpu"), "float32", static=static)


@pytest.fixture(scope="module")
def both() -> tuple[Engine, Engine]:
    return engine(False), engine(True)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in range(2)]


def same(plain: Any, fixed: Any) -> None:
    assert plain.text == fixed.text
    for a, b in zip(plain.slots, fixed.slots, strict=True):
        assert (a.expression, a.rejection) == (b.expression, b.rejection)
        assert a.p_seg == pytest.approx(b.p_seg, abs=1e-5)
        assert (a.mask is None) == (b.mask is None)
        if a.mask is not None:
            assert (a.mask != b.mask).mean() < 1e-3
            assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-4)


def test_a_prefix(both, pictures):
    plain, fixed = (e.encode(pictures[0]).prefix for e in both)
    assert plain.length == fixed.length
    for ours, theirs in zip(plain.layers, fixed.layers, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a[:, :, : plain.length], b[:, :, : plain.length], atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 21])
def test_expressions(both, pictures, count):
    asked = [f"{WORDS[n % 5]} {n}" for n in range(count)]
    same(*(e.segment(e.encode(pictures[0]), asked, threshold=0.0) for e in both))


@pytest.mark.parametrize("rejected", [[], [0], [1, 3], [0, 1, 2, 3, 4]])
def test_a_joint_prompt(both, pictures, rejected):
    limits = [1.0 if n in rejected else 0.0 for n in range(len(WORDS))]
    same(*(e.segment(e.encode(pictures[0]), WORDS, joint=True, threshold=limits) for e in both))


@pytest.mark.parametrize("most", [1, 40])
def test_free_text(both, pictures, most):
    plain, fixed = (
        e.ask(e.encode(pictures[0]), "hand me the mug", max_new_tokens=most) for e in both
    )
    assert plain.text
    same(plain, fixed)


def test_an_answer_as_long_as_it_may_be_has_room(pictures):
    plain, fixed = (
        e.ask(e.encode(pictures[0]), "hand me the mug", max_new_tokens=150)
        for e in (engine(False), engine(True))
    )
    assert plain.tokens > 64
    same(plain, fixed)


def test_frames_in_turn(both, pictures):
    plain, fixed = ([e.encode(p) for p in pictures] for e in both)
    for number in (0, 1, 1, 0):
        same(
            both[0].segment(plain[number], WORDS, threshold=0.0),
            both[1].segment(fixed[number], WORDS, threshold=0.0),
        )


def test_what_a_graph_relies_on(pictures, monkeypatch):
    """Few shapes, and inputs, keys and values that stay where they are."""
    fixed = engine(True)
    static = fixed._static
    inputs: dict[Replayed, set[tuple[int, ...]]] = {}
    buffers: set[tuple[int, ...]] = set()
    made = Replayed.__call__

    def watched(self: Replayed, *given: torch.Tensor) -> Any:
        inputs.setdefault(self, set()).add(tuple(x.data_ptr() for x in self._inputs))
        return made(self, *given)

    monkeypatch.setattr(Replayed, "__call__", watched)
    requests = (WORDS[1:5], WORDS[:1], WORDS[2:3], WORDS[:3])
    for picture in pictures:
        frame = fixed.encode(picture)
        for words in requests:
            fixed.segment(frame, words, threshold=0.0)
            buffers.add(tuple(x.data_ptr() for layer in static._buffers for x in layer))
    assert len(buffers) == 1
    assert all(len(where) == 1 for where in inputs.values())
    # The prefix; one and four masks; one and four branches, in one or two sizes.
    assert len(inputs) <= 1 + 2 + 4
    assert set(inputs) == set(static._replayed.values())


def test_buckets():
    assert [bucket(n) for n in (1, 2, 3, 4, 5, 16, 17)] == [1, 2, 4, 4, 8, 16, 32]
    lengths = {2: 16, 16: 16, 17: 32, 33: 48, 100: 112, 129: 160, 257: 320}
    assert {n: padded_length(n) for n in lengths} == lengths
    assert all(n <= padded_length(n) < n + max(n / 4, 16) for n in range(1, 3000))


def test_buffers_grow_and_graphs_are_made_anew(pictures):
    fixed, plain = engine(True), engine(False)
    frames = [e.encode(pictures[0]) for e in (plain, fixed)]
    fixed.segment(frames[1], WORDS[:1])
    static = fixed._static
    assert isinstance(static, Static)
    before = static.length
    asked = [f"{'red ' * 12}mug {n}" for n in range(12)]
    same(plain.segment(frames[0], asked), fixed.segment(frames[1], asked))
    assert static.length > before
    same(plain.segment(frames[0], WORDS), fixed.segment(frames[1], WORDS))


def test_what_is_kept_while_others_are_read():
    """A slot's state prompts its mask when all are decided: later passes are not to write over it."""
    plain, fixed = (gsva_ros.load("gsva-mini", device="cpu", static=s) for s in (False, True))
    picture = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    things = ["the green can", "the red mug", "the blue bowl", "the box", "all balls", "the bottle"]
    for threshold in (0.0, 0.02, 1.0):
        same(
            *(
                e.ask(e.encode(picture), f"find {', '.join(things)}", threshold=threshold)
                for e in (plain, fixed)
            )
        )
    many = [f"{thing} {number}" for number in range(6) for thing in things]
    same(*(e.segment(e.encode(picture), many, threshold=0.0) for e in (plain, fixed)))
