"""Python's logging through ROS's, so that the console has one style and /rosout has all of it."""

from __future__ import annotations

import logging
from typing import Any

SHOWN = 80  # characters of a client's words in logs and diagnostics


class RosHandler(logging.Handler):
    """Hands records to a rclpy logger.

    Args:
        logger: rclpy's; the node's own, or `rclpy.logging.get_logger`'s.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record at its severity; its traceback follows the text."""
        text = self.format(record)
        # A line for each: rclpy refuses another severity from a line that has logged already.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def through_ros(logger: Any) -> None:
    """Send every record of INFO and above to `logger`, and nowhere else."""
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RosHandler(logger)], force=True
    )


def short(words: str) -> str:
    """A client's words for a line of a log."""
    return repr(words) if len(words) <= SHOWN else f"{words[:SHOWN]!r}… ({len(words)} characters)"
