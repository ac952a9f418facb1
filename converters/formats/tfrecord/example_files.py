"""What lies beside files of Examples: ``dataset.json``, all that converting them takes; and how they are loaded."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.dataset.decode import encode
from converters.dataset.description import DESCRIPTION_FILE, Split, described_columns
from converters.dataset.schema import Schema
from converters.errors import CallError
from converters.formats.readme import example_split
from converters.formats.shard_files import ShardFiles
from converters.formats.tfrecord.columns import kind_of
from converters.formats.tfrecord.encoder import feature_schema
from converters.formats.tfrecord.strict_parser import FeatureKind

if TYPE_CHECKING:
    from converters.dataset.fingerprint import Fingerprint
    from converters.dataset.report import Report, SplitReport

_TENSORFLOW_TYPES: Mapping[FeatureKind, str] = {
    "bytes_list": "tf.string",
    "int64_list": "tf.int64",
    "float_list": "tf.float32",
}


class ExampleFiles(ShardFiles):
    """The base of formats that write files of Examples, with a ``dataset.json`` beside them."""

    in_datasets = False

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse a joined column whose name is that of another column's feature, too.

        Raises:
            CallError: there is one, or a name that means something else.
        """
        super().refuse(splits)
        for split in splits:
            try:
                feature_schema(split.schema)
            except ValueError as error:
                raise CallError(
                    f"{split.title}: {error}, where both are written. Leave one of them out with --without COLUMN."
                ) from None

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms, a README, and the description with which the files convert again anywhere."""
        super().finish(report, folder)
        write_description(report, folder, self.suffix)


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


def tensorflow_loading(report: Report) -> str:
    """Markdown that says how TensorFlow reads the files of one split."""
    split = example_split(report)
    return textwrap.dedent(
        """\
        With this folder as working directory:

        ```python
        from pathlib import Path

        import tensorflow as tf

        features = {{
        {features}
        }}
        files = sorted(map(str, Path({config}).glob({files})))
        dataset = tf.data.TFRecordDataset(files).map(lambda record: tf.io.parse_single_example(record, features))
        ```

        `dataset.json` says what the features are; with it, `kfer-convert` converts this folder to any other layout."""
    ).format(
        features="\n".join(f"    {line}," for line in _parsers(split.schema)),
        config=json.dumps(split.config, ensure_ascii=False),
        files=json.dumps(f"{split.name}-*.tfrecord", ensure_ascii=False),
    )


def _parsers(schema: Schema) -> Iterator[str]:
    """For each feature, its name and what TensorFlow is to make of it, as Python."""
    for column in feature_schema(schema):
        kind = _TENSORFLOW_TYPES[kind_of(column)]
        fixed = column.size is not None and not column.nullable
        shape = "[]" if column.size == 1 and not column.is_list else f"[{column.size}]"
        value = f"tf.io.FixedLenFeature({shape}, {kind})" if fixed else f"tf.io.RaggedFeature({kind})"
        yield f"{json.dumps(column.feature, ensure_ascii=False)}: {value}"
