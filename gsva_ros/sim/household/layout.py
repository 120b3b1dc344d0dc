"""What stands where, how it is painted and how it is lit and seen, drawn from a seed and its shelf."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .camera import Sensor, draw_sensor
from .colours import Rgb, colour_name, contrast, held_out, shade
from .meshes import turn
from .shapes import KINDS, Pose, Room, Shape
from .shelf import GRAINS, GROUNDS, LABELS, WALLS, Shelf

MAX_OBJECTS = 10
#: What other things often stand on or in.
BASES = ("bowl", "box", "plate", "pot", "pan", "bucket", "book", "box", "mug", "jar")
Rgba = tuple[float, float, float, float]
Array = npt.NDArray[np.float64]
Rng = np.random.Generator
FINISHES = {
    "matte": (0.05, 0.1),
    "satin": (0.3, 0.3),
    "gloss": (0.7, 0.6),
    "shiny": (1.0, 0.9),
    "metal": (0.9, 0.45),
}
_METALLIC = {"can", "pot", "pan", "spoon", "wrench", "bucket", "teapot"}
_SEE_THROUGH = {"glass": 0.75, "jar": 0.35, "bottle": 0.3, "vase": 0.15, "pitcher": 0.15}


@dataclass(frozen=True)
class Paint:
    """A part's colour, its material's name in the renderer, and whether it bears the thing's colour name."""

    rgba: Rgba
    material: str
    main: bool


@dataclass(frozen=True)
class Placed:
    """A thing of the shelf in the scene.

    number: its place on the shelf. position [3] of its origin and rotation [3, 3], in the world, metres.
    support, inside: index in the scene's list of what it stands on or in, None for the table.
    """

    number: int
    shape: Shape
    pose: Pose
    position: Array
    rotation: Array
    colour: str = ""
    paints: tuple[Paint, ...] = ()
    support: int | None = None
    inside: int | None = None

    def points(self) -> Array:
        """Its vertices in the world, [n, 3]."""
        return self.shape.points() @ self.rotation.T + self.position


@dataclass(frozen=True)
class View:
    """A camera: fov (across the picture) and roll in radians, pose of its optical frame [4, 4]."""

    fov: float
    pose: Array

    def focal(self, width: int) -> float:
        """Pixels."""
        return width / 2 / math.tan(self.fov / 2)


@dataclass(frozen=True)
class Lamp:
    """A light: position and direction in the world, diffuse and specular colour."""

    position: tuple[float, float, float]
    toward: tuple[float, float, float]
    colour: Rgb
    specular: float


@dataclass(frozen=True)
class Slab:
    """A piece of the room: a shape of MuJoCo, half sizes, position, yaw and pitch, material and colour."""

    form: str  # plane, box, cylinder
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    rotation: Array
    material: str
    rgba: Rgba


@dataclass(frozen=True)
class Scene:
    """Everything that the renderer needs. The table top is z = 0.

    shadow: "none", "hard", or "soft" with the blur's standard deviation in pixels of a picture 320 wide.
    repeats: of pictures on table and walls, a metre. mirror: how much the table reflects.
    """

    things: tuple[Placed, ...]
    view: View
    lamps: tuple[Lamp, ...]
    ambient: Rgb
    headlight: float
    table: Slab
    room: tuple[Slab, ...]
    repeats: tuple[float, float]
    mirror: float
    shadow: str
    softness: float
    sensor: Sensor = field(default_factory=Sensor)


def draw_scene(seed: int, attempt: int, shelf: Shelf) -> Scene:
    """The seed's scene; `attempt` numbers its redraws."""
    rng = np.random.default_rng([seed, attempt, 104_729, int(shelf.shifted)])
    across = float(
        np.exp(rng.uniform(math.log(0.24), math.log(1.0)))
    )  # metres that the picture spans
    view, distance = _view(rng, across)
    table = _table(rng, across)
    things = _things(rng, shelf, view, distance, table, across)
    reach = max((math.hypot(*(t.position[:2] - view.pose[:2, 3])) for t in things), default=1.0)
    lamps, ambient, headlight = _lamps(rng)
    draw = rng.random()
    shadow = "none" if draw < 0.15 else ("hard" if draw < 0.5 else "soft")
    return Scene(
        things=tuple(things),
        view=view,
        lamps=lamps,
        ambient=ambient,
        headlight=headlight,
        table=table,
        room=_room(rng, view, reach, table),
        repeats=(float(np.exp(rng.uniform(-0.2, 2.0))), float(np.exp(rng.uniform(-1.2, 0.8)))),
        mirror=float(rng.uniform(0.05, 0.25)) if rng.random() < 0.1 else 0.0,
        shadow=shadow,
        softness=float(rng.uniform(1.5, 6.0)),
        sensor=draw_sensor(rng),
    )


