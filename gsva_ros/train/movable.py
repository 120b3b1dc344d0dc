"""Batches: data classes of tensors that move to a device together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

#: A batch's own class. Python 3.10 has no typing.Self.
Own = TypeVar("Own", bound="Movable")


class Movable:
    """A data class whose tensors move to a device; other fields (texts, row numbers) stay on the host."""

    def to(self: Own, device: torch.device) -> Own:
        """The batch on another device; asynchronously, if it is in pinned memory."""
        return self._each(lambda x: x.to(device, non_blocking=True), lambda x: x.to(device))

    def pin_memory(self: Own) -> Own:
        """The batch in pinned memory, for asynchronous copies to a GPU; `DataLoader` calls it."""
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

        batch: Any = self  # every subclass is a data class, which the type does not say
        return replace(batch, **{f.name: moved(getattr(batch, f.name)) for f in fields(batch)})
