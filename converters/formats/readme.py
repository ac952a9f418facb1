"""The README and the terms that lie in every output, for formats that have no larger card.

:class:`converters.formats.shard_files.ShardFiles` does what follows for formats of one file per shard. Others call
these in ``finish``, and :func:`refuse_names` in ``refuse``, which runs before anything is written::

    def refuse(self, splits: Sequence[Split]) -> None:
        refuse_names(splits, self.name)

    def finish(self, report: Report, folder: Path) -> None:
        write_terms(report, folder)                                    # LICENSE
        data_files = {
            split.split.title: f"{glob.escape(split.split.config)}/{split.split.name}-*.parquet"
            for split in report.splits
        }
        write_readme(report, folder, data_files)                       # README.md

``data_files`` has a glob pattern for each split, from the output's folder on; it becomes the ``configs:`` of the
README's front matter, through which ``datasets.load_dataset(FOLDER, CONFIG)`` finds splits of any name. What
``datasets`` cannot load has no pattern, and says itself in ``loading`` how it is read.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.dataset.description import DESCRIPTION_FILE, About, Licence, Split
from converters.dataset.filenames import folded
from converters.dataset.manifest import MANIFEST, SUMS
from converters.dataset.schema import Column, Role, Schema, type_name
from converters.errors import CallError
from converters.formats.licences import hub_licence, slug

if TYPE_CHECKING:
    from converters.dataset.report import Report

README = "README.md"
LICENCE = "LICENSE"

_FILES = frozenset(map(folded, (README, LICENCE, DESCRIPTION_FILE, "croissant.json", MANIFEST, SUMS)))
_ALL = "all"  # `datasets` takes it for the union of all splits, in any case
_WIDTH = 100
_TEMPLATE = "readme.template.md"  # each paragraph but an empty one is a paragraph of the README
_FACES = "> **The images show the faces of real people.** Read the terms before you use, show or pass on any of them."

_MEANINGS: Mapping[Role, str] = {
    "image": "the image file as it is stored in the source, byte for byte",
    "label": "the label as it is stored in the source",
    "height": "height in pixels",
    "width": "width in pixels",
    "depth": "number of colour channels",
    "file_name": "name of the image's file",
}


def write_readme(
    report: Report,
    folder: Path,
    data_files: Mapping[str, str],
    *,
    loading: str | None = None,
    columns: bool = True,
    features: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Write ``README.md``: what the output is, how it is loaded, its splits and columns.

    Args:
        report: what was converted.
        folder: the output.
        data_files: a glob pattern for the files of each split, by the split's title (``config/split``).
        loading: Markdown that says how to load it; without it, how ``datasets`` does.
        columns: whether the columns are shown; not where the layout writes others than the schema's.
        features: those of configs of which ``datasets`` would not find them in the files, as a dataset card has them.
    """
    splits = [split.split for split in report.splits]
    about = report.description.about
    front_matter: dict[str, Any] = {"pretty_name": one_line(about.title), **licence_yaml(about)}
    empty = {split.title for split in empty_splits(report)}
    data_files = {title: path for title, path in data_files.items() if title not in empty}
    if data_files:
        front_matter |= {"configs": configs_yaml(splits, data_files, {})}
    if features:
        info = [{"config_name": config, "features": list(stated)} for config, stated in features.items()]
        front_matter |= {"dataset_info": info}
    counts = (
        f"| {code(split.split.config)} | {code(split.split.name)} | {split.fingerprint.records:,} |"
        for split in report.splits
    )
    schemas = {split.config: split.schema for split in splits} if columns else {}
    tables = (
        f"The columns of {code(config)}:\n\n{column_table(schema, {})}" for config, schema in schemas.items()
    )
    texts = {
        "title": one_line(about.title),
        "description": about.description.strip(),
        "faces": _FACES if about.personal_data else "",
        "format": report.format,
        "manifest": MANIFEST,
        "left_out": left_out(report) or "",
        "loading": loading or datasets_loading(default_config(splits)),
        "splits": "\n".join(("| config | split | records |", "|---|---|--:|", *counts)),
        "empty": about_empty_splits(report) or "",
        "columns": "\n\n".join(tables),
        "licence": LICENCE,
    }
    template = resources.files("converters.formats").joinpath(_TEMPLATE).read_text("utf-8").strip()
    blocks = filter(None, (block.format_map(texts) for block in template.split("\n\n")))
    write_text(folder / README, f"---\n{to_yaml(front_matter)}---\n\n" + "\n\n".join(blocks) + "\n")


