"""Recovery: what is found again in a damaged file is what was written, and every byte is accounted for."""

import gzip
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.dataset.damage import first_lost, records_lost
from converters.errors import DataError, Location
from converters.formats.tfrecord.damage import lost_bytes
from converters.formats.tfrecord.foreign import look_at
from converters.formats.tfrecord.framing import frame, is_header, masked_crc, valid_headers
from converters.formats.tfrecord.reader import RangeReader, SourceRange
from converters.formats.tfrecord.recovery import Examination, examine

PACK = {"none": bytes, "gzip": gzip.compress, "zlib": zlib.compress}
CHUNK = 512  # so that the small files of these tests are several chunks


def example(payload: bytes) -> bytes:
    """Bytes of the outline of an Example: one field that holds all."""
    length, encoded = len(payload), b""
    while length > 0x7F:
        encoded += bytes([length & 0x7F | 0x80])
        length >>= 7
    return b"\x0a" + encoded + bytes([length]) + payload


def some_records(count: int, seed: int = 0, least: int = 20, most: int = 300) -> list[bytes]:
    generator = random.Random(seed)
    return [example(generator.randbytes(generator.randint(least, most))) for _ in range(count)]


def offsets(records: list[bytes]) -> list[int]:
    """Where each record starts, and where the last one ends."""
    starts = [0]
    for data in records:
        starts.append(starts[-1] + len(data) + 16)
    return starts


def index_text(records: list[bytes]) -> str:
    return "".join(
        f"{start} {len(data) + 16}\n" for start, data in zip(offsets(records), records, strict=False)
    )


def anything(_frames: object) -> None:
    """A check that every record passes: what is found depends on the framing alone."""


def examined(
    path: Path, index: Path | None = None, compression: str | None = None
) -> tuple[Examination, list[bytes]]:
    """What examining a file finds, and the records that a strict reading between the damage gives.

    Checks that sound records and lost ranges tile the file, and that the lost bytes are the file's.
    """
    compression = compression or look_at(path).compression
    stored = path.read_bytes()
    found = examine(path, compression, index, anything, chunk_bytes=CHUNK)
    used = index if found.index_problem is None else None
    reader = RangeReader(SourceRange(path, 0, len(stored), 0, compression, used, found.lost, True))
    records: list[bytes] = []
    pieces: list[tuple[int, bytes]] = []
    for frames in reader.frames():
        for offset, start, size in zip(frames.offsets(), frames.starts, frames.sizes, strict=True):
            data = bytes(frames.buffer[start : start + size])
            records.append(data)
            pieces.append((int(offset), frame(data)))
    assert len(records) == found.records == reader.records
    assert sum(len(data) + 16 for data in records) == reader.record_bytes
    tail = len(stored)
    for lost, stream in zip(found.lost, lost_bytes(path, compression, found.lost), strict=True):
        data = b"".join(iter(lambda stream=stream: stream.read(100), b""))
        assert len(data) == lost.end - lost.start
        if lost.inflated is None:
            pieces.append((lost.start, data))
        else:
            assert (lost.end, lost.inflated) == (len(stored), found.stream_bytes)
            assert data == stored[lost.start :]
            tail = lost.start
    end = 0
    for offset, data in sorted(pieces, key=lambda piece: (piece[0], len(piece[1]))):
        assert offset == end
        end += len(data)
    assert end == found.stream_bytes
    whole = b"".join(data for _, data in sorted(pieces, key=lambda piece: (piece[0], len(piece[1]))))
    if compression == "none":
        assert whole == stored
    else:
        inflater = zlib.decompressobj(31 if compression == "gzip" else 15)
        if tail == len(stored) and not found.lost:
            assert whole == (gzip.decompress(stored) if compression == "gzip" else zlib.decompress(stored))
        else:
            assert whole.startswith(inflater.decompress(stored[:tail]))
    return found, records


def examined_unless_nothing_is_sound(
    path: Path, index: Path | None, compression: str
) -> tuple[Examination, list[bytes]] | None:
    try:
        return examined(path, index, compression)
    except DataError as error:
        if "nothing in this file is sound" in error.message or "file is empty" in error.message:
            return None
        raise


