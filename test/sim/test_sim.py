"""The simulator: the same seed gives the same scene, splits never meet, and every phrase is true."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import rendering  # noqa: F401 (skips this module where nothing can be rendered)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer

from gsva_ros import cli
from gsva_ros.errors import InputError
from gsva_ros.files import only_writer
from gsva_ros.interfaces import whole_bag
from gsva_ros.scenes import LINES, SceneSet, begun
from gsva_ros.sim import bag, dataset
from gsva_ros.sim.bag import write_bag, write_video
from gsva_ros.sim.dataset import write_dataset
from gsva_ros.sim.expressions import Expressions, SeenObject, extent, leads, margin
from gsva_ros.sim.render import Renderer
from gsva_ros.sim.scene import TABLES, SceneObject, sample_scene
from gsva_ros.sim.shapes import COLOURS, KINDS
from gsva_ros.sim.sight import visible_scene
from gsva_ros.sim.splits import SPLITS, seeds
from gsva_ros.sim.video import scene_at

SEEDS = range(20_000_000, 20_000_012)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(192, 144)


def test_splits_share_no_seed() -> None:
    ranges = list(SPLITS.values())
    for i, one in enumerate(ranges):
        for other in ranges[i + 1 :]:
            assert one[-1] < other[0] or other[-1] < one[0]
    assert seeds("test", 5)[4] in SPLITS["test"]


def test_training_refuses_another_split(tmp_path: Path) -> None:
    write_dataset(tmp_path / "val", "val", 2, workers=1)
    assert len(SceneSet(tmp_path / "val", "val")) == 2
    with pytest.raises(ValueError, match="'val' split"):
        SceneSet(tmp_path / "val", "train")


def test_a_meta_json_that_is_nested_too_deeply_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = tmp_path / "meta.json"
    meta.write_text("[" * 100_000)
    with pytest.raises(InputError, match=f"{meta}: cannot be read as JSON"):
        SceneSet(tmp_path, "val")
    assert f"{meta} describes another" in refused(capsys, *RENDER, "--out", tmp_path)


def test_scenes_whose_rendering_was_killed_are_not_all_of_them(tmp_path: Path) -> None:
    write_dataset(tmp_path, "val", 3, 32, 24, workers=1)
    path = tmp_path / "scenes.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    said = f"{tmp_path}: 2 of 3 scenes: run the command that renders it again"
    for limit in (None, 3, 9):
        with pytest.raises(InputError, match=said):
            SceneSet(tmp_path, "val", limit)
    assert len(SceneSet(tmp_path, "val", 2)) == 2
    write_dataset(tmp_path, "val", 3, 32, 24, workers=1)
    assert len(SceneSet(tmp_path, "val", 9)) == 3


def test_dataset_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        write_dataset(tmp_path / str(workers), "train", 4, workers=workers)
    for name in ("rgb.npy", "instances.npy", "scenes.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_scenes_that_are_none_are_told(tmp_path: Path) -> None:
    write_dataset(tmp_path, "val", 2, 32, 24, workers=1)
    lines_path, frames = tmp_path / "scenes.jsonl", tmp_path / "rgb.npy"
    lines, whole = lines_path.read_text(), frames.read_bytes()

    def told(said: str) -> None:
        with pytest.raises(InputError, match=f"{tmp_path}: not scenes.*{said}"):
            SceneSet(tmp_path, "val")
        lines_path.write_text(lines)
        frames.write_bytes(whole)

    for targets in ([300], [0], [12], [1.0], [1, 1], "a"):
        scene = json.loads(lines.splitlines()[0])
        scene["objects"] = scene["objects"][:1]
        scene["expressions"] = [scene["expressions"][0] | {"targets": targets}]
        lines_path.write_text(2 * (json.dumps(scene) + "\n"))
        told("not objects of the scene")
    scene["expressions"][0] |= {"text": 5, "targets": []}
    lines_path.write_text(2 * (json.dumps(scene) + "\n"))
    told("an expression is text, not 5")
    for text, said in (("  ", "an expression is empty"), ("\udcff", "surrogates")):
        scene["expressions"][0]["text"] = text
        lines_path.write_text(2 * (json.dumps(scene) + "\n"))
        told(said)
    lines_path.write_text(2 * ("[" * 100_000 + "\n"))
    told("recursion")
    lines_path.write_text("")
    with pytest.raises(InputError, match=f"{tmp_path}: 0 of 2 scenes: run the command"):
        SceneSet(tmp_path, "val")
    lines_path.write_text(lines)
    scene["objects"][0]["id"] = -1
    lines_path.write_text(2 * (json.dumps(scene) + "\n"))
    told("object -1")
    lines_path.write_text("5\n5\n")
    told("'int' object")
    lines_path.write_text(lines * 2)
    told("4 scenes and 2 pictures")
    for shape, kind in (
        ((2, 24, 32), "uint8"),
        ((2, 24, 31, 3), "uint8"),
        ((2, 24, 32, 3), "int8"),
    ):
        np.save(frames, np.zeros(shape, kind))
        told("pictures are")


def test_scenes_that_do_not_fit_on_the_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a reserved place, the first write beyond the end of the disk would kill the process."""

    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"rgb\.npy: cannot be created with 6\.9 MB: .*No space"):
        write_dataset(tmp_path / "scenes", "val", 3, 1024, 752, workers=1)
    assert not (tmp_path / "scenes").exists()


