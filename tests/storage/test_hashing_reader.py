"""Many small files are read back in order, each with its size and SHA-256; no link is followed."""

import gc
import io
import os
import threading
from hashlib import sha256
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.storage.file_list import OutputFile
from converters.storage.hashing_reader import FileReader, HashingReader


@pytest.mark.parametrize(
    "sizes",
    [[0, 1, 65_535, 65_536, 65_537, 200_000], [number % 7 for number in range(600)], [3 << 20, 1 << 20, 5]],
    ids=["around what is read at once", "more than are hashed at once", "large"],
)
def test_files_have_their_content_and_their_digest(tmp_path, sizes):
    (tmp_path / "c" / "images").mkdir(parents=True)
    paths = [f"images/{number:04d}.jpg" for number in range(len(sizes))]
    contents = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    for path, content in zip(paths, contents, strict=True):
        (tmp_path / "c" / path).write_bytes(content)
    reader = HashingReader(tmp_path)
    assert list(chain.from_iterable(reader.read_images(str(tmp_path / "c"), paths))) == contents
    assert list(reader.files) == [
        OutputFile(f"c/{path}", len(content), sha256(content).hexdigest())
        for path, content in zip(paths, contents, strict=True)
    ]
    assert (
        list(chain.from_iterable(FileReader().read_images(str(tmp_path), [f"c/{path}" for path in paths])))
        == contents
    )


def test_the_images_of_records_have_their_digests_by_the_column(tmp_path):
    paths = [str(number) for number in range(6)]
    for path in paths:
        (tmp_path / path).write_text(path)
    reader = HashingReader(tmp_path)
    assert reader.image_digests(2, ["left", "right"]) == {}
    assert list(reader.read_images(str(tmp_path), paths, 2)) == [[path.encode() for path in paths]]
    digests = [sha256(path.encode()).digest() for path in paths]
    assert reader.image_digests(2, ["left", "right"]) == {
        "left": [digests[0], digests[2]],
        "right": [digests[1], digests[3]],
    }
    assert reader.image_digests(1, ["left", "right"]) == {"left": digests[4:5], "right": digests[5:]}


def test_no_link_is_followed_and_no_fifo_is_waited_for(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    reader = HashingReader(tmp_path)
    with pytest.raises(OSError, match="link") as refused:
        list(reader.read_images(str(tmp_path), ["file", "link"]))
    assert refused.value.filename == "link"
    assert list(reader.read_images(str(tmp_path), ["file", "fifo"])) == [[b"x", b""]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@given(
    size=st.integers(0, 30_000) | st.sampled_from([4095, 4096, 4097, (1 << 20) + 5, 3 << 20]),
    places=st.lists(
        st.tuples(st.floats(0, 1.1), st.sampled_from([0, 1, 4096, 4097, 20_000, -1])), max_size=12
    ),
    buffered=st.booleans(),
)
def test_a_file_has_its_digest_in_whatever_order_it_is_read(folder, size, places, buffered):
    content = (b"0123456789\n" * (size // 11 + 1))[:size]
    (folder / "file").write_bytes(content)
    reader = HashingReader(folder)
    with reader.open(folder / "file") as raw:
        file = io.BufferedReader(raw, 4096) if buffered else raw
        for place, length in places:
            start = int(place * size)
            assert file.seek(start) == start
            end = size if length < 0 else start + length
            assert file.read(length) == content[start:end]
        if buffered:
            file.detach()
    assert list(reader.files) == [OutputFile("file", size, sha256(content).hexdigest())]


def test_what_fails_leaves_no_file_no_thread_and_no_digest(tmp_path, monkeypatch):
    gc.collect()  # what other tests have left open
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    reader, threads = HashingReader(tmp_path), set(threading.enumerate())
    descriptors = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(FileNotFoundError), reader.open(tmp_path / "gone"):
        pass
    with pytest.raises(KeyError), reader.open(tmp_path / "file") as file:
        file.read(50_000)
        raise KeyError
    gc.collect()
    assert len(list(Path("/dev/fd").iterdir())) <= descriptors
    assert set(threading.enumerate()) <= threads
    assert not len(reader.files)
    assert not unraisable
