"""The words around an instruction: conversation templates, slots, and where slots are decided.

Sources: LLaVA's conversation templates "llava_v1" and "llava_llama_2", and the question and the
answer that the official GSVA evaluation uses (its spacing included, which the weights know).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .config import GSVAConfig
from .families import FAMILIES, region_turn
from .losses import IGNORE
from .tokenizer import Part, Special, Tokenizer


@dataclass(frozen=True)
class Conversation:
    """One template: before the image, between the user's words and the answer, and after it.

    question: what asks for several expressions at once ("{}": all of them, joined by ", ").
    next_user: what stands before the user's next words, where a conversation goes on.
    lower: whether the user's words are read in lower case, because the weights know no other.
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

    ids: everything. answers: each answer's first index and the one behind its last. slots: indices
    *before* each slot token, whose hidden states decide the slot and prompt its mask.
    """

    ids: list[int]
    answers: list[tuple[int, int]]
    slots: list[int]


class Prompt:
    """Builds token ids for one model: what comes before the image, and turns after it."""

    def __init__(self, tokenizer: Tokenizer, config: GSVAConfig) -> None:
        """Raises InputError for a conversation that is none of CONVERSATIONS."""
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
        self.before_image = tokenizer.encode([Special.BOS, self.conversation.before, *start])
        self.after_image = tokenizer.encode([Special.IM_END] if around else [])

    @classmethod
    def load(cls, path: str | Path, config: GSVAConfig) -> Prompt:
        """With the `tokenizer.model` at `path`."""
        return cls(Tokenizer.load(path, config), config)

    def segment_turn(self, expressions: Sequence[str], rejected: Sequence[bool]) -> Turn:
        """Expressions asked in one question and answered in its words.

        Raises:
            ValueError: several, and the model's family asks one in a conversation.
        """
        question, words = self.conversation.question, [self._read(e) for e in expressions]
        return self.rounds([self.family.turn(question, words, rejected)])

    def region_turn(self, query: str, sentence: bool) -> Turn:
        """One region asked for by a phrase or by a sentence, and [SEG] for an answer."""
        return self.rounds([region_turn(query, sentence)])

    def ask_turn(self, text: str, expressions: Sequence[str], rejected: Sequence[bool]) -> Turn:
        """A free instruction, and the answer that names these expressions."""
        _, answer = self.family.turn("", [self._read(e) for e in expressions], rejected)
        return self.rounds([(f"\n{self._read(text)}", answer)])

    def ask(self, text: str) -> list[int]:
        """A free instruction up to where the model's answer begins."""
        return self.tokenizer.encode([f"\n{self._read(text)}{self.conversation.user_end}"])

    def slot(self, expression: str) -> list[int]:
        """One expression asked alone, up to and with the position that decides its slot."""
        turn = self.segment_turn([expression], [False])
        return turn.ids[: turn.slots[0] + 1]

    def full(self, turn: Turn) -> list[int]:
        """The whole sequence of a turn, IMAGE_TOKEN_ID where the image goes."""
        image = self.tokenizer.ids[Special.IMAGE]
        return [*self.before_image, image, *self.after_image, *turn.ids]

    def labels(self, turn: Turn) -> list[int]:
        """For each id of the turn, the id to predict at it; IGNORE inside the question."""
        labels = [IGNORE] * len(turn.ids)
        for first, end in turn.answers:
            labels[first - 1 : end - 1] = turn.ids[first:end]
        return labels

    def rounds(self, rounds: Sequence[tuple[str, Sequence[Part]]]) -> Turn:
        """Questions with their answers, one after another."""
        conversation, encode = self.conversation, self.tokenizer.encode
        ids: list[int] = []
        answers = []
        for number, (question, answer) in enumerate(rounds):
            opening = conversation.next_user if number else ()
            asked: list[Part] = [*opening, question + conversation.user_end]
            first = len(ids) + len(encode(asked))
            ids += encode(
                [*asked, conversation.answer_start, *answer, conversation.answer_end, Special.EOS]
            )
            answers.append((first, len(ids)))
        slot_ids = {self.tokenizer.ids.get(s) for s in (Special.SEG, Special.REJ)}
        slots = [at - 1 for at, i in enumerate(ids) if i in slot_ids]
        return Turn(ids, answers, slots)

    def _read(self, words: str) -> str:
        """A user's words as the weights know them."""
        return words.lower() if self.conversation.lower else words
