"""Shared by the pages of `gsva app` and `gsva_view`: style, wording, and a server that works offline."""

from __future__ import annotations

import html
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when Gradio is imported: no usage reports, no access to any hub.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from gsva_ros.answer import Slot
from gsva_ros.errors import InputError, one_line
from gsva_ros.masks import box_text
from gsva_ros.overlay import Colour, colour_of

CSS = Path(__file__).with_name("page.css")


#: IP addresses, and names that only this machine's network has (`robot`, `robot.local`). Any site can have
#: any other name, and let it lead here (DNS rebinding).
OWN = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]|[^.]*|.*\.local")


@dataclass(frozen=True)
class Row:
    """One expression on a page; the outcome is a word with a symbol, so that colour is not needed.

    number: the expression's, from 1, as in the overlay.
    """

    number: int
    expression: str
    outcome: str
    detail: str
    colour: Colour | None = None


#: The choice of a request instead of expressions.
REQUEST = "A free-form request"
#: A symbol for each outcome, shown with its name.
SIGNS = {"SEGMENTED": "■", "REJECTED": "∅", "FAILED": "⚠", "EXPIRED": "⏱", "CANCELLED": "⊘"}


def row_of(number: int, slot: Slot) -> Row:
    """The `number`-th slot (from 0) of an engine's answer as a row."""
    place = number + 1
    if slot.fault:
        return Row(place, slot.expression, "FAILED", slot.fault)
    if slot.rejected:
        return Row(place, slot.expression, "REJECTED", slot.reason)
    iou = "" if slot.predicted_iou is None else f" · predicted IoU {slot.predicted_iou:.2f}"
    said = f"p([SEG]) {slot.p_seg:.3f}{iou} · {box_text(slot.box or (0, 0, 0, 0))}"
    return Row(place, slot.expression, "SEGMENTED", said, colour_of(number))


def outcomes(rows: Sequence[Row], nothing: str) -> str:
    """Rows as HTML; expressions are escaped, never markup. `nothing`: shown if there are no rows."""
    if not rows:
        return notice(nothing)
    items = []
    for row in rows:
        style = "" if row.colour is None else f' style="background: rgb{row.colour}"'
        mark = "mark" if row.colour is not None else "mark none"
        sign = f'<span aria-hidden="true">{SIGNS.get(row.outcome, "?")}</span>'
        items.append(
            f'<li><span aria-hidden="true" class="{mark}"{style}></span>'
            f'<span class="words" data-number="{row.number}">{html.escape(row.expression)}</span>'
            f'<span class="outcome">{sign} {html.escape(row.outcome)}</span>'
            f'<span class="detail">{html.escape(row.detail)}</span></li>'
        )
    return f'<ul class="outcomes">{"".join(items)}</ul>'


def printable(text: str) -> str:
    """Text that a page can show: in a file name, what is not UTF-8 becomes a question mark."""
    return text.encode(errors="replace").decode()


def notice(text: str, spoken: bool = False) -> str:
    """A line of information; spoken: screen readers announce it when it appears."""
    role = ' role="status"' if spoken else ""
    return f'<p class="notice"{role}>{html.escape(printable(text))}</p>' if text else ""


def problem(error: BaseException | str, spoken: bool = True) -> str:
    """A line with an error message; `spoken` as for `notice`."""
    text = error if isinstance(error, str) else one_line(error)
    role = ' role="alert"' if spoken else ""
    return f'<p class="notice problem"{role}>Problem: {html.escape(printable(text))}</p>'


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for visitors' files while a page is built and served; removed at the end.

    Callers ensure that signals end the program in an orderly way (`signals.end_alike`).
    """
    with tempfile.TemporaryDirectory(prefix="gsva-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # each component reads it when it is created
        yield Path(folder)


class OwnPage:
    """Answers a page's own requests only, not those of another site's page in the same browser.

    That one could see the pictures and instruct the robot. Gradio itself refuses it only where the address
    is 127.0.0.1 or localhost, not another name of this machine.

    Args:
        app: what answers (ASGI). host: the address to listen on.
    """

    def __init__(self, app: Any, host: str) -> None:
        self._app, self._host = app, host.lower()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it (403)."""
        answer = self._app
        if scope["type"] == "http" and (why := self._foreign(Headers(scope=scope))):
            answer = PlainTextResponse(f"refused: {why}\n", 403)
        await answer(scope, receive, send)

    def _foreign(self, headers: Headers) -> str:
        """Why a request may come from another site; "": it cannot."""
        address, origin = headers.get("host", "").lower(), headers.get("origin")
        name = re.sub(r":\d*$", "", address)
        if name != self._host and not OWN.fullmatch(name):
            return f"{name} is not known as this machine; open its IP address, or start with --host {name}"
        if origin is not None and origin.lower().partition("://")[2] != address:
            return (
                f"a page of {origin} asked {address}; open that itself, or let a proxy pass on Host"
            )
        return ""


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """Serve a page in the background; returns its address.

    Whoever can reach the machine can use it, but no other site's page in their browsers (`OwnPage`).

    Args:
        host: the address to listen on; 127.0.0.1: this machine only. port: None: the first free one from
            7860.

    Raises:
        InputError: the server cannot listen there.
    """
    page.queue(default_concurrency_limit=8, max_size=64)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            max_file_size="4gb",
            app_kwargs={"middleware": [Middleware(OwnPage, host=host)]},
            theme=theme(),
            css_paths=CSS,
        )
    except OSError as error:
        raise InputError(
            f"--host {host} --port {port or '7860 and up'}: cannot listen there "
            f"({one_line(error)}); choose another"
        ) from error
    return str(address)


def theme() -> Any:
    """Gradio's default theme with the fonts of the reader's machine, and contrast as WCAG AA asks for."""
    return gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
