"""The decoder of JSON documents: what each annotation takes, and that errors name the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset.decode import Count, DecodeError, Sha256, decode, encode, load_json


class Pair(NamedTuple):
    left: int
    right: str = "none"


@dataclass(frozen=True)
class Inner:
    count: Count
    digest: Sha256 | None = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("not thirteen")


@dataclass(frozen=True)
class Own:
    """Decodes itself."""

    text: str

    @classmethod
    def from_json(cls, value: object) -> Own:
        return cls(decode(str, value, "").upper())

    def to_json(self) -> str:
        return self.text.lower()


@dataclass(frozen=True)
class Whole:
    name: str
    flag: bool
    inner: Inner
    kind: Literal["a", "b"]
    tags: tuple[str, ...] = ()
    point: tuple[int, str] = (0, "")
    numbers: Mapping[int, Count] = field(default_factory=dict)
    by_name: Mapping[Annotated[str, lambda name: "no x" if name == "x" else None], Inner] | None = None
    pairs: tuple[Pair, ...] = ()
    data: bytes = b""
    any: Any = None
    either: bool | int | str = True
    own: Own | None = None
    stated: bool = field(default=False, metadata={"required": True})


LEAST = {"name": "n", "flag": True, "inner": {"count": 1}, "kind": "a", "stated": True}
FULL = LEAST | {
    "inner": {"count": 0, "digest": "0" * 64},
    "tags": ["x", "y"],
    "point": [1, "z"],
    "numbers": {"0": 3, "12": 0},
    "by_name": {"k k": {"count": 2, "digest": None}},
    "pairs": [{"left": 1}, {"left": -2, "right": "r"}],
    "data": "AAH/",
    "any": {"deep": [1.5, None]},
    "either": "text",
    "own": "word",
}


def test_what_every_annotation_takes():
    assert decode(Whole, LEAST, "") == Whole("n", True, Inner(1), "a", stated=True)
    made = decode(Whole, FULL, "")
    assert made.inner == Inner(0, "0" * 64)
    assert (made.tags, made.point, made.numbers) == (("x", "y"), (1, "z"), {0: 3, 12: 0})
    assert made.by_name == {"k k": Inner(2)}
    assert made.pairs == (Pair(1), Pair(-2, "r"))
    assert (made.data, made.any, made.either, made.own) == (b"\0\1\xff", FULL["any"], "text", Own("WORD"))
    assert list(decode(Mapping[str, int], {"z": 1, "a": 2}, "")) == ["z", "a"]  # in the document's order


def test_encoding_gives_what_decoding_takes():
    made = decode(Whole, FULL, "")
    written = json.loads(json.dumps(encode(made)))
    assert written["data"] == "AAH/"
    assert written["numbers"] == {"0": 3, "12": 0}
    assert written["own"] == "word"
    assert written["pairs"] == [{"left": 1, "right": "none"}, {"left": -2, "right": "r"}]
    assert decode(Whole, written, "") == made


def test_null_stands_for_a_key_that_may_be_missing():
    assert decode(Whole, LEAST | {"tags": None, "point": None, "either": None}, "") == decode(
        Whole, LEAST, ""
    )


WRONG = [
    ([], "expected an object, found an array"),
    (None, "expected an object, found null"),
    ({"more": 1}, "unknown key 'more'"),
    ({"name": None}, "name: expected a string, found null"),
    ({"name": 1}, "name: expected a string, found an integer"),
    ({"flag": 1}, "flag: expected true or false, found an integer"),
    ({"inner": {}}, "inner count: is missing"),
    ({"inner": {"count": True}}, "inner count: expected an integer, found true or false"),
    ({"inner": {"count": 1.0}}, "inner count: expected an integer, found a number with a fraction"),
    ({"inner": {"count": -1}}, "inner count: expected a count, found -1"),
    ({"inner": {"count": 2**63}}, "inner count: expected an integer of 64 bits, found a larger one"),
    ({"inner": {"count": 13}}, "inner: not thirteen"),
    ({"inner": {"count": 1, "digest": "0" * 63}}, "inner digest: expected 64 lower-case hexadecimal digits"),
    ({"inner": {"count": 1, "digest": "0" * 64 + "\n"}}, "inner digest: expected 64 lower-case"),
    ({"kind": "c"}, "kind: expected 'a' or 'b', found 'c'"),
    ({"kind": ["a"]}, "kind: expected 'a' or 'b', found ['a']"),
    ({"tags": "x"}, "tags: expected an array, found a string"),
    ({"tags": ["x", 1]}, "tags 1: expected a string, found an integer"),
    ({"point": [1]}, "point: expected 2 entries, found 1"),
    ({"point": ["1", "x"]}, "point 0: expected an integer, found a string"),
    ({"numbers": {"01": 1}}, "numbers 01: expected a number as the key, found '01'"),
    ({"numbers": {"²": 1}}, "numbers ²: expected a number as the key, found '²'"),
    ({"numbers": {"9" * 5000: 1}}, "expected a number as the key"),
    ({"numbers": {"1": "x"}}, "numbers 1: expected an integer, found a string"),
    ({"by_name": {"x": {"count": 1}}}, "by_name x: no x"),
    ({"by_name": {"a\nb": {}}}, r"by_name 'a\nb' count: is missing"),
    ({"pairs": [{"left": 1}, {"right": "x"}]}, "pairs 1 left: is missing"),
    ({"data": "A"}, "data: not base64"),
    ({"data": 1}, "data: expected a string, found an integer"),
    (
        {"either": 1.5},
        "either: expected true or false or an integer or a string, found a number with a fraction",
    ),
    ({"own": 3}, "own: expected a string, found an integer"),
    ({"stated": None}, "stated: expected true or false, found null"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_an_error_names_the_place_what_was_expected_and_what_was_found(change, message):
    with pytest.raises(DecodeError) as caught:
        decode(Whole, LEAST | change if isinstance(change, dict) else change, "file.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.json")


def test_a_key_that_is_required_although_it_has_a_default():
    with pytest.raises(DecodeError, match=r"^stated: is missing$"):
        decode(Whole, {key: value for key, value in LEAST.items() if key != "stated"}, "")


@pytest.mark.parametrize("change", [{"kind": "x" * 10**6}, {"x" * 10**6: 1}, {"numbers": {"x" * 10**6: 1}}])
def test_errors_are_short_whatever_the_document_says(change):
    with pytest.raises(DecodeError) as caught:
        decode(Whole, LEAST | change, "")
    assert len(str(caught.value)) < 1000


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["a", "AAH/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*FULL, "count", "digest", "left", "right", "1", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*FULL, "more"]), values, max_size=4), st.booleans())
def test_any_document_is_decoded_as_it_says_or_refused(change, based):
    document = FULL | change if based else change
    try:
        written = encode(decode(Whole, document, ""))
    except DecodeError:
        return
    for key, value in document.items():
        if value is not None and key not in ("pairs", "own", "inner", "by_name", "any"):
            assert (type(written[key]), written[key]) == (type(value), value)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_in_utf_8_with_and_without_a_byte_order_mark(mark):
    assert load_json(mark + '{"é": [1, 2.5, null]}'.encode(), "f") == {"é": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "f: not valid JSON: Expecting value"),
        (b"{", "f: not valid JSON"),
        (b"\xff\xfe{}", "f: not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0"),
        ("{}".encode("utf-16"), "f: not valid JSON"),
        (b"[" * 100_000, "f: not valid JSON: it is nested too deeply"),
        (b'{"a":' * 100_000, "f: not valid JSON: it is nested too deeply"),
        (b"1" * 5000, "f: not valid JSON: Exceeds the limit (4300 digits) for integer string conversion"),
        (
            b'[{"a": 1, "b": {"c": 1, "d": 2, "c": 1}}]',
            "f: not valid JSON: the key 'c' stands twice in one object",
        ),
    ],
)
def test_what_is_no_json_is_an_error(data, message):
    with pytest.raises(DecodeError) as caught:
        load_json(data, "f")
    assert message in str(caught.value)
    assert "sys.set_int" not in str(caught.value)
