"""Puts the page together: what was found, the pictures and the plots, into ``page.html``."""

from __future__ import annotations

import hashlib
import html
import os
import shlex
import sys
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from converters.dataset.manifest import MANIFEST
from converters.dataset.shard import Progress
from converters.dataset.source import Source
from converters.errors import CallError
from converters.formats.sources import open_source
from converters.plugins import require_extra
from converters.show.draw import Draw, Group
from converters.show.pictures import Picture, read_pictures
from converters.storage.files import write_whole
from converters.storage.object_store import ObjectPath, place
from converters.storage.object_store import Place as AnyPlace
from converters.verify.source import InspectedSplit, Inspection, inspect_opened
from converters.verify.survey import Place

AnyPath = str | os.PathLike[str]

_MAX_SETS = 2000  # rows of a table
_MAX_GROUPS = 12  # of equal images, of each config
_MAX_PLACES = 4
_VERDICTS = {
    "published": "as published",
    "different": "not as published",
    "unknown": "too little is published to tell",
    "damaged": "damaged",
}


@dataclass(frozen=True)
class Page:
    """The page; a notebook shows it.

    Attributes:
        html: all of it.
        inspection: the numbers in it.
        path: where it was written, if anywhere.
    """

    html: str = field(repr=False)
    inspection: Inspection = field(repr=False)
    path: Path | None = None

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that neither it nor the notebook changes the other."""
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" sandbox="allow-scripts" title="kfer-convert show" '
            'style="width:100%;height:80vh;border:1px solid #888"></iframe>'
        )


@dataclass(frozen=True)
class ConfigView:
    """What the page shows of a config.

    Attributes:
        name: of the config.
        splits: those of its splits that could be read through.
        labels: what pictures are filtered by.
        sheets: the pictures that were drawn for each label, for pairs of labels, or of all images, by title.
        plots: see :mod:`converters.show.plots`.
        sets: the sets of labels with how many images of each split have them, most first; ``more`` are not listed.
        more: see there.
        set_sizes: by number of labels: how many images, and how many different sets, each split has.
        equal: the places of equal images, side by side, and how many more there are.
    """

    name: str
    splits: Sequence[InspectedSplit]
    labels: Sequence[str]
    sheets: Mapping[str, Sequence[Picture]]
    plots: Sequence[Any]
    sets: Sequence[tuple[tuple[str, ...], Sequence[int]]]
    more: int
    set_sizes: Sequence[tuple[int, Sequence[tuple[int, int]]]]
    equal: Sequence[tuple[Sequence[Picture], int]]


def show(
    source: AnyPath | ObjectPath = "tfrecords",
    *,
    out: AnyPath | None = None,
    labels: AnyPath | None = None,
    per_label: int = 12,
    seed: int = 0,
    images: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Page:
    """A page of pictures and plots of a source or an output: one HTML file, which a notebook displays by itself.

    Args:
        source: see :func:`converters.convert`; likewise ``labels``, which tell the clips that splits share, and
            ``progress``.
        out: the file to write; none by default.
        labels: see there.
        per_label: how many images of each label are shown, spread over the splits.
        seed: another seed draws others.
        images: whether there are images in the page.
        overwrite: replace a page that is there.
        progress: see there.

    Raises:
        CallError: there is no source, the extra ``show`` is not installed, or ``out`` is there or in an output.
        DataError: a file cannot be matched to a split.
    """
    require_extra("show", "The page", "vl_convert")
    at, out = place(source), None if out is None else Path(out)
    if out is not None:
        _check_destination(out, at, overwrite)
    opened = open_source(
        at, allow_mismatch=True, progress=progress, labels=None if labels is None else Path(labels)
    )
    draw = Draw(seed, per_label, Counter(found.split.config for found in opened.splits))
    inspection = inspect_opened(opened, str(at), progress, draw.watch if images else None)
    command = ["kfer-convert", "show", str(at), "--seed", str(seed), "--per-label", str(per_label)]
    command += [] if labels is None else ["--labels", str(labels)]
    text = _page(opened, inspection, draw, shlex.join(command + ["--no-images"] * (not images)))
    text = text.encode("utf-8", "backslashreplace").decode()  # names of folders may be no UTF-8
    if out is not None:
        write_whole(out, text)
    return Page(text, inspection, out)


def _page(source: Source, inspection: Inspection, draw: Draw, command: str) -> str:
    chosen = draw.chosen()
    equal = _equal_groups(inspection) if chosen else {}
    wanted: dict[str, set[int]] = defaultdict(set)
    for title, record in chosen:
        wanted[title].add(record)
    for group in chain.from_iterable(equal.values()):
        for title, record in group[:_MAX_PLACES]:
            wanted[title].add(record)
    pictures = read_pictures(source, source.plan(sys.maxsize), wanted) if wanted else {}
    configs = {split.split.config for split in inspection.splits}
    return _render(
        inspection=inspection,
        about=inspection.description.about,
        views=[
            _view(config.name, inspection, draw, chosen, pictures, equal.get(config.name, ()))
            for config in inspection.description.configs
            if config.name in configs
        ],
        pictures=len(chosen),
        verdicts=_VERDICTS,
        origin=source.origin,
        command=command,
        without=source.without,
        has_images=any(split.images for split in inspection.splits),
    )


def _equal_groups(inspection: Inspection) -> dict[str, list[tuple[Place, ...]]]:
    """The groups of equal images that are shown, by config: first those that are in several splits."""
    groups: dict[str, list[tuple[Place, ...]]] = defaultdict(list)
    for group in inspection.equal_images.groups if inspection.equal_images else ():
        groups[group[0][0].partition("/")[0]].append(group)
    for found in groups.values():
        found.sort(key=lambda group: len({title for title, _ in group}) == 1)
        del found[_MAX_GROUPS:]
    return groups


def _view(
    name: str,
    inspection: Inspection,
    draw: Draw,
    chosen: Mapping[Place, Group],
    pictures: Mapping[Place, Picture],
    equal: Sequence[tuple[Place, ...]],
) -> ConfigView:
    from converters.show.plots import label_names, plots

    splits = [split for split in inspection.splits if split.split.config == name and split.error is None]
    labels = label_names(splits) if splits and draw.by_label(name) else ()
    others = "Pairs of labels" if labels else "All images"
    sheets: dict[str, list[Picture]] = {label: [] for label in (*labels, others)}
    order = {split.title: number for number, split in enumerate(splits)}
    for found in sorted(chosen, key=lambda found: (order.get(found[0], -1), found[1])):
        if found in pictures and pictures[found].config == name:
            group = chosen[found].labels
            sheets[group[0] if len(group) == 1 else others].append(pictures[found])
    sets: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(splits))
    for number, split in enumerate(splits):
        for entry in split.combinations or ():
            sets[entry.labels][number] = entry.records
    ranked = sorted(sets.items(), key=lambda item: -sum(item[1]))
    sizes = []
    for size in sorted({len(names) for names in sets}):
        by_split = zip(*(counts for names, counts in ranked if len(names) == size), strict=True)
        sizes.append((size, [(sum(found), sum(map(bool, found))) for found in by_split]))
    shown = [[pictures[one] for one in group[:_MAX_PLACES] if one in pictures] for group in equal]
    return ConfigView(
        name,
        splits,
        labels,
        {title: found for title, found in sheets.items() if found},
        list(plots(splits)) if splits else (),
        ranked[:_MAX_SETS],
        max(0, len(ranked) - _MAX_SETS),
        sizes,
        [(found, max(0, len(group) - _MAX_PLACES)) for found, group in zip(shown, equal, strict=True)],
    )


def _render(**context: Any) -> str:  # noqa: ANN401  # what the template shows
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    texts = {
        name: resources.files("converters.show").joinpath(f"page.{name}").read_text("utf-8")
        for name in ("html", "css", "js")
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": "{:,}".format, "short": _short}
    digest = b64encode(hashlib.sha256(texts["js"].encode()).digest()).decode()
    return environment.from_string(texts["html"]).render(
        context,
        style=Markup(texts["css"]),  # our own
        script=Markup(texts["js"]),
        script_sha256=digest,
        version=version("kfer-convert"),
        drawn_by=f"vl-convert {version('vl-convert-python')}",
    )


def _short(text: str, length: int = 120) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _check_destination(out: Path, source: AnyPlace, overwrite: bool) -> None:
    """Refuse a page in an output, which would no longer verify, or beside the source's files."""
    folder = Path(os.path.abspath(out)).parent  # noqa: PTH100  # links need not be followed
    if not folder.is_dir():
        raise CallError(f"{out}: there is no folder {folder}.")
    for parent in (folder, *folder.parents):
        if (parent / MANIFEST).is_file():
            raise CallError(
                f"{out}: the page is no part of an output, and {parent} is one. Write it elsewhere."
            )
        if isinstance(source, Path) and source.is_dir() and parent.samefile(source):
            raise CallError(f"{out}: nothing is written into the source. Write the page elsewhere.")
    if out.is_dir() or (os.path.lexists(out) and not overwrite):
        raise CallError(f"{out}: is there already; --overwrite replaces a page, --out writes to another.")