def _view(rng: Rng, across: float) -> tuple[View, float]:
    fov = math.radians(rng.uniform(35, 70))
    distance = max(across / (2 * math.tan(fov / 2)), 0.22)
    azimuth = rng.uniform(0, 2 * math.pi)
    elevation = math.radians(15 + 60 * rng.beta(1.6, 1.4))
    forward = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            -math.sin(elevation),
        ]
    )
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = math.radians(rng.normal(0, 2.0))
    pose = np.eye(4)
    c, s = math.cos(roll), math.sin(roll)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], 1)
    target = np.array([*(rng.normal(0, 0.06, 2) * across), 0.03])
    pose[:3, 3] = target - distance * forward
    return View(fov, pose), distance


def _table(rng: Rng, across: float) -> Slab:
    draw = rng.random()
    tint = rng.uniform(0.85, 1.0)
    rgba = (float(tint), float(tint), float(tint), 1.0)
    material = f"ground{rng.integers(GROUNDS)}"
    yaw = turn("z", rng.uniform(0, 2 * math.pi))
    if draw < 0.35:
        return Slab("plane", (6, 6, 1), (0, 0, 0), yaw, material, rgba)
    half = max(0.3, across * rng.uniform(0.55, 1.3))
    if draw < 0.85:
        size = (half * float(rng.uniform(1.0, 1.5)), half, 0.02)
        return Slab("box", size, (0, 0, -0.02), yaw, material, rgba)
    return Slab("cylinder", (half * 1.1, 0.02, 0), (0, 0, -0.02), yaw, material, rgba)


def _on_table(table: Slab, circles: Array) -> bool:
    """Whether circles [n, 3] are on the table, or nearly."""
    if table.form == "plane":
        return True
    local = np.abs(circles[:, :2] @ table.rotation[:2, :2])
    margin = 0.8 * circles[:, 2]
    if table.form == "cylinder":
        return bool((np.hypot(*local.T) < table.size[0] - margin).all())
    return bool((local < np.array(table.size[:2]) - margin[:, None]).all())


def _room(rng: Rng, view: View, reach: float, table: Slab) -> tuple[Slab, ...]:
    """Floor, walls and large things out of reach, behind what stands on the table."""
    camera = view.pose[:3, 3]
    slabs = []
    on_floor = table.form != "plane"
    floor = -float(rng.uniform(0.4, 0.8)) if on_floor else 0.0
    white = (1.0, 1.0, 1.0, 1.0)
    if on_floor:
        slabs.append(
            Slab(
                "plane",
                (8, 8, 1),
                (0, 0, floor),
                turn("z", rng.uniform(0, 3)),
                f"wall{rng.integers(WALLS)}",
                white,
            )
        )
    far = max(reach + float(np.hypot(*camera[:2])), 0.6) + float(rng.exponential(0.8)) + 0.15
    if on_floor:
        far = max(far, 1.4 * max(table.size[:2]))
    if rng.random() < 0.75:
        turned = turn("z", rng.uniform(0, math.pi / 2))
        material = f"wall{rng.integers(WALLS)}"
        for k in range(4):
            # A plane's normal is its z: turned inwards.
            facing = turned @ turn("z", k * math.pi / 2)
            tilt = facing @ turn("y", -math.pi / 2)
            at = facing @ np.array([far, 0, 0])
            slabs.append(
                Slab("plane", (8, 8, 1), (float(at[0]), float(at[1]), 0), tilt, material, white)
            )
    forward = math.atan2(view.pose[1, 2], view.pose[0, 2])
    for _ in range(int(rng.integers(0, 6))):
        size = np.exp(rng.uniform(math.log(0.06), math.log(0.5), 3))
        angle = forward + rng.normal(0, 0.5)
        away = max(reach, 0.5) + float(size[:2].max()) * 1.5 + rng.uniform(0.05, 1.0)
        at = camera[:2] + away * np.array([math.cos(angle), math.sin(angle)])
        if on_floor and _on_table(table, np.array([[*at, -2 * size[:2].max()]])):
            continue
        colour = tuple(
            float(c) for c in np.clip(rng.uniform(0.05, 0.95) + rng.uniform(-0.3, 0.3, 3), 0, 1)
        )
        form = "box" if rng.random() < 0.7 else "cylinder"
        half = size if form == "box" else np.array([size[0], size[2], 0])
        height = float(size[2])
        look = f"wall{rng.integers(WALLS)}" if rng.random() < 0.4 else "matte"
        slabs.append(
            Slab(form, tuple(float(v) for v in half), (float(at[0]), float(at[1]), floor + height),
                 turn("z", rng.uniform(0, 3)), look, (*colour, 1.0))
        )  # fmt: skip
    return tuple(slabs)


