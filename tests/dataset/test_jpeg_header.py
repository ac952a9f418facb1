"""Sizes of JPEGs: Pillow's word against ours, one by one and in batches."""

import io
import random
import struct

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from converters.dataset.arrays import binary_array, binary_parts
from converters.dataset.jpeg_header import ImageError, JpegSizes, read_jpeg_header


def jpeg(width=16, height=24, mode="RGB", seed=0, exif=False, **options) -> bytes:
    chance = np.random.default_rng(seed)
    channels = {"RGB": (3,), "L": (), "CMYK": (4,)}[mode]
    pixels = chance.integers(0, 256, (height, width, *channels), np.uint8)
    if exif:
        tags = Image.Exif()
        tags[0x010E] = "a description that takes some bytes"
        options["exif"] = tags
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "JPEG", **options)
    return out.getvalue()


KINDS = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "grey": jpeg(mode="L"),
    "cmyk": jpeg(mode="CMYK"),
    "exif": jpeg(exif=True),
    "comment": jpeg(comment=b"a comment \xff\xd9 with an end marker in it"),
    "icc": jpeg(icc_profile=bytes(70_000)),
    "optimised": jpeg(optimize=True, quality=30),
    "restart": jpeg(restart_marker_blocks=1),
    "wide": jpeg(width=3000, height=2),
    "high": jpeg(width=1, height=1500),
    "one": jpeg(width=1, height=1),
    "subsampled": jpeg(subsampling=2),
}


def pillow(data: bytes) -> tuple[int, int, int]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.height, image.width, len(image.getbands())


def read(reader: JpegSizes, images: pa.Array) -> np.ndarray:
    offsets, data = binary_parts(images)
    found = np.zeros((len(images), 3), np.int32)
    reader.fill(found, np.arange(len(images)), offsets, data)
    for row in np.flatnonzero((found == 0).all(axis=1)).tolist():
        try:
            read_jpeg_header(data[offsets[row] : offsets[row + 1]].tobytes())
        except ImageError as error:
            raise ImageError(error.message, row) from None
    return found


def sizes(images: list[bytes], reader: JpegSizes | None = None) -> list[tuple[int, ...]]:
    found = read(reader or JpegSizes(), binary_array(images))
    assert found.dtype == np.int32
    assert found.shape == (len(images), 3)
    return [tuple(row) for row in found.tolist()]


def alone(images: list[bytes]):
    """What the single reader says of each: the sizes, or the first error with its row."""
    found = []
    for row, data in enumerate(images):
        try:
            found.append(read_jpeg_header(data).size)
        except ImageError as error:
            return row, error.message
    return found


def together(images: list[bytes], reader: JpegSizes | None = None):
    try:
        return sizes(images, reader)
    except ImageError as error:
        return error.row, error.message


@pytest.mark.parametrize("kind", KINDS)
def test_pillow_agrees(kind):
    assert read_jpeg_header(KINDS[kind]).size == pillow(KINDS[kind])
    assert read_jpeg_header(memoryview(KINDS[kind])).size == pillow(KINDS[kind])
    assert sizes([KINDS[kind]] * 3) == [pillow(KINDS[kind])] * 3


def test_the_header_says_where_its_parts_are():
    for data in KINDS.values():
        header = read_jpeg_header(data)
        assert all(data[position] == 0xFF for position in header.segments)
        assert data[header.frame] == 0xFF
        assert data[header.frame + 1] in (0xC0, 0xC1, 0xC2)
        height, width, components = struct.unpack(">HHB", data[header.frame + 5 : header.frame + 10])
        assert (height, width, components) == header.size
        assert data[header.end] == 0xFF  # the next segment


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "icc"])
def test_every_truncation_is_an_error(kind):
    data = KINDS[kind]
    step = max(1, len(data) // 600)
    for end in [*range(0, len(data) - 40, step), *range(max(0, len(data) - 40), len(data))]:
        with pytest.raises(ImageError) as caught:
            read_jpeg_header(data[:end])
        assert caught.value.message
        assert together([data, data[:end]]) == (1, caught.value.message)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n" + bytes(50),
     b"GIF89a" + bytes(50), bytes(100), b"\xff\xd8" + bytes(100), b"\xff\xd8" + b"\xff" * 100,
     b"\xff\xd8\xff\xe0\x00\x01" + bytes(100),
     b"\xff\xd8\xff\xe0\xff\xff" + bytes(100), b"\xff\xd8\xff\xda\x00\x08" + bytes(100) + b"\xff\xd9",
     b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000, KINDS["baseline"][1:], b"\0" + KINDS["baseline"],
     b"\xff\xd8\xff\xc0\x00\x08\x08\x00\x01\x00\x01\x03\xff\xd9",
     b"\xff\xd8\xff\xc0\x00\x02\xff\xd9"],
    ids=range(18),
)  # fmt: skip
def test_what_is_no_jpeg_is_an_error(data):
    with pytest.raises(ImageError) as caught:
        read_jpeg_header(data)
    sound = KINDS["baseline"]
    for images in ([data], [sound, data], [sound, sound, data]):
        assert together(images) == (len(images) - 1, caught.value.message)


