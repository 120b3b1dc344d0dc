"""torch.compile where it is asked for, and what there was before where it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ..errors import one_line

log = logging.getLogger(__name__)


class Compiled:
    """A function of tensors, compiled at its first call; plain, and a line in the log, where that fails."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._plain, self._name = function, name
        self._fast: Callable[..., Any] | None = torch.compile(function, dynamic=False)

    def __call__(self, *given: Any) -> Any:
        """What the function gives."""
        if self._fast is not None:
            try:
                return self._fast(*given)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # the compiler's, the C++ compiler's and Triton's own
                log.warning("%s runs uncompiled: %s", self._name, one_line(error))
                self._fast = None
        return self._plain(*given)
