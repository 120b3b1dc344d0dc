"""The documentation as a site: `make docs` writes it into site/. It opens without server or network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "gsva_ros"
author = "gsva_ros maintainers"
release = ElementTree.parse(ROOT / "package.xml").findtext("version") or ""

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Tables and examples of shapes stand in docstrings as the field writes them: [H, W], not as links.
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"gsva_ros {release}"
# The fonts that the reader's machine has: nothing is fetched.
html_theme_options = {
    "light_css_variables": {
        "font-stack": "system-ui, sans-serif",
        "font-stack--monospace": "ui-monospace, monospace",
    }
}
html_copy_source = False
html_show_copyright = False  # it names nobody; LICENSE and NOTICE do
html_show_sphinx = False

# Links to files outside of this folder work on a code host; the site does not carry those files.
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def name_what_is_outside(app: Any, page: str, source: list[str]) -> None:
    """Replace `[text](../path)` by the text and the path in the repository."""
    source[0] = OUTSIDE.sub(r"\1 (`\2`)", source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", name_what_is_outside)
