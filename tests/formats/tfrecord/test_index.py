"""DALI's index: held against the file, never trusted over it."""

import io
import os
import re

import pytest

from converters.errors import DataError
from converters.formats.tfrecord.framing import frame, read_frames
from converters.formats.tfrecord.index import IndexChecker

FILE = b"".join(frame(bytes(size)) for size in (5, 0, 40))
LINES = ["0 21", "21 16", "37 56"]
INDEX = "".join(f"{line}\n" for line in LINES)


def check(path, text, *, first=0, chunk_bytes=4096, data=FILE):
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    offset = [0, 21, 37, 93][first]
    records = first
    with IndexChecker(path, "folder/train.tfrecords", first) as checker:
        for frames in read_frames(
            io.BytesIO(data[offset:]), "x", first_record=first, first_offset=offset, chunk_bytes=chunk_bytes
        ):
            checker.check(frames)
            records += len(frames.starts)
        checker.finish(records)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train.idx"


@pytest.mark.parametrize("chunk_bytes", [1, 22, 4096])
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("text", [INDEX, INDEX[:-1]], ids=["newline", "no last newline"])
def test_an_index_that_agrees(path, text, first, chunk_bytes):
    check(path, text, first=first, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("delta", [-1, 1])
def test_every_wrong_number_is_found(path, row, part, delta):
    numbers = [[int(number) for number in line.split()] for line in LINES]
    numbers[row][part] += delta
    with pytest.raises(DataError) as caught:
        check(path, "".join(f"{offset} {size}\n" for offset, size in numbers))
    assert (caught.value.at.path, caught.value.at.record) == (str(path), row)
    if numbers[row][part] >= 0:
        assert re.search(rf"\b{numbers[row][part]}\b", str(caught.value))
        assert "train.tfrecords" in str(caught.value)


@pytest.mark.parametrize("lines", range(3))
def test_an_index_that_is_too_short(path, lines):
    with pytest.raises(DataError, match="ends after") as caught:
        check(path, "".join(f"{line}\n" for line in LINES[:lines]))
    assert caught.value.at.record == lines


def test_an_index_that_goes_on(path):
    with pytest.raises(DataError, match="goes on") as caught:
        check(path, INDEX + "93 20\n")
    assert caught.value.at.record == 3
    with pytest.raises(DataError):
        check(path, INDEX + "\n")
    with pytest.raises(DataError, match="goes on"):
        check(path, INDEX, data=FILE[:37])


@pytest.mark.parametrize(
    "line",
    ["", " 21 16", "21  16", "21 16 ", "21\t16", "21", "21 16 0", "-21 16", "+21 16", "21 1_6", "0x15 16", "21.0 16",
     "21 16\r", "２１ 16", "a b", "1" * 200, "21 " + "0" * 200 + "16", "\0", "21 99999999999999999999"],
)  # fmt: skip
def test_a_malformed_line_is_an_error(path, line):
    with pytest.raises(DataError) as caught:
        check(path, f"{LINES[0]}\n{line}\n{LINES[2]}\n")
    assert (caught.value.at.path, caught.value.at.record) == (str(path), 1)


def test_lines_swapped_or_twice(path):
    for order in ([1, 0, 2], [0, 0, 1, 2], [0, 2, 1], [0, 2]):
        with pytest.raises(DataError):
            check(path, "".join(f"{LINES[row]}\n" for row in order))


def test_every_byte_flip_is_an_error(path):
    for position in range(len(INDEX)):
        damaged = bytearray(INDEX.encode())
        damaged[position] ^= 0x01
        with pytest.raises(DataError):
            check(path, bytes(damaged))


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "absent"):
        with pytest.raises(DataError) as caught:
            IndexChecker(path, "x")
        assert caught.value.at.path == str(path)
