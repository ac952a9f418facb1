r"""What must survive conversion, as counts and digests: the fingerprint of a split.

- ``records_sha256``: the root of a hash tree as in RFC 9162, section 2.1.1, so that any Merkle library checks it. A
  leaf is a record, with every value of every column (:mod:`converters.dataset.leaves`);
  ``node = SHA-256(0x01 ‖ left ‖ right)``.
- ``labels_sha256``: of labels that are 0/1 vectors: SHA-256 of these, row after row, one byte (0 or 1) per label.
- ``identities_sha256``: a tree of the same shape over the UTF-8 text ``img_id + "\n" + clip_id`` of each record,
  without the bytes that RFC 9162 puts before leaves and nodes. Datasets publish the last two.

The definition is public: ``kfer-convert docs proof`` has it, with the lines that recompute it from an output.

A :class:`Part` covers a contiguous range of a split's records. Parts that follow each other merge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from converters.dataset.arrays import binary_parts, valid_rows, vector_matrix
from converters.dataset.decode import Count, Sha256
from converters.dataset.labels import count_label_sets
from converters.dataset.leaves import record_leaves
from converters.dataset.schema import Schema
from converters.storage.digests import sha256_each

EMPTY_SHA256 = sha256(b"").hexdigest()
NODE_PREFIX = b"\x01"

# Of more different sets of labels than this, only the number of each label is kept.
MAX_LABEL_SETS = 1 << 17


class Node(NamedTuple):
    """A finished node of a hash tree: the leaves from ``number << level`` to ``(number + 1) << level``."""

    level: Count
    number: Count
    digest: bytes


@dataclass(frozen=True)
class Part:
    """The fingerprint of a contiguous range of a split's records; small, and mergeable.

    Attributes:
        first: index in the split of the first record.
        records: their number.
        nodes: the nodes of the records' tree that this range finishes, left to right.
        image_bytes: total size of the images.
        label_counts: how many records have each label, by its rank; None where labels have no names.
        label_sets: how many records have each set of labels (see :func:`~converters.dataset.labels.count_label_sets`);
            None where labels have no names, or there are too many.
        labels: label vectors, eight to a byte (``numpy.packbits`` of the matrix, row by row); of others, nothing.
        identities: the nodes of the identities' tree; None where the records have none.
    """

    first: Count
    records: Count
    nodes: tuple[Node, ...]
    image_bytes: Count
    label_counts: tuple[Count, ...] | None = None
    label_sets: Mapping[str, Count] | None = None
    labels: bytes = b""
    identities: tuple[Node, ...] | None = None


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of a split; see the module's text.

    Attributes:
        records: number of records.
        records_sha256: the root of their tree.
        image_bytes: total size of the images in bytes.
        label_counts: how many records have each label, in stored order; None where labels have no names.
        labels_per_image: how many records have so many different labels, by that number; likewise.
        distinct_label_sets: number of different sets of labels; likewise, or where there are too many.
        labels_sha256: None where labels are no 0/1 vectors.
        identities_sha256: None where the records have no identities.
    """

    records: Count
    records_sha256: Sha256
    image_bytes: Count
    label_counts: tuple[Count, ...] | None = None
    labels_per_image: Mapping[int, Count] | None = None
    distinct_label_sets: Count | None = None
    labels_sha256: Sha256 | None = None
    identities_sha256: Sha256 | None = None


def tree_root(leaves: Iterable[bytes], prefix: bytes = NODE_PREFIX) -> str:
    """Hexadecimal root of the hash tree over the digests ``leaves``."""
    tree = Tree(0, prefix)
    tree.extend(list(leaves))
    return tree.root()


def identity_digest(img_id: str, clip_id: str) -> bytes:
    """The leaf of one record in the identities' tree."""
    return sha256(f"{img_id}\n{clip_id}".encode()).digest()


def node_places(first: int, records: int) -> list[tuple[int, int]]:
    """Level and number of the nodes that a range of so many leaves from leaf ``first`` on finishes, left to right."""
    places, end = [], first + records
    while first < end:
        level = (end - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        places.append((level, first >> level))
        first += 1 << level
    return places


class PartBuilder:
    """Takes in batches of consecutive records of a schema and makes their :class:`Part`."""

    def __init__(self, first: int, schema: Schema) -> None:
        self.records = 0
        self.images = [image.name for image in schema.images]
        self._first = first
        self._schema = schema
        self._tree = Tree(first)
        label = schema.label
        self._label = label if label is not None and label.label_names else None
        self._labels: list[bytes] = []
        self._sets: Counter[str] = Counter()
        self._image_bytes = 0
        # Those that label CSVs joined; a dataset may have features of these names that are anything.
        self._identities = Tree(first, b"") if schema.joined_names >= {"img_id", "clip_id"} else None

    def add(self, batch: pa.RecordBatch, digests: Mapping[str, Sequence[bytes]] | None = None) -> list[bytes]:
        """Take in the next records; their leaves.

        ``digests`` are those of their images, by the column, where they are known already.
        """
        self.records += len(batch)
        leaves = record_leaves(batch, self._schema, digests)
        self._tree.extend(leaves)
        for name in self.images:
            offsets, _ = binary_parts(batch.column(name))
            self._image_bytes += int(offsets[-1] - offsets[0])
        if self._label is not None:
            array = batch.column(self._label.name)
            self._sets.update(count_label_sets(self._label, array))
            if self._label.kind is not None and valid_rows(array).all():
                self._labels.append(np.packbits(vector_matrix(array).astype(np.uint8), axis=1).tobytes())
        if self._identities is not None:
            pairs = zip(batch.column("img_id").to_pylist(), batch.column("clip_id").to_pylist(), strict=True)
            self._identities.extend([identity_digest(img_id, clip_id) for img_id, clip_id in pairs])
        return leaves

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
            self._tree.nodes(),
            self._image_bytes,
            None if self._label is None else _label_counts(self._sets, len(self._label.label_names)),
            None if self._label is None or len(self._sets) > MAX_LABEL_SETS else dict(self._sets),
            b"".join(self._labels),
            None if self._identities is None else self._identities.nodes(),
        )


