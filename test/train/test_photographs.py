"""Photographs with COCO's masks as scenes: what is in a crop, what is asked, and what nobody asks."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from gsva_ros.cli import main
from gsva_ros.datasets import photographs
from gsva_ros.errors import InputError
from gsva_ros.eval.sources.scenes import add_arguments, gather
from gsva_ros.files import only_writer
from gsva_ros.model.bundled import model_directory
from gsva_ros.model.checkpoint import load_converted
from gsva_ros.phrasing.unknown import NAMED, unknown
from gsva_ros.phrasing.words import Vocabulary, plural
from gsva_ros.scenes import LINES, SceneSet
from gsva_ros.train.config import Config
from gsva_ros.train.dense import DenseHead, dense_labels
from gsva_ros.train.frames import Frames
from gsva_ros.train.joint import JointStage
from gsva_ros.train.kept import key_of
from gsva_ros.train.sources.table import make
from gsva_ros.train.stages import task

NAMES = {
    "names": {"cup": ["mug", "glass"], "bottle": ["bottle"], "ball": ["ball"], "tin": ["", "can"]},
    "absent": ["hammer"],
}
RED, GREEN, GREY = (200, 20, 20), (30, 180, 40), (128, 128, 128)


class Maker:
    """A small data set of rectangles: category, colour, (x, y, width, height)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images, self.annotations = folder, [], []
        self.categories = ["cup", "bottle", "ball", "tin", "person"]
        (folder / "images").mkdir()

    def picture(self, *things: tuple[str, Any, tuple[int, int, int, int]], **size: int) -> None:
        width, height = size.get("width", 400), size.get("height", 300)
        number = len(self.images)
        rgb = np.full((height, width, 3), GREY, np.uint8)
        for name, colour, (x, y, w, h) in things:
            rgb[y : y + h, x : x + w] = colour
            self.annotations.append(
                {
                    "image_id": number,
                    "category_id": self.categories.index(name),
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "iscrowd": int(size.get("crowd", 0)),
                }
            )
        self.images.append(
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        )
        cv2.imwrite(str(self.folder / "images" / f"{number}.png"), rgb[..., ::-1])

    def write(self, names: Any = NAMES, crops: int = 1) -> SceneSet:
        """The scenes that the command makes of it."""
        self.lay(names)
        assert self.command(crops) == 0
        return SceneSet(self.folder / "scenes", "train")

    def refused(self, capsys: pytest.CaptureFixture[str], names: Any = NAMES) -> str:
        """What the command says where it makes none of it."""
        self.lay(names)
        assert self.command() == 2
        return capsys.readouterr().err

    def lay(self, names: Any) -> None:
        categories = [{"id": k, "name": name} for k, name in enumerate(self.categories)]
        data = {"images": self.images, "annotations": self.annotations, "categories": categories}
        (self.folder / "coco.json").write_text(json.dumps(data))
        (self.folder / "names.yaml").write_text(json.dumps(names))  # YAML too

    def command(self, crops: int = 1, size: tuple[int, int] = (240, 180)) -> int:
        options = {
            "annotations": "coco.json",
            "images": "images",
            "names": "names.yaml",
            "out": "scenes",
        }
        told = [f"--{name}={self.folder / value}" for name, value in options.items()]
        told += [f"--width={size[0]}", f"--height={size[1]}"]
        return main(["photographs", *told, f"--crops={crops}"])


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def cup(maker: Maker) -> Maker:
    """A set of one cup."""
    maker.picture(("cup", RED, (100, 60, 80, 80)))
    maker.write()
    return maker


def asked(scenes: SceneSet, row: int = 0) -> dict[str, tuple[int, ...]]:
    return {e.text: e.targets for e in scenes.expressions[row]}


