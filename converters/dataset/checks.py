"""The checks on every record: its labels fit the config's kind, and its image is the JPEG its sizes say."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.jpeg_header import JpegError, JpegSizes
from converters.dataset.arrays import image_views, label_matrix, size_matrix
from converters.errors import DataError, Location

# A decoder holds up to ten bytes a pixel (progressive JPEGs), and passes over the image once a scan.
MAX_DECODED_PIXELS = 25_000_000
MAX_SCANNED_PIXELS = 20 * MAX_DECODED_PIXELS
_START_OF_SCAN = b"\xff\xda"

Place = Callable[[int], Location]
"""Says where a row of a batch comes from."""


class RecordChecker:
    """Checks the records of one split.

    Args:
        split: whose records they are.
        decode: also decode every image with Pillow.
    """

    def __init__(self, split: Split, *, decode: bool = False) -> None:
        self._split = split
        self._decode = decode
        self._sizes = JpegSizes()

    def check(self, batch: pa.RecordBatch, place: Place) -> None:
        """Check every record of a batch.

        Raises:
            DataError: a record whose labels or image are not as they must be.
        """
        self._check_labels(label_matrix(batch), place)
        self._check_sizes(batch, place)
        if self._decode:
            for row, view in enumerate(image_views(batch)):
                _decode_fully(view, row, place)

    def _check_labels(self, labels: npt.NDArray[np.uint8], place: Place) -> None:
        set_labels = labels.sum(axis=1, dtype=np.int64)
        single = self._split.kind == "single-label"
        wrong = np.flatnonzero(set_labels != 1 if single else set_labels < 1)
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{int(set_labels[row])} labels are set; a {self._split.kind} config "
                f"({self._split.config}) has {'exactly one' if single else 'at least one'}.",
                place(row),
            )

    def _check_sizes(self, batch: pa.RecordBatch, place: Place) -> None:
        try:
            found = self._sizes.read(batch.column("image"))
        except JpegError as error:
            raise DataError(error.message, place(error.row)) from None
        stored = size_matrix(batch)
        wrong = np.flatnonzero((found != stored).any(axis=1))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"the JPEG's header says height, width, depth {tuple(found[row].tolist())}, the record says "
                f"{tuple(stored[row].tolist())}.",
                place(row),
            )


def _decode_fully(data: memoryview, row: int, place: Place) -> None:
    """Decode one image with Pillow, within bounds of memory and time."""
    from PIL import Image

    encoded = bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
                pixels = image.width * image.height
                if pixels > MAX_DECODED_PIXELS or pixels * encoded.count(_START_OF_SCAN) > MAX_SCANNED_PIXELS:
                    raise ValueError(
                        f"it has {pixels} pixels in {encoded.count(_START_OF_SCAN)} scans, more than --decode takes"
                    )
                image.load()
    except Exception as error:  # a decoder that meets hostile data may raise anything
        raise DataError(f"the image cannot be decoded: {error}.", place(row)) from error
