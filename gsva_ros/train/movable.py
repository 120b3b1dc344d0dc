"""Batches are data classes of tensors, which go to a device together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class Movable:
    """A data class whose fields move where they can; what cannot (texts, row numbers) stays on the host."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device; without waiting, from pinned memory."""
        return self._each(lambda x: x.to(device, non_blocking=True), lambda x: x.to(device))

    def pin_memory(self) -> Self:
        """The same batch in memory that a GPU reads while the host goes on, as `DataLoader` asks for it."""
        return self._each(Tensor.pin_memory, lambda x: x.pin_memory())

    def _each(
        self, tensor: Callable[[Tensor], Tensor], movable: Callable[[Movable], Movable]
    ) -> Self:
        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return tensor(value)
            if isinstance(value, Movable):
                return movable(value)
            return [moved(each) for each in value] if isinstance(value, list) else value

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self)})  # type: ignore[type-var]
