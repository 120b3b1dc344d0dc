"""Absent expressions made from the labels of a frame and of others, so that rejection is not forgotten.

Labels may cover only some of a frame's things, so an expression counts as absent only if no label of the
frame contradicts that. Unlabelled things may still be there: label frames completely if that matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from ...phrasing.requests import RANKS
from ...phrasing.words import SYNONYMS, singulars

COLOURS = (
    "red",
    "green",
    "blue",
    "yellow",
    "white",
    "black",
    "orange",
    "purple",
    "pink",
    "brown",
    "grey",
)
_WORDS = re.compile(r"[a-z]+")
_IS_COLOUR = re.compile(rf"\b({'|'.join(COLOURS)}|gray)\b", re.IGNORECASE)
#: What an expression with several things may have between them.
_JOINS = re.compile(r"\b(?:and|or)\b|,", re.IGNORECASE)
#: A thing is named after one of these.
_DETERMINER = re.compile(r"\b(?:a|all|an|any|both|each|every|some|the)\b")
#: Words of an expression that do not name a thing.
_SMALL = frozenset(
    "a all an and any at behind between big both but each every except farthest four front in is "  # noqa: SIM905
    "large largest left leftmost nearest next of on or right rightmost small smallest some that the "
    "three to two with".split()
)
#: Words that name a thing of any kind.
_GENERIC = frozenset(
    "anything everything item items object objects one ones something thing things".split()  # noqa: SIM905
)
#: Nouns for things of many kinds: a fruit may be what another label calls an apple.
_SUPERORDINATES = frozenset(
    "animal appliance clothing component container cutlery device dish drink equipment food fruit "  # noqa: SIM905
    "furniture garbage groceries hardware litter machine package packaging part product rubbish "
    "snack stationery tableware tool toy trash utensil vegetable vehicle vessel waste workpiece".split()
)
#: Words before a superordinate that leave its kind open; others name a kind, as in "coffee machine".
_ADJECTIVES = RANKS.union(
    COLOURS,
    "back bottom cardboard ceramic clean dark dirty empty full glass heavy last leather light little "  # noqa: SIM905
    "long metal middle new old other paper plastic round rubber short square steel stone tall top "
    "wooden".split(),
)
#: Nouns for the same things; those of several words by the last one.
_SYNONYMS = [{kind, *(name.split()[-1] for name in names)} for kind, names in SYNONYMS.items()]


@dataclass(frozen=True)
class Known:
    """A present expression, and the number of its referents."""

    text: str
    referents: int


@dataclass(frozen=True)
class _Mention:
    """A thing that an expression names.

    colours: those before its noun. nouns: none if it may be of any kind. superordinate: whether its noun is
    for things of many kinds ("the fruit"). words: the expression from here on, without colours. count: the
    least number of such things.
    """

    colours: frozenset[str]
    nouns: frozenset[str]
    superordinate: bool
    words: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class _Label:
    """A present expression as it is spelt: all its nouns, and what it names, its referents first."""

    text: str
    nouns: frozenset[str]
    mentions: list[_Mention]


class Negatives:
    """Draws absent expressions for frames whose present ones are known.

    They are spelt like the present ones: capital letters must not tell the two apart.
    """

    def __init__(self, present: Sequence[Sequence[Known]]) -> None:
        """Args: present: for each frame, its present expressions."""
        frames = [[_label(known) for known in frame] for frame in present]
        named = [label for frame in frames for label in frame if label.mentions[0].nouns]
        labels = {label.text: label for label in named}.values()
        self._made = [(_elsewhere(labels, frame), _swapped(frame)) for frame in frames]

    def has_any(self, frame: int) -> bool:
        """Whether there is an absent expression to draw for a frame."""
        return any(self._made[frame])

    def draw(self, frame: int, count: int, rng: np.random.Generator) -> list[str]:
        """Up to `count` different expressions, about half of them at most with a swapped colour.

        They differ in more than capital letters.
        """
        elsewhere, swapped = self._made[frame]
        some = [swapped[k] for k in rng.permutation(len(swapped))[: (count + 1) // 2]]
        others = [elsewhere[k] for k in rng.permutation(len(elsewhere))[: count - len(some)]]
        return [*some, *others]


def _elsewhere(labels: Iterable[_Label], frame: Sequence[_Label]) -> list[str]:
    """Those labels that share no noun with this frame's."""
    here = frozenset().union(*(label.nouns for label in frame))
    # "The red one" may be a red mug; "the one on the left", without a colour, has a label by name, too.
    unnamed = [label.mentions[0] for label in frame if not label.mentions[0].nouns]
    colours = {colour for mention in unnamed for colour in mention.colours}
    of_any_kind = any(mention.superordinate and not mention.colours for mention in unnamed)
    if of_any_kind or (unnamed and len(unnamed) == len(frame)):
        return []  # "the fruit", or what has no label by name at all, may be of the kind of any label

    def is_absent(label: _Label) -> bool:
        own = label.mentions[0].colours
        return not label.nouns & here and not (colours and (not own or own & colours))

    return _once(label.text for label in labels if is_absent(label))


