"""Headers of images of every encoding: Pillow's and TensorFlow's word against ours, one by one and in batches."""

import io
import random
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from converters.dataset import image_header
from converters.dataset.arrays import binary_array
from converters.dataset.image_header import (
    ENCODINGS,
    NO_IMAGE,
    SUFFIXES,
    ImageError,
    ImageHeaderReader,
    decode_fully,
    read_header,
    sniff,
)

# The depth of what Pillow writes of an image in each of its modes.
DEPTHS = {
    "jpeg": {"L": 1, "RGB": 3, "CMYK": 4},
    "png": {"1": 1, "L": 1, "LA": 2, "P": 3, "RGB": 3, "RGBA": 4, "I;16": 1},
    "webp": {"RGB": 3, "RGBA": 4},
    "gif": {"1": 3, "L": 3, "P": 3, "RGB": 3, "RGBA": 3},
    "bmp": {"1": 1, "L": 1, "P": 1, "RGB": 3, "RGBA": 4},
    "tiff": {"1": 1, "L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "LAB": 3, "F": 1, "I;16": 1},
}
PAIRS = [(encoding, mode) for encoding, modes in DEPTHS.items() for mode in modes]


def picture(mode: str, width: int = 13, height: int = 7, seed: int = 0) -> Image.Image:
    """An image of noise; where it has an alpha channel, parts of it are transparent."""
    chance = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(chance.integers(0, 1 << 16, (height, width), np.uint16))
    if mode == "LAB":
        return Image.frombytes("LAB", (width, height), chance.bytes(3 * width * height))
    pixels = Image.fromarray(chance.integers(0, 250, (height, width, 4), np.uint8), "RGBA")
    return pixels.convert(mode) if mode in ("RGBA", "LA") else pixels.convert("RGB").convert(mode)


def encoded(encoding: str, mode: str = "RGB", width: int = 13, height: int = 7, seed: int = 0, **options):
    out = io.BytesIO()
    picture(mode, width, height, seed).save(out, encoding, **options)
    return out.getvalue()


def animated(encoding: str, frames: int = 3, **options) -> bytes:
    others = [picture("RGB", seed=seed) for seed in range(1, frames)]
    return encoded(encoding, save_all=True, append_images=others, **options)


def bmp(width=13, height=7, bits=24, core=False, top_down=False, file_size=None, compression=0) -> bytes:
    palette = b"".join(
        bytes([value] * 3) + b"\0" * (not core) for value in range(1 << bits if bits <= 8 else 0)
    )
    pixels = bytes((width * bits + 31) // 32 * 4 * height)
    if core:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        rows = -height if top_down else height
        header = struct.pack("<IiiHHIIiiII", 40, width, rows, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    start = 14 + len(header) + len(palette)
    size = start + len(pixels) if file_size is None else file_size
    return struct.pack("<2sI4xI", b"BM", size, start) + header + palette + pixels


GREY = (
    (256, 3, 13),
    (257, 4, 7),
    (258, 3, 8),
    (259, 3, 1),
    (262, 3, 1),
    (273, 4, 8),
    (278, 4, 7),
    (279, 4, 91),
)


def tiff(order: str = "<", big: bool = False, tags=GREY) -> bytes:
    """A TIFF's header and first directory, of a grey image of 13 by 7; it has no pixels."""
    magic = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(tags)) if big else struct.pack(
        order + "HIH", 42, 8, len(tags)
    )  # fmt: skip
    number = {3: "H", 4: "I", 16: "Q"}
    entries = [
        struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, 1)
        + struct.pack(order + number[kind], value).ljust(8 if big else 4, b"\0")
        for tag, kind, value in tags
    ]
    return magic + head + b"".join(entries) + bytes(8 if big else 4)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width=13, height=7, bits=8, colour=2, rest=(0, 0, 0), chunks=b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, *rest))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + chunk(b"IDAT", b"?") + chunk(b"IEND")


def mpo() -> bytes:
    return encoded("MPO", save_all=True, append_images=[picture("RGB", seed=1)])


def gif(screen: tuple[int, int]) -> bytes:
    """A GIF of one frame of 13 by 7 on a screen of another width and height."""
    data = encoded("gif", "P")
    return data[:6] + struct.pack("<HH", *screen) + data[10:]


