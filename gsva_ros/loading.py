"""Loads a model: finds it by name, chooses its device and precision, and gives the engine that runs it."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from .answer import Segmenter
from .engine import DTYPES, PRECISIONS, Engine
from .errors import InputError
from .model.bundled import model_directory
from .model.checkpoint import load_converted, load_official
from .model.config import model_type
from .model.host_memory import keep_freed
from .model.memory import memory_errors
from .model.quantised import QUANTISED

#: Modules with an engine of their own, by the model_type in config.json.
#: Families that share GSVA's modules are rows of `model.families.FAMILIES`.
OWN_ENGINES = {"sam3": "gsva_ros.sam3", "sam3_video": "gsva_ros.sam3"}


@memory_errors()
def load(
    model: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    static: bool = False,
    compiled: bool = False,
    **official: Any,
) -> Segmenter[Any]:
    """See `gsva_ros.load`."""
    chosen = device_of(device)
    if chosen.type == "cpu":
        keep_freed()
    dtype = precision_of(dtype, chosen)
    if official:
        if unknown := sorted(official.keys() - signature(load_official).parameters.keys()):
            raise TypeError(f"load has no argument {', '.join(unknown)}; see help(gsva_ros.load)")
        missing = [name for name in ("weights", "vision_tower") if name not in official]
        if missing:
            raise InputError(f"official weights need {' and '.join(missing)} too")
        checkpoint = load_official(model, **official)
    else:
        directory = model_directory(model)
        if own := OWN_ENGINES.get(model_type(directory)):
            if dtype in QUANTISED:
                raise InputError(
                    f"{model} cannot be quantised to {dtype}; choose {', '.join(DTYPES)}"
                )
            return import_module(own).load(directory, chosen, DTYPES[dtype])
        checkpoint = load_converted(directory)
    return Engine(checkpoint, str(model), chosen, dtype, static, compiled)


def precision_of(name: str, device: torch.device) -> str:
    """The precision of this name, or the one that "auto" selects on the device; InputError if unknown."""
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if name not in PRECISIONS:
        raise InputError(f"dtype is auto, {', '.join(PRECISIONS)}, not {name!r}")
    return name


def device_of(name: str) -> torch.device:
    """The device of this name; InputError if the name is invalid or the device does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wrong = f"device is auto, cpu, cuda or cuda:N, not {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(wrong) from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(wrong)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no device {name!r}; CUDA sees {torch.cuda.device_count()}")
    return device


def hardware(device: object) -> str:
    """What times on a device depend on: the GPU's name, or the number of CPU threads."""
    if str(device).startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(str(device))
    return f"{torch.get_num_threads()} threads"