def is_part_of(found: list[bytes], original: list[bytes]) -> bool:
    """Whether all of ``found`` stand in ``original``, in this order."""
    left = iter(original)
    return all(any(data == other for other in left) for data in found)


@pytest.fixture
def write(tmp_path):
    """Writes a file, and the index of its records where these are given."""

    def write(data: bytes, records: list[bytes] | None = None) -> tuple[Path, Path | None]:
        path = tmp_path / "a.tfrecords"
        path.write_bytes(data)
        if records is None:
            return path, None
        index = tmp_path / "a.idx"
        index.write_text(index_text(records))
        return path, index

    return write


def framed(records: list[bytes]) -> bytearray:
    return bytearray(b"".join(map(frame, records)))


# --- What is lost, exactly -----------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("place", ["length", "length's checksum", "first byte", "data", "data's checksum"])
@pytest.mark.parametrize("number", [0, 1, 20, 39])
def test_a_damaged_record_is_lost_and_no_other(write, place, number, indexed):
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    at = {"length": 1, "length's checksum": 9, "first byte": 12, "data": 15, "data's checksum": -3}[place]
    data[starts[number + (at < 0)] + at] ^= 0x40
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:number] + records[number + 1 :]
    (lost,) = found.lost
    assert (lost.start, lost.end, lost.records) == (starts[number], starts[number + 1], 1)
    assert lost.found_again is None
    assert first_lost(found.lost) == [number]
    assert found.index_problem is None


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("damaged", [(0, 1, 2), (7, 8), (37, 38, 39), (3, 5, 7, 9)])
@pytest.mark.parametrize("place", [2, 14, 9])
def test_neighbours_that_are_damaged(write, damaged, place, indexed):
    """All headers, or all data: the Example of each says how long it is, or its header does."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    for number in damaged:
        data[starts[number] + place] ^= 0x10
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == [data for number, data in enumerate(records) if number not in damaged]
    assert first_lost(found.lost) == list(damaged)
    assert records_lost(piece.records for piece in found.lost) == len(damaged)


@pytest.mark.parametrize("indexed", [False, True])
def test_header_and_data_of_neighbours_damaged(write, indexed):
    """Nothing tells where they end; of one alone, the Example's length and what follows agree that it is one."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    for number in (10, 11, 20):
        data[starts[number]] ^= 0x10
        data[starts[number] + 25] ^= 0x10
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == [data for number, data in enumerate(records) if number not in (10, 11, 20)]
    assert [lost.records for lost in found.lost] == ([2, 1] if indexed else [None, 1])
    assert {lost.found_again for lost in found.lost} == {"by index" if indexed else "by checksums"}


def test_damaged_data_before_a_damaged_length(write):
    """Where the first one's header says that it ends, a record begins of which all but the header is sound."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    data[starts[10] + 30] ^= 0x10
    data[starts[11] + 1] ^= 0x10
    found, sound = examined(*write(data))
    assert sound == records[:10] + records[12:]
    assert [(lost.start, lost.records, lost.found_again) for lost in found.lost] == [
        (starts[10], 1, None),
        (starts[11], 1, None),
    ]


@pytest.mark.parametrize("number", [0, 20, 39])
def test_the_index_tells_the_end_of_a_record_that_does_not(write, number):
    """Header, the beginning of the Example, and data of one record are damaged, and the data of the next."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    for place in (1, 12, 25):
        data[starts[number] + place] ^= 0x10
    damaged = {number, min(number + 1, 39)}
    data[starts[max(damaged)] + 30] ^= 0x10
    found, sound = examined(*write(data, records))
    assert sound == [data for number, data in enumerate(records) if number not in damaged]
    assert [(lost.start, lost.records) for lost in found.lost] == [
        (starts[number], 1) for number in sorted(damaged)
    ]
    assert found.lost[0].found_again == (None if number == 39 else "by index")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_block_of_zeros_over_several_records(write, indexed):
    records = some_records(60)
    starts = offsets(records)
    data = framed(records)
    data[starts[10] + 5 : starts[14] - 2] = bytes(starts[14] - starts[10] - 7)
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:10] + records[14:]
    (lost,) = found.lost
    assert (lost.start, lost.end) == (starts[10], starts[14])
    assert lost.records == (4 if indexed else None)
    assert lost.found_again == ("by index" if indexed else "by checksums")


