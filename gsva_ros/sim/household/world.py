"""A seed's scene: drawn, checked for visibility, rendered, and described as the camera sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..expressions import SeenObject, extent
from .camera import apply_sensor
from .classic import Classic
from .layout import draw_scene
from .render import Labels, Stage
from .scans import Scan
from .scene import Placed, Scene
from .shapes import NAMED_PARTS
from .shelf import BLOCK, draw_shelf

#: A thing covers at least the first fraction of the image, at most the last, and at least LEAST_OWN of its
#: own outline is visible.
LEAST, LEAST_OWN, MOST = 0.0012, 0.38, 0.6
REDRAWS = 60
#: Minimum fraction of a thing's pixels for its colour name; from the second on, another colour prevents it.
NAMED_FROM, SECOND_FROM = 0.52, 0.2
FAINT = 9  # grey levels of difference below which a thing is invisible
PART_FROM = 0.015  # minimum fraction of a thing's pixels for a part to be named

Array = npt.NDArray[np.uint8]


class World:
    """Renders seeds in any order, fastest block by block. Not thread-safe; create one per process."""

    def __init__(
        self,
        width: int,
        height: int,
        shifted: bool = False,
        scans: Sequence[Scan] = (),
        panoramas: Sequence[Array] = (),
        goods: bool = False,
    ) -> None:
        """Args: scans, panoramas, goods: see `draw_shelf`."""
        cv2.setNumThreads(1)
        self.width, self.height, self.shifted = width, height, shifted
        self._scans, self._panoramas, self._goods = scans, panoramas, goods
        self._block: int | None = None
        self._stage: Stage | None = None

    def stage(self, seed: int) -> Stage:
        """The stage of the seed's shelf."""
        if self._block != seed // BLOCK or self._stage is None:
            if self._stage is not None:
                self._stage.close()
            self._block = seed // BLOCK
            shelf = draw_shelf(self._block, self.shifted, self._scans, self._panoramas, self._goods)
            self._stage = Stage(shelf, self.width, self.height)
        return self._stage

    def scene(self, seed: int) -> tuple[Array, Array, list[SeenObject], Scene]:
        """RGB [H, W, 3] and instances [H, W] (both uint8), the visible things, and the drawn scene.

        Raises:
            InputError: things were hidden in every draw.
        """
        stage = self.stage(seed)
        for attempt in range(REDRAWS):
            scene = draw_scene(seed, attempt, stage.shelf)
            labels = None
            for _ in range(4):
                if len(scene.things) < 2:
                    break
                stage.place(scene)
                labels = stage.labels(scene)
                hidden = self._hidden(scene, labels)
                if not hidden:
                    break
                scene, labels = _without(scene, hidden), None
            if labels is None:
                continue
            rgb = apply_sensor(stage.picture(scene, labels), scene.sensor)
            things = seen_objects(scene, labels)
            if not any(_faint(rgb, labels.thing == thing.id - 1, thing.box) for thing in things):
                return rgb, (labels.thing + 1).astype(np.uint8), things, scene
        raise InputError(
            f"seed {seed}: no scene with its things in sight in {REDRAWS} draws of "
            f"{self.width} x {self.height} pixels; choose a larger size"
        )

    def _hidden(self, scene: Scene, labels: Labels) -> set[int]:
        """Indices of things of which too little or too much is visible to judge them fairly."""
        pixels = np.bincount(labels.thing[labels.thing >= 0], minlength=len(scene.things))
        area = self.width * self.height
        found = set()
        for index, thing in enumerate(scene.things):
            sized = LEAST * area <= pixels[index] <= MOST * area
            if not sized or not self._shows(scene, thing, int(pixels[index])):
                found.add(index)
        return found

    def _shows(self, scene: Scene, thing: Placed, pixels: int) -> bool:
        """Whether enough pixels are visible, compared to the thing alone in an unbounded image."""
        parts = []
        pose, focal = scene.camera.pose, scene.camera.focal(self.width)
        for part in thing.shape.parts:
            world = part.mesh.vertices @ thing.rotation.T + thing.position
            local = (world - pose[:3, 3]) @ pose[:3, :3]
            if (local[:, 2] < 0.03).any():
                return False
            parts.append(local[:, :2] / local[:, 2:] * focal)
        everything = np.concatenate(parts)
        low = np.floor(everything.min(0))
        size = np.ceil(everything.max(0) - low).astype(int) + 1
        if size.max() > 6 * self.width:
            return False
        flat = [(part - low).astype(np.int32) for part in parts]
        hulls = [cv2.convexHull(part) for part in flat]
        if pixels >= LEAST_OWN * _covered(hulls, size):
            return True
        # The convex hull of a ring or a fork is larger than the thing: count triangles instead.
        pairs = zip(flat, thing.shape.parts, strict=True)
        triangles = np.concatenate([points[part.mesh.faces] for points, part in pairs])
        return pixels >= LEAST_OWN * _covered(triangles, size)


