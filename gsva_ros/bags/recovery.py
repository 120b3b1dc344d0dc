"""Recovers what is readable in an mcap file that was truncated or damaged, as by a crash or a bad disk.

Also handles files that rosbags does not read to the end, such as those without an index.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import zlib
from collections import Counter
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

import zstandard
from mcap.reader import FOOTER_SIZE, SeekingReader
from mcap.records import Channel, Chunk, ChunkIndex, Footer, Header, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import Writer
from rosbags.typesys import get_types_from_idl, get_types_from_msg

from ..errors import one_line

# The last bytes of a complete file (mcap specification, "Magic").
MAGIC = b"\x89MCAP0\r\n"
# The size of the checksum that a file's footer ends with (mcap specification, "Footer").
CRC_SIZE = 4
# How much of a file is held in memory at once, bytes.
BLOCK = 2**20
# The largest chunk that is unpacked, bytes: some kilobytes may unpack to more than fits in memory. Writers
# close a chunk at about a megabyte, or after a message that is larger.
LARGEST_CHUNK = 2**30
# The suffix that rosbag2 appends to the name of a compressed file.
PACKED = ".zstd"
# How ROS 2's messages and their definitions are encoded, by mcap's registry.
CDR, MSG, IDL = "cdr", "ros2msg", ("ros2idl", "omgidl")
# The profile of files that rosbags reads. Writers other than rosbag2 often give none.
PROFILE = "ros2"


def is_full(error: BaseException) -> bool:
    """Whether an error says that there is no space for a copy."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_cut(path: Path) -> bool:
    """Whether a file lacks the closing magic bytes of mcap."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - len(MAGIC)))
        return file.read() != MAGIC


def unfit(path: Path) -> str:
    """Why a file has to be copied before rosbags can read all of it; "": it need not be."""
    if is_cut(path):
        return "damaged"
    chunks = 0  # number of chunks with messages
    index: list[bool] = []  # for each indexed chunk, whether the index lists its topics
    ordered, at = True, 0  # whether messages are in order of time; time of the last one
    foreign, profile = False, PROFILE
    try:
        with path.open("rb") as file:
            for record in StreamReader(file, emit_chunks=True, validate_crcs=True).records:
                if isinstance(record, ChunkIndex):
                    index.append(bool(record.message_index_offsets))
                if isinstance(record, Header):
                    profile = record.profile
                parts = _unchunked(record)
                foreign = foreign or any(map(is_foreign, parts))
                times = [each.log_time for each in parts if isinstance(each, Message)]
                chunks += bool(times) and isinstance(record, Chunk)
                ordered = ordered and times == sorted(times) and (not times or times[0] >= at)
                at = times[-1] if times else at
            if has_damaged_index(file):
                return "its index is damaged"
    except Exception:  # the library raises whatever struct, lz4 and zstd raise on damaged bytes
        return "damaged"
    # Without an index, rosbags stops at the first message that is older than the previous one; with an
    # index that does not list the chunks' topics, it reads no message.
    if (sum(index) != chunks) if index else not ordered:
        return "its index does not say where its messages are"
    if foreign:
        return "it contains other than ROS 2 messages, or unreadable definitions"
    return "" if profile == PROFILE else f"its profile is {profile!r}, not {PROFILE!r}"


def _unchunked(record: McapRecord) -> list[McapRecord]:
    """A chunk's records, or the record itself; struct, lz4 and zstd raise anything on damaged bytes."""
    if not isinstance(record, Chunk):
        return [record]
    size = record.uncompressed_size
    # A zstd frame unpacks to what its own header says, whatever the record does.
    if record.compression == "zstd":
        size = max(size, zstandard.frame_content_size(record.data))
    if size > LARGEST_CHUNK:
        raise ValueError(
            f"unpacked, it has {size} bytes, at most {LARGEST_CHUNK}: write smaller chunks"
        )
    return breakup_chunk(record, validate_crc=True)


def has_damaged_index(file: IO[bytes]) -> bool:
    """Whether what a file repeats and indexes at its end differs from its checksum, if it has one.

    Raises:
        Exception: the file ends before its footer does; whatever the library and struct raise.
    """
    file.seek(-FOOTER_SIZE - len(MAGIC), os.SEEK_END)
    footer = next(StreamReader(file, skip_magic=True).records)
    if not isinstance(footer, Footer):
        return True
    if not footer.summary_start or not footer.summary_crc:
        return False
    stop = file.seek(-CRC_SIZE - len(MAGIC), os.SEEK_END)
    return _checksum(file, footer.summary_start, stop) != footer.summary_crc


def _checksum(file: IO[bytes], start: int, stop: int) -> int:
    """The CRC-32 of a part of a file, given by its first byte and the one after its last."""
    file.seek(start)
    crc = 0
    for at in range(start, stop, BLOCK):
        crc = zlib.crc32(file.read(min(BLOCK, stop - at)), crc)
    return crc


