"""YAML files written by users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, one_line


class _Loader(yaml.SafeLoader):
    """Refuses a mapping with a repeated key, whose first value PyYAML would drop without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in keys:
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                    )
                keys.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The contents of a YAML file.

    Raises:
        InputError: there is no such file, it is not YAML, or a key is given twice; names it.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # ValueError: text that cannot be decoded, or an invalid date (PyYAML).
        raise InputError(f"{path}: cannot be read as YAML: {one_line(error)}") from error
