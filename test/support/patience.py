"""Waiting for what another thread or process does."""

import time

PATIENCE = 120.0  # seconds, which only a test that fails waits for


def wait(condition, told=lambda: ""):
    """Wait until something is so; fail with what is told if it never is."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.005)
