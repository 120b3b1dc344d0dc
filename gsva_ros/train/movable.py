"""Batches are data classes of tensors, which go to a device together."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Self

import torch


class Movable:
    """A data class whose fields move where they can; what cannot (texts, row numbers) stays on the host."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        return replace(
            self, **{f.name: _moved(getattr(self, f.name), device) for f in fields(self)}
        )  # type: ignore[type-var]


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, list) and value and hasattr(value[0], "to"):
        return [each.to(device) for each in value]
    return value.to(device) if hasattr(value, "to") else value
