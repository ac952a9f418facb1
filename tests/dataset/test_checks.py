"""The promise of each role: what is let through, and which record is named where it is broken."""

from io import BytesIO

import pyarrow as pa
import pytest
from PIL import Image

from converters.dataset.checks import RecordChecker
from converters.dataset.schema import Column, Schema, parse_type
from converters.errors import DataError, Location

NAMES = ("a", "b", "c")


def encoded(encoding: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (8, 6), **options) -> bytes:
    file = BytesIO()
    Image.new(mode, size).save(file, encoding, **options)
    return file.getvalue()


JPEG = encoded()
IMAGE = Column("image", pa.binary(), "image", "image_raw")


def check(columns: tuple[Column, ...], *, decode: bool = False, **rows: list) -> None:
    """Check records, which stand after two others, in a slice."""
    schema = Schema(columns)
    whole = {name: [values[0], values[0], *values] for name, values in rows.items()}
    batch = pa.RecordBatch.from_pydict(whole, schema=schema.arrow).slice(2)
    RecordChecker(schema, decode=decode).check(batch, lambda row: Location("file", 100 + row))


def refused(message: str, row: int, columns: tuple[Column, ...], **rows: list) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check(columns, **rows)
    assert caught.value.at.record == 100 + row


def test_columns_without_a_role_promise_nothing():
    check((Column("a", pa.binary()), Column("b", pa.int64())), a=[b"x", b"", None], b=[None, -1, 7])


# --- Images and their sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_image_of_any_encoding(encoding):
    check((IMAGE,), image=[encoded(encoding), JPEG], decode=True)


@pytest.mark.parametrize(
    "wrong", [b"", b"\xff", b"no image", JPEG[:-1], encoded("PNG")[:-5], JPEG[:40]], ids=range(6)
)
def test_what_is_no_complete_image(wrong):
    refused("^.*image", 1, (IMAGE,), image=[JPEG, wrong, JPEG])


def test_an_image_may_be_null_where_the_column_may():
    """Whether it may is for whoever made the batch to say."""
    check((Column("image", pa.binary(), "image", nullable=True),), image=[JPEG, None])


def test_all_image_columns_are_images():
    columns = (IMAGE, Column("mask", pa.binary(), "image"))
    check(columns, image=[JPEG], mask=[encoded("PNG", "L", (3, 3))])
    refused("mask: ", 1, columns, image=[JPEG, JPEG], mask=[JPEG, b"x"])


def test_only_decoding_finds_pixels_that_are_damaged():
    png = bytearray(encoded("PNG", size=(64, 64)))
    at = png.index(b"IDAT") + 10
    png[at : at + 20] = bytes(20)
    check((IMAGE,), image=[JPEG, bytes(png)])
    with pytest.raises(DataError, match="cannot be decoded") as caught:
        check((IMAGE,), image=[JPEG, bytes(png)], decode=True)
    assert caught.value.at.record == 101


@pytest.mark.parametrize("role", ["height", "width", "depth"])
@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
def test_each_size_is_the_header_s(role, kind):
    columns = (IMAGE, Column("size", parse_type(kind), role))
    there = {"height": 6, "width": 8, "depth": 3}[role]
    check(columns, image=[JPEG, JPEG], size=[there, there])
    message = rf"header says height, width, depth \(6, 8, 3\); the record says {role} {there + 1}"
    refused(message, 1, columns, image=[JPEG, JPEG, JPEG], size=[there, there + 1, there + 1])


def test_sizes_are_the_first_image_s():
    columns = (Column("mask", pa.binary(), "image"), IMAGE, Column("height", pa.int64(), "height"))
    small = encoded("PNG", "L", (3, 3))
    check(columns, mask=[small], image=[JPEG], height=[6])
    refused("the record says height 3", 0, columns, mask=[small], image=[JPEG], height=[3])


def test_a_size_without_an_image_or_without_a_value_says_nothing():
    nullable = Column("height", pa.int64(), "height", nullable=True)
    image = Column("image", pa.binary(), "image", nullable=True)
    check((image, nullable), image=[JPEG, None, JPEG], height=[6, 9, None])
    check((nullable,), height=[1, 2])


# --- Labels ------------------------------------------------------------------------------------------------


def vector(kind: str, **more) -> Column:
    return Column("label", parse_type("int64[3]"), "label", "f", NAMES, kind=kind, **more)


@pytest.mark.parametrize(
    ("column", "sound", "wrong", "message"),
    [
        (
            vector("single-label"),
            [1, 0, 0],
            [1, 1, 0],
            "2 labels are set; a single-label config has exactly one",
        ),
        (
            vector("single-label"),
            [0, 0, 1],
            [0, 0, 0],
            "0 labels are set; a single-label config has exactly one",
        ),
        (vector("single-label", unlabelled=True), [0, 0, 0], [0, 1, 1], "2 labels are set"),
        (
            vector("multi-label"),
            [1, 1, 1],
            [0, 0, 0],
            "0 labels are set; a multi-label config has at least one",
        ),
        (vector("multi-label"), [1, 0, 1], [0, 2, 0], "'f' has the value 2, expected 0 or 1"),
        (vector("multi-label"), [1, 0, 1], [0, -1, 2], "has the value -1"),
        (vector("multi-label", unlabelled=True), [0, 0, 0], [0, 0, 256], "has the value 256"),
        (vector("single-label", nullable=True), None, [0, 0, 0], "0 labels are set"),
    ],
)
def test_label_vectors(column, sound, wrong, message):
    check((column,), label=[sound, sound])
    refused(message, 1, (column,), label=[sound, wrong, sound])
    refused(message, 2, (column,), label=[sound, sound, wrong, wrong])


def number(type_text: str = "int64", **more) -> Column:
    return Column("label", parse_type(type_text), "label", "f", NAMES, **more)


@pytest.mark.parametrize(
    ("column", "sound", "wrong"),
    [
        (number(), [0, 2, -1], 3),  # -1 is unlabelled, as TensorFlow Datasets has it
        (number(), [0], -2),
        (number("uint8"), [2], 255),
        (number(label_ids=(1, 5, 90)), [1, 90, -1], 0),
        (number(label_ids=(1, 5, 90)), [5], 91),
        (number("int64[]"), [[0, 1, 2, 0], [], None], [0, 3]),
        (number("int64[2]"), [[0, 1]], [3, 0]),
    ],
)
def test_label_numbers_have_names(column, sound, wrong):
    check((column,), label=sound)
    bad = wrong if not isinstance(wrong, list) else max(wrong)
    refused(
        rf"^.*label: the label {bad} has no name; the description has 3 names",
        len(sound),
        (column,),
        label=[*sound, wrong],
    )


def test_labels_without_names_may_be_anything():
    check((Column("label", pa.int64(), "label"),), label=[-5, 2**40])
    check((Column("label", pa.string(), "label"),), label=["x", ""])


# --- File names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "con", "a ", "-x", "a\nb", "x" * 300])
def test_a_file_name_never_leaves_its_folder(name):
    column = Column("name", pa.string(), "file_name")
    refused("the file name", 1, (column,), name=["a.jpg", name])


def test_file_names_that_are_safe():
    check((Column("name", pa.string(), "file_name"),), name=["a.jpg", "슬픔", "a b"])
    check((Column("name", pa.int64(), "file_name"),), name=[0, 2**63 - 1])
