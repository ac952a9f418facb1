"""Tar archives: Python's tarfile reads what is written, and what is damaged is an error."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import DataError
from converters.formats.webdataset.tar import MAX_NAME_BYTES, TarWriter, header, read_members

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: len(name.encode()) <= MAX_NAME_BYTES and name not in (".", ".."))
files = st.lists(st.tuples(names, st.binary(max_size=1100)), max_size=8)


def archive(members) -> bytes:
    file = io.BytesIO()
    writer = TarWriter(file)
    for name, data in members:
        writer.add(name.encode(), data)
    writer.finish()
    return file.getvalue()


def read(data: bytes) -> list[tuple[str, bytes]]:
    return list(read_members(io.BytesIO(data), "here.tar", len(data)))


@given(files)
def test_it_is_what_tarfile_writes_and_reads(members):
    data = archive(members)
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert other.getvalue() == data
    assert read(data) == members


MEMBERS = [("a.jpg", b"x" * 700), ("a.json", b"{}"), ("b.jpg", b""), ("b.json", b"y" * 512)]


def test_any_changed_byte_is_an_error_or_in_a_content():
    data = archive(MEMBERS)
    for position in range(len(data)):
        for bit in (0x01, 0x80):
            changed = bytearray(data)
            changed[position] ^= bit
            try:
                found = read(bytes(changed))
            except DataError:
                continue
            assert found != MEMBERS
            assert [name for name, _ in found] == [name for name, _ in MEMBERS]


def test_any_other_length_is_an_error():
    data = archive(MEMBERS)
    for length in range(0, len(data), 7):
        with pytest.raises(DataError, match=r"here\.tar"):
            read(data[:length])
    for more in (b"\0", bytes(512), bytes(10240), data):
        with pytest.raises(DataError, match="end"):
            read(data + more)


@given(st.binary(max_size=2000))
def test_what_is_no_archive_is_an_error(data):
    with pytest.raises(DataError):
        read(data)


def test_a_length_beyond_the_end_allocates_nothing():
    class Watched(io.BytesIO):
        def read(self, size=-1):
            assert size <= 20 * 512 + 1
            return super().read(size)

    data = header(b"huge", (8 << 30) - 1) + bytes(512)
    with pytest.raises(DataError, match="ends inside huge"):
        list(read_members(Watched(data), "here.tar", len(data)))


@pytest.mark.parametrize(("name", "size"), [(b"", 0), (b"n" * 101, 0), (b"n", 8 << 30)])
def test_what_a_header_cannot_say_is_an_error(name, size):
    with pytest.raises(ValueError, match="no USTAR header"):
        header(name, size)


def test_files_are_renamed_where_they_are():
    file = io.BytesIO()
    writer = TarWriter(file)
    for name, content in MEMBERS:
        writer.add(name.encode(), content)
    writer.rename(".jpg", ".png")
    writer.finish()
    renamed = [(name.replace(".jpg", ".png"), content) for name, content in MEMBERS]
    assert read(file.getvalue()) == renamed
    assert file.getvalue() == archive(renamed)
