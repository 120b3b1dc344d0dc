"""Datasets in the official layouts, written by the tests: what each expression means, pixel by pixel."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from tiny import tiny_checkpoint, tiny_gsva
from tiny_datasets import (
    CROWD,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    box,
    compressed,
    ref,
    square,
    uncompressed,
    write_reason_seg,
    write_root,
)

from gsva_ros import cli
from gsva_ros.answer import Answer, Rejection, Slot
from gsva_ros.datasets import reasonseg, refer
from gsva_ros.datasets.coco import segmentation_mask
from gsva_ros.datasets.files import DatasetError, Skip, read_picture
from gsva_ros.engine import Engine
from gsva_ros.errors import InputError
from gsva_ros.eval import paper
from gsva_ros.eval.cases import Case
from gsva_ros.eval.commands import shared
from gsva_ros.eval.metrics import Scoring
from gsva_ros.eval.paper import paper_slots, region_slots
from gsva_ros.eval.report import Pick, gallery
from gsva_ros.eval.run import SlotRecord, answering, evaluate, pixels_of, slot_record
from gsva_ros.eval.sources.dataset import DATASETS, Chosen
from gsva_ros.masks import Region, trimmed
from gsva_ros.model.tokenizer import Special
from gsva_ros.truth import Referring


def shown(p_seg: float, predicted_iou: float, mask: np.ndarray) -> Slot:
    return Slot("", p_seg, None, mask.shape, trimmed(mask), predicted_iou)


def close(mask: np.ndarray, truth: np.ndarray) -> bool:
    """Polygons may claim a pixel more or less along their edge."""
    return (mask ^ truth).sum() <= max(4, 0.2 * truth.sum())


def cases(root: Path, name: str, split: str, **more: Any) -> list[Case]:
    pictures = DATASETS[name].pictures(Chosen(root, split, Skip(False), **more))
    return [Case(picture.id, picture.read) for picture in pictures]


@pytest.fixture
def engine() -> Engine:
    return Engine(tiny_checkpoint(), "tiny", torch.device("cpu"), "float32")


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def rewrite(root: Path, part: str, changes: dict[str, Any], number: int | None = None) -> None:
    """Change all entries of a part of RefCOCO's instances, or the one of this id."""
    path = root / "refer_seg/refcoco/instances.json"
    instances = json.loads(path.read_text())
    for entry in instances[part]:
        entry |= changes if number in (None, entry["id"]) else {}
    path.write_text(json.dumps(instances))


def test_grefcoco(tmp_path: Path) -> None:
    references = [
        ref(1, [10], " The Left one. "),
        ref(1, [10, 11, 12], "everything", "all of them"),
        ref(2, [-1], "a unicorn"),
        ref(2, [None], "a griffin"),
        ref(2, None, "a dragon"),
        ref(2, [13], "degenerate"),
        ref(2, [10, 13], "one real, one degenerate"),
        ref(1, [10], "of another split", split="testA"),
    ]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    first, second = cases(root, "grefcoco", "val")
    rgb, queries = first.read()
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert [(q.expression, q.category, q.referents) for q in queries] == [
        ("the left one", "single", 1),
        ("everything", "multi", 3),
        ("all of them", "multi", 3),
    ]
    assert close(queries[0].mask, LEFT)
    assert close(queries[1].mask, LEFT | RIGHT | CROWD)
    assert (queries[1].mask & CROWD).sum() == CROWD.sum()
    _, queries = second.read()
    assert [(q.category, q.referents, bool(q.mask.any())) for q in queries] == [
        *[("no target", 0, False)] * 4,
        ("multi", 2, True),
    ]
    assert len(cases(root, "grefcoco", "testA")) == 1
    picture, _ = refer.pictures(root, "grefcoco", "val", Skip(False), lower=False)
    assert picture.read()[1][0].expression == "The Left one"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("refcoco", "refs(unc).p"),
        ("refcoco+", "refs(unc).p"),
        ("refcocog", "refs(umd).p"),
        ("grefcoco", "grefs(unc).p"),
    ],
)
def test_refcoco_family(tmp_path: Path, name: str, file: str) -> None:
    root = write_root(tmp_path, name, file, [ref(2, 14, "right box"), ref(2, 12, "the crowd")])
    (case,) = cases(root, name, "val")
    rgb, (right, crowd) = case.read()
    assert abs(int(rgb.mean()) - 100) < 3
    assert np.array_equal(right.mask, RIGHT)
    assert np.array_equal(crowd.mask, CROWD)


