"""The household world: the same seed gives the same scene, and what is told of a scene is true of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
import trimesh
from PIL import Image

from gsva_ros.errors import InputError
from gsva_ros.scenes import SceneSet
from gsva_ros.sim.dataset import write_dataset
from gsva_ros.sim.household import textures
from gsva_ros.sim.household.camera import Sensor, apply_sensor, draw_sensor
from gsva_ros.sim.household.classic import Classic
from gsva_ros.sim.household.colours import COLOURS, SHADES, held_out, pairs, shade
from gsva_ros.sim.household.goods import BUILDERS as GOODS
from gsva_ros.sim.household.kinds import BUILDERS
from gsva_ros.sim.household.panoramas import Backdrop, load_panoramas, project, sample
from gsva_ros.sim.household.render import Stage
from gsva_ros.sim.household.scans import load_scans
from gsva_ros.sim.household.scene import Placed, Scene
from gsva_ros.sim.household.shapes import KINDS, NAMED_PARTS
from gsva_ros.sim.household.shelf import BLOCK, draw_shelf
from gsva_ros.sim.household.world import World, _colour, _faint, training_mixture
from gsva_ros.sim.splits import SPLITS
from gsva_ros.sim.worlds import WORLDS, Assets, Shown

WIDTH, HEIGHT = 160, 120
SHELVES, EACH = 4, 16
SEEDS = [SPLITS["val"][shelf * BLOCK + k] for shelf in range(SHELVES) for k in range(EACH)]


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Shown, Scene]]:
    world = World(WIDTH, HEIGHT)
    found = []
    for seed in SEEDS:
        *shown, scene = world.scene(seed)
        found.append((tuple(shown), scene))
    return found


@pytest.fixture(scope="module")
def training() -> list[Shown]:
    show = training_mixture(WIDTH, HEIGHT)
    return [show(seed) for seed in SEEDS[: 2 * EACH]]


@pytest.fixture(scope="module")
def shifted() -> list[Shown]:
    world = World(WIDTH, HEIGHT, shifted=True)
    return [world.scene(seed)[:3] for seed in SEEDS[: 2 * EACH]]


def test_dataset_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_dataset(
            tmp_path / str(workers), "train", 6, WIDTH, HEIGHT, workers, world="household"
        )
    for name in ("meta.json", "rgb.npy", "instances.npy", "scenes.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_dataset_is_read_with_its_words(tmp_path: Path) -> None:
    write_dataset(tmp_path, "val", 6, WIDTH, HEIGHT, 1, world="household")
    scenes = SceneSet(tmp_path, "val")
    assert (scenes.kinds, scenes.colours) == (list(KINDS), list(COLOURS))
    for row in range(len(scenes)):
        there = {int(k) for k in np.unique(scenes.instances[row])} - {0}
        assert all(scenes.position[row, k].any() for k in there)
        assert (scenes.size[row] == -1).all()
    with pytest.raises(ValueError, match="another data set"):
        write_dataset(tmp_path, "val", 6, WIDTH, HEIGHT, 1, world="shifted")


def test_a_scene_does_not_depend_on_those_before_it(scenes: list[tuple[Shown, Scene]]) -> None:
    world = World(WIDTH, HEIGHT)
    for k in (EACH + 1, 2, EACH):
        rgb, instances, things, _ = world.scene(SEEDS[k])
        before = scenes[k][0]
        assert (rgb == before[0]).all()
        assert (instances == before[1]).all()
        assert things == before[2]


def test_the_words_of_the_worlds() -> None:
    assert len(KINDS) == 22
    assert set(BUILDERS) == set(KINDS)
    assert len(COLOURS) == 11
    assert set(WORLDS["v1"].kinds) < set(KINDS)
    assert set(WORLDS["v1"].colours) < set(COLOURS)


def test_every_kind_is_seen(scenes: list[tuple[Shown, Scene]]) -> None:
    seen = {thing.kind for (_, _, things), _ in scenes for thing in things}
    assert seen == {*KINDS, ""}
    colours = {thing.colour for (_, _, things), _ in scenes for thing in things}
    assert colours == {*COLOURS, ""}


def test_every_shelf_holds_every_kind_in_several_shapes() -> None:
    shelf = draw_shelf(7)
    for kind in KINDS:
        sizes = [np.ptp(s.points(), axis=0) for s in shelf.shapes if s.kind == kind]
        assert len(sizes) >= 2
        assert not np.allclose(sizes[0], sizes[1], rtol=0.01)


def test_scale_tells_the_larger_of_two() -> None:
    shelf = draw_shelf(7)
    ratios = []
    for kind in KINDS:
        one, other = [s for s in shelf.shapes if s.kind == kind][:2]
        sizes = [float(np.linalg.norm(np.ptp(s.points(), axis=0))) for s in (one, other)]
        assert np.isclose(one.scale / other.scale, sizes[0] / sizes[1])
        ratios += [one.scale, other.scale]
    assert 0.8 < np.median(ratios) < 1.25
    assert max(ratios) > 1.3 * min(ratios)


def test_instances_are_the_things(scenes: list[tuple[Shown, Scene]]) -> None:
    for (rgb, instances, things), scene in scenes:
        assert rgb.shape == (HEIGHT, WIDTH, 3)
        assert rgb.dtype == instances.dtype == np.uint8
        assert {int(k) for k in np.unique(instances)} - {0} == {t.id for t in things}
        assert [t.id for t in things] == list(range(1, len(scene.things) + 1))
        for thing, placed in zip(things, scene.things, strict=True):
            assert thing.kind == placed.shape.kind
            assert thing.colour in (placed.colour, "")
            x0, y0, x1, y1 = thing.box
            assert (instances[y0:y1, x0:x1] == thing.id).sum() == thing.pixels
            assert thing.pixels >= 0.001 * WIDTH * HEIGHT
            roles = {NAMED_PARTS.get(part.role) for part in placed.shape.parts}
            assert set(thing.parts) <= roles


def test_pixels_lie_where_the_things_stand(scenes: list[tuple[Shown, Scene]]) -> None:
    """Each thing's vertices, seen through the camera's pose, cover its pixels."""
    for (_, _, things), scene in scenes:
        for thing, placed in zip(things, scene.things, strict=True):
            local = (placed.points() - scene.camera.pose[:3, 3]) @ scene.camera.pose[:3, :3]
            flat = local[:, :2] / local[:, 2:] * scene.camera.focal(WIDTH) + (WIDTH / 2, HEIGHT / 2)
            low, high = flat.min(0) - 1, flat.max(0) + 1
            x0, y0, x1, y1 = thing.box
            assert low[0] <= x0
            assert low[1] <= y0
            assert x1 <= high[0]
            assert y1 <= high[1]


def test_a_good_part_of_each_thing_is_in_sight(scenes: list[tuple[Shown, Scene]]) -> None:
    """Of what its triangles cover, drawn four times as large in a picture without an edge."""
    shares = []
    for (_, _, things), scene in scenes[: 2 * EACH]:
        pose, focal = scene.camera.pose, 4 * scene.camera.focal(WIDTH)
        for thing, placed in zip(things, scene.things, strict=True):
            corners = []
            for part in placed.shape.parts:
                points = part.mesh.vertices @ placed.rotation.T + placed.position
                local = (points - pose[:3, 3]) @ pose[:3, :3]
                corners.append((local[:, :2] / local[:, 2:] * focal)[part.mesh.faces])
            triangles = np.concatenate(corners)
            triangles = (triangles - triangles.min((0, 1))).astype(np.int32)
            width, height = triangles.max((0, 1)) + 1
            alone = np.zeros((height, width), np.uint8)
            for triangle in triangles:
                cv2.fillConvexPoly(alone, triangle, 1)
            shares.append(16 * thing.pixels / int(alone.sum()))
    assert 0.38 < min(shares) < 0.6
    assert 0.9 < np.median(shares) < 1.05


def _ground(placed: Placed) -> tuple[np.ndarray, np.ndarray]:
    points = placed.points()
    return points.min(0), points.max(0)


def test_what_stands_where_is_true(scenes: list[tuple[Shown, Scene]]) -> None:
    stacked = contained = 0
    for (_, _, things), scene in scenes:
        for thing, placed in zip(things, scene.things, strict=True):
            low, high = _ground(placed)
            middle = (low + high)[:2] / 2
            if not (thing.support or thing.inside):
                assert abs(low[2]) < 1e-6
                continue
            assert not (thing.support and thing.inside)
            base_low, base_high = _ground(scene.things[(thing.support or thing.inside) - 1])
            assert (base_low[:2] <= middle).all()
            assert (middle <= base_high[:2]).all()
            if thing.inside:
                contained += 1
                assert base_low[2] < low[2] < base_high[2]
            else:
                stacked += 1
                assert base_low[2] < low[2] <= base_high[2] + 1e-6
                flat = things[thing.support - 1].kind in ("box", "book", "can", "bucket")
                assert not flat or base_high[2] - low[2] < 0.006
    assert stacked >= 5
    assert contained >= 5


def test_places_agree_with_the_picture(scenes: list[tuple[Shown, Scene]]) -> None:
    """They are as far from the camera's foot as the things, and right of it what is so along its x axis."""
    for (_, _, things), scene in scenes:
        pose = scene.camera.pose
        for thing, placed in zip(things, scene.things, strict=True):
            low, high = _ground(placed)
            offset = ((low + high) / 2)[:2] - pose[:2, 3]
            assert np.isclose(np.hypot(*thing.place), np.hypot(*offset), atol=1e-3)
            assert thing.place[1] == thing.distance
            # The camera's own x axis is level but for a roll of a few degrees.
            across, ahead = offset @ pose[:2, 0], offset @ pose[:2, 2]
            assert abs(thing.place[0] - across) < 0.15 * np.hypot(*offset) + 0.01
            assert np.sign(ahead) == np.sign(thing.place[1]) or abs(thing.place[1]) < 0.02