def test_a_thing_and_its_mask(maker):
    maker.picture(("bottle", GREEN, (100, 60, 60, 150)))
    scenes = maker.write()
    assert len(scenes) == 1
    here = asked(scenes)
    assert here["the bottle"] == (1,)
    mask = scenes.instances[0] == 1
    rows, columns = np.nonzero(mask)
    assert np.allclose([columns.min(), columns.max() + 1], [60, 96], atol=1)  # x 0.6
    assert np.allclose([rows.min(), rows.max() + 1], [36, 126], atol=1)
    assert np.allclose(scenes.position[0, 1, :2], [130 / 400, 135 / 300], atol=0.01)
    assert scenes.kinds[scenes.kind[0, 1]] == "bottle"
    assert scenes.colours[scenes.colour[0, 1]] == "green"
    assert {text for text, targets in here.items() if not targets} <= {
        "the red bottle",
        "the orange bottle",
        "the yellow bottle",
        "the blue bottle",
        *(f"the {kind}" for kind in ("mug", "ball", "hammer")),
        *(f"the leftmost {kind}" for kind in ("mug", "ball", "hammer")),
        *(f"all {kind}s" for kind in ("mug", "ball", "hammer")),
    }


def test_several_of_a_kind(maker):
    maker.picture(
        ("ball", RED, (40, 100, 60, 60)),
        ("ball", GREEN, (180, 100, 60, 60)),
        ("ball", GREEN, (300, 90, 60, 60)),
    )
    scenes = maker.write()
    found, left = asked(scenes), int(scenes.instances[0][78, 42])  # the first ball's middle
    assert "the ball" not in found
    for text, targets in found.items():
        if text in ("all balls", "the balls"):
            assert sorted(targets) == [1, 2, 3]
        elif text in ("the leftmost ball", "the red ball"):
            assert targets == (left,)
        assert text != "the green ball"  # there are two


def test_what_could_pass_for_a_kind_keeps_it_from_being_asked_for(maker):
    maker.picture(("cup", RED, (100, 60, 80, 80)))  # might be a glass
    maker.picture(("tin", GREY, (100, 60, 80, 80)), ("bottle", RED, (250, 50, 50, 120)))
    names = NAMES | {"absent": ["hammer", "glass", "can"]}
    scenes = maker.write(names)
    first, second = asked(scenes, 0), asked(scenes, 1)
    assert first["the mug"] == (1,)
    assert not any("glass" in text for text in first)
    assert not any("can" in text.split() for text in second)
    assert scenes.kind[1].max() >= 0
    assert (scenes.kind[1] == -1).sum() == scenes.kind.shape[1] - 1  # the tin has no name


@pytest.mark.parametrize(
    ("thing", "size"),
    [
        (("bottle", RED, (100, 60, 8, 8)), {}),  # too small
        (("bottle", RED, (100, 60, 60, 150)), {"crowd": 1}),
    ],
)
def test_nobody_asks_for_what_is_doubtful(maker, thing, size):
    maker.picture(thing, ("ball", GREEN, (250, 100, 60, 60)), **size)
    if size:  # the ball is one of a crowd too
        assert not any("bottle" in t or "ball" in t for t in asked(maker.write()))
    else:
        here = asked(maker.write())
        assert here["the ball"] == (1,)
        assert not any("bottle" in text for text in here)


def test_nobody_asks_for_what_has_a_mask_without_a_pixel(maker):
    maker.picture(("bottle", RED, (100, 60, 60, 150)), ("ball", GREEN, (250, 100, 60, 60)))
    maker.annotations[0]["segmentation"] = [[100, 60, 160, 210]]
    scenes = maker.write(crops=4)
    assert len(scenes) > 1
    for row in range(len(scenes)):
        assert not any("bottle" in text for text in asked(scenes, row))


@pytest.mark.parametrize("crowd", [0, 0.0, False, "0", "false", None])
def test_one_thing_is_no_crowd_however_that_is_written(maker, crowd):
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.annotations[0]["iscrowd"] = crowd
    assert asked(maker.write())["the bottle"] == (1,)


def test_all_of_a_photograph_first_and_then_parts_of_it(maker):
    maker.picture(("bottle", RED, (60, 50, 60, 300)), width=180, height=400)
    scenes = maker.write(crops=5)
    assert 1 < len(scenes) <= 5
    columns = np.nonzero((scenes.instances[0] == 1).any(0))[0]
    # 180 x 400 stand in the middle of 533 x 400, which become 240 x 180.
    assert np.allclose(
        [columns.min(), columns.max() + 1], [(177 + 60) * 0.45, (177 + 120) * 0.45], atol=2
    )
    again = maker.write(crops=5)
    assert np.array_equal(again.rgb[np.arange(2)], scenes.rgb[np.arange(2)])


