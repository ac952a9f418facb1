"""Lists of an output's files hold little of each, and come out in the order of the paths."""

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.storage.file_list import OutputFile, OutputFiles, add_run, in_columns, merged_runs, with_added

FILES = st.builds(
    OutputFile,
    st.text(min_size=1, max_size=20),
    st.integers(0, 1 << 40),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)


@given(st.lists(FILES))
def test_what_goes_in_comes_out(files):
    held = OutputFiles(files)
    assert list(held) == files
    assert len(held) == len(files)
    assert [held[number] for number in range(-len(files), 0)] == files
    assert held[1:] == files[1:]
    assert held.total_bytes() == sum(file.size for file in files)
    assert pickle.loads(pickle.dumps(held)) == held
    with pytest.raises(IndexError):
        held[len(files)]


@given(st.lists(st.lists(FILES, unique_by=lambda file: file.path), max_size=6))
def test_runs_are_merged_in_the_order_of_the_paths(lists):
    runs: list[OutputFiles] = []
    for files in lists:
        add_run(runs, OutputFiles(sorted(files, key=lambda file: file.path)))
    merged = [file.path for file in merged_runs(runs)]
    assert merged == sorted(file.path for files in lists for file in files)


def test_shards_that_follow_each_other_are_one_run():
    runs: list[OutputFiles] = []
    for number in range(100):
        add_run(runs, OutputFiles([OutputFile(f"train-{number:05d}", 1, "00" * 32)]))
    assert len(runs) == 1
    assert merged_runs(runs)[-1].path == "train-00099"
    assert merged_runs(runs)[99:] == [runs[0][99]]
    assert [file.path for file in merged_runs(runs)] == [f"train-{number:05d}" for number in range(100)]


@pytest.mark.parametrize("digest", ["", "00", "zz" * 32, "00" * 33])
def test_a_digest_that_is_none(digest):
    with pytest.raises(ValueError, match=r"SHA-256|hexadecimal"):
        OutputFiles([OutputFile("a", 1, digest)])


@given(st.sets(st.text("abc/", max_size=4)), st.sets(st.text("abc/", max_size=4)), st.integers(1, 4))
def test_a_few_more_files_come_to_their_places(paths, more, runs):
    def file(path):
        return OutputFile(path, len(path), hashlib.sha256(path.encode()).hexdigest())

    known = sorted(paths)
    pieces = [OutputFiles(map(file, known[start::runs])) for start in range(runs)]
    files = with_added(merged_runs(pieces), [file(path) for path in more - paths])
    expected = [file(path) for path in sorted(paths | more)]
    assert list(files) == expected
    assert [files[number] for number in range(len(files))] == expected
    kept = OutputFiles(expected)
    off = kept.take_out(more)
    assert list(kept) == [file(path) for path in sorted(paths - more)]
    assert off == [file(path) for path in sorted(more)]


@given(st.sets(st.text("abc/é", max_size=4)), st.lists(st.text("abc/é", max_size=4)))
def test_files_that_were_not_read_are_made(wanted, seen):
    def file(path):
        return OutputFile(path, len(path), hashlib.sha256(path.encode()).hexdigest())

    made = []
    files = OutputFiles(map(file, seen)).of_paths(
        sorted(wanted), lambda path: made.append(path) or file(path)
    )
    assert list(files) == [file(path) for path in sorted(wanted)]
    if set(seen) <= wanted and len(set(seen)) == len(seen):
        assert made == sorted(wanted - set(seen))


def test_so_many_files_that_they_are_made_in_pieces():
    files = [
        OutputFile(f"é/{number}" if number % 3 else str(number), number, "ab" * 32)
        for number in range(10_000)
    ]
    held = OutputFiles(files)
    assert list(held) == files
    assert list(held.paths()) == [file.path for file in files]
    for kind in (held, merged_runs([held]), files):
        assert [OutputFile(*row) for some in in_columns(kind) for row in zip(*some, strict=True)] == files