def test_training_never_draws_what_is_held_out(training: list[Shown], shifted: list[Shown]) -> None:
    drawn = {(t.kind, t.colour) for _, _, things in training for t in things}
    assert not any(held_out(*pair) for pair in drawn)
    there = [(t.kind, t.colour) for _, _, things in shifted for t in things]
    named = [pair for pair in there if all(pair)]
    assert sum(held_out(*pair) for pair in named) > 0.4 * len(named)
    assert set(textures.HELD).isdisjoint(textures.TRAINED)


def test_held_out_pairs_leave_every_kind_and_colour_to_training() -> None:
    held = [(k, c) for k in KINDS for c in COLOURS if held_out(k, c)]
    assert 0.09 < len(held) / (len(KINDS) * len(COLOURS)) < 0.15
    assert all(pairs(kind, True) and len(pairs(kind, False)) >= 9 for kind in KINDS)
    assert {c for _, c in held} == set(COLOURS)


def test_older_scenes_are_among_training(training: list[Shown]) -> None:
    old = WORLDS["v1"]
    sizes = [{t.scale for t in things} for _, _, things in training]
    clean = sum(s <= {0.72, 1.25} for s in sizes)
    assert 0.05 * len(training) < clean < 0.45 * len(training)
    for (_, _, things), s in zip(training, sizes, strict=True):
        if s <= {0.72, 1.25}:
            assert {t.kind for t in things} <= set(old.kinds)
            assert {t.size for t in things} == {""}


