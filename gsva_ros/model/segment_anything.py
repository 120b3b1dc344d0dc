"""segment-anything's modules, without its predictor."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any


def _import_modeling() -> Any:
    """Import `segment_anything.modeling`, which needs torch alone.

    segment_anything/__init__.py imports torchvision for its predictor, which GSVA does not use and
    which many installations lack. So an empty package replaces it while the subpackage loads.
    """
    name = "segment_anything"
    if name in sys.modules:
        return importlib.import_module(f"{name}.modeling")
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("segment_anything is not installed: pip install segment-anything")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package
    try:
        return importlib.import_module(f"{name}.modeling")
    finally:
        del sys.modules[name]


modeling = _import_modeling()