PLAIN = {f"{encoding} {mode}": encoded(encoding, mode) for encoding, mode in PAIRS}
# Oddities that Pillow takes, and TensorFlow too where it reads the encoding.
ODD = {
    "jpeg, padding": (encoded("jpeg") + bytes(4), 3),
    "jpeg, progressive": (encoded("jpeg", progressive=True), 3),
    "jpeg, several pictures": (mpo(), 3),
    "png, interlaced": (png(rest=(0, 0, 1)), 3),
    "png, trailing bytes": (encoded("png") + b"tail" * 5, 3),
    "png, palette, transparent": (encoded("png", "P", transparency=0), 4),
    "png, grey, transparent": (encoded("png", "L", transparency=0), 1),
    "png, RGB, transparent": (encoded("png", transparency=(1, 2, 3)), 3),
    "png, animated": (animated("png"), 3),
    "png, text before the palette": (encoded("png", "P", transparency=0, icc_profile=bytes(500)), 4),
    "gif, small screen": (gif((5, 5)), 3),
    "gif, no screen": (gif((0, 0)), 3),
    "gif, no trailer": (encoded("gif")[:-1], 3),
    "gif, trailing bytes": (encoded("gif") + bytes(3), 3),
    "gif, animated": (animated("gif", comment=b"a comment" * 100), 3),
    "webp, lossless": (encoded("webp", lossless=True), 3),
    "webp, lossless, alpha": (encoded("webp", "RGBA", lossless=True), 4),
    "webp, profile": (encoded("webp", icc_profile=bytes(100)), 3),
    "webp, lossless, alpha, profile": (encoded("webp", "RGBA", lossless=True, icc_profile=bytes(100)), 4),
    "webp, animated": (animated("webp"), 3),
    "webp, trailing bytes": (encoded("webp") + bytes(3), 3),
    "bmp, 4 bits": (bmp(bits=4), 1),
    "bmp, 16 bits": (bmp(bits=16), 3),
    "bmp, top down": (bmp(top_down=True), 3),
    "bmp, OS/2": (bmp(core=True), 3),
    "bmp, OS/2, 8 bits": (bmp(core=True, bits=8), 1),
    "bmp, no file size": (bmp(file_size=0), 3),
    "bmp, last row without padding": (bmp()[:-1], 3),
    "bmp, trailing bytes": (bmp() + bytes(3), 3),
    "tiff, big-endian": (tiff(">"), 1),
    "tiff, BigTIFF": (encoded("tiff", big_tiff=True), 3),
    "tiff, several pages": (animated("tiff"), 3),
    "tiff, deflated": (encoded("tiff", compression="tiff_adobe_deflate"), 3),
}