def test_fill_bytes_before_a_marker_are_allowed():
    """T.81, B.1.1.2: any marker may be preceded by any number of fill bytes 0xFF."""
    data = KINDS["baseline"]
    for fill in (1, 2, 5):
        frame = read_jpeg_header(data).frame
        for spot in (2, frame):
            filled = data[:spot] + b"\xff" * fill + data[spot:]
            assert pillow(filled) == pillow(data)
            assert sizes([filled, filled, data]) == [pillow(data)] * 3


def test_an_image_with_something_else_for_a_learnt_fill_byte_is_an_error():
    data = KINDS["baseline"]
    for spot in (2, read_jpeg_header(data).frame):
        filled, broken = (data[:spot] + fill + data[spot:] for fill in (b"\xff", b"\x00"))
        with pytest.raises(ImageError) as caught:
            read_jpeg_header(broken)
        assert together([filled, broken]) == (1, caught.value.message)


def test_bytes_after_the_end_marker_are_allowed():
    data = KINDS["baseline"]
    assert sizes([data, data + bytes(9), data]) == [pillow(data)] * 3


def test_a_mixed_batch():
    images = [jpeg(width=8 + seed % 5, height=8 + seed % 3, seed=seed) for seed in range(30)] + list(
        KINDS.values()
    )
    random.Random(2).shuffle(images)
    expected = [pillow(image) for image in images]
    reader = JpegSizes()
    assert sizes(images, reader) == expected
    assert sizes(images[::-1], reader) == expected[::-1]
    # A slice of an array has offsets that do not start at 0.
    assert [tuple(row) for row in read(reader, binary_array(images).slice(7, 20)).tolist()] == expected[7:27]


def test_an_empty_batch():
    assert sizes([]) == []
    reader = JpegSizes()
    sizes([KINDS["baseline"]], reader)
    assert sizes([], reader) == []
    assert together([b"", b""], reader) == alone([b"", b""])


def test_a_batch_gives_what_each_image_alone_gives():
    """Damage of every kind, in batches with images that teach the layout."""
    chance = random.Random(7)
    pool = [data for kind, data in KINDS.items() if kind not in ("icc", "wide")]
    for _ in range(400):
        images = []
        for _ in range(chance.randint(1, 6)):
            data = bytearray(chance.choice(pool[:3] if chance.random() < 0.8 else pool))
            damage = chance.random()
            end = read_jpeg_header(bytes(data)).end
            if damage < 0.3:
                data[chance.randrange(end)] ^= 1 << chance.randrange(8)
            elif damage < 0.4:
                del data[chance.randrange(len(data)) :]
            elif damage < 0.5:
                data[-chance.randint(1, 4)] ^= 0xFF
            elif damage < 0.6:
                data.insert(chance.randrange(end), chance.choice([0, 0xFF, 0xC0]))
            elif damage < 0.65:
                del data[chance.randrange(end)]
            images.append(bytes(data))
        assert together(images) == alone(images)
        reader = JpegSizes()
        together([pool[0]], reader)
        assert together(images, reader) == alone(images)


def test_every_bit_of_a_header_flipped():
    data = KINDS["baseline"]
    reader = JpegSizes()
    sizes([data], reader)
    for position in range(read_jpeg_header(data).end):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            images = [data, bytes(changed), data]
            assert together(images) == alone(images), (position, bit)
