"""The node's process: executor, signal handling, and a shutdown that first sends every answer."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
import rclpy.logging
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from gsva_ros.errors import InputError

from .logs import through_ros
from .node import GsvaNode, Loader, load_engine
from .start import init

#: Callbacks that run in parallel: cameras, instructions, transitions, parameters, timer.
THREADS = 6
STARTING = "stopped during start-up"


class Executor(MultiThreadedExecutor):
    """Keeps each waiting callback only once.

    rclpy's adds a callback that awaits a future to its list again at every wait, and reads the whole
    list each time: calls that wait for a slow model would slow the node down more and more.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback that is ready; raise what a finished one has raised."""
        try:
            super().spin_once(timeout_sec)
        finally:
            kept = vars(self).get("_futures", [])  # not every release of rclpy has it
            kept[:] = dict.fromkeys(kept)


class Stop:
    """Whether the process is to stop: SIGINT, SIGTERM and SIGHUP say so, and interrupt the start-up.

    SIGHUP stays ignored if it is, as under nohup.
    """

    def __init__(self) -> None:
        self._asked, self._interrupts = threading.Event(), False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked.is_set()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise KeyboardInterrupt in the block for a signal, also for one that came before."""
        try:
            self._interrupts = True
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def _on_signal(self, *_: object) -> None:
        self._asked.set()
        if self._interrupts:
            self._interrupts = False
            raise KeyboardInterrupt


def run(argv: Sequence[str] | None = None, loader: Loader = load_engine) -> int:
    """Run the node until SIGINT, SIGTERM or SIGHUP, or until it fails; returns the exit status."""
    argv = list(sys.argv if argv is None else argv)
    # Own signal handlers: rclpy's would shut the context down before the last answers are sent.
    try:
        init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except InputError as error:
        print(f"gsva_node: {error}", file=sys.stderr)
        return 1
    through_ros(rclpy.logging.get_logger("gsva"))
    stop = Stop()
    try:
        node = GsvaNode(loader, argv)
    except Exception as error:
        logging.getLogger("gsva").error("cannot start: %s: %s", type(error).__name__, error)
        rclpy.try_shutdown()
        return 1
    through_ros(node.get_logger())
    executor = Executor(num_threads=THREADS)
    executor.add_node(node)
    try:
        if not _start(node, stop):
            return 1
        _spin(node, executor, stop)
    except KeyboardInterrupt:
        node.get_logger().info(STARTING)
    finally:
        _end(node, executor)
    return 1 if node.failure else 0


def _start(node: GsvaNode, stop: Stop) -> bool:
    """Configure and activate the node, unless a lifecycle manager does; False if it fails."""
    if not node.get_parameter("autostart").value:
        return True
    steps = (node.trigger_configure, node.trigger_activate)
    with stop.interrupting():  # a model may take minutes to load
        return all(step() is TransitionCallbackReturn.SUCCESS for step in steps)


def _spin(node: GsvaNode, executor: Executor, stop: Stop) -> None:
    """Run callbacks until the process is to stop or the node fails."""
    while not stop.asked and rclpy.ok():
        _spin_once(node, executor, 0.2)
        if node.failure:
            node.get_logger().fatal(f"{node.failure}; exiting")
            break
    if node.loading:
        node.get_logger().info(STARTING)


def _end(node: GsvaNode, executor: Executor) -> None:
    """Send every answer, then destroy the node."""
    for step in (node.close, node.settle):
        spin_beside(node, executor, step)
    if node.loading:  # in one of the executor's threads, which its shutdown would wait for
        rclpy.try_shutdown()
        os._exit(0)
    executor.shutdown(timeout_sec=1.0)
    node.destroy_node()
    rclpy.try_shutdown()


def spin_beside(node: GsvaNode, executor: Executor, step: Callable[[], None]) -> None:
    """Run callbacks while `step` runs in a thread of its own, so that results leave at once.

    Whoever has started this process may not wait for the model.
    """
    running = threading.Thread(target=step, name="gsva-close")
    running.start()
    while running.is_alive():
        _spin_once(node, executor, 0.05)
        running.join(0.001)


def _spin_once(node: GsvaNode, executor: Executor, seconds: float) -> None:
    try:
        executor.spin_once(timeout_sec=seconds)
    except ExternalShutdownException:
        return
    except InvalidHandle:  # Humble takes from endpoints found ready even if destroyed since
        logging.getLogger("gsva").debug("data arrived for a destroyed endpoint")
    except Exception:  # one bad message must not stop the answers to all others
        logging.getLogger("gsva").exception("a callback failed; continuing")
    node.disposal.run()


def main() -> int:
    """Entry point of `ros2 run gsva_ros gsva_node`."""
    return run(sys.argv)
