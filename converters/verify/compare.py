"""Compares fingerprints: source with output, and both with the facts published with the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from converters.dataset.description import Published, Split
from converters.dataset.fingerprint import Fingerprint
from converters.dataset.members import missing_files
from converters.dataset.quarantine import Quarantine
from converters.dataset.report import Check
from converters.dataset.source_facts import SourceFacts
from converters.errors import ConverterError

RECORDS = "records"
LABEL_COUNTS = "counts per label"
LABELS_PER_IMAGE = "labels per image"
LABEL_ORDER = "label order"
MEMBERS = "members"
SHARD_LENGTHS = "records per file"
EXAMPLE_BYTES = "bytes of Examples"
CHECKSUMS = "checksums"
VALUES = "every value"
IDENTITY = "identity"
EVERY_BYTE = "every byte"
_FACTS = {
    RECORDS: "records",
    LABEL_COUNTS: "label_counts",
    LABELS_PER_IMAGE: "labels_per_image",
    LABEL_ORDER: "labels_sha256",
    IDENTITY: "identities_sha256",
}
_SHOWN = 20

REORDERED = (
    "the label vectors are not the published ones, in order, while all counts agree: the records were written in "
    "another order, or labels stand on other images than their own. Nothing outside can tell which"
)


def compare(
    split: Split,
    expected: Fingerprint,
    found: Fingerprint,
    sources: Sequence[SourceFacts],
    *,
    identified: bool,
    clips: int | None = None,
) -> tuple[Check, ...]:
    """The checks of one split.

    Args:
        split: with the published facts.
        expected: fingerprint of the source.
        found: fingerprint of the output, read back.
        sources: what is known of the source files.
        identified: whether identities were asked for.
        clips: number of distinct clips, where known.
    """
    published = split.published
    checks = [_records(published, found, sources)]
    if split.label_names:
        checks += [_label_counts(split, found), _labels_per_image(published, found)]
    if split.kind is not None:
        checks.append(_label_order(published, found, counts_agree=_agree(checks)))
    checks += _facts_of_files(split, sources)
    values = f"{found.records} records of {len(split.schema.stored)} columns"
    if found == expected:
        images = f", {found.image_bytes} bytes of images," if split.schema.images else ""
        checks.append(Check(VALUES, "passed", f"{values}{images} equal the source's"))
    else:
        reason = f"{values} were read back, and are not the source's {expected.records}"
        checks.append(Check(VALUES, "failed", reason))
    if identified:
        checks.append(_identity(published, found, clips))
    return tuple(_of_both(check, expected, found) for check in checks)


def _of_both(check: Check, expected: Fingerprint, found: Fingerprint) -> Check:
    """The check, which failed where the fact that it is about is not the same in source and output."""
    fact = _FACTS.get(check.name)
    if fact is None or getattr(expected, fact) == getattr(found, fact):
        return check
    return Check(check.name, "failed", "what was read back from the output is not the source's")


def check_witnesses(
    witnesses: Mapping[int, bytes], leaves: Sequence[bytes], first: int, split: Split
) -> None:
    """Hold the leaves of records that were read, the first being record ``first`` of the split, against the witnesses.

    Raises:
        ConverterError: a record is not what its source says by other code: a fault of this program, or of a format.
    """
    for record, leaf in witnesses.items():
        if 0 <= record - first < len(leaves) and leaf != leaves[record - first]:
            raise ConverterError(
                f"record {record} of {split.title} has other values than its source, when that is read in another way. "
                "The data may be sound: this is a fault of kfer-convert, or of the format."
            )


def _facts_of_files(split: Split, sources: Sequence[SourceFacts]) -> Iterator[Check]:
    """The checks of what is published about the files themselves, where anything is."""
    published = split.published
    lost = missing_files(split.files, [source.name for source in sources])
    if lost is not None and lost[0]:
        reason = f"{_listed(lost[1], lost[0])}: not here"
        yield Check(MEMBERS, "failed", reason, published=True)
    elif lost is not None:
        yield Check(MEMBERS, "passed", "all are here, as their names say", published=True)
    if published.shard_lengths is not None:
        yield _shard_lengths(sources, published.shard_lengths)
    if published.num_bytes is not None:
        size = sum(source.example_bytes for source in sources)
        yield _published(EXAMPLE_BYTES, str(size), str(published.num_bytes))
    stated = [source for source in sources if source.published is not None]
    wrong = [
        source.name
        for source in stated
        if source.published not in (f"sha256:{source.sha256}", source.md5 and f"md5:{source.md5}")
    ]
    if wrong:
        yield Check(CHECKSUMS, "failed", f"{_listed(wrong)}: not the published digest", published=True)
    elif stated:
        yield Check(CHECKSUMS, "passed", f"{len(stated)} files have their published digests", published=True)


def _shard_lengths(sources: Sequence[SourceFacts], published: Sequence[int]) -> Check:
    found = [source.records for source in sources]
    if found == list(published):
        return _published(SHARD_LENGTHS, _listed(found), _listed(published))
    differs = (
        f"{source.name} has {source.records} records, {length} are published"
        for source, length in zip(sources, published, strict=False)
        if source.records != length
    )
    numbers = f"{len(found)} files, {len(published)} are published"
    return Check(SHARD_LENGTHS, "failed", next(differs, numbers), published=True)


def _listed(values: Sequence[object], count: int | None = None) -> str:
    """The first of the values, of which there are ``count``."""
    shown = ", ".join(map(str, values[:_SHOWN]))
    count = len(values) if count is None else count
    return shown if count <= _SHOWN else f"{shown} … ({count})"


def explain(
    split: Split,
    found: Fingerprint,
    checks: Sequence[Check],
    quarantine: Quarantine,
    *,
    csv_labels: bool | None = None,
    csv_identities: bool | None = None,
) -> tuple[Check, ...]:
    """The checks of a split, told which published facts differ just as they must without the lost records.

    Args:
        split: with the published facts.
        found: fingerprint of the output.
        checks: what :func:`compare` found.
        quarantine: what is lost.
        csv_labels: whether the label CSV, against which all records were held, has the published labels as a
            whole; None where there is none, or this is not known.
        csv_identities: likewise, the published names.
    """
    lost = quarantine.lost_records
    if lost is None and split.published.records is not None:
        lost = split.published.records - found.records
    explained = {
        RECORDS: lost is None or found.records + lost == split.published.records,
        LABEL_COUNTS: _labels_lost(split, found, lost),
        LABELS_PER_IMAGE: _label_numbers_lost(split.published, found, lost),
    }
    counts = all(
        explained[check.name]
        for check in checks
        if check.name in explained and check.published and check.result == "failed"
    )
    explained[LABEL_ORDER] = counts and csv_labels is not False
    explained[IDENTITY] = counts and csv_identities is not False
    told = []
    for check in checks:
        if check.result == "failed" and check.published and explained.get(check.name) and lost != 0:
            reason = f"{check.reason}; explained by the records in quarantine"
            if check.name == LABEL_ORDER and csv_labels is None:
                reason += (
                    "; whether the others stand in the published order is not checked without the label CSVs"
                )
            told.append(replace(check, reason=reason, explained=True))
        elif check.name == RECORDS and check.result == "passed" and not check.published and lost:
            told.append(replace(check, reason=f"{found.records}, and {lost} lost, as the index says"))
        else:
            told.append(check)
    return (*told, every_byte(quarantine))


def every_byte(quarantine: Quarantine) -> Check:
    """Whether each byte of the source was converted, or is in quarantine."""
    wrong = next((file for file in quarantine.files if not file.complete), None)
    if wrong is not None:
        reason = (
            f"{wrong.file} has {wrong.bytes} bytes, of which {wrong.converted} were converted and "
            f"{wrong.quarantined} are in quarantine"
        )
        return Check(EVERY_BYTE, "failed", reason)
    converted = sum(file.converted for file in quarantine.files)
    quarantined = sum(file.quarantined for file in quarantine.files)
    stored = sum(file.stored_lost for file in quarantine.files)
    tail = f"; {stored} stored bytes that do not inflate are in quarantine as well" if stored else ""
    reason = (
        f"{converted} bytes converted and {quarantined} in quarantine are all {converted + quarantined} bytes"
    )
    return Check(EVERY_BYTE, "passed", reason + tail)


def _labels_lost(split: Split, found: Fingerprint, lost: int | None) -> bool:
    """Whether the counts per label are lower by what so many records can have had."""
    published = split.published.label_counts
    if published is None or found.label_counts is None:
        return False
    missing = [wanted - count for wanted, count in zip(published, found.label_counts, strict=True)]
    most = 1 if split.kind == "single-label" else len(published)
    return min(missing) >= 0 and (lost is None or lost <= sum(missing) <= lost * most)


def _label_numbers_lost(published: Published, found: Fingerprint, lost: int | None) -> bool:
    """Whether the numbers of labels per image, and of distinct label sets, are lower by what so many records had."""
    wanted, there = published.labels_per_image or {}, found.labels_per_image or {}
    missing = [wanted.get(number, 0) - there.get(number, 0) for number in wanted.keys() | there.keys()]
    fewer_sets = published.distinct_label_sets is None or (
        0
        <= published.distinct_label_sets - (found.distinct_label_sets or 0)
        <= (lost or published.distinct_label_sets)
    )
    return min(missing, default=0) >= 0 and (lost is None or sum(missing) == lost) and fewer_sets


def _agree(checks: Sequence[Check]) -> bool:
    """Whether the published counts agree: those of records and labels must be known, and none may differ."""
    records, label_counts, labels_per_image = checks
    return (
        all(check.published and check.result == "passed" for check in (records, label_counts))
        and labels_per_image.result != "failed"
    )


def _records(published: Published, found: Fingerprint, sources: Sequence[SourceFacts]) -> Check:
    if published.records is not None:
        return _published(RECORDS, f"{found.records}", f"{published.records}")
    if sources and all(source.indexed for source in sources):
        return Check(RECORDS, "passed", f"{found.records}, as the index says")
    return Check(
        RECORDS,
        "unverified",
        f"{found.records} found; with neither a published count nor an index, a file cut short between two "
        "records looks whole",
    )


def _label_counts(split: Split, found: Fingerprint) -> Check:
    published = split.published.label_counts
    if published is None:
        return Check(LABEL_COUNTS, "unverified", "no counts per label are published")
    differences = [
        f"{name} {count} (published {wanted})"
        for name, count, wanted in zip(split.label_names, found.label_counts or (), published, strict=True)
        if count != wanted
    ]
    as_published = f"all {len(published)} as published"
    return _published(LABEL_COUNTS, found.label_counts, published, as_published, "; ".join(differences))


def _labels_per_image(published: Published, found: Fingerprint) -> Check:
    if published.labels_per_image is None:
        return Check(LABELS_PER_IMAGE, "unverified", "no numbers of labels per image are published")
    wanted = {number: count for number, count in published.labels_per_image.items() if count}
    check = _published(LABELS_PER_IMAGE, _per_image(found.labels_per_image or {}), _per_image(wanted))
    sets = published.distinct_label_sets
    if check.result == "passed" and sets not in (None, found.distinct_label_sets):
        found_sets = f"{found.distinct_label_sets} distinct label sets"
        return Check(LABELS_PER_IMAGE, "failed", f"{found_sets} (published {sets})", published=True)
    return check


def _label_order(published: Published, found: Fingerprint, *, counts_agree: bool) -> Check:
    if published.labels_sha256 is None:
        return Check(LABEL_ORDER, "unverified", "no digest of the labels is published; equal to the source's")
    other = REORDERED if counts_agree else "the label vectors are not the published ones"
    as_published = "every label vector as published, in order"
    return _published(LABEL_ORDER, found.labels_sha256, published.labels_sha256, as_published, other)


def _identity(published: Published, found: Fingerprint, clips: int | None) -> Check:
    if found.identities_sha256 is None:
        return Check(IDENTITY, "failed", "no img_id and clip_id were read back from the output")
    if published.clips is not None and clips is not None and clips != published.clips:
        return _published(IDENTITY, f"{clips} clips", f"{published.clips} clips")
    if published.identities_sha256 is None:
        joined = f"{found.records} img_ids joined; every label vector equals its CSV row's"
        return Check(IDENTITY, "passed", joined)
    # Two rows of a CSV with the same labels may be swapped without any label vector showing it.
    other = "the img_ids and clip_ids of the CSV are not the published ones, in their order"
    as_published = f"{found.records} img_ids and clip_ids, as published, in order"
    return _published(IDENTITY, found.identities_sha256, published.identities_sha256, as_published, other)


def _published(name: str, found: object, wanted: object, same: str = "", other: str = "") -> Check:
    """Whether a fact is as published, in words of its own or in those of all."""
    if found == wanted:
        return Check(name, "passed", same or f"{found}, as published", published=True)
    return Check(name, "failed", other or f"{found} found, {wanted} published", published=True)


def _per_image(counts: Mapping[int, int]) -> str:
    return ", ".join(f"{number}: {count}" for number, count in sorted(counts.items()))
