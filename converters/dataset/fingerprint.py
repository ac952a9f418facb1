r"""What must survive conversion, as counts and digests.

The definition is public (``kfer-convert docs proof`` has it, with the lines that recompute it from an output):

- ``labels_sha256``: SHA-256 of the label vectors, row after row, one byte (0 or 1) per label, stored order.
- ``images_sha256``: a hash tree. The leaves are the SHA-256 of each image's bytes, in record order. Neighbours
  are joined to the SHA-256 of their two digests, level by level; an odd one at the end moves up unchanged.
  (The tree's shape is that of RFC 9162, section 2.1.1, so that parts of it can be computed apart.)
- ``identities_sha256``: the same tree over the UTF-8 text ``img_id + "\n" + clip_id`` of each record.

A :class:`Part` covers a contiguous range of a split's records. Parts that follow each other merge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from converters.dataset.decode import Count, Sha256
from converters.dataset.schema import image_views, label_matrix, size_matrix

EMPTY_SHA256 = sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Node:
    """A finished node of a hash tree: the leaves from ``index << level`` to ``(index + 1) << level``."""

    level: int
    index: int
    digest: bytes


@dataclass(frozen=True)
class Part:
    """The fingerprint of a contiguous range of a split's records; small, and mergeable.

    Attributes:
        first: index in the split of the first record.
        records: their number.
        label_count: width of the label vectors.
        labels: the label vectors, eight to a byte (``numpy.packbits`` of the matrix, row by row).
        images: the nodes of the images' tree that this range finishes, left to right.
        identities: likewise of the identities' tree; None where the records have none.
        image_bytes: total size of the images.
    """

    first: int
    records: int
    label_count: int
    labels: bytes
    images: tuple[Node, ...]
    identities: tuple[Node, ...] | None
    image_bytes: int

    def label_rows(self) -> npt.NDArray[np.uint8]:
        """The label vectors, uint8, shape (records, labels)."""
        packed = np.frombuffer(self.labels, np.uint8).reshape(self.records, -(-self.label_count // 8))
        return np.unpackbits(packed, axis=1, count=self.label_count)


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of a split.

    Attributes:
        records: number of records.
        label_counts: how many records have each label, in stored order.
        labels_per_image: how many records have so many labels set, by that number.
        distinct_label_sets: number of different label vectors.
        image_bytes: total size of the images in bytes.
        labels_sha256: see the module's text; likewise ``images_sha256``.
        identities_sha256: None where the records have no identities.
    """

    records: Count
    label_counts: tuple[Count, ...]
    labels_per_image: Mapping[int, Count]
    distinct_label_sets: Count
    image_bytes: Count
    labels_sha256: Sha256
    images_sha256: Sha256
    identities_sha256: Sha256 | None


def tree_root(leaves: Iterable[bytes]) -> str:
    """Hexadecimal root of the hash tree over the digests ``leaves``."""
    tree = Tree(0)
    tree.extend(list(leaves))
    return tree.root()


def identity_digest(img_id: str, clip_id: str) -> bytes:
    """The leaf of one record in the identities' tree."""
    return sha256(f"{img_id}\n{clip_id}".encode()).digest()


def record_digests(batch: pa.RecordBatch, *, identities: bool = True) -> list[bytes]:
    """A SHA-256 over all values of each record, to find the record in which two readings of the same data differ.

    Args:
        batch: the records.
        identities: whether ``img_id`` and ``clip_id`` are among them.
    """
    rows = zip(image_views(batch), label_matrix(batch), size_matrix(batch), strict=True)
    digests = [
        sha256(sha256(image).digest() + vector.tobytes() + sizes.tobytes()) for image, vector, sizes in rows
    ]
    if identities:
        names = zip(batch.column("img_id").to_pylist(), batch.column("clip_id").to_pylist(), strict=True)
        for digest, (img_id, clip_id) in zip(digests, names, strict=True):
            digest.update(f"{img_id}\n{clip_id}".encode())
    return [digest.digest() for digest in digests]


