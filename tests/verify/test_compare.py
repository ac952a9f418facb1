"""What decides whether an output is published: each check by itself, passed, failed and unverified."""

from dataclasses import replace

import pyarrow as pa
import pytest

from converters.dataset.description import Published, Split
from converters.dataset.fingerprint import Fingerprint
from converters.dataset.quarantine import FileBytes, Quarantine, QuarantinedRange
from converters.dataset.report import Check, SourceFacts
from converters.dataset.schema import Column, Schema, parse_type, with_derived_label
from converters.verify import compare

A, B = "a" * 64, "b" * 64
IMAGE = Column("image", pa.binary(), "image")
VECTOR = Column(
    "label_vector",
    parse_type("uint8[2]"),
    "label",
    "label",
    ("sad", "happy"),
    kind="multi-label",
    unlabelled=True,
)
NUMBER = Column("label", pa.int64(), "label", "label", ("sad", "happy"))
SCHEMA = with_derived_label((IMAGE, VECTOR))

# Six records: one has no label, three are sad, one is happy, one is both.
FOUND = Fingerprint(6, A, 600, (4, 2), {0: 1, 1: 4, 2: 1}, 4, A, None)
PUBLISHED = Published(
    records=6,
    label_counts=(4, 2),
    labels_per_image={0: 1, 1: 4, 2: 1, 3: 0},
    distinct_label_sets=4,
    labels_sha256=A,
)
SOURCES = (SourceFacts("one", 400, A, 4, 330, "none", True), SourceFacts("two", 250, B, 2, 215, "none", True))


def compared(
    published: Published = PUBLISHED,
    *,
    expected: Fingerprint = FOUND,
    found: Fingerprint = FOUND,
    sources=SOURCES,
    schema: Schema = SCHEMA,
    identified: bool = False,
    clips: int | None = None,
) -> dict[str, Check]:
    split = Split("c", "train", schema, ("one", "two"), published=published)
    checks = compare.compare(split, expected, found, sources, identified=identified, clips=clips)
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def results(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.result for name, check in checks.items()}


ALL = [compare.RECORDS, compare.LABEL_COUNTS, compare.LABELS_PER_IMAGE, compare.LABEL_ORDER, compare.VALUES]


def test_all_is_as_published():
    checks = compared()
    assert results(checks) == dict.fromkeys(ALL, "passed")
    assert {name for name, check in checks.items() if check.published} == {*ALL} - {compare.VALUES}


def test_a_dataset_that_nothing_is_published_of():
    checks = compared(Published(), sources=[replace(source, indexed=None) for source in SOURCES])
    assert results(checks) == dict.fromkeys(ALL[:4], "unverified") | {compare.VALUES: "passed"}
    assert not any(check.published for check in checks.values())


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (Schema((Column("a", pa.int64()),)), [compare.RECORDS, compare.VALUES]),
        (Schema((IMAGE, Column("label", pa.int64(), "label"))), [compare.RECORDS, compare.VALUES]),
        (
            Schema((IMAGE, NUMBER)),
            [compare.RECORDS, compare.LABEL_COUNTS, compare.LABELS_PER_IMAGE, compare.VALUES],
        ),
    ],
)
def test_what_a_schema_has_not_is_not_checked(schema, names):
    found = FOUND if schema.label and schema.label.label_names else Fingerprint(6, A, 0)
    assert [*compared(schema=schema, expected=found, found=found)] == names


# --- One fact, one check -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"records": 7}, {compare.RECORDS}),
        ({"records": 0}, {compare.RECORDS}),
        ({"label_counts": (4, 3)}, {compare.LABEL_COUNTS}),
        ({"label_counts": (2, 4)}, {compare.LABEL_COUNTS}),
        ({"labels_per_image": {0: 1, 1: 5}}, {compare.LABELS_PER_IMAGE}),
        ({"labels_per_image": {0: 1, 1: 4, 2: 1, 3: 1}}, {compare.LABELS_PER_IMAGE}),
        ({"distinct_label_sets": 3}, {compare.LABELS_PER_IMAGE}),
        ({"labels_sha256": B}, {compare.LABEL_ORDER}),
        ({"shard_lengths": (3, 3)}, {compare.SHARD_LENGTHS}),
        ({"shard_lengths": (2, 4)}, {compare.SHARD_LENGTHS}),
        ({"shard_lengths": (4, 2, 0)}, {compare.SHARD_LENGTHS}),
        ({"shard_lengths": (6,)}, {compare.SHARD_LENGTHS}),
        ({"shard_lengths": (4, 2)}, set()),
        ({"num_bytes": 545}, set()),
        ({"num_bytes": 650}, {compare.EXAMPLE_BYTES}),  # the files' size, with their framing
        ({"num_bytes": 0}, {compare.EXAMPLE_BYTES}),
    ],
)
def test_a_published_fact_that_differs_fails_its_own_check(change, failed):
    checks = compared(replace(PUBLISHED, **change))
    assert {name for name, check in checks.items() if check.result == "failed"} == failed
    assert all(checks[name].published for name in failed)  # what --allow-mismatch may let pass
    assert "unverified" not in results(checks).values()
    assert checks[compare.VALUES].result == "passed"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"label_counts": None}, compare.LABEL_COUNTS),
        ({"labels_per_image": None}, compare.LABELS_PER_IMAGE),
        ({"labels_sha256": None}, compare.LABEL_ORDER),
    ],
)
def test_a_fact_that_is_not_published_is_unverified(change, name):
    checks = compared(replace(PUBLISHED, **change))
    assert {check for check, result in results(checks).items() if result != "passed"} == {name}
    assert checks[name].result == "unverified"
    assert not checks[name].published


