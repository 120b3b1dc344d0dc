"""A node beside the GSVA node, for topics with hundreds of messages per second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter


class Beside:
    """A node with an executor and a thread of its own.

    Every wait of the GSVA node's executor covers all of its endpoints, which at hundreds of messages per
    second takes a CPU core, and delays what they bring.

    Args:
        node: the GSVA node. what: what is received, for names: `gsva_tf`, and the thread `gsva-tf`.
        topics: what is subscribed to; remapped as in the GSVA node.
        pause: seconds in which nothing is read after each message.
    """

    def __init__(self, node: Any, what: str, topics: Sequence[str], pause: float = 0.0) -> None:
        # The process's arguments are for the GSVA node, some of them by its name.
        remaps = ["--ros-args"]
        for topic in topics:
            remaps += ["-r", f"{topic}:={node.resolve_topic_name(topic)}"]
        self.node = rclpy.create_node(
            f"{node.get_name()}_{what}",
            namespace=node.get_namespace(),
            context=node.context,
            use_global_arguments=False,
            cli_args=remaps,
            parameter_overrides=[Parameter("start_type_description_service", value=False)],
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._what, self._pause = what, pause
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(self.node)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"gsva-{what}", daemon=True)

    def start(self) -> None:
        """Receive from now on, on the subscriptions that the node has."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and destroy the node."""
        self._closed.set()
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def _run(self) -> None:
        while not self._closed.wait(self._pause) and self.node.context.ok():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return
            except Exception:  # one bad message must not stop all others
                logging.getLogger("gsva").exception("%s: a message failed; continuing", self._what)