def test_bytes_that_are_gone_shift_the_rest(write):
    """The header's length and the Example's agree on an end in the midst of the next record."""
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    del data[starts[5] + 30 : starts[5] + 35]
    found, sound = examined(*write(data))
    assert sound == records[:5] + records[6:]
    assert [(lost.start, lost.end, lost.found_again) for lost in found.lost] == [
        (starts[5], starts[6] - 5, "by checksums")
    ]


def test_an_index_that_does_not_fit_is_not_used(write):
    records = some_records(40)
    starts = offsets(records)
    data = framed(records)
    del data[starts[5] + 30 : starts[5] + 35]
    found, sound = examined(*write(data, records))
    assert sound == records[:5] + records[6:]
    assert found.index_problem is not None


def test_an_index_that_lacks_a_damaged_record_is_not_used(write):
    records = some_records(20)
    data = framed(records)
    data[-10] ^= 0x10
    path, index = write(data, records[:-1])
    found, sound = examined(path, index)
    assert sound == records[:-1]
    assert [lost.records for lost in found.lost] == [1]
    assert "the index has 0 records" in found.index_problem


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "0 10\n", "0 9223372036854775807\n", "5 36\n", f"{'9' * 30} 1\n", "0 1\n" * 50]
)
def test_a_broken_index_is_not_used(write, text):
    records = some_records(5)
    path, index = write(framed(records), records)
    index.write_text(text)
    found, sound = examined(path, index)
    assert sound == records
    assert found.lost == ()
    assert found.index_problem


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_file_cut_short(write, cut, indexed):
    records = some_records(30)
    data = framed(records)[:-cut]
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:-1]
    (lost,) = found.lost
    assert (lost.start, lost.end) == (offsets(records)[-2], len(data))
    assert lost.records == (1 if indexed else None)
    assert lost.found_again is None


def test_records_that_only_the_index_knows_of(write):
    records = some_records(30)
    found, sound = examined(*write(framed(records[:27]), records))
    assert sound == records[:27]
    (lost,) = found.lost
    assert (lost.end - lost.start, lost.records) == (0, 3)


@pytest.mark.parametrize("extra", [b"\0", bytes(4096), b"something else" * 50, frame(b"x" * 30)[:-1]])
def test_something_appended(write, extra):
    records = some_records(20)
    for index in (None, records):
        found, sound = examined(*write(bytes(framed(records)) + extra, index))
        assert sound == records
        (lost,) = found.lost
        assert lost.end - lost.start == len(extra)
        assert lost.records == (None if index is None else 0)


def test_a_record_that_fails_a_check_is_lost(write):
    records = some_records(40)

    def check(frames):
        for start, size in zip(frames.starts, frames.sizes, strict=True):
            if bytes(frames.buffer[start : start + size]) in (records[3], records[4], records[39]):
                raise DataError("not this one.", Location("x", 1))

    path, index = write(framed(records), records)
    found = examine(path, "none", index, check, chunk_bytes=CHUNK)
    assert found.records == 37
    assert [lost.reason for lost in found.lost] == ["not this one."] * 3
    assert first_lost(found.lost) == [3, 4, 39]


def test_a_record_longer_than_allowed_is_lost(write):
    records = some_records(20)
    records[7] = example(bytes(5000))
    path, _ = write(framed(records))
    found = examine(path, "none", None, anything, 1000, chunk_bytes=CHUNK)
    assert found.records == 19
    assert "at most 1000" in found.lost[0].reason


@pytest.mark.parametrize("length", [2**33, 2**62, 2**64 - 1, 2**27])
def test_a_length_beyond_reason_is_not_believed(write, length):
    records = some_records(20)
    starts = offsets(records)
    data = framed(records)
    header = struct.pack("<Q", length)
    data[starts[5] : starts[5] + 12] = header + struct.pack("<I", masked_crc(header))
    _, sound = examined(*write(data))
    assert sound == records[:5] + records[6:]


@pytest.mark.parametrize("data", [b"\0" * 100, b"x" * 1000, frame(b"abc" * 9)[:-1], b"\x1f\x8bnot at all"])
def test_a_file_in_which_nothing_is_sound_is_an_error(write, data):
    path, _ = write(data)
    with pytest.raises(DataError, match="nothing in this file is sound"):
        examine(path, look_at(path).compression, None, anything)