def test_the_number_of_label_sets_need_not_be_published():
    assert compared(replace(PUBLISHED, distinct_label_sets=None))[compare.LABELS_PER_IMAGE].result == "passed"


def test_without_a_published_number_the_indexes_of_all_files_tell_it():
    unpublished = replace(PUBLISHED, records=None)
    check = compared(unpublished)[compare.RECORDS]
    assert (check.result, check.published, check.reason) == ("passed", False, "6, as the index says")
    for sources in ([SOURCES[0], replace(SOURCES[1], indexed=None)], []):
        check = compared(unpublished, sources=sources)[compare.RECORDS]
        assert check.result == "unverified"
        assert "a file cut short between two records looks whole" in check.reason


# --- Source and output -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"records": 5}, {compare.RECORDS}),
        ({"records_sha256": B}, set()),
        ({"image_bytes": 599}, set()),
        ({"label_counts": (2, 4)}, {compare.LABEL_COUNTS}),
        ({"labels_per_image": {1: 6}}, {compare.LABELS_PER_IMAGE}),
        ({"distinct_label_sets": 3}, set()),
        ({"labels_sha256": B}, {compare.LABEL_ORDER}),
        ({"labels_sha256": None}, {compare.LABEL_ORDER}),
    ],
)
@pytest.mark.parametrize("published", [PUBLISHED, Published()])
def test_an_output_that_is_not_its_source_fails_whatever_is_published(change, failed, published):
    """Such a failure is not of the published facts: --allow-mismatch lets none pass."""
    checks = compared(published, found=replace(FOUND, **change))
    assert checks[compare.VALUES].result == "failed"
    assert not checks[compare.VALUES].published
    for name in failed:
        assert checks[name].result == "failed"
        assert not checks[name].published


def test_a_source_that_differs_from_what_is_published_is_not_an_output_that_differs():
    both = replace(FOUND, label_counts=(3, 3), labels_sha256=B)
    checks = compared(expected=both, found=both)
    assert {name for name, result in results(checks).items() if result == "failed"} == {
        compare.LABEL_COUNTS,
        compare.LABEL_ORDER,
    }
    assert "sad 3 (published 4); happy 3 (published 2)" in checks[compare.LABEL_COUNTS].reason


@pytest.mark.parametrize(
    ("change", "reordered"),
    [
        ({}, True),
        ({"labels_per_image": None}, True),
        ({"records": 7}, False),
        ({"records": None}, False),
        ({"label_counts": (5, 2)}, False),
        ({"label_counts": None}, False),
        ({"labels_per_image": {1: 6}}, False),
        ({"distinct_label_sets": 3}, False),
    ],
)
def test_another_order_is_told_only_where_all_counts_agree(change, reordered):
    check = compared(replace(PUBLISHED, labels_sha256=B, **change))[compare.LABEL_ORDER]
    assert (check.reason == compare.REORDERED) == reordered


# --- Checksum files ----------------------------------------------------------------------------------------

MD5 = "c" * 32