def test_large_photographs_are_reduced_to_what_their_crops_show(maker):
    maker.picture(("bottle", RED, (400, 240, 240, 600)), width=1600, height=1200)
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.annotations.append(maker.annotations[0] | {"segmentation": [[9, 9, 13, 9, 13, 13]]})
    maker.write()
    maker.command(1, (120, 90))
    scenes = SceneSet(maker.folder / "scenes", "train")
    large, small = scenes.instances
    assert (large != small).mean() < 0.01
    assert np.abs(scenes.rgb[0].astype(int) - scenes.rgb[1]).mean() < 2
    assert not any("bottle" in text for text in asked(scenes))  # of the other one only a few pixels
    reduced = photographs._reduced(np.eye(1200, 1600, dtype=bool), (225, 300))
    assert reduced.shape == (225, 300)
    assert np.array_equal(reduced.nonzero()[0], reduced.nonzero()[1])


def test_nothing_named_is_cropped_once(maker):
    maker.picture(("person", RED, (60, 50, 60, 100)))
    scenes = maker.write(crops=4)
    assert len(scenes) == 1
    assert all(not targets for targets in asked(scenes).values())


def test_crops_may_be_of_any_shape_that_a_frame_may_have(maker, capsys):
    maker.picture(("cup", RED, (100, 60, 80, 80)), height=60)
    maker.write()
    assert maker.command(4, (2, 200)) == 0
    assert SceneSet(maker.folder / "scenes", "train").rgb.shape[1:3] == (200, 2)
    assert maker.command(4, (2000, 1)) == 2
    assert "--width, --height: 2000x1 is too thin" in capsys.readouterr().err


def test_a_name_of_no_category_is_told(cup, capsys):
    assert "no category" not in capsys.readouterr().err
    cup.write(NAMES | {"names": {"Cup": ["mug"], "ball": ["ball"]}})
    told = capsys.readouterr().err
    assert "names.yaml: " in told
    assert "coco.json has no category Cup:" in told


@pytest.mark.parametrize(
    "name", ["C:\\photos\\0.png", "/content/photos/0.png", "../0.png", "0.PNG", "upload/%30.png"]
)
def test_images_that_were_elsewhere_are_told(maker, capsys, name):
    for _ in range(2):
        maker.picture(("cup", RED, (100, 60, 80, 80)))
    maker.images[0]["file_name"] = name
    maker.images[1]["file_name"] = "none.png"
    told = maker.refused(capsys)
    assert f"{name}: missing; " in told
    assert "(2 of 2 images are missing); the folder contains 0.png: give each" in told


def test_an_image_that_is_listed_twice_is_told(maker, capsys):
    for name in ("cup", "ball"):  # each entry would say that the other's thing is absent
        maker.picture((name, RED, (100, 60, 80, 80)))
    maker.images[1]["file_name"] = "0.png"
    assert "coco.json: several images have the file_name '0.png'" in maker.refused(capsys)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"names": {"cup": ["kettle"]}}, "kettle"),
        ({"names": {}}, "names"),
        ({"names": {"cup": ["mug"]}, "abesnt": []}, "abesnt"),
    ],
)
def test_names_that_cannot_be(cup, capsys, names, problem):
    told = cup.refused(capsys, names)
    assert problem in told
    assert "names.yaml" in told


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"images": []}, "instances: no 'categories'"),
        (
            {"version": "5.0", "shapes": []},
            "instances but labelme's labels of one image: labelme2coco",
        ),
        ({"a.jpg123": {"filename": "a.jpg", "regions": []}}, "instances but VGG Image Annotator's"),
        ({"_via_settings": {}, "_via_img_metadata": {}}, "instances but VGG Image Annotator's"),
        ([{"image_id": 1, "score": 0.5}], "instances but a detector's results"),
        ([{"annotations": [{"bbox_mode": 0}]}], "instances but detectron2's list of images"),
        (
            {"categories": [], "images": [], "annotations": [{"image_id": 1, "caption": "a cat"}]},
            "instances but COCO's captions",
        ),
        ({"categories": [], "images": [], "annotations": [{}]}, "annotations[0]: no 'category_id'"),
        (
            {"categories": [], "images": [{"id": 3}, {"id": 3, "file_name": "b"}]},
            "images: two entries have the id 3",
        ),
        (
            {
                "categories": [{"id": 1, "name": "cup"}],
                "images": [],
                "annotations": [{"image_id": 0, "category_id": 0}],
            },
            "annotations[0]: no category has the id 0",
        ),
    ],
)
def test_what_other_files_are_is_told(cup, capsys, data, said):
    (cup.folder / "coco.json").write_text(json.dumps(data))
    assert cup.command() == 2
    told = capsys.readouterr().err
    assert "coco.json: " in told
    assert said in told


