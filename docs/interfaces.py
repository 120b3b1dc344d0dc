"""Writes docs/interfaces.md from the interface files, the README's topic table and the node's parameters.

`python docs/interfaces.py` writes it; `python docs/interfaces.py --check` fails where it is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from gsva_ros.ros.parameters import FIXED, TABLE, UNCONFIGURED_ONLY

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "interfaces.md"
PARTS = {"msg": ("",), "srv": ("Request", "Response"), "action": ("Goal", "Result", "Feedback")}
FIELD = re.compile(
    r"^(?P<type>[\w/\[\]<=]+)\s+(?P<name>\w+)(?:=(?P<value>\S+))?\s*(?:#\s*(?P<note>.*))?$"
)


def page() -> str:
    """The whole page."""
    lines = [
        "# Interfaces",
        "",
        "Written by `python docs/interfaces.py` from `msg/`, `srv/`, `action/` and the node's parameters.",
        "",
        *topics(),
        "",
        "## Parameters",
        "",
        "Of the node, as `config/gsva.yaml` holds them; `use_sim_time` and the like come with every node.",
        "",
        *parameters(),
        "",
    ]
    for kind in PARTS:
        for path in sorted((ROOT / kind).glob(f"*.{kind}")):
            lines += interface(path, kind)
    return "\n".join(lines).rstrip() + "\n"


def topics() -> list[str]:
    """The README's topic table, its types linked to their sections."""
    rows = [r for r in (ROOT / "README.md").read_text().splitlines() if r.startswith("| ")]
    start = next(i for i, row in enumerate(rows) if row.startswith("| direction |"))
    table = [rows[start], "|---|---|---|---|"]
    for row in rows[start + 1 :]:
        if not row.startswith(("| in |", "| out |", "| service |", "| action |")):
            break
        table.append(re.sub(r"`gsva_ros/(?:\w+/)?(\w+)`", _link, row))
    return table


def _link(found: re.Match[str]) -> str:
    return f"[{found[0]}](#{found[1].lower()})"


def parameters() -> list[str]:
    """One row a parameter."""
    lines = ["| parameter | default | values | changes | |", "|---|---|---|---|---|"]
    for name, (default, about) in TABLE.items():
        value = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
        when = "while unconfigured" if name in FIXED else "never" if about.read_only else "live"
        note = about.description.removesuffix(UNCONFIGURED_ONLY).strip()
        lines.append(f"| `{name}` | `{value}` | {values(about)} | {when} | {note} |")
    return lines


def values(about: Any) -> str:
    """What a parameter's descriptor allows; "": whatever is of its type."""
    for limits in (*about.integer_range, *about.floating_point_range):
        return f"{limits.from_value:g} to {limits.to_value:.10g}"
    return str(about.additional_constraints)


def interface(path: Path, kind: str) -> list[str]:
    """One section: what the file says at its top, and a table for each part."""
    lines = [f"## {path.stem}", ""]
    text = path.read_text()
    for title, part in zip(PARTS[kind], text.split("---\n"), strict=True):
        rows: list[str] = []
        said: list[str] = []
        at_top = True
        for line in part.splitlines():
            if line.startswith("#"):
                if at_top:
                    said.append(line.lstrip("# ").strip())
                continue
            at_top = False
            if found := FIELD.match(line):
                value = f" = {found['value']}" if found["value"] else ""
                note = (found["note"] or "").replace("|", "\\|")
                rows.append(f"| `{found['name']}{value}` | `{found['type']}` | {note} |")
            elif line.strip():
                raise ValueError(f"{path}: cannot read {line!r}")
        if title:
            lines += [f"**{title}**", ""]
        if said:
            lines += [" ".join(said), ""]
        if rows:
            lines += ["| field | type | |", "|---|---|---|", *rows, ""]
    return lines


def main() -> int:
    """Write the page, or check it."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page())
        return 0
    if not PAGE.exists() or PAGE.read_text() != page():
        print(
            f"{PAGE.relative_to(ROOT)} is out of date: run python docs/interfaces.py",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