def test_a_mug_of_the_older_scenes_shows_its_handle_or_not() -> None:
    classic = Classic(WIDTH, HEIGHT)
    seen = set()
    for seed in range(40):
        _, _, things = classic.scene(seed)
        seen |= {t.parts for t in things if t.kind == "mug"}
        assert not any(t.parts for t in things if t.kind != "mug")
    assert seen == {(), ("handle",)}


def test_shades_are_nearest_to_their_own_name() -> None:
    """Every shade lies nearer to the line of shades of its own name than to any other's."""
    rng = np.random.default_rng(0)

    def away(rgb: np.ndarray, name: str) -> float:
        low, high = (np.array(end) for end in SHADES[name])
        along = np.clip((rgb - low) @ (high - low) / ((high - low) @ (high - low)), 0, 1)
        return float(np.linalg.norm(rgb - low - along * (high - low)))

    for name in COLOURS:
        for _ in range(100):
            rgb = np.array(shade(name, rng))
            assert min(COLOURS, key=lambda other: away(rgb, other)) == name


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ((0.53, 0.47, 0.0), True),
        ((0.51, 0.49, 0.0), False),
        ((0.36, 0.45, 0.19), True),  # two parts in its colour
        ((0.61, 0.2, 0.19), True),
        ((0.6, 0.19, 0.21), False),  # of a second colour
    ],
)
def test_a_colour_is_named_where_it_covers_most(
    shares: tuple[float, float, float], named: bool
) -> None:
    roles, main = ("body", "label", "second"), (True, False, shares[0] < 0.5)
    thing = SimpleNamespace(
        colour="red",
        paints=[SimpleNamespace(main=each) for each in main],
        shape=SimpleNamespace(parts=[SimpleNamespace(role=role) for role in roles]),
    )
    assert _colour(thing, np.array(shares)) == ("red" if named else "")  # type: ignore[arg-type]


