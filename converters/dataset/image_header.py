"""What an encoded image is, from its header alone: its encoding, its height, width and depth.

An image is known by its magic and by a header that parses: a text may begin with ``BM`` too. Where the encoding says
how long a file is, one that is cut short is refused; bytes after its end are not. Depth is the number of channels that
TensorFlow's decoders give (``channels=0``), where they read the encoding:

- JPEG (ITU-T T.81): the components of the frame. CMYK has four, as in Pillow; TensorFlow makes RGB of it.
- PNG (W3C PNG): grey 1, grey with alpha 2, RGB 3, RGBA 4; palette 3, and 4 with a tRNS chunk, which adds nothing to
  other kinds (tensorflow/core/lib/png/png_io.cc). It ends with an IEND chunk.
- WebP (RFC 9649): 3, with alpha 4. All bytes are there that RIFF promises.
- GIF (GIF89a): 3. Height and width are the logical screen's, and at least the first frame's, as in Pillow; TensorFlow
  gives the largest frame's. The trailer may be missing: neither asks for it.
- BMP: of 8 bits 1, 24 bits 3, 32 bits 4; of others, which TensorFlow refuses, as in Pillow: 1 and 4 bits 1, 16 bits 3.
  All rows of uncompressed pixels are there. The file size in the header is often wrong, and not looked at.
- TIFF (TIFF 6.0, BigTIFF): SamplesPerPixel of the first page; height and width as stored, whatever Orientation says.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view

from converters.dataset.arrays import binary_parts
from converters.dataset.jpeg_header import ImageError, JpegSizes, has_end, read_jpeg_header

Encoding = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)
NO_IMAGE: Final = 255
SUFFIXES: Final[Mapping[Encoding, str]] = dict(
    zip(ENCODINGS, (".jpg", ".png", ".webp", ".gif", ".bmp", ".tif"), strict=True)
)

# A decoder holds up to ten bytes a pixel (progressive JPEGs), and passes over the image once a scan.
MAX_DECODED_PIXELS = 25_000_000
MAX_SCANNED_PIXELS = 20 * MAX_DECODED_PIXELS
_START_OF_SCAN = b"\xff\xda"

_Bytes = bytes | memoryview
_Size = tuple[int, int, int]
_Sizes = npt.NDArray[np.int32]
_Rows = npt.NDArray[np.int64]
_MAX_SIZE = 2**31 - 1
_MAX_STEPS = 100_000  # blocks, chunks or tags that are walked over before the one that is looked for
_MIN_BYTES = 17  # of the shortest JPEG that parses

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_PNG_HEADER = 33
_PALETTE = 3
# Depth by bits a sample and colour type; 0 for what cannot be.
_PNG_DEPTHS = np.zeros((256, 256), np.uint8)
_PNG_DEPTHS[(1, 2, 4, 8, 16), 0] = 1
_PNG_DEPTHS[(1, 2, 4, 8), _PALETTE] = 3
_PNG_DEPTHS[(8, 16), 4] = 2
_PNG_DEPTHS[(8, 16), 2] = 3
_PNG_DEPTHS[(8, 16), 6] = 4
# The CRC of one byte, for CRCs byte by byte (W3C PNG, annex D).
_CRCS = np.array([zlib.crc32(bytes([value ^ 0xFF])) ^ 0xFF000000 for value in range(256)], np.uint32)

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_BMP_DEPTHS = {1: 1, 4: 1, 8: 1, 16: 3, 24: 3, 32: 4}
_TIFF_TAGS = {
    257: 0,
    256: 0,
    277: 1,
}  # height, width, SamplesPerPixel, and what they are where they are missing
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_OTHERS = {
    b"jP  \r\n\x87\n": "JPEG 2000",
    b"ftypavif": "AVIF",
    b"ftypavis": "AVIF",
    b"ftypheic": "HEIC",
    b"ftypmif1": "HEIF",
}


@dataclass(frozen=True)
class ImageHeaders:
    """What the headers of a batch of images say.

    Attributes:
        encodings: index into ``ENCODINGS``, ``NO_IMAGE`` where there is none: uint8, shape (images,).
        sizes: height and width in pixels, and depth; 0 where there is no image: int32, shape (images, 3).
    """

    encodings: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.int32]


def sniff(data: _Bytes) -> Encoding | None:
    """The encoding of an image whose header parses; None for anything else."""
    try:
        return read_header(data)[0]
    except ImageError:
        return None


def read_header(data: _Bytes) -> tuple[Encoding, _Size]:
    """The encoding of an image, and its height, width and depth.

    Raises:
        ImageError: the bytes are no image of a known encoding, its header is malformed, or it is cut short.
    """
    view = memoryview(data).cast("B")
    head = bytes(view[:12])
    for encoding, magics, parse in _PARSERS:
        if head.startswith(magics):
            try:
                size = parse(view)
            except (IndexError, OverflowError, struct.error):
                raise ImageError(
                    f"the image starts as {encoding}, but ends before its header does."
                ) from None
            if not all(0 < number <= _MAX_SIZE for number in size):
                raise ImageError(
                    f"the {encoding} header says height, width, depth {size}, which no image has."
                )
            return encoding, size
    other = _OTHERS.get(head[4:])
    found = f"it is {other}" if other else f"it starts with {head[:4].hex(' ') or 'nothing'}"
    raise ImageError(f"the value is no {', '.join(ENCODINGS[:-1])} or {ENCODINGS[-1]} image: {found}.")


def _malformed(encoding: Encoding) -> ImageError:
    return ImageError(f"the image starts as {encoding}, but its header is malformed.")


def _cut_short(encoding: Encoding) -> ImageError:
    return ImageError(f"the image is cut short: its {encoding} header promises more bytes.")


def _jpeg(data: memoryview) -> _Size:
    return read_jpeg_header(data).size


def _png(data: memoryview) -> _Size:
    width, height, bits, colour, compression, filtering, interlace, crc = struct.unpack_from(
        ">IIBBBBBI", data, 16
    )
    depth = int(_PNG_DEPTHS[bits, colour])
    if bytes(data[:16]) != _PNG_START or crc != zlib.crc32(data[12:29]):
        raise _malformed("png")
    if not depth or compression or filtering or interlace > 1:
        raise _malformed("png")
    if not has_end(data, _PNG_HEADER, _PNG_END):
        raise ImageError("the image is cut short: its png end chunk is missing.")
    return height, width, 4 if colour == _PALETTE and _is_transparent(data) else depth


def _is_transparent(data: memoryview) -> bool:
    """Whether a PNG has a tRNS chunk, which must stand before the pixels."""
    position = _PNG_HEADER
    for _ in range(_MAX_STEPS):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"tRNS", b"IDAT", b"IEND"):
            return bool(kind == b"tRNS" and length)
        position += 12 + length
    raise _malformed("png")


def _webp(data: memoryview) -> _Size:
    riff, form, kind, length = struct.unpack_from("<I4s4sI", data, 4)
    size: _Size | None = None
    if kind == b"VP8 ":
        start, width, height = struct.unpack_from("<3sHH", data, 23)
        if start == b"\x9d\x01\x2a":
            size = height & 0x3FFF, width & 0x3FFF, 3
    elif kind == b"VP8L":
        start, bits = struct.unpack_from("<BI", data, 20)
        if start == 0x2F:
            size = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 3 + (bits >> 28 & 1)
    elif kind == b"VP8X":
        flags, width, width_high, height, height_high = struct.unpack_from("<B3xHBHB", data, 20)
        size = (height_high << 16 | height) + 1, (width_high << 16 | width) + 1, 3 + (flags >> 4 & 1)
    if form != b"WEBP" or size is None or 20 + length > riff + 8:
        raise _malformed("webp")
    if riff + 8 > len(data):
        raise _cut_short("webp")
    return size


def _gif(data: memoryview) -> _Size:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (6 << (flags & 7) if flags & 0x80 else 0)  # after the colours: three bytes each
    in_extension = False
    for _ in range(_MAX_STEPS):
        byte = data[position]
        if in_extension:  # a sub-block of this length, or the end of them
            position += byte + 1
            in_extension = byte > 0
        elif byte == 0x21:
            position += 2
            in_extension = True
        elif byte == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
            return max(height, top + frame_height), max(width, left + frame_width), 3
        else:
            break
    raise _malformed("gif")


def _bmp(data: memoryview) -> _Size:
    pixels, header = struct.unpack_from("<II", data, 10)
    if header == 12:  # OS/2
        width, height, bits, compression = *struct.unpack_from("<HH2xH", data, 18), 0
    else:
        width, height, bits, compression = struct.unpack_from("<ii2xHI", data, 18)
    if bits not in _BMP_DEPTHS or header not in _BMP_HEADERS:
        raise _malformed("bmp")
    height = abs(height)  # below 0 where the rows go from top to bottom
    row = (width * bits + 31) // 32 * 4
    needed = row * (height - 1) + (width * bits + 7) // 8  # the last row may lack its padding
    if max(pixels, 14 + header) + (needed if compression in (0, 3) else 0) > len(data):
        raise _cut_short("bmp")
    return height, width, _BMP_DEPTHS[bits]


def _tiff(data: memoryview) -> _Size:
    order = "<" if data[0] == ord("I") else ">"
    big = 43 in data[2:4]
    offset = struct.unpack_from(order + ("8xQ" if big else "4xI"), data)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, offset)[0]
    found: dict[int, int] = {}
    first, step = (offset + 8, 20) if big else (offset + 2, 12)
    for entry in range(first, first + step * min(count, _MAX_STEPS), step):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
        if tag in _TIFF_TAGS and tag not in found and kind in _TIFF_NUMBERS and values == 1:
            found[tag] = struct.unpack_from(order + _TIFF_NUMBERS[kind], data, entry + (12 if big else 8))[0]
    height, width, depth = (found.get(tag, default) for tag, default in _TIFF_TAGS.items())
    return height, width, depth


_PARSERS: tuple[tuple[Encoding, tuple[bytes, ...], Callable[[memoryview], _Size]], ...] = (
    ("jpeg", (b"\xff\xd8\xff",), _jpeg),
    ("png", (b"\x89PNG",), _png),
    ("webp", (b"RIFF",), _webp),
    ("gif", (b"GIF87a", b"GIF89a"), _gif),
    ("bmp", (b"BM",), _bmp),
    ("tiff", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
)
# Index into ENCODINGS by the first two bytes.
_BY_MAGIC = np.full((256, 256), NO_IMAGE, np.uint8)
for _encoding, _magics, _ in _PARSERS:
    for _magic in _magics:
        _BY_MAGIC[_magic[0], _magic[1]] = ENCODINGS.index(_encoding)


def suffixes_by_magic(images: pa.Array) -> list[str]:
    """The suffix of the files of images whose headers are known to be sound; none where there is no image."""
    offsets, data = binary_parts(images)
    starts = offsets[:-1]
    there = np.diff(offsets) > 1
    found = np.full(len(images), NO_IMAGE, np.uint8)
    found[there] = _BY_MAGIC[data[starts[there]], data[starts[there] + 1]]
    by_index = dict(enumerate(SUFFIXES.values()))
    return [by_index.get(index, "") for index in found.tolist()]


class ImageHeaderReader:
    """Reads the headers of many images, JPEG and PNG in batches; keeps the layout of JPEG headers it has learnt."""

    def __init__(self) -> None:
        self._jpeg = JpegSizes()

    def read(self, images: pa.Array) -> ImageHeaders:
        """Encoding and size of each image of a binary array; nulls have none.

        Raises:
            ImageError: the first value that is no complete image.
        """
        headers = self.try_read(images)
        wrong = np.flatnonzero((headers.encodings == NO_IMAGE) & _is_valid(images))
        if len(wrong):
            row = int(wrong[0])
            try:
                read_header(memoryview(images[row].as_buffer()))
            except ImageError as error:
                raise ImageError(error.message, row) from None
        return headers

    def try_read(self, images: pa.Array) -> ImageHeaders:
        """Encoding and size of each value that is an image; to :func:`read_header` the others are errors."""
        sizes = np.zeros((len(images), 3), np.int32)
        if not len(images):
            return ImageHeaders(np.empty(0, np.uint8), sizes)
        offsets, data = binary_parts(images)
        rows = np.flatnonzero(_is_valid(images) & (np.diff(offsets) >= _MIN_BYTES))
        starts = offsets[rows]
        encodings = np.full(len(images), NO_IMAGE, np.uint8)
        encodings[rows] = _BY_MAGIC[data[starts], data[starts + 1]]
        self._jpeg.fill(sizes, np.flatnonzero(encodings == ENCODINGS.index("jpeg")), offsets, data)
        _fill_pngs(sizes, np.flatnonzero(encodings == ENCODINGS.index("png")), offsets, data)
        view = memoryview(data.data)
        for row in np.flatnonzero((encodings != NO_IMAGE) & (sizes[:, 2] == 0)).tolist():
            try:
                sizes[row] = read_header(view[offsets[row] : offsets[row + 1]])[1]
            except ImageError:
                continue
        none = (sizes == 0).any(axis=1)
        encodings[none], sizes[none] = NO_IMAGE, 0
        return ImageHeaders(encodings, sizes)


def _is_valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Which values of an array are not null; like ``is_valid``, without importing pyarrow.compute."""
    bitmap = array.buffers()[0]
    if bitmap is None or not array.null_count:
        return np.ones(len(array), np.bool_)
    first, bit = divmod(array.offset, 8)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8)[first:], bitorder="little", count=bit + len(array))
    return bits[bit:].view(np.bool_)


