"""Scenes of the household world without a renderer: random objects, as a camera may see them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gsva_ros.sim.expressions import SeenObject
from gsva_ros.sim.household.colours import COLOURS
from gsva_ros.sim.household.common import Common
from gsva_ros.sim.household.expressions import Expressions
from gsva_ros.sim.household.names import PARTED, STACKS
from gsva_ros.sim.household.shapes import KINDS

WIDTH, HEIGHT = 320, 240
#: Frequency of each colour by kind: each kind has three frequent colours, and one that never occurs.
COLOUR_SHARES = {
    kind: {
        colour: 1.0 + 2.0 * ((number + k) % 11 < 3)
        for k, colour in enumerate(COLOURS)
        if (number + k) % 11 != 10
    }
    for number, kind in enumerate(KINDS)
}
COMMON = Common(dict.fromkeys(KINDS, 0.2), COLOUR_SHARES)


def scene(seed: int) -> list[SeenObject]:
    """4 to 12 objects; some unnamed, some without a colour, several of a kind, some on or in another."""
    rng = np.random.default_rng([seed, 77])
    things: list[SeenObject] = []
    kinds: list[str] = []
    for number in range(1, int(rng.integers(4, 13)) + 1):
        again = kinds and rng.random() < 0.35
        kind = str(rng.choice(kinds if again else KINDS))
        if rng.random() < 0.1:
            kind = ""
        else:
            kinds.append(kind)
        shares = COLOUR_SHARES.get(kind, dict.fromkeys(COLOURS, 1.0))
        weights = np.array(list(shares.values()))
        colour = str(rng.choice(list(shares), p=weights / weights.sum()))
        if rng.random() < 0.07:
            colour = ""
        parts = [p for p, rates in PARTED.items() if rng.random() < rates.get(kind, 0.0)]
        place = (float(rng.uniform(-0.45, 0.45)), float(rng.uniform(0.5, 1.2)))
        support = inside = 0
        if rng.random() < 0.3:
            for base in things:
                if (
                    base.support
                    or base.inside
                    or any(base.id in (t.support, t.inside) for t in things)
                ):
                    continue
                for relation, (uppers, lowers) in STACKS.items():
                    rides = uppers.get(kind, 0.0) * lowers.get(base.kind, 0.0)
                    if rng.random() < 60 * rides and not support and not inside:
                        support, inside = (base.id, 0) if relation == "on" else (0, base.id)
                        place = (base.place[0] + 0.01, base.place[1] + 0.01)
        x = WIDTH * (0.5 + 0.8 * place[0] / place[1])
        y = HEIGHT * (1.1 - 0.75 * (place[1] - 0.4)) - (12 if support else 0)
        things.append(
            SeenObject(
                id=number,
                kind=kind,
                colour=colour,
                size="",
                pixels=300,
                box=(int(x) - 9, int(y) - 9, int(x) + 9, int(y) + 9),
                centroid=(round(x, 2), round(y, 2)),
                distance=round(place[1], 4),
                support=support,
                inside=inside,
                parts=tuple(parts),
                scale=float(np.exp(rng.uniform(-0.35, 0.35))),
                place=(round(place[0], 4), round(place[1], 4)),
            )
        )
    return things


def write(folder: Path, count: int, split: str = "test") -> None:
    """Write such scenes in the format of `gsva sim render`, with grey images and boxes as instances."""
    folder.mkdir(parents=True)
    instances = np.zeros((count, HEIGHT, WIDTH), np.uint8)
    lines = []
    for seed in range(count):
        things = scene(seed)
        for thing in things:
            # Each has a separate box, so that no mask is empty.
            instances[seed, 8 * thing.id : 8 * thing.id + 6, :6] = thing.id
        asked = Expressions(things, WIDTH, np.random.default_rng(seed), COMMON).sample(20)
        told = {"objects": [asdict(t) for t in things], "expressions": [asdict(e) for e in asked]}
        lines.append(json.dumps({"seed": seed, **told}))
    meta = {"version": 1, "world": "household", "split": split, "count": count}
    meta |= {"width": WIDTH, "height": HEIGHT, "kinds": list(KINDS), "colours": list(COLOURS)}
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "scenes.jsonl").write_text("\n".join(lines) + "\n")
    np.save(folder / "instances.npy", instances)
    np.save(folder / "rgb.npy", np.full((*instances.shape, 3), 128, np.uint8))
