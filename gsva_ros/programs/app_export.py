"""What `gsva app` writes: masks, COCO results, and labelled frames as a bag.

Slots are those of `Session.slots`: a rejected one has no mask.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore

from gsva_ros.answer import Slot
from gsva_ros.bags.bag import Bag
from gsva_ros.coco_masks import coco_mask
from gsva_ros.errors import InputError
from gsva_ros.eval.record import record_truth
from gsva_ros.interfaces import whole_bag
from gsva_ros.programs.app_session import Picture
from gsva_ros.stamps import SECOND
from gsva_ros.truth import Referring, read_truth, write_truth

#: The topic of a labelled bag's frames.
LABELLED_TOPIC = "/image"


def write_masks(path: Path, slots: Sequence[Slot]) -> None:
    """Write a zip file of masks: PNG, mono8, 0 or 255, at the image's size.

    Raises:
        InputError: nothing is segmented.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for number, slot in enumerate(slots, 1):
            if (mask := slot.mask) is None:
                continue
            words = "".join(c if c.isascii() and c.isalnum() else "_" for c in slot.expression)[:40]
            _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255)
            archive.writestr(f"{number}_{words}.png", data.tobytes())
        empty = not archive.namelist()
    if empty:
        path.unlink()
        raise InputError("no expression is SEGMENTED: there is no mask to save")


def write_coco(path: Path, name: str, slots: Sequence[Slot]) -> None:
    """Write an answer as COCO results: run lengths, boxes (x, y, width, height) and scores as JSON.

    A rejected expression is listed without a segmentation, one that could not be decided with the reason
    only (`fault`). Source: the COCO data format.

    Raises:
        InputError: nothing is answered.
    """
    if not slots:
        raise InputError("no answer yet: ask first")
    height, width = slots[0].size
    annotations = []
    for number, slot in enumerate(slots, 1):
        entry: dict[str, Any] = {"id": number, "image_id": 1, "caption": slot.expression}
        if slot.fault:
            annotations.append(entry | {"fault": slot.fault})
            continue
        entry |= {"score": slot.p_seg, "rejected": slot.rejected}
        if (mask := slot.mask) is not None:
            entry |= {"predicted_iou": slot.predicted_iou} | coco_mask(mask)
        annotations.append(entry)
    image = {"id": 1, "file_name": name, "width": width, "height": height}
    path.write_text(
        json.dumps({"images": [image], "annotations": annotations}, indent=1) + "\n",
        encoding="utf-8",
    )


def write_labelled(
    folder: Path, labelled: Mapping[str, tuple[Picture, list[Referring]]]
) -> tuple[Path, Path]:
    """Write labelled frames as a bag that contains their ground truth.

    It has the format of `gsva record-truth`, so it can be evaluated and trained on.

    Returns:
        The bag's folder, and a zip file of it.

    Raises:
        InputError: no frame is labelled.
    """
    if not labelled:
        raise InputError("no frame is kept yet: label one and keep it")
    types = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/Image"
    Image, Header = types.types[kind], types.types["std_msgs/msg/Header"]
    Time = types.types["builtin_interfaces/msg/Time"]
    bag = folder / "labelled"
    shutil.rmtree(bag, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain, truth = Path(scratch) / "plain", Path(scratch) / "truth.json"
        truths = []
        with whole_bag(plain) as writer:
            images = writer.add_connection(LABELLED_TOPIC, kind, typestore=types)
            for number, (rgb, referrings) in enumerate(labelled.values(), start=1):
                stamp = number * SECOND
                height, width = rgb.shape[:2]
                header = Header(Time(number, 0), "camera")
                image = Image(header, height, width, "rgb8", 0, 3 * width, rgb.reshape(-1))
                writer.write(images, stamp, types.serialize_cdr(image, kind))
                truths.append((stamp, referrings))
        write_truth(truth, LABELLED_TOPIC, truths)
        with Bag(plain) as opened:
            record_truth(opened, read_truth(truth), bag)
    archive = shutil.make_archive(str(folder / "labelled"), "zip", folder, "labelled")
    return bag, Path(archive)
