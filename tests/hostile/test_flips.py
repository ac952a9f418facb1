"""Every changed byte and every truncation of a file of three records, plain and compressed; many through the command.

A change of a plain file is always found. A compressed file has bits on which nothing depends: its header's time,
mark for text, level and system, the name of the file, bits that deflate does not use, and references that lead to equal
bytes. Whatever is not found must be of that kind: the decompressed bytes are the same, and so is the output.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
from itertools import accumulate

import pytest
from conftest import digests, encode_record
from corpus import RECORDS, gz, make_source, put, tfrecord

from converters.errors import DataError
from converters.formats.tfrecord.compression import DecompressedStream
from converters.formats.tfrecord.framing import read_frames

TEXT, HINTS = 3, range(4, 10)  # in a header of gzip; the hints are the time, the level and the system
# The command takes some milliseconds. Here it gets all bytes near the edges of records and every fifth between, each
# changed in one of nine ways in turn; by hand, all bytes in all nine: EVERY_FLIP=1 pytest tests/hostile/test_flips.py
WAYS = [1, 2, 4, 8, 16, 32, 64, 128, 0xFF]
EVERY_FLIP = bool(os.environ.get("EVERY_FLIP"))

NEAR = 20  # more than the frame of a record, a header of gzip and what ends it
EDGES = list(accumulate((len(encode_record(record)) + 16 for record in RECORDS), initial=0))
"""Where the records of the plain file begin, and where it ends."""

KINDS = ["plain", "gzip", "gzip with a name", "zlib"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> bytes:
    return tfrecord(make_source(tmp_path_factory.mktemp("plain") / "source")).read_bytes()


@pytest.fixture
def stored(plain, kind) -> bytes:
    """The file's bytes, as each kind of writer stores them."""
    if kind == "plain":
        return plain
    if kind == "zlib":
        return gz(plain, 6, 15)
    if kind == "gzip":  # as TensorFlow writes it
        return gz(plain)
    file = io.BytesIO()
    with gzip.GzipFile("t.tfrecords", "wb", fileobj=file, mtime=1_700_000_000) as stream:
        stream.write(plain)
    return file.getvalue()


@pytest.fixture
def convert(tmp_path, kfer_convert):
    """Converts a file of the given bytes with the command, in this process; there is neither index nor count."""
    source = make_source(tmp_path / "source")
    put(source, b"")
    to = tmp_path / "to"
    to.mkdir()

    def run(data: bytes):
        tfrecord(source).write_bytes(data)
        return kfer_convert(source, "--to", "parquet", "--out", to / "out")

    run.to = to
    return run


def refused(convert, data: bytes) -> None:
    done = convert(data)
    assert done.status == 1, done
    assert "t.tfrecords" in done.err
    assert "Traceback" not in done.err
    assert list(convert.to.iterdir()) == []


