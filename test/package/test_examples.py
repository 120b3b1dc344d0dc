"""What the documentation shows of a file's form is in that form."""

from __future__ import annotations

import re
from pathlib import Path

from gsva_ros.truth import parse_truth

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_example_of_ground_truth_can_be_read() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", (DOCS / "measuring.md").read_text(), re.DOTALL)
    (frame,) = parse_truth(example, "measuring.md")
    there, absent = frame.expressions()
    assert (there.expression, there.referents) == ("the red mug", 1)
    assert there.mask is not None
    assert there.mask.shape == (480, 640)
    assert int(there.mask.sum()) == (300 - 212) * (262 - 180)
    assert (absent.expression, absent.referents) == ("the apple", 0)