@pytest.mark.parametrize(
    ("stated", "result"),
    [
        ((f"sha256:{A}", f"sha256:{B}"), "passed"),
        ((f"sha256:{A}", None), "passed"),
        ((None, f"md5:{MD5}"), "passed"),
        ((f"sha256:{B}", None), "failed"),
        ((f"sha256:{A}", f"sha256:{A}"), "failed"),
        ((None, f"md5:{'d' * 32}"), "failed"),
        ((f"md5:{A}", None), "failed"),  # a digest of another kind
        ((f"md5:{None}", None), "failed"),
    ],
)
def test_checksums(stated, result):
    sources = [replace(source, published=text) for source, text in zip(SOURCES, stated, strict=True)]
    sources[1] = replace(sources[1], md5=MD5)
    check = compared(sources=sources)[compare.CHECKSUMS]
    assert (check.result, check.published) == (result, True)
    wrong = [
        source.name
        for source in sources
        if result == "failed" and source.published not in (None, f"sha256:{A}")
    ]
    assert all(name in check.reason for name in wrong)


def test_without_checksum_files_nothing_is_said_of_them():
    assert compare.CHECKSUMS not in compared()


def test_of_many_files_a_few_are_named():
    sources = [replace(SOURCES[0], name=f"f{number}", published=f"sha256:{B}") for number in range(30)]
    lengths = (4,) * 29 + (5,)
    checks = compared(replace(PUBLISHED, shard_lengths=lengths), sources=sources)
    assert "f19 … (30)" in checks[compare.CHECKSUMS].reason
    # What differs may be beyond what would be shown: the whole is compared, and the file is named.
    check = checks[compare.SHARD_LENGTHS]
    assert (check.result, check.reason) == ("failed", "f29 has 4 records, 5 are published")
    assert (
        "4, 4 … (30), as published"
        in compared(replace(PUBLISHED, shard_lengths=(4,) * 30), sources=sources)[
            compare.SHARD_LENGTHS
        ].reason
    )


def test_a_missing_file_is_told_by_the_numbers_of_files():
    check = compared(replace(PUBLISHED, shard_lengths=(4, 2, 0)))[compare.SHARD_LENGTHS]
    assert check.reason == "2 files, 3 are published"


# --- Identities --------------------------------------------------------------------------------------------

NAMED = replace(FOUND, identities_sha256=A)


@pytest.mark.parametrize(
    ("published", "expected", "found", "clips", "result", "by_publisher"),
    [
        ({"identities_sha256": A, "clips": 3}, NAMED, NAMED, 3, "passed", True),
        ({"identities_sha256": A}, NAMED, NAMED, 3, "passed", True),
        ({}, NAMED, NAMED, 3, "passed", False),
        ({"clips": 3}, NAMED, NAMED, 4, "failed", True),
        ({"clips": 3}, NAMED, NAMED, None, "passed", False),
        ({"identities_sha256": B}, NAMED, NAMED, 3, "failed", True),
        ({"identities_sha256": A}, NAMED, replace(NAMED, identities_sha256=B), 3, "failed", False),
        ({"identities_sha256": A}, NAMED, FOUND, 3, "failed", False),
        ({"identities_sha256": A}, FOUND, NAMED, 3, "failed", False),
        ({}, FOUND, FOUND, 3, "failed", False),  # asked for, and not there
    ],
)
def test_identities(published, expected, found, clips, result, by_publisher):
    checks = compared(
        replace(PUBLISHED, **published), expected=expected, found=found, identified=True, clips=clips
    )
    check = checks[compare.IDENTITY]
    assert (check.result, check.published) == (result, by_publisher)


def test_identities_are_not_checked_where_none_were_asked_for():
    assert compare.IDENTITY not in compared(replace(PUBLISHED, identities_sha256=A, clips=3))


# --- With records in quarantine ----------------------------------------------------------------------------


def lost(records: int | None, *, quarantined: int = 100) -> Quarantine:
    piece = QuarantinedRange(
        "one", 0, quarantined, None, records, 0, 0, None, "damaged", None, "quarantine/x"
    )
    return Quarantine(piece.records, (piece,), (FileBytes("one", 650, 550, 100, 650, 0),))


# One of the six is lost: a sad one.
LEFT = Fingerprint(5, B, 500, (3, 2), {0: 1, 1: 3, 2: 1}, 4, B, None)


def explained(
    published: Published = PUBLISHED, *, found: Fingerprint = LEFT, records: int | None = 1, **more
) -> dict[str, Check]:
    split = Split("c", "train", SCHEMA, ("one", "two"), published=published)
    unindexed = [replace(source, indexed=None) for source in SOURCES]
    checks = compare.compare(split, found, found, unindexed, identified=False)
    return {check.name: check for check in compare.explain(split, found, checks, lost(records), **more)}


def unexplained(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.result == "failed" and not check.explained}


def test_what_a_lost_record_takes_with_it_is_explained():
    checks = explained(csv_labels=True)
    assert {name for name, check in checks.items() if check.explained} == {*ALL} - {compare.VALUES}
    assert all(check.result == "failed" for check in checks.values() if check.explained)  # still not passed
    assert unexplained(checks) == set()


