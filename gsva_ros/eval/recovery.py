"""What can still be read of an mcap file that was cut short, as by a crash or a full disk."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import CompressionType, Writer

# The last bytes of a complete file (mcap specification, "Magic").
MAGIC = b"\x89MCAP0\r\n"


def is_cut(path: Path) -> bool:
    """Whether a file lacks an mcap file's end."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - len(MAGIC)))
        return file.read() != MAGIC


def recover(source: Path, folder: Path) -> tuple[list[Path], list[str]]:
    """A bag whose cut mcap files are replaced by what is whole in them.

    Args:
        source: a bag's folder, or one mcap file. folder: an empty one, for the replacements.

    Returns:
        What to open instead of `source`, and for each replaced file from which byte on it is lost and
        where its topics end.
    """
    files = sorted(source.glob("*.mcap")) if source.is_dir() else [source]
    cut = [f for f in files if f.suffix == ".mcap" and is_cut(f)]
    has_metadata = source.is_dir() and (source / "metadata.yaml").exists()
    if not cut and (has_metadata or not source.is_dir()):
        return [source], []
    problems = []
    if source.is_dir() and not has_metadata:
        problems.append(f"{source}: no metadata.yaml; its mcap files are read by themselves")
    for file in files:
        if file in cut:
            problems.append(_copy_whole_records(file, folder / file.name))
        else:
            (folder / file.name).symlink_to(file.resolve())
    if has_metadata:
        shutil.copy(source / "metadata.yaml", folder)
        return [folder], problems
    return [folder / file.name for file in files], problems


def _copy_whole_records(source: Path, target: Path) -> str:
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    topics: dict[int, str] = {}
    counts: Counter[str] = Counter()
    ends: dict[str, int] = {}
    whole = 0
    reason = "the file ends inside a record"
    writer = Writer(str(target), compression=CompressionType.NONE)
    writer.start("ros2")

    def copy(record: McapRecord) -> None:
        if isinstance(record, Schema) and record.id not in schemas:
            schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
        elif isinstance(record, Channel) and record.id not in channels:
            topics[record.id] = record.topic
            channels[record.id] = writer.register_channel(
                record.topic, record.message_encoding, schemas[record.schema_id], record.metadata
            )
        elif isinstance(record, Message):
            times = record.log_time, record.publish_time
            channel = channels[record.channel_id]
            writer.add_message(channel, times[0], record.data, times[1], record.sequence)
            counts[topics[record.channel_id]] += 1
            ends[topics[record.channel_id]] = record.log_time

    with source.open("rb") as file:
        try:
            for record in StreamReader(file, emit_chunks=True).records:
                for each in breakup_chunk(record) if isinstance(record, Chunk) else [record]:
                    copy(each)
                whole = file.tell()
        except (McapError, ValueError, KeyError, OSError, RuntimeError) as error:
            if not isinstance(error, EndOfFile):
                reason = str(error) or type(error).__name__
    writer.finish()
    last = "; ".join(f"{t}: {n} messages, until {ends[t]} ns" for t, n in sorted(counts.items()))
    return f"{source}: lost from byte {whole} on ({reason}). Read before it: {last or 'nothing'}"
