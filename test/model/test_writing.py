"""Tokens that are guessed and read together are those that are read one by one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch

import gsva_ros
from gsva_ros.engine import Engine
from gsva_ros.model import writing
from gsva_ros.model.tokenizer import Special
from gsva_ros.model.writing import Writer, expected_answer, things_named

REQUESTS = [
    "please hand me the red mug",
    "bring me the blue bowl, the can and all bottles on the left",
    "is there a mug?",
    "the the the the",
    "Grab both plates then the green box next to the can!",
    "what is on the table?",
    "mug",
]


class Reciting:
    """A `Continuation` whose next token is a function of all before it, as a deterministic model's is."""

    def __init__(self, vocabulary: int, recited: Sequence[int] = ()) -> None:
        self.read: list[int] = []
        self.passes: list[int] = []
        self._vocabulary, self._recited = vocabulary, list(recited)

    def follows(self, tokens: Sequence[int]) -> int:
        if len(tokens) < len(self._recited) and self._recited[: len(tokens)] == list(tokens):
            return self._recited[len(tokens)]
        return zlib.crc32(bytes(str(list(tokens[-3:])), "ascii")) % self._vocabulary

    def append(self, ids: Sequence[int], wanted: Sequence[int]) -> torch.Tensor:
        start = len(self.read)
        self.read += ids
        self.passes.append(len(ids))
        return torch.tensor([[self.follows(self.read[: start + i + 1])] for i in wanted]).float()

    def rewind(self, count: int) -> None:
        assert count <= len(self.read)
        del self.read[count:]

    def score(self, states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(states[:, 0].long(), self._vocabulary).float()


@pytest.fixture(scope="module")
def mini() -> Engine:
    engine = gsva_ros.load("gsva-mini", device="cpu")
    assert isinstance(engine, Engine)
    return engine


def answering(mini: Engine, continuation: Reciting, text: str, most: int) -> Writer:
    prompt, ids = mini.prompt, mini.prompt.tokenizer.ids
    slots = {ids[Special.SEG], ids[Special.REJ]}
    return Writer(
        continuation,
        continuation.score,
        prompt.ask(text),
        expected_answer(prompt, text),
        slots,
        most,
    )


def written(writer: Writer, continuation: Reciting, most: int, spoilt: frozenset[int]) -> list[int]:
    """So many tokens, some replaced as a threshold replaces a slot; checked one by one."""
    for number in range(most):
        found = writer.next()
        before = writer._tokens
        assert found.token == continuation.follows(before), "what the tokens before it say"
        assert int(found.scores.argmax()) == found.token == int(found.state[0])
        assert continuation.read[: len(before)] == before
        writer.write(found.token ^ 1 if number in spoilt else found.token)
    return writer.written


@pytest.mark.parametrize("vocabulary", [2, 3, 8, 1204])
@pytest.mark.parametrize("text", REQUESTS)
@pytest.mark.parametrize("most", [1, 2, 13, 40])
def test_each_token_follows_from_all_before_it(
    mini: Engine, text: str, most: int, vocabulary: int
) -> None:
    """Of small vocabularies, guesses are right by chance, wrong after some, and repeat what was wrong."""
    rng = np.random.default_rng(most)
    continuation = Reciting(vocabulary)
    writer = answering(mini, continuation, text, most)
    spoilt = frozenset(int(k) for k in np.flatnonzero(rng.random(most) < 0.2))
    assert len(written(writer, continuation, most, spoilt)) == most
    limit = len(mini.prompt.ask(text)) + most
    assert len(continuation.read) <= limit, "no more than there is room for"
    assert max(continuation.passes) <= limit


def test_an_answer_as_expected_takes_two_passes(mini: Engine) -> None:
    text = "bring me the blue bowl and the can"
    answer = expected_answer(mini.prompt, text)
    assert answer == mini.prompt.ask_turn(text, ["the blue bowl", "the can"], [False] * 2).ids
    continuation = Reciting(1204, answer)
    most = len(answer) - len(mini.prompt.ask(text))
    writer = answering(mini, continuation, text, most)
    assert mini.prompt.ask(text) + written(writer, continuation, most, frozenset()) == answer
    assert most > 11
    assert len(continuation.passes) == 2


def test_a_rejection_ends_a_pass_and_no_more(mini: Engine) -> None:
    text = "bring me the blue bowl, the can and the mug"
    turn = mini.prompt.ask_turn(text, ["the blue bowl", "the can", "the mug"], [True, True, False])
    continuation = Reciting(1204, turn.ids)
    most = len(turn.ids) - len(mini.prompt.ask(text))
    writer = answering(mini, continuation, text, most)
    written(writer, continuation, most, frozenset())
    assert len(continuation.passes) == 3


@pytest.mark.parametrize("static", [False, True])
def test_answers_do_not_depend_on_guesses(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = gsva_ros.load("gsva-mini", device="cpu", static=static)
    frame = engine.encode(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    ask = [(text, limit, most) for text in REQUESTS for limit in (0.0, 1.0) for most in (3, 128)]
    guessed = [engine.ask(frame, t, threshold=p, max_new_tokens=m) for t, p, m in ask]
    monkeypatch.setattr(writing, "GUESSED", 0)
    alone = [engine.ask(frame, t, threshold=p, max_new_tokens=m) for t, p, m in ask]
    for one, other in zip(guessed, alone, strict=True):
        assert (one.text, one.tokens, one.complete) == (other.text, other.tokens, other.complete)
        assert [s.expression for s in one.slots] == [s.expression for s in other.slots]
        for a, b in zip(one.slots, other.slots, strict=True):
            assert a.p_seg == pytest.approx(b.p_seg, abs=1e-4)
            assert (a.rejection, a.box) == (b.rejection, b.box)


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("please hand me the red mug", ["the red mug"]),
        ("The cup, please!", ["The cup"]),
        ("find a box, the plate and then both cans please.", ["a box", "the plate", "both cans"]),
        ("find  the\n cup , and\tthe can", ["the cup", "the can"]),
        ("the mug please", ["the mug"]),
        ("the" + " " * 100_000 + "cup" + "!" * 100_000 + "x", ["the cup" + "!" * 100_000 + "x"]),
        ("hello", ["hello"]),
        ("?!", ["?!"]),
        ("and", ["and"]),
    ],
)
def test_what_a_request_seems_to_name(text: str, things: list[str]) -> None:
    assert things_named(text) == things
