"""A bag's messages without rosbag2's compression."""

from __future__ import annotations

import zstandard

# RFC 8878, 3.1.1. CDR begins with a header whose first byte is 0, so the two cannot be confused.
MAGIC = b"\x28\xb5\x2f\xfd"


def plain(raw: bytes) -> bytes:
    """A message (CDR), decompressed if it was compressed individually.

    Only metadata.yaml records the compression: it is missing for a single file, or after a crash.

    Raises:
        zstandard.ZstdError: it is compressed, and damaged.
    """
    return zstandard.decompress(raw) if raw[: len(MAGIC)] == MAGIC else raw
