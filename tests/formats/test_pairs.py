"""Every layout becomes every other, and nothing changes on the way: all pairs, on a dataset like KFER and on others."""

import importlib.util
import json

import pytest
from helpers.unlike_kfer import make

from converters import convert, verify
from converters.formats import available_formats

NEEDS = {"arrayrecord": "array_record", "lance": "lance"}
LAYOUTS = [
    name
    for name, entry in available_formats().items()
    if entry.value.startswith("converters.")
    and (name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None)
]
# What some layout cannot hold: lists of bytes, bytes in text, names with dots.
LEFT_OUT = ["masks", "raw", "a.b", "image.bytes"]


@pytest.fixture(scope="module", params=["like KFER", "detection", "labels of other numbers"])
def dataset(request, sample, tmp_path_factory):
    """A source, and the options with which all layouts hold it."""
    if request.param == "like KFER":
        return sample, {"configs": ["22_emo"], "labels": sample / "labels"}
    folder = tmp_path_factory.mktemp("unlike") / "source"
    make(folder)
    if request.param == "detection":
        return folder, {"configs": ["detection"], "without": LEFT_OUT}
    return folder, {"configs": ["numbered"]}


@pytest.fixture(scope="module")
def firsts(dataset, tmp_path_factory):
    """The dataset in each layout, from the source."""
    source, options = dataset
    root = tmp_path_factory.mktemp("firsts")
    for layout in LAYOUTS:
        convert(source, to=layout, out=root / layout, **options)
    return root


def fingerprints(out) -> list[dict]:
    splits = json.loads((out / "MANIFEST.json").read_text("utf-8"))["splits"]
    return [split["fingerprint"] for split in splits]


@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
def test_any_layout_becomes_any_other(firsts, dataset, first, second, tmp_path):
    convert(firsts / first, to=second, out=tmp_path / "out")
    assert fingerprints(tmp_path / "out") == fingerprints(firsts / first) == fingerprints(firsts / "parquet")
    assert not verify(tmp_path / "out", source=firsts / first).failures()
    # Files, too, are those that the layout has when it is made from the source, but for what says where it is from.
    for path in sorted((firsts / second).rglob("*")):
        if path.is_file() and path.parent != firsts / second:
            assert (tmp_path / "out" / path.relative_to(firsts / second)).read_bytes() == path.read_bytes()
