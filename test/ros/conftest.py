"""What the node's tests share."""

import pytest


@pytest.fixture
def start():
    """Starts nodes, each in its own process and with a client in this one; all end with the test."""
    from harness import FAKE, Client, NodeProcess  # needs ROS, which some tests do without

    opened = []

    def make(parameters=None, command=FAKE, delay=0.0, connect=True, remap=None, **client_options):
        opened.append(node := NodeProcess(command, parameters, delay, remap))
        opened.append(client := Client(**client_options))
        if connect:
            client.connect(node)
        return node, client

    yield make
    for thing in reversed(opened):
        thing.close()