def _swapped(frame: Sequence[_Label]) -> list[str]:
    """Present expressions with their only colour replaced by one that no thing of the same name has."""
    mentions = [mention for label in frame for mention in label.mentions]
    of_any_colour = [m for m in mentions if not m.colours and m.count > _coloured(m, mentions)]
    unsure = {noun for mention in of_any_colour for noun in mention.nouns}
    found: list[str] = []
    for label in frame:
        named = label.mentions[0]
        alone = len(named.colours) == len(_IS_COLOUR.findall(label.text)) == 1
        if alone and not _JOINS.search(label.text) and named.nouns and not named.nouns & unsure:
            # "The red thing" may be of this name, too.
            same = [m for m in mentions if m.nouns & named.nouns or not m.nouns]
            colours = {colour for mention in same for colour in mention.colours}
            found += [_recoloured(label.text, c) for c in COLOURS if c not in colours]
    return _once(found)


def _recoloured(text: str, colour: str) -> str:
    """The text with its colour replaced, in capital letters where the replaced one is."""

    def spelt(found: re.Match[str]) -> str:
        if found[0].isupper():
            return colour.upper()
        return colour.capitalize() if found[0][0].isupper() else colour

    return _IS_COLOUR.sub(spelt, text)


def _once(texts: Iterable[str]) -> list[str]:
    """The texts in order, without those that differ from another in capital letters alone."""
    return sorted({text.lower(): text for text in texts}.values())


def _coloured(mention: _Mention, mentions: Sequence[_Mention]) -> int:
    """The least number of things of this description whose colour is known.

    If "all mugs" has three referents but only two colours are known, the third may have any colour.
    """
    counts: dict[frozenset[str], int] = {}
    for other in mentions:
        if len(other.colours) == 1 and _begins(other.words, mention.words):
            counts[other.colours] = max(counts.get(other.colours, 0), other.count)
    return sum(counts.values())


def _begins(words: Sequence[str], others: Sequence[str]) -> bool:
    """Whether the words begin with the others, singular or plural."""
    pairs = zip(words, others, strict=False)
    return len(words) >= len(others) and all(singulars(a) & singulars(b) for a, b in pairs)


def _label(known: Known) -> _Label:
    text = known.text.lower()
    parts = [words for part in _DETERMINER.split(text) if (words := _words(part))] or [[]]
    # Of "the red mug and the can" one is known to be a mug.
    first = 1 if _JOINS.search(text) and _IS_COLOUR.search(text) else known.referents
    counts = [first] + [1] * (len(parts) - 1)
    mentions = [_mention(parts[number:], count) for number, count in enumerate(counts)]
    return _Label(known.text, _nouns(_words(text)) | mentions[0].nouns, mentions)


def _mention(parts: Sequence[Sequence[str]], count: int) -> _Mention:
    """The first thing of an expression that was split at its determiners."""
    before = list(takewhile(lambda word: word in _SMALL or word in COLOURS, parts[0]))
    name = parts[0][len(before) :]
    head = list(takewhile(lambda word: word not in _SMALL, name))
    superordinate = _is_superordinate(head)
    if not name and before[-1:] == ["orange"]:  # the fruit
        before, nouns = before[:-1], frozenset({"orange"})
    else:
        of_any_kind = superordinate or {*head[:1], *head[-1:]} & _GENERIC
        nouns = frozenset() if of_any_kind else _nouns(name)
    return _Mention(
        colours=frozenset(before) & frozenset(COLOURS),
        nouns=nouns,
        superordinate=superordinate,
        words=tuple(word for part in parts for word in part if word not in COLOURS),
        count=count,
    )


def _is_superordinate(name: Sequence[str]) -> bool:
    """Whether a name is for things of many kinds: "wooden toys" is, "soft toys" and "toy car" are not."""
    has_noun = any(singulars(word) & _SUPERORDINATES for word in name[-1:])
    return has_noun and _ADJECTIVES.issuperset(name[:-1])


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.replace("gray", "grey"))


def _nouns(words: Iterable[str]) -> frozenset[str]:
    """The nouns among words, with every possible singular and synonym: two names of one thing share one."""
    others = {*_SMALL, *_GENERIC, *COLOURS}
    nouns = {noun for word in words if word not in others for noun in singulars(word)}
    return frozenset(nouns.union(*(group for group in _SYNONYMS if group & nouns)))
