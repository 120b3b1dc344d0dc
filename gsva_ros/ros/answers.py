"""Converts the worker's results to ROS messages, and helps clients to read those.

Last step of a frame. Nothing is decided here: outcomes and their reasons are the result's.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

import gsva_ros
from gsva_ros.answer import Rejection as Kind
from gsva_ros.answer import Segmenter
from gsva_ros.conversions import fill_image, mask_of
from gsva_ros.instances import parts
from gsva_ros.msg import InstanceMask, Provenance, Rejection, Segmentation, Timings
from gsva_ros.msg import Outcome as OutcomeMsg
from gsva_ros.overlay import Target
from gsva_ros.serving.requests import Decision, Instance, Outcome, Result
from gsva_ros.stamps import SECOND, fill

#: The message's constants are named after the kinds.
KINDS = {kind: getattr(Rejection, kind.name) for kind in Kind}
#: Nanoseconds; a stamp further than this from the node's clock was taken from another clock.
COMPARABLE = 24 * 3600 * SECOND


def segmentation(
    result: Result, provenance: Provenance, now: int, split_instances: bool = False
) -> Segmentation:
    """Return the whole answer.

    Args:
        now: the node's clock in nanoseconds.
        split_instances: one InstanceMask per connected component of an expression's mask.
    """
    msg = Segmentation()
    msg.instruction_id = result.request.id
    msg.text = result.text
    msg.provenance = copy.copy(provenance)
    if result.threshold is not None:
        msg.provenance.rejection_threshold = result.threshold
    if result.frame is not None:
        msg.header = result.frame.header
        msg.image_topic = result.frame.topic
    if result.rgb is not None:
        msg.height, msg.width = result.rgb.shape[:2]
    msg.timings = _timings(result, now)
    for decision in result.decisions:
        msg.outcomes.append(_outcome(decision))
        if decision.outcome is Outcome.SEGMENTED:
            instances = decision.instances or [
                Instance(0, region, 1.0) for region in parts(decision.region, split_instances)
            ]
            for number, instance in enumerate(instances):
                msg.instances.append(_instance_mask(decision, instance, number, msg.header))
        elif decision.outcome is Outcome.REJECTED:
            msg.rejections.append(_rejection(decision, result.request.id, msg.header))
    return msg


def provenance_of(engine: Segmenter[Any], threshold: float) -> Provenance:
    """Describe the engine and the threshold in use: enough to reproduce an answer."""
    return Provenance(
        model=engine.name,
        weights_hash=engine.weights_hash,
        precision=engine.precision,
        device=str(engine.device),
        prompt_template=engine.prompt_template,
        rejection_threshold=float(threshold),
        version=gsva_ros.__version__,
    )


def outcome_name(outcome: int) -> str:
    """The name of an Outcome message's `outcome`; "UNKNOWN" for an undefined value."""
    return next((each.name for each in Outcome if each == outcome), Outcome.UNKNOWN.name)


def targets_in(answer: Segmentation) -> list[Target]:
    """What a client draws for an answer: its instances and rejections by slot; nothing that failed."""
    found = [
        Target(i.slot, i.expression, mask_of(i, answer.width, answer.height), i.p_seg)
        for i in answer.instances
    ]
    rejected = [Target(r.slot, r.expression, None, 1.0 - r.probability) for r in answer.rejections]
    return sorted(found + rejected, key=lambda target: target.slot)


def _outcome(decision: Decision) -> OutcomeMsg:
    msg = OutcomeMsg()
    msg.slot = decision.slot
    msg.expression = decision.expression
    msg.outcome = int(decision.outcome)
    msg.code = int(decision.code)
    msg.reason = decision.reason
    fill(msg.since, max(0, decision.since))
    msg.answers = decision.answers
    msg.carried = decision.carried
    fill(msg.age, decision.age)
    return msg


def _rejection(decision: Decision, instruction_id: str, header: Any) -> Rejection:
    assert decision.rejection is not None
    msg = Rejection()
    msg.header = header
    msg.instruction_id = instruction_id
    msg.slot = decision.slot
    msg.expression = decision.expression
    msg.kind = KINDS[decision.rejection]
    msg.probability = 1.0 - decision.p_seg
    msg.reason = decision.reason
    return msg


def _instance_mask(
    decision: Decision, instance: Instance, number: int, header: Any
) -> InstanceMask:
    x0, y0, x1, y1 = instance.region.box
    crop = instance.region.crop
    msg = InstanceMask()
    msg.slot = decision.slot
    msg.instance = number
    msg.id = instance.id
    msg.expression = decision.expression
    msg.p_seg = decision.p_seg
    msg.confidence = instance.confidence
    msg.predicted_iou = decision.predicted_iou
    msg.roi.x_offset, msg.roi.y_offset = x0, y0
    msg.roi.width, msg.roi.height = x1 - x0, y1 - y0
    msg.mask = fill_image(Image(), crop.view(np.uint8) * np.uint8(255), "mono8")
    msg.mask.header = header
    return msg


def _timings(result: Result, now: int) -> Timings:
    stages = ("encode", "decide", "mask", "total", "queue")
    msg = Timings(**{stage: result.timings.get(stage, 0.0) for stage in stages})
    msg.frame_age = math.nan
    if result.frame is not None and abs(now - result.frame.stamp) < COMPARABLE:
        msg.frame_age = (now - result.frame.stamp) / SECOND
    return msg