def test_without_label_csvs_the_order_of_the_others_is_said_not_to_be_checked():
    assert "is not checked without the label CSVs" in explained()[compare.LABEL_ORDER].reason
    assert "is not checked" not in explained(csv_labels=True)[compare.LABEL_ORDER].reason


@pytest.mark.parametrize(
    ("found", "records", "wrong"),
    [
        # As many as were lost must be missing, of the records ...
        (replace(LEFT, records=4), 1, {compare.RECORDS}),
        (LEFT, 2, {compare.RECORDS, compare.LABELS_PER_IMAGE, compare.LABEL_COUNTS}),
        # ... of each label no more than published ...
        (replace(LEFT, label_counts=(3, 3)), 1, {compare.LABEL_COUNTS}),
        (replace(LEFT, label_counts=(5, 1)), 1, {compare.LABEL_COUNTS}),
        # ... and of the numbers of labels.
        (replace(LEFT, labels_per_image={1: 4, 2: 1, 0: 0}), 1, set()),
        (replace(LEFT, labels_per_image={1: 3, 2: 2}), 1, {compare.LABELS_PER_IMAGE}),
        (replace(LEFT, labels_per_image={1: 3, 2: 1}), 1, {compare.LABELS_PER_IMAGE}),
        (replace(LEFT, distinct_label_sets=5), 1, {compare.LABELS_PER_IMAGE}),
        (replace(LEFT, distinct_label_sets=2), 1, {compare.LABELS_PER_IMAGE}),
    ],
)
def test_what_the_lost_records_cannot_have_taken_is_not_explained(found, records, wrong):
    checks = explained(found=found, records=records, csv_labels=True)
    # Where a count is not explained, nor is the order: it says nothing by itself.
    assert unexplained(checks) == wrong | ({compare.LABEL_ORDER} if wrong else set())


def test_an_order_that_the_label_csvs_deny_is_not_explained():
    assert unexplained(explained(csv_labels=False)) == {compare.LABEL_ORDER}


def test_nothing_lost_explains_nothing():
    assert unexplained(explained(records=0)) == {*ALL} - {compare.VALUES}


def test_where_the_number_of_lost_records_is_not_known_the_published_one_tells_it():
    assert unexplained(explained(records=None, csv_labels=True)) == set()
    wrong = replace(LEFT, label_counts=(4, 3))
    assert compare.LABEL_COUNTS in unexplained(explained(found=wrong, records=None, csv_labels=True))


def test_an_output_that_differs_from_its_source_is_never_explained():
    split = Split("c", "train", SCHEMA, ("one",), published=PUBLISHED)
    checks = compare.compare(split, LEFT, replace(LEFT, records_sha256=A), SOURCES, identified=False)
    told = compare.explain(split, LEFT, checks, lost(1), csv_labels=True)
    assert [check.name for check in told if check.result == "failed" and not check.explained] == [
        compare.VALUES
    ]


def test_the_index_tells_how_many_are_lost():
    split = Split("c", "train", SCHEMA, ("one",), published=replace(PUBLISHED, records=None))
    checks = compare.compare(split, LEFT, LEFT, SOURCES, identified=False)
    told = compare.explain(split, LEFT, checks, lost(1), csv_labels=True)
    assert told[0].reason == "5, and 1 lost, as the index says"


@pytest.mark.parametrize(
    ("files", "result"),
    [
        ([FileBytes("one", 650, 550, 100, 650, 0)], "passed"),
        ([FileBytes("one", 650, 650, 0, 650, 0), FileBytes("two", 10, 0, 10, 10, 0)], "passed"),
        ([FileBytes("one", 650, 549, 100, 650, 0)], "failed"),
        ([FileBytes("one", 650, 551, 100, 650, 0)], "failed"),
        ([FileBytes("one", 650, 550, 100, 40, 41)], "failed"),
        ([FileBytes("one", 1, 1, 0, 1, 0), FileBytes("two", 10, 0, 9, 10, 0)], "failed"),
    ],
)
def test_every_byte(files, result):
    check = compare.every_byte(Quarantine(0, (), tuple(files)))
    assert (check.name, check.result, check.published) == (compare.EVERY_BYTE, result, False)
    if result == "failed":
        assert files[-1].file in check.reason


def test_stored_bytes_that_do_not_inflate_are_told():
    check = compare.every_byte(Quarantine(0, (), (FileBytes("one", 650, 650, 0, 300, 12),)))
    assert check.result == "passed"
    assert "12 stored bytes that do not inflate" in check.reason