def write_terms(report: Report, folder: Path) -> None:
    """Write ``LICENSE``: the terms that the data is under."""
    about = report.description.about
    write_text(folder / LICENCE, licence_text(about.title, about.licence))


def refuse_names(splits: Sequence[Split], target: str, names: Mapping[str, str] | None = None) -> None:
    """Refuse splits that ``datasets`` would not find under their names, and configs named like a file of ours.

    Args:
        splits: those that are converted.
        target: name of the format.
        names: what ``datasets`` is to call a split, by its title, where that is not the split's name.

    Raises:
        CallError: with what to rename.
    """
    seen: dict[tuple[str, str], Split] = {}
    for split in splits:
        name = (names or {}).get(split.title, split.name)
        if folded(split.config) in _FILES:
            raise CallError(
                f"{split.title}: the output has a file {split.config}, so that no config can have this name. Rename "
                "it in dataset.json."
            )
        if folded(name) == _ALL:
            raise CallError(
                f"{split.title}: with --to {target} no split can be named {split.name!r}: to `datasets` that is all "
                "splits together, and it refuses to load it. Rename it in dataset.json, or choose another format."
            )
        other = seen.setdefault((split.config, folded(name)), split)
        if other.name != split.name:
            raise CallError(
                f"{split.config}: with --to {target} the splits {other.name!r} and {split.name!r} would both be "
                f"{name!r}. Rename one in dataset.json, or convert only one (--split)."
            )


