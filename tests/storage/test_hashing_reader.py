"""Many small files are read back in order, each with its size and SHA-256; no link is followed."""

import os
from hashlib import sha256

import pytest

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
    assert list(reader.read(str(tmp_path / "c"), paths)) == contents
    assert list(reader.files) == [
        OutputFile(f"c/{path}", len(content), sha256(content).hexdigest())
        for path, content in zip(paths, contents, strict=True)
    ]
    assert list(FileReader().read(str(tmp_path), [f"c/{path}" for path in paths])) == contents


def test_no_link_is_followed_and_no_fifo_is_waited_for(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    reader = HashingReader(tmp_path)
    read = reader.read(str(tmp_path), ["file", "link"])
    assert next(read) == b"x"
    with pytest.raises(OSError, match="link"):
        next(read)
    assert list(reader.read(str(tmp_path), ["fifo"])) == [b""]
