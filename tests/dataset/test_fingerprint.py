"""Fingerprints against their public definition, in one piece and in parts."""

import json
import random
from collections import Counter
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from conftest import Record
from helpers.proof import kfer_leaf, rfc9162_root
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dataset import fingerprint
from converters.dataset.arrays import binary_array, list_array, number_array
from converters.dataset.decode import encode
from converters.dataset.description import IDENTITIES
from converters.dataset.fingerprint import Part, PartBuilder, Tree, merge
from converters.dataset.schema import SIZES, Column, Schema, parse_type, with_derived_label

MAX_LEAVES = 70


def level_by_level(leaves: list[bytes], prefix: bytes = b"\x01") -> str:
    """The same tree from below: neighbours are joined, level by level; an odd one at the end moves up unchanged."""
    while len(leaves) > 1:
        joined = [
            sha256(prefix + left + right).digest()
            for left, right in zip(leaves[::2], leaves[1::2], strict=False)
        ]
        leaves = joined + leaves[len(leaves) - len(leaves) % 2 :]
    return leaves[0].hex()


LEAVES = [sha256(b"leaf %d" % number).digest() for number in range(MAX_LEAVES)]


def cuts_of(chance: random.Random, count: int, pieces: int) -> list[tuple[int, int]]:
    edges = sorted([0, count, *(chance.randint(0, count) for _ in range(pieces - 1))])
    return list(pairwise(edges))


def test_the_two_definitions_agree():
    for count in range(1, MAX_LEAVES):
        for prefix in (b"\x01", b""):
            assert level_by_level(LEAVES[:count], prefix) == rfc9162_root(LEAVES[:count], prefix)


def test_the_root_that_rfc_9162_s_reference_has():
    """Known answers: the test tree of Certificate Transparency's own programs (eight leaves, RFC 6962's hashes)."""
    inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    leaves = [sha256(b"\0" + bytes.fromhex(text)).digest() for text in inputs]
    tree = Tree(0)
    tree.extend(leaves)
    assert tree.root() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_tree_of_any_size_filled_in_any_steps():
    chance = random.Random(1)
    for count in range(MAX_LEAVES + 1):
        for pieces in (1, 2, 5, count + 1):
            tree = Tree(0)
            for start, end in cuts_of(chance, count, pieces):
                tree.extend(LEAVES[start:end])
            assert tree.root() == rfc9162_root(LEAVES[:count]), (count, pieces)
            # O(log n): one node for each bit of the count.
            assert len(tree.nodes()) == count.bit_count()


def test_parts_at_every_cut_merge_to_the_same_tree():
    for count in range(MAX_LEAVES + 1):
        expected = rfc9162_root(LEAVES[:count])
        for cut in range(count + 1):
            whole = Tree(0)
            for start, end in ((0, cut), (cut, count)):
                part = Tree(start)
                part.extend(LEAVES[start:end])
                assert len(part.nodes()) <= 2 * 7
                for node in part.nodes():
                    whole.push(node)
            assert whole.root() == expected, (count, cut)


@settings(deadline=None, max_examples=200)
@given(count=st.integers(0, MAX_LEAVES), seed=st.integers(0, 2**32), pieces=st.integers(1, 12))
def test_random_parts_filled_in_random_steps(count, seed, pieces):
    chance = random.Random(seed)
    whole = Tree(0)
    for start, end in cuts_of(chance, count, pieces):
        part = Tree(start)
        for low, high in cuts_of(chance, end - start, 3):
            part.extend(LEAVES[start + low : start + high])
        for node in part.nodes():
            whole.push(node)
    assert whole.root() == rfc9162_root(LEAVES[:count])


def test_where_the_nodes_of_a_range_are():
    for first in range(MAX_LEAVES):
        for last in range(first, MAX_LEAVES):
            tree = Tree(first)
            tree.extend(LEAVES[first:last])
            places = [(node.level, node.number) for node in tree.nodes()]
            assert fingerprint.node_places(first, last - first) == places


def test_order_and_number_of_leaves_matter():
    assert len({rfc9162_root(LEAVES[:count]) for count in range(MAX_LEAVES)}) == MAX_LEAVES
    swapped, tree = [LEAVES[1], LEAVES[0], *LEAVES[2:]], Tree(0)
    tree.extend(swapped)
    assert tree.root() != rfc9162_root(LEAVES)


