"""Forms in which people type a referring expression; some are held out of training, for testing.

A form changes the wording, never the meaning, and whether it applies depends on the wording alone. So it is
equally frequent for present and for absent things.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..chance import pick
from .typos import mistyped
from .words import (
    BOTH,
    GENERIC,
    MORE_RELATIONS,
    ORDINALS,
    RELATIONS,
    SIDE_OF,
    SIZE_OF,
    Phrase,
    Vocabulary,
    article,
)

#: Rewords an expression without changing its meaning; None if the form does not apply.
Form = Callable[[str, Vocabulary, np.random.Generator], str | None]

#: Relations that follow a noun, in the generator's wording.
_RELATIONS = (
    *(words for both in RELATIONS.values() for words in both),
    *(words for both in MORE_RELATIONS.values() for words in both),
    "between",
)


def written(phrase: Phrase, template: str) -> str:
    """Fill in a template's fields, without double spaces.

    Fields: the (determiner), rank, size, colour, noun, tail; one, is: singular or plural like the noun;
    a: the article before the colour; an: the article before the noun.
    """
    several = phrase.plural
    text = template.format(
        the=phrase.determiner,
        rank=phrase.rank,
        size=phrase.size,
        colour=phrase.colour,
        noun=phrase.noun,
        tail=phrase.tail,
        one="ones" if several else "one",
        **{"is": "are" if several else "is"},
        a=article(phrase.colour or phrase.noun),
        an=article(phrase.noun),
    )
    return " ".join(text.split()).replace(" ,", ",")


PLAIN = "{the} {rank} {size} {colour} {noun} {tail}"


def _of_phrase(say: Callable[[Phrase, np.random.Generator], str | None]) -> Form:
    """A form for expressions that can be parsed as a phrase."""

    def make(text: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
        phrase = words.read(text)
        return say(phrase, rng) if phrase else None

    return make


def _templates(*templates: str, where: Callable[[Phrase], bool]) -> Form:
    """A random one of the templates, for phrases for which `where` holds."""

    def say(phrase: Phrase, rng: np.random.Generator) -> str | None:
        return written(phrase, pick(templates, rng)) if where(phrase) else None

    return _of_phrase(say)


def _determiners(options: dict[tuple[str, bool], tuple[str, ...]]) -> Form:
    """Another determiner, by (determiner, whether the noun is plural)."""

    def say(phrase: Phrase, rng: np.random.Generator) -> str | None:
        if (phrase.determiner, phrase.plural) not in options:
            return None
        word = pick(options[phrase.determiner, phrase.plural], rng)
        if word == "a":
            if phrase.rank:
                return None
            word = article(phrase.size or phrase.colour or phrase.noun)
        return written(replace(phrase, determiner=word), PLAIN)

    return _of_phrase(say)


def _synonym(text: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
    phrase = words.read(text)
    if phrase is None:
        return None
    other = words.another_name(phrase, rng)
    return written(other, PLAIN) if other else None


def _ranks(options: dict[str, tuple[str, ...]]) -> Form:
    """A superlative worded after the noun; options by side."""

    def say(phrase: Phrase, rng: np.random.Generator) -> str | None:
        if phrase.rank not in SIDE_OF or phrase.tail:
            return None
        behind = pick(options[SIDE_OF[phrase.rank]], rng)
        return written(replace(phrase, rank="", tail=behind), PLAIN)

    return _of_phrase(say)


def _ordinals(options: tuple[str, ...]) -> Form:
    """ "the second can from the left" in other words; "{digits}": "2nd", "{side}": "left" or "right"."""

    def say(phrase: Phrase, rng: np.random.Generator) -> str | None:
        if phrase.rank not in ORDINALS.values():
            return None
        side = phrase.tail.removeprefix("from the ")
        number = {word: n for n, word in ORDINALS.items()}[phrase.rank]
        digits = f"{number}{ {2: 'nd', 3: 'rd'}.get(number, 'th') }"
        template = pick(options, rng).replace("{side}", side).replace("{digits}", digits)
        return written(phrase, template)

    return _of_phrase(say)


def _relation(before: tuple[str, ...], instead: dict[str, tuple[str, ...]]) -> Form:
    """Words inserted before a relation, or a synonym for it."""

    def say(phrase: Phrase, rng: np.random.Generator) -> str | None:
        relation = next((r for r in _RELATIONS if phrase.tail.startswith(f"{r} ")), None)
        if relation is None:
            return None
        tails = [f"{b} {phrase.tail}" for b in before]
        others = instead.get(relation, ())
        tails += [f"{o}{phrase.tail.removeprefix(relation)}" for o in others]
        tail = pick(tails, rng).replace("{is}", "are" if phrase.plural else "is")
        return written(replace(phrase, tail=tail), PLAIN)

    return _of_phrase(say)


def _anchor(forms: Sequence[Form]) -> Form:
    """The anchor of a relation in another form."""

    def make(text: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
        phrase = words.read(text)
        if phrase is None or " the " not in f" {phrase.tail}":
            return None
        start, _, _ = text.rpartition(" the ")
        anchor = text[len(start) + 1 :]
        made = [m for form in forms if (m := form(anchor, words, rng))]
        return f"{start} {pick(made, rng)}" if made else None

    return make


def _instead(options: dict[str, tuple[str, ...]]) -> Form:
    """A replacement for the first of these strings that the expression contains."""

    def make(text: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
        held = next((part for part in options if part in text), None)
        return text.replace(held, pick(options[held], rng), 1) if held else None

    return make


def _around(*templates: str) -> Form:
    """Words before or after the whole expression, which replaces "{}"."""

    def make(text: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
        return pick(templates, rng).replace("{}", text)

    return make


def _typos(count: int) -> Form:
    def make(text: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
        for _ in range(count):
            wrong = mistyped(text, rng)
            if wrong is None:
                return None
            text = wrong
        return text

    return make


def _coloured(phrase: Phrase) -> bool:
    return bool(phrase.colour)


def _bare(phrase: Phrase) -> bool:
    """Whether the colour can follow the noun: there is one, and neither a tail nor a rank."""
    return bool(phrase.colour) and not phrase.tail and not phrase.rank


def _sized(phrase: Phrase) -> bool:
    return bool(phrase.size) and not phrase.tail and not phrase.rank


def _ranked_by_size(phrase: Phrase) -> bool:
    return phrase.rank in SIZE_OF and not phrase.tail


_COLOURED = _templates(
    "{the} {rank} {size} {colour}-coloured {noun} {tail}",
    "{the} {rank} {size} {colour} coloured {noun} {tail}",
    "{the} {rank} {size} {colour}-colored {noun} {tail}",
    "{the} {rank} {size} {colour} colored {noun} {tail}",
    where=_coloured,
)
_NO_ARTICLE = _determiners({("the", False): ("",)})

TAUGHT: dict[str, Form] = {
    "plain": _around("{}"),
    "article": _determiners(
        {
            ("the", False): ("", "", "a", "a", "my", "that"),
            ("the", True): ("", "my", "those"),
            ("all", True): ("all the", "all of the"),
            ("every", False): ("each",),
            (BOTH, True): ("both the", "the two"),
            ("the two", True): ("two", BOTH),
            ("the three", True): ("three", "all three"),
        }
    ),
    "coloured": _COLOURED,
    "that is": _templates("{the} {size} {noun} that {is} {colour}", where=_bare),
    "that is large": _templates("{the} {colour} {noun} that {is} {size}", where=_sized),
    "which is": _templates("{the} {size} {noun} which {is} {colour}", where=_bare),
    "apposition": _templates(
        "{the} {size} {noun}, the {colour} {one}",
        where=lambda p: _bare(p) and p.determiner != "every",
    ),
    "in colour": _templates("{the} {size} {noun} in {colour}", where=_bare),
    "one": _templates(
        "{the} {rank} {size} {colour} {one} {tail}",
        where=lambda p: p.kind in GENERIC and bool(p.colour or p.size),
    ),
    "synonym": _synonym,
    "superlative": _ranks(
        {
            "left": ("on the far left", "furthest to the left", "farthest left"),
            "right": ("on the far right", "furthest to the right", "farthest right"),
            "front": ("closest to me", "nearest to me", "closest to the camera"),
            "behind": ("farthest away", "furthest from me", "farthest from the camera"),
        }
    ),
    "ordinal": _ordinals(
        (
            "{the} {digits} {size} {colour} {noun} from the {side}",
            "{the} {rank} {size} {colour} {noun} from {side}",
            "from the {side}, {the} {rank} {size} {colour} {noun}",
        )
    ),
    "relation": _relation(
        ("that {is}",),
        {
            "left of": ("on the left of", "on the left side of"),
            "right of": ("on the right of", "on the right side of"),
            "to the left of": ("on the left of",),
            "to the right of": ("on the right of",),
            "next to": ("beside", "by", "near"),
            "between": ("in between",),
            "on": ("on top of",),
            "in": ("inside", "inside of"),
            "under": ("below", "underneath"),
        },
    ),
    "size": _templates(
        "{the} {colour} {noun} that {is} {rank}",
        "{the} {colour} {noun} that {is} the {rank}",
        where=_ranked_by_size,
    ),
    "not": _instead(
        {
            " that is not ": (" that isn't ", " which is not "),
            " that are not ": (" that aren't ", " which are not "),
        }
    ),
    "part": _instead(
        {
            " with a ": (" that has a ", " which has a "),
            " without a ": (" that has no ", " with no "),
            " with stripes": (" that has stripes",),
            " without stripes": (" that has no stripes", " with no stripes"),
        }
    ),
    "except": _instead({" but the ": (" except for the ",), " except the ": (" apart from the ",)}),
    "use": _instead(
        {
            "anything to ": ("a thing to ", "anything i can "),
            "something to ": ("something one can ", "some thing to "),
            "something i can ": ("something that i can ",),
        }
    ),
    "anchor": _anchor((_COLOURED, _NO_ARTICLE, _synonym)),
    "punctuation": _around("{}.", "{}!", "{}?", "{} .", "{}...", "{}, please", "{} please"),
    "typo": _typos(1),
}
#: Never used in training.
HELD_OUT: dict[str, Form] = {
    "other article": _determiners(
        {
            ("the", False): ("your", "this", "our"),
            ("the", True): ("your", "these"),
            ("all", True): ("all those", "all my"),
            ("every", False): ("each and every",),
            (BOTH, True): ("both of the",),
            ("the two", True): ("these two",),
            ("the three", True): ("these three",),
        }
    ),
    "whose colour": _templates("{the} {size} {noun} whose colour is {colour}", where=_bare),
    "with a colour": _templates("{the} {size} {noun} with {a} {colour} colour", where=_bare),
    "coloured behind": _templates("{the} {size} {noun} coloured {colour}", where=_bare),
    "one that is a": _templates(
        "{the} {size} {colour} one that is {an} {noun}",
        where=lambda p: _bare(p) and not p.plural and p.kind not in GENERIC,
    ),
    "other apposition": _templates(
        "{the} {size} {noun}, {colour}", where=lambda p: _bare(p) and p.determiner != "every"
    ),
    "other superlative": _ranks(
        {
            "left": ("all the way to the left", "that is furthest left"),
            "right": ("all the way to the right", "that is furthest right"),
            "front": ("nearest to the camera", "that is closest"),
            "behind": ("furthest from the camera", "that is farthest"),
        }
    ),
    "other ordinal": _ordinals(
        (
            "{the} {size} {colour} {noun} that is {rank} from the {side}",
            "{the} {size} {colour} {noun}, {rank} from the {side}",
        )
    ),
    "other relation": _relation(("which {is}", "standing"), {}),
    "other not": _instead(
        {" that is not ": (" which isn't ",), " that are not ": (" which aren't ",)}
    ),
    "other part": _instead(
        {
            " with a ": (" having a ",),
            " without a ": (" lacking a ",),
            " with stripes": (" having stripes",),
            " without stripes": (" lacking stripes",),
        }
    ),
    "other except": _instead(
        {" but the ": (" other than the ",), " except the ": (" besides the ",)}
    ),
    "other use": _instead(
        {
            "anything to ": ("anything that could be used to ", "any object to "),
            "something to ": ("something we could ",),
            "something i can ": ("something that lets me ",),
        }
    ),
    "courtesy": _around("{} thank you", "um, {}", "{}, thanks!"),
    "two typos": _typos(2),
}
FORMS = TAUGHT | HELD_OUT
_KEPT = 0.35  # fraction of training expressions that stay as generated


def in_form(
    text: str, forms: Mapping[str, Form], words: Vocabulary, rng: np.random.Generator
) -> tuple[str, str] | None:
    """The expression in a random form of those that apply, and the form's name; None if none applies."""
    names = list(forms)
    for number in rng.permutation(len(forms)):
        name = names[int(number)]
        made = forms[name](text, words, rng)
        if made:
            return made, name
    return None


def reworded(text: str, words: Vocabulary, rng: np.random.Generator) -> str:
    """The expression as used in training: unchanged, or in one or several taught forms."""
    if rng.random() < _KEPT:
        return text
    # Names and anchors first: their result can still be parsed by the other forms.
    for name in ("synonym", "anchor"):
        if rng.random() < 0.2:
            text = FORMS[name](text, words, rng) or text
    made = in_form(text, TAUGHT, words.with_synonyms, rng)
    text = made[0] if made else text
    for name, share in (("punctuation", 0.05), ("typo", 0.03)):
        if rng.random() < share:
            text = FORMS[name](text, words, rng) or text
    return text
