"""The vocabulary of scenes, and a parser for noun phrases of generated expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..chance import pick

SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
GENERIC = ("object", "thing")
NUMBERS = {2: "two", 3: "three"}
ORDINALS = {2: "second", 3: "third", 4: "fourth"}
RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
}
#: Relations that only the household world uses.
MORE_RELATIONS = {
    "next": ("next to",),
    "on": ("on",),
    "in": ("in",),
    "under": ("under",),
}
SUPERLATIVES = {
    "left": ("leftmost",),
    "right": ("rightmost",),
    "front": ("nearest", "closest"),
    "behind": ("farthest",),
}
#: Ranks by size among things of one kind: comparatives for two, superlatives for any number.
SIZE_RANKS = {
    "large": ("larger", "bigger", "largest", "biggest"),
    "small": ("smaller", "smallest"),
}
SIDE_OF = {rank: side for side, ranks in SUPERLATIVES.items() for rank in ranks}
SIZE_OF = {rank: size for size, ranks in SIZE_RANKS.items() for rank in ranks}
#: Synonyms of kinds. `Vocabulary` skips those that are themselves a kind of the scenes.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "mug": ("cup", "coffee mug", "coffee cup"),
    "cup": ("mug",),
    "bowl": ("dish",),
    "box": ("carton", "cardboard box", "package"),
    "ball": ("sphere",),
    "can": ("tin", "soda can"),
    "bottle": ("flask",),
    "plate": ("saucer",),
    "cone": ("traffic cone", "pylon"),
    "glass": ("tumbler", "drinking glass"),
    "pan": ("frying pan", "skillet"),
    "pot": ("cooking pot", "saucepan"),
    "jar": ("jam jar",),
    "vase": ("flower vase",),
    "bucket": ("pail",),
    "block": ("brick", "cuboid"),
    "cube": ("block",),
    "screwdriver": ("screw driver",),
    "wrench": ("spanner",),
    "teapot": ("tea pot",),
    "pitcher": ("jug",),
    "torch": ("flashlight",),
    "flashlight": ("torch",),
    "tape": ("roll of tape",),
    "book": ("paperback",),
    "cylinder": ("tube",),
}
#: Words that introduce an exception.
EXCEPT = ("but", "except")
IRREGULAR = {
    "child": "children",
    "goggles": "goggles",
    "goose": "geese",
    "grapes": "grapes",
    "headphones": "headphones",
    "jeans": "jeans",
    "knife": "knives",
    "leaf": "leaves",
    "mouse": "mice",
    "person": "people",
    "pliers": "pliers",
    "potato": "potatoes",
    "roll of tape": "rolls of tape",
    "scarf": "scarves",
    "scissors": "scissors",
    "sheep": "sheep",
    "shelf": "shelves",
    "tomato": "tomatoes",
    "tongs": "tongs",
    "tooth": "teeth",
    "trousers": "trousers",
    "tweezers": "tweezers",
}
#: Plural endings, with the singular endings that they may replace.
_ENDINGS = {"s": ("",), "es": ("",), "ies": ("y",), "ves": ("f", "fe")}
BOTH = "both"
_DETERMINERS = ("the two", "the three", "the", "all", "every", BOTH)


def article(word: str) -> str:
    """The indefinite article of a word."""
    return "an" if word[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """The plural of a noun, or of several words by the last one."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def singulars(word: str) -> set[str]:
    """All possible singulars of a word, and the word itself; "vases" might come from "vas"."""
    found = {word} | {noun for noun, many in IRREGULAR.items() if many == word}
    for ending, others in _ENDINGS.items():
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            found |= {stem + other for other in others}
    return found


@dataclass(frozen=True)
class Phrase:
    """A parsed expression; "" for parts that it does not have.

    Attributes:
        determiner: "the", "all", "every", "both", "the two", "the three".
        rank: "leftmost", "second" and the like. size, colour: as typed. noun: a kind or "thing", as typed.
        kind: the noun in the singular.
        tail: what follows the noun: "left of the box", "from the left".
    """

    determiner: str
    rank: str
    size: str
    colour: str
    noun: str
    kind: str
    tail: str

    @property
    def plural(self) -> bool:
        """Whether the noun is plural."""
        return self.noun != self.kind


@dataclass(frozen=True)
class Vocabulary:
    """The words used for a set of scenes.

    Attributes:
        kinds, colours: class names as its expressions spell them.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]

    @cached_property
    def _nouns(self) -> dict[str, str]:
        """All nouns that can be parsed, with their singulars."""
        nouns = {noun: noun for noun in (*self.kinds, *GENERIC)}
        return nouns | {plural(noun): noun for noun in nouns}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        ranks = [*SIDE_OF, *SIZE_OF]
        sizes = [word for words in SIZE_WORDS.values() for word in words]
        return re.compile(
            rf"({_either(_DETERMINERS)}) (?:({_either([*ranks, *ORDINALS.values()])}) )?"
            rf"(?:({_either(sizes)}) )?(?:({_either(self.colours)}) )?"
            rf"({_either(self._nouns)})(?: (.+))?"
        )

    @cached_property
    def with_synonyms(self) -> Vocabulary:
        """A vocabulary that also parses synonyms, as separate kinds."""
        return Vocabulary(tuple(sorted(self.names)), self.colours)

    @cached_property
    def names(self) -> frozenset[str]:
        """All names of kinds, including synonyms."""
        others = (word for kind in self.kinds for word in self.other_names(kind))
        return frozenset((*self.kinds, *others))

    def read(self, text: str) -> Phrase | None:
        """Parse an expression; None if it does not match."""
        found = self._pattern.fullmatch(text)
        if not found:
            return None
        determiner, rank, size, colour, noun, tail = (part or "" for part in found.groups())
        return Phrase(determiner, rank, size, colour, noun, self._nouns[noun], tail)

    def other_names(self, kind: str) -> tuple[str, ...]:
        """Synonyms of a kind that are not themselves a kind."""
        return tuple(word for word in SYNONYMS.get(kind, ()) if word not in self.kinds)

    def another_name(self, phrase: Phrase, rng: np.random.Generator) -> Phrase | None:
        """The phrase with a synonym for its noun; None if it has none."""
        others = self.other_names(phrase.kind)
        if not others:
            return None
        kind = pick(others, rng)
        return replace(phrase, noun=plural(kind) if phrase.plural else kind, kind=kind)


def _either(words: Iterable[str]) -> str:
    """A regular expression that matches any of the words, longer ones first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
