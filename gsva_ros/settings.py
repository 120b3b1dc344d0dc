"""YAML files that a user writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, one_line


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        InputError: no such file, or not YAML; names it.
    """
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # ValueError: of text, or of what looks like a date and is none (PyYAML).
        raise InputError(f"{path}: cannot be read as YAML: {one_line(error)}") from error