def test_an_interrupted_run_ends_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are written in chunks; those behind the last whole chunk, and their frames, may be torn."""
    monkeypatch.setattr(dataset, "CHUNK", 2)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    write_dataset(whole, "val", 6, 64, 48, workers=1)
    shutil.copytree(whole, torn)
    lines = (torn / "scenes.jsonl").read_text().splitlines(keepends=True)
    (torn / "scenes.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    rgb = np.lib.format.open_memmap(torn / "rgb.npy", "r+")
    rgb[2:] = 7
    rgb.flush()
    write_dataset(torn, "val", 6, 64, 48, workers=1)
    for path in whole.iterdir():
        assert (torn / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_set_that_is_whole_is_not_touched(tmp_path: Path) -> None:
    """What is kept of it elsewhere goes by when it was written."""
    write_dataset(tmp_path, "train", 4, workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    write_dataset(tmp_path, "train", 4, workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


RENDER = ("render", "--split", "test", "--count", "2", "--workers", "1")
BAG = ("bag", "--seeds", "20000004")
VIDEO = ("video", "--seeds", "20000004")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `gsva sim …`, which has to fail; return what it says, in one line behind the progress."""
    assert cli.main(["sim", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("gsva sim: ") == 1, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.parametrize("command", [RENDER, (*RENDER, "--world", "goods"), BAG, VIDEO])
def test_a_size_that_cannot_be_rendered_ends_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    said = refused(capsys, *command, "--width", 100_000, "--out", tmp_path / "new")
    assert "0 x " in said
    assert "choose another size" in said
    assert not list(tmp_path.iterdir())


def test_a_picture_too_small_for_its_things_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for world in ("v1", "goods"):
        out = tmp_path / world
        said = refused(capsys, *RENDER, "--world", world, "--width", 1, "--out", out)
        assert "1 x 144 pixels; choose a larger size" in said
        assert not out.exists()


def test_what_cannot_be_gone_on_with_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    begun = [*RENDER, "--out", out]
    assert cli.main(["sim", *map(str, begun)]) == 0
    (out / "scenes.jsonl").write_text("")
    frames = out / "rgb.npy"
    whole = frames.read_bytes()
    np.save(frames, np.zeros((1, 2, 3, 3), np.uint8))
    assert "images or scenes differ in number or size" in refused(capsys, *begun)
    frames.write_bytes(whole[:50])
    assert "new: cannot be resumed" in refused(capsys, *begun)
    assert frames.read_bytes() == whole[:50]  # it may be somebody's


def test_two_runs_do_not_write_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that was begun nor one that is resumed; and the second leaves the first's files alone."""
    out = tmp_path / "new"
    render = [*RENDER, "--out", out]
    with begun(out):
        assert "new: another process is writing it" in refused(capsys, *render)
        assert (out / "scenes.jsonl").exists()
    assert cli.main(["sim", *map(str, render)]) == 0
    with only_writer(out / LINES):
        assert "new: another process is writing it" in refused(capsys, *render)
    no_locks = OSError(errno.ENOSYS, "not implemented")  # as some file systems have none
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=no_locks))
    assert cli.main(["sim", *map(str, render)]) == 0


