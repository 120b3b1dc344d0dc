"""The engine on a tiny random model: independence, real decoding, geometry, loading, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint

import gsva_ros
from gsva_ros import arguments
from gsva_ros.answer import Answer, ExpressionError, Rejection
from gsva_ros.asking import normalised
from gsva_ros.engine import BATCH, PRECISIONS, Engine, _expression_in, _readable
from gsva_ros.errors import InputError
from gsva_ros.loading import device_of, precision_of
from gsva_ros.model.bundled import model_directory
from gsva_ros.model.checkpoint import CheckpointError, load_converted, save_pretrained
from gsva_ros.model.mask_pixels import enlarger
from gsva_ros.model.official import multimodal_embeds, official_pass
from gsva_ros.model.prefix import ROOM, Branches
from gsva_ros.model.tokenizer import Special
from gsva_ros.model.writing import Writer

EXPRESSIONS = ["the red mug", "the can left of the ball on the table", "boxes", "[SEG]"]


def tiny_engine(**changes) -> Engine:
    return Engine(tiny_checkpoint(**changes), "tiny", torch.device("cpu"), "float32")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny_engine()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


def same(a: Answer, b: Answer) -> None:
    for x, y in zip(a.slots, b.slots, strict=True):
        assert (x.expression, x.rejected) == (y.expression, y.rejected)
        assert x.p_seg == pytest.approx(y.p_seg, abs=1e-5)
        if x.mask is not None and y.mask is not None:
            assert (x.mask != y.mask).mean() < 1e-3
            assert x.predicted_iou == pytest.approx(y.predicted_iou, abs=1e-4)


def test_an_expression_does_not_depend_on_the_others(engine: Engine, rgb: np.ndarray) -> None:
    frame = engine.encode(rgb)
    together = engine.segment(frame, EXPRESSIONS)
    assert (together.complete, together.tokens) == (True, 0)
    alone = [engine.segment(frame, [e]).slots[0] for e in EXPRESSIONS]
    same(together, Answer(alone, ""))
    same(engine.segment(frame, EXPRESSIONS[::-1]), Answer(together.slots[::-1], ""))
    assert len({round(s.p_seg, 4) for s in together.slots}) > 1


@pytest.fixture
def torchs_defaults() -> Iterator[None]:
    """Restores them after the test."""
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("torchs_defaults")
@pytest.mark.parametrize("refiner", [None, [4, 6, 8]])
@pytest.mark.parametrize(
    ("change", "to"),
    [(torch.set_default_dtype, torch.float64), (torch.set_default_device, "meta")],
)
def test_an_answer_does_not_depend_on_torchs_defaults(
    change: Callable[[Any], None], to: Any, refiner: list[int] | None, rgb: np.ndarray
) -> None:
    engine = tiny_engine(refiner=refiner)

    def answer() -> Answer:
        enlarger.cache_clear()
        return engine.segment(engine.encode(rgb), EXPRESSIONS, threshold=0.0)

    usual = answer()
    assert any(slot.region for slot in usual.slots)
    change(to)
    same(answer(), usual)


def test_more_expressions_than_a_batch(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = engine.encode(rgb)
    decode, counts = engine.model.decode_masks, []

    def counted(image: torch.Tensor, prompts: torch.Tensor) -> tuple:
        counts.append(len(prompts))
        return decode(image, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(engine.model, "decode_masks", counted)
        many = engine.segment(frame, EXPRESSIONS * 10, threshold=0.0)
    assert (max(counts), sum(counts)) == (BATCH, 40)
    same(many, Answer(engine.segment(frame, EXPRESSIONS, threshold=0.0).slots * 10, ""))


def test_cached_prefix_equals_a_whole_pass(engine: Engine, rgb: np.ndarray) -> None:
    """Branches behind the cache decide as one uncached pass over the whole prompt does."""
    model, prompt = engine.model, engine.prompt
    frame = engine.encode(rgb)
    for slot in engine.segment(frame, EXPRESSIONS).slots:
        turn = prompt.segment_turn([slot.expression], [False])
        ids = torch.tensor([prompt.full(turn)])
        with torch.inference_mode():
            image_tokens = model.project(model.encode_clip(engine._clip(rgb)[None]))
            hidden = model.language(multimodal_embeds(model, ids, image_tokens))
            at = frame.prefix_length + turn.slots[0]
            logits = model.lm_head(hidden[0, at])
        pair = logits[[model.config.seg_token_id, model.config.rej_token_id]]
        assert slot.p_seg == pytest.approx(float(pair.softmax(-1)[0]), abs=1e-5)


def test_masks_equal_the_official_pass(engine: Engine, rgb: np.ndarray) -> None:
    model, prompt = engine.model, engine.prompt
    frame = engine.encode(rgb)
    slot = engine.segment(frame, ["the red mug"], threshold=0.0).slots[0]
    turn = prompt.segment_turn(["the red mug"], [False])
    with torch.inference_mode():
        image_tokens = model.project(model.encode_clip(engine._clip(rgb)[None]))
    official = official_pass(
        model,
        image_tokens,
        frame.image_embeddings,
        torch.tensor(prompt.full(turn)),
        frame.resized,
        frame.size,
    )
    assert slot.mask is not None
    assert (slot.mask != (official.pred_masks[0] > 0).numpy()).mean() < 1e-3
    assert slot.predicted_iou == pytest.approx(float(official.predicted_iou[0]), abs=1e-4)


def test_the_frame_matters(engine: Engine, rgb: np.ndarray) -> None:
    one = engine.segment(engine.encode(rgb), EXPRESSIONS)
    other = engine.segment(engine.encode(255 - rgb), EXPRESSIONS)
    assert any(abs(a.p_seg - b.p_seg) > 1e-4 for a, b in zip(one.slots, other.slots, strict=True))


def test_masks_and_boxes(engine: Engine, rgb: np.ndarray) -> None:
    for slot in engine.segment(engine.encode(rgb), EXPRESSIONS, threshold=0.0).slots:
        if slot.box is None:
            assert slot.rejection is Rejection.EMPTY_MASK
            continue
        assert slot.mask is not None
        assert slot.mask.shape == rgb.shape[:2]
        assert slot.mask.dtype == bool
        x0, y0, x1, y1 = slot.box
        assert slot.mask[y0:y1, x0:x1].sum() == slot.mask.sum()
        assert slot.mask[y0:y1, x0].any()
        assert slot.mask[y1 - 1, x0:x1].any()


def test_the_threshold_rejects(engine: Engine, rgb: np.ndarray) -> None:
    frame = engine.encode(rgb)
    answer = engine.segment(frame, EXPRESSIONS, threshold=1.0)
    assert all(s.rejection is Rejection.MODEL and s.mask is None for s in answer.slots)
    assert answer.text.count("[REJ]") == len(EXPRESSIONS)
    each = engine.segment(frame, EXPRESSIONS, threshold=[0.0, 1.0, 0.0, 1.0])
    assert [s.rejection is Rejection.MODEL for s in each.slots] == [False, True, False, True]
    assert engine.rejection_threshold == engine.config.rejection_threshold
    with pytest.raises(AttributeError):
        engine.rejection_threshold = 0.1


def test_an_empty_mask_is_a_rejection_of_its_own_kind(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = engine.model.decode_masks

    def nothing_drawn(image: torch.Tensor, prompts: torch.Tensor) -> tuple:
        masks, iou = decode(image, prompts)
        return torch.full_like(masks, -1.0), iou

    monkeypatch.setattr(engine.model, "decode_masks", nothing_drawn)
    slots = engine.segment(engine.encode(rgb), EXPRESSIONS, threshold=0.0).slots
    assert all(s.rejection is Rejection.EMPTY_MASK and s.rejected for s in slots)
    assert all(s.mask is None and s.box is None for s in slots)
    # What the model rejects stays so, whatever it would have drawn.
    slots = engine.segment(engine.encode(rgb), EXPRESSIONS, threshold=1.0, mask_rejected=True).slots
    assert all(s.rejection is Rejection.MODEL for s in slots)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["mask", "iou", "decision"])
def test_damaged_weights_are_a_fault_and_no_rejection(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch, value: float, part: str
) -> None:
    frame = engine.encode(rgb)
    if part != "decision":
        decode = engine.model.decode_masks

        def damaged(image: torch.Tensor, prompts: torch.Tensor) -> tuple:
            masks, iou = decode(image, prompts)
            masks, iou = masks.clone(), iou.clone()
            (iou if part == "iou" else masks[:, 0, 0])[0] = value
            return masks, iou

        monkeypatch.setattr(engine.model, "decode_masks", damaged)
    else:
        score = engine._slot_logits

        def broken(hidden: torch.Tensor) -> torch.Tensor:
            logits = score(hidden).clone()
            logits[0] = torch.nan
            return logits

        monkeypatch.setattr(engine, "_slot_logits", broken)
    first, second = engine.segment(frame, EXPRESSIONS[:2], threshold=0.0).slots
    assert "finite" in first.fault
    assert not first.rejected
    assert first.mask is None
    assert not second.fault
    assert [first.expression, second.expression] == EXPRESSIONS[:2]
    assert first.size == frame.size
    if part == "decision":
        assert first.p_seg == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_of_no_numbers_is_a_fault(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    score = Writer._scored
    monkeypatch.setattr(Writer, "_scored", lambda writer, states: score(writer, states) * value)
    answer = engine.ask(engine.encode(rgb), "the mug")
    (slot,) = answer.slots
    assert "finite" in slot.fault
    assert not slot.rejected
    assert (answer.text, answer.tokens) == ("", 0)


def test_a_threshold_is_any_real_number(engine: Engine, rgb: np.ndarray) -> None:
    frame = engine.encode(rgb)
    for one in (
        np.float32(1.0),
        np.float64(1.0),
        np.int64(1),
        Fraction(1),
        np.array(1.0),
        torch.tensor(1.0),
    ):
        slots = engine.segment(frame, EXPRESSIONS, threshold=one).slots
        assert all(slot.rejected for slot in slots)


def test_a_slot_has_the_words_as_they_were_asked(engine: Engine, rgb: np.ndarray) -> None:
    words = ["  the red box\n", "the red box"]
    slots = engine.segment(engine.encode(rgb), words).slots
    assert [slot.expression for slot in slots] == words
    assert slots[0].p_seg == pytest.approx(slots[1].p_seg, abs=1e-5)


def test_more_together_than_the_model_can_read_is_told(engine: Engine, rgb: np.ndarray) -> None:
    with pytest.raises(ExpressionError, match="a joint prompt is too long"):
        engine.segment(engine.encode(rgb), ["the red box"] * 1000, joint=True)


def test_nothing_asked(engine: Engine, rgb: np.ndarray) -> None:
    assert engine.segment(engine.encode(rgb), []).slots == []


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_joint_prompt_feeds_its_own_decisions(
    engine: Engine, rgb: np.ndarray, threshold: float
) -> None:
    frame = engine.encode(rgb)
    answer = engine.segment(frame, EXPRESSIONS, joint=True, threshold=threshold)
    rejected = [s.rejection is Rejection.MODEL for s in answer.slots]
    turn = engine.prompt.segment_turn(EXPRESSIONS, rejected)
    with torch.inference_mode():
        hidden = engine._continuation(frame, len(turn.ids)).append(turn.ids, range(len(turn.ids)))
        logits = engine.model.lm_head(hidden[turn.slots])
    config = engine.config
    expected = logits[:, [config.seg_token_id, config.rej_token_id]].softmax(-1)[:, 0]
    np.testing.assert_allclose([s.p_seg for s in answer.slots], expected, atol=1e-5)


@pytest.mark.parametrize("rejected", [[], [0], [1], [0, 2]])
def test_joint_prompt_is_read_again_only_behind_a_rejection(
    engine: Engine, rgb: np.ndarray, rejected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = engine.encode(rgb)
    thresholds = [1.0 if n in rejected else 0.0 for n in range(len(EXPRESSIONS))]
    lengths: list[int] = []

    read = engine._read

    def counted(embeds: torch.Tensor, *given: Any, **more: Any) -> Any:
        lengths.append(embeds.shape[1])
        return read(embeds, *given, **more)

    monkeypatch.setattr(engine, "_read", counted)
    answer = engine.segment(frame, EXPRESSIONS, joint=True, threshold=thresholds)
    assert [s.rejection is Rejection.MODEL for s in answer.slots] == [t == 1.0 for t in thresholds]
    # The last slot has nothing behind it that would have to be read again.
    assert len(lengths) == 1 + len([n for n in rejected if n < len(EXPRESSIONS) - 1])


def test_many_expressions_are_one_pass_that_copies_no_prefix(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = engine.encode(rgb)
    before = [keys.data_ptr() for keys, _ in frame.prefix.layers]
    alone = [engine.segment(frame, [e], threshold=0.0).slots[0] for e in EXPRESSIONS]
    passes: list[int] = []

    read = engine._read

    def counted(embeds: torch.Tensor, cache: Any, *given: Any) -> Any:
        passes.append(len(embeds))
        states = read(embeds, cache, *given)
        used = [layer._keys.data_ptr() for layer in cache.layers]
        assert used == before
        return states

    monkeypatch.setattr(engine, "_read", counted)
    together = engine.segment(frame, EXPRESSIONS, threshold=0.0).slots
    assert passes == [1]
    for one, other in zip(alone, together, strict=True):
        assert one.p_seg == pytest.approx(other.p_seg, abs=1e-4)
        assert np.array_equal(one.mask, other.mask)


def test_more_than_the_room_behind_the_prefix(engine: Engine, rgb: np.ndarray) -> None:
    """Long expressions, more tokens in all than stand ready: the same decisions."""
    frame = engine.encode(rgb)
    long = [f"{'red ' * 12}mug {n}" for n in range(12)]
    ids = sum(len(engine.prompt.slot(e)) for e in long)
    assert ids > ROOM
    together = engine.segment(frame, long).slots
    for slot in together:
        alone = engine.segment(frame, [slot.expression]).slots[0]
        assert alone.p_seg == pytest.approx(slot.p_seg, abs=1e-4)


def test_long_expressions_are_read_in_several_passes(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass takes grows with the square of its ids."""
    frame = engine.encode(rgb)
    asked = [*EXPRESSIONS, "red " * 30 + "mug", *EXPRESSIONS]
    together = engine.segment(frame, asked)
    longest = max(len(engine.prompt.slot(e)) for e in asked)
    monkeypatch.setattr("gsva_ros.engine.IDS", longest)
    sizes: list[int] = []
    of = Branches.of

    def counted(sequences: Any) -> Branches:
        tree = of(sequences)
        sizes.append(len(tree.ids))
        return tree

    monkeypatch.setattr(Branches, "of", counted)
    same(engine.segment(frame, asked), together)
    assert len(sizes) > 2
    assert max(sizes) == longest


