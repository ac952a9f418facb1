"""All that lies below a folder is found, however much there is, and no link is followed."""

import os

from converters.storage.tree import count_files, walk_empty_folders, walk_files, walk_many_files


def test_many_entries_of_every_kind(tmp_path):
    wanted = {f"many/{number}" for number in range(3000)} | {
        "a/b/c/file",
        "many/below/file",
        "link",
        "é\udcff",
    }
    for path in wanted:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path == "link":
            place.symlink_to(tmp_path / "many")
        else:
            place.touch()
    for empty in ("empty", "a/empty", "a/b/deep/er"):
        (tmp_path / empty).mkdir(parents=True)
    (tmp_path / "a" / "b" / "dangling").symlink_to("nowhere")
    wanted.add("a/b/dangling")
    found = list(walk_files(tmp_path))
    assert len(found) == len(wanted) == count_files(tmp_path)
    assert set(found) == wanted
    assert [path for paths in walk_many_files(os.fspath(tmp_path)) for path in paths] == found
    assert max(map(len, walk_many_files(tmp_path))) < len(wanted)
    assert sorted(walk_empty_folders(tmp_path)) == ["a/b/deep/er", "a/empty", "empty"]


def test_an_empty_folder_has_no_files_and_is_not_listed_itself(tmp_path):
    assert list(walk_files(tmp_path)) == []
    assert count_files(tmp_path) == 0
    assert list(walk_empty_folders(tmp_path)) == []
