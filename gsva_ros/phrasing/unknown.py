"""Things that no scene holds: words a user may say and the model must answer with [REJ]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .forms import PLAIN, written
from .words import EXCEPT, Phrase, Vocabulary, plural

TAUGHT = (  # noqa: SIM905 (a hundred quoted words are harder to read)
    "apple orange pear spoon fork knife hammer screwdriver wrench pen book phone laptop keyboard "
    "mouse chair table person hand dog car train key wallet glove shoe hat towel sponge "
    "toothbrush soap bread cheese egg carrot tomato pan pot toaster clock camera battery cable "
    "screw bolt nut drill tape ruler notebook paper envelope bag basket bucket tray vase plant "
    "candle pillow doll robot gripper syringe"
).split()
#: Training never says these.
HELD_OUT = (  # noqa: SIM905
    "banana lemon kettle scissors pencil lamp cat sock brush potato watch plug saw stapler "
    "backpack flower blanket tweezers remote helmet guitar umbrella mirror stone toy bicycle "
    "calculator ladder pumpkin"
).split()


def unknown(nouns: Sequence[str], words: Vocabulary) -> list[str]:
    """Those of the nouns that name no kind of these scenes."""
    return [noun for noun in nouns if noun not in words.names]


def renamed(text: str, noun: str, words: Vocabulary, rng: np.random.Generator) -> str | None:
    """The expression with a noun that names nothing, so that it means nothing; None where it holds none.

    In a relation it is either of the two.
    """
    phrase = words.read(text)
    if phrase is None:
        return None
    start, _, last = text.rpartition(" the ")
    anchor = words.read(f"the {last}")
    # "All but the banana" would still be all.
    if anchor and start and not phrase.tail.startswith(EXCEPT) and rng.random() < 0.5:
        return f"{start} {_named(anchor, noun)}"
    return _named(phrase, noun)


def _named(phrase: Phrase, noun: str) -> str:
    return written(replace(phrase, noun=plural(noun) if phrase.plural else noun, kind=noun), PLAIN)
