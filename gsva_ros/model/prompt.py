"""The prompt around an instruction: conversation templates, and the positions that decide slots.

Sources: LLaVA's conversation templates "llava_v1" and "llava_llama_2", and the question and answer
of the official GSVA evaluation, including its spacing: the weights were trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from .config import GSVAConfig
from .families import FAMILIES, region_turn
from .losses import IGNORE
from .tokenizer import Part, Special, Tokenizer

#: Expressions whose ids are kept: a planner asks for the same ones about every frame.
KEPT = 1024


@dataclass(frozen=True)
class Conversation:
    """A template: the text before the image, between the user's words and the answer, and after it.

    question: asks for several expressions at once ("{}": all of them, joined by ", ").
    next_user: comes before the user's words in every later turn of the conversation.
    lower: whether free-form requests are lower-cased, because the weights were trained on lower case.
    """

    before: str
    user_end: str
    answer_start: str
    answer_end: str
    question: str
    next_user: tuple[Part, ...]
    lower: bool = False


OFFICIAL_QUESTION = "\n What are {}in this image? Please output segmentation masks."

CONVERSATIONS = {
    "llava_v1": Conversation(
        before="A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. "
        "USER: ",
        user_end=" ASSISTANT:",
        answer_start=" ",
        answer_end="",
        question=OFFICIAL_QUESTION,
        next_user=("USER: ",),
    ),
    "llava_llama_2": Conversation(
        before="[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to "
        "understand the visual content that the user provides, and assist the user with a variety "
        "of tasks using natural language.\n<</SYS>>\n\n",
        user_end=" [/INST]",
        answer_start=" ",
        answer_end=" ",
        question=OFFICIAL_QUESTION,
        next_user=(Special.BOS, "[INST] "),
    ),
    "gsva_mini": Conversation(
        before="USER: ",
        user_end=" ASSISTANT:",
        answer_start=" ",
        answer_end="",
        question="\nSegment {}.",
        next_user=("USER: ",),
        lower=True,
    ),
}


@dataclass(frozen=True)
class Turn:
    """Token ids of questions and their answers, after the image.

    ids: all of them. answers: [start, end) of each answer in `ids`. slots: the index *before* each
    slot token; the hidden state there decides the slot and prompts its mask.
    """

    ids: list[int]
    answers: list[tuple[int, int]]
    slots: list[int]


class Prompt:
    """Builds one model's token ids: those before the image, and the turns after it."""

    def __init__(self, tokenizer: Tokenizer, config: GSVAConfig) -> None:
        """Raises InputError if config.conversation is not in CONVERSATIONS."""
        if config.conversation not in CONVERSATIONS:
            known = ", ".join(CONVERSATIONS)
            raise InputError(
                f"{config.source}: conversation {config.conversation!r} is unknown; there are {known}"
            )
        self.tokenizer = tokenizer
        self.conversation = CONVERSATIONS[config.conversation]
        self.family = FAMILIES[config.family]
        around = config.use_im_start_end
        start: list[Part] = [Special.IM_START] if around else []
        self._end: list[Part] = [Special.IM_END] if around else []
        self.before_image = self._encode([Special.BOS, self.conversation.before, *start])
        self.after_image = self._encode(self._end)
        self._slot = lru_cache(KEPT)(self._slot_of)

    @classmethod
    def load(cls, path: str | Path, config: GSVAConfig) -> Prompt:
        """Create it with the `tokenizer.model` at `path`."""
        return cls(Tokenizer.load(path, config), config)

    def prefix_length(self, image_tokens: int) -> int:
        """Number of positions before a turn: the text around the image, and the image's tokens."""
        return len(self.before_image) + image_tokens + len(self.after_image)

    def segment_turn(self, expressions: Sequence[str], rejected: Sequence[bool]) -> Turn:
        """One question for all expressions, and its answer, which repeats each of them.

        Raises:
            ValueError: several expressions, but the model's family allows one per conversation.
        """
        return self.official_turn(self._trimmed(expressions), rejected)

    def official_turn(self, expressions: Sequence[str], rejected: Sequence[bool]) -> Turn:
        """As `segment_turn`, with the expressions written as in the official evaluation."""
        return self.rounds([self.family.turn(self.conversation.question, expressions, rejected)])

    def region_turn(self, query: str, sentence: bool) -> Turn:
        """A question for one region, given as a phrase or a sentence, answered with [SEG]."""
        return self.rounds([region_turn(query, sentence)])

    def ask_turn(self, text: str, expressions: Sequence[str], rejected: Sequence[bool]) -> Turn:
        """A free-form instruction, and the answer that names these expressions."""
        _, answer = self.family.turn("", self._trimmed(expressions), rejected)
        return self.rounds([(f"\n{self._cased(text)}", answer)])

    def answered(self, expressions: Sequence[str], rejected: Sequence[bool]) -> str:
        """What the model answers about expressions; without a joint prompt, one answer after the other."""
        several = max(1, len(expressions)) if self.family.joint else 1
        said = []
        for first in range(0, len(expressions), several):
            asked = slice(first, first + several)
            _, answer = self.family.turn("", self._trimmed(expressions[asked]), rejected[asked])
            said.append("".join(p.value if isinstance(p, Special) else p for p in answer))
        return " ".join(said)

    def ask(self, text: str) -> list[int]:
        """A free-form instruction, up to where the model's answer begins."""
        return self._first([f"\n{self._cased(text)}{self.conversation.user_end}"])

    def slot(self, expression: str) -> list[int]:
        """One expression asked alone, up to and including the position that decides its slot."""
        return list(self._slot(expression))

    def full(self, turn: Turn) -> list[int]:
        """The whole sequence of a turn, with IMAGE_TOKEN_ID in place of the image."""
        image = self.tokenizer.ids[Special.IMAGE]
        return [*self.before_image, image, *self.after_image, *turn.ids]

    def labels(self, turn: Turn) -> list[int]:
        """The id to predict at each position of the turn: the next one of an answer, else IGNORE."""
        labels = [IGNORE] * len(turn.ids)
        for first, end in turn.answers:
            labels[first - 1 : end - 1] = turn.ids[first:end]
        return labels

    def rounds(self, rounds: Sequence[tuple[str, Sequence[Part]]]) -> Turn:
        """Several rounds of question and answer as one sequence."""
        conversation = self.conversation
        ids: list[int] = []
        answers = []
        for number, (question, answer) in enumerate(rounds):
            encode = self._encode if number else self._first
            opening = conversation.next_user if number else ()
            asked: list[Part] = [*opening, question + conversation.user_end]
            first = len(ids) + len(encode(asked))
            ids += encode(
                [*asked, conversation.answer_start, *answer, conversation.answer_end, Special.EOS]
            )
            answers.append((first, len(ids)))
        slots = [at - 1 for at, i in enumerate(ids) if i in self.tokenizer.slot_ids]
        return Turn(ids, answers, slots)

    def _slot_of(self, expression: str) -> tuple[int, ...]:
        turn = self.segment_turn([expression], [False])
        return tuple(turn.ids[: turn.slots[0] + 1])

    def _encode(self, parts: Sequence[Part]) -> list[int]:
        """Ids of parts, stripped if the model's family strips."""
        return self.tokenizer.encode(parts, self.family.strips)

    def _first(self, parts: Sequence[Part]) -> list[int]:
        """Ids of the parts that follow `after_image`."""
        return self._encode([*self._end, *parts])[len(self._end) :]

    def _trimmed(self, expressions: Sequence[str]) -> list[str]:
        """Expressions without the characters that the model's family drops at their ends."""
        return [expression.strip(self.family.ends) for expression in expressions]

    def _cased(self, text: str) -> str:
        """A free-form request in the case that the weights were trained on."""
        return text.lower() if self.conversation.lower else text
