"""Batches are data classes of tensors, which go to a device together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

#: A batch's own class. Python 3.10 has no typing.Self.
Own = TypeVar("Own", bound="Movable")


class Movable:
    """A data class whose fields move where they can; what cannot (texts, row numbers) stays on the host."""

    def to(self: Own, device: torch.device) -> Own:
        """The same batch on another device; without waiting, from pinned memory."""
        return self._each(lambda x: x.to(device, non_blocking=True), lambda x: x.to(device))

    def pin_memory(self: Own) -> Own:
        """The same batch in memory that a GPU reads while the host goes on, as `DataLoader` asks for it."""
        return self._each(Tensor.pin_memory, lambda x: x.pin_memory())

    def _each(
        self: Own, tensor: Callable[[Tensor], Tensor], movable: Callable[[Movable], Movable]
    ) -> Own:
        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return tensor(value)
            if isinstance(value, Movable):
                return movable(value)
            return [moved(each) for each in value] if isinstance(value, list) else value

        batch: Any = self  # a data class, which only its own class says
        return replace(batch, **{f.name: moved(getattr(batch, f.name)) for f in fields(batch)})