#: PyOpenGL says so, as MuJoCo is imported, where there is no libEGL.
NO_LIBRARY = """
import sys, types
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "OpenGL":
            raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("absent", ["driver", "library"])
@pytest.mark.parametrize("command", [RENDER, BAG])
def test_without_opengl_it_is_told_what_to_install(
    tmp_path: Path, command: tuple[str, ...], absent: str
) -> None:
    arguments = ["sim", *command, "--out", str(tmp_path / "new")]
    code = NO_LIBRARY if absent == "library" else ""
    code += f"from gsva_ros.cli import main\nraise SystemExit(main({arguments!r}))\n"
    driver = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent.json"}
    done = subprocess.run(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    exec({code!r})"],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | driver | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "no off-screen rendering" in last
    assert "install libegl1 and libgl1-mesa-dri" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [BAG, VIDEO])
def test_a_bag_is_written_anew_and_whole_or_not_at_all(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    small = (*command, "--width", 64, "--height", 48)
    out = tmp_path / "bag"
    assert f"{tmp_path}: " in refused(capsys, *small, "--out", tmp_path)
    (tmp_path / "file").touch()
    truth = tmp_path / "file" / "truth.json"
    assert f"{truth}: " in refused(capsys, *small, "--out", out, "--truth", truth)
    for truth in (out, out / "truth.json"):
        said = refused(capsys, *small, "--out", out, "--truth", truth)
        assert "write the truth next to it" in said
    assert not out.exists()

    def interrupted(*_: object) -> None:
        assert not out.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bag, "write_truth", interrupted)
        known = map(str, (*small, "--out", out, "--truth", tmp_path / "truth.json"))
        assert cli.main(["sim", *known]) == 130
    monkeypatch.setattr(bag, "seen_objects", interrupted)
    monkeypatch.setattr(bag, "named_referrings", interrupted)
    assert cli.main(["sim", *map(str, small), "--out", str(out)]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_killed_run_leaves_no_bag_and_is_in_nobodys_way(tmp_path: Path) -> None:
    out = tmp_path / "bag"
    code = f"""
import os, pathlib
from gsva_ros.interfaces import whole_bag
with whole_bag(pathlib.Path({str(out)!r})):
    os._exit(9)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 9
    assert not out.exists()
    write_video(out, [SEEDS[0]], seconds=0.01, rate=4.0, width=64, height=48)
    assert list(tmp_path.iterdir()) == [out]
    assert {path.name for path in out.iterdir()} == {"bag.mcap", "metadata.yaml"}
    assert "relative_file_paths:\n  - bag.mcap\n" in (out / "metadata.yaml").read_text()
    with AnyReader([out]) as reader:  # the shortest video has a frame
        assert reader.topics["/camera/image"].msgcount == 1


def test_a_bag_whose_name_is_taken_meanwhile_stays_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "bag"
    with pytest.raises(OSError, match=r"bag\.partial/bag"), whole_bag(out):
        (out / "of somebody else").mkdir(parents=True)
    assert (tmp_path / "bag.partial" / "bag" / "metadata.yaml").exists()
    out.rename(tmp_path / "another")
    out.symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"), whole_bag(out):
        pass


def test_a_bag_that_a_full_disk_does_not_hold_is_named_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:  # as the writer does with what it still has to write
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Writer, "abort", full)
    with pytest.raises(OSError, match=r"No space .*: '.*/bag'"), whole_bag(tmp_path / "bag"):
        full()
    assert not list(tmp_path.iterdir())