@pytest.mark.parametrize(
    "polygons", [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [[[1, 2], [3, 4], [5, 6]]], ["1 2 3 4 5 6"]]
)
def test_which_annotation_has_other_polygons_is_told(maker, capsys, polygons):
    maker.picture(("cup", RED, (100, 60, 80, 80)))
    maker.annotations[0] |= {"id": 77, "segmentation": polygons}
    said = "coco.json: 0.png: annotation 77: not a COCO segmentation: it must be a list"
    assert said in maker.refused(capsys)


def test_a_run_that_fails_leaves_the_set_of_an_earlier_one(maker):
    for _ in range(2):
        maker.picture(("cup", RED, (100, 60, 80, 80)))
    maker.write()
    folder = maker.folder / "scenes"
    earlier = {path.name: path.read_bytes() for path in folder.iterdir()}
    (maker.folder / "images/1.png").write_bytes(b"no picture")
    assert maker.command() == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == earlier


def test_a_set_that_was_half_written_is_none(cup):
    (cup.folder / "scenes/meta.json").unlink()
    with pytest.raises(InputError, match=r"scenes: .*interrupted.*no meta\.json; run the command"):
        SceneSet(cup.folder / "scenes", "train")


def test_two_runs_do_not_write_one_set(cup, monkeypatch):
    made, met = photographs.new_arrays, []

    def meanwhile(folder: Path, *sizes: int) -> Any:
        told = pytest.raises(InputError, match="another process is writing it")
        with told, only_writer(folder / LINES):
            pass
        met.append(folder)
        return made(folder, *sizes)

    monkeypatch.setattr(photographs, "new_arrays", meanwhile)
    assert cup.command() == 0
    assert met


def test_what_is_there_is_not_lost_to_a_run_that_cannot_be(cup, capsys):
    (cup.folder / "images/0.png").unlink()
    assert "0.png: missing" in cup.refused(capsys)
    assert len(SceneSet(cup.folder / "scenes", "train")) == 1
    meta = cup.folder / "scenes/meta.json"
    meta.write_text(meta.read_text().replace("photographs", "household"))
    assert "contains other scenes: choose another folder" in cup.refused(capsys)
    assert len(SceneSet(cup.folder / "scenes", "train")) == 1


def test_photographs_may_be_held_out_of_the_list_alone(maker):
    for _ in range(2):
        maker.picture(("cup", RED, (100, 60, 80, 80)))
    maker.images.pop()
    assert len(maker.write()) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_annotations_as_programs_for_windows_write_them(cup, encoding):
    path = cup.folder / "coco.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert cup.command() == 0