def flipped(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def positions(data: bytes, kind: str) -> list[int]:
    """The bytes that the command meets changed, or gone with all that follow."""
    edges = EDGES if kind == "plain" else [0, len(data)]
    return [
        position
        for position in range(len(data))
        if EVERY_FLIP or position % 5 == 0 or any(abs(position - edge) <= NEAR for edge in edges)
    ]


def ways(position: int) -> list[int]:
    return WAYS if EVERY_FLIP else [WAYS[position % len(WAYS)]]


def decompressed(data: bytes, kind: str) -> bytes | None:
    """What this program makes of the bytes; None where it finds them damaged."""
    if kind == "plain" or (kind.startswith("gzip") and not data.startswith(b"\x1f\x8b")):
        stream = io.BytesIO(data)
    else:
        stream = DecompressedStream(io.BytesIO(data), "zlib" if kind == "zlib" else "gzip", "file")
    try:
        return b"".join(bytes(frames.buffer) for frames in read_frames(stream, "file"))
    except DataError:
        return None


@pytest.mark.parametrize("kind", ["plain"])
def test_a_changed_byte_ends_with_1(convert, stored, kind):
    tried = 0
    for position in positions(stored, kind):
        for mask in ways(position):
            refused(convert, flipped(stored, position, mask))
            tried += 1
    print(f"plain: {tried} changes through the command, all refused")


@pytest.mark.parametrize("kind", KINDS if EVERY_FLIP else KINDS[:2])
def test_a_truncation_ends_with_1(convert, stored, kind):
    edges = EDGES[1:-1] if kind == "plain" else []
    ends = [end for end in positions(stored, kind) if end not in edges]
    for end in ends:
        refused(convert, stored[:end])
    print(f"{kind}: {len(ends)} truncations through the command, all refused")
    for number, end in enumerate(edges, 1):
        done = convert(stored[:end])
        assert done.status == 0, done
        assert "unverified" in done.out
        assert f"{number} found; with neither a published count nor an index" in done.out
        shutil.rmtree(convert.to / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_found(stored, kind):
    for end in range(1, len(stored)):
        at_an_edge = kind == "plain" and end in EDGES
        assert (decompressed(stored[:end], kind) is not None) == at_an_edge, end


@pytest.mark.parametrize("kind", KINDS)
def test_every_change_of_a_byte_is_found_or_changes_nothing(stored, plain, kind):
    """All 255 values of every byte; what is not found decompresses to the same."""
    assert decompressed(stored, kind) == plain
    kept: dict[int, list[int]] = {}
    for position in range(len(stored)):
        masks = range(1, 256) if kind != "plain" else [1 << bit for bit in range(8)]
        for mask in masks:
            found = decompressed(flipped(stored, position, mask), kind)
            if found is not None:
                assert found == plain
                kept.setdefault(position, []).append(mask)
    print(
        f"{kind}: {len(stored)} bytes, {sum(map(len, kept.values()))} changes without effect at {list(kept)}"
    )
    if kind == "plain":
        assert kept == {}
        return
    if kind == "zlib":
        assert not any(mask in (1, 2, 4, 8, 16, 32, 64, 128) for mask in kept.pop(1))  # the level, a hint
    else:
        for position in HINTS:
            assert len(kept.pop(position)) == 255
        taken_for_a_comment = [0x18, 0x19] if kind == "gzip with a name" else []
        assert kept.pop(TEXT) == [1, *taken_for_a_comment]
    if kind == "gzip with a name":
        for position in range(10, 10 + len("t.tfrecords")):
            assert len(kept.pop(position)) == 254  # all but a NUL
    # Deflate has no check of its own; what is left is another encoding of the same bytes, and there is little.
    assert sum(map(len, kept.values())) < len(stored) / 10


@pytest.mark.parametrize("kind", KINDS[1:] if EVERY_FLIP else KINDS[1:2])
def test_a_changed_byte_of_a_compressed_file_ends_with_1_or_changes_nothing(convert, stored, plain, kind):
    assert convert(plain).status == 0
    expected = digests(convert.to / "out" / "c")
    shutil.rmtree(convert.to / "out")
    tried = same = 0
    for position in positions(stored, kind):
        for mask in ways(position):
            data = flipped(stored, position, mask)
            tried += 1
            if decompressed(data, kind) is None:
                refused(convert, data)
            else:
                assert convert(data).status == 0
                assert digests(convert.to / "out" / "c") == expected
                shutil.rmtree(convert.to / "out")
                same += 1
    print(f"{kind}: {tried} changes through the command, {same} without effect, all others refused")


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_the_console_script_does_the_same(tmp_path, stored, kind):
    """A sample of the above, each in an interpreter of its own."""
    source = make_source(tmp_path / "source")
    put(source, b"")
    (tmp_path / "to").mkdir()
    cases = [flipped(stored, position, 0x10) for position in (0, len(stored) // 2, len(stored) - 1)]
    for data in [*cases, stored[:-1]]:
        tfrecord(source).write_bytes(data)
        command = [
            sys.executable,
            "-m",
            "converters",
            source,
            "--to",
            "parquet",
            "--out",
            tmp_path / "to" / "out",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "t.tfrecords" in done.stderr
        assert "Traceback" not in done.stderr
        assert list((tmp_path / "to").iterdir()) == []
