"""The size of JPEG images, from their headers alone.

The layout of a header's segments is learnt from one image and checked on a whole batch with NumPy; images that
differ are parsed one by one. Markers and segments: ITU-T T.81, annex B.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Start-of-frame markers: C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x00, 0x01, 0xD8, 0xD9, 0xDA, *range(0xD0, 0xD8)})
_END_OF_IMAGE = b"\xff\xd9"
_MAX_SEGMENTS = 200
_SEARCH_BYTES = 64 << 10


class ImageError(ValueError):
    """The bytes are not a complete image; ``row`` says which of a batch."""

    def __init__(self, message: str, row: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.row = row


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG's header says, and where.

    Attributes:
        size: height and width in pixels, and number of components (1 for grey, 3 for colour).
        segments: positions of the segments before the frame header (marker and length: four bytes each), and
            of fill bytes before them.
        frame: position of the start-of-frame marker; ten bytes from there to the number of components.
        end: position after the frame header.
    """

    size: tuple[int, int, int]
    segments: tuple[int, ...]
    frame: int
    end: int


def read_jpeg_header(data: bytes | memoryview) -> JpegHeader:
    """Walk over the segments of a JPEG to its frame header, and check that an end marker follows.

    Raises:
        ImageError: there is no start marker, no frame header or no end marker, or a segment is malformed.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        raise ImageError(f"the image is no JPEG: it starts with {bytes(data[:4]).hex(' ') or 'nothing'}.")
    position = 2
    segments: list[int] = []
    while position + 4 <= len(data) and len(segments) < _MAX_SEGMENTS:
        marker = data[position + 1]
        size = data[position + 2] << 8 | data[position + 3]
        if data[position] == marker == 0xFF:  # a fill byte
            segments.append(position)
            position += 1
            continue
        if data[position] != 0xFF or marker in _STANDALONE or size < 2:
            raise ImageError(f"byte {position} of the image begins no JPEG segment.")
        if marker in _START_OF_FRAME:
            frame = bytes(data[position + 4 : position + 10])
            end = position + 2 + size
            if len(frame) < 6 or size < 8 + 3 * frame[5] or end > len(data):
                break
            # Entropy-coded data cannot hold these two bytes, so any after the header is the end marker.
            if not has_end(data, end, _END_OF_IMAGE):
                raise ImageError("the image is cut short: its JPEG end marker is missing.")
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
            return JpegHeader((height, width, frame[5]), tuple(segments), position, end)
        segments.append(position)
        position += 2 + size
    raise ImageError("the image ends before its JPEG frame header.")


def has_end(data: bytes | memoryview, start: int, mark: bytes) -> bool:
    """Whether ``mark`` stands anywhere from ``start`` on; looked for from the end, without a copy of all."""
    end = len(data)
    if data[max(start, end - len(mark)) :] == mark:
        return True  # as of nearly all
    while end - start >= len(mark):
        piece = max(start, end - _SEARCH_BYTES)
        if mark in bytes(data[piece:end]):
            return True
        if piece == start:
            break
        end = piece + len(mark) - 1  # the mark may lie across the edge
    return False


class JpegSizes:
    """Reads the sizes of many images; keeps the header layout it has learnt."""

    def __init__(self) -> None:
        self._header: JpegHeader | None = None
        self._positions = np.empty(0, np.int64)
        self._expected = np.empty(0, np.uint8)

    def fill(
        self,
        sizes: npt.NDArray[np.int32],
        rows: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
    ) -> None:
        """Fill in the sizes of those ``rows`` of a batch that are complete JPEGs.

        Args:
            sizes: height, width and number of components of each image: int32, shape (images, 3).
            rows: those to be filled in.
            offsets: where in ``data`` each image begins, and the last one ends.
            data: uint8, the bytes of all.
        """
        if self._header is not None:
            rows = rows[~self._match(sizes, rows, offsets, data)]
        since_learnt, patience = 0, 1
        while len(rows):
            row, rows = int(rows[0]), rows[1:]
            since_learnt += 1
            try:
                header = read_jpeg_header(memoryview(data.data)[offsets[row] : offsets[row + 1]])
            except ImageError:
                continue
            sizes[row] = header.size
            if since_learnt >= patience:
                self._learn(header, data[offsets[row] : offsets[row + 1]])
                fits = self._match(sizes, rows, offsets, data)
                # Where hardly two images are alike, learning from each would take longer than reading each.
                since_learnt, patience = 0, 1 if 16 * fits.sum() >= len(rows) else 2 * patience
                rows = rows[~fits]

    def _learn(self, header: JpegHeader, image: npt.NDArray[np.uint8]) -> None:
        """Marker and length of every segment and of the frame, and the number of components.

        An image in which these bytes are the same is walked over in the same way.
        """
        segments = [position + part for position in header.segments for part in range(4)]
        frame = [header.frame + part for part in (0, 1, 2, 3, 9)]
        self._header = header
        self._positions = np.array([0, 1, *segments, *frame], np.int64)
        self._expected = image[self._positions].copy()

    def _match(
        self,
        sizes: npt.NDArray[np.int32],
        rows: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
    ) -> npt.NDArray[np.bool_]:
        """Fill in the sizes of those ``rows`` that have the learnt layout and end with an end marker."""
        header = self._header
        assert header is not None
        starts, ends = offsets[:-1].astype(np.int64)[rows], offsets[1:].astype(np.int64)[rows]
        long_enough = ends - starts >= header.end + 2
        # Images that are too short are masked; until then their positions must lie inside the data.
        if not long_enough.any():
            return long_enough
        starts = np.where(long_enough, starts, starts[long_enough][0])
        ends = np.where(long_enough, ends, ends[long_enough][0])
        fits = long_enough & (data[starts[:, None] + self._positions] == self._expected).all(axis=1)
        fits &= (data[ends - 2] == 0xFF) & (data[ends - 1] == 0xD9)
        frame = data[(starts[fits] + header.frame)[:, None] + np.arange(5, 10)].astype(np.int32)
        sizes[rows[fits]] = np.stack(
            [frame[:, 0] << 8 | frame[:, 1], frame[:, 2] << 8 | frame[:, 3], frame[:, 4]], axis=1
        )
        return np.asarray(fits)