def _covered(polygons: Sequence[npt.NDArray[np.int32]], size: npt.NDArray[np.int64]) -> int:
    """Number of pixels of an image of a size (width, height) that convex polygons [n, 2] cover."""
    canvas = np.zeros((size[1], size[0]), np.uint8)
    for polygon in polygons:
        cv2.fillConvexPoly(canvas, polygon, 1)
    return int(np.count_nonzero(canvas))


def _faint(rgb: Array, mask: npt.NDArray[np.bool_], box: tuple[int, int, int, int]) -> bool:
    """Whether a thing can hardly be told from its surroundings, like black on black in the dark."""
    x0, y0, x1, y1 = box
    near = np.s_[max(y0 - 4, 0) : y1 + 4, max(x0 - 4, 0) : x1 + 4]
    inside = mask[near].astype(np.uint8)
    around = cv2.dilate(inside, np.ones((7, 7), np.uint8)) - inside
    mean, spread = cv2.meanStdDev(rgb[near], mask=inside)
    beside, _ = cv2.meanStdDev(rgb[near], mask=around)
    return bool(np.abs(mean - beside).max() < FAINT and spread.max() < FAINT)


def _without(scene: Scene, hidden: set[int]) -> Scene:
    """The scene without some things and everything on or in them."""
    gone = set(hidden)
    for index, thing in enumerate(scene.things):
        if thing.support in gone or thing.inside in gone:
            gone.add(index)
    kept = [index for index in range(len(scene.things)) if index not in gone]
    new = {old: k for k, old in enumerate(kept)}

    def renumbered(thing: Placed) -> Placed:
        return replace(
            thing,
            support=None if thing.support is None else new[thing.support],
            inside=None if thing.inside is None else new[thing.inside],
        )

    return replace(scene, things=tuple(renumbered(scene.things[k]) for k in kept))


def seen_objects(scene: Scene, labels: Labels) -> list[SeenObject]:
    """The scene's things as the camera sees them."""
    found = []
    pose = scene.camera.pose
    ahead = pose[:2, 2] / np.linalg.norm(pose[:2, 2])
    right = np.array([ahead[1], -ahead[0]])
    everywhere = np.nonzero(labels.thing >= 0)
    owner, part_of = labels.thing[everywhere], labels.part[everywhere]
    for index, thing in enumerate(scene.things):
        own = owner == index
        rows, columns = (axis[own] for axis in everywhere)
        box, centroid = extent(rows, columns)
        shares = np.bincount(part_of[own], minlength=len(thing.paints)) / max(len(rows), 1)
        points = thing.points()
        middle = (points[:, :2].min(0) + points[:, :2].max(0)) / 2 - pose[:2, 3]
        parts = [
            NAMED_PARTS[part.role]
            for part, share in zip(thing.shape.parts, shares, strict=True)
            if part.role in NAMED_PARTS and share >= PART_FROM
        ]
        across, away = round(float(middle @ right), 4), round(float(middle @ ahead), 4)
        found.append(
            SeenObject(
                id=index + 1,
                kind=thing.shape.kind,
                colour=_colour(thing, shares),
                size="",
                pixels=len(rows),
                box=box,
                centroid=centroid,
                distance=away,
                support=0 if thing.support is None else thing.support + 1,
                inside=0 if thing.inside is None else thing.inside + 1,
                parts=tuple(sorted(set(parts))),
                scale=round(thing.shape.scale, 3),
                place=(across, away),
            )
        )
    return found


def _colour(thing: Placed, shares: npt.NDArray[np.float64]) -> str:
    """The name of the thing's colour if it covers most of the visible part, else ""."""
    main = sum(s for s, paint in zip(shares, thing.paints, strict=True) if paint.main)
    second = sum(
        s for s, part in zip(shares, thing.shape.parts, strict=True) if part.role == "second"
    )
    return thing.colour if main >= NAMED_FROM and second < SECOND_FROM else ""


CLASSIC = 0.2  # fraction of training scenes from the older world


def training_mixture(
    width: int, height: int, scans: Sequence[Scan] = (), panoramas: Sequence[Array] = ()
) -> Callable[[int], tuple[Array, Array, list[SeenObject]]]:
    """Renders training's mixture of this world (see `World`) and the older one, by seed."""
    world = World(width, height, scans=scans, panoramas=panoramas)
    classic = Classic(width, height)

    def show(seed: int) -> tuple[Array, Array, list[SeenObject]]:
        if np.random.default_rng([seed, 15_485_863]).random() < CLASSIC:
            return classic.scene(seed)
        return world.scene(seed)[:3]

    return show
