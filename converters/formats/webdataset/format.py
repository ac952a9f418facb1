"""WebDataset: tar archives in which the files of one record follow each other and share a key."""

from __future__ import annotations

import json
import re
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from converters.dataset.description import Split
from converters.dataset.image_header import SUFFIXES
from converters.dataset.schema import Schema
from converters.dataset.shard import Shard
from converters.errors import CallError, DataError
from converters.formats.readme import code, datasets_loading, example_split
from converters.formats.shard_files import ShardFiles
from converters.formats.table import yaml_features
from converters.formats.webdataset.files import JSON, SEVERAL, Layout, problems
from converters.formats.webdataset.reading import Archive
from converters.formats.webdataset.writing import write_archive
from converters.storage.hashing_reader import FileReader

if TYPE_CHECKING:
    from converters.dataset.report import Report

_NAME = re.compile(r"(.+)-\d{6,}\.tar")


class WebDatasetFormat(ShardFiles):
    """Tar archives, one per shard: <config>/<split>-000000.tar with KEY.jpg and KEY.json, for webdataset and datasets.

    The key is the name of the image where that is known and fits, else the record's number. Further images are
    KEY.<column>.png, columns of bytes KEY.<column>.bin; all other columns are in KEY.json.

    Args:
        image_suffix: what the names of images end in, such as ``jpg``. By default what is in them; and ``jpg`` where
            those of a shard are of several encodings.
    """

    name = "webdataset"
    suffix = ".tar"

    def __init__(self, *, image_suffix: str | None = None) -> None:
        if image_suffix is not None and f".{image_suffix}" not in SUFFIXES.values():
            known = ", ".join(suffix[1:] for suffix in SUFFIXES.values())
            raise CallError(f"image_suffix is {image_suffix!r}; it can be {known}.")
        self.image_suffix = image_suffix
        self._suffixes: dict[Path, dict[str, list[str]]] = {}  # of what was read, until somebody asks

    def refuse(self, splits: Sequence[Split]) -> None:
        """Refuse columns that cannot be in a WebDataset.

        Raises:
            CallError: there is one, or a name that ``datasets`` would not take.
        """
        super().refuse(splits)
        for split in splits:
            if (problem := next(problems(split.schema), None)) is not None:
                name, reason = problem
                raise CallError(
                    f"{split.title}: the column {name} cannot be in a WebDataset: {reason}. Leave it out with "
                    f"--without {name}."
                )

    def write(self, batches: Iterable[pa.RecordBatch], shard: Shard, folder: Path) -> list[Path]:
        """Write a shard's records to one archive."""
        path = self.new_file(folder, shard)
        with path.open("x+b") as file:
            write_archive(file, batches, shard, self.image_suffix)
        return [path]

    def places(self, shard: Shard) -> list[str]:
        """As its readers number them: ``<split>-000000.tar``."""
        return [f"{shard.config}/{shard.split.name}-{shard.index:06d}{self.suffix}"]

    def paths(self, folder: Path, split: Split) -> list[Path]:
        """The archives of a split, in the order of their numbers."""
        found = [(_NAME.fullmatch(path.name), path) for path in (folder / split.config).iterdir()]
        named = [path for match, path in found if match and match[1] == split.name]
        return sorted(named, key=lambda path: (len(path.name), path.name))

    def read_file(self, files: FileReader, path: Path, split: Split, first: int) -> Iterator[pa.RecordBatch]:
        """The names of images are checked when all are read."""
        archive = Archive(files, path, split, first)
        yield from archive.batches()
        archive.check_suffixes(self.image_suffix)
        self._suffixes[path] = archive.suffixes()

    def summarize(self, folder: Path, shard: Shard) -> dict[str, list[str]]:
        """See :meth:`~converters.formats.webdataset.reading.Archive.suffixes`."""
        (path,) = self.paths(folder, shard.split)
        if path not in self._suffixes:
            deque(self.read_file(FileReader(), path, shard.split, shard.first_record), maxlen=0)
        return self._suffixes.pop(path)

    def finish(self, report: Report, folder: Path) -> None:
        """Write the terms, and a README that tells `datasets` of configs and splits.

        Raises:
            DataError: the images of a column are not one field in all shards; readers would lose the others.
        """
        for (config, column), (several, _) in _suffixes(report).items():
            if len(several) > 1:
                raise DataError(
                    f"{config}: the images of the column {column} are named {' and '.join(sorted(several))} in "
                    "different files, and programs that read WebDatasets would take these for different columns.",
                    advice="Name all alike with --image-suffix jpg.",
                )
        super().finish(report, folder)

    def loading(self, report: Report) -> str:
        """How webdataset and `datasets` load a split, and which column is where."""
        return _loading(report)

    def stated_features(self, report: Report) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Those of configs whose columns may lack values: `datasets` goes by the first five records of one split."""
        schemas = {found.split.config: found.split.schema for found in report.splits}
        return {
            config: _features(schema, _named(report, config))
            for config, schema in schemas.items()
            if schema.sparse
        }


def _suffixes(report: Report) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """By config and column: what the names of images end in, and which suffixes are those of what is in them."""
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for split in report.splits:
        for summary in split.summaries:
            for column, (named, *contents) in summary.items():
                names, suffixes = found.setdefault((split.split.config, column), (set(), set()))
                names.add(named)
                suffixes.update(contents)
    return found


def _named(report: Report, config: str) -> dict[str, tuple[str, set[str]]]:
    """By column of images of a config: what the names end in, and which suffixes are those of what is in them."""
    return {
        column: (suffix, found)
        for (own, column), ((suffix,), found) in _suffixes(report).items()
        if own == config
    }


def _tails(layout: Layout, named: Mapping[str, tuple[str, set[str]]]) -> dict[str, str]:
    """What follows the key in the names of files, by the column of bytes that they hold."""
    images = {
        column.name: tail + named.get(column.name, (SEVERAL,))[0] for tail, column in layout.images.items()
    }
    return images | {column.name: tail for tail, column in layout.raw.items()}


def _features(schema: Schema, named: Mapping[str, tuple[str, set[str]]]) -> list[dict[str, Any]]:
    """The features of a config: a field for each file of a record, and two more that `datasets` adds."""
    layout = Layout.of(schema)
    fields: list[dict[str, Any]] = [
        {"name": tail[1:], "dtype": "image" if schema[name].role == "image" else "binary"}
        for name, tail in _tails(layout, named).items()
    ]
    values = {column.name for column in layout.values}
    fields.append(
        {"name": JSON[1:], "struct": [own for own in yaml_features(schema) if own["name"] in values]}
    )
    return [*fields, *({"name": name, "dtype": "string"} for name in ("__key__", "__url__"))]


def _loading(report: Report) -> str:
    """Markdown that says which column is where, and how webdataset and ``datasets`` load a split."""
    split = example_split(report)
    layout = Layout.of(split.schema)
    named = _named(report, split.config)
    tails = _tails(layout, named)
    files = [f"`KEY{tail}` is the column {code(name)}" for name, tail in tails.items()]
    if layout.has_json:
        files.append(f"`KEY{JSON}` has {', '.join(code(column.name) for column in layout.values)}")
    mixed = [
        f"The images of {code(name)} are {', '.join(sorted(found))}; all are called {suffix}, as programs look at what "
        "is in them."
        for name, (suffix, found) in named.items()
        if found != {suffix}
    ]
    names = [
        f"The numbers in {code(column.name)} of {code(config)} are, from 0: {', '.join(map(code, column.label_names))}."
        for config, schema in {found.split.config: found.split.schema for found in report.splits}.items()
        for column in Layout.of(schema).values
        if column.label_names and column.kind is None and not column.label_ids
    ]
    fields = [tail.removeprefix(".") for tail in (*tails.values(), *[JSON] * layout.has_json)]
    snippet = textwrap.dedent(
        """\
        ```python
        from pathlib import Path

        import webdataset as wds

        files = sorted(map(str, Path({config}).glob({files})))
        dataset = wds.WebDataset(files, shardshuffle=False).decode("pil").to_tuple({fields})
        ```"""
    ).format(
        config=json.dumps(split.config, ensure_ascii=False),
        files=json.dumps(f"{split.name}-*.tar", ensure_ascii=False),
        fields=", ".join(json.dumps(field, ensure_ascii=False) for field in fields),
    )
    where = f"Of each record of {code(split.config)}, {', '.join(files)}."
    return "\n\n".join((where, *mixed, *names, snippet, datasets_loading(split.config)))