def _label_counts(sets: Mapping[str, int], labels: int) -> tuple[int, ...]:
    counts = [0] * labels
    for ranks, records in sets.items():
        for rank in ranks.split(",") if ranks else ():
            counts[int(rank)] += records
    return tuple(counts)


def merge(parts: Iterable[Part], schema: Schema) -> Fingerprint:
    """The fingerprint of a split from the parts that make it up, in order. Holds one part at a time.

    Raises:
        ValueError: the parts do not follow each other from record 0 on.
    """
    merger = Merger(schema)
    for part in parts:
        merger.add(part)
    return merger.fingerprint()


class Merger:
    """Takes the parts that make up a split, in order, and holds no more than their fingerprint so far."""

    def __init__(self, schema: Schema) -> None:
        label = schema.label
        self._label = label if label is not None and label.label_names else None
        self._records = self._image_bytes = 0
        self._counts = np.zeros(len(self._label.label_names) if self._label else 0, np.int64)
        self.label_sets: Counter[str] | None = Counter()
        self._labels = sha256()
        self._labelled = 0
        self._tree, self._identities = Tree(0), Tree(0, b"")
        self._identified = True

    def add(self, part: Part) -> None:
        """Take the next part.

        Raises:
            ValueError: it does not follow the one before, or is of other labels.
        """
        if part.first != self._records:
            raise ValueError(f"expected a part that starts at record {self._records}, found {part.first}")
        if len(part.label_counts or ()) != len(self._counts):
            raise ValueError(f"expected {len(self._counts)} counts of labels, found {part.label_counts}")
        self._counts += np.array(part.label_counts or (), np.int64)
        if self.label_sets is not None:
            self.label_sets.update(part.label_sets or {})
            if (part.label_sets is None and self._label) or len(self.label_sets) > MAX_LABEL_SETS:
                self.label_sets = None
        if self._label is not None and self._label.kind is not None and part.labels:
            width = len(self._counts)
            packed = np.frombuffer(part.labels, np.uint8).reshape(-1, -(-width // 8))
            self._labels.update(np.unpackbits(packed, axis=1, count=width).tobytes())
            self._labelled += len(packed)
        for node in part.nodes:
            self._tree.push(node)
        self._identified = self._identified and part.identities is not None
        for node in part.identities or ():
            self._identities.push(node)
        self._records += part.records
        self._image_bytes += part.image_bytes

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of all parts taken."""
        sets = self.label_sets if self._label is not None else None
        per_image: Counter[int] = Counter()
        for ranks, records in (sets or {}).items():
            per_image[ranks.count(",") + 1 if ranks else 0] += records
        vectors = self._label is not None and self._label.kind is not None and self._labelled == self._records
        return Fingerprint(
            self._records,
            self._tree.root(),
            self._image_bytes,
            None if self._label is None else tuple(self._counts.tolist()),
            None if sets is None else dict(sorted(per_image.items())),
            None if sets is None else len(sets),
            self._labels.hexdigest() if vectors else None,
            self._identities.root() if self._identified and self._records else None,
        )


class Tree:
    """A hash tree over a range of leaves that starts at leaf ``first``; holds O(log n) nodes.

    ``prefix`` stands before the two digests of each node: without it, a node could pose as a leaf.
    """

    def __init__(self, first: int, prefix: bytes = NODE_PREFIX) -> None:
        self._next = first  # index of the next leaf
        self._prefix = prefix
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
            digests = sha256_each([self._prefix + left + right for left, right in pairs])
            level, index = level + 1, index >> 1
        for node in heads + tails[::-1]:
            self.push(node)

    def push(self, node: Node) -> None:
        """Append a finished node that starts where the last one ended."""
        nodes = self._nodes
        nodes.append(node)
        while len(nodes) > 1:
            left, right = nodes[-2:]
            if left.level != right.level or left.number & 1 or right.number != left.number + 1:
                return
            nodes[-2:] = [
                Node(
                    left.level + 1,
                    left.number >> 1,
                    sha256(self._prefix + left.digest + right.digest).digest(),
                )
            ]

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are finished and have no sibling yet, left to right."""
        return tuple(self._nodes)

    def root(self) -> str:
        """Hexadecimal digest of the whole tree, of a range that starts at leaf 0."""
        if not self._nodes:
            return EMPTY_SHA256
        digest = self._nodes[-1].digest
        for node in self._nodes[-2::-1]:
            digest = sha256(self._prefix + node.digest + digest).digest()
        return digest.hex()