def _lamps(rng: Rng) -> tuple[tuple[Lamp, ...], Rgb, float]:
    count = 1 + int(rng.random() < 0.5) + int(rng.random() < 0.2)
    total = rng.uniform(0.45, 0.95)
    share = np.array([1.0, 0.45, 0.3])[:count]
    share = share / share.sum() * total
    lamps = []
    for part in share:
        elevation, azimuth = math.radians(rng.uniform(30, 85)), rng.uniform(0, 2 * math.pi)
        away = rng.uniform(1.0, 2.2)
        at = away * np.array(
            [
                math.cos(elevation) * math.cos(azimuth),
                math.cos(elevation) * math.sin(azimuth),
                math.sin(elevation),
            ]
        )
        aim = np.array([*rng.normal(0, 0.1, 2), 0]) - at
        warm = rng.normal(0, 0.06)
        # A spot's light falls off towards its edge and meets the table aslant: what is left is the share.
        colour = part / max(math.sin(elevation), 0.55) * np.array([1 + warm, 1, 1 - warm])
        lamps.append(
            Lamp(tuple(map(float, at)), tuple(map(float, aim / np.linalg.norm(aim))), tuple(map(float, colour)),
                 float(rng.uniform(0.1, 0.8)))
        )  # fmt: skip
    ambient = rng.uniform(0.2, 0.55) * (1 + rng.uniform(-0.08, 0.08, 3))
    return tuple(lamps), tuple(map(float, ambient)), float(rng.uniform(0.0, 0.3))


@dataclass
class _Ground:
    """Circles [n, 3] (x, y, radius) that are taken."""

    circles: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def free(self, new: Array, gap: float) -> bool:
        """Whether none of the new circles meets a taken one, or comes nearer than the gap."""
        apart = new[:, None, :2] - self.circles[None, :, :2]
        least = new[:, None, 2] + self.circles[None, :, 2] + gap
        return bool((np.einsum("ijk,ijk->ij", apart, apart) > least**2).all())

    def take(self, new: Array) -> None:
        self.circles = np.concatenate([self.circles, new])


def _turned(circles: Array, yaw: float, at: Array) -> Array:
    out = circles.copy()
    out[:, :2] = circles[:, :2] @ turn("z", yaw)[:2, :2].T + at[:2]
    return out


def _things(
    rng: Rng, shelf: Shelf, view: View, distance: float, table: Slab, across: float
) -> list[Placed]:
    wanted = int(rng.integers(2, (MAX_OBJECTS if across > 0.42 else 6) + 1))
    gap = float(rng.choice([0.002, 0.012, 0.03]))
    ground = _Ground()
    things: list[Placed] = []
    taken: set[int] = set()
    full: set[int] = set()
    piled = rng.random() < 0.6  # something is to stand on or in something

    def drawn(kind: str) -> tuple[int, int] | None:
        """A thing of the kind that is left on the shelf, and one of its poses."""
        left = [n for n, s in enumerate(shelf.shapes) if s.kind == kind and n not in taken]
        if not left:
            return None
        number = left[int(rng.integers(len(left)))]
        return number, int(rng.integers(len(shelf.shapes[number].poses)))

    for _ in range(wanted * 5):
        if len(things) == wanted:
            break
        thing = None
        if piled and things and rng.random() < 0.5:
            for _ in range(8):
                some = drawn(_kind(rng, things))
                if some is not None:
                    shape = shelf.shapes[some[0]]
                    thing = _upon(rng, some[0], shape, shape.poses[some[1]], things, full)
                if thing is not None:
                    break
        if thing is None:
            base = piled and not things
            some = drawn(BASES[int(rng.integers(len(BASES)))] if base else _kind(rng, things))
            if some is None:
                continue
            shape, (circles, lowest) = shelf.shapes[some[0]], shelf.rests[some[0]][some[1]]
            pose = shape.poses[some[1]]
            for _ in range(12):
                at = _somewhere(rng, view, distance)
                yaw = float(rng.uniform(0, 2 * math.pi))
                if at is None:
                    continue
                here = _turned(circles, yaw, at)
                if _on_table(table, here) and ground.free(here, gap):
                    ground.take(here)
                    position = np.array([at[0], at[1], -lowest])
                    thing = Placed(some[0], shape, pose, position, turn("z", yaw) @ pose.rotation)
                    break
        if thing is not None:
            colour, paints = _paints(rng, thing.shape, shelf.shifted, things)
            things.append(replace(thing, colour=colour, paints=paints))
            taken.add(thing.number)
    return things


