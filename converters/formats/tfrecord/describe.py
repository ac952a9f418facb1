"""``dataset.json`` beside files of Examples: all that a conversion of them needs to know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.dataset.decode import encode
from converters.dataset.description import DESCRIPTION_FILE, Split, described_columns
from converters.errors import CallError
from converters.formats.tfrecord.encoder import feature_schema

if TYPE_CHECKING:
    from converters.dataset.fingerprint import Fingerprint
    from converters.dataset.report import Report, SplitReport


def refuse_shared_features(splits: Sequence[Split]) -> None:
    """Refuse a joined column whose name is that of another column's feature.

    Raises:
        CallError: there is one.
    """
    for split in splits:
        try:
            feature_schema(split.schema)
        except ValueError as error:
            raise CallError(
                f"{split.title}: {error}, where both are written. Leave one of them out with --without COLUMN."
            ) from None


def write_description(report: Report, folder: Path, suffix: str) -> None:
    """Write the description of an output whose files are ``<config>/<split>-00000-of-0000N<suffix>``.

    What was published with the source is taken from the proven fingerprints, so that it is true of what is there.
    """
    configs: dict[str, Any] = {}
    for split in report.splits:
        config = configs.setdefault(
            split.split.config,
            {"columns": described_columns(feature_schema(split.split.schema)), "splits": {}},
        )
        config["splits"][split.split.name] = _split(split, suffix)
    document = {
        "name": report.description.name,
        "about": encode(report.description.about),
        "configs": configs,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8", newline="\n")


def _split(report: SplitReport, suffix: str) -> dict[str, Any]:
    split = report.split
    return {"file": f"{split.config}/{split.name}-*-of-*{suffix}", **_published(report.fingerprint, split)}


def _published(fingerprint: Fingerprint, split: Split) -> dict[str, Any]:
    counts = fingerprint.label_counts
    facts = {
        "records": fingerprint.records,
        "label_counts": None if counts is None else dict(zip(split.label_names, counts, strict=True)),
        "labels_per_image": encode(fingerprint.labels_per_image),
        "distinct_label_sets": fingerprint.distinct_label_sets,
        "labels_sha256": fingerprint.labels_sha256,
        "identities_sha256": fingerprint.identities_sha256,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}
