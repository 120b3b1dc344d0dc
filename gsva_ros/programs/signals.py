"""What ends a program."""

from __future__ import annotations

import signal


def end_alike() -> None:
    """Have SIGINT, SIGTERM and SIGHUP end this program as Ctrl-C does, with what it does at its end.

    SIGHUP stays ignored where it is, as under nohup. To be called in the main thread.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
