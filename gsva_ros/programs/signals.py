"""Signals that end a program."""

from __future__ import annotations

import signal


def end_alike() -> None:
    """Make SIGINT, SIGTERM and SIGHUP end this program like Ctrl-C, so that it cleans up.

    SIGHUP stays ignored if it is, as under nohup. Call this in the main thread.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