@pytest.mark.parametrize("name", ["coco.json", "images/0.png"])
def test_a_file_that_git_lfs_has_not_fetched_is_told(cup, capsys, name):
    (cup.folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    assert cup.command() == 2
    assert f"{name}: not the file, but Git LFS's pointer to it" in capsys.readouterr().err


def test_annotations_of_no_listed_image_are_told(cup, capsys):
    cup.images[0]["id"] = "0"  # otherwise the cup would count as absent
    told = cup.refused(capsys)
    assert "coco.json: no annotation is of an image that it lists: image_id 0" in told
    assert "not among the ids '0'" in told


@pytest.mark.parametrize("segmentation", [None, [], [[]], {}, ""])
def test_boxes_teach_what_is_there_and_no_outlines(maker, segmentation):
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.annotations[0] |= {"segmentation": segmentation, "bbox": [100, 60, 60, 150]}
    scenes = maker.write()
    assert scenes.outlined.tolist() == [False, True]
    boxed, outlined = scenes.instances[0], scenes.instances[1]
    assert (boxed != outlined).mean() < 0.01
    assert asked(scenes)["the bottle"] == (1,)


def test_a_box_does_not_tell_the_colour_of_what_is_in_it(maker):
    balls = ("ball", RED, (40, 60, 60, 60)), ("ball", GREEN, (140, 60, 60, 60))
    for _ in range(2):
        maker.picture(*balls, ("bottle", GREEN, (250, 60, 60, 150)))
    for annotation, box in ((1, [140, 60, 60, 60]), (2, [250, 60, 60, 150])):
        maker.annotations[annotation] |= {"segmentation": [], "bbox": box}
    scenes = maker.write()
    said = [{word for text in asked(scenes, row) for word in text.split()} for row in range(2)]
    boxed, outlined = (words & {*scenes.colours} for words in said)
    assert {"red", "green"} <= outlined
    assert not boxed  # the red ball's neither: the other one may be red, too
    assert [scenes.colours[k] for k in scenes.colour[0] if k >= 0] == ["red"]


def test_annotations_that_may_mean_something_else_are_told(maker, capsys):
    maker.picture(("bottle", RED, (200, 60, 60, 150)), ("bottle", RED, (20, 60, 60, 150)))
    maker.write()
    assert "coco.json" not in capsys.readouterr().err
    for number, annotation in enumerate(maker.annotations):
        annotation |= {"id": number, "segmentation": []}
    maker.annotations[0]["bbox"] = [200, 60, 260, 210]  # the other corner instead of the size
    maker.annotations[1]["bbox"] = [0.05, 0.2, 0.15, 0.5]  # in sizes of the image
    for _ in range(2):
        maker.picture()
    maker.write()
    told = capsys.readouterr().err
    assert "coco.json: 0.png: annotation 0 (and 0 more): its box extends beyond the image" in told
    assert "coco.json: 0.png: annotation 1 (and 0 more): encloses no pixel" in told
    assert "coco.json: 1.png (and 1 more): has no annotation: everything named" in told


def test_neither_a_mask_nor_a_box(maker, capsys):
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.write()
    maker.annotations[0].pop("segmentation")
    assert "box" in maker.refused(capsys)


def turn(path: Path, orientation: int = 6) -> None:
    """Let a picture's EXIF say that it is to be shown turned, by a quarter or (3) a half."""
    exif = Image.Exif()
    exif[0x0112] = orientation  # Orientation; Pillow 9.1 has no names
    Image.open(path).save(path, exif=exif)


def test_masks_lie_where_their_pixels_are_stored(maker):
    maker.picture(("bottle", RED, (20, 30, 60, 150)))
    as_stored = maker.write()
    turn(maker.folder / "images/0.png")
    turned = maker.write()
    assert np.array_equal(turned.rgb[0], as_stored.rgb[0])
    assert np.array_equal(turned.instances[0], as_stored.instances[0])


def test_masks_of_a_picture_as_it_is_shown(maker):
    maker.picture(("bottle", RED, (20, 30, 60, 150)))
    turn(maker.folder / "images/0.png")
    maker.images[0] |= {"width": 300, "height": 400}
    x0, x1, y0, y1 = 300 - 180, 300 - 30, 20, 80  # where a quarter of a turn brings it
    maker.annotations[0]["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    scenes = maker.write()
    red = scenes.rgb[0][..., 0] > 150
    assert ((scenes.instances[0] == 1) != red).mean() < 0.01
    assert red.any()


def test_which_way_half_turned_pictures_were_annotated_is_told_by_the_others(maker, capsys):
    for _ in range(2):
        maker.picture(("bottle", RED, (20, 30, 60, 150)))
    turn(maker.folder / "images/0.png", 3)
    maker.write()
    assert "0.png (and 0 more): EXIF turns it" in capsys.readouterr().err
    turn(maker.folder / "images/1.png")
    stored = maker.write()
    as_stored = stored.rgb[0].copy(), stored.instances[0].copy()
    maker.images[1] |= {"width": 300, "height": 400}
    as_shown = maker.write()
    assert "EXIF" not in capsys.readouterr().err
    assert np.array_equal(as_shown.rgb[0], as_stored[0][::-1, ::-1])
    assert np.array_equal(as_shown.instances[0], as_stored[1])


def test_a_picture_of_neither_size_is_told(maker, capsys):
    maker.picture(("bottle", RED, (20, 30, 60, 150)))
    maker.images[0]["width"] = 401
    told = maker.refused(capsys)
    assert "0.png is 400x300" in told
    assert "coco.json says 401x300: another image" in told
    maker.images[0] |= {"width": 300, "height": 400}
    assert "coco.json says 300x400: the image was turned" in maker.refused(capsys)


def test_nothing_to_ask(maker, capsys):
    maker.picture(("bottle", RED, (100, 60, 8, 8)))  # too small
    told = maker.refused(capsys, {"names": {"bottle": ["bottle"]}})
    assert "nothing can be asked" in told


def test_masks_are_not_learnt_from_boxes(maker):
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    del maker.annotations[0]["segmentation"]
    maker.annotations[0]["bbox"] = [100, 60, 60, 150]
    scenes = maker.write()
    stage = JointStage(None, Ask([["the bottle"], ["the bottle"]]), None, Drawn(scenes), 3)
    for step in range(5):
        masks = stage.draw(step, 2, np.random.default_rng(step)).masks
        assert masks.chosen.tolist() == [1]
        assert torch.equal(masks.truth[0], torch.from_numpy(scenes.instances[1] == 1))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_as_many_masks_are_learnt_as_configured(maker, most):
    for _ in range(2):
        maker.picture(("bottle", RED, (100, 60, 60, 150)))
    scenes = maker.write()
    asked = Ask([["the bottle", "the bottle", "the bottle"], []])
    stage = JointStage(None, asked, None, Drawn(scenes), most)
    masks = stage.draw(0, 2, np.random.default_rng(0)).masks
    assert len(masks.chosen) == len(masks.truth) == min(2 * most, 3)


def test_features_are_of_the_pictures_that_are_there_now(maker):
    def features() -> list[torch.Tensor]:
        scenes = SceneSet(maker.folder / "scenes", "train")
        model = load_converted(model_directory("gsva-mini")).model
        frames = Frames(scenes, model.config)
        frames.remember(model)
        return frames.draw(np.arange(len(scenes)), np.random.default_rng(0)).features

    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.write()
    first = features()
    files = sorted((maker.folder / "scenes").glob("backbone_*.npy"))
    written = [path.stat().st_mtime_ns for path in files]
    assert all(torch.equal(a, b) for a, b in zip(first, features(), strict=True))
    assert [path.stat().st_mtime_ns for path in files] == written  # and not computed again
    picture = maker.folder / "images/0.png"
    cv2.imwrite(str(picture), cv2.flip(cv2.imread(str(picture)), 0))
    maker.write()
    anew = features()
    assert not any(torch.equal(a, b) for a, b in zip(first, anew, strict=True))
    for path in files:
        path.unlink()
    assert all(torch.equal(a, b) for a, b in zip(anew, features(), strict=True))


def test_a_key_tells_other_weights_and_fewer_scenes(maker):
    for _ in range(2):
        maker.picture(("bottle", RED, (100, 60, 60, 150)))
    folder = maker.write().folders[0][0]
    module = torch.nn.Linear(2, 2)
    keys = {key_of(module, [(folder, 2)]), key_of(module, [(folder, 1)])}
    keys |= {key_of(module, [(folder, 2), (folder, 2)])}
    with torch.no_grad():
        module.bias += 1
    assert len(keys | {key_of(module, [(folder, 2)])}) == 4


def test_pictures_without_a_thing_teach_no_place(maker):
    maker.picture(("person", RED, (60, 50, 60, 100)))
    scenes = maker.write()
    head = DenseHead(8, len(scenes.kinds), len(scenes.colours), len(scenes.sizes))
    labels = dense_labels(scenes, np.array([0]), 4, 4)
    loss, _ = head(torch.randn(1, 4, 4, 8), labels)
    assert loss.isfinite()


def boxed(maker: Maker, **more: Any) -> Config:
    """A stage on pictures with nothing but boxes."""
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    del maker.annotations[0]["segmentation"]
    maker.annotations[0]["bbox"] = [100, 60, 60, 150]
    maker.write()
    source = {"kind": "scenes", "path": str(maker.folder / "scenes")}
    common = {"out": maker.folder / "run", "model": "gsva-mini", "batch": 2}
    return Config(sources=[source], **common, **more)


def test_boxes_alone_teach_the_joint_stage_no_masks(maker):
    config = boxed(maker, objective="joint", parts={"lm_head": 1e-4}, precision="float32")
    folder = model_directory("gsva-mini")
    made = task(config, load_converted(folder), folder)
    loss, figures = made.module(made.batches[0])
    assert loss.isfinite()
    assert "mask" not in figures


def test_boxes_are_not_learnt_as_masks_from_a_source_of_scenes(maker, capsys):
    (source,) = boxed(maker).sources
    with pytest.raises(
        InputError, match=r"scenes: no scene has outlines, .*photographs with masks"
    ):
        make(source, "sources.0")
    maker.picture(("bottle", GREEN, (100, 60, 60, 150)))
    outlined = maker.write().rgb[1]
    made = make(source, "sources.0")
    assert "scenes: scenes with boxes, no outlines: 1" in capsys.readouterr().err
    for seed in range(5):
        assert np.array_equal(made.draw(np.random.default_rng(seed)).image, outlined)


def test_an_evaluation_tells_where_masks_are_compared_with_boxes(maker):
    parser = argparse.ArgumentParser()
    add_arguments(parser, "train")
    args = parser.parse_args(["--data", str(maker.folder / "scenes")])

    def data() -> str:
        maker.write()
        with gather(args) as gathered:
            return gathered.data

    for _ in range(2):
        maker.picture(("bottle", RED, (100, 60, 60, 150)))
    assert data() == "2 scenes of split train"
    maker.annotations[0] |= {"segmentation": [], "bbox": [100, 60, 60, 150]}
    assert data().startswith("2 scenes of split train, 1 of them with boxes, with which gIoU")


def test_what_photographs_may_show_without_a_label_is_not_taught_as_absent(maker):
    """Of a thing that no scene contains, they are asked for in words that name nothing."""
    config = boxed(maker, objective="language", simple=0.0, unseen=1.0, jitter=0.1)
    batches = task(config, load_converted(model_directory("gsva-mini")), None).batches
    texts = [text for step in range(3) for text in batches[step].asked.packed.slot_texts]
    scenes = SceneSet(maker.folder / "scenes", "train")
    words = Vocabulary(tuple(scenes.kinds), tuple(scenes.colours))
    named = {*unknown(NAMED, words)} - {*words.colours}
    assert len(texts) > 30
    assert not {word for text in texts for word in text.split()} & {*named, *map(plural, named)}


def test_boxes_alone_cannot_teach_the_stage_sam(maker):
    config = boxed(maker, objective="sam", parts={"mask_decoder": 1e-4})
    with pytest.raises(InputError, match="scenes: no scene has the outline"):
        task(config, load_converted(model_directory("gsva-mini")), None)


def test_of_photographs_that_cannot_be_read_nothing_stays(maker, capsys):
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.write()
    shutil.rmtree(maker.folder / "scenes")
    (maker.folder / "images" / "0.png").write_bytes(b"none")
    assert maker.command() == 2
    assert "not an image" in capsys.readouterr().err
    assert not (maker.folder / "scenes").exists()


def test_nobody_says_what_photographs_do_not_show(maker, capsys):
    maker.picture(("bottle", RED, (100, 60, 60, 150)))
    maker.write()
    asked = ["eval", "scenes", "--data", str(maker.folder / "scenes"), "--split", "train"]
    assert main([*asked, "--forms", "unknown"]) == 2
    assert "scenes: photographs contain unlabelled objects" in capsys.readouterr().err


class Drawn:
    """Frames that show nothing."""

    def __init__(self, scenes: SceneSet) -> None:
        self.scenes = scenes

    def draw(self, rows: Any, rng: Any) -> None:
        """No pictures."""


class Ask:
    """The first thing of each scene, asked for in these words."""

    def __init__(self, texts: list[list[str]]) -> None:
        self.texts = texts

    def rows(self, rng: Any, count: int) -> np.ndarray:
        return np.arange(count)

    def about(self, rows: np.ndarray, rng: Any) -> Any:
        packed = SimpleNamespace(
            slot_targets=[(1,) for row in rows for _ in self.texts[row]],
            slot_at=torch.tensor([[row, 0] for row in rows for _ in self.texts[row]]),
        )
        return SimpleNamespace(packed=packed)
