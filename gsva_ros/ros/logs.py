"""Routes Python's logging through ROS's, so that the console has one style and /rosout has every record."""

from __future__ import annotations

import logging
from typing import Any

SHOWN = 80  # maximum characters of a client's text in logs and diagnostics


class RosHandler(logging.Handler):
    """Forwards records to an rclpy logger.

    Args:
        logger: the node's own, or one from `rclpy.logging.get_logger`.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record at its severity; its traceback follows the text."""
        text = self.format(record)
        # One call site per severity: rclpy rejects a call site that changes its severity.
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
    """A client's text, quoted and shortened for a log line."""
    return repr(words) if len(words) <= SHOWN else f"{words[:SHOWN]!r}… ({len(words)} characters)"
