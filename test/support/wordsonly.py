"""A classifier that reads only words: what it predicts about presence, the words alone reveal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

#: A form's name, its text, whether its target is present.
Caption = tuple[str, str, bool]


def words_only(
    train: Sequence[Caption], test: Sequence[Caption], steps: int = 30
) -> dict[str, tuple[float, int]]:
    """The fraction of `test` that is predicted rightly, and the number of captions, by form and for "all".

    Logistic regression on a caption's words, pairs of neighbours and pairs of words at a distance of two,
    each alone and combined with its form; features that `train` has at most twice are left out.
    """
    seen: dict[str, int] = {}
    for caption in train:
        for mark in _marks(caption):
            seen[mark] = seen.get(mark, 0) + 1
    columns = {mark: k for k, mark in enumerate(m for m, n in seen.items() if n > 2)}
    x, y = _table(train, columns), torch.tensor([float(c[2]) for c in train])
    weights = torch.zeros(len(columns) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = torch.mv(x, weights[:-1]) + weights[-1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)
        value = value + 2.0 / len(train) * (weights**2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        told = (torch.mv(_table(test, columns), weights[:-1]) + weights[-1] > 0).numpy()
    right = told == np.array([c[2] for c in test])
    forms = np.array([c[0] for c in test])
    groups = {form: right[forms == form] for form in sorted(set(forms))} | {"all": right}
    return {str(form): (float(hits.mean()), len(hits)) for form, hits in groups.items()}


def _marks(caption: Caption) -> set[str]:
    form, text, _ = caption
    words = ["^", *text.split(), "$"]
    marks = {f"{a} {b}" for a, b in pairwise(words)} | set(words)
    marks |= {f"{a} … {b}" for a, b in zip(words, words[2:], strict=False)}
    return marks | {f"{form}: {mark}" for mark in marks}


def _table(captions: Sequence[Caption], columns: dict[str, int]) -> torch.Tensor:
    rows = [[columns[m] for m in _marks(c) if m in columns] for c in captions]
    index = torch.tensor(
        [[r for r, cells in enumerate(rows) for _ in cells], [c for cells in rows for c in cells]]
    )
    size = (len(captions), len(columns))
    ones = torch.ones(index.shape[1])
    return torch.sparse_coo_tensor(index, ones, size, check_invariants=True).coalesce()