# --- Records inside records ----------------------------------------------------------------------------


INSIDE = {
    "header": frame(bytes(40))[:12],
    "record": frame(some_records(1, 1)[0]),
    "ten records": b"".join(map(frame, some_records(10, 2))),
    "a long record": frame(some_records(1, 3, 2000, 2000)[0]),
}
LENGTH, CHECKSUM, EXAMPLE, DATA = 1, 9, 12, 15  # bytes of the header and of what follows


@pytest.mark.parametrize("inner", INSIDE)
@pytest.mark.parametrize(
    ("damaged", "indexed"),
    [
        *(((place,), indexed) for place in (LENGTH, CHECKSUM, EXAMPLE, DATA) for indexed in (False, True)),
        ((LENGTH, EXAMPLE, DATA), True),
    ],
)
@pytest.mark.parametrize("number", [0, 10, 19])
def test_what_is_inside_a_record_whose_end_is_known_does_not_come_out(write, inner, damaged, number, indexed):
    """By its header, by the checksum of all but the header, or by the index."""
    records = some_records(20)
    records[number] = example(b"\xff\xd8 a comment: " + INSIDE[inner] + b" and so on" * 20)
    starts = offsets(records)
    data = framed(records)
    for place in damaged:
        data[starts[number] + place] ^= 0x10
    found, sound = examined(*write(data, records if indexed else None))
    assert sound == records[:number] + records[number + 1 :]
    assert [(lost.start, lost.end) for lost in found.lost] == [(starts[number], starts[number + 1])]


@pytest.mark.parametrize("inner", INSIDE)
@pytest.mark.parametrize("damaged", [(LENGTH, EXAMPLE), (LENGTH, DATA)])
@pytest.mark.parametrize("number", [0, 10, 19])
def test_what_is_inside_another_damaged_record_may_come_out_and_that_is_said(write, inner, damaged, number):
    """No record around it is lost by that, and every byte is still accounted for."""
    records = some_records(20)
    records[number] = example(b"\xff\xd8 a comment: " + INSIDE[inner] + b" and so on" * 20)
    starts = offsets(records)
    data = framed(records)
    for place in damaged:
        data[starts[number] + place] ^= 0x10
    found, sound = examined(*write(data))
    inside = list(strictly_read(INSIDE[inner]))
    assert sound == records[:number] + inside + records[number + 1 :]
    assert sum(lost.end - lost.start for lost in found.lost) == len(frame(records[number])) - sum(
        len(frame(data)) for data in inside
    )
    if inside:
        assert found.lost[0].found_again == "by checksums"


# --- Random damage -------------------------------------------------------------------------------------


def some_bytes(draw: st.DrawFn, size: int) -> bytes:
    return random.Random(draw(st.integers(0, 2**32))).randbytes(size)