def test_refzom(tmp_path: Path) -> None:
    references = [ref(1, [], "nothing here"), ref(1, [10, 12], "two of them"), ref(1, [12], "one")]
    root = write_root(tmp_path, "refzom", "Ref_ZOM.p", references)
    (case,) = cases(root, "refzom", "val")
    assert [q.referents for q in case.read()[1]] == [0, 2, 1]
    with pytest.raises(DatasetError, match="refzom has one split only: leave out its author, 'x'"):
        cases(root, "refzom", "val", split_by="x")


def test_reason_seg(tmp_path: Path) -> None:
    folder = tmp_path / "reason_seg" / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.jpg"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    shapes = [
        # The hole is listed first: size, not order, decides what lies on top.
        {"label": "ignore", "points": [[10, 10], [14, 10], [14, 14], [10, 14]]},
        {"label": "target", "points": [[5, 5], [30, 5], [30, 30], [5, 30]]},
        {"label": "flag", "points": [[40, 30], [50, 30], [50, 38]]},
    ]
    data = {"shapes": shapes, "text": ["the café’s chair", "another"], "is_sentence": False}
    (folder / "a.json").write_bytes(json.dumps(data, ensure_ascii=False).encode("cp1252"))
    (case,) = cases(tmp_path, "reasonseg", "val")
    _, (query,) = case.read()
    assert (query.expression, query.category) == ("the café’s chair", "phrase")
    assert query.mask[6, 6]
    assert not query.mask[12, 12]
    assert not query.mask[33, 45]


def test_pickles_of_python_2_hold_text_as_bytes(tmp_path: Path) -> None:
    root = write_root(tmp_path, "refcoco", "refs(unc).p", [ref(1, 10, "the cafe")])
    path = root / "refer_seg/refcoco/refs(unc).p"
    (plain,) = pickle.loads(path.read_bytes())
    plain["sentences"][0]["sent"] = "the caf\xe9"
    text = "the caf\xe9".encode()
    unicode = b"X" + len(text).to_bytes(4, "little") + text
    data = pickle.dumps([plain], 2)
    assert unicode in data
    path.write_bytes(data.replace(unicode, b"T" + unicode[1:]))  # BINSTRING
    (case,) = cases(root, "refcoco", "val")
    assert case.read()[1][0].expression == "the caf\xe9"


@pytest.mark.parametrize("kind", ["rectangle", "circle"])
def test_shapes_of_reason_seg_are_polygons(tmp_path: Path, kind: str) -> None:
    shape = {"label": "target", "shape_type": kind, "points": [[10, 10], [14, 14]]}
    entry = {"shapes": [shape], "text": ["the chair"], "is_sentence": False}
    write_reason_seg(tmp_path, entry)
    with pytest.raises(DatasetError, match=rf"0\.json: a shape is a {kind}: make it a polygon"):
        cases(tmp_path, "reasonseg", "val")


def test_pickles_are_data_only(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    root = write_root(tmp_path, "refcoco", "refs(unc).p", [])
    path = root / "refer_seg" / "refcoco" / "refs(unc).p"
    path.write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DatasetError, match=r"builtins\.print, which is not plain data"):
        cases(root, "refcoco", "val")
    path.write_bytes(b"\x80\x02]q")
    with pytest.raises(DatasetError, match="refs"):
        cases(root, "refcoco", "val")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"grefs\(unc\)\.json"):
        cases(tmp_path, "grefcoco", "val")
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", [ref(1, [10], "x")])
    with pytest.raises(DatasetError, match="there are val"):
        cases(root, "grefcoco", "testB")
    (root / "refer_seg/images/mscoco/images/train2014/1.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1\.jpg"):
        cases(root, "grefcoco", "val")[0].read()
    with pytest.raises(DatasetError, match=r"no \*\.jpg"):
        cases(root, "reasonseg", "val")


@pytest.mark.parametrize(
    "polygon", [[1.0, 1.0, 30.0, 30.0], [1.0, 1.0, 30.0, 1.0, 30.0, 30.0, 1.0]]
)
def test_polygons_that_enclose_nothing_are_ignored(polygon: list[float]) -> None:
    whole = [20.0, 10.0, 40.0, 10.0, 40.0, 30.0, 20.0, 30.0]
    assert not segmentation_mask([polygon], HEIGHT, WIDTH).any()
    assert close(segmentation_mask([polygon, whole], HEIGHT, WIDTH), RIGHT)


def test_polygons_may_leave_their_image_up_to_ten_times_its_size() -> None:
    around = [-600.0, -600.0, 600.0, -600.0, 600.0, 600.0, -600.0, 600.0]
    assert segmentation_mask([around], HEIGHT, WIDTH).all()
    for side in (-601.0, 601.0):
        with pytest.raises(DatasetError, match=r"coordinate is 601\.0, in an image of 60x40"):
            segmentation_mask([[*around[:-1], side]], HEIGHT, WIDTH)


