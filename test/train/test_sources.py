"""Every kind of source on tiny files in its layout, and on broken ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_datasets import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    rectangle,
    ref,
    square,
    write_reason_seg,
    write_root,
)
from torch.utils.data import DataLoader, Dataset

from gsva_ros.datasets.files import DatasetError
from gsva_ros.errors import InputError
from gsva_ros.programs.app_export import write_labelled
from gsva_ros.train.config import Data
from gsva_ros.train.sources.labelled_bag import LabelledBag
from gsva_ros.train.sources.negatives import Known, Negatives
from gsva_ros.train.sources.sample import Reasoning, Segments, Source, Talk
from gsva_ros.train.sources.table import KINDS, make
from gsva_ros.truth import Referring

PACO = "vlpart/paco/annotations/paco_lvis_v1_train.json"
INSTANCES = "refer_seg/grefcoco/instances.json"
TALKS = "llava_dataset/llava_instruct_150k.json"
#: References without a sentence, of which gRefCOCO has some.
UNASKED = [ref(1, [10], split="train")]


def picture(path: Path, value: int = 90, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def label_map(path: Path, left: int, right: int, rest: int) -> None:
    labels = np.full((HEIGHT, WIDTH), rest, np.uint8)
    labels[:, :20], labels[:, 40:] = left, right
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), labels)


def refer_seg(root: Path) -> dict[str, Any]:
    references = [
        ref(1, [10], "The Left one.", split="train"),
        ref(1, [10, 11], "both", split="train"),
        ref(1, [-1], "a unicorn", "a dragon", split="train"),
        ref(2, [-1], "nothing at all", split="train"),
        ref(2, [11], "of another split", split="val"),
    ]
    write_root(root, "grefcoco", "grefs(unc).json", references)
    return {"name": "grefcoco"}


def reason_seg(root: Path) -> dict[str, Any]:
    shapes = [square("target", 5, 5, 9), square("ignore", 20, 5, 9)]
    entry = {"shapes": shapes, "text": ["what is it?", "what else?"], "is_sentence": True}
    write_reason_seg(root, entry)
    folder = root / "reason_seg/ReasonSeg"
    (folder / "val").rename(folder / "train")
    (folder / "explanatory").mkdir()
    explained = [{"image": "0.jpg", "query": "q", "outputs": "Because it is."}]
    (folder / "explanatory/train.json").write_text(json.dumps(explained))
    return {}


def ade20k(root: Path) -> dict[str, Any]:
    picture(root / "ade20k/images/training/a.jpg")
    label_map(root / "ade20k/annotations/training/a.png", left=1, right=3, rest=0)
    (root / "names.json").write_text('["wall", "sky", "tree"]')
    return {"classes": str(root / "names.json")}


def coco_stuff(root: Path) -> dict[str, Any]:
    picture(root / "coco/train2017/a.jpg")
    label_map(root / "cocostuff/train2017/a.png", left=0, right=1, rest=255)
    (root / "names.txt").write_text("0: unlabeled\n1: person\n2: wall-brick\n3: car\n")
    return {"classes": str(root / "names.txt")}


def mapillary(root: Path) -> dict[str, Any]:
    picture(root / "mapillary/training/images/a.jpg")
    label_map(root / "mapillary/training/v2.0/labels/a.png", left=0, right=1, rest=255)
    names = {"labels": [{"readable": "Bird"}, {"readable": "Curb"}]}
    (root / "mapillary/config_v2.0.json").write_text(json.dumps(names))
    return {}


def coco_file(path: Path, category: str, file: str) -> None:
    annotation = {"id": 1, "image_id": 7, "category_id": 3}
    data = {
        "categories": [{"id": 3, "name": category}],
        "images": [{"id": 7, "file_name": file, "height": HEIGHT, "width": WIDTH}],
        "annotations": [annotation | {"segmentation": [rectangle(5, 5, 15, 15)]}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def paco(root: Path) -> dict[str, Any]:
    picture(root / "coco/train2017/a.jpg")
    coco_file(root / PACO, "mug_(drink):handle_(of)", "train2017/a.jpg")
    return {}


def pascal_part(root: Path) -> dict[str, Any]:
    folder = root / "vlpart/pascal_part"
    picture(folder / "VOCdevkit/VOC2010/JPEGImages/a.jpg")
    coco_file(folder / "train.json", "cat:ear", "a.jpg")
    return {}


def llava_instruct(root: Path) -> dict[str, Any]:
    picture(root / "coco/train2017/a.jpg")
    said = [
        ("gpt", "hello"),
        ("human", "<image>\nWhat is it?"),
        ("gpt", "A box."),
        ("human", "Red?"),
    ]
    said += [("gpt", "No.")]
    talk = {"image": "a.jpg", "conversations": [{"from": f, "value": v} for f, v in said]}
    (root / "llava_dataset").mkdir()
    (root / TALKS).write_text(json.dumps([talk]))
    return {}


LAYOUTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    f.__name__: f
    for f in (
        refer_seg,
        reason_seg,
        ade20k,
        coco_stuff,
        mapillary,
        paco,
        pascal_part,
        llava_instruct,
    )
}
#: The kinds whose expressions refer to things; those of the others name classes.
REFERRING = {"refer_seg"}


def source(kind: str, root: Path, **options: Any) -> Source:
    given = LAYOUTS[kind](root) | options
    return make(Data(kind=kind, root=str(root), **given), "sources.0")


def draws(made: Source, count: int = 40) -> list[Any]:
    return [made.draw(np.random.default_rng(n)) for n in range(count)]


def test_every_kind_is_tried_here() -> None:
    untried = KINDS.keys() - LAYOUTS.keys() - {"bag", "scenes"}
    assert not untried, "write a tiny folder in its layout here, and add it to LAYOUTS"


@pytest.mark.parametrize("kind", LAYOUTS)
def test_samples_depend_on_the_generator_alone(kind: str, tmp_path: Path) -> None:
    made = source(kind, tmp_path)
    for first, again in zip(draws(made, 5), draws(made, 5), strict=True):
        assert type(first) is type(again)
        assert first.image.shape == (HEIGHT, WIDTH, 3)
        if isinstance(first, Segments):
            assert first.expressions == again.expressions
            assert np.array_equal(first.masks, again.masks)
            assert first.masks.shape == (len(first.expressions), HEIGHT, WIDTH)
            assert first.classes == (kind not in REFERRING)


def test_referring_expressions(tmp_path: Path) -> None:
    asked = source("refer_seg", tmp_path)
    # Also of an image on which nothing is present, which is never drawn.
    known = {"The Left one", "both", "a unicorn", "a dragon", "nothing at all"}
    assert set(asked.expressions()) == known
    made = draws(asked)
    for sample in made:
        assert isinstance(sample, Segments)
        assert 1 <= len(sample.expressions) <= 3
        assert len(set(sample.expressions)) == len(sample.expressions)
        assert sample.masks.any(), "a sample of rejections alone is drawn again"
        for words, mask in zip(sample.expressions, sample.masks, strict=True):
            truth = {"The Left one": LEFT, "both": LEFT | RIGHT}.get(words, np.zeros_like(LEFT))
            assert (mask ^ truth).sum() <= max(4, 0.2 * truth.sum())
    words = {text for sample in made for text in sample.expressions}
    assert words == {"The Left one", "both", "a unicorn", "a dragon"}


def test_questions_with_explanations(tmp_path: Path) -> None:
    asked = source("reason_seg", tmp_path)
    assert set(asked.expressions()) == {"what is it?", "what else?"}
    made = draws(asked)
    assert all(isinstance(sample, Reasoning) for sample in made)
    assert {sample.query for sample in made} == {"what is it?", "what else?"}
    assert {sample.explanation for sample in made} == {"Because it is."}
    assert made[0].sentence
    assert made[0].mask.sum() == 100


def test_an_explained_picture_may_have_spaces_in_its_name(tmp_path: Path) -> None:
    reason_seg(tmp_path)
    folder = tmp_path / "reason_seg/ReasonSeg"
    for kind in ("jpg", "json"):
        (folder / f"train/0.{kind}").rename(folder / f"train/a mug.{kind}")
    explained = [{"image": "a mug.jpg", "query": "q", "outputs": "Because it is."}]
    (folder / "explanatory/train.json").write_text(json.dumps(explained))
    (sample,) = draws(make(Data(kind="reason_seg", root=str(tmp_path)), "sources.0"), 1)
    assert isinstance(sample, Reasoning)
    assert sample.explanation == "Because it is."


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("ade20k", {"wall": 20, "tree": 20}),
        ("coco_stuff", {"person": 20}),
        ("mapillary", {"bird": 20, "curb": 20}),
    ],
)
def test_maps_of_classes(kind: str, names: dict[str, int], tmp_path: Path) -> None:
    seen = {}
    for sample in draws(source(kind, tmp_path)):
        for words, mask in zip(sample.expressions, sample.masks, strict=True):
            seen[words] = int(mask.sum()) // HEIGHT
    assert seen == names
    assert set(names) <= set(source(kind, tmp_path / "again").expressions())


@pytest.mark.parametrize("kind", ["ade20k", "mapillary", "refer_seg"])
def test_a_sample_asks_for_no_more_than_its_share(kind: str, tmp_path: Path) -> None:
    assert {len(sample.masks) for sample in draws(source(kind, tmp_path, per_image=1))} == {1}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("paco", {"mug handle", "the handle of the mug"}),
        ("pascal_part", {"cat ear", "the ear of the cat"}),
    ],
)
def test_parts(kind: str, said: set[str], tmp_path: Path) -> None:
    made = source(kind, tmp_path)
    samples = draws(made)
    assert {words for sample in samples for words in sample.expressions} == said
    assert set(made.expressions()) == said
    assert (samples[0].masks[0] ^ LEFT).sum() < 30


@pytest.mark.parametrize(("kind", "folder"), [("paco", "coco/train2017"), ("ade20k", "ade20k")])
def test_masks_lie_where_the_pixels_are_stored(kind: str, folder: str, tmp_path: Path) -> None:
    made = source(kind, tmp_path)
    (path,) = (tmp_path / folder).rglob("*.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation; Pillow 9.1 has no names
    stored = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    stored[:, :20] = 200
    Image.fromarray(stored).save(path, exif=exif)
    for sample in draws(made, 5):
        assert np.abs(sample.image.astype(int) - stored).mean() < 5
        assert sample.masks.shape[1:] == (HEIGHT, WIDTH)


def test_a_part_whose_mask_has_no_pixel_is_not_drawn(tmp_path: Path) -> None:
    paco(tmp_path)
    path = tmp_path / PACO
    data = json.loads(path.read_text())
    (whole,) = data["annotations"]
    data["annotations"] += [whole | {"segmentation": [[5, 5, 15, 15]]}] * 3
    path.write_text(json.dumps(data))
    made = make(Data(kind="paco", root=str(tmp_path)), "sources.0")
    assert all(len(sample.masks) == 1 and sample.masks.any() for sample in draws(made))
    data["annotations"] = data["annotations"][1:]
    path.write_text(json.dumps(data))
    made = make(Data(kind="paco", root=str(tmp_path)), "sources.0")
    with pytest.raises(InputError, match="without a present expression"):
        draws(made, 1)


def test_a_thing_without_a_part_is_called_by_its_name(tmp_path: Path) -> None:
    pascal_part(tmp_path)
    coco_file(tmp_path / "vlpart/pascal_part/train.json", "cat", "a.jpg")
    made = make(Data(kind="pascal_part", root=str(tmp_path)), "sources.0")
    assert set(made.expressions()) == {"cat"}
    assert {sample.expressions for sample in draws(made, 3)} == {("cat",)}


def test_talk(tmp_path: Path) -> None:
    (sample,) = draws(source("llava_instruct", tmp_path), 1)
    assert isinstance(sample, Talk)
    assert sample.rounds == (("What is it?", "A box."), ("Red?", "No."))


def lost(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def written(path: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text(text) and None


BROKEN = {
    "refer_seg": (written(INSTANCES, "{}"), "not COCO's"),
    "reason_seg": (written("reason_seg/ReasonSeg/train/0.json", "[]"), "not ReasonSeg's labels"),
    "ade20k": (lost("ade20k/annotations/training/a.png"), "no such file"),
    "coco_stuff": (lost("coco/train2017/a.jpg"), "no such file"),
    "mapillary": (written("mapillary/config_v2.0.json", "[1]"), "no labels with their readable"),
    "paco": (written(PACO, '{"categories": 3}'), "not COCO's"),
    "pascal_part": (lost("vlpart/pascal_part/train.json"), "No such file"),
    "llava_instruct": (written(TALKS, '[{"image": 1}]'), "not LLaVA's conversations"),
}


SAID = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]
#: A sample would ask for it twice, with a mask each.
TWICE = "2 classes are named 'wall'"


@pytest.mark.parametrize(
    ("kind", "file", "content", "said"),
    [
        ("ade20k", "names.json", ["wall", "tree", "wall"], TWICE),
        ("ade20k", "names.json", {"wall": 0}, "not a list of names"),
        ("ade20k", "names.json", ["wall", 1], "not a list of names"),
        ("coco_stuff", "names.txt", "0: unlabeled\n1: wall\n2: a-b\n3: a-b\n4: wall\n", TWICE),
        (
            "mapillary",
            "mapillary/config_v2.0.json",
            {"labels": [{"readable": "Wall"}, {"readable": "wall"}]},
            TWICE,
        ),
        ("llava_instruct", TALKS, [], "has no conversations"),
        ("llava_instruct", TALKS, [{"image": None, "conversations": SAID}], "not LLaVA's"),
        *(
            (
                "llava_instruct",
                TALKS,
                [{"image": "a.jpg", "conversations": [{"from": f, "value": "x"} for f in who]}],
                "human and gpt do not alternate",
            )
            for who in (["human"], ["gpt"], ["gpt", "human"], ["human", "human", "gpt"])
        ),
        (
            "reason_seg",
            "reason_seg/ReasonSeg/explanatory/train.json",
            [{"image": "0.jpg"}],
            "not ReasonSeg's explanations: 'outputs'",
        ),
    ],
)
def test_contents_that_teach_nothing_are_told(
    kind: str, file: str, content: Any, said: str, tmp_path: Path
) -> None:
    options = LAYOUTS[kind](tmp_path)
    (tmp_path / file).write_text(content if file.endswith("txt") else json.dumps(content))
    with pytest.raises(InputError, match=f"{file}: .*{said}"):
        make(Data(kind=kind, root=str(tmp_path), **options), "sources.0")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_is_broken_is_told_when_the_source_is_made(kind: str, tmp_path: Path) -> None:
    options = LAYOUTS[kind](tmp_path)
    breaking, said = BROKEN[kind]
    breaking(tmp_path)
    with pytest.raises(InputError, match=said):
        make(Data(kind=kind, root=str(tmp_path), **options), "sources.0")
    with pytest.raises(InputError):
        make(Data(kind=kind, root=str(tmp_path / "elsewhere"), **options), "sources.0")


@pytest.mark.parametrize("value", [0, -1, 2.5, "few"])
@pytest.mark.parametrize("kind", sorted(LAYOUTS.keys() - {"reason_seg", "llava_instruct"}))
def test_a_value_that_an_option_cannot_have_is_told(kind: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources\.0: per_image: Input should be"):
        source(kind, tmp_path, per_image=value)


def test_numbers_are_no_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources\.0: file: Input should be"):
        source("llava_instruct", tmp_path, file=5)


def test_maps_with_a_palette_are_read_by_their_numbers(tmp_path: Path) -> None:
    """As Mapillary Vistas comes: the palette is for people."""
    mapillary(tmp_path)
    path = tmp_path / "mapillary/training/v2.0/labels/a.png"
    numbers = Image.open(path)
    coloured = Image.fromarray(np.asarray(numbers), "P")
    coloured.putpalette([165, 42, 42, 0, 192, 0, *[7] * 762])
    coloured.save(path)
    made = make(Data(kind="mapillary", root=str(tmp_path)), "sources.0")
    seen = {
        words: int(mask.sum()) // HEIGHT
        for sample in draws(made)
        for words, mask in zip(sample.expressions, sample.masks, strict=True)
    }
    assert seen == {"bird": 20, "curb": 20}


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((20, 30, 3), 1, np.uint8), "not a label map"),
        (np.full((20, 30), 300, np.uint16), "not a label map"),
        (np.zeros((11_000, 10_000), np.uint8), "not plausible"),
        (None, "not a picture"),
    ],
)
def test_maps_that_are_none(tmp_path: Path, pixels: np.ndarray | None, said: str) -> None:
    mapillary(tmp_path)
    path = tmp_path / "mapillary/training/v2.0/labels/a.png"
    path.write_bytes(b"PNG" if pixels is None else cv2.imencode(".png", pixels)[1].tobytes())
    made = make(Data(kind="mapillary", root=str(tmp_path)), "sources.0")
    with pytest.raises(InputError, match=rf"a\.png: .*{said}"):
        draws(made, 1)


def test_a_class_without_a_name_is_told(tmp_path: Path) -> None:
    options = ade20k(tmp_path)
    (tmp_path / "names.json").write_text('["wall", "sky"]')
    made = make(Data(kind="ade20k", root=str(tmp_path), **options), "sources.0")
    with pytest.raises(InputError, match=r"has class 2, but .*names.json has 2 names"):
        draws(made, 1)


class Sums(Dataset[int]):
    """The sum of the pixels that are drawn at each number."""

    def __init__(self, bag: LabelledBag) -> None:
        self.bag = bag

    def __len__(self) -> int:
        return 80

    def __getitem__(self, number: int) -> int:
        return int(self.bag.draw(np.random.default_rng(number)).image.sum(dtype=np.int64))


def test_a_bag_is_read_by_several_processes_at_once(tmp_path: Path) -> None:
    rng, mask = np.random.default_rng(0), np.ones((240, 320), bool)
    frames = {
        str(k): (rng.integers(0, 255, (240, 320, 3), dtype=np.uint8), f"thing {k}")
        for k in range(12)
    }
    labelled = {k: (rgb, [Referring(text, "", 1, mask)]) for k, (rgb, text) in frames.items()}
    folder, _ = write_labelled(tmp_path, labelled)
    sums = Sums(LabelledBag(str(folder), absent=0.0))
    alone = [sums[number] for number in range(len(sums))]
    assert len(set(alone)) == 12
    assert list(DataLoader(sums, batch_size=None, num_workers=2)) == alone


#: Grey levels of the frames of a bag, and what is labelled in each: the columns it covers, or None.
LABELS: dict[int, dict[str, slice | None]] = {
    10: {
        "the red mug": slice(0, 4),
        "The blue box": slice(4, 8),
        "both bowls": slice(0, 8),
        "the plate": slice(8, 16),
        "The green can": None,
    },
    20: {"The Green can": slice(2, 3), "the zebra": None},
    30: {"the yellow ball": None},
}


def labelled_bag(folder: Path, labels: dict[int, dict[str, slice | None]] = LABELS) -> Path:
    frames = {}
    for level, texts in labels.items():
        truth = []
        for text, columns in texts.items():
            mask = np.zeros((12, 16), bool)
            if columns:
                mask[:, columns] = True
            truth.append(Referring(text, "", int(bool(columns)), mask))
        frames[str(level)] = (np.full((12, 16, 3), level, np.uint8), truth)
    return write_labelled(folder, frames)[0]


def test_a_labelled_frame_is_asked_for_what_it_shows_and_what_it_does_not(tmp_path: Path) -> None:
    bag = labelled_bag(tmp_path)
    made = make(Data(kind="bag", path=str(bag), per_image=4, absent=0.5), "sources.0")
    assert set(made.expressions()) == {text for texts in LABELS.values() for text in texts}
    seen: dict[int, set[str]] = {level: set() for level in LABELS}
    shares: dict[int, set[tuple[int, int]]] = {level: set() for level in LABELS}
    first = set()
    for sample in draws(made, 300):
        level = int(sample.image[0, 0, 0])
        assert len({text.lower() for text in sample.expressions}) == len(sample.masks)
        for text, mask in zip(sample.expressions, sample.masks, strict=True):
            truth = np.zeros((12, 16), bool)
            if columns := LABELS[level].get(text):
                truth[:, columns] = True
            assert np.array_equal(mask, truth), text
        seen[level] |= set(sample.expressions)
        there = int(sample.masks.any((1, 2)).sum())
        shares[level].add((there, len(sample.masks) - there))
        if level == 10:
            first.add(bool(sample.masks[0].any()))
    # Half are absent, or more where less is there; in any order.
    assert shares == {10: {(2, 2)}, 20: {(1, 3)}, 30: {(0, 4)}}
    for level, texts in LABELS.items():
        assert set(texts) <= seen[level]
    # Made of labels: of other frames, and in colours that nothing of the name has.
    assert {"The Red can", "the plate", "both bowls"} <= seen[20]
    assert "the green mug" in seen[10]
    assert "the zebra" not in seen[10] | seen[30]  # only said to be absent
    assert first == {True, False}


def test_most_of_a_frame_may_be_there_and_is_by_default(tmp_path: Path) -> None:
    texts = {f"the {colour} mug": slice(k, k + 1) for k, colour in enumerate(["red", "blue"])}
    texts |= {"the fork": slice(6, 7)} | {
        f"the {noun}": slice(3, 5) for noun in ("box", "can", "ball", "bowl", "plate")
    }
    other = {f"the {noun}": slice(3, 5) for noun in ("dog", "cat", "cow", "sheep", "horse")}
    bag = labelled_bag(tmp_path, {10: texts, 20: other})
    for options, wanted in (({}, 3), ({"absent": 0.0}, 0), ({"absent": 1.0}, 8)):
        made = make(Data(kind="bag", path=str(bag), **options), "sources.0")
        samples = [sample for sample in draws(made) if sample.image[0, 0, 0] == 10]
        found = {(len(s.masks), sum(not mask.any() for mask in s.masks)) for s in samples}
        assert found == {(8, wanted)}


def test_frames_without_an_absent_expression_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same: dict[str, slice | None] = {"the mug": slice(0, 4), "the box": slice(4, 8)}
    bag = labelled_bag(tmp_path / "same", {10: same, 20: same})
    with pytest.raises(InputError, match=r"labelled: 2 of 2 frames .*; absent: 0 trains it"):
        make(Data(kind="bag", path=str(bag)), "sources.0")
    make(Data(kind="bag", path=str(bag), absent=0.0), "sources.0")
    assert "2 of 2 frames have no absent expression" in capsys.readouterr().err
    labels: dict[int, dict[str, slice | None]] = {10: same, 20: same, 30: {"the mug": None}}
    bag = labelled_bag(tmp_path / "other", labels)
    make(Data(kind="bag", path=str(bag)), "sources.0")
    told = (
        f"{bag}: 2 of 3 frames have no absent expression: also label frames without these things "
    )
    assert told + "(referents 0), and call things by their kinds" in capsys.readouterr().err
    make(Data(kind="bag", path=str(labelled_bag(tmp_path / "all"))), "sources.0")
    assert not capsys.readouterr().err


def test_truth_of_other_frames_or_of_another_size_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = labelled_bag(tmp_path)
    size = {"width": 16, "height": 12, "topic": "/image"}
    images = [
        {"id": 1, "stamp": 1_000_000_000},
        {"id": 2, "stamp": 2_000_000_000},
        {"id": 3, "stamp": 5},
    ]
    mask = {"size": [12, 16], "counts": [0, 192]}
    label = {"category": "", "referents": 1, "segmentation": mask}
    data = {
        "images": [image | size for image in images],
        "annotations": [label | {"image_id": k, "caption": f"thing {k}"} for k in (2, 3)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    options = {"path": str(bag), "truth": str(path), "absent": 0.0}
    made = make(Data(kind="bag", **options), "sources.0")
    assert {(int(s.image[0, 0, 0]), *s.expressions) for s in draws(made, 20)} == {(20, "thing 2")}
    assert "at 5 ns: no such frame" in capsys.readouterr().err
    data["annotations"] = data["annotations"][1:]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"labelled: no frame with truth; see `gsva record-truth`"):
        make(Data(kind="bag", **options), "sources.0")
    data["images"][1] |= {"width": 12, "height": 16}
    of_its_size = {"size": [16, 12], "counts": [0, 192]}
    data["annotations"][0] |= {"image_id": 2, "segmentation": of_its_size}
    path.write_text(json.dumps(data))
    with pytest.raises(
        InputError, match=r"no frame with truth.* the frame is \(12, 16\), its truth \(16, 12\)"
    ):
        make(Data(kind="bag", **options), "sources.0")


@pytest.mark.parametrize(
    ("kind", "file", "part", "change", "said"),
    [
        ("paco", PACO, "images", {"file_name": "b.jpg"}, "two entries have the id 7"),
        ("paco", PACO, "categories", {"name": "cat"}, "two entries have the id 3"),
        ("paco", PACO, "images", {"id": 8, "height": 40.0}, "size of image 8 is not two whole"),
        ("paco", PACO, "categories", {"id": 4, "name": None}, "category 4 has no name"),
        ("refer_seg", INSTANCES, "images", {"file_name": "2.jpg"}, "two entries have the id 1"),
        ("refer_seg", INSTANCES, "annotations", {"bbox": [1]}, "two entries have the id 10"),
    ],
)
def test_entries_of_one_id_are_told(
    kind: str, file: str, part: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    options = LAYOUTS[kind](tmp_path)
    path = tmp_path / file
    data = json.loads(path.read_text())
    first = data[part][0]
    data[part].append(first)  # the same once more says nothing else
    path.write_text(json.dumps(data))
    make(Data(kind=kind, root=str(tmp_path), **options), "sources.0")
    data[part].append(first | change)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"json: .*{said}"):
        make(Data(kind=kind, root=str(tmp_path), **options), "sources.0")


@pytest.mark.parametrize("name", ["a:b:c", "", "cat:"])
def test_a_category_that_is_neither_thing_nor_part_is_told(name: str, tmp_path: Path) -> None:
    pascal_part(tmp_path)
    coco_file(tmp_path / "vlpart/pascal_part/train.json", name, "a.jpg")
    with pytest.raises(InputError, match=rf"train\.json: the category '{name}' is neither"):
        make(Data(kind="pascal_part", root=str(tmp_path)), "sources.0")


@pytest.mark.parametrize("segmentation", [None, "x", {"size": [1, 1], "counts": [1]}])
def test_a_segmentation_that_is_none_is_told_with_its_place(
    segmentation: Any, tmp_path: Path
) -> None:
    pascal_part(tmp_path)
    path = tmp_path / "vlpart/pascal_part/train.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["segmentation"] = segmentation
    if segmentation is None:
        del data["annotations"][0]["segmentation"]
    path.write_text(json.dumps(data))
    made = make(Data(kind="pascal_part", root=str(tmp_path)), "sources.0")
    with pytest.raises(InputError, match=r"train\.json: a\.jpg: "):
        draws(made, 1)


def test_what_a_source_leaves_out_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason_seg(tmp_path)
    folder = tmp_path / "reason_seg/ReasonSeg/train"
    picture(folder / "1.jpg")  # without labels
    data = Data(kind="reason_seg", root=str(tmp_path))
    with pytest.raises(InputError, match=r"1\.json: .*; --skip \(skip: true in the file of a"):
        make(data, "sources.0")
    make(Data(**data.model_dump() | {"skip": True}), "sources.0")
    assert capsys.readouterr().err == f"left out: {folder / '1.json'}: No such file or directory\n"


def test_references_that_are_left_out_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = [ref(1, [10], "the left one", split="train"), ref(2, [99], "x", split="train")]
    write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    data = Data(kind="refer_seg", root=str(tmp_path), name="grefcoco")
    with pytest.raises(InputError, match="99"):
        make(data, "sources.0")
    made = make(Data(**data.model_dump() | {"skip": True}), "sources.0")
    assert {sample.expressions for sample in draws(made, 5)} == {("the left one",)}
    assert re.fullmatch("left out: .*99.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("kind", "file", "content", "skip"),
    [
        ("refer_seg", INSTANCES, '{"images": [], "annotations": []}', True),
        ("refer_seg", "refer_seg/grefcoco/grefs(unc).json", json.dumps(UNASKED), False),
        ("reason_seg", "reason_seg/ReasonSeg/train/0.json", "{}", True),
    ],
)
def test_data_of_which_nothing_is_left_are_refused(
    kind: str, file: str, content: str, skip: bool, tmp_path: Path
) -> None:
    data = Data(kind=kind, root=str(tmp_path), skip=skip, **LAYOUTS[kind](tmp_path))
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match="train: none of its pictures can be used"):
        make(data, "sources.0")


@pytest.mark.parametrize("kind", ["refer_seg", "reason_seg"])
def test_a_picture_that_cannot_be_read_is_left_out_of_every_draw(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Data(kind=kind, root=str(tmp_path), skip=True, **LAYOUTS[kind](tmp_path))
    broken = tmp_path / "refer_seg/images/mscoco/images/train2014/2.jpg"
    if kind == "reason_seg":
        folder = tmp_path / "reason_seg/ReasonSeg/train"
        shutil.copy(folder / "0.json", folder / "1.json")
        broken = folder / "1.jpg"
    broken.write_bytes(b"\xff\xd8broken")
    made = make(data, "sources.0")
    samples, again = draws(made, 20), draws(make(data, "sources.0"), 20)
    for first, other in zip(samples, again, strict=True):
        assert np.array_equal(first.image, other.image)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2  # each source names it once
    assert f"{broken}: missing, or not an image" in told[0]
    with pytest.raises(InputError, match=r"not an image; --skip \(skip: true in the file of a"):
        draws(make(Data(**data.model_dump() | {"skip": False}), "sources.0"), 20)
    for path in broken.parent.glob("*.jpg"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="a thousand pictures in a row cannot be read"):
        draws(made, 1)


def test_referring_expressions_of_an_unknown_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set 'refcocoo'; there are grefcoco, "):
        source("refer_seg", tmp_path, name="refcocoo")


def test_what_ade20k_maps_leave_out_is_no_class(tmp_path: Path) -> None:
    options = ade20k(tmp_path)
    label_map(tmp_path / "ade20k/annotations/training/a.png", left=2, right=255, rest=0)
    made = make(Data(kind="ade20k", root=str(tmp_path), **options), "sources.0")
    assert {words for sample in draws(made) for words in sample.expressions} == {"sky"}


def test_maps_without_a_class_are_told(tmp_path: Path) -> None:
    options = ade20k(tmp_path)
    label_map(tmp_path / "ade20k/annotations/training/a.png", left=0, right=0, rest=0)
    made = make(Data(kind="ade20k", root=str(tmp_path), **options), "sources.0")
    with pytest.raises(DatasetError, match=r"annotations/training: .*use other data"):
        draws(made, 1)


FRAMES = [
    [Known("the red mug", 1), Known("the mug", 1), Known("the green box", 1)],
    [Known("the blue can", 1), Known("all cans", 2), Known("the yellow ball", 1)],
    [Known("the red mug left of the white bowl", 1)],
]


def test_absent_expressions_contradict_nothing_that_is_known() -> None:
    negatives = Negatives(FRAMES)
    drawn = [
        {text for seed in range(60) for text in negatives.draw(f, 8, np.random.default_rng(seed))}
        for f in range(3)
    ]
    # Of other frames, and of things whose names nobody says here.
    assert {"the blue can", "all cans", "the yellow ball"} <= drawn[0]
    assert {"the red mug", "the green box"} <= drawn[1]
    # One colour swapped for one that nothing of the name has.
    assert {"the blue mug", "the red box"} <= drawn[0]
    # Two cans, of which one colour is known: the other may be of any.
    assert not any("can" in text and text != "the blue can" for text in drawn[1])
    for known, texts in zip(FRAMES, drawn, strict=True):
        assert not {k.text for k in known} & texts
        assert texts
    assert not any(
        "mug" in text and "red" not in text and "mug left" not in text for text in drawn[2]
    )


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("box", "boxes"),
        ("glass", "glasses"),
        ("vase", "vases"),
        ("knife", "knives"),
        ("battery", "batteries"),
        ("brush", "brushes"),
        ("potato", "potatoes"),
        ("roll of tape", "rolls of tape"),
    ],
)
def test_a_plural_names_the_things_of_its_singular(one: str, many: str) -> None:
    frames = [
        [Known(f"the red {one}", 1), Known(f"all blue {many}", 2)],
        [Known(f"all {many}", 2), Known("the green mug", 1)],
    ]
    negatives = Negatives(frames)
    drawn = {t for seed in range(40) for t in negatives.draw(0, 8, np.random.default_rng(seed))}
    assert f"the yellow {one}" in drawn
    assert not drawn & {f"all {many}", f"the blue {one}", f"all red {many}"}


def test_labels_that_leave_open_what_else_is_there_make_no_absence() -> None:
    frames = [
        [Known("all red bottles", 3), Known("the one on the right", 1)],
        [Known("the blue can", 1), Known("all cans", 2), Known("the nearest can", 1)],
    ]
    negatives, rng = Negatives(frames), np.random.default_rng(0)
    bottles, cans = ({t for _ in range(40) for t in negatives.draw(f, 8, rng)} for f in (0, 1))
    # All bottles that are red are known; one of the two cans is not.
    assert {"all blue bottles", "the blue can", "the nearest can"} <= bottles
    assert cans == {"all red bottles"}  # there is one on the right here, too


def absents(labels: dict[str, int], others: dict[str, int]) -> set[str]:
    """All that is drawn as absent for the first of two frames with these labels and their referents."""
    frames = [[Known(*label) for label in of.items()] for of in (labels, others)]
    return set(Negatives(frames).draw(0, 100, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("labels", "others"),
    [
        ({"the red one": 1, "the blue one": 1}, {}),
        ({"the red mug": 1, "the mug on the left": 1}, {}),
        ({"the red mug": 1, "the left mug": 1}, {}),
        ({"the red mug": 1, "the mug behind the blue can": 1}, {}),
        ({"the light red mug": 1, "the blue mug": 1}, {}),
        ({"all red mugs": 2, "the blue mug": 1, "all mugs": 4}, {}),
        ({"the red mug": 1, "the mug that is not red": 1}, {}),
        ({"the mug": 1}, {"the cup": 1}),
        ({"the box": 1}, {"anything to drink from": 1, "a thing to open": 1}),
        ({"the box": 1}, {"everything but the can": 3, "the leftmost object": 1}),
        ({"the red one": 1, "the can": 1}, {"the red mug": 1, "the bowl": 1}),
        ({"the orange": 1}, {"all oranges": 2}),
        ({"the apple": 1}, {"the fruit": 1, "all green fruits": 2}),
        ({"the fruit": 1}, {"the apple": 1}),
        ({"the wrench": 1}, {"the metal tool": 1, "both tools": 2}),
        ({"the fruit": 1, "the mug": 1}, {"the apple": 1, "the green pear": 1}),
        ({"the second tool": 1, "the mug": 1}, {"the wrench": 1, "the bowl": 1}),
        ({"the red fruit": 1, "the mug": 1}, {"the apple": 1, "the red apple": 1}),
        ({"the wrench": 1}, {"the second tool": 1, "the light red wooden tools": 2}),
        ({"the leftmost object": 1}, {"the middle object": 1, "the tall thing": 1}),
        ({"the red mug": 1, "the red mug and the can": 2, "all mugs": 2}, {}),
        ({"the black mug and the can": 2}, {}),
        ({"all tea mugs": 2, "the green tea mug": 1, "the red tea pot": 1}, {}),
    ],
)
def test_what_may_be_true_of_a_frame_is_not_absent(
    labels: dict[str, int], others: dict[str, int]
) -> None:
    assert not absents(labels, others)


def test_a_colour_tells_what_a_thing_of_many_kinds_is_not() -> None:
    drawn = absents({"the red fruit": 1, "the mug": 1}, {"the green apple": 1, "the red box": 1})
    assert drawn == {"the green apple"}


@pytest.mark.parametrize("name", ["coffee machine", "soft drink", "spare part", "toy car"])
def test_a_noun_for_many_kinds_in_the_name_of_one_kind_leaves_nothing_open(name: str) -> None:
    assert absents({f"the {name}": 1}, {"the mug": 1}) == {"the mug"}
    assert absents({"the mug": 1}, {f"the white {name}": 1}) == {f"the white {name}"}


@pytest.mark.parametrize(
    ("labels", "absent", "true"),
    [
        ({"the orange": 1, "the red mug": 1}, "the blue mug", "the orange"),
        ({"the red thing": 1, "the blue mug": 1}, "the green mug", "the blue thing"),
        ({"the red thing": 1, "the blue mug": 1}, "the green mug", "the red mug"),
        ({"the red mug": 1, "the gray mug": 1}, "the blue mug", "the grey mug"),
        ({"the red mug": 1, "The Blue Mug": 1}, "the green mug", "the blue mug"),
        ({"the big red mug": 1, "the blue mug": 1}, "the green mug", "the red mug"),
        ({"the red mug": 1, "the blue cup": 1}, "the green mug", "the blue mug"),
        ({"the red mug": 1, "the can behind the blue mug": 1}, "the green mug", "the blue mug"),
        ({"the red mug": 1, "the mug": 1}, "the blue mug", "the mug"),
        ({"all red mugs": 2, "both mugs": 2}, "all blue mugs", "both mugs"),
        ({"the red toy car": 1, "the fruit": 1}, "the blue toy car", "the fruit"),
        ({"杯子": 1, "the red mug": 1}, "the blue mug", "杯子"),
    ],
)
def test_a_colour_is_swapped_for_one_that_nothing_of_the_name_has(
    labels: dict[str, int], absent: str, true: str
) -> None:
    drawn = {text.lower() for text in absents(labels, {})}
    assert absent in drawn
    assert true not in drawn


@pytest.mark.parametrize(
    ("label", "swapped"),
    [
        ("red mug", "blue mug"),
        ("Red mug", "Blue mug"),
        ("The red Mug", "The blue Mug"),
        ("RED MUG", "BLUE MUG"),
    ],
)
def test_capital_letters_do_not_tell_what_is_absent(label: str, swapped: str) -> None:
    drawn = absents({label: 1, "the Can": 1}, {"Plate": 1, "THE CAN": 1, "Two Bowls": 2})
    assert {swapped, "Plate", "Two Bowls"} <= drawn
    assert not {"the can", "red mug"} & {text.lower() for text in drawn}


def test_a_label_in_other_capital_letters_makes_nothing_twice() -> None:
    drawn = absents({"the red mug": 1, "The red mug": 1}, {"the can": 1, "The Can": 1})
    assert {"the blue mug", "The blue mug"} & drawn
    assert len({text.lower() for text in drawn}) == len(drawn)


def test_as_many_as_are_asked_and_none_twice() -> None:
    negatives = Negatives(FRAMES)
    elsewhere = {"the blue can", "all cans", "the yellow ball"}
    for seed in range(30):
        drawn = negatives.draw(0, 5, np.random.default_rng(seed))
        assert len(drawn) == len(set(drawn)) == 5
        assert len(elsewhere & set(drawn)) == 2  # and three of a colour that is swapped
