"""Two runs side by side, with paired differences: the same pictures are resampled for both."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metrics import bootstrap, gres
from .summary import Slots


def paired(a: Slots, rejected_a: Any, b: Slots, rejected_b: Any) -> dict[str, dict[str, Any]]:
    """Metrics of both runs, b minus a, and the difference's 95 % interval.

    Raises:
        ValueError: the runs did not ask the same expressions of the same cases.
    """
    if not np.array_equal(a.case, b.case) or not np.array_equal(a.truth_area, b.truth_area):
        raise ValueError("the runs are not of the same cases and expressions")
    terms_a, terms_b = a.terms(rejected_a), b.terms(rejected_b)
    width = terms_a.shape[1]

    def difference(sums: Any) -> dict[str, Any]:
        first, second = gres(sums[..., :width]), gres(sums[..., width:])
        return {name: second[name] - first[name] for name in first}

    both = np.concatenate([terms_a, terms_b], 1)
    intervals = bootstrap(both, a.case, difference)
    first, second = gres(terms_a.sum(0)), gres(terms_b.sum(0))
    return {
        name: {
            "a": float(first[name]),
            "b": float(second[name]),
            "difference": float(second[name] - first[name]),
            "interval": list(intervals[name]),
        }
        for name in first
    }
