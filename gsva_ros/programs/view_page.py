"""The page of `gsva_view`: what a node's cameras see, its answers, and its health."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import gradio as gr
import numpy as np
from numpy.typing import NDArray

from gsva_ros.conversions import MessageError
from gsva_ros.instructions import expressions_in
from gsva_ros.overlay import colour_of, jpeg_text
from gsva_ros.programs.page import REQUEST, Row, notice, outcomes, problem
from gsva_ros.programs.watcher import Ended, Watcher

#: Seconds between two updates of a page.
PERIOD = 0.5
#: Maximum width, in pixels, of images sent to the page.
WIDTH = 960
#: Outcomes in the list.
ROWS = 24
#: Seconds without diagnostics, which the node sends every second, after which it counts as gone.
GONE = 5.0
#: Seconds after which a page without an update says so: its pictures would look new.
OVERDUE = 5.0
#: Seconds after which what came says how long ago that was: a killed node's answers would look new.
FRESH = 5.0
ONCE, FOLLOW = "Once", "On every frame"
EXPRESSIONS = "Expressions, separated by semicolons"
#: The diagnostic values that are shown.
SHOWN = (
    "state", "model", "device", "memory [MiB]", "frames received per second",
    "answers per second", "frames dropped for a newer one", "instructions not finished",
    "queue p50 [s]", "total p50 [s]", "total p95 [s]", "last error",
)  # fmt: skip


class ViewPage:
    """Builds the page around a watcher; each visitor chooses a camera and asks independently."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        with gr.Blocks(
            title=f"gsva_ros: {watcher.name}", analytics_enabled=False, fill_width=True
        ) as self.blocks:
            self._build()

    def _build(self) -> None:
        gr.Markdown(f"# Node {self.watcher.name}")
        # Gradio deletes the state of a closed page after an hour.
        self.mine = gr.State([], delete_callback=self._cancel)
        self.overdue = gr.HTML(elem_id="overdue")
        self.health = gr.HTML(elem_id="health")
        self.camera = gr.Dropdown([], label="Camera", elem_id="camera", interactive=True)
        with gr.Row():
            with gr.Column(min_width=320):
                self.answer = gr.HTML(elem_id="answer", elem_classes="live")
            with gr.Column(min_width=320):
                self.newest = gr.HTML(elem_id="newest", elem_classes="live")
        with gr.Row():
            with gr.Column(min_width=320):
                self.words = gr.Textbox(
                    label="Expressions or request", placeholder="the red mug; the apple",
                    elem_id="words", max_lines=1,
                )  # fmt: skip
                self.kind = gr.Radio(
                    [EXPRESSIONS, REQUEST], value=EXPRESSIONS, label="Ask with", elem_id="kind"
                )
                self.mode = gr.Radio([ONCE, FOLLOW], value=ONCE, label="Answer", elem_id="mode")
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop my instructions", elem_id="stop")
                self.status = gr.HTML(elem_id="status")
            with gr.Column(min_width=320):
                self.ended = gr.HTML(elem_id="ended")
        seen = [
            self.overdue, self.health, self.camera, self.answer, self.newest, self.ended,
        ]  # fmt: skip
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        # One update at a time per visitor: a slow browser updates less often, and nothing piles up.
        gr.Timer(PERIOD).tick(
            self.look, self.camera, seen, trigger_mode="once", concurrency_limit=None, **quiet
        )
        asked = [self.mine, self.status]
        for trigger in (ask.click, self.words.submit):
            trigger(
                self.ask, [self.mine, self.camera, self.words, self.kind, self.mode], asked, **quiet
            )
        stop.click(self.stop, self.mine, asked, **quiet)

    def look(self, camera: str | None) -> tuple[str, str, Any, str, str, str]:
        """The page's update: what is said without a next one, health, cameras, both images, outcomes."""
        topics = self.watcher.cameras()
        choice = gr.update(choices=topics)
        if camera not in topics:
            camera = topics[0] if topics else None
            choice = gr.update(choices=topics, value=camera)
        answered, *times = self.watcher.answered(camera or "")
        return (
            overdue(),
            health(*self.watcher.health()),
            choice,
            picture(answered, *captions(*times)),
            self._newest(camera),
            listed(self.watcher.outcomes()),
        )

    def _newest(self, camera: str | None) -> str:
        """A camera's newest frame as HTML, or why there is none to see."""
        try:
            newest, age = self.watcher.newest(camera or "")
        except MessageError as error:
            return problem(f"the newest frame cannot be shown: {error}", spoken=False)
        silent = f"No frame on {camera} yet." if camera else "No camera yet."
        return picture(newest, f"Newest frame, received {age:.1f} s ago", silent)

    def ask(
        self, mine: list[str], camera: str | None, words: str, kind: str, mode: str
    ) -> tuple[list[str], str]:
        """Send an instruction; returns the visitor's repeated instructions and a status line."""
        text = (words or "").strip()
        expressions = [] if kind == REQUEST else expressions_in(text)
        if not text or (kind == EXPRESSIONS and not expressions):
            return mine, problem("nothing to ask: type expressions or a request")
        if unheard := self._unheard():
            return mine, unheard
        follow = mode == FOLLOW
        request = text if kind == REQUEST else ""
        name = self.watcher.ask(expressions, request, camera or "", follow)
        return ([*mine, name] if follow else mine), notice(
            f"Sent as instruction {name}.", spoken=True
        )

    def stop(self, mine: list[str]) -> tuple[list[str], str]:
        """Cancel this visitor's repeated instructions; returns those left, and a status line."""
        if mine and (unheard := self._unheard()):
            return mine, unheard
        stopped = self._cancel(mine)
        told = (
            f"Stopped: {', '.join(stopped)}."
            if stopped
            else "You have no instruction on every frame."
        )
        return [], notice(told, spoken=True)

    def _unheard(self) -> str:
        """A problem as HTML if nobody would receive an instruction, else ""."""
        told = (
            f"nobody receives instructions of {self.watcher.name}: is it running under this name?"
        )
        return "" if self.watcher.heard() else problem(f"not sent: {told}")

    def _cancel(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.watcher.cancel(name)]