def configs_yaml(
    splits: Sequence[Split], data_files: Mapping[str, str], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The ``configs:`` of a front matter; see :func:`refuse_names`. One of them is the default."""
    default = default_config(splits)
    return [
        {
            "config_name": config,
            "data_files": [
                {"split": names.get(split.title, split.name), "path": data_files[split.title]}
                for split in splits
                if split.config == config and split.title in data_files
            ],
            **({"default": True} if config == default else {}),
        }
        for config in config_names(splits)
    ]


def config_names(splits: Sequence[Split]) -> list[str]:
    """The names of the splits' configs, each once."""
    return list(dict.fromkeys(split.config for split in splits))


def default_config(splits: Sequence[Split]) -> str:
    """The config that is loaded without a name: the last with label vectors of several labels, else the last of all."""
    multi = [split.config for split in splits if split.kind == "multi-label"]
    return (multi or [split.config for split in splits])[-1]


def empty_splits(report: Report) -> list[Split]:
    """The splits without records, of configs that have others.

    `datasets` loads no config with such a split, so that no ``configs:`` may name it.
    """
    full = {split.split.config for split in report.splits if split.fingerprint.records}
    return [
        split.split for split in report.splits if not split.fingerprint.records and split.split.config in full
    ]


def about_empty_splits(report: Report) -> str | None:
    """Markdown that says which splits have no records; None where all have some."""
    if not (empty := empty_splits(report)):
        return None
    return (
        f"No records: {', '.join(code(split.title) for split in empty)}. `datasets` can load no split without records, "
        "so the configurations do not name it."
    )


def example_split(report: Report) -> Split:
    """The split that a README loads as an example."""
    splits = [split.split for split in report.splits]
    config = default_config(splits)
    return next(split for split in splits if split.config == config)


def licence_yaml(about: About) -> dict[str, str]:
    """The licence in a front matter: by the Hub's identifier where it has one, else by name and text."""
    licence, link = about.licence, about.licence.link
    if identifier := hub_licence(licence.name):
        return {"license": identifier}
    return {
        "license": "other",
        "license_name": slug(licence.name),
        "license_link": link if link and link.startswith(("https://", "http://")) else LICENCE,
    }


def licence_text(title: str, licence: Licence) -> str:
    """The licence file: plain text."""
    paragraphs = [title, f"Licence: {licence.name}", *re.split(r"\n\s*\n", licence.text)]
    if licence.link:
        paragraphs.append(f"Full terms: {licence.link}")
    return (
        "\n\n".join(
            textwrap.fill(one_line(text), _WIDTH, break_long_words=False, break_on_hyphens=False)
            for text in paragraphs
        )
        + "\n"
    )


def column_meaning(column: Column) -> str:
    """What a column's values are, in a few words without a full stop; empty where nothing is known of it."""
    if column.meaning or column.role is None:
        return one_line(column.meaning).rstrip(".")
    if column.kind is not None:
        return "0 or 1 for each label, in stored order, as in the source"
    if column.role == "label" and column.is_list:
        return "the labels as they are stored in the source"
    return _MEANINGS[column.role]


def several_labels(label: Column | None) -> bool:
    """Whether a record may have several labels."""
    return label is not None and (label.kind == "multi-label" or (label.kind is None and label.is_list))


def records_word(splits: Sequence[Split]) -> str:
    """What people call the records: images, where each is one image."""
    alone = all(
        len(split.schema.images) == 1 and not any(image.nullable for image in split.schema.images)
        for split in splits
    )
    return "images" if alone else "records"


def column_table(schema: Schema, types: Mapping[str, str]) -> str:
    """A Markdown table of the columns; ``types`` has their types where they are not the schema's."""
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for column in schema:
        kind = types.get(column.name) or ("image" if column.role == "image" else type_name(column.type))
        words = [cell(column_meaning(column))]
        words += ["may be missing"] if column.nullable else []
        if column.feature not in (None, column.name):
            words.append(f"the feature {code(column.feature)} of the source")
        lines.append(f"| {code(column.name)} | {cell(kind)} | {'; '.join(filter(None, words))} |")
    return "\n".join(lines)


def left_out(report: Report) -> str | None:
    """A Markdown warning where records of the source could not be read; None where all could."""
    if not report.quarantined:
        return None
    lost = "an unknown number of" if report.lost_records is None else f"{report.lost_records:,}"
    return (
        f"> **Not all of the source is in here.** {report.quarantined:,} damaged range"
        f"{'s' if report.quarantined > 1 else ''} of its files, with {lost} "
        f"record{'' if report.lost_records == 1 else 's'},\n"
        "> could not be read. They are as they were found in the folder `quarantine`, which lists them in "
        "`records.json`."
    )


def to_yaml(document: Mapping[str, Any]) -> str:
    """A front matter."""
    import yaml

    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=_WIDTH))


def write_text(path: Path, text: str) -> None:
    """Write a new file of text, with the line ends of Unix everywhere."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)


def one_line(text: str) -> str:
    """``text`` with all white space, line ends among it, made single spaces."""
    return " ".join(text.split())


def cell(text: object) -> str:
    """``text`` for a cell of a Markdown table."""
    return one_line(str(text)).replace("|", "\\|")


def code(text: object) -> str:
    """``text`` as a Markdown code span, also in a table."""
    content = cell(text)
    if "`" not in content:
        return f"`{content}`"
    marks = "`" * (_longest_run(content) + 1)
    return f"{marks} {content} {marks}"


def fence(text: str) -> str:
    """A fence for a Markdown code block that holds ``text``."""
    return "`" * max(3, _longest_run(text) + 1)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def datasets_loading(config: str) -> str:
    """Markdown that says how ``datasets`` loads a config of the output."""
    return textwrap.dedent(f"""\
        With this folder as working directory; or put its path in the place of `str(Path.cwd())`:

        ```python
        from pathlib import Path

        from datasets import load_dataset

        dataset = load_dataset(str(Path.cwd()), {json.dumps(config, ensure_ascii=False)})
        ```""")