def test_what_can_hardly_be_seen_is_faint() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:20, 15:25] = True
    for level, seen in ((108, False), (92, False), (110, True), (90, True)):
        rgb = np.full((40, 40, 3), 100, np.uint8)
        rgb[mask, 1] = level
        rgb[:5] = 255  # what is far away is of no matter
        assert _faint(rgb, mask, (15, 10, 25, 20)) != seen
    rgb[mask] = 100
    rgb[mask, 2] = np.tile([80, 120], 50)  # as bright as its surroundings, but striped
    assert not _faint(rgb, mask, (15, 10, 25, 20))


def test_sensors_keep_the_picture_s_form_and_are_repeatable() -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (60, 80, 3), np.uint8)
    assert (apply_sensor(picture, Sensor()) == picture).all()
    effects = set()
    for _ in range(60):
        sensor = draw_sensor(rng)
        shot = apply_sensor(picture, sensor)
        assert shot.shape == picture.shape
        assert shot.dtype == np.uint8
        assert (shot == apply_sensor(picture, sensor)).all()
        effects |= {name for name in ("vignette", "defocus", "jpeg") if getattr(sensor, name)} | {
            name for name in ("motion", "noise") if any(getattr(sensor, name))
        }
    assert effects == {"vignette", "defocus", "jpeg", "motion", "noise"}


def test_each_effect_of_a_sensor_does_what_it_says() -> None:
    grey = np.full((60, 80, 3), 120, np.uint8)
    grey[:, 40:] = 160
    clean = Sensor()
    assert apply_sensor(grey, replace(clean, exposure=0.6)).mean() < 0.65 * grey.mean()
    red, _, blue = apply_sensor(grey, replace(clean, balance=(1.2, 1.0, 0.8))).mean((0, 1))
    assert red > 1.4 * blue
    dark = apply_sensor(grey, replace(clean, vignette=0.5))
    assert dark[0, 0, 0] < dark[30, 20, 0]
    for change in ({"defocus": 6.0}, {"motion": (24.0, 0.0)}):
        row = apply_sensor(grey, replace(clean, **change))[30, :, 0]
        assert len(np.unique(row)) > 2
    noisy = apply_sensor(grey, replace(clean, noise=(8.0, 4.0)))
    assert 5 < noisy[:, :30].std() < 14


CUBE = """
v -40 -40 0
v 40 -40 0
v 40 40 0
v -40 40 0
v -40 -40 80
v 40 -40 80
v 40 40 80
v -40 40 80
vt 0 0
vt 1 0
vt 1 1
vt 0 1
f 1/1 4/2 3/3 2/4
f 5/1 6/2 7/3 8/4
f 1/1 2/2 6/3 5/4
f 2/1 3/2 7/3 6/4
f 3/1 4/2 8/3 7/4
f 4/1 1/2 5/3 8/4
"""


def wedge_stl(size: float) -> str:
    """A corner of a cube, as STL's text."""
    corners = ((0, 0, 0), (size, 0, 0), (0, size, 0), (0, 0, size))
    facets = ""
    for face in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)):
        points = "".join("vertex {} {} {}\n".format(*corners[k]) for k in face)
        facets += f"facet normal 0 0 0\nouter loop\n{points}endloop\nendfacet\n"
    return f"solid wedge\n{facets}endsolid\n"


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    folder = tmp_path / "meshes"
    for kind in ("mug", "gadget"):
        (folder / kind).mkdir(parents=True)
    (folder / "mug" / "square.obj").write_text(CUBE)
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 1:] = 255  # yellow, as OpenCV orders colours
    cv2.imwrite(str(folder / "mug" / "square.png"), picture)
    (folder / "gadget" / "wedge.stl").write_text(wedge_stl(0.07))
    return folder