def test_more_scenes_than_a_split_has_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = ("render", "--split", "test", "--count", 99_999_999)
    said = refused(capsys, *many, "--out", tmp_path / "new")
    assert "'test' has 1000000 seeds" in said
    assert not (tmp_path / "new").exists()


def test_one_thing_crosses_and_another_turns_in_every_video() -> None:
    first_crosses = 0
    for seed in range(20_000_000, 20_000_100):
        start = sample_scene(seed)
        before, after = start.objects, scene_at(start, 2.0, np.zeros(3)).objects
        turns = [b.yaw != a.yaw for b, a in zip(before, after, strict=True)]
        moves = [(b.x, b.y) != (a.x, a.y) for b, a in zip(before, after, strict=True)]
        assert (turns.count(True), moves.count(True)) == (1, 2), seed
        first_crosses += moves[0] and not turns[0]
    assert first_crosses


def test_a_folder_of_other_scenes_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "val", "val", 1, workers=1)
    before = (tmp_path / "val" / "scenes.jsonl").read_bytes()
    meta = tmp_path / "val" / "meta.json"
    assert f"{meta} describes another" in refused(capsys, *RENDER, "--out", tmp_path / "val")
    meta.write_text("[]")
    assert f"{meta} describes another" in refused(capsys, *RENDER, "--out", tmp_path / "val")
    assert (tmp_path / "val" / "scenes.jsonl").read_bytes() == before


def test_rendering_shows_every_object_in_its_colour(renderer: Renderer) -> None:
    for seed in SEEDS:
        _, view, seen = visible_scene(seed, renderer)
        assert view.rgb.shape == (144, 192, 3)
        assert view.depth.shape == (144, 192)
        assert {int(k) for k in np.unique(view.instances)} - {0} == {t.id for t in seen}
        for thing in seen:
            assert thing.pixels >= 60
            x0, y0, x1, y1 = thing.box
            assert (view.instances[y0:y1, x0:x1] == thing.id).sum() == thing.pixels
            if thing.colour in ("red", "green", "blue") and thing.kind != "can":
                mean = view.rgb[view.instances == thing.id].mean(0)
                assert int(mean.argmax()) == ("red", "green", "blue").index(thing.colour)


def test_depth_and_pose_agree_with_the_table_top(renderer: Renderer) -> None:
    _, view, _ = visible_scene(SEEDS[0], renderer)
    rows, columns = np.nonzero(view.instances == 0)
    z = view.depth[rows, columns]
    rays = np.linalg.inv(view.intrinsics) @ np.stack([columns, rows, np.ones(len(z))])
    world = view.pose[:3, :3] @ (rays * z) + view.pose[:3, 3:]
    on_table = (np.abs(world[0]) < 0.5) & (np.abs(world[1]) < 0.4)
    assert on_table.sum() > 1000
    assert np.quantile(np.abs(world[2, on_table]), 0.999) < 1e-4, "half a pixel is 2 mm"


def test_things_of_one_kind_and_size_stand_where_they_were_put(renderer: Renderer) -> None:
    cans = tuple(
        SceneObject("can", "blue", "small", x, y, 0.0, (0.07, 0.2, 0.8))
        for x, y in ((-0.15, 0.0), (0.15, 0.05), (0.0, -0.1))
    )
    view = renderer.render(replace(sample_scene(SEEDS[0]), objects=cans))
    assert {int(k) for k in np.unique(view.instances)} == {0, 1, 2, 3}
    for number, can in enumerate(cans, start=1):
        middle = np.array([can.x, can.y, 0.03]) - view.pose[:3, 3]
        x, y, z = view.intrinsics @ view.pose[:3, :3].T @ middle
        column, row = round(x / z), round(y / z)
        assert view.instances[row, column] == number
        assert int(view.rgb[row, column].argmax()) == 2
        assert 0 < z - view.depth[row, column] < 0.04