def test_run_lengths_in_both_forms_agree() -> None:
    plain = segmentation_mask(uncompressed(CROWD), HEIGHT, WIDTH)
    coded = segmentation_mask({"size": [HEIGHT, WIDTH], "counts": compressed(CROWD)}, HEIGHT, WIDTH)
    assert np.array_equal(plain, coded)
    assert np.array_equal(plain, CROWD)


@pytest.mark.parametrize("protocol", ["paper", "deployed"])
def test_the_command(tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    references = [ref(1, [10], "left"), ref(1, [-1], "unicorn"), ref(2, [10, 11], "both")]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    tiny_gsva(tmp_path / "model")
    common = ["--root", str(root), "--model", str(tmp_path / "model"), "--device", "cpu"]
    out = ["--out", str(tmp_path / "out.json"), "--records", str(tmp_path / "records.jsonl")]
    command = ["eval", "dataset", "grefcoco", "val", "--protocol", protocol, *common]
    assert cli.main([*command, *out]) == 0
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert (numbers["protocol"], numbers["rules"], numbers["cases"]) == (protocol, "grefcoco", 2)
    assert numbers["scores"]["all"]["n"] == 3
    assert numbers["baselines"]["always [REJ]"]["gIoU"] == pytest.approx(1 / 3)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1 + 2
    table = capsys.readouterr().out.partition(" gIoU ")[2].splitlines()[1:]
    assert table[0] == str(tmp_path / "model")
    assert table[3].split()[:3] == ["always", "[REJ]", "0.333"]
    assert max(map(len, table[1:])) <= 80, "as wide as a terminal"
    assert cli.main(["eval", "dataset", "reasonseg", "val", "--protocol", protocol, *common]) == 2
    assert "jpg" in capsys.readouterr().err


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(tiny_gsva(tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("refcoco", ["--count-ignored"]),
        ("reasonseg", ["--split-by", "unc"]),
        ("new", ["--count-ignored"]),
        ("new", ["--split-by", "unc"]),
    ],
)
def test_an_option_of_other_data_sets(
    tmp_path: Path, capsys, monkeypatch, name: str, option: list[str]
) -> None:
    monkeypatch.setitem(DATASETS, "new", DATASETS[reasonseg.NAME])
    assert cli.main(["eval", "dataset", name, "val", "--root", str(tmp_path), *option]) == 2
    assert f"{option[0]} is for " in capsys.readouterr().err


def test_ignored_pixels_do_not_count_or_are_the_targets(tmp_path: Path) -> None:
    shapes = [square("target", 5, 5, 20), square("ignore", 10, 10, 5)]
    entry = {"shapes": shapes, "text": ["what is it?"], "is_sentence": True}
    root = write_reason_seg(tmp_path, entry)
    (query,) = cases(root, "reasonseg", "val")[0].read()[1]
    (counted,) = cases(root, "reasonseg", "val", count_ignored=True)[0].read()[1]
    assert query.ignore.sum() == 36
    assert not (query.mask & query.ignore).any()
    assert np.array_equal(counted.mask, query.mask | query.ignore)
    assert not counted.ignore.any()
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[5:26, 5:26] = True
    drawn[0:2, 0:2] = True
    record = slot_record(query, shown(1.0, 0.0, drawn))
    assert (record.intersection, record.union) == (21 * 21 - 36, 21 * 21 - 36 + 4)
    record = slot_record(counted, shown(1.0, 0.0, drawn))
    assert (record.intersection, record.union) == (21 * 21, 21 * 21 + 4)


@pytest.mark.parametrize("points", [[], [[]], [[1, 2, 3]], [1, 2], [["x", 1]], [[1e30, 1]]])
def test_shapes_that_are_none_are_told_and_can_be_skipped(tmp_path: Path, points: Any) -> None:
    shapes = [{"label": "flag", "points": []}, {"label": "target", "points": points}]
    entry = {"shapes": shapes, "text": ["it"], "is_sentence": False}
    whole = entry | {"shapes": [{"label": "flag", "points": []}, square("target", 5, 5, 10)]}
    root = write_reason_seg(tmp_path, entry, whole)
    with pytest.raises(DatasetError, match=r"0\.json: not ReasonSeg's labels"):
        cases(root, "reasonseg", "val")
    skip = Skip(True)
    (picture,) = reasonseg.pictures(root, "val", skip)
    assert picture.read()[1][0].mask.any()
    assert len(skip.problems) == 1


def test_all_phrasings_of_a_question_are_asked_where_wanted(tmp_path: Path) -> None:
    entry = {
        "shapes": [square("target", 5, 5, 10)],
        "text": ["what?", "", "it"],
        "is_sentence": True,
    }
    root = write_reason_seg(tmp_path, entry)
    for all_texts, asked in ((False, ["what?"]), (True, ["what?", "it"])):
        (picture,) = reasonseg.pictures(root, "val", Skip(False), all_texts=all_texts)
        assert [q.expression for q in picture.read()[1]] == asked
    root = write_reason_seg(tmp_path / "empty", entry | {"text": [" ", "it"]})
    with pytest.raises(DatasetError, match=r"0\.json: its first text is empty"):
        reasonseg.pictures(root, "val", Skip(False))


def test_a_question_that_is_no_list_is_told(tmp_path: Path) -> None:
    entry = {"shapes": [square("target", 5, 5, 10)], "text": "what is it?", "is_sentence": True}
    for text, said in (("what?", "its text is not a list"), (["\ud800"], "not allowed")):
        root = write_reason_seg(tmp_path / said, entry | {"text": text})
        with pytest.raises(DatasetError, match=rf"0\.json: .*{said}"):
            cases(root, "reasonseg", "val")
    for key in entry:
        whole = entry | {"text": ["what?"]}
        root = write_reason_seg(tmp_path / key, {k: v for k, v in whole.items() if k != key})
        with pytest.raises(DatasetError, match=rf"0\.json: not ReasonSeg's labels: .*{key}"):
            cases(root, "reasonseg", "val")


def test_a_shape_of_one_point_is_one_pixel(tmp_path: Path) -> None:
    point = {"label": "target", "points": [[7, 9]]}
    entry = {"shapes": [point], "text": ["it"], "is_sentence": False}
    (query,) = cases(write_reason_seg(tmp_path, entry), "reasonseg", "val")[0].read()[1]
    assert np.argwhere(query.mask).tolist() == [[9, 7]]


def test_of_equal_shapes_the_one_labelled_first_lies_on_top(tmp_path: Path) -> None:
    """LISA sorts by area and reverses, so that the later of two equal ones is drawn first."""
    shapes = [square("ignore", 5, 5, 10), square("target", 8, 5, 10)]
    entry = {"shapes": shapes, "text": ["it"], "is_sentence": False}
    root = write_reason_seg(tmp_path, entry)
    (query,) = cases(root, "reasonseg", "val")[0].read()[1]
    areas = [121, 121]
    assert np.argsort(areas)[::-1].tolist() == [1, 0]
    assert query.ignore[10, 12]
    assert not query.mask[10, 12]


@pytest.mark.parametrize("protocol", ["paper", "deployed"])
def test_reason_seg_under_both_protocols(tmp_path: Path, protocol: str, model: str) -> None:
    entries = [
        {"shapes": [square("target", 5, 5, 20)], "text": ["what is it?"], "is_sentence": True},
        {"shapes": [square("target", 5, 5, 20)], "text": ["the thing"], "is_sentence": False},
    ]
    root = write_reason_seg(tmp_path, *entries)
    out = tmp_path / "out.json"
    command = ["eval", "dataset", "reasonseg", "val", "--protocol", protocol, "--root", str(root)]
    assert cli.main([*command, "--model", model, "--no-blind", "--out", str(out)]) == 0
    numbers = json.loads(out.read_text())
    assert (numbers["protocol"], numbers["rules"], numbers["cases"]) == (protocol, "refcoco", 2)
    assert numbers["dtype"] == "float32"
    assert list(numbers["baselines"]) == ["always [REJ]"]
    assert {s["category"] for r in numbers["records"] for s in r["slots"]} == {"sentence", "phrase"}


def test_region_questions() -> None:
    prompt = tiny_checkpoint().prompt
    for query, sentence, asked in (
        ("what is it?", True, "\n what is it? Please output segmentation mask."),
        (
            "the thing",
            False,
            "\n What is the thing in this image? Please output segmentation mask.",
        ),
    ):
        turn = prompt.region_turn(query, sentence)
        text = prompt.tokenizer.decode(turn.ids)
        assert asked in text
        assert text.endswith("[SEG]</s>")
        assert turn.ids[turn.slots[0] + 1] == prompt.tokenizer.ids[Special.SEG]


def test_the_splits_of_refer(tmp_path: Path) -> None:
    splits = ("train", "val", "testA", "testAB", "testB", "test")
    references = [ref(1, [10], f"of {split}", split=split) for split in splits]
    root = write_root(tmp_path, "refcoco", "refs(unc).p", references)

    def asked(split: str, **more: Any) -> set[str]:
        (case,) = cases(root, "refcoco", split, **more)
        return {q.expression.removeprefix("of ") for q in case.read()[1]}

    assert asked("testA") == {"testa", "testab"}
    assert asked("testB") == {"testb", "testab"}
    assert asked("test") == {"testa", "testb", "testab", "test"}
    assert asked("val") == {"val"}
    google = [ref(1, [10], "by google")]
    (root / "refer_seg/refcoco/refs(google).p").write_bytes(pickle.dumps(google, protocol=2))
    assert asked("val", split_by="google") == {"by google"}
    with pytest.raises(DatasetError, match="split by unc or google, not 'umd'"):
        asked("val", split_by="umd")


def test_refclef_has_pictures_of_its_own(tmp_path: Path) -> None:
    root = write_root(tmp_path, "refclef", "refs(unc).p", [ref(1, 10, "left")])
    coco = root / "refer_seg/images/mscoco/images/train2014"
    coco.rename(root / "refer_seg/images/saiapr_tc-12")
    assert cases(root, "refclef", "val")[0].read()[0].shape == (HEIGHT, WIDTH, 3)


BROKEN = {
    "lost annotation": (ref(1, [99], "x"), "lacks its annotation 99"),
    "lost picture": (ref(7, [10], "x"), "lacks its image 7"),
    "ids as text": (ref(1, ["10"], "x"), "lacks its annotation '10'"),
    "empty sentence": (ref(1, [10], "left", " . "), "a sentence is empty"),
    "no reference": ({"split": "val", "image_id": 1}, "not a reference"),
    "half a character": (ref(1, [10], "the \ud800"), "not a reference"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_ends_the_run_or_is_counted(
    name: str, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, said = BROKEN[name]
    root = write_root(
        tmp_path, "grefcoco", "grefs(unc).json", [ref(2, [10], "left"), broken | {"ref_id": 5}]
    )
    out = tmp_path / "out.json"
    command = ["eval", "dataset", "grefcoco", "val", "--root", str(root), "--model", model]
    assert cli.main(command) == 2
    problem = capsys.readouterr().err
    assert said in problem
    assert "reference 5" in problem
    assert "--skip" in problem
    assert cli.main([*command, "--skip", "--no-blind", "--out", str(out)]) == 0
    assert said in capsys.readouterr().err
    numbers = json.loads(out.read_text())
    assert (numbers["cases"], numbers["left_out"]) == (1, 1)


def test_references_without_sentences_ask_nothing(tmp_path: Path) -> None:
    """gRefCOCO's val split has such references, which the official code passes over."""
    references = [ref(1, [10]), ref(1, [10], "left"), ref(2, [10])]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    (case,) = cases(root, "grefcoco", "val")
    assert [query.expression for query in case.read()[1]] == ["left"]


def test_a_run_of_which_nothing_can_be_read_is_none(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", [ref(1, [99], "x")])
    command = ["eval", "dataset", "grefcoco", "val", "--root", str(root), "--model", model]
    assert cli.main([*command, "--skip"]) == 2
    problem = capsys.readouterr().err
    assert "lacks its annotation 99" in problem
    assert "none of its cases can be read" in problem


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2, 3]}, "add up to 6"),
        ({"size": [9999, 9999], "counts": "zzzzzzzz"}, "run lengths"),
        (uncompressed(CROWD) | {"size": [WIDTH, HEIGHT]}, r"^its .* for \[60, 40\].*is \[40, 60\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, 2405]}, "the negative number -5"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [1.5, 2398.5]}, "neither text nor numbers"),
        ([[1e30, 2, 3, 4, 5, 6]], "coordinate"),
        ([[float("nan"), 2, 3, 4, 5, 6]], "coordinate"),
        ([["a", 2, 3, 4, 5, 6]], "not a COCO segmentation"),
        ([[[1, 2], [30, 2], [30, 20]]], "must be a list of polygons"),
        ({"size": 3}, "not a COCO segmentation"),
        ({"size": 3, "counts": [1]}, "not a COCO segmentation"),
        ([[10**400, 2, 3, 4, 5, 6]], "not a COCO segmentation"),
        ("polygon", "not a COCO segmentation: str"),
    ],
)
def test_hostile_segmentations_are_one_line(segmentation: Any, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        segmentation_mask(segmentation, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("part", "wrong", "said"),
    [
        ("annotations", {"bbox": [1, 2, 3]}, "its annotation 10: bbox is not four numbers"),
        ("annotations", {"bbox": [math.nan] * 4}, "its annotation 10: bbox is not four numbers"),
        ("annotations", {"bbox": [1, 2, 3, math.inf]}, "its annotation 10: bbox is not four"),
        ("images", {"file_name": None}, "lacks its image's file_name, height or width"),
        ("images", {"height": 40.5}, "lacks its image's file_name, height or width"),
        ("annotations", {"segmentation": None}, "annotation 10: not a COCO segmentation"),
    ],
)
def test_instances_that_cannot_be_used_are_told_with_their_place(
    tmp_path: Path, part: str, wrong: dict[str, Any], said: str
) -> None:
    root = write_root(tmp_path, "refcoco", "refs(unc).p", [ref(1, 10, "left")])
    rewrite(root, part, wrong)
    with pytest.raises(DatasetError, match=said):
        cases(root, "refcoco", "val")[0].read()


def test_a_reference_that_is_skipped_leaves_those_beside_it(tmp_path: Path) -> None:
    root = write_root(tmp_path, "refcoco", "refs(unc).p", [ref(1, 10, "left"), ref(1, 14, "right")])
    rewrite(root, "annotations", {"bbox": "none"}, 10)
    skip = Skip(True)
    (picture,) = refer.pictures(root, "refcoco", "val", skip)
    assert [q.expression for q in picture.read()[1]] == ["right"]
    assert len(skip.problems) == 1


def test_references_that_are_none_are_told(tmp_path: Path) -> None:
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", [])
    path = root / "refer_seg/grefcoco/grefs(unc).json"
    for wrong in ([1, 2], {"split": "val"}, {}, [[]], [{"split": "val"}, 1]):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DatasetError, match="not a list of references"):
            cases(root, "grefcoco", "val")


def test_a_picture_of_another_size_is_told_and_can_be_skipped(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    references = [ref(1, [10], "left"), ref(2, [10], "left")]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    other = np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8)
    cv2.imwrite(str(root / "refer_seg/images/mscoco/images/train2014/2.jpg"), other)
    out = tmp_path / "out.json"
    command = ["eval", "dataset", "grefcoco", "val", "--root", str(root), "--model", model]
    assert cli.main(command) == 2
    assert "2.jpg is 61x40, but instances.json says 60x40" in capsys.readouterr().err
    assert cli.main([*command, "--skip", "--out", str(out)]) == 0
    numbers = json.loads(out.read_text())
    assert (numbers["cases"], numbers["left_out"]) == (1, 1)


def test_a_jpeg_file_that_ends_too_early_is_told(tmp_path: Path) -> None:
    """OpenCV leaves the rest of the picture grey."""
    path = tmp_path / "a.jpg"
    rng = np.random.default_rng(0)
    data = cv2.imencode(".jpg", rng.integers(0, 255, (96, 128, 3), np.uint8))[1].tobytes()
    for cut in (0.5, 0.9):
        path.write_bytes(data[: int(cut * len(data))])
        with pytest.raises(DatasetError, match=r"a\.jpg: the end of the file is missing"):
            read_picture(path)
    path.write_bytes(data)
    whole = read_picture(path)
    for after in (b"\0\0", b"video \xff\xda"):
        path.write_bytes(data + after)
        assert np.array_equal(read_picture(path), whole)


@pytest.mark.parametrize("protocol", ["paper", "deployed"])
def test_the_gallery_answers_regions_as_they_were_scored(protocol: str, engine: Engine) -> None:
    query = Referring("what is it?", "sentence", 1, LEFT, region="sentence")
    case, how = Case("a", lambda: (noise(), [query])), Scoring(protocol, "refcoco")
    (record,) = evaluate(engine, [case], how)
    answer = answering(engine, how)
    (card,) = gallery(answer, [case], [record], [Pick(0, 0, "worst")])
    assert card.p_seg == record.slots[0].p_seg


def test_the_paper_keeps_a_space_before_a_full_stop(tmp_path: Path, engine: Engine) -> None:
    """The official code strips spaces first, then full stops; a robot is asked without either."""
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", [ref(1, [10], " The Mug . ")])
    rgb, (query,) = cases(root, "grefcoco", "val")[0].read()
    question = engine.prompt.conversation.question.format("the mug ")
    answer = ["Sure,", "the mug :", Special.SEG, "."]
    ids = torch.tensor(engine.prompt.full(engine.prompt.rounds([(question, answer)])))
    with patch.object(paper, "official_pass", wraps=paper.official_pass) as ran:
        paper_slots(engine, rgb, [query])
    assert torch.equal(ran.call_args.args[3], ids)
    assert engine.prompt.slot(query.expression) == engine.prompt.slot("the mug")


def test_a_region_is_asked_for_alike_under_both_protocols(engine: Engine) -> None:
    kinds = ("sentence", "phrase")
    queries = [Referring("what is it?", mask=LEFT, region=kind) for kind in kinds]
    begun = time.perf_counter()
    (paper, seconds), (deployed, others) = (
        f(engine, noise(), queries) for f in (paper_slots, region_slots)
    )
    assert 0 < seconds["total"] + others["total"] <= time.perf_counter() - begun
    for one, other in zip(paper, deployed, strict=True):
        assert (one.p_seg, one.predicted_iou) == (other.p_seg, other.predicted_iou)
    assert paper[0].p_seg != paper[1].p_seg


def test_a_region_is_decided_by_the_models_own_rule(engine: Engine) -> None:
    """Its temperature and bias, for which its threshold was chosen."""
    rgb, query = noise(), Referring("what is it?", mask=LEFT, region="sentence")
    ((plain,), _) = region_slots(engine, rgb, [query])
    score = np.log(plain.p_seg) - np.log1p(-plain.p_seg)
    said = 1 / (1 + np.exp(-(score / 2.0 + 1.5)))
    assert abs(said - plain.p_seg) > 0.05
    engine.config.rejection_threshold = plain.p_seg
    assert region_slots(engine, rgb, [query])[0][0].rejection is None  # at the threshold it is kept
    for threshold, rejection in ((said - 0.01, None), (said + 0.01, Rejection.MODEL)):
        rule = {"slot_temperature": 2.0, "slot_bias": 1.5, "rejection_threshold": threshold}
        engine.config = engine.config.model_copy(update=rule)
        ((slot,), _) = region_slots(engine, rgb, [query])
        assert slot.p_seg == pytest.approx(said, abs=1e-5)
        assert slot.rejection is rejection


def test_a_changed_rule_decides_regions_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = noise()
    for rejected in (False, True):
        monkeypatch.setattr(engine, "decide", lambda *_, rejected=rejected: (0.25, rejected))
        (slot,) = engine.segment(engine.encode(rgb), ["left"]).slots
        ((region,), _) = region_slots(engine, rgb, [Referring("left", mask=LEFT, region="phrase")])
        for found in (slot, region):
            assert (found.p_seg, found.rejection is Rejection.MODEL) == (0.25, rejected)


def test_rec_is_against_the_annotated_box(tmp_path: Path) -> None:
    references = [ref(1, 10, "left"), ref(1, 13, "degenerate")]
    root = write_root(tmp_path, "refcoco", "refs(unc).p", references)
    rewrite(root, "annotations", {"bbox": [5, 5, 40, 30]})
    query, nothing = cases(root, "refcoco", "val")[0].read()[1]
    assert query.box == (5, 5, 40, 30)
    assert nothing.box is None  # a target with an empty mask is no target
    drawn = box(5, 5, 45, 20)
    record = slot_record(query, shown(1.0, 0.0, drawn))
    assert record.box_iou == pytest.approx(15 / 30)
    # Without one, it is the truth's own.
    plain = replace(query, mask=box(5, 10, 45, 25), box=None)
    record = slot_record(plain, shown(1.0, 0.0, drawn))
    assert record.box_iou == pytest.approx(10 / 20)
    assert slot_record(plain, shown(1.0, 0.0, ~drawn & drawn)).box_iou == 0.0
    assert slot_record(plain, shown(1.0, 0.0, box(50, 30, 55, 35))).box_iou == 0.0


def test_classic_masks_begin_above_zero(tmp_path: Path) -> None:
    """`ge(0)` in the official GRES evaluation, `> 0` in its RES one."""
    checkpoint = tiny_checkpoint()
    for parameter in checkpoint.model.model.visual_model.mask_decoder.parameters():
        parameter.data.zero_()
    engine = Engine(checkpoint, "zero", torch.device("cpu"), "float32")
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    query = Referring("left", mask=LEFT)
    for rules, drawn in (("grefcoco", True), ("refzom", True), ("refcoco", False)):
        ((slot,), _) = answering(engine, Scoring("paper", rules))(rgb, [query])
        assert pixels_of(slot).all() == pixels_of(slot).any() == drawn
    engine.config.rejection_threshold = 0.0
    ((region,), _) = region_slots(engine, rgb, [replace(query, region="phrase")])
    assert (region.mask, region.rejection) == (None, Rejection.EMPTY_MASK)


def test_what_a_model_answers_freely_is_recorded_as_it_wrote_it() -> None:
    """Of unknown truth; a rejected slot has no mask."""
    region = Region((1, 1, 3, 4), np.ones((3, 2), bool))
    kept = Slot("the mug", 0.75, None, (4, 6), region, 0.5)
    gone = Slot("a can", 0.25, Rejection.MODEL, (4, 6))
    answer = Answer([kept, gone], timings={"decide": 0.5})
    free = SimpleNamespace(device="cpu", encode=lambda rgb: rgb, ask=lambda frame, text: answer)
    case = Case("a", lambda: (np.zeros((4, 6, 3), np.uint8), []), "clear up")
    (record,) = evaluate(free, [case], Scoring())
    assert record.seconds == {"decide": 0.5}
    assert record.slots == [
        SlotRecord("the mug", "", None, 0.75, True, 0.5, 0, 0, 6, 0, 0.0),
        SlotRecord("a can", "", None, 0.25, False, 0.0, 0, 0, 0, 0, 0.0, "model"),
    ]
    faulty = replace(kept, fault="the model's mask is not made of finite numbers")
    answer.slots[0] = faulty
    with pytest.raises(InputError, match="not made of finite numbers"):
        evaluate(free, [case], Scoring())


def test_records_know_their_data_and_keep_the_blind_baseline(tmp_path: Path, model: str) -> None:
    references = [ref(1, [10], "left"), ref(2, [10, 11], "both")]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    command = ["eval", "dataset", "grefcoco", "val", "--root", str(root), "--model", model]
    command += ["--device", "cpu", "--records", str(tmp_path / "records")]
    assert cli.main(command) == 0
    kept = (tmp_path / "records.blind").read_text()
    assert len(kept.splitlines()) == 1 + 2
    assert cli.main(command) == 0
    assert (tmp_path / "records.blind").read_text() == kept
    # Partly answered elsewhere: the latency is not of this device alone.
    records, out = (tmp_path / "records").read_text(), tmp_path / "out.json"
    here = f"cpu ({torch.get_num_threads()} threads)"
    (tmp_path / "records").write_text(records.replace(here, "cpu (96 threads)", 1))
    assert cli.main([*command, "--out", str(out)]) == 0
    assert set(json.loads(out.read_text())["device"].split(", ")) == {here, "cpu (96 threads)"}
    assert cli.main([*command, "--dtype", "bfloat16"]) == 2
    # Another image of the same name and size.
    image = next((root / "refer_seg/images").rglob("1.jpg"))
    before = image.read_bytes()
    image.write_bytes(before[:-3] + b"\0" + before[-2:])
    assert cli.main(command) == 2
    image.write_bytes(before)
    assert cli.main(command) == 0
    # The same pictures and ids with other truth.
    references[0]["ann_id"] = [11]
    (root / "refer_seg/grefcoco/grefs(unc).json").write_text(json.dumps(references))
    assert cli.main(command) == 2


@pytest.mark.parametrize("adapted", [False, True])
def test_records_know_what_the_weights_were_asked_with(
    tmp_path: Path,
    model: str,
    adapted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same weights in another conversation, or decided by another rule, do not go on from them."""
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", [ref(1, [10], "left")])
    asked = tmp_path / "adapter" if adapted else model
    if adapted:
        asked.mkdir()
        torch.save({}, asked / "adapter_model.bin")
        said = {"base_model_name_or_path": model, "lora_alpha": 1}
        (asked / "adapter_config.json").write_text(json.dumps(said))
    command = ["eval", "dataset", "grefcoco", "val", "--root", str(root), "--model", str(asked)]
    command += ["--device", "cpu", "--no-blind", "--records", str(tmp_path / "records")]
    assert cli.main(command) == 0
    config = Path(model) / "config.json"
    whole = config.read_text()
    config.write_text(json.dumps(json.loads(whole) | {"conversation": "llava_llama_2"}))
    assert cli.main(command) == 2
    assert "holds records of another run (settings '" in capsys.readouterr().err
    config.write_text(whole)
    with monkeypatch.context() as patched:
        weights = shutil.ignore_patterns("checkpoints", "__pycache__")
        code = shutil.copytree(shared.PACKAGE, tmp_path / "code", ignore=weights)
        patched.setattr(shared, "PACKAGE", code)
        assert cli.main(command) == 0
        for file in map(
            code.joinpath, ("engine.py", "datasets/refer.py", "eval/sources/dataset.py")
        ):
            whole = file.read_text()
            file.write_text("# another rule")
            assert cli.main(command) == 2
            assert "holds records of another run (code '" in capsys.readouterr().err
            file.write_text(whole)
    # What is written beside the model is none of its settings.
    assert cli.main([*command, "--out", f"{model}/out.json"]) == 0
    assert cli.main(command) == 0
