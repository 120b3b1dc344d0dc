"""The node on models of the other families: the same messages, and what it says when it starts."""

from __future__ import annotations

import harness
from gsva_ros.msg import Outcome, Rejection
from harness import REAL, blocks
from tiny import tiny_lisa
from tiny_sam3 import tiny_directory

harness.isolate()


def outcomes(answer):
    return [outcome.outcome for outcome in answer.outcomes]


def test_lisa_says_that_it_cannot_reject(start, tmp_path):
    node, client = start(
        {"model": tiny_lisa(tmp_path, sees=False), "rejection_threshold": 0.9}, REAL
    )
    rgb, _ = blocks()
    answer = client.call(rgb, ["the red block", "a zebra"]).segmentation
    assert outcomes(answer) == [Outcome.REJECTED] * 2
    assert {r.kind for r in answer.rejections} == {Rejection.EMPTY_MASK}
    assert node.interrupt() == 0
    assert node.log.count("cannot reject") == 1


def test_sam3_segments_rejects_and_refuses_free_text(start, tmp_path):
    node, client = start({"model": tiny_directory(tmp_path)}, REAL)
    rgb, _ = blocks()
    assert outcomes(client.call(rgb, ["red mug"]).segmentation) == [Outcome.SEGMENTED]
    refused = client.call(rgb, text="hand me the mug").segmentation
    assert outcomes(refused) == [Outcome.FAILED]
    assert "noun phrases" in refused.outcomes[0].reason
    assert client.set_parameter("rejection_threshold", 1.0).successful
    answer = client.call(rgb, ["red mug"]).segmentation
    assert outcomes(answer) == [Outcome.REJECTED]
    assert [r.kind for r in answer.rejections] == [Rejection.MODEL]
    assert node.interrupt() == 0
    assert "cannot reject" not in node.log
