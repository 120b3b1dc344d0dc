"""A GPU that is only said to be there: a tensor that was not moved to it fails as beside a real one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Elsewhere(TorchFunctionMode):
    """While it is entered, tensors that are moved to the GPU or made on it are marked, and stay here."""

    def move(self, module: nn.Module) -> None:
        """Mark a module's weights."""
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.elsewhere = True

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch; RuntimeError if its tensors are on two devices."""
        given = tree_leaves((args, kwargs or {}))
        tensors = [each for each in given if isinstance(each, Tensor)]
        marked = [each for each in tensors if hasattr(each, "elsewhere")]
        if func == Tensor.device.__get__:
            return GPU if marked else CPU
        left = [each for each in tensors if each.ndim and not hasattr(each, "elsewhere")]
        if marked and (left or func is Tensor.numpy):
            raise RuntimeError(f"{func.__name__}: not all of it is on one device")
        args, kwargs = tree_map(lambda each: CPU if each == GPU else each, (args, kwargs or {}))
        result = func(*args, **kwargs)
        moved = any(isinstance(each, torch.device) and each == GPU for each in given)
        if moved or marked:
            return tree_map(lambda each: _marked(each, func is not Tensor.cpu), result)
        return result


def _marked(value: Any, there: bool) -> Any:
    """A tensor as another object, since torch returns the same one where nothing has to be moved."""
    if isinstance(value, Tensor):
        value = value.view_as(value)
        if there:
            value.elsewhere = True
    return value
