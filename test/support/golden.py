"""Recorded outputs of the official implementations, in configurable folders that may be missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden"
OFFICIAL = Path(os.environ.get("GSVA_GOLDEN") or _BESIDE / "official_tiny")
LISA = Path(os.environ.get("LISA_GOLDEN") or _BESIDE / "lisa_tiny")


def needs(folder: Path) -> pytest.MarkDecorator:
    """Skips if the folder is missing."""
    return pytest.mark.skipif(not folder.is_dir(), reason=f"no golden folder at {folder}")
