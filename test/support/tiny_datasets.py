"""Research data sets of a few tiny images, in the official code's folder layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

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
    """COCO's uncompressed run lengths in column order, as in its crowd annotations."""
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


def write_reason_seg(root: Path, *entries: dict[str, Any]) -> Path:
    folder = root / "reason_seg" / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    for number, entry in enumerate(entries):
        cv2.imwrite(str(folder / f"{number}.jpg"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        (folder / f"{number}.json").write_text(json.dumps(entry))
    return root


def square(label: str, x: int, y: int, side: int) -> dict[str, Any]:
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
    return {"label": label, "points": corners}