def _fill_pngs(
    sizes: _Sizes, rows: _Rows, offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]
) -> None:
    """Fill in the sizes of those ``rows`` that are PNGs without a palette, and have nothing after their end chunk."""
    rows = rows[offsets[rows + 1] - offsets[rows] >= _PNG_HEADER + len(_PNG_END)]
    if not len(rows):
        return
    heads = sliding_window_view(data, _PNG_HEADER)[offsets[rows]]
    ends = sliding_window_view(data, len(_PNG_END))[offsets[rows + 1] - len(_PNG_END)]
    bits, colour, compression, filtering, interlace = heads[:, 24:29].T
    width, height = heads[:, 16:24].view(">u4").T
    depth = _PNG_DEPTHS[bits, colour]
    crcs = np.full(len(rows), zlib.crc32(b"IHDR") ^ 0xFFFFFFFF, np.uint32)
    for column in heads[:, 16:29].T:
        crcs = _CRCS[(crcs ^ column) & 0xFF] ^ crcs >> 8
    fits = (heads[:, :16] == np.frombuffer(_PNG_START, np.uint8)).all(axis=1)
    fits &= (ends == np.frombuffer(_PNG_END, np.uint8)).all(axis=1)
    fits &= (depth != 0) & (colour != _PALETTE) & (compression == 0) & (filtering == 0) & (interlace <= 1)
    fits &= (width <= _MAX_SIZE) & (height <= _MAX_SIZE) & (heads[:, 29:].view(">u4")[:, 0] == ~crcs)
    sizes[rows[fits]] = np.stack([height, width, depth], axis=1)[fits]


