"""Records the demo's bag again, and the truth about it: `MUJOCO_GL=egl python demo/record.py`.

Writes, beside this file: tabletop/ (the camera's bag), tabletop_truth.json (expressions drawn for each
frame) and asked_truth.json (what config/demo.yaml asks, for each frame of its scene).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from gsva_ros.eval.asks import read_script
from gsva_ros.sim.bag import START_NS, TOPIC, swing, write_bag
from gsva_ros.sim.expressions import SeenObject
from gsva_ros.sim.render import Renderer
from gsva_ros.sim.shapes import COLOURS, KINDS
from gsva_ros.sim.sight import seen_objects
from gsva_ros.stamps import SECOND
from gsva_ros.truth import Referring, write_truth

HERE = Path(__file__).resolve().parent
SEEDS, FRAMES, RATE, WIDTH, HEIGHT = (20_000_004, 20_000_018), 14, 4.0, 640, 480


def meant(expression: str, things: list[SeenObject]) -> list[SeenObject]:
    """The things that one of the demo's phrases means: an article, perhaps "nearest", colour, and kind."""
    words = expression.split()
    kind = next(k for k in (*KINDS, "thing") if words[-1] in (k, f"{k}s", f"{k}es"))
    colour = next((c for c in COLOURS if c in words), None)
    found = [t for t in things if kind in (t.kind, "thing") and colour in (t.colour, None)]
    if "nearest" in words:
        return sorted(found, key=lambda t: t.distance)[:1]
    if words[0] != "all" and len(found) > 1:
        raise ValueError(f"{expression!r} means {len(found)} things in this scene")
    return found


def main() -> None:
    """Write everything anew."""
    bag = HERE / "tabletop"
    shutil.rmtree(bag, ignore_errors=True)
    write_bag(bag, SEEDS, FRAMES, RATE, WIDTH, HEIGHT, HERE / "tabletop_truth.json")
    script = read_script(HERE.parent / "config" / "demo.yaml")
    renderer = Renderer(WIDTH, HEIGHT)
    truths = []
    for scene, seed in enumerate(SEEDS):
        begin, end = scene * FRAMES / RATE, (scene + 1) * FRAMES / RATE
        asked = [
            expression
            for entry in script.instructions
            if begin <= entry.at < end
            for expression in entry.expressions
        ]
        for number, (spec, view) in enumerate(swing(seed, FRAMES, renderer), scene * FRAMES):
            things = [t for t in seen_objects(spec, view) if t.pixels]
            truth = []
            for expression in dict.fromkeys(asked):
                ids = [t.id for t in meant(expression, things)]
                mask = np.isin(view.instances, ids)
                truth.append(Referring(expression, "asked", len(ids), mask))
            truths.append((START_NS + round(number * SECOND / RATE), truth))
    write_truth(HERE / "asked_truth.json", TOPIC, truths)


if __name__ == "__main__":
    main()
