"""Schemas: what columns can be, what roles need, and what is left without some."""

import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset.description import described_columns, parse_description
from converters.dataset.schema import (
    BASE_TYPES,
    Column,
    Schema,
    parse_type,
    type_name,
    with_derived_label,
)
from converters.errors import CallError

INT = pa.int64()
NAMES = ("a", "b", "c")
IMAGE = Column("image", pa.binary(), "image", "image_raw")
LABEL = Column("label", INT, "label", "label", NAMES)
VECTOR = Column("label_vector", parse_type("uint8[3]"), "label", "label", NAMES, kind="single-label")


@given(
    st.sampled_from([*BASE_TYPES]),
    st.sampled_from(["", "[]"]) | st.integers(1, 999_999_999).map("[{}]".format),
)
def test_every_type_has_one_name(base, form):
    kind = parse_type(base + form)
    assert type_name(kind) == base + form
    column = Column("a", kind)
    assert column.value_type == BASE_TYPES[base]
    assert column.is_list == bool(form)
    assert column.size == (1 if not form else None if form == "[]" else int(form[1:-1]))


@pytest.mark.parametrize(
    "text",
    ["", "int", "int65", "INT64", "uint64", "float", "float64", "int64[0]", "int64[01]", "int64[-1]", "int64[ ]",
     "int64[][]", "int64[", "[]", "int64]", "int64[1234567890]", "int64[٣]", "int64[]\n", " int64"],
)  # fmt: skip
def test_what_is_no_type(text):
    with pytest.raises(ValueError, match="is no type; there are binary, string"):
        parse_type(text)


REFUSED = {
    "a name twice": ((Column("a", INT), Column("a", pa.binary())), "two columns have the name 'a'"),
    "a feature twice": ((Column("a", INT, feature="f"), Column("b", INT, feature="f")), "the feature 'f'"),
    "two labels": ((LABEL, Column("other", INT, "label")), "'label' and 'other' have the role label"),
    "two heights": ((Column("h", INT, "height"), Column("g", INT, "height")), "have the role height"),
    "two file names": (
        (Column("a", INT, "file_name"), Column("b", INT, "file_name")),
        "have the role file_name",
    ),
    "an image of numbers": ((Column("a", INT, "image"),), "'a' is int64, which cannot have the role image"),
    "an image of text": ((Column("a", pa.string(), "image"),), "is string"),
    "a list of images": ((Column("a", pa.list_(pa.binary()), "image"),), r"is binary\[\]"),
    "a height of floats": ((Column("a", pa.float32(), "height"),), "cannot have the role height"),
    "a list of heights": ((Column("a", pa.list_(INT), "width"),), "cannot have the role width"),
    "a label of floats": ((Column("a", pa.float32(), "label"),), "cannot have the role label"),
    "a file name of bytes": ((Column("a", pa.binary(), "file_name"),), "cannot have the role file_name"),
    "a list of file names": (
        (Column("a", pa.list_(pa.string()), "file_name"),),
        "cannot have the role file_name",
    ),
    "names without the role": (
        (Column("a", INT, label_names=NAMES),),
        "has label names, and not the role label",
    ),
    "a kind without the role": ((Column("a", INT, kind="multi-label"),), "not the role label"),
    "names of texts": ((Column("a", pa.string(), "label", label_names=NAMES),), "are no numbers"),
    "names of bytes": ((Column("a", pa.binary(), "label", label_names=NAMES),), "cannot have the role label"),
    "fewer numbers than names": (
        (Column("a", INT, "label", label_names=NAMES, label_ids=(1, 2)),),
        "has 3 label names and 2 numbers",
    ),
    "a vector of other length": (
        (Column("a", parse_type("int64[4]"), "label", label_names=NAMES, kind="multi-label"),),
        "has 4 values in each record and 3 label names",
    ),
    "a vector of any length": (
        (Column("a", pa.list_(INT), "label", label_names=NAMES, kind="multi-label"),),
        "has None values",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_columns_that_contradict_each_other_or_themselves(name):
    columns, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        Schema(columns)


def test_several_images_and_columns_without_a_feature_are_allowed():
    schema = Schema((Column("a", pa.binary(), "image"), Column("b", pa.binary(), "image"), Column("c", INT)))
    assert [column.name for column in schema.images] == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        ([("a", "a"), ("b", "b")], "a"),
        ([("mask", "mask"), ("image", "image")], "image"),
        ([("mask", "mask"), ("picture", "image/encoded")], "picture"),
        ([("img_raw", "img_raw"), ("image_raw", "image_raw")], "image_raw"),
        ([("b", "image/encoded"), ("image", "x")], "image"),
    ],
)
def test_which_of_several_images_is_the_image(columns, first):
    schema = Schema(tuple(Column(name, pa.binary(), "image", feature) for name, feature in columns))
    assert schema.image.name == first
    assert {column.name for column in schema.images} == {name for name, _ in columns}


def test_without_an_image_or_label_there_is_none():
    schema = Schema((Column("a", INT),))
    assert (schema.image, schema.label, schema.derived, schema.images) == (None, None, None, ())