def is_foreign(record: McapRecord) -> bool:
    """Whether a record is a topic or definition that rosbags cannot read, so that it rejects the file."""
    if isinstance(record, Channel):
        return record.message_encoding != CDR
    if isinstance(record, Schema):
        return not is_legible(record.name, record.encoding, record.data)
    return False


@lru_cache(maxsize=1000)
def is_legible(name: str, encoding: str, definition: bytes) -> bool:
    """Whether rosbags can read a message type's definition, or there is none."""
    try:
        text = definition.decode()
        if encoding == MSG:
            get_types_from_msg(text, name)
        elif encoding in IDL:
            # Several definitions in sequence, each preceded by a line that names it.
            parts = re.split(rf"^{'=' * 80}\nIDL: .*\n", text, flags=re.MULTILINE)
            for part in filter(str.strip, parts):
                get_types_from_idl(part)
    except Exception:  # the parsers raise any exception
        return False
    return encoding in (MSG, *IDL, "")


def _plain(name: str) -> str:
    """A name without what has a meaning in the URI by which rosbags opens sqlite3 files."""
    return re.sub("[%?#]", "_", name)


def bag_files(folder: Path) -> list[Path]:
    """The files of a bag that contain messages, sorted by name."""
    files = set()
    for file in folder.iterdir():
        whole = file.with_suffix("") if file.suffix == PACKED else file
        # A crash during compression leaves the uncompressed file in place.
        if whole.suffix in (".mcap", ".db3") and (whole == file or not whole.exists()):
            files.add(file)
    return sorted(files)


def unpacked(file: Path, folder: Path) -> Path:
    """A file without rosbag2's file compression; of a truncated one, what comes before the cut."""
    if file.suffix != PACKED:
        return file
    target = folder / "unpacked" / _plain(file.stem)
    target.parent.mkdir(exist_ok=True)
    with file.open("rb") as packed, target.open("wb") as whole:
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        with suppress(zstandard.ZstdError):  # what is missing is reported for the resulting file
            shutil.copyfileobj(reader, whole)
    return target


def recover(source: Path, folder: Path, described: bool = True) -> tuple[list[Path], list[str]]:
    """Replace the `unfit` mcap files of a bag, and sqlite3 files with a log, by copies that can be read.

    If metadata.yaml is missing, its files (mcap or sqlite3) are read individually, as are those that need
    another name. Of several, sqlite3 files that cannot be opened are left out.

    Args:
        source: a bag's folder, or one of its files. folder: an empty folder for the replacements.
        described: use metadata.yaml if it exists.

    Returns:
        The paths to open instead of `source`, and for each replaced file why, from which byte on it is lost
        and where its topics end.

    Raises:
        OSError: a file cannot be read, or its copy not written (`is_full`).
    """
    files = bag_files(source) if source.is_dir() else [source]
    has_metadata = source.is_dir() and (source / "metadata.yaml").exists()
    renamed = any(_plain(str(file)) != str(file) for file in files)
    described = described and has_metadata and not renamed
    problems = []
    if source.is_dir() and not has_metadata:
        problems.append(f"{source}: no metadata.yaml; its files are read individually")
    named = {file: file for file in files}  # what a file is called in `problems`
    if not described:
        named = {unpacked(file, folder): file for file in files}
        files = list(named)
        lost = {f: why for f in files if f.suffix == ".db3" and (why := _unopened(f))}
        if len(lost) < len(files):
            files = [file for file in files if file not in lost]
            problems += [f"{named[file]}: left out: {why}" for file, why in lost.items()]
    cut = {f: why for f in files if f.suffix == ".mcap" and (why := unfit(f))}
    logged = [file for file in files if file.suffix == ".db3" and _has_log(file)]
    # rosbags takes any path with this suffix for a ROS 1 bag.
    if not (cut or logged or renamed or source.suffix == ".bag") and (
        described or not source.is_dir()
    ):
        return [source] if described else files, problems
    targets = [folder / _plain(file.name) for file in files]
    for file, target in zip(files, targets, strict=True):
        if file in cut:
            problems.append(f"{named[file]}: {_copy_whole_records(file, target, cut[file])}")
        elif file in logged:
            problems.append(f"{named[file]}: {_copy_with_log(file, target)}")
        else:
            target.symlink_to(file.resolve())
    if described:
        shutil.copy(source / "metadata.yaml", folder)
        return [folder], problems
    return targets, problems


def _unopened(file: Path) -> str:
    """Why an sqlite3 file cannot be opened ("": it can, or will be with its log)."""
    if _has_log(file):
        return ""
    # As rosbags opens it, which reads all of the tables, and without a trace in its folder.
    address = f"{file.absolute().as_uri()}?immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as database:
            database.execute(
                "SELECT COUNT(m.id), MIN(m.timestamp), MAX(m.timestamp) FROM topics t LEFT JOIN messages m "
                "ON t.id = m.topic_id"
            ).fetchone()
            database.execute("SELECT MIN(timestamp), MAX(timestamp) FROM messages").fetchone()
    except sqlite3.Error as error:
        return one_line(error)
    return ""


