"""The documentation's site: builds without a warning, and opens without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs requirements-docs.txt; `make docs` builds the site")
ROOT = Path(__file__).resolve().parents[2]


def test_the_site_builds_and_needs_no_network(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "trees"]
    done = subprocess.run(
        [*map(str, command), str(ROOT / "docs"), str(site)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pages = list(site.glob("*.html"))
    assert {f"{p.stem}.html" for p in (ROOT / "docs").glob("*.md")} <= {p.name for p in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"""<(?:script|img|link|source)[^>]+(?:src|href)="([^"]+)\"""", text)
        assert [url for url in fetched if url.startswith(("http:", "https:", "//"))] == [], (
            page.name
        )
    reference = (site / "python.html").read_text(encoding="utf-8")
    assert "Decide one slot for each expression" in reference