def test_meshes_of_a_folder_are_among_the_things(meshes: Path) -> None:
    wedge, cube = load_scans(meshes)
    assert (wedge.kind, cube.kind) == ("", "mug")
    assert (len(wedge.mesh.vertices), len(wedge.mesh.faces), len(cube.mesh.faces)) == (4, 4, 12)
    assert np.allclose(np.ptp(cube.mesh.vertices, axis=0), 0.08)  # it was in millimetres
    assert np.allclose(np.ptp(wedge.mesh.vertices, axis=0), 0.07)
    assert wedge.picture is None
    assert cube.picture is not None
    assert (cube.picture == (255, 255, 0)).all()
    world = World(WIDTH, HEIGHT, scans=(wedge, cube))
    found = set()
    for seed in SEEDS[:EACH]:
        rgb, instances, things, scene = world.scene(seed)
        for thing, placed in zip(things, scene.things, strict=True):
            mesh = placed.shape.parts[0].mesh
            found |= {k for k, scan in enumerate((wedge, cube)) if mesh is scan.mesh}
            if mesh is cube.mesh:
                assert (thing.kind, thing.colour) == ("mug", "")
                red, _, blue = rgb[instances == thing.id].mean(0)
                assert red > 1.5 * blue
    assert found == {0, 1}


def test_a_binary_gltf_stands_upright_with_the_texture_that_it_holds(tmp_path: Path) -> None:
    bottle = trimesh.creation.box((0.06, 0.2, 0.05))  # glTF's y points up
    picture = Image.new("RGB", (16, 16), (200, 30, 60))
    picture.paste((20, 120, 220), (0, 0, 16, 8))  # its upper half
    uv = bottle.vertices[:, :2] / (0.06, 0.2) + 0.5
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    bottle.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    (tmp_path / "bottle").mkdir()
    bottle.export(tmp_path / "bottle" / "tall.glb")
    (scan,) = load_scans(tmp_path)
    assert np.allclose(np.ptp(scan.mesh.vertices, axis=0), (0.06, 0.05, 0.2))
    assert np.isclose(scan.mesh.vertices[:, 2].min(), 0)
    assert scan.picture is not None
    assert scan.mesh.uv is not None
    top = scan.mesh.vertices[:, 2] > 0.1
    rows = (scan.mesh.uv[:, 1] * (len(scan.picture) - 1)).round().astype(int)
    assert (scan.picture[rows[top], 0] == (20, 120, 220)).all()
    assert (scan.picture[rows[~top], 0] == (200, 30, 60)).all()


