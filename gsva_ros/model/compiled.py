"""torch.compile on request, with the uncompiled function as fallback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ..errors import one_line
from .memory import memory_errors

log = logging.getLogger(__name__)


class Compiled:
    """A function of tensors, compiled at its first call; if that fails, it logs it and runs uncompiled."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._plain, self._name = function, name
        self._fast: Callable[..., Any] | None = memory_errors()(
            torch.compile(function, dynamic=False)
        )

    def __call__(self, *given: Any) -> Any:
        """The function's result."""
        if self._fast is not None:
            try:
                return self._fast(*given)
            except MemoryError:
                raise
            except Exception as error:  # of torch.compile, the C++ compiler or Triton
                log.warning("%s runs uncompiled: %s", self._name, one_line(error))
                self._fast = None
        return self._plain(*given)