def _kind(rng: Rng, things: list[Placed]) -> str:
    draw = rng.random()
    named = [t.shape.kind for t in things if t.shape.kind]
    if named and draw < 0.25:
        return named[int(rng.integers(len(named)))]
    if draw < 0.35:
        return ""
    return KINDS[int(rng.integers(len(KINDS)))]


def _somewhere(rng: Rng, view: View, distance: float) -> Array | None:
    """A point of the table in the picture, not too far away."""
    tan = math.tan(view.fov / 2)
    ray = np.array([rng.uniform(-0.9, 0.9) * tan, rng.uniform(-0.8, 0.9) * tan * 0.75, 1.0])
    world = view.pose[:3, :3] @ ray
    if world[2] > -0.08:
        return None
    away = -view.pose[2, 3] / world[2]
    if not 0.45 * distance < away < 1.9 * distance:
        return None
    return view.pose[:3, 3] + away * world


def _upon(
    rng: Rng, number: int, shape: Shape, pose: Pose, things: list[Placed], full: set[int]
) -> Placed | None:
    """The thing on or in one of the others that stand on the table, where one has room for it."""
    for index in map(int, rng.permutation(len(things))):
        base = things[index]
        hollow = base.pose.hollow is not None
        room = base.pose.hollow or base.pose.top
        if room is None or index in full or base.support is not None or base.inside is not None:
            continue
        fitted = _fit(rng, shape, pose, room, hollow)
        if fitted is None:
            continue
        rotation, offset = fitted
        # A room's height counts from the table, which its thing stands on.
        position = np.array([*_middle(base), room.z]) + offset
        full.add(index)
        support, inside = (None, index) if hollow else (index, None)
        return Placed(number, shape, pose, position, rotation, support=support, inside=inside)
    return None


def _middle(base: Placed) -> Array:
    """Where a thing's room is: over its origin, or, of a turned one, over the middle of its points [2]."""
    if base.pose.name in ("upright", "upside down"):
        return base.position[:2]
    points = base.points()[:, :2]
    return (points.min(0) + points.max(0)) / 2


def _fit(
    rng: Rng, shape: Shape, pose: Pose, room: Room, hollow: bool
) -> tuple[Array, Array] | None:
    """Rotation and offset from the room's middle, on its floor; None where the thing does not fit."""
    yaw = turn("z", rng.uniform(0, 2 * math.pi))
    if hollow and shape.long and shape.long > 1.8 * room.radius:
        if shape.kind == "hammer" or room.depth < 0.05 or room.radius < 0.018:
            return None
        # A tool leans: one end on the floor at one side, and on the rim at the other.
        rise = math.atan2(room.depth, 1.35 * room.radius)
        if shape.long < 1.15 * room.depth / math.sin(rise):
            return None
        lean = turn("y", -rise)
        flip = turn("z", math.pi) if rng.random() < 0.5 else np.eye(3)
        rotation = yaw @ lean @ flip
        points = shape.points() @ rotation.T
        lowest = points[points[:, 2].argmin()]
        foot = yaw @ np.array([-0.7 * room.radius, 0, 0])
        return rotation, foot - np.array([lowest[0], lowest[1], lowest[2]])
    rotation = yaw @ pose.rotation
    points = shape.points() @ rotation.T
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    radius = float(np.linalg.norm(points[:, :2] - middle[:2], axis=1).max())
    if radius > room.radius * (0.95 if hollow else 1.0):
        return None
    if hollow and high[2] - low[2] < room.depth * 0.45:
        return None  # it would hide in there
    spare = (room.radius - radius) * math.sqrt(rng.random())
    angle = rng.uniform(0, 2 * math.pi)
    shift = spare * np.array([math.cos(angle), math.sin(angle)])
    return rotation, np.array([*(shift - middle[:2]), -low[2]])


