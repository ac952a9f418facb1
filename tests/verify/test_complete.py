"""The sums and the manifest of an output that is about to be published are held against each other and the files."""

import json

import pytest

from converters import ConverterError, convert
from converters.verify.complete import check_sums


@pytest.fixture(scope="module")
def made(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "out"
    return convert(sample, to="jpeg", out=out), out


@pytest.fixture
def output(made):
    """A report, its output, and the two texts, which are put back afterwards."""
    report, out = made
    texts = {name: (out / name).read_text() for name in ("MANIFEST.json", "SHA256SUMS")}
    yield report, out, texts
    for name, text in texts.items():
        (out / name).write_text(text)


def test_an_output_as_it_was_made_passes(output):
    report, out, _ = output
    check_sums(report, out, all_here=True)


def another_digest(sums, manifest):
    lines = sums.splitlines(keepends=True)
    lines[3] = "0" * 64 + lines[3][64:]
    return "".join(lines), manifest


def another_of_the_manifest(sums, manifest):
    at = sums.index("  MANIFEST.json\n") - 64
    return sums[:at] + "0" * 64 + sums[at + 64 :], manifest


def a_line_less(sums, manifest):
    return sums[: sums.rstrip("\n").rindex("\n") + 1], manifest


def a_line_more(sums, manifest):
    return sums + sums.splitlines(keepends=True)[-1], manifest


def two_lines_exchanged(sums, manifest):
    lines = sums.splitlines(keepends=True)
    return "".join([*lines[:2], lines[3], lines[2], *lines[4:]]), manifest


def renewed(change):
    """A change of the manifest's list of files, with sums that say what it says."""

    def both(sums, manifest):
        files = json.loads(manifest)["files"]
        before = json.dumps(files[2], ensure_ascii=False)
        change(files[2])
        return sums, manifest.replace(before, json.dumps(files[2], ensure_ascii=False))

    return both


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_digest, "SHA256SUMS: it does not say of"),
        (another_of_the_manifest, "SHA256SUMS: it does not have the digest of the manifest"),
        (a_line_less, "SHA256SUMS: it does not say of"),
        (a_line_more, "SHA256SUMS: it does not say of"),
        (two_lines_exchanged, "SHA256SUMS: it does not say of"),
        (renewed(lambda file: file.update(size=1)), "the digest of the manifest"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_does_not_agree_is_named(output, change, message):
    report, out, texts = output
    sums, manifest = change(texts["SHA256SUMS"], texts["MANIFEST.json"])
    assert (sums, manifest) != (texts["SHA256SUMS"], texts["MANIFEST.json"])
    (out / "SHA256SUMS").write_text(sums)
    (out / "MANIFEST.json").write_text(manifest)
    with pytest.raises(ConverterError, match=message):
        check_sums(report, out, all_here=True)


@pytest.mark.parametrize("change", [a_line_less, a_line_more])
def test_of_many_files_some_are_compared_and_all_are_counted(output, change, monkeypatch):
    report, out, texts = output
    monkeypatch.setitem(check_sums.__globals__, "_MAX_COMPARED", 1)
    check_sums(report, out, all_here=True)
    (out / "SHA256SUMS").write_text(change(texts["SHA256SUMS"], texts["MANIFEST.json"])[0])
    with pytest.raises(ConverterError, match=r"it lists \d+ files of \d+, and SHA256SUMS \d+"):
        check_sums(report, out, all_here=True)


def test_a_file_of_another_size_or_content_is_named(output):
    report, out, _ = output
    path = out / report.files[0].path
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"x")
        with pytest.raises(ConverterError, match=r"the size of .* is another"):
            check_sums(report, out, all_here=True)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ConverterError, match=r"the digest of .* is another"):
            check_sums(report, out, all_here=True)
    finally:
        path.write_bytes(content)
