"""Samples in the words of the official training and of the node; only answers are learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint

from gsva_ros.errors import InputError
from gsva_ros.model.losses import IGNORE
from gsva_ros.model.prompt import Turn
from gsva_ros.model.tokenizer import Special
from gsva_ros.train.batches import Batcher, jittered
from gsva_ros.train.conversations import Conversations, Row
from gsva_ros.train.sources.sample import Reasoning, Sample, Segments, Talk

IMAGE = np.zeros((6, 8, 3), np.uint8)
MASKS = np.zeros((2, 6, 8), bool)
MASKS[0, 1:4, 1:4] = True
#: More tokens than any sample has here.
MOST = 10_000
PROMPT = tiny_checkpoint(conversation="llava_v1").prompt


def texts(sample: Sample, words: str = "official", joint: bool = True) -> set[str]:
    """Everything that is asked and answered, over many draws; labels are looked at on the way."""
    talk, found = Conversations(PROMPT, words, joint), set()
    for seed in range(200):
        for row in talk.rows(sample, np.random.default_rng(seed), MOST):
            found.add(checked(row))
    return found


def checked(row: Row) -> str:
    """A row's text; what is learnt of it is what the assistant says, to its end."""
    learnt = [i for i in row.labels if i != IGNORE]
    following = zip(row.ids[1:], row.labels[:-1], strict=True)
    assert [i for i, label in following if label != IGNORE] == learnt
    assert row.labels[-1] == IGNORE
    text = PROMPT.tokenizer.decode(row.ids)
    said = "".join(
        part.partition("ASSISTANT:")[2].partition("USER:")[0] for part in text.split("</s>")
    )
    assert PROMPT.tokenizer.decode(learnt).replace("</s>", "").replace(" ", "") == said.replace(
        " ", ""
    )
    return text


def test_expressions_in_all_official_words() -> None:
    found = texts(Segments(IMAGE, ("The Mug", "a can."), MASKS))
    assert len(found) == 4 * 5
    assert all("the mug, a can" in text.partition("ASSISTANT:")[0] for text in found)
    assert any("Sure, they are The Mug:[SEG], a can:[REJ]." in text for text in found)
    assert any(
        "the mask of The Mug is [SEG], the mask of a can is [REJ]." in text for text in found
    )


def test_names_of_classes_stand_without_spaces_in_answers() -> None:
    found = texts(Segments(IMAGE, ("wall", "sky"), MASKS, classes=True))
    assert any("they are wall:[SEG],sky:[REJ]." in text for text in found)
    assert not any("[SEG], sky" in text for text in found)


def test_one_by_one_in_the_words_of_the_node() -> None:
    found = texts(Segments(IMAGE, ("The Mug", "a can"), MASKS), "deployed", joint=False)
    expected = {
        checked(Row(turn.ids, PROMPT.labels(turn), MASKS[:1]))
        for turn in (
            PROMPT.segment_turn(["The Mug"], [False]),
            PROMPT.segment_turn(["a can"], [True]),
        )
    }
    assert found == expected


def test_one_by_one_each_expression_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    talk, turn = Conversations(PROMPT, "deployed", joint=False), PROMPT.segment_turn
    asked: list[Sequence[str]] = []

    def kept(expressions: Sequence[str], rejected: Sequence[bool]) -> Turn:
        asked.append(expressions)
        return turn(expressions, rejected)

    monkeypatch.setattr(PROMPT, "segment_turn", kept)
    rng, none = np.random.default_rng(0), Segments(IMAGE, (), MASKS[:0])
    assert len(talk.rows(Segments(IMAGE, ("The Mug", "a can"), MASKS), rng, MOST)) == 2
    assert asked == [["The Mug"], ["a can"]]
    assert not talk.rows(none, rng, MOST)


@pytest.mark.parametrize("sentence", [True, False])
def test_questions_about_a_region(sentence: bool) -> None:
    plain = texts(Reasoning(IMAGE, "What Holds", sentence, MASKS[0]))
    assert len(plain) == (2 if sentence else 4) * 5
    assert all(("What Holds" in text) == sentence for text in plain)
    explained = texts(Reasoning(IMAGE, "What Holds", sentence, MASKS[0], "Because."))
    assert any("explain why" in text and "[SEG]. Because." in text for text in explained)
    alone = [text for text in explained if "[SEG]" not in text]
    assert alone
    assert all("ASSISTANT: Because." in text for text in alone)


def test_explanations_are_asked_for_half_the_time_and_a_tenth_are_words_alone() -> None:
    talk, count = Conversations(PROMPT, "official", True), 2000
    sample = Reasoning(IMAGE, "What holds?", True, MASKS[0], "Because.")
    rows = [talk.rows(sample, np.random.default_rng(seed), MOST)[0] for seed in range(count)]
    said = [PROMPT.tokenizer.decode(row.ids) for row in rows]
    alone = sum("[SEG]" not in text for text in said)
    assert alone / count == pytest.approx(0.1, abs=0.02)
    assert [len(row.masks) for row in rows] == [text.count("[SEG]") for text in said]
    asked = sum("expla" in text for text in said)
    assert asked / (count - alone) == pytest.approx(0.5, abs=0.04)