def decode_fully(data: _Bytes) -> None:
    """Decode an image with Pillow, of GIF and WebP every frame, within bounds of memory and time.

    Raises:
        ImageError: it is no image, cannot be decoded, is larger than ``MAX_DECODED_PIXELS``, or than
            ``MAX_SCANNED_PIXELS`` over all its scans or frames.
    """
    encoding, (height, width, _) = read_header(data)
    _check_pixels(height * width, 1)
    from PIL import Image

    encoded = bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=[encoding]) as image:
                scans = encoded.count(_START_OF_SCAN) if encoding == "jpeg" else 1
                for frame in range(getattr(image, "n_frames", 1) if encoding in ("gif", "webp") else 1):
                    image.seek(frame)
                    _check_pixels(image.width * image.height, (frame + 1) * scans)
                    image.load()
    except ImageError:
        raise
    except Exception as error:  # a decoder that meets hostile data may raise anything
        raise ImageError(f"the image cannot be decoded: {error}.") from error


def _check_pixels(pixels: int, passes: int) -> None:
    if pixels > MAX_DECODED_PIXELS or pixels * passes > MAX_SCANNED_PIXELS:
        raise ImageError(
            f"the image cannot be decoded: it has {pixels} pixels in {passes} scans or frames, "
            "more than --decode takes."
        )
