"""Expressions about a crop of a photograph: as many present as absent ones, in the scenes' wording."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ..phrasing.words import plural
from ..scenes import Expression
from .crops import HUES, Crop, CropThing

#: Objects with centroids closer than this fraction of the width are not distinguished as left and right.
APART = 0.04
#: Maximum number of expressions of a crop: half of them for absent objects.
MOST = 16
#: The scenes' kinds are asked for this many times as often as other nouns.
OFTEN = 4.0


def crop_expressions(
    crop: Crop, known: Collection[str], kinds: Sequence[str], rng: np.random.Generator
) -> list[Expression]:
    """Expressions about a crop, at most `MOST`.

    Args:
        known: nouns that are labelled wherever they occur, or that no image shows. kinds: the scenes'.
    """
    unfair = crop.doubtful | {other for thing in crop.things for other in thing.others}
    there: dict[str, list[CropThing]] = {}
    for thing in crop.things:
        if thing.noun:
            there.setdefault(thing.noun, []).append(thing)
    fair = {noun: things for noun, things in there.items() if noun not in unfair}
    lacking = sorted(set(known) - set(there) - unfair)
    apart = APART * crop.rgb.shape[1]
    present = [(noun, e) for noun, of in fair.items() for e in _present(noun, of, apart)]
    absent = [(noun, _absent(noun, rng)) for noun in lacking]
    absent += [(n, e) for n, of in fair.items() for e in _of_another_colour(n, of, rng)]
    half = min(len(present), len(absent), MOST // 2) or min(max(len(present), len(absent)), 3)
    return [*_sampled(present, half, kinds, rng), *_sampled(absent, half, kinds, rng)]


def _sampled(
    found: Sequence[tuple[str, Expression]],
    count: int,
    kinds: Sequence[str],
    rng: np.random.Generator,
) -> list[Expression]:
    """Draw `count` of the expressions; those with the scenes' kinds are drawn more often."""
    weights = np.array([OFTEN if noun in kinds else 1.0 for noun, _ in found])
    keys = rng.random(len(found)) ** (1.0 / weights)  # Efraimidis and Spirakis, 2006
    return [found[k][1] for k in np.argsort(-keys)[:count]]


def _present(noun: str, things: Sequence[CropThing], apart: float) -> Iterator[Expression]:
    """Expressions for some of the objects with a noun."""
    numbers = tuple(thing.number for thing in things)
    if len(things) == 1:
        yield Expression(f"the {noun}", "single", numbers)
        if things[0].colour:
            yield Expression(f"the {things[0].colour} {noun}", "single", numbers)
        return
    yield Expression(f"all {plural(noun)}", "multiple", numbers)
    yield Expression(f"the {plural(noun)}", "multiple", numbers)
    across = sorted(things, key=lambda thing: thing.centroid[0])
    ends = (("leftmost", across[0], across[1]), ("rightmost", across[-1], across[-2]))
    for word, thing, beside in ends:
        if abs(thing.centroid[0] - beside.centroid[0]) >= apart:
            yield Expression(f"the {word} {noun}", "relative", (thing.number,))
    for thing in things:
        clear = all(thing.colour not in other.colours for other in things if other is not thing)
        if thing.colour and clear:
            yield Expression(f"the {thing.colour} {noun}", "single", (thing.number,))


def _absent(noun: str, rng: np.random.Generator) -> Expression:
    form = str(rng.choice(["the {n}", "the {n}", "all {ns}", "the leftmost {n}"]))
    return Expression(form.format(n=noun, ns=plural(noun)), "absent_kind", ())


def _of_another_colour(
    noun: str, things: Sequence[CropThing], rng: np.random.Generator
) -> Iterator[Expression]:
    """Expressions with colours that none of the objects has, if all their colours are known."""
    if all(thing.colour for thing in things):
        lacking = [c for c in HUES if all(c not in thing.colours for thing in things)]
        for colour in rng.permutation(lacking)[:2]:
            yield Expression(f"the {colour} {noun}", "absent_attribute", ())