class PartBuilder:
    """Takes in batches of consecutive records and makes their :class:`Part`."""

    def __init__(self, first: int, label_count: int) -> None:
        self._first = first
        self._label_count = label_count
        self._labels: list[bytes] = []
        self._images = Tree(first)
        self._identities: Tree | None = Tree(first)
        self.records = 0
        self._image_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the next records."""
        views = image_views(batch)
        self._images.extend([sha256(view).digest() for view in views])
        self._labels.append(np.packbits(label_matrix(batch), axis=1).tobytes())
        self._image_bytes += sum(map(len, views))
        self.records += len(views)
        img_ids, clip_ids = batch.column("img_id"), batch.column("clip_id")
        if self._identities is not None and (img_ids.null_count or clip_ids.null_count):
            self._identities = None
        if self._identities is not None:
            pairs = zip(img_ids.to_pylist(), clip_ids.to_pylist(), strict=True)
            self._identities.extend([identity_digest(img_id, clip_id) for img_id, clip_id in pairs])

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, taken in as they pass."""
        for batch in batches:
            self.add(batch)
            yield batch

    def part(self) -> Part:
        """The fingerprint of all records taken in."""
        return Part(
            self._first,
            self.records,
            self._label_count,
            b"".join(self._labels),
            self._images.nodes(),
            None if self._identities is None else self._identities.nodes(),
            self._image_bytes,
        )


def merge(parts: Iterable[Part], label_count: int) -> Fingerprint:
    """The fingerprint of a split from the parts that make it up, in order. Holds one part at a time.

    Raises:
        ValueError: the parts do not follow each other from record 0 on.
    """
    merger = Merger(label_count)
    for part in parts:
        merger.add(part)
    return merger.fingerprint()


class Merger:
    """Takes the parts that make up a split, in order, and holds no more than their fingerprint so far."""

    def __init__(self, label_count: int) -> None:
        self._width = -(-label_count // 8)
        self._records = self._image_bytes = 0
        self._counts = np.zeros(label_count, np.int64)
        self._per_image: Counter[int] = Counter()
        self._label_sets: set[bytes] = set()
        self._labels = sha256()
        self._images, self._identities = Tree(0), Tree(0)
        self._identified = True

    def add(self, part: Part) -> None:
        """Take the next part.

        Raises:
            ValueError: it does not follow the one before.
        """
        if part.first != self._records:
            raise ValueError(f"expected a part that starts at record {self._records}, found {part.first}")
        rows = part.label_rows()
        self._labels.update(rows.tobytes())
        self._counts += rows.sum(axis=0, dtype=np.int64)
        self._per_image.update(rows.sum(axis=1, dtype=np.int64).tolist())
        self._label_sets.update(
            part.labels[start : start + self._width] for start in range(0, len(part.labels), self._width)
        )
        for node in part.images:
            self._images.push(node)
        self._identified = self._identified and part.identities is not None
        for node in part.identities or ():
            self._identities.push(node)
        self._records += part.records
        self._image_bytes += part.image_bytes

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of all parts taken."""
        return Fingerprint(
            self._records,
            tuple(self._counts.tolist()),
            dict(sorted(self._per_image.items())),
            len(self._label_sets),
            self._image_bytes,
            self._labels.hexdigest(),
            self._images.root(),
            self._identities.root() if self._identified and self._records else None,
        )


class Tree:
    """A hash tree over a range of leaves that starts at leaf ``first``; holds O(log n) nodes."""

    def __init__(self, first: int) -> None:
        self._next = first  # index of the next leaf
        self._nodes: list[Node] = []

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append the digests of the next leaves."""
        level, index = 0, self._next
        self._next += len(leaves)
        digests = list(leaves)
        heads: list[Node] = []
        tails: list[Node] = []
        # Level by level: what has no sibling in here waits at either end, all else is joined in one go.
        while digests:
            if index & 1:
                heads.append(Node(level, index, digests.pop(0)))
                index += 1
            if len(digests) & 1:
                tails.append(Node(level, index + len(digests) - 1, digests.pop()))
            pairs = zip(digests[::2], digests[1::2], strict=True)
            digests = [sha256(left + right).digest() for left, right in pairs]
            level, index = level + 1, index >> 1
        for node in heads + tails[::-1]:
            self.push(node)

    def push(self, node: Node) -> None:
        """Append a finished node that starts where the last one ended."""
        nodes = self._nodes
        nodes.append(node)
        while len(nodes) > 1:
            left, right = nodes[-2:]
            if left.level != right.level or left.index & 1 or right.index != left.index + 1:
                return
            nodes[-2:] = [Node(left.level + 1, left.index >> 1, sha256(left.digest + right.digest).digest())]

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are finished and have no sibling yet, left to right."""
        return tuple(self._nodes)

    def root(self) -> str:
        """Hexadecimal digest of the whole tree, of a range that starts at leaf 0."""
        if not self._nodes:
            return EMPTY_SHA256
        digest = self._nodes[-1].digest
        for node in self._nodes[-2::-1]:
            digest = sha256(node.digest + digest).digest()
        return digest.hex()
