"""A bag's messages as they were before rosbag2 compressed them."""

from __future__ import annotations

import zstandard

# RFC 8878, 3.1.1. CDR begins with its own header, whose first byte is 0: neither is taken for the other.
MAGIC = b"\x28\xb5\x2f\xfd"


def plain(raw: bytes) -> bytes:
    """A message (CDR), decompressed where it is compressed by itself.

    Only metadata.yaml says so of a bag: a single file of it, or one that a crash left without, does not.

    Raises:
        zstandard.ZstdError: it is compressed, and damaged.
    """
    return zstandard.decompress(raw) if raw[: len(MAGIC)] == MAGIC else raw
