"""Datasets in the official layouts, written by the tests: what each expression means, pixel by pixel."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from tiny import tiny_checkpoint

from gsva_ros import cli
from gsva_ros.eval.sources.dataset import dataset_cases
from gsva_ros.eval.sources.files import DatasetError
from gsva_ros.eval.sources.refer import segmentation_mask
from gsva_ros.model.checkpoint import save_pretrained

HEIGHT, WIDTH = 40, 60


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


CROWD = box(30, 5, 50, 20)
LEFT, RIGHT = box(5, 5, 15, 15), box(20, 10, 40, 30)


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths down the columns, as its crowd annotations have them."""
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def write_root(root: Path, name: str, file: str, references: list[dict[str, Any]]) -> Path:
    folder = root / "refer_seg" / name
    folder.mkdir(parents=True)
    images = root / "refer_seg/images/mscoco/images/train2014"
    images.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        cv2.imwrite(
            str(images / f"{number}.jpg"), np.full((HEIGHT, WIDTH, 3), 50 * number, np.uint8)
        )
    annotations = [
        {"id": 10, "segmentation": [rectangle(5, 5, 15, 15)]},
        {"id": 11, "segmentation": [rectangle(20, 10, 40, 30), [1, 1, 2, 2]]},
        {"id": 12, "segmentation": uncompressed(CROWD)},
        {"id": 13, "segmentation": [[1.0, 1.0, 2.0, 2.0]]},
        {"id": 14, "segmentation": [{"size": [HEIGHT, WIDTH], "counts": compressed(RIGHT)}]},
    ]
    instances = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in (1, 2)
        ],
        "annotations": annotations,
        "categories": [],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    if file.endswith(".json"):
        (folder / file).write_text(json.dumps(references))
    else:
        (folder / file).write_bytes(pickle.dumps(references, protocol=2))
    return root


def compressed(mask: np.ndarray) -> str:
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def ref(image: int, ann: Any, *sentences: str, split: str = "val") -> dict[str, Any]:
    return {
        "image_id": image,
        "ann_id": ann,
        "split": split,
        "sentences": [{"sent": s} for s in sentences],
    }


def close(mask: np.ndarray, truth: np.ndarray) -> bool:
    """Polygons may claim a pixel more or less along their edge."""
    return (mask ^ truth).sum() <= max(4, 0.2 * truth.sum())


def test_grefcoco(tmp_path: Path) -> None:
    references = [
        ref(1, [10], " The Left one. "),
        ref(1, [10, 11, 12], "everything", "all of them"),
        ref(2, [-1], "a unicorn"),
        ref(2, [13], "degenerate"),
        ref(2, [10, 13], "one real, one degenerate"),
        ref(1, [10], "of another split", split="testA"),
    ]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    first, second = dataset_cases(root, "grefcoco", "val")
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
        ("no target", 0, False),
        ("no target", 0, False),
        ("multi", 2, True),
    ]
    assert len(dataset_cases(root, "grefcoco", "testA")) == 1


@pytest.mark.parametrize(
    ("name", "file"),
    [("refcoco", "refs(unc).p"), ("refcoco+", "refs(unc).p"), ("refcocog", "refs(umd).p")],
)
def test_refcoco_family(tmp_path: Path, name: str, file: str) -> None:
    root = write_root(tmp_path, name, file, [ref(2, 14, "right box"), ref(2, 12, "the crowd")])
    (case,) = dataset_cases(root, name, "val")
    rgb, (right, crowd) = case.read()
    assert abs(int(rgb.mean()) - 100) < 3
    assert np.array_equal(right.mask, RIGHT)
    assert np.array_equal(crowd.mask, CROWD)


def test_refzom(tmp_path: Path) -> None:
    references = [ref(1, [], "nothing here"), ref(1, [10, 12], "two of them"), ref(1, [12], "one")]
    root = write_root(tmp_path, "refzom", "Ref_ZOM.p", references)
    (case,) = dataset_cases(root, "refzom", "val")
    assert [q.referents for q in case.read()[1]] == [0, 2, 1]


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
    (case,) = dataset_cases(tmp_path, "reasonseg", "val")
    _, (query,) = case.read()
    assert (query.expression, query.category) == ("the café’s chair", "phrase")
    assert query.mask[6, 6]
    assert not query.mask[12, 12]
    assert not query.mask[33, 45]


def test_pickles_are_data_only(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    root = write_root(tmp_path, "refcoco", "refs(unc).p", [])
    path = root / "refer_seg" / "refcoco" / "refs(unc).p"
    path.write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DatasetError, match=r"builtins\.print, which is not plain data"):
        dataset_cases(root, "refcoco", "val")
    path.write_bytes(b"\x80\x02]q")
    with pytest.raises(DatasetError, match="refs"):
        dataset_cases(root, "refcoco", "val")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there are grefcoco"):
        dataset_cases(tmp_path, "coco", "val")
    with pytest.raises(DatasetError, match=r"grefs\(unc\)\.json"):
        dataset_cases(tmp_path, "grefcoco", "val")
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", [ref(1, [10], "x")])
    with pytest.raises(DatasetError, match="there are val"):
        dataset_cases(root, "grefcoco", "testB")
    (root / "refer_seg/images/mscoco/images/train2014/1.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1\.jpg"):
        dataset_cases(root, "grefcoco", "val")[0].read()
    with pytest.raises(DatasetError, match=r"no \*\.jpg"):
        dataset_cases(root, "reasonseg", "val")


def test_run_lengths_in_both_forms_agree() -> None:
    plain = segmentation_mask(uncompressed(CROWD), HEIGHT, WIDTH)
    coded = segmentation_mask({"size": [HEIGHT, WIDTH], "counts": compressed(CROWD)}, HEIGHT, WIDTH)
    assert np.array_equal(plain, coded)
    assert np.array_equal(plain, CROWD)


@pytest.mark.parametrize("protocol", ["paper", "deployed"])
def test_the_command(tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    references = [ref(1, [10], "left"), ref(1, [-1], "unicorn"), ref(2, [10, 11], "both")]
    root = write_root(tmp_path, "grefcoco", "grefs(unc).json", references)
    checkpoint = tiny_checkpoint()
    save_pretrained(checkpoint.model, checkpoint.prompt.tokenizer, tmp_path / "model")
    common = ["--root", str(root), "--model", str(tmp_path / "model"), "--device", "cpu"]
    out = ["--out", str(tmp_path / "out.json"), "--records", str(tmp_path / "records.jsonl")]
    command = ["eval", "dataset", "grefcoco", "val", "--protocol", protocol, *common]
    assert cli.main([*command, *out]) == 0
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert (numbers["protocol"], numbers["rules"], numbers["cases"]) == (protocol, "grefcoco", 2)
    assert numbers["scores"]["all"]["n"] == 3
    assert numbers["baselines"]["always [REJ]"]["gIoU"] == pytest.approx(1 / 3)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1 + 2
    capsys.readouterr()
    assert cli.main(["eval", "dataset", "reasonseg", "val", "--protocol", protocol, *common]) == 2
    assert ("deployed" if protocol == "paper" else "jpg") in capsys.readouterr().err
