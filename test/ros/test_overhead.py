"""The node's own steps that `gsva bench --node` times: they do what the node does."""

import numpy as np

from gsva_ros.conversions import mask_of, to_rgb
from gsva_ros.ros.overhead import MASKS, answered, steps

RGB = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_a_picture_arrives_and_an_answer_leaves():
    run = {name.partition(" of ")[0]: step() for name, step in steps(RGB).items()}
    assert np.array_equal(to_rgb(run["message from bytes (rclpy)"]), RGB)
    assert np.array_equal(run["rgb8 to the engine"], RGB)
    assert np.array_equal(run["bgr8 to the engine"], RGB)
    message = run["message"]
    assert len(message.instances) == MASKS
    for instance, decision in zip(message.instances, answered(RGB).decisions, strict=True):
        assert np.array_equal(mask_of(instance, 64, 48), decision.region.placed((48, 64)))
        assert 0 < decision.region.crop.mean() < 1
    assert run["message to bytes (rclpy)"]


def test_an_rgb_picture_is_not_copied():
    first, second = (steps(RGB)["rgb8 to the engine"] for _ in range(2))
    assert np.shares_memory(first(), first())
    assert not np.shares_memory(first(), second())