_WOOD = (0.62, 0.43, 0.25)


def _paints(
    rng: Rng, shape: Shape, shifted: bool, things: list[Placed]
) -> tuple[str, tuple[Paint, ...]]:
    """A colour's name, "" for none, and each part's paint."""
    kind = shape.kind
    name = colour_name(kind, rng, shifted and rng.random() < 0.7)
    if things and rng.random() < 0.2:  # colours repeat, so that they alone say too little
        other = things[int(rng.integers(len(things)))].colour
        if other and held_out(kind, other) <= shifted:
            name = other
    rgb = shade(name, rng)
    finish = ("matte", "satin", "gloss", "shiny")[int(rng.choice(4, p=[0.35, 0.3, 0.25, 0.1]))]
    if name == "grey" and kind in _METALLIC and rng.random() < 0.6:
        finish, rgb = "metal", _tinted(rng, 0.55, 0.1)
    alpha = 1.0
    if rng.random() < _SEE_THROUGH.get(kind, 0.0):
        finish = "shiny"
        if name in ("white", "black", "grey") or rng.random() < 0.4:
            name, rgb, alpha = "", _tinted(rng, 0.85, 0.1), float(rng.uniform(0.2, 0.4))
        else:
            alpha = float(rng.uniform(0.45, 0.7))
    if alpha == 1.0 and rng.random() < 0.18:
        finish = f"grain{rng.integers(GRAINS)}"
    main = Paint((*rgb, alpha), finish, True)
    metal = Paint((*_tinted(rng, 0.62, 0.15), 1.0), "metal", name == "grey")
    dark = Paint((*_tinted(rng, 0.08, 0.04), 1.0), "satin", name == "black")
    other = Paint((*contrast(name, rng), 1.0), finish if alpha == 1.0 else "gloss", False)
    pale = Paint((*_tinted(rng, 0.93, 0.05), alpha), "gloss", name == "white")
    wood = Paint((*(float(c * rng.uniform(0.8, 1.2)) for c in _WOOD), 1.0), "matte", False)
    inner = main if alpha < 1.0 else _pick(rng, (main, 0.6), (pale, 0.3), (other, 0.1))
    handle = (
        _pick(rng, (main, 0.3), (dark, 0.4), (wood, 0.15), (metal, 0.15))
        if kind in ("pot", "pan", "bucket")
        else _pick(rng, (main, 0.72), (dark, 0.08), (wood, 0.08), (other, 0.12))
    )
    table = {
        "body": main,
        "inside": inner,
        "handle": handle,
        "lid": _pick(rng, (main, 0.4), (other, 0.3), (metal, 0.15), (dark, 0.08), (pale, 0.07)),
        "stripe": other,
        "second": other,
        "metal": metal,
        "wood": wood,
        "dark": dark,
        "pages": Paint((*_tinted(rng, 0.88, 0.06), 1.0), "matte", name == "white"),
        "content": Paint((*_filling(rng), 1.0), "gloss", False),
        "core": _pick(rng, (wood, 0.5), (pale, 0.3), (dark, 0.2)),
    }
    label = Paint((1.0, 1.0, 1.0, 0.999), f"label{rng.integers(LABELS)}", False)
    return name, tuple(label if p.role == "label" else table[p.role] for p in shape.parts)


def _tinted(rng: Rng, level: float, spread: float) -> Rgb:
    r, g, b = np.clip(level + rng.uniform(-spread, spread) + rng.uniform(-0.02, 0.02, 3), 0.01, 1.0)
    return float(r), float(g), float(b)


def _filling(rng: Rng) -> Rgb:
    fillings = (
        (0.2, 0.1, 0.05),
        (0.9, 0.88, 0.82),
        (0.85, 0.45, 0.08),
        (0.5, 0.05, 0.08),
        (0.45, 0.3, 0.1),
        (0.9, 0.8, 0.5),
    )
    return fillings[int(rng.integers(len(fillings)))]


def _pick(rng: Rng, *options: tuple[Paint, float]) -> Paint:
    """One of the options by their weights, which sum to 1."""
    left = rng.random()
    for paint, weight in options:
        left -= weight
        if left < 0:
            break
    return paint