def test_a_scenes_table_and_light_are_seen(renderer: Renderer) -> None:
    spec = sample_scene(SEEDS[0])
    first = renderer.render(spec)
    changes = {"table": (spec.table + 1) % TABLES, "table_tint": (1.0, 0.2, 0.2), "ambient": 0.9}
    changes |= {"light_position": (0.8, 0.5, 1.5), "light_colour": (0.9, 0.4, 0.4)}
    for name, value in changes.items():
        other = renderer.render(replace(spec, **{name: value}))
        assert np.array_equal(other.instances, first.instances)
        assert np.abs(other.rgb.astype(int) - first.rgb).mean() > 2, name
    assert np.array_equal(renderer.render(spec).rgb, first.rgb)


def things_meant(text: str, things: list[SeenObject], width: int) -> set[int]:
    """An oracle of its own: parses the words and searches all objects."""

    def fitting(words: list[str]) -> list[SeenObject]:
        kept = things
        for word in words:
            word = {"little": "small", "big": "large"}.get(word, word)
            singular = word[:-2] if word == "boxes" else word.rstrip("s")
            if word in COLOURS:
                kept = [t for t in kept if t.colour == word]
            elif word in ("small", "large"):
                kept = [t for t in kept if t.size == word]
            elif word in KINDS or singular in KINDS:
                kept = [t for t in kept if t.kind in (word, singular)]
        return kept

    extremes = {
        "leftmost": lambda t: t.centroid[0],
        "rightmost": lambda t: -t.centroid[0],
        "nearest": lambda t: t.distance,
        "closest": lambda t: t.distance,
        "farthest": lambda t: -t.distance,
    }
    for joint, key in (
        (" to the left of ", extremes["leftmost"]),
        (" left of ", extremes["leftmost"]),
        (" to the right of ", extremes["rightmost"]),
        (" right of ", extremes["rightmost"]),
        (" in front of ", extremes["nearest"]),
        (" behind ", extremes["farthest"]),
    ):
        if joint in text:
            subject, anchor = text.split(joint)
            anchors = fitting(anchor.split())
            if len(anchors) != 1:
                return set()
            return {
                t.id
                for t in fitting(subject.split())
                if t is not anchors[0] and key(t) < key(anchors[0])
            }
    kept = fitting(text.split())
    for word in text.split():
        if word in extremes and kept:
            return {min(kept, key=extremes[word]).id}
    for word, number in (("two", 2), ("three", 3)):
        assert word not in text.split() or len(kept) in (0, number), text
    return {t.id for t in kept}


def test_expressions_are_true_and_balanced(renderer: Renderer) -> None:
    present = absent = 0
    for seed in SEEDS:
        _, _, seen = visible_scene(seed, renderer)
        asked = Expressions(seen, 192, np.random.default_rng(seed)).sample(40)
        assert len({e.text for e in asked}) == len(asked)
        for expression in asked:
            assert set(expression.targets) == things_meant(expression.text, seen, 192), (
                seed,
                expression,
            )
            assert bool(expression.targets) != expression.category.startswith("absent")
            present += bool(expression.targets)
            absent += not expression.targets
    assert present == absent > 100


def test_box_and_centroid_of_pixels() -> None:
    """A pixel's centre is half a pixel after its index."""
    rows, columns = np.nonzero(np.pad(np.ones((2, 4)), ((3, 0), (5, 9))))
    assert extent(rows, columns) == ((5, 3, 9, 5), (7.0, 4.0))
    assert extent(rows[:0], columns[:0]) == ((0, 0, 0, 0), (0.0, 0.0))


def crowd(seed: int) -> list[SeenObject]:
    """Eight things of few names, as they seldom meet in a scene, some of them nearly side by side."""
    rng = np.random.default_rng(seed)
    things = []
    for number in range(1, 9):
        kind, colour = rng.choice(["mug", "box"]), rng.choice(["red", "blue"])
        x, distance = 20.0 * rng.integers(10) + rng.uniform(0, 3), 0.05 * rng.integers(10)
        named = (str(kind), str(colour), str(rng.choice(["small", "large"])))
        things.append(SeenObject(number, *named, 100, (0, 0, 9, 9), (x, 50.0), distance))
    return things


