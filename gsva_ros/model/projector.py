"""The projector: CLIP's tokens to the language model's space."""

from __future__ import annotations

import re

from torch import nn

#: LLaVA's names of projectors: one linear layer, or several with GELU between them.
KINDS = re.compile("linear|mlp([1-9])x_gelu")


def projector(kind: str, channels: int, width: int) -> nn.Module:
    """A projector of [..., channels] to [..., width], with LLaVA's weight names; kind: of `KINDS`."""
    found = KINDS.fullmatch(kind)
    assert found
    first = nn.Linear(channels, width)
    if found[1] is None:
        return first
    more = [(nn.GELU(), nn.Linear(width, width)) for _ in range(int(found[1]) - 1)]
    return nn.Sequential(first, *(layer for pair in more for layer in pair))
