"""Writes the table of a run's fields into docs/training.md, from `gsva_ros.train.config`.

`python docs/training_fields.py` writes it; with `--check` it fails where the page is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this tree's fields, also where an older build is installed

from gsva_ros.train.config import Config, Data, Evaluation, Lora, Official  # noqa: E402

PAGE = ROOT / "docs" / "training.md"
TABLES: dict[str, type[BaseModel]] = {
    "": Config,
    "sources": Data,
    "lora": Lora,
    "evaluation": Evaluation,
    "model": Official,
}


def table(prefix: str, kind: type[BaseModel]) -> list[str]:
    """One row a field."""
    heading = f"In each of `{prefix}`:" if prefix == "sources" else f"In `{prefix}`:"
    lines = ["", heading, ""] if prefix else []
    lines += ["| field | default | |", "|---|---|---|"]
    for name, field in kind.model_fields.items():
        lines.append(
            f"| `{name}` | {default(field)} | {field.description}{choice(field.annotation)} |"
        )
    return lines


def choice(annotation: Any) -> str:
    """The values that a field is chosen from, in brackets; "" if any may be given."""
    named = ", ".join(f"`{value}`" for value in values(annotation))
    return f" ({named})" if named else ""


def values(annotation: Any) -> list[str]:
    """The values of a literal, or of a list of them."""
    if get_origin(annotation) is list:
        (annotation,) = get_args(annotation)
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def default(field: FieldInfo) -> str:
    """As YAML writes it."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "<br>".join(f"`{k}: {v:g}`" for k, v in value.items())
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def page() -> str:
    """The page with its tables as they should be."""
    lines = [line for prefix, kind in TABLES.items() for line in table(prefix, kind)]
    body = "<!-- fields -->\n" + "\n".join(lines) + "\n<!-- /fields -->"
    return re.sub(
        r"<!-- fields -->.*<!-- /fields -->", lambda _: body, PAGE.read_text(), flags=re.S
    )


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if PAGE.read_text() != page():
            sys.exit(f"{PAGE} is out of date: run python docs/training_fields.py")
    else:
        PAGE.write_text(page())