def test_talk_goes_on_and_learns_every_answer() -> None:
    (text,) = texts(Talk(IMAGE, (("What is it?", "A box."), ("Red?", "No."))))
    assert "USER: Red? ASSISTANT: No.</s>" in text
    (row,) = Conversations(PROMPT, "official", True).rows(
        Talk(IMAGE, (("What is it?", "A box."), ("Red?", "No."))), np.random.default_rng(0), MOST
    )
    learnt = PROMPT.tokenizer.decode([i for i in row.labels if i != IGNORE])
    assert learnt.replace(" ", "") == "Abox.</s>No.</s>"


def test_an_explanation_is_read_as_far_as_the_model_reads() -> None:
    config = tiny_checkpoint().model.config
    batcher = Batcher(Conversations(PROMPT, "official", True), config)
    sample = Reasoning(IMAGE, "what holds?", True, MASKS[0], "Because it does. " * 200)
    batches = [batcher([(sample, np.random.default_rng(seed))]) for seed in range(20)]
    for batch in batches:
        assert (batch.laid.ids == config.seg_token_id).sum() == len(batch.masks[0])
    longest = max(batch.laid.ids.shape[1] for batch in batches)
    prefix = len(PROMPT.before_image) + config.image_tokens + len(PROMPT.after_image)
    assert prefix + longest == config.llm.max_position_embeddings
    cut = next(batch.laid for batch in batches if batch.laid.ids.shape[1] == longest)
    assert torch.equal(cut.labels[0, -9:-1], cut.ids[0, -8:])
    assert cut.labels[0, -1] == IGNORE  # what follows is cut off
    lost = Reasoning(IMAGE, "why " * 1000, True, MASKS[0])
    with pytest.raises(InputError, match="the model reads at most"):
        batcher([(lost, np.random.default_rng(0))])
    with pytest.raises(InputError, match=r"sources\.1: .*shorten or remove it"):
        batcher.check(lost.query, "sources.1")


@pytest.mark.parametrize("words", ["official", "deployed"])
def test_a_conversation_that_would_be_too_long_is_divided(words: str) -> None:
    config = tiny_checkpoint().model.config
    batcher = Batcher(Conversations(PROMPT, words, True), config)
    expressions = tuple(f"mug {k}" for k in range(8))
    masks = np.zeros((8, 6, 8), bool)
    masks[np.arange(0, 8, 2), 1, np.arange(0, 8, 2)] = True
    batch = batcher([(Segments(IMAGE, expressions, masks), np.random.default_rng(0))])
    ids = batch.laid.ids[0]
    assert 1 < ids.eq(PROMPT.tokenizer.ids[Special.EOS]).sum() < 8
    assert batch.laid.position_ids.max() < config.positions
    slots = ids[ids.eq(config.seg_token_id) | ids.eq(config.rej_token_id)]
    assert slots.eq(config.seg_token_id).tolist() == [True, False] * 4
    assert torch.equal(batch.masks[0].bool(), torch.from_numpy(masks))


def test_jitter_varies_brightness_and_by_half_as_much_the_tint() -> None:
    levels = np.repeat(np.array([0, 100, 255], np.uint8), 3).reshape(1, 3, 3)
    drawn = np.stack([jittered(levels, 0.2, np.random.default_rng(n))[0] for n in range(400)])
    black, grey, white = drawn.transpose(1, 0, 2) / np.array([1, 100, 255])[:, None, None]
    assert not black.any()
    assert white.max() == 1.0
    assert (white >= np.minimum(grey, 1.0) - 0.01).all()  # too bright is white, not dark
    assert 0.71 <= grey.min() < 0.78
    assert 1.22 < grey.max() <= 1.32
    tint = grey / grey.mean(1, keepdims=True)
    assert 0.86 <= tint.min() < 0.91
    assert 1.09 < tint.max() <= 1.14
    assert abs(grey.mean() - 1.0) < 0.02


def test_jitter_changes_light_and_no_shape() -> None:
    config = tiny_checkpoint().model.config
    image = np.full((6, 8, 3), 100, np.uint8)
    image[2:4] = 200
    sample = Segments(image, ("the box",), MASKS[:1])

    def pixels(share: float, seed: int) -> np.ndarray:
        batcher = Batcher(Conversations(PROMPT, "deployed", False), config, share)
        return batcher([(sample, np.random.default_rng(seed))]).pixel_values.numpy()

    still = pixels(0.0, 0)
    assert np.array_equal(still, pixels(0.0, 1))
    assert not np.allclose(pixels(0.3, 0), pixels(0.3, 1))
    assert np.array_equal(pixels(0.3, 0), pixels(0.3, 0))