def _log(file: Path) -> Path:
    """The write-ahead log that a crash leaves next to an sqlite3 file, with the newest messages."""
    return file.with_name(f"{file.name}-wal")


def _has_log(file: Path) -> bool:
    return _log(file).exists() and _log(file).stat().st_size > 0


def _copy_with_log(source: Path, target: Path) -> str:
    """Copy an sqlite3 file with its log, which rosbags does not read; returns what was done."""
    shutil.copy(source, target)
    shutil.copy(_log(source), _log(target))
    try:
        with closing(sqlite3.connect(target)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        return f"its log cannot be read: {one_line(error)}"
    return f"the recording was not closed; its log ({_log(source).name}) is read, too"


def _copy_whole_records(source: Path, target: Path, why: str) -> str:
    """Copy a file's intact records; returns what was lost, or why it was copied, and what was read."""
    copy = _Copy(target)
    whole = 0
    damaged: list[str] = []
    reason = ""
    with source.open("rb") as file:
        copy.define(file)
        file.seek(0)
        try:
            for record in StreamReader(file, emit_chunks=True).records:
                if problem := copy.take(record):  # this one is lost, the next may be intact
                    damaged.append(f"{type(record).__name__} at byte {whole}: {problem}")
                whole = file.tell()
        except Exception as error:  # the framing itself: the start of the next record is unknown
            if is_full(error):
                raise
            reason = one_line(error) if file.read(1) else "the file ends inside a record"
    lost = [f"lost from byte {whole} on ({reason})"] if reason else []
    lost += [f"{len(damaged)} damaged records, the first: {damaged[0]}"] if damaged else []
    lost += [f"{copy.unknown} messages whose topic's record is damaged"] if copy.unknown else []
    return f"{'; '.join(lost) or why}. Read: {copy.finish() or 'nothing'}"


class _Copy:
    """A new mcap file for records of another one.

    Attributes:
        unknown: how many messages are left out, because no record defines their channels.
    """

    def __init__(self, target: Path) -> None:
        self._writer = Writer(str(target))
        self._writer.start(PROFILE)
        # By ids in the other file; 0: a channel without a schema.
        self._schemas: dict[int, int] = {0: 0}
        self._channels: dict[int, int] = {}
        self._topics: dict[int, str] = {}
        self._counts: Counter[str] = Counter()
        self._ends: dict[str, int] = {}  # nanoseconds, by topic
        self.unknown = 0

    def define(self, file: IO[bytes]) -> None:
        """Take the definitions that a file repeats at its end: the chunk with the others may be damaged."""
        with suppress(Exception):  # the library raises whatever struct raises; there may be none
            if has_damaged_index(file):
                return
            file.seek(0)
            summary = SeekingReader(file, validate_crcs=True).get_summary()
            for each in (*summary.schemas.values(), *summary.channels.values()) if summary else ():
                self.take(each)

    def take(self, record: McapRecord) -> str:
        """Copy a record, or a chunk's records; returns why one cannot be read to its end ("": it can).

        Raises:
            OSError: there is no space for it (`is_full`).
        """
        try:
            for each in _unchunked(record):
                self._add(each)
        except Exception as error:  # the library raises whatever struct, lz4 and zstd raise
            if is_full(error):
                raise
            return one_line(error)
        return ""

    def finish(self) -> str:
        """Close the file; returns the number of messages of each topic, and the time of the last one."""
        self._writer.finish()
        return "; ".join(
            f"{topic}: {count} messages, until {self._ends[topic]} ns"
            for topic, count in sorted(self._counts.items())
        )

    def _add(self, record: McapRecord) -> None:
        if isinstance(record, Schema) and record.id not in self._schemas:
            known = ("", b"") if is_foreign(record) else (record.encoding, record.data)
            self._schemas[record.id] = self._writer.register_schema(record.name, *known)
        elif isinstance(record, Channel) and is_foreign(record):
            self._channels[record.id] = 0  # left out
        elif isinstance(record, Channel) and record.id not in self._channels:
            self._topics[record.id] = record.topic
            self._channels[record.id] = self._writer.register_channel(
                record.topic,
                record.message_encoding,
                self._schemas[record.schema_id],
                record.metadata,
            )
        elif isinstance(record, Message):
            at, published = record.log_time, record.publish_time
            channel = self._channels.get(record.channel_id)
            self.unknown += channel is None
            if not channel:
                return
            self._writer.add_message(channel, at, record.data, published, record.sequence)
            topic = self._topics[record.channel_id]
            self._counts[topic] += 1
            self._ends[topic] = at