def pillow(data: bytes) -> tuple[str, int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return ("jpeg" if image.format == "MPO" else image.format.lower()), image.height, image.width


def alone(images: list[bytes | None]):
    """What the single reader says of each; None where it refuses."""
    found = []
    for data in images:
        try:
            found.append(None if data is None else read_header(data))
        except ImageError:
            found.append(None)
    return found


def together(images: list[bytes | None] | pa.Array, reader: ImageHeaderReader | None = None):
    headers = (reader or ImageHeaderReader()).try_read(
        images if isinstance(images, pa.Array) else pa.array(images, pa.binary())
    )
    assert headers.encodings.dtype == np.uint8
    assert headers.sizes.dtype == np.int32
    assert headers.sizes.shape == (len(images), 3)
    assert (headers.sizes[headers.encodings == NO_IMAGE] == 0).all()
    return [
        None if code == NO_IMAGE else (ENCODINGS[code], tuple(size))
        for code, size in zip(headers.encodings.tolist(), headers.sizes.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("encoding", "mode"), PAIRS)
def test_what_pillow_writes(encoding, mode):
    data = PLAIN[f"{encoding} {mode}"]
    expected = (encoding, (7, 13, DEPTHS[encoding][mode]))
    assert pillow(data) == (encoding, 7, 13)
    assert read_header(data) == read_header(memoryview(data)) == expected
    assert sniff(data) == encoding
    assert together([data] * 3) == [expected] * 3
    decode_fully(data)


@pytest.mark.parametrize("kind", ODD)
def test_harmless_oddities(kind):
    data, depth = ODD[kind]
    assert pillow(data) == (kind.split(",")[0], 7, 13)
    assert read_header(data) == (kind.split(",")[0], (7, 13, depth))
    assert together([data, data]) == alone([data, data])


def test_a_gif_screen_larger_than_its_first_frame():
    assert pillow(gif((20, 30))) == ("gif", 30, 20)
    assert read_header(gif((20, 30))) == ("gif", (30, 20, 3))


def test_depths_are_tensorflows():
    tensorflow = pytest.importorskip("tensorflow")
    # CMYK is the one exception. Its decoder ends the process for an animated WebP.
    images = {kind: data for kind, data in PLAIN.items() if kind != "jpeg CMYK"}
    images |= {kind: data for kind, (data, _) in ODD.items() if kind != "webp, animated"}
    images = {
        kind: data for kind, data in images.items() if not kind.startswith(("bmp", "tiff", "png, interlaced"))
    }
    images |= {f"bmp {bits}": bmp(bits=bits) for bits in (8, 24, 32)} | {"bmp top": bmp(top_down=True)}
    for kind, data in images.items():
        decode = getattr(tensorflow.image, f"decode_{kind[:4].strip(' ,')}")
        assert tuple(decode(data).shape[-3:]) == read_header(data)[1], kind


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(PAIRS), st.integers(1, 300), st.integers(1, 60), st.integers(0, 9)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_sizes_are_pillows(wanted):
    images = [encoded(*pair, width, height, seed) for pair, width, height, seed in wanted]
    found = together(images)
    assert found == alone(images)
    for (encoding, (height, width, depth)), data, (pair, *_) in zip(found, images, wanted, strict=True):
        assert (encoding, height, width) == pillow(data)
        assert depth == DEPTHS[encoding][pair[1]]


def test_thousands_of_sizes():
    chance = random.Random(3)
    images, expected = [], []
    for _ in range(3000):
        encoding, mode = chance.choice(PAIRS[:-2])
        width, height = chance.choice([(chance.randint(1, 64), chance.randint(1, 64)), (1, 700), (700, 1)])
        out = io.BytesIO()
        Image.new(mode, (width, height)).save(out, encoding)
        images.append(out.getvalue())
        depth = (
            3 if (encoding, mode) == ("webp", "RGBA") and not image_has_alpha(out) else DEPTHS[encoding][mode]
        )
        expected.append((encoding, (height, width, depth)))
    assert together(images) == expected
    assert [(encoding, *size[:2]) for encoding, size in expected] == list(map(pillow, images))


def image_has_alpha(file: io.BytesIO) -> bool:
    with Image.open(file) as image:
        return image.mode == "RGBA"


def test_large_sizes_are_read_and_not_drawn():
    assert read_header(png(2**31 - 1, 2**31 - 1)) == ("png", (2**31 - 1, 2**31 - 1, 3))
    for big in (False, True):
        for order in "<>":
            assert read_header(tiff(order, big, ((256, 3, 5), (257, 4, 6), (277, 3, 9)))) == (
                "tiff",
                (6, 5, 9),
            )
    # Of a tag that stands twice, the first counts, as for libtiff.
    assert read_header(tiff(tags=((256, 3, 5), (257, 3, 6), (256, 3, 7)))) == ("tiff", (6, 5, 1))
    assert read_header(tiff(big=True, tags=((256, 16, 5), (257, 16, 6)))) == ("tiff", (6, 5, 1))
    assert read_header(tiff(tags=((256, 4, 2**31 - 1), (257, 3, 65535)))) == ("tiff", (65535, 2**31 - 1, 1))
    for data in (png(2**31, 1), png(0, 1), png(1, 0), tiff(tags=((256, 4, 2**31), (257, 3, 1))), tiff(tags=()),
                 bmp(0), bmp(13, 0), gif((0, 0))[:10] + b"\0\0\0" + b"\x2c" + bytes(9),
                 tiff(tags=((256, 3, 1), (257, 3, 1), (277, 3, 0)))):  # fmt: skip
        with pytest.raises(ImageError):
            read_header(data)
        assert together([data, PLAIN["png L"]]) == [None, ("png", (7, 13, 1))]


NO_IMAGES = {
    "": "starts with nothing",
    "a text": "starts with 61 20 74 65",
    "BM": "starts as bmp",
    "BMW, and some other makes of cars.xml": "bmp, but its header is malformed",
    "GIF89a is a format that this text is about": "gif, but its header is malformed",
    "RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + "\0" * 40: "webp, but its header is malformed",
    "II*\0\x08\0\0\0": "starts as tiff, but ends",
    "\0\0\0\x0cjP  \r\n\x87\n" + "\0" * 40: "it is JPEG 2000",
    "\0\0\0\x20ftypavif" + "\0" * 40: "it is AVIF",
    "\0\0\0\x20ftypheic" + "\0" * 40: "it is HEIC",
    "\xff\xd8\xff\xd9": "before its JPEG frame header.",
    "\xff\xd8\xff\xc0\x00\x0b\x08\0\0\0\x01\x01\x01\x11\0\xff\xd9": "(0, 1, 1), which no image has",
}


@pytest.mark.parametrize("text", NO_IMAGES)
def test_what_is_no_image_says_what_it_is(text):
    data = text.encode("latin-1")
    assert sniff(data) is None
    for images in ([data], [None, PLAIN["png L"], data, b""]):
        with pytest.raises(ImageError) as caught:
            ImageHeaderReader().read(pa.array(images, pa.binary()))
        assert NO_IMAGES[text] in caught.value.message
        assert caught.value.row == images.index(data)


@pytest.mark.parametrize(
    "data",
    [png(bits=4), png(colour=1), png(colour=3, bits=16), png(rest=(1, 0, 0)), png(rest=(0, 1, 0)),
     png(rest=(0, 0, 2)), png()[:16] + bytes([1]) + png()[17:], png()[:4] + b"\n\n" + png()[6:],
     png()[:11] + b"\x0e" + png()[12:], png()[:-1] + b"?", bmp(bits=7), bmp(core=True)[:14] + b"\x0d" + bmp()[15:],
     encoded("webp")[:23] + b"?" + encoded("webp")[24:], encoded("webp")[:4] + bytes(4) + encoded("webp")[8:],
     encoded("webp", lossless=True)[:20] + b"?" + encoded("webp", lossless=True)[21:]],
    ids=range(15),
)  # fmt: skip
def test_malformed_headers(data):
    with pytest.raises(ImageError):
        read_header(data)
    assert together([data, png(), data]) == alone([data, png(), data]) == [None, ("png", (7, 13, 3)), None]


@pytest.mark.parametrize("kind", [*PLAIN, *ODD])
def test_every_truncation(kind):
    """Files that are cut short are refused where their encoding says where they end; nothing else is raised."""
    data = PLAIN[kind] if kind in PLAIN else ODD[kind][0]
    cuts = [data[:end] for end in range(0, len(data), max(1, len(data) // 300))]
    found = alone(cuts)
    assert together(cuts) == found
    tail = 26 if "trailing" in kind or "padding" in kind or "several" in kind else 4  # the last row of a BMP
    if not kind.startswith(("gif", "tiff")) and "several" not in kind:
        assert all(one is None for cut, one in zip(cuts, found, strict=True) if len(cut) < len(data) - tail)


def test_a_batch_gives_what_each_image_alone_gives():
    """Damage of every kind, in batches with images that teach the layout."""
    chance = random.Random(7)
    pool = [*PLAIN.values(), *(data for data, _ in ODD.values())]
    reader = ImageHeaderReader()
    for _ in range(1500):
        images: list[bytes | None] = []
        for _ in range(chance.randint(1, 8)):
            data = bytearray(chance.choice(pool))
            damage = chance.random()
            if damage < 0.4:
                data[chance.randrange(min(60, len(data)))] ^= 1 << chance.randrange(8)
            elif damage < 0.5:
                spot = chance.randrange(min(60, len(data) - 4))
                data[spot : spot + 4] = chance.choice([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"])
            elif damage < 0.6:
                del data[chance.randrange(len(data)) :]
            elif damage < 0.7:
                data[-chance.randint(1, 12)] ^= 0xFF
            elif damage < 0.8:
                data[chance.randrange(len(data)) :] = chance.randbytes(chance.randint(0, 60))
            images.append(None if damage > 0.97 else bytes(data))
        assert together(images) == alone(images)
        assert together(images, reader) == alone(images)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF89a", b"BM", b"II*\0", b"MM\0+", b""]),
       st.binary(max_size=80))  # fmt: skip
def test_any_bytes(magic, rest):
    assert together([magic + rest]) == alone([magic + rest])


@pytest.mark.parametrize(
    "data",
    [b"GIF89a" + bytes(7) + b"\x21\xff" + b"\x01?" * 2_000_000,
     b"GIF89a" + bytes(7) + b"\x21\xff\0" * 1_000_000,
     png(colour=3, chunks=chunk(b"tEXt") * 300_000),
     tiff(big=True)[:16] + b"\xff" * 8 + bytes(4_000_000),
     tiff(big=True)[:8] + b"\xff" * 8 + bytes(100),
     tiff()[:4] + b"\xff" * 4 + bytes(100),
     b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000,
     b"\xff\xd8" + b"\xff" * 4_000_000],
    ids=range(8),
)  # fmt: skip
def test_hostile_headers_take_no_time(data):
    begin = time.process_time()
    with pytest.raises(ImageError):
        read_header(data)
    assert time.process_time() - begin < 3


def test_nulls_and_slices():
    images = [
        PLAIN["png L"],
        None,
        PLAIN["jpeg L"],
        None,
        PLAIN["gif L"],
        PLAIN["png P"],
        b"text",
        PLAIN["bmp L"],
    ] * 3
    array = pa.array(images, pa.binary())
    for start in range(len(images)):
        for length in (0, 1, 5, len(images)):
            assert together(array.slice(start, length)) == alone(images)[start : start + length]
    reader = ImageHeaderReader()
    sound = array.slice(9, 5)
    assert reader.read(sound).encodings.tolist() == [NO_IMAGE, 0, NO_IMAGE, 3, 1]
    with pytest.raises(ImageError) as caught:
        reader.read(array.slice(9))
    assert caught.value.row == 5
    # Bytes may stand behind a null.
    _, offsets, data = binary_array([PLAIN["png L"]] * 2).buffers()
    assert together(pa.Array.from_buffers(pa.binary(), 2, [pa.py_buffer(b"\x02"), offsets, data])) == [
        None, ("png", (7, 13, 1)),
    ]  # fmt: skip
    assert together(pa.array([None, None], pa.binary())) == [None, None]
    assert together([]) == []


def test_suffixes():
    assert set(SUFFIXES) == set(ENCODINGS)
    for encoding, suffix in SUFFIXES.items():
        assert Image.registered_extensions()[suffix] == encoding.upper()


@pytest.mark.parametrize("kind", [kind for kind in ODD if "big-endian" not in kind and kind not in (
    "bmp, 4 bits", "png, interlaced")])  # fmt: skip
def test_oddities_decode(kind):
    decode_fully(ODD[kind][0])
    decode_fully(memoryview(ODD[kind][0]))


def test_decoding_finds_damage():
    for kind, data in PLAIN.items():
        if not kind.startswith(("bmp", "tiff")):
            with pytest.raises(ImageError, match=r"^the image .*\.$"):
                decode_fully(data[: len(data) // 2] + (b"\xff\xd9" if kind.startswith("jpeg") else b""))
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_fully(png())
    frames = animated("gif")
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_fully(frames[: len(frames) - 100])
    with pytest.raises(ImageError, match="it starts with"):
        decode_fully(b"text")


def test_decoding_is_bounded(monkeypatch):
    with pytest.raises(ImageError, match="25000001 pixels"):
        decode_fully(png(25_000_001, 1))
    monkeypatch.setattr(image_header, "MAX_SCANNED_PIXELS", 13 * 7 * 3)
    for data in (animated("gif"), animated("webp"), encoded("jpeg")):
        decode_fully(data)
    for data in (animated("gif", 4), animated("webp", 4), encoded("jpeg", progressive=True)):
        with pytest.raises(ImageError, match="more than --decode takes"):
            decode_fully(data)


def test_reading_headers_needs_no_pillow():
    code = "import converters.dataset.image_header, sys; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
