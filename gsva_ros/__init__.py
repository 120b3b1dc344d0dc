"""Segmentation by words, with rejections: GSVA (CVPR 2024) for robots.

`load` gives an engine. Importing this package needs neither torch nor ROS; `load` imports torch.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .answer import Segmenter

__all__ = ["__version__", "load"]

#: A larger image is attributed to a broken header, not to a camera.
MAX_PIXELS = 100_000_000
# Read when OpenCV is imported: a file's header can tell others another size.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))


def load(
    model: str | Path = "gsva-mini",
    device: str = "auto",
    dtype: str = "auto",
    static: bool = False,
    compiled: bool = False,
    **official: Any,
) -> Segmenter[Any]:
    """Load a model, ready to segment.

    On a CPU, the process keeps up to 128 MiB of freed memory from then on, because allocating it again
    takes a tenth of a frame's time; glibc's variables override that (`MALLOC_TRIM_THRESHOLD_`, mallopt(3)).

    Args:
        model: a bundled name ("gsva-mini"), a converted directory, a SAM 3 directory of transformers,
            or, together with `weights`, the LLaVA directory that official weights were trained from.
        device: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".
        dtype: "auto" (bfloat16 on CUDA, float32 elsewhere), "float32", "bfloat16" or "float16"; "int8"
            or "int4": large weights quantised, the rest bfloat16.
        static: use fixed shapes, which a GPU records as CUDA graphs and replays; GSVA and LISA only.
        compiled: compile SAM's encoder with torch.compile at the first frame, which takes minutes; if that
            fails, the log says so, and the encoder runs uncompiled; GSVA and LISA only.
        official: for official weights: weights, vision_tower, and optionally sam, conversation,
            lora_alpha; see `gsva_ros.model.checkpoint.load_official`.

    Raises:
        FileNotFoundError: no such model; lists the bundled ones.
        ValueError: an unknown device or dtype, official weights without one of their parts, or weights that
            do not fit; or the working folder is gone.
        TypeError: an unknown keyword.
        MemoryError: the device has too little memory.
    """
    from .files import check_folder

    if "torch" not in sys.modules:
        check_folder()
    from .loading import load as load_engine

    return load_engine(model, device, dtype, static, compiled, **official)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """The version in package.xml (in this tree or a ROS installation), or else the one pip recorded."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path
    from xml.etree import ElementTree

    for parent in Path(__file__).resolve().parents:
        for path in (parent / "package.xml", parent / "share" / "gsva_ros" / "package.xml"):
            if path.is_file():
                package = ElementTree.parse(path)
                if package.findtext("name") == "gsva_ros":
                    return package.findtext("version") or ""
    try:
        return version("gsva-ros")
    except PackageNotFoundError:
        return "unknown"
