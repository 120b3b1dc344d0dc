"""YAML files written by users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, one_line


def read_yaml(path: Path) -> Any:
    """The contents of a YAML file.

    Raises:
        InputError: there is no such file, or it is not YAML; names it.
    """
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # ValueError: text that cannot be decoded, or an invalid date (PyYAML).
        raise InputError(f"{path}: cannot be read as YAML: {one_line(error)}") from error
