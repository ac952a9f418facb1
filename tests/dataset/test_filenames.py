"""Names that become file names."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dataset.filenames import first_collision, folded, plain_lines, safe_path, unsafe_name


@pytest.mark.parametrize(
    "name",
    ["a", "train", "6_basic_emo", "multi-label", "_x", "a.b", "a..b", "two words", "happy (very)", "슬픔", "é",
     "console", "com", "com10", "auxiliary", "nulls", "lpt", "a" * 255, "가" * 85, "0", "x.con", "😀"],
)  # fmt: skip
def test_safe(name):
    assert unsafe_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "...", ".hidden", "../x", "a/b", "/", "/etc", "a\\b", "C:", "c:x", "a*", "a?", "a|b", "a<b",
        "a>b", 'a"b', "a\0b", "a\nb", "a\n", "\n", "\x7f", "a\x85", "a.", "a..", " a", "a ", "a\u00a0", "\u3000a",
        "-rf", "-", "--", "a" * 256, "가" * 86, "a\u200b", "a\u202eb", "\ufeffa", "\ud800", "a\udc80",
        "a\ue000", "a\U000e0041",
    ],
)  # fmt: skip
def test_unsafe(name):
    reason = unsafe_name(name)
    assert reason is not None
    reason.encode()  # can be printed, whatever the name


@pytest.mark.parametrize(
    "device", ["con", "prn", "aux", "nul", "com1", "com9", "lpt1", "lpt9", "com¹", "lpt³", "conin$"]
)
@pytest.mark.parametrize("form", ["{}", "{}.txt", "{}.tar.gz", "{} .txt"])
def test_names_that_windows_reserves(device, form):
    for name in (device, device.upper(), device.title()):
        assert "Windows" in unsafe_name(form.format(name))


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=12))
def test_what_is_safe_stays_in_its_folder_and_can_be_made(tmp_path_factory, name):
    if unsafe_name(name) is None:
        path = tmp_path_factory.getbasetemp() / f"names-{id(name)}"
        path.mkdir()
        (path / name).write_bytes(b"")
        assert [unicodedata.normalize("NFC", found.name) for found in path.iterdir()] == [
            unicodedata.normalize("NFC", name)
        ]
        (path / name).unlink()
        path.rmdir()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], None),
        (["a", "b", "ab"], None),
        (["a", "a"], (0, 1)),
        (["b", "a", "c", "A"], (1, 3)),
        (["x", "a", "A", "X"], (1, 2)),
        (["caf\u00e9", "cafe\u0301"], (0, 1)),
        (["CAF\u00c9", "cafe\u0301"], (0, 1)),
        (["straße", "STRASSE"], (0, 1)),
        (["K", "\u212a"], (0, 1)),
        (["Σ", "σ", "ς"], (0, 1)),
        (["슬픔", unicodedata.normalize("NFD", "슬픔")], (0, 1)),
        (["슬픔", "기쁨"], None),
        (["e", "é"], None),
    ],
)  # fmt: skip
def test_first_collision(names, expected):
    assert first_collision(names) == expected
    assert first_collision(iter(names)) == expected


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("aAbBéÉe\u0301ßsſkK\u212a", max_size=3), max_size=8))
def test_first_collision_is_the_first_pair_of_equal_forms(names):
    forms = [folded(name) for name in names]
    expected = next(((forms.index(form), at) for at, form in enumerate(forms) if form in forms[:at]), None)
    assert first_collision(names) == expected


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=6))
def test_folding_forgets_case_and_form(name):
    for form in ("NFC", "NFD"):
        assert folded(unicodedata.normalize(form, name)) == folded(name)
    assert folded(folded(name)) == folded(name)
    assert folded(name.casefold()) == folded(name)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "../a", "a/../b", "a/..", "/a", "a//b", "a/", "a\\b", "a\nb", "a\0b", "a\x85b"]
)
def test_a_path_that_leaves_or_breaks_a_line_is_not_safe(path):
    assert not safe_path(path)


@pytest.mark.parametrize("path", ["a", "a/b.c", "감정/행복.jpg", "a b/c", "..a/b", ".a"])
def test_a_path_that_stays_is_safe(path):
    assert safe_path(path)


NAMES = st.text(st.sampled_from("aK\u212a0.-_\n /é"), max_size=6) | st.sampled_from(
    ["con", "Con.jpg", "com1", "a" * 99 + ".jpg", "a" * 101, "a." + "b" * 51, "train-1.png", "x\n"]
)


@given(st.lists(NAMES | st.from_regex(r"[A-Za-z0-9_]{1,9}\.jpg", fullmatch=True), max_size=5))
def test_names_that_are_safe_at_one_look_are_safe(names):
    lines = plain_lines(names)
    if lines is not None:
        assert not any(map(unsafe_name, names))
        assert lines.split("\n")[1:-1] == [folded(name) for name in names]


def test_most_names_are_seen_to_be_safe_at_one_look():
    assert plain_lines([f"{number:06d}.JPG" for number in range(9)] + ["a_b-c", "x.tar.gz"]) is None
    assert (
        plain_lines([f"{number:06d}.JPG" for number in range(2)] + ["a_b-c"])
        == "\n000000.jpg\n000001.jpg\na_b-c\n"
    )
    assert plain_lines([]) == "\n"