# --- The derived label -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "kind", "nullable"),
    [
        (VECTOR, INT, False),
        (Column("v", parse_type("int64[3]"), "label", "v", NAMES, kind="multi-label"), pa.list_(INT), False),
        (
            Column("v", parse_type("int64[3]"), "label", "v", NAMES, kind="single-label", unlabelled=True),
            INT,
            True,
        ),
        (Column("v", INT, "label", "v", NAMES, label_ids=(3, 5, 9)), INT, False),
        (Column("v", INT, "label", "v", NAMES, label_ids=(3, 5, 9), nullable=True), INT, True),
        (Column("v", pa.list_(INT), "label", "v", NAMES, label_ids=(3, 5, 9)), pa.list_(INT), False),
    ],
)
def test_a_label_that_is_not_the_plain_number_has_a_derived_one(label, kind, nullable):
    schema = with_derived_label((IMAGE, label, Column("z", INT)))
    assert [column.name for column in schema] == ["image", "label", label.name, "z"]
    derived = schema.derived
    assert (derived.type, derived.nullable, derived.feature, derived.role) == (kind, nullable, None, "label")
    assert derived.label_names == NAMES
    assert schema.label == label  # the stored one
    assert schema.arrow.names == ["image", label.name, "z"]  # batches have what is stored


@pytest.mark.parametrize(
    "label",
    [
        LABEL,
        Column("x", INT, "label"),
        Column("x", pa.string(), "label"),
        Column("x", pa.list_(INT), "label", "x", NAMES),
    ],
)
def test_a_plain_label_has_none(label):
    assert with_derived_label((IMAGE, label)) == Schema((IMAGE, label))


def test_nothing_is_derived_onto_a_name_that_is_taken():
    for columns in (
        (Column("label", VECTOR.type, "label", "f", NAMES, kind="single-label"),),
        (VECTOR, Column("label", INT)),
    ):
        with pytest.raises(ValueError, match="the column 'label' is derived"):
            with_derived_label(columns)


# --- Without some ------------------------------------------------------------------------------------------

FULL = with_derived_label(
    (IMAGE, VECTOR, Column("height", INT, "height", "height"), Column("name", pa.string(), feature="n"))
)


@pytest.mark.parametrize(
    ("without", "left"),
    [
        (["name"], ["image", "label", "label_vector", "height"]),
        (["n"], ["image", "label", "label_vector", "height"]),  # by its feature
        (["image_raw", "name"], ["label", "label_vector", "height"]),
        (["label_vector"], ["image", "height", "name"]),  # and what is derived from it
        (["label_vector", "label"], ["image", "height", "name"]),
        (["image", "label_vector", "height"], ["name"]),
    ],
)
def test_columns_are_left_out_by_their_names_or_those_of_their_features(without, left):
    assert [column.name for column in FULL.without(without)] == left


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (["nmae"], "--without nmae: there is no such column; there are image, label_vector, height, name"),
        (["image", "label_vector", "height", "name"], "--without leaves no column"),
    ],
)
def test_what_cannot_be_left_out(without, message):
    with pytest.raises(CallError, match=message):
        FULL.without(without)


def test_a_derived_label_is_not_left_out_alone():
    """Its number would still be told by the vector: what was asked for would not be done."""
    schema = with_derived_label(
        (IMAGE, Column("vector", VECTOR.type, "label", "f", NAMES, kind="single-label"))
    )
    with pytest.raises(CallError, match="--without label: it follows from vector; name that instead"):
        schema.without(["label"])


def test_joined_columns_stand_last():
    schema = FULL.joined({"img_id": "A name.", "clip_id": ""})
    assert [column.name for column in schema][-2:] == ["img_id", "clip_id"]
    assert schema["img_id"].type == pa.string()
    assert schema["img_id"].feature is None
    assert "img_id" in schema
    assert "img_id" not in FULL
    assert schema.without(["img_id", "clip_id"]) == FULL
    assert (FULL.joined_names, schema.joined_names) == (frozenset(), {"img_id", "clip_id"})
    with pytest.raises(CallError, match="--labels joins a column 'name'; the dataset has one already"):
        FULL.joined({"name": ""})


# --- There and back ----------------------------------------------------------------------------------------


def test_a_schema_goes_to_other_processes():
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert FULL.arrow  # a cached property
    assert pickle.loads(pickle.dumps(FULL)) == FULL


@pytest.mark.parametrize(
    "columns",
    [
        FULL.stored,
        (Column("x", INT, feature="x", nullable=True), Column("y", parse_type("float32[]"), feature="z")),
        (
            Column("x", INT, "label", "x", NAMES, (1, 5, 90)),
            Column("n", INT, "file_name", "n", meaning="A name."),
        ),
        (Column("x", parse_type("int8[3]"), "label", "x", NAMES, kind="single-label", unlabelled=True),),
    ],
)
def test_a_description_of_a_schema_is_that_schema(columns):
    schema = with_derived_label(columns)
    document = {"columns": described_columns(schema), "configs": {"c": {"splits": {"train": {"file": "f"}}}}}
    assert parse_description(document, "x").configs[0].schema.stored == schema.stored


def test_the_manifest_s_columns():
    vector = FULL["label_vector"].to_json()
    assert vector == {
        "name": "label_vector", "feature": "label", "derived": False, "type": "uint8[3]", "role": "label",
        "label_names": ["a", "b", "c"], "label_ids": None, "kind": "single-label", "nullable": False,
    }  # fmt: skip
    assert FULL["label"].to_json()["derived"] is True
    assert FULL["name"].to_json()["label_names"] is None