# ---- Whole fingerprints ------------------------------------------------------------------------------


def schema_of(label_count: int, *, identities: bool = True) -> Schema:
    columns = (
        Column("image", pa.binary(), "image"),
        Column(
            "label_vector",
            parse_type(f"uint8[{label_count}]"),
            "label",
            label_names=tuple(f"label {number}" for number in range(label_count)),
            kind="multi-label",
            unlabelled=True,
        ),
        *(Column(size, pa.int32(), size) for size in SIZES),
    )
    return with_derived_label(columns).joined(IDENTITIES if identities else {})


def make(count: int, label_count: int, seed: int = 3) -> list[Record]:
    chance = np.random.default_rng(seed)
    return [
        Record(
            chance.bytes(int(chance.integers(0, 30))),
            tuple((chance.random(label_count) < 0.3).astype(int).tolist()),
            *chance.integers(0, 1000, 3).tolist(),
            img_id=f"img{number}",
            clip_id=f"클립{number % 3}",
        )
        for number in range(count)
    ]


def batch_of(records: list[Record], schema: Schema) -> pa.RecordBatch:
    vectors = np.array([record.label for record in records], np.uint8).reshape(len(records), -1)
    columns = [
        binary_array([record.image for record in records]),
        list_array(number_array(vectors.ravel(), pa.uint8()), schema.arrow.types[1], np.zeros(0, np.int64)),
        *(pa.array([getattr(record, size) for record in records], pa.int32()) for size in SIZES),
        *(
            pa.array([getattr(record, name) for record in records], pa.string())
            for name in IDENTITIES
            if name in schema
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema.arrow)


def parts_of(records: list[Record], cuts, schema: Schema, step=4) -> list[Part]:
    parts = []
    for start, end in cuts:
        builder = PartBuilder(start, schema)
        for at in range(start, end, step):
            builder.add(batch_of(records[at : min(at + step, end)], schema))
        assert builder.records == end - start
        parts.append(builder.part())
    return parts


def found_of(records: list[Record], schema: Schema, pieces: int = 1, seed: int = 0):
    cuts = cuts_of(random.Random(seed), len(records), pieces)
    return merge(parts_of(records, cuts, schema), schema)


@pytest.mark.parametrize("label_count", [1, 6, 8, 9, 24])
@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_a_fingerprint_is_what_its_definition_says(count, label_count):
    records, schema = make(count, label_count), schema_of(label_count)
    for pieces in (1, 3, 6):
        found = found_of(records, schema, pieces, seed=count)
        labels = [record.label for record in records]
        assert found.records == count
        assert found.records_sha256 == rfc9162_root([kfer_leaf(record) for record in records])
        assert found.labels_sha256 == sha256(b"".join(map(bytes, labels))).hexdigest()
        assert found.identities_sha256 == rfc9162_root(
            [sha256(f"{record.img_id}\n{record.clip_id}".encode()).digest() for record in records], prefix=b""
        )
        assert found.image_bytes == sum(len(record.image) for record in records)
        assert list(found.label_counts) == [sum(column) for column in zip(*labels, strict=True)]
        assert found.labels_per_image == dict(sorted(Counter(map(sum, labels)).items()))
        assert found.distinct_label_sets == len(set(labels))
        text = json.loads(json.dumps(encode(found)))
        assert text["records_sha256"] == found.records_sha256
        assert text["labels_per_image"] == {str(key): value for key, value in found.labels_per_image.items()}


def test_slices_of_a_batch_count_only_their_rows():
    records, schema = make(20, 6), schema_of(6)
    whole, builder = batch_of(records, schema), PartBuilder(0, schema)
    for start, size in ((0, 3), (3, 10), (13, 0), (13, 7)):
        builder.add(whole.slice(start, size))
    assert merge([builder.part()], schema) == found_of(records, schema)


def test_identities_of_some_records_are_none():
    records, cuts = make(10, 6), [(0, 4), (4, 10)]
    with_names, without = schema_of(6), schema_of(6, identities=False)
    named, nameless = parts_of(records, cuts, with_names), parts_of(records, cuts, without)
    assert merge(nameless, without).identities_sha256 is None
    assert merge([named[0], nameless[1]], with_names).identities_sha256 is None
    assert merge([nameless[0], named[1]], with_names).identities_sha256 is None
    # Joined columns are in the records' leaves: a name cannot move to another picture.
    assert merge(nameless, without).records_sha256 != merge(named, with_names).records_sha256


@pytest.mark.parametrize(
    "change",
    [
        lambda record: {"image": record.image + b"x"},
        lambda record: {"label": (1 - record.label[0], *record.label[1:])},
        lambda record: {"height": record.height + 1},
        lambda record: {"width": record.width + 1},
        lambda record: {"depth": record.depth + 1},
        lambda record: {"img_id": record.img_id + "x"},
        lambda record: {"clip_id": record.clip_id + "x"},
    ],
)
def test_any_change_of_any_value_changes_the_root(change):
    records, schema = make(9, 6), schema_of(6)
    sound = found_of(records, schema)
    for row in (0, 4, 8):
        changed = [*records]
        changed[row] = Record(**vars(records[row]) | change(records[row]))
        assert found_of(changed, schema).records_sha256 != sound.records_sha256


def test_values_that_change_places_change_the_root():
    """All images, all label vectors and all names are there, in other company."""
    records, schema = make(9, 6), schema_of(6)
    sound = found_of(records, schema)
    for part in ("image", "label", "img_id"):
        changed = [*records]
        for one, other in ((0, 1), (1, 0)):
            changed[one] = Record(**vars(records[one]) | {part: getattr(records[other], part)})
        found = found_of(changed, schema)
        assert found.records_sha256 != sound.records_sha256
        assert (found.labels_sha256 == sound.labels_sha256) == (part != "label")


def test_no_records():
    schema = schema_of(6)
    found = merge([], schema)
    assert (found.records, found.label_counts, found.labels_per_image) == (0, (0,) * 6, {})
    assert found.labels_sha256 == found.records_sha256 == sha256(b"").hexdigest()
    assert found == merge([PartBuilder(0, schema).part()], schema)


def test_without_named_labels_nothing_is_said_of_them():
    schema = Schema((Column("text", pa.string()), Column("number", pa.int64(), "label")))
    builder = PartBuilder(0, schema)
    builder.add(pa.RecordBatch.from_pydict({"text": ["a", "b"], "number": [1, 1]}, schema=schema.arrow))
    found = merge([builder.part()], schema)
    assert (found.label_counts, found.labels_per_image, found.distinct_label_sets, found.labels_sha256) == (
        None,
    ) * 4
    assert (found.records, found.image_bytes) == (2, 0)


def test_labels_that_are_numbers_are_counted_by_their_names():
    label = Column("label", pa.list_(pa.int64()), "label", label_names=("a", "b", "c"))
    schema = Schema((label,))
    builder = PartBuilder(0, schema)
    builder.add(pa.RecordBatch.from_pydict({"label": [[2], [], [0, 2], [2, 0], [1, 1]]}, schema=schema.arrow))
    found = merge([builder.part()], schema)
    assert found.label_counts == (2, 1, 3)  # records, not values
    assert found.labels_per_image == {0: 1, 1: 2, 2: 2}
    assert found.distinct_label_sets == 4
    assert found.labels_sha256 is None


def test_of_too_many_label_sets_only_the_counts_are_kept(monkeypatch):
    monkeypatch.setattr(fingerprint, "MAX_LABEL_SETS", 3)
    records, schema = make(30, 6), schema_of(6)
    assert len({record.label for record in records}) > 3
    for pieces in (1, 30):
        found = found_of(records, schema, pieces)
        assert found.distinct_label_sets is None
        assert found.labels_per_image is None
        assert list(found.label_counts) == [
            sum(column) for column in zip(*(r.label for r in records), strict=True)
        ]


@pytest.mark.parametrize("picked", [[1], [0, 2], [1, 0], [0, 0], [0, 1, 1], [2, 1, 0]])
def test_parts_that_do_not_follow_each_other_are_refused(picked):
    schema = schema_of(6)
    parts = parts_of(make(12, 6), [(0, 5), (5, 8), (8, 12)], schema)
    with pytest.raises(ValueError, match="starts at record"):
        merge([parts[number] for number in picked], schema)


def test_a_part_of_other_labels_is_refused():
    (part,) = parts_of(make(5, 6), [(0, 5)], schema_of(6))
    with pytest.raises(ValueError, match="expected 8 counts of labels"):
        merge([part], schema_of(8))