def overdue() -> str:
    """A problem as HTML that the browser shows OVERDUE seconds later, unless an update replaces it before.

    Without it, a page that no longer reaches its server looks as if it did.
    """
    silent = f"no update for more than {OVERDUE:.0f} s: what is shown is old"
    told = problem(f"{silent}. Is gsva_view still running, and reachable?", spoken=False)
    # Gradio keeps the elements and changes their attributes: a new name begins the animation again.
    name = f"overdue-{time.monotonic_ns()}"
    frames = f"@keyframes {name} {{ from {{ visibility: hidden; }} to {{ visibility: visible; }} }}"
    return f'<style>{frames}</style><div style="animation: {name} 0s {OVERDUE}s both">{told}</div>'


def health(level: str, message: str, values: Mapping[str, str], age: float) -> str:
    """The node's health as HTML: its level in words, and its diagnostic values.

    Screen readers do not announce it: it changes every second.
    """
    if not level:
        told = "no diagnostics from this node yet: is it running under this name?"
        return problem(told, spoken=False)
    if age > GONE:
        told = f"no diagnostics from this node for {age:.0f} s; the last said {level}: {message}"
        return problem(told, spoken=False)
    line = f"{level}: {message}"
    head = notice(line) if level == "OK" else problem(line, spoken=False)
    rows = "".join(
        f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(values[key])}</dd></div>"
        for key in SHOWN
        if key in values and (key, values[key]) != ("last error", message)
    )
    return f'{head}<dl class="values">{rows}</dl>'


def captions(stamp: float, age: float, undrawn: float) -> tuple[str, str]:
    """What is said of an answer's picture, and instead of one; times: from `Watcher.answered`."""
    frame = f"frame at {stamp:.3f} s{ago(age, ', received ')}"
    if math.isnan(undrawn):
        return f"Last answer, {frame}", "No answer yet."
    told = (
        f"last answer, frame at {undrawn:.3f} s, is not drawn: this page does not hold that frame"
    )
    return f"Answer on the {frame}; the {told}", f"The {told}."


def ago(age: float, before: str = "") -> str:
    """How many seconds or minutes ago something came, after `before`; "": it is fresh."""
    told = f"{age:.0f} s ago" if age < 100 else f"{age / 60:.0f} min ago"
    return f"{before}{told}" * (age > FRESH)


def picture(rgb: NDArray[np.uint8] | None, caption: str, without: str) -> str:
    """An image with its caption as HTML, embedded as JPEG."""
    if rgb is None:
        return notice(without)
    if rgb.shape[1] > WIDTH:
        height = max(1, round(rgb.shape[0] * WIDTH / rgb.shape[1]))
        rgb = np.asarray(cv2.resize(rgb, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{jpeg_text(rgb)}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def listed(ended: Sequence[Ended]) -> str:
    """The first ROWS outcomes as HTML, and how many more there are."""
    more = len(ended) - ROWS
    rows = outcomes([_row(each) for each in ended[:ROWS]], "No outcome yet.")
    return rows + notice(f"and {more} more" * (more > 0))


def _row(ended: Ended) -> Row:
    age = "frame age unknown" if math.isinf(ended.age) else f"frame {ended.age:.2f} s old"
    if math.isnan(ended.age):
        age = ""
    took = f"after {1000 * ended.latency:.0f} ms"
    since = ago(time.monotonic() - ended.arrived)
    parts = (since, ended.detail, took, age, ended.camera, ended.instruction)
    colour = colour_of(ended.slot) if ended.outcome == "SEGMENTED" else None
    detail = " · ".join(part for part in parts if part)
    return Row(ended.slot + 1, ended.expression, ended.outcome, detail, colour)
