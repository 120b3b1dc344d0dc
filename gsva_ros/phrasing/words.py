"""The words that scenes are spoken of with, and noun phrases read back from the generator's expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
#: Relations that only the household world asks for.
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
#: Ranks among things of one kind by size: of two, of any number.
SIZE_RANKS = {
    "large": ("larger", "bigger", "largest", "biggest"),
    "small": ("smaller", "smallest"),
}
SIDE_OF = {rank: side for side, ranks in SUPERLATIVES.items() for rank in ranks}
SIZE_OF = {rank: size for size, ranks in SIZE_RANKS.items() for rank in ranks}
#: What else people call a kind. A word that is itself a kind of the scenes is left out.
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
#: What leaves some out of all.
EXCEPT = ("but", "except")
IRREGULAR = {
    "knife": "knives",
    "mouse": "mice",
    "person": "people",
    "potato": "potatoes",
    "roll of tape": "rolls of tape",
    "scissors": "scissors",
    "sheep": "sheep",
    "pliers": "pliers",
    "tomato": "tomatoes",
    "tweezers": "tweezers",
}
#: Endings of plurals, with those that singulars have in their place.
_ENDINGS = {"s": ("",), "es": ("",), "ies": ("y",), "ves": ("f", "fe")}
BOTH = "both"
_DETERMINERS = ("the two", "the three", "the", "all", "every", BOTH)


def article(word: str) -> str:
    """The indefinite one."""
    return "an" if word[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """Of a noun, or of the last word of several."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def singulars(word: str) -> set[str]:
    """What a word may be the plural of, and the word itself; "vases" may be of "vas"."""
    found = {word} | {noun for noun, many in IRREGULAR.items() if many == word}
    for ending, others in _ENDINGS.items():
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            found |= {stem + other for other in others}
    return found


@dataclass(frozen=True)
class Phrase:
    """An expression in parts; "" where it has no such part.

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
        """Whether the noun is."""
        return self.noun != self.kind


@dataclass(frozen=True)
class Vocabulary:
    """Which words a set of scenes is spoken of with.

    Attributes:
        kinds, colours: names of classes, as its expressions spell them.
        synonyms: other names of kinds; SYNONYMS unless told.
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: SYNONYMS)

    @cached_property
    def _nouns(self) -> dict[str, str]:
        """Each noun that is read, and its singular."""
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
        """One that reads synonyms too, as kinds of their own."""
        return Vocabulary(tuple(sorted(self.names)), self.colours, self.synonyms)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name of a kind, synonyms among them."""
        others = (word for kind in self.kinds for word in self.other_names(kind))
        return frozenset((*self.kinds, *others))

    def read(self, text: str) -> Phrase | None:
        """The parts of an expression; None where it is not built that way."""
        found = self._pattern.fullmatch(text)
        if not found:
            return None
        determiner, rank, size, colour, noun, tail = (part or "" for part in found.groups())
        return Phrase(determiner, rank, size, colour, noun, self._nouns[noun], tail)

    def other_names(self, kind: str) -> tuple[str, ...]:
        """Synonyms of a kind that do not name another one."""
        return tuple(word for word in self.synonyms.get(kind, ()) if word not in self.kinds)

    def another_name(self, phrase: Phrase, rng: np.random.Generator) -> Phrase | None:
        """The phrase with a synonym for its noun; None where there is none."""
        others = self.other_names(phrase.kind)
        if not others:
            return None
        kind = pick(others, rng)
        return replace(phrase, noun=plural(kind) if phrase.plural else kind, kind=kind)


def _either(words: Iterable[str]) -> str:
    """A pattern of any of the words, longer ones first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
