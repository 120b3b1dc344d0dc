"""A seed's scene, drawn from its shelf."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .arrange import draw_things
from .camera import draw_sensor
from .rooms import draw_backdrop, draw_camera, draw_lamps, draw_room, draw_table
from .scene import Scene
from .shelf import Shelf


def draw_scene(seed: int, attempt: int, shelf: Shelf) -> Scene:
    """The seed's scene; `attempt` counts its redraws."""
    rng = np.random.default_rng([seed, attempt, 104_729, int(shelf.shifted)])
    # Width of the view in metres.
    across = float(np.exp(rng.uniform(math.log(0.26), math.log(1.2))))
    camera, distance = draw_camera(rng, across)
    table = draw_table(rng, across)
    things = draw_things(rng, shelf, camera, distance, table, across)
    reach = max((math.hypot(*(t.position[:2] - camera.pose[:2, 3])) for t in things), default=1.0)
    lamps, ambient, headlight = draw_lamps(rng)
    draw = rng.random()
    shadow = "none" if draw < 0.15 else ("hard" if draw < 0.5 else "soft")
    scene = Scene(
        things=tuple(things),
        camera=camera,
        lamps=lamps,
        ambient=ambient,
        headlight=headlight,
        table=table,
        room=draw_room(rng, camera, reach, table),
        repeats=(float(np.exp(rng.uniform(-0.2, 2.0))), float(np.exp(rng.uniform(-1.2, 0.8)))),
        mirror=float(rng.uniform(0.05, 0.25)) if rng.random() < 0.1 else 0.0,
        shadow=shadow,
        softness=float(rng.uniform(1.5, 6.0)),
        nooks=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.7 else 0.0,
        sensor=draw_sensor(rng),
    )
    # Drawn last, so that panoramas change nothing else in a seed's scene.
    backdrop = draw_backdrop(rng, len(shelf.panoramas), table)
    return replace(scene, room=(), backdrop=backdrop) if backdrop else scene