@st.composite
def damaged_in_place(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Records, and the bytes of their file with some overwritten and perhaps its end cut off."""
    records = some_records(
        draw(st.integers(1, 25)), draw(st.integers(0, 2**32)), 1, draw(st.sampled_from([30, 300, 2000]))
    )
    data = framed(records)
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data) - 1))
        size = len(data[start : start + draw(st.one_of(st.integers(0, 20), st.integers(0, 700)))])
        kind = draw(st.sampled_from(["flip", "zeros", "noise"]))
        if kind == "flip":
            data[start] ^= 1 << draw(st.integers(0, 7))
        else:
            data[start : start + size] = bytes(size) if kind == "zeros" else some_bytes(draw, size)
    cut = draw(st.one_of(st.just(len(data)), st.integers(len(data) // 2, len(data))))
    return records, bytes(data[:cut])


quick = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@settings(quick, max_examples=400)
@given(
    case=damaged_in_place(),
    compression=st.sampled_from(["none", "none", "gzip", "zlib"]),
    indexed=st.booleans(),
)
def test_overwritten_bytes_cost_the_records_that_they_hit_and_no_other(tmp_path, case, compression, indexed):
    records, data = case
    path, index = tmp_path / "a.tfrecords", tmp_path / "a.idx"
    path.write_bytes(PACK[compression](data))
    index.write_text(index_text(records))
    starts = offsets(records)
    intact = [
        number for number, record in enumerate(records) if data[starts[number] :].startswith(frame(record))
    ]
    outcome = examined_unless_nothing_is_sound(path, index if indexed else None, compression)
    if outcome is None:
        assert not intact
        return
    found, sound = outcome
    assert sound == [records[number] for number in intact]
    assert found.index_problem is None
    if indexed:
        assert records_lost(piece.records for piece in found.lost) == len(records) - len(intact)
    elif (lost := records_lost(piece.records for piece in found.lost)) is not None:
        # What is cut off between two records leaves no trace.
        there = sum(start < len(data) for start in starts[:-1])
        assert lost == there - len(intact)


@st.composite
def moved(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, bytes]], bytes]:
    """Records, and a file of theirs from which bytes are gone, or into which others got.

    Returns:
        the records; those that are still whole, with their offsets; the file.
    """
    records = some_records(
        draw(st.integers(1, 25)), draw(st.integers(0, 2**32)), 1, draw(st.sampled_from([30, 300, 2000]))
    )
    data = framed(records)
    origin = list(range(len(data)))  # of each byte; -1 of others
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        size = draw(st.one_of(st.integers(0, 20), st.integers(0, 700)))
        if draw(st.booleans()):
            del data[start : start + size], origin[start : start + size]
        else:
            data[start:start] = some_bytes(draw, size)
            origin[start:start] = [-1] * size
    place = {byte: at for at, byte in enumerate(origin) if byte >= 0}
    whole = [
        (place[start], record)
        for start, record in zip(offsets(records), records, strict=False)
        if start in place and data[place[start] :].startswith(frame(record))
    ]
    return records, whole, bytes(data)


@settings(quick, max_examples=400)
@given(case=moved(), compression=st.sampled_from(["none", "none", "gzip", "zlib"]), indexed=st.booleans())
def test_bytes_that_are_gone_or_added_cost_the_records_that_they_hit(tmp_path, case, compression, indexed):
    """What is whole comes out, and nothing else, but for what is inside a range whose header or index tells its end."""
    records, whole, data = case
    path, index = tmp_path / "a.tfrecords", tmp_path / "a.idx"
    path.write_bytes(PACK[compression](data))
    index.write_text(index_text(records))
    outcome = examined_unless_nothing_is_sound(path, index if indexed else None, compression)
    if outcome is None:
        assert not whole
        return
    found, sound = outcome
    told = [lost for lost in found.lost if is_header(data[lost.start :]) or lost.found_again == "by index"]
    expected = [
        record
        for start, record in whole
        if not any(lost.start < start and start + len(record) + 16 <= lost.end for lost in told)
    ]
    assert sound == expected


def strictly_read(data: bytes) -> Iterator[bytes]:
    """The records from the beginning of a file on, as far as all checksums hold."""
    while is_header(data) and len(data) >= 16 + (size := int.from_bytes(data[:8], "little")):
        record = data[12 : 12 + size]
        if frame(record) != data[: 16 + size]:
            return
        yield record
        data = data[16 + size :]


@settings(quick, max_examples=200)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["gzip", "zlib", "members"]),
    where=st.floats(0, 1),
    how=st.sampled_from(["flip", "cut", "more", "zeros"]),
)
def test_random_damage_of_compressed_bytes(tmp_path, seed, kind, where, how):
    records = some_records(30, seed)
    plain = bytes(framed(records))
    middle = len(plain) // 2
    stored = bytearray(
        {
            "gzip": lambda: gzip.compress(plain),
            "zlib": lambda: zlib.compress(plain),
            "members": lambda: gzip.compress(plain[:middle]) + gzip.compress(plain[middle:]),
        }[kind]()
    )
    at = int(where * (len(stored) - 1))
    if how == "flip":
        stored[at] ^= 0x08
    elif how == "cut":
        del stored[at:]
    elif how == "more":
        stored += b"more"
    else:
        stored[at : at + 30] = bytes(len(stored[at : at + 30]))
    path = tmp_path / "a.tfrecords"
    path.write_bytes(stored)
    found = examined_unless_nothing_is_sound(path, None, "zlib" if kind == "zlib" else "gzip")
    assert found is None or is_part_of(found[1], records)
    if how == "more":
        assert found is not None
        assert found[1] == records
        assert [(lost.start, lost.end) for lost in found[0].lost] == [(len(stored) - 4, len(stored))]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_what_inflates_before_the_damage_is_used(tmp_path, damage):
    records = some_records(400)
    stored = bytearray(gzip.compress(bytes(framed(records)), 0))  # not compressed: what is hit is known
    middle = len(stored) // 2
    if damage == "cut":
        del stored[middle:]
    else:
        stored[middle : middle + 40_000] = bytes([0xFF]) * 40_000
    path, index = tmp_path / "a.tfrecords", tmp_path / "a.idx"
    index.write_text(index_text(records))
    path.write_bytes(stored)
    found, sound = examined(path, index)
    assert sound == records[: len(sound)]
    assert len(sound) > 180
    assert found.lost[-1].inflated == found.stream_bytes
    assert records_lost(piece.records for piece in found.lost) == 400 - len(sound)


# --- Bounds --------------------------------------------------------------------------------------------


def test_valid_headers_agrees_with_trying_each_offset():
    generator = random.Random(5)
    data = bytearray(generator.randbytes(5000))
    for at in (0, 17, 900, 4988):
        data[at : at + 12] = frame(bytes(at + 1))[:12]
    data[300:1000] = bytes(700)
    data[600:612] = frame(b"")[:12]  # no Example is empty
    expected = []
    for at in range(len(data) - 11):
        length = int.from_bytes(data[at : at + 8], "little")
        crc = int.from_bytes(data[at + 8 : at + 12], "little")
        if 0 < length <= 1 << 28 and masked_crc(bytes(data[at : at + 8])) == crc:
            expected.append(at)
    assert expected == [0, 17, 4988]
    assert valid_headers(bytes(data), 1 << 28).tolist() == expected
    assert valid_headers(b"", 1 << 28).tolist() == valid_headers(bytes(11), 1 << 28).tolist() == []


def false_header(length: int) -> bytes:
    stored = struct.pack("<Q", length)
    return stored + struct.pack("<I", masked_crc(stored))


@pytest.mark.parametrize("between", [b"", frame(b"\x0a\0")], ids=["in a row", "between records"])
def test_a_file_of_false_headers_is_refused_in_bounded_time(write, between):
    """Each claims nearly all bytes up to the end of the file, so telling whether it is true costs as much."""
    size, count = 60 << 20, 2000
    step = 12 + len(between)
    headers = b"".join(false_header(size + number * step - 17) + between for number in range(count, 0, -1))
    path, _ = write(bytes(framed(some_records(3))) + b"\x55" + headers + bytes(size))
    start = time.process_time()
    with pytest.raises(DataError, match="would take too long"):
        examine(path, "none", None, anything)
    assert time.process_time() - start < 30


@pytest.mark.parametrize("length", [1, 300, 1 << 27])
def test_a_file_of_nothing_but_false_headers_takes_linear_time(write, length):
    """Each of them is in the file, where the next ones stand, or claims bytes beyond the end of the file."""
    records = some_records(3)
    path, _ = write(bytes(framed(records)) + b"\x55" + false_header(length) * 200_000)
    start = time.process_time()
    found = examine(path, "none", None, anything)
    assert time.process_time() - start < 15
    assert found.records == 3
    assert len(found.lost) == 1


def test_a_file_of_records_that_all_fail_is_refused_in_bounded_time(write):
    """Empty records: sixteen bytes are a record, each of which would be a range of its own."""

    def check(frames):
        if not frames.sizes.all():
            raise DataError("an empty record.", Location(""))

    path, _ = write(frame(some_records(1)[0]) + frame(b"") * 1_000_000)
    start = time.process_time()
    with pytest.raises(DataError, match="would take too long"):
        examine(path, "none", None, check)
    assert time.process_time() - start < 30


@pytest.mark.parametrize("claimed", [0, 150 << 20])
def test_a_large_damaged_range_takes_no_memory(write, claimed):
    """A length that is claimed in it, with the right checksum, is not allocated if it is over the cap."""
    records = some_records(20)
    path, _ = write(bytes(framed(records)) + b"\x55" + false_header(claimed))
    with path.open("r+b") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        found = examine(path, "none", None, anything, 100 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.records == 20
    assert found.lost[0].end == 200 << 20
    assert peak < 100 << 20