def test_meshes_are_asked_for_where_there_are_some(meshes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no meshes"):
        load_scans(tmp_path / "nothing")
    with pytest.raises(InputError, match="takes no meshes"):
        write_dataset(tmp_path / "out", "val", 1, WIDTH, HEIGHT, 1, assets=Assets(meshes))
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
    for text in (
        "",
        "v 0 0 0\nf 1 2 3\n",
        f"{corners}f 1 2 9999999999999999999\n",
        corners[:24] + "f 1 2 3\n",
    ):
        (meshes / "mug" / "broken.obj").write_text(text)
        with pytest.raises(InputError, match=r"broken\.obj"):
            load_scans(meshes)


def test_goods_are_in_print_all_around() -> None:
    """Of each kind that goods come in, and of most of its things."""
    world = World(WIDTH, HEIGHT, goods=True)
    printed, plain, found = 0, 0, set()
    for seed in SEEDS:
        _, _, things, scene = world.scene(seed)
        for thing, placed in zip(things, scene.things, strict=True):
            if thing.kind not in GOODS:
                continue
            labels = [p.mesh.vertices for p in placed.shape.parts if p.role == "label"]
            whole = np.ptp(placed.shape.points(), axis=0)[1]  # a mug's handle is along x
            around = bool(labels) and np.ptp(np.concatenate(labels), axis=0)[1] > 0.8 * whole
            printed, plain = printed + around, plain + (not around)
            if around:
                found.add(thing.kind)
    assert found == set(GOODS)
    assert printed > plain


@pytest.fixture
def panoramas(tmp_path: Path) -> Path:
    folder = tmp_path / "panoramas"
    folder.mkdir()
    light = np.zeros((256, 512, 3), np.float32)
    light[:128] = (0.4, 0.1, 0.1)  # a bluish sky, as OpenCV orders colours
    light[128:] = (0.1, 0.1, 0.4)
    light[:, :256] *= np.linspace(0.2, 2, 256, dtype=np.float32)[:, None]
    cv2.imwrite(str(folder / "room.hdr"), light)
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[..., 1] = np.arange(128) * 2
    picture[..., 2] = np.arange(64)[:, None] * 4
    cv2.imwrite(str(folder / "street.png"), picture)
    return folder


def test_the_sky_is_the_panorama_in_every_direction(panoramas: Path) -> None:
    """What is drawn where nothing stands agrees with the panorama looked up along each pixel's ray."""
    street = load_panoramas(panoramas)[1]
    shelf = draw_shelf(0, panoramas=(street,))
    stage = Stage(shelf, WIDTH, HEIGHT)
    world = World(WIDTH, HEIGHT)
    drawn = world.scene(SEEDS[0])[3]
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2)
    for azimuth in np.arange(0, 6, 1.3):
        for down in (-1.2, -0.4, 0.5, 1.3):
            forward = np.array(
                [np.cos(azimuth) * np.cos(down), np.sin(azimuth) * np.cos(down), -np.sin(down)]
            )
            right = np.array([np.sin(azimuth), -np.cos(azimuth), 0])
            pose = np.eye(4)
            pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
            pose[:3, 3] = (0, 0, 40)  # too high for table and things to show
            camera = replace(drawn.camera, pose=pose)
            scene = replace(
                drawn, things=(), room=(), camera=camera, backdrop=Backdrop(0, 0.7, 1.0), nooks=0.0
            )
            stage.place(scene)
            labels = stage.labels(scene)
            rays = np.stack([x, y, np.full_like(x, camera.focal(WIDTH))], -1) @ pose[:3, :3].T
            wanted = sample(street, project(rays), 0.7).astype(float)
            clear = ~labels.table
            # The seam of the panorama is one column wide on either side.
            error = np.abs(stage.picture(scene, labels).astype(float) - wanted).max(-1)[clear]
            assert np.percentile(error, 97) < 8
    stage.close()


def test_panoramas_stand_behind_tables_that_end(panoramas: Path) -> None:
    """A light room's colours show; without panoramas a seed's scene is drawn as if there were none."""
    room, street = load_panoramas(panoramas)
    assert room.shape == street.shape == (512, 1024, 3)
    plain, world = World(WIDTH, HEIGHT), World(WIDTH, HEIGHT, panoramas=(room, street))
    behind = 0
    for seed in SEEDS[:EACH]:
        rgb, instances, _, scene = world.scene(seed)
        other, same, _, before = plain.scene(seed)
        assert np.array_equal(instances, same)
        assert before.backdrop is None
        if scene.backdrop:
            behind += 1
            assert scene.table.form != "plane"
            assert not scene.room
        else:
            assert np.abs(rgb.astype(int) - other).mean() < 1
    assert EACH / 4 <= behind <= EACH - 2


def test_panoramas_are_asked_for_where_there_are_some(panoramas: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no panoramas"):
        load_panoramas(tmp_path / "nothing")
    with pytest.raises(InputError, match="takes no panoramas"):
        write_dataset(
            tmp_path / "a", "val", 1, WIDTH, HEIGHT, 1, assets=Assets(panoramas=panoramas)
        )
    cv2.imwrite(str(panoramas / "square.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"square\.png.*twice as wide"):
        load_panoramas(panoramas)
    (panoramas / "square.png").write_text("no picture")
    with pytest.raises(InputError, match=r"square\.png.*cannot|not a picture"):
        load_panoramas(panoramas)


def test_a_dataset_names_its_panoramas(panoramas: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assets = Assets(panoramas=panoramas)
    write_dataset(out, "train", 2, WIDTH, HEIGHT, 1, world="household", assets=assets)
    assert '"street.png"' in (out / "meta.json").read_text()