SAID_OF = re.compile(
    r"(all|every|the two|the three|the)(?: (leftmost|rightmost|nearest|closest|farthest))? (.+?)"
    r"(?: (?:to the )?(?:left of|right of|in front of|behind) the (.+))?"
)


def test_expressions_of_a_crowd_are_true() -> None:
    said, together = set(), 0
    for seed in range(60):
        things = crowd(seed)
        asked = Expressions(things, 200, np.random.default_rng(seed)).sample(41)
        assert len(asked) <= 40  # of each pair, one is there and one is not
        for expression in asked:
            text, targets = expression.text, expression.targets
            assert set(targets) == things_meant(text, things, 200), expression
            found = SAID_OF.fullmatch(text)
            assert found, text
            determiner, rank, noun, anchor = found.groups()
            several = determiner != "the" or noun.endswith(("s", "boxes"))
            assert several or len(targets) < 2, expression
            said |= {f"{determiner} …s" if several else determiner, rank}
            # Nobody says "the mugs" of one, or where a thing is by itself.
            assert not (determiner == "the" and several and len(targets) == 1), expression
            assert noun != anchor, expression
            together += bool(anchor) and len(targets) > 1
            if rank and targets:
                keys = {"leftmost": lambda t: t.centroid[0], "rightmost": lambda t: -t.centroid[0]}
                keys["farthest"] = lambda t: -t.distance
                key = keys.get(rank, lambda t: t.distance)
                first, *others = sorted(key(t) for t in things if t.id in fits(noun, things))
                assert not others or others[0] - first >= (12 if "most" in rank else 0.04)
            if not targets:
                absent = [words for words in (noun, anchor) if words and not fits(words, things)]
                kinds = {word for word in KINDS if absent and word in absent[0]}
                missing = kinds and not kinds & {t.kind for t in things}
                category = "absent_kind" if missing else "absent_attribute"
                assert expression.category == (category if absent else "absent_relation")
    assert together
    assert {"the", "the …s", "all …s", "every …s", "the two …s", "the three …s"} <= said
    assert {"leftmost", "rightmost", "nearest", "closest", "farthest"} <= said


def fits(noun: str, things: list[SeenObject]) -> set[int]:
    """What a noun phrase fits, by itself."""
    return things_meant(f"all {noun}", things, 200)


@pytest.mark.parametrize(
    ("side", "lead", "answer"),
    [
        ("left", 12.1, True),
        ("left", 11.9, None),
        ("left", -1.9, None),
        ("left", -2.1, False),
        ("right", -12.1, True),
        ("right", 2.1, False),
        ("front", 0.041, True),
        ("front", 0.039, None),
        ("front", -0.009, None),
        ("front", -0.011, False),
        ("behind", -0.041, True),
        ("behind", 0.011, False),
    ],
)
def test_a_thing_leads_by_some_of_the_width_or_some_centimetres(
    side: str, lead: float, answer: bool | None
) -> None:
    """Six hundredths of a width of 200 pixels or four centimetres; it trails by one of either."""
    anchor, thing = (
        SeenObject(number, "mug", "red", "small", 100, (0, 0, 9, 9), (100.0 - by, 50.0), 1.0 - by)
        for number, by in ((1, 0.0), (2, lead))
    )
    assert leads(thing, anchor, side, 200) is answer
    assert margin(side, 200) == pytest.approx(12 if side in ("left", "right") else 0.04)


def test_bag_is_read_back(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", [SEEDS[0]], frames=2, rate=4.0, width=160, height=120)
    with AnyReader([tmp_path / "bag"]) as reader:
        messages = [
            (c.topic, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages()
        ]
    images = [m for topic, m in messages if topic == "/camera/image"]
    assert len(images) == 2
    assert images[0].data.size == 160 * 120 * 3
    assert images[1].header.stamp.nanosec - images[0].header.stamp.nanosec == 250_000_000
    assert images[0].encoding == "rgb8"
