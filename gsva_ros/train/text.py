"""Training text: gsva-mini's tokenizer, and branches from expressions and instructions."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import sentencepiece

from ..files import write_whole
from ..model.prompt import Prompt, Turn
from ..phrasing.forms import reworded
from ..phrasing.requests import how_many, request
from ..phrasing.unknown import NAMED, invented, renamed, unknown
from ..phrasing.words import Vocabulary, plural
from ..scenes import Expression
from .known import ANCHOR
from .packing import Branch

RELATION_WEIGHT = 6.0


def train_tokenizer(texts: Iterable[str], path: Path, vocab_size: int = 1200) -> None:
    """Train a sentencepiece model on these texts and write it to `path`; other text falls back to bytes."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    # Each process of a run writes it, while another may already read it.
    write_whole(path, model.getvalue())


class BranchWriter:
    """Turns a scene's expressions into branches, worded as people type, with the truth of every slot."""

    def __init__(self, prompt: Prompt, vocabulary: Vocabulary, unseen: float) -> None:
        """Args: unseen: fraction of branches that ask for a thing that no scene contains."""
        self.prompt, self.vocabulary, self.unseen = prompt, vocabulary, unseen
        self.unknown = unknown(NAMED, vocabulary)

    def sample(
        self,
        expressions: list[Expression],
        rng: np.random.Generator,
        simple: bool = False,
        photograph: bool = False,
        tokens: int = 320,
    ) -> list[Branch]:
        """Branches that fill `tokens` positions: most with one expression, some with several or free text.

        Args:
            photograph: see `SceneSet.photograph`.
            simple: only expressions by kind and colour, one per branch, in the generator's wording; if the
                scene has none, all its expressions.
        """
        if simple:
            plain = [e for e in expressions if self._plain(e)]
            order = [plain[i] for i in rng.permutation(len(plain))] or expressions
            return [self._segment([e]) for e in order]
        # Relations are the hardest and would be the rarest, so they are drawn early more often.
        hard = [RELATION_WEIGHT if ANCHOR.search(e.text) else 1.0 for e in expressions]
        keys = rng.random(len(expressions)) ** (1.0 / np.array(hard))
        order = [expressions[i] for i in np.argsort(-keys)]
        branches: list[Branch] = []
        room = tokens
        for number in itertools.count():
            asked, draw = rng.random() < 0.25, rng.random()
            size = how_many(rng) if asked else 1 if draw < 0.8 else int(rng.integers(2, 4))
            chosen = [order[(number + k) % len(order)] for k in range(size)]
            if rng.random() < self.unseen:
                chosen[0] = self._unseen(chosen[0], expressions, rng, photograph)
            chosen = [replace(e, text=reworded(e.text, self.vocabulary, rng)) for e in chosen]
            branch = self._ask(chosen, rng) if asked else self._segment(chosen)
            room -= len(branch.ids)
            if room < 0 and branches:
                break
            branches.append(branch)
        return branches

    def _plain(self, expression: Expression) -> bool:
        phrase = self.vocabulary.read(expression.text)
        return phrase is not None and not phrase.rank and not phrase.tail

    def _unseen(
        self,
        like: Expression,
        expressions: list[Expression],
        rng: np.random.Generator,
        photograph: bool = False,
    ) -> Expression:
        """An expression for a thing that no scene contains, in a fixed form or in the form of `like`.

        A photograph may show anything that has a name, so its nouns are all invented. Elsewhere, words of
        the same scene's present expressions are excluded: there may be an orange mug.
        """
        if rng.random() < 2 / 3 and not photograph:
            there = {word for e in expressions if e.targets for word in e.text.split()}
            noun = str(rng.choice([n for n in self.unknown if not there & {n, plural(n)}]))
        else:
            noun = invented(self.vocabulary, rng)
        colour = str(rng.choice(self.vocabulary.colours))
        form = str(rng.choice(["the {n}", "the {c} {n}", "a {n}", "all {ns}", "the {ns}"]))
        text = form.format(n=noun, c=colour, ns=plural(noun))
        if rng.random() < 0.5:
            text = renamed(like.text, noun, self.vocabulary, rng) or text
        return Expression(text, "unseen", ())

    def _segment(self, chosen: list[Expression]) -> Branch:
        texts, rejected = [e.text for e in chosen], [not e.targets for e in chosen]
        return self._branch(self.prompt.segment_turn(texts, rejected), chosen)

    def _ask(self, chosen: list[Expression], rng: np.random.Generator) -> Branch:
        asked = request([e.text for e in chosen], rng)
        named = [replace(e, text=text) for e, text in zip(chosen, asked.expressions, strict=True)]
        rejected = [not e.targets for e in chosen]
        return self._branch(self.prompt.ask_turn(asked.text, asked.expressions, rejected), named)

    def _branch(self, turn: Turn, chosen: list[Expression]) -> Branch:
        return Branch.of(self.prompt, turn, (e.targets for e in chosen), (e.text for e in chosen))