def scripted(engine: Engine, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Make the model write these ids, whatever it sees; everything else stays real."""

    class Scripted(Writer):
        def _scored(self, states: torch.Tensor) -> torch.Tensor:
            scores = super()._scored(states).clone()
            for row, word in enumerate(ids[len(self.written) :][: len(states)]):
                scores[row, word] += 1e4
            return scores

    monkeypatch.setattr("gsva_ros.engine.Writer", Scripted)


def test_ask_collects_the_slots_it_writes(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = engine.prompt.ask_turn("clear up", ["the red mug", "the [SEG] can"], [False, True])
    scripted(engine, monkeypatch, turn.ids[turn.answers[0][0] :])
    answer = engine.ask(engine.encode(rgb), "clear up")
    assert answer.text == "Sure, the red mug: [SEG], the [seg] can: [REJ]."
    assert [s.expression for s in answer.slots] == ["the red mug", "the [seg] can"]
    assert [s.rejection is Rejection.MODEL for s in answer.slots] == [False, True]
    assert answer.complete
    assert answer.slots[0].predicted_iou is not None


def test_what_the_model_writes_without_commas_is_named_whole(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = engine.prompt.tokenizer
    parts = ["the mug:", Special.SEG, "the can:", Special.SEG, Special.EOS]
    scripted(engine, monkeypatch, tokens.encode(parts))
    answer = engine.ask(engine.encode(rgb), "clear up", threshold=0.0)
    assert [s.expression for s in answer.slots] == ["the mug", "the can"]


def test_what_fits_the_context_to_the_last_token_is_answered(
    engine: Engine, rgb: np.ndarray
) -> None:
    frame = engine.encode(rgb)
    room = engine.config.llm.max_position_embeddings - frame.prefix_length

    def long(tokens: int, ids: Callable[[str], list[int]]) -> str:
        texts = (start + "z" * n for start in ("", "the ") for n in range(room))
        return next(text for text in texts if len(ids(text)) == tokens)

    slot, ask = engine.prompt.slot, engine.prompt.ask
    assert len(engine.segment(frame, [long(room, slot)]).slots) == 1
    with pytest.raises(ExpressionError, match=f"takes {room + 1} tokens .* has room for {room};"):
        engine.segment(frame, [long(room + 1, slot)])
    assert engine.ask(frame, long(room - 1, ask)).tokens == 1
    with pytest.raises(ExpressionError, match=f"takes {room} tokens .* has room for {room};"):
        engine.ask(frame, long(room, ask))


def test_timings_are_of_the_call(engine: Engine, rgb: np.ndarray) -> None:
    begun = time.perf_counter()
    frame = engine.encode(rgb)
    encoded = time.perf_counter() - begun
    for call in (
        lambda: engine.segment(frame, EXPRESSIONS),
        lambda: engine.segment(frame, EXPRESSIONS, joint=True),
        lambda: engine.ask(frame, "hand me the mug", max_new_tokens=3),
    ):
        begun = time.perf_counter()
        timings = call().timings
        taken = time.perf_counter() - begun
        assert list(timings) == ["encode", "decide", "mask"]
        assert min(timings.values()) > 0
        assert timings["encode"] <= encoded
        assert timings["decide"] + timings["mask"] <= taken


def test_ask_decodes_as_without_a_cache(engine: Engine, rgb: np.ndarray) -> None:
    text = "hand me the red mug"
    frame = engine.encode(rgb)
    answer = engine.ask(frame, text, max_new_tokens=12)
    model, ids, written = engine.model, engine.prompt.ask(text), []
    full = [*engine.prompt.before_image, -200, *engine.prompt.after_image, *ids]
    with torch.inference_mode():
        image_tokens = model.project(model.encode_clip(engine._clip(rgb)[None]))
        for _ in range(12):
            embeds = multimodal_embeds(model, torch.tensor([full + written]), image_tokens)
            logits = model.lm_head(model.language(embeds)[0, -1])
            token = int(logits.argmax())
            if token == engine.prompt.tokenizer.ids[Special.EOS]:
                break
            if token in (engine._seg, engine._rej):
                pair = logits[[engine._seg, engine._rej]]
                token = (engine._seg, engine._rej)[int(pair.argmax())]
            written.append(token)
    assert answer.text == _readable(engine.prompt.tokenizer.decode(written))


def test_ask_stops_at_its_limit(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(engine, monkeypatch, [engine.prompt.tokenizer.encode(["mug"])[0]] * 3)
    answer = engine.ask(engine.encode(rgb), "talk", max_new_tokens=3)
    assert not answer.complete
    assert answer.slots == []


@pytest.mark.parametrize(
    ("words", "expression"),
    [
        ("Sure,the red mug:", "the red mug"),
        (", the can:", "the can"),
        ("Sure, the mask of the island is ", "the island"),
        ("It is ", "asked"),
        ("", "asked"),
        ("Surely a mug:", "Surely a mug"),
    ],
)
def test_expressions_in_answers(words: str, expression: str) -> None:
    assert _expression_in(words, "asked") == expression


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (None, TypeError),
        (np.zeros((4, 4, 3), np.float32), TypeError),
        (np.zeros((4, 4), np.uint8), ValueError),
        (np.zeros((4, 4, 4), np.uint8), ValueError),
        (np.zeros((0, 4, 3), np.uint8), ValueError),
    ],
)
def test_bad_frames(engine: Engine, bad: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        engine.encode(bad)


@pytest.mark.parametrize(
    "pasted",
    ["the\xa0red mug", "the\tred\nmug\n", "the\u202fred m\xadug", "\ufeffthe\tred\u200b mug"],
)
def test_pasted_words_are_read_as_typed_ones(engine: Engine, rgb: np.ndarray, pasted: str) -> None:
    frame = engine.encode(rgb)
    for joint in (False, True):
        typed = engine.segment(frame, ["the red mug", "a can"], joint=joint)
        answer = engine.segment(frame, [pasted, "a can"], joint=joint)
        assert [s.expression for s in answer.slots] == [pasted, "a can"]
        assert [s.p_seg for s in answer.slots] == [s.p_seg for s in typed.slots]
        assert answer.text == typed.text
    assert engine.ask(frame, pasted).text == engine.ask(frame, "the red mug").text


def test_runs_of_spaces_stay() -> None:
    """Slow LLaMA tokenizers have tokens for them, which the official weights were trained with."""
    assert normalised(" two  red\r\nmugs ") == "two  red  mugs"


@pytest.mark.parametrize("text", ["", "  \n", "\xad\u200b", "mug " * 500, "\ud800"])
def test_bad_expressions(engine: Engine, rgb: np.ndarray, text: str) -> None:
    frame = engine.encode(rgb)
    for ask in (
        lambda: engine.segment(frame, ["the mug", text]),
        lambda: engine.segment(frame, ["the mug", text], joint=True),
        lambda: engine.ask(frame, text),
    ):
        with pytest.raises(ExpressionError):
            ask()
    with pytest.raises(ExpressionError) as caught:
        engine.segment(frame, ["the mug", text, "the can", text])
    assert caught.value.faults.keys() == {1, 3}
    assert str(caught.value) == caught.value.faults[1]


def test_a_free_form_request_is_checked_as_expressions_are(engine: Engine, rgb: np.ndarray) -> None:
    frame = engine.encode(rgb)
    for threshold in (-0.1, 1.1, float("nan"), [0.5, 0.5]):
        with pytest.raises(ValueError, match="threshold"):
            engine.ask(frame, "the mug", threshold=threshold)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another engine"):
        engine.ask(tiny_engine().encode(rgb), "the mug")
    with pytest.raises(TypeError, match=r"frame must be from engine.encode\(rgb\), not ndarray"):
        engine.ask(rgb, "the mug")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an instruction is a str, not int"):
        engine.ask(frame, 3)  # type: ignore[arg-type]


def test_an_answer_without_room_for_a_token_is_not_asked_for(
    engine: Engine, rgb: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="max_new_tokens is at least 1, not 0"):
        engine.ask(engine.encode(rgb), "the mug", max_new_tokens=0)


def test_thin_frames(engine: Engine) -> None:
    with pytest.raises(InputError, match="thin"):
        engine.encode(np.zeros((1, 500, 3), np.uint8))
    frame = engine.encode(np.zeros((1, 1, 3), np.uint8))
    assert len(engine.segment(frame, ["the mug"]).slots) == 1


def test_bfloat16_keeps_positions_exact(rgb: np.ndarray) -> None:
    engine = Engine(tiny_checkpoint(), "tiny", torch.device("cpu"), "bfloat16")
    answer = engine.segment(engine.encode(rgb), EXPRESSIONS)
    assert len(answer.slots) == len(EXPRESSIONS)
    assert engine.model.dtype == torch.bfloat16
    assert engine.model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_saved_and_loaded(engine: Engine, rgb: np.ndarray, tmp_path: Path) -> None:
    save_pretrained(engine.model, engine.prompt.tokenizer, tmp_path)
    again = gsva_ros.load(str(tmp_path), device="cpu")
    expected = engine.segment(engine.encode(rgb), EXPRESSIONS)
    same(again.segment(again.encode(rgb), EXPRESSIONS), expected)
    assert len(again.weights_hash) == 64


def test_what_does_not_load(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="bundled"):
        gsva_ros.load("no-such-model")
    with pytest.raises(ValueError, match="vision_tower"):
        gsva_ros.load(tmp_path, weights="x.bin")
    save_pretrained(engine.model, engine.prompt.tokenizer, tmp_path)
    for device in ("abacus", "meta", "mps"):
        with pytest.raises(InputError, match="device is auto"):
            gsva_ros.load(tmp_path, device=device)
    with pytest.raises(InputError, match="there is no device 'cuda:99'; CUDA sees"):
        gsva_ros.load(tmp_path, device="cuda:99")
    with pytest.raises(ValueError, match="dtype"):
        gsva_ros.load(tmp_path, dtype="int3")
    config = json.loads((tmp_path / "config.json").read_text())
    config["llm"]["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"missing model\.layers\.2\."):
        load_converted(tmp_path)


def test_devices_are_those_that_cuda_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """By index from 0; and where there is one, the model runs on it in bfloat16 unless told otherwise."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of(name).index for name in ("cuda:0", "cuda:1")] == [0, 1]
    with pytest.raises(InputError, match="there is no device 'cuda:2'; CUDA sees 2"):
        device_of("cuda:2")
    chosen = device_of("auto")
    assert (chosen.type, precision_of("auto", chosen)) == ("cuda", "bfloat16")
    assert precision_of("auto", torch.device("cpu")) == "float32"
    assert precision_of("float16", chosen) == "float16"


def test_only_names_of_bundled_folders_are_bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    for place, name in ((tmp_path, "."), (tmp_path / "inner", ".."), (tmp_path, "inner/..")):
        monkeypatch.chdir(place)
        assert model_directory(name).samefile(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model ''.*gsva-mini"):
        model_directory("")


def test_a_link_to_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As `cp -r runs/x/model DEST` leaves one."""
    link = tmp_path / "model"
    link.symlink_to("model-000012")
    with pytest.raises(FileNotFoundError, match=r"model': a link to 'model-000012', .*cp -rL"):
        model_directory(link)


def test_import_is_light() -> None:
    code = (
        "import sys, gsva_ros; assert gsva_ros.__version__[0].isdigit(), gsva_ros.__version__;"
        "heavy = {'torch', 'transformers', 'rclpy'} & set(sys.modules); assert not heavy, heavy"
    )
    root = Path(gsva_ros.__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    "command",
    [
        "gsva_ros.load()",
        "cli.main(['segment', '/x.png', 'the mug'])",
        "cli.main(['eval', 'scenes', '--data', '/x'])",
    ],
)
def test_a_working_folder_that_is_gone_is_told(tmp_path: Path, command: str) -> None:
    """MKL's words are "FATAL ERROR: Cannot load .../torch/lib/libtorch_cpu.so"."""
    (tmp_path / "gone").mkdir()
    code = f"import os, gsva_ros; from gsva_ros import cli; os.rmdir(os.getcwd()); {command}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(gsva_ros.__file__).resolve().parents[1])},
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the folder that this was started in has been removed" in done.stderr
    assert "FATAL" not in done.stderr


def full_gpu(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")


def full_cpu(*_: object, **__: object) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("full", "said"),
    [
        (full_gpu, r"^CUDA out of memory; choose another device"),
        (full_cpu, r"can't allocate memory.*; choose another device"),
    ],
)
def test_a_full_device_is_a_memory_error(
    full: Callable[..., None],
    said: str,
    engine: Engine,
    rgb: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What callers without torch can tell from other errors."""
    frame = engine.encode(rgb)
    monkeypatch.setattr(engine, "_read", full)
    for call in (
        lambda: engine.encode(rgb),
        lambda: engine.segment(frame, ["the mug"]),
        lambda: engine.ask(frame, "the mug"),
    ):
        with pytest.raises(MemoryError, match=said):
            call()


def test_an_error_that_is_not_of_memory_stays_what_it_is(
    engine: Engine, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(engine, "_read", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        engine.encode(rgb)


def test_many_masks_of_a_large_frame_take_little_memory() -> None:
    """Sixteen masks at 4000 x 3000: brought to the frame's size one at a time, kept as crops."""
    code = (
        "import resource, numpy as np, torch; from tiny import tiny_checkpoint\n"
        "from gsva_ros.engine import Engine\n"
        "engine = Engine(tiny_checkpoint(), 'tiny', torch.device('cpu'), 'float32')\n"
        "rgb = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), np.uint8)\n"
        "frame = engine.encode(rgb)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "engine.segment(frame, ['a'], threshold=0.0); one = peak()\n"
        "found = engine.segment(frame, [f'x{i}' for i in range(16)], threshold=0.0); many = peak()\n"
        "kept = sum(s.crop.size for s in found.slots if s.crop is not None) / 2**20\n"
        "print(one, many, kept)\n"
    )
    root = Path(gsva_ros.__file__).resolve().parents[1]
    path = [str(root), str(Path(__file__).resolve().parents[1] / "support")]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    one, many, kept = map(float, done.stdout.split())
    # Together, 16 masks' logits alone would be 730 MiB.
    assert many - one < kept + 250, done.stdout


def test_an_argument_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="no argument colour"):
        gsva_ros.load("gsva-mini", colour="red")
    with pytest.raises(ValueError, match="vision_tower"):
        gsva_ros.load("gsva-mini", weights="gsva.bin")


def test_the_precisions_that_help_names_are_the_engines() -> None:
    assert tuple(PRECISIONS) == arguments.PRECISIONS
