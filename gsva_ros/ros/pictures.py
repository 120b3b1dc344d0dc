"""Hands answers to the process that draws and publishes their images (`picture_process.py`).

rclpy's `publish` holds Python's interpreter lock until the message is sent: one viewer of a raw overlay at
the end of a slow network would stop this whole process for seconds at a time.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from gsva_ros.errors import one_line
from gsva_ros.serving.requests import DECIDED, Result

from .picture_process import JPEG_SIDE, TOPICS, Setup, Shown

#: Answers that wait to be drawn, one per instruction and camera; the oldest is dropped.
WAITING = 8
#: At the end: seconds for the last pictures to be sent.
GRACE = 1.0
#: Seconds between two starts of the other process, if it ends by itself.
AGAIN = 2.0
#: The other process searches modules where this one does, and not in the working directory.
PROGRAM = "import sys; sys.path[:] = {!r}; from gsva_ros.ros.picture_process import main; main()"


class Pictures:
    """The topics `overlay`, `overlay/compressed` and `label_image`; little work while nobody subscribes.

    If pictures are sent more slowly than answers are given, the newest answer of each instruction is shown.

    Args:
        node: the topics have its namespace and remappings.
        value: returns a parameter's value by name.
        warn: called with a problem's kind and what could not be shown.
        arguments: the process's command line.
    """

    def __init__(
        self,
        node: Any,
        value: Callable[[str], Any],
        warn: Callable[[str, str], None],
        arguments: Sequence[str] = (),
    ) -> None:
        self._node, self._value, self._warn = node, value, warn
        self._setup = Setup(
            f"{node.get_name()}_pictures",
            node.get_namespace(),
            node.context.get_domain_id(),
            {topic: node.resolve_topic_name(topic) for topic in TOPICS},
            list(arguments),
        )
        self._changed = threading.Condition()
        self._waiting: dict[tuple[str, str], Result] = {}
        self._closed = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._run, name="gsva-pictures", daemon=True)
        self._thread.start()

    def publish(self, result: Result) -> None:
        """Show an answer, which is about a frame and has its image."""
        assert result.frame is not None
        if not self._heard():
            return
        with self._changed:
            key = result.request.id, result.frame.topic
            self._waiting.pop(key, None)  # the newest goes to the end
            if len(self._waiting) == WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[key] = result
            self._changed.notify_all()

    def close(self) -> None:
        """Send what waits, for at most GRACE seconds, and end the other process."""
        end = time.monotonic() + GRACE
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join(GRACE)
        try:
            if self._thread.is_alive():  # a slow network holds up the pictures
                raise TimeoutError
            self._process.communicate(timeout=max(0.1, end - time.monotonic()))
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(sys.path)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process alone, which still sends answers
        )
        self._write(process, self._setup)
        return process

    def _heard(self) -> list[str]:
        """The topics that have subscribers."""
        names = self._setup.topics
        return [topic for topic in TOPICS if self._node.count_subscribers(names[topic]) > 0]

    def _run(self) -> None:
        while (result := self._next()) is not None:
            try:
                self._show(result)
            except Exception as error:  # the thread must outlive one bad picture
                if not self._closed:
                    self._warn("pictures", f"overlay: {type(error).__name__}: {one_line(error)}")

    def _next(self) -> Result | None:
        """Wait for an answer to show; None: closed, and none is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None

    def _show(self, result: Result) -> None:
        assert result.rgb is not None
        assert result.frame is not None
        heard, (height, width) = self._heard(), result.rgb.shape[:2]
        if max(height, width) > JPEG_SIDE and "overlay/compressed" in heard:
            self._warn(
                "overlay",
                f"overlay/compressed: {width}x{height} is too large for a JPEG, whose sides have at most "
                f"{JPEG_SIDE} pixels: subscribe to overlay instead",
            )
        decisions = [d for d in result.decisions if d.outcome in DECIDED]
        opacity = float(self._value("overlay_opacity"))
        shown = Shown(heard, result.rgb, result.frame.header, decisions, opacity)
        self._send(shown)

    def _send(self, shown: Shown) -> None:
        """Write to the other process. One that has ended is started again, after AGAIN seconds."""
        try:
            self._write(self._process, shown)
        except BrokenPipeError:
            status = self._process.wait()
            if self._closed or time.monotonic() < self._started + AGAIN:
                return
            self._warn(
                "pictures", f"overlay: its process ended with status {status}: starting it again"
            )
            self._process = self._start()
            self._write(self._process, shown)

    @staticmethod
    def _write(process: subprocess.Popen[bytes], what: Setup | Shown) -> None:
        assert process.stdin is not None
        pickle.dump(what, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
