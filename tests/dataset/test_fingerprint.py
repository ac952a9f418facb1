"""Fingerprints against their public definition, in one piece and in parts."""

import json
import random
from collections import Counter
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dataset.arrays import record_batch
from converters.dataset.decode import encode
from converters.dataset.fingerprint import Part, PartBuilder, Tree, merge

MAX_LEAVES = 70


def defined_root(leaves: list[bytes]) -> str:
    """The definition: neighbours are joined, level by level; an odd one at the end moves up unchanged."""
    if not leaves:
        return sha256(b"").hexdigest()
    while len(leaves) > 1:
        joined = [
            sha256(left + right).digest() for left, right in zip(leaves[::2], leaves[1::2], strict=False)
        ]
        leaves = joined + leaves[len(leaves) - len(leaves) % 2 :]
    return leaves[0].hex()


def rfc9162_shape(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1: split at the largest power of two smaller than n (without its prefix bytes)."""
    if len(leaves) == 1:
        return leaves[0]
    power = 1
    while power * 2 < len(leaves):
        power *= 2
    return sha256(rfc9162_shape(leaves[:power]) + rfc9162_shape(leaves[power:])).digest()


LEAVES = [sha256(b"leaf %d" % number).digest() for number in range(MAX_LEAVES)]


def cuts_of(chance: random.Random, count: int, pieces: int) -> list[tuple[int, int]]:
    edges = sorted([0, count, *(chance.randint(0, count) for _ in range(pieces - 1))])
    return list(pairwise(edges))


def test_the_two_definitions_agree():
    for count in range(1, MAX_LEAVES):
        assert defined_root(LEAVES[:count]) == rfc9162_shape(LEAVES[:count]).hex()


def test_a_tree_of_any_size_filled_in_any_steps():
    chance = random.Random(1)
    for count in range(MAX_LEAVES + 1):
        for pieces in (1, 2, 5, count + 1):
            tree = Tree(0)
            for start, end in cuts_of(chance, count, pieces):
                tree.extend(LEAVES[start:end])
            assert tree.root() == defined_root(LEAVES[:count]), (count, pieces)
            # O(log n): one node for each bit of the count.
            assert len(tree.nodes()) == count.bit_count()


def test_parts_at_every_cut_merge_to_the_same_tree():
    for count in range(MAX_LEAVES + 1):
        expected = defined_root(LEAVES[:count])
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
    assert whole.root() == defined_root(LEAVES[:count])


def test_order_and_number_of_leaves_matter():
    assert len({defined_root(LEAVES[:count]) for count in range(MAX_LEAVES)}) == MAX_LEAVES
    swapped, tree = [LEAVES[1], LEAVES[0], *LEAVES[2:]], Tree(0)
    tree.extend(swapped)
    assert tree.root() != defined_root(LEAVES)


# ---- Whole fingerprints ------------------------------------------------------------------------------


def make(count: int, label_count: int, seed: int = 3):
    chance = np.random.default_rng(seed)
    images = [chance.bytes(int(chance.integers(0, 30))) for _ in range(count)]
    labels = (chance.random((count, label_count)) < 0.3).astype(np.uint8)
    names = [(f"img{number}", f"클립{number % 3}") for number in range(count)]
    return images, labels, names


def batch(images, labels, names):
    return record_batch(
        images,
        labels,
        np.zeros((len(images), 3), np.int32),
        None if names is None else pa.array([name for name, _ in names], pa.string()),
        None if names is None else pa.array([clip for _, clip in names], pa.string()),
    )


def parts_of(made, cuts, label_count, step=4, identities=True) -> list[Part]:
    images, labels, names = made
    parts = []
    for start, end in cuts:
        builder = PartBuilder(start, label_count)
        rows = [
            batch(images[at : min(at + step, end)], labels[at : min(at + step, end)],
                  names[at : min(at + step, end)] if identities else None)
            for at in range(start, end, step)
        ]  # fmt: skip
        assert list(builder.watch(rows)) == rows
        assert builder.records == end - start
        parts.append(builder.part())
    return parts


@pytest.mark.parametrize("label_count", [1, 6, 8, 9, 24])
@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_a_fingerprint_is_what_its_definition_says(count, label_count):
    images, labels, names = made = make(count, label_count)
    chance = random.Random(count)
    for pieces in (1, 3, 6):
        found = merge(parts_of(made, cuts_of(chance, count, pieces), label_count), label_count)
        assert found.records == count
        assert found.labels_sha256 == sha256(b"".join(bytes(row.tolist()) for row in labels)).hexdigest()
        assert found.images_sha256 == defined_root([sha256(image).digest() for image in images])
        assert found.identities_sha256 == defined_root(
            [sha256(f"{a}\n{b}".encode()).digest() for a, b in names]
        )
        assert found.image_bytes == sum(map(len, images))
        assert list(found.label_counts) == labels.sum(axis=0).tolist()
        assert found.labels_per_image == dict(sorted(Counter(labels.sum(axis=1).tolist()).items()))
        assert found.distinct_label_sets == len({bytes(row.tolist()) for row in labels})
        text = json.loads(json.dumps(encode(found)))
        assert text["images_sha256"] == found.images_sha256
        assert text["labels_per_image"] == {str(key): value for key, value in found.labels_per_image.items()}


def test_slices_of_a_batch_count_only_their_rows():
    images, labels, names = made = make(20, 6)
    whole, builder = batch(images, labels, names), PartBuilder(0, 6)
    for start, size in ((0, 3), (3, 10), (13, 0), (13, 7)):
        builder.add(whole.slice(start, size))
    assert merge([builder.part()], 6) == merge(parts_of(made, [(0, 20)], 6), 6)


def test_identities_of_some_records_are_none():
    made = make(10, 6)
    with_, without = (
        parts_of(made, [(0, 4), (4, 10)], 6),
        parts_of(made, [(0, 4), (4, 10)], 6, identities=False),
    )
    assert merge(without, 6).identities_sha256 is None
    assert merge([with_[0], without[1]], 6).identities_sha256 is None
    assert merge([without[0], with_[1]], 6).identities_sha256 is None
    assert merge(without, 6).images_sha256 == merge(with_, 6).images_sha256


def test_any_change_changes_the_fingerprint():
    images, labels, names = made = make(9, 6)
    sound = merge(parts_of(made, [(0, 9)], 6), 6)
    flipped = labels.copy()
    flipped[4, 2] ^= 1
    found = merge(parts_of((images, flipped, names), [(0, 9)], 6), 6)
    assert found.labels_sha256 != sound.labels_sha256
    moved = [images[1], images[0], *images[2:]]
    found = merge(parts_of((moved, labels, names), [(0, 9)], 6), 6)
    assert found.images_sha256 != sound.images_sha256
    assert found.labels_sha256 == sound.labels_sha256


def test_no_records():
    found = merge([], 6)
    assert (found.records, found.label_counts, found.labels_per_image) == (0, (0,) * 6, {})
    assert found.labels_sha256 == found.images_sha256 == sha256(b"").hexdigest()
    assert found == merge([PartBuilder(0, 6).part()], 6)


@pytest.mark.parametrize("picked", [[1], [0, 2], [1, 0], [0, 0], [0, 1, 1], [2, 1, 0]])
def test_parts_that_do_not_follow_each_other_are_refused(picked):
    parts = parts_of(make(12, 6), [(0, 5), (5, 8), (8, 12)], 6)
    with pytest.raises(ValueError, match="starts at record"):
        merge([parts[number] for number in picked], 6)
