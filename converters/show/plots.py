"""The plots of a config, each with a table of the numbers that it shows.

What stands where is in ``plots.json``: Vega-Lite's specifications, which lack only the values. The part of a plot that
has the marks is 230 pixels wide, so that it fits a phone without being scaled. A name at an axis is cut at 100 pixels,
and stands whole in the table. Around a plot is room, for browsers have other fonts than the one that names are measured
with.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import vl_convert
from markupsafe import Markup

from converters.show.draw import MAX_VALUES
from converters.verify.source import label_order

if TYPE_CHECKING:
    from converters.verify.source import InspectedSplit

_MAX_BARS = 40
_MAX_MATRIX = 30
_MAX_SIZES = 12
_MARK = re.compile(r'<path aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[^"]*"([^>]*)/>')

Numbers = Mapping[str, Mapping[str, Any]]
"""By the name of a split: a number for each category."""


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        title: what it shows.
        summary: the same in a sentence, with the numbers that matter.
        svg: the drawing.
        head: the names of the columns of the numbers.
        rows: the numbers, as text; the first of each row is what they are of.
        wide: whether it takes two columns of the page.
    """

    title: str
    summary: str
    svg: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    wide: bool = False


def label_names(splits: Sequence[InspectedSplit]) -> tuple[str, ...]:
    """The labels of a config in stored order, or where they have no names, their values; none where these are texts."""
    if names := splits[0].split.label_names:
        return names
    found = {count.name for split in splits for count in split.label_counts}
    return tuple(sorted(found, key=label_order)) if len(found) <= MAX_VALUES else ()


def plots(splits: Sequence[InspectedSplit]) -> Iterator[Plot]:
    """The plots of the sound splits of one config."""
    names = label_names(splits)
    if names:
        counts = {
            split.split.name: {count.name: count.records for count in split.label_counts} for split in splits
        }
        totals = _totals(counts)
        ranked = sorted(names, key=lambda name: (-totals[name], names.index(name)))
        most = (
            f"All are {ranked[0]}."
            if len(names) == 1
            else f"Most frequent: {ranked[0]} ({totals[ranked[0]]:,}); rarest: {ranked[-1]} ({totals[ranked[-1]]:,})."
        )
        yield _bars("Images per label", most, ranked, counts)
        yield _shares(splits, ranked)
        per_image = {split.split.name: split.labels_per_image for split in splits}
        sizes = sorted(set().union(*per_image.values()))
        if sizes not in ([], [1]):
            several = sum(n for found in per_image.values() for size, n in found.items() if size > 1)
            named = {size: f"{size} label{'s'[: size != 1]}" for size in sizes}
            yield _bars(
                "Labels per image",
                f"{several:,} images have several labels.",
                list(named.values()),
                {split: {named[size]: n for size, n in found.items()} for split, found in per_image.items()},
            )
    yield from _image_plots(splits)
    if names and any(split.label_pairs for split in splits):
        yield _matrix(splits, names, totals)


def _image_plots(splits: Sequence[InspectedSplit]) -> Iterator[Plot]:
    images = {split.split.name: split.images for split in splits if split.images is not None}
    if not images:
        return
    total = sum(counts.total_bytes for counts in images.values())
    number = sum(sum(counts.bytes_by_power.values()) for counts in images.values())
    least, most = min(c.least for c in images.values()), max(c.most for c in images.values())
    powers = sorted(set().union(*(counts.bytes_by_power for counts in images.values())))
    yield _bars(
        "Bytes per image",
        f"From {least:,} to {most:,} bytes, {total // max(1, number):,} on average, {total:,} in all.",
        [_power(power) for power in range(powers[0], powers[-1] + 1)] if powers else [],
        {split: {_power(p): n for p, n in counts.bytes_by_power.items()} for split, counts in images.items()},
    )
    sizes = {
        split: {f"{width} × {height} × {depth}": n for (height, width, depth), n in counts.sizes.items()}
        for split, counts in images.items()
    }
    encodings = {split: counts.encodings for split, counts in images.items()}
    for title, what, numbers in (
        ("Sizes", "width × height × channels", sizes),
        ("Encodings", "encoding", encodings),
    ):
        ranked = [name for name, _ in _totals(numbers).most_common()]
        one = len(ranked) == 1
        summary = (
            f"All images have one {what}: {ranked[0]}." if one else f"{len(ranked):,} different ({what})."
        )
        yield _bars(title, summary, ranked, numbers, _MAX_SIZES)


def _totals(numbers: Numbers) -> Counter[str]:
    totals = Counter[str]()
    for found in numbers.values():
        totals.update(found)
    return totals


def _values(names: Sequence[str], numbers: Numbers, form: str) -> list[dict[str, Any]]:
    """What Vega draws: a number for each name and split, and the text of each."""
    return [
        {
            "name": name,
            "split": split,
            "number": (number := found.get(name, 0)),
            "text": (text := form.format(number)),
            "hint": f"{name}, {split}: {text}",
        }
        for name in names
        for split, found in numbers.items()
    ]


def _bars(title: str, summary: str, names: Sequence[str], numbers: Numbers, most: int = _MAX_BARS) -> Plot:
    """Bars by category, one for each split; the plot has the first ``most`` categories."""
    shown = names[:most]
    if len(names) > len(shown):
        summary += f" The plot has the first {len(shown)} of {len(names):,}; the table has more."
    values = _values(shown, numbers, "{:,}")
    spec = _specification("bars", values)
    # Room at the right for the number of the longest bar.
    longest = max((value["number"] for value in values), default=0)
    spec["encoding"]["x"]["scale"]["domain"] = [0, longest * 1.25 or 1]
    rows = [_row(name, numbers) for name in names[:1000]]
    return Plot(title, summary, _svg(spec), ("", *numbers, "all"), rows)


def _row(name: str, numbers: Numbers) -> list[str]:
    found = [of_split.get(name, 0) for of_split in numbers.values()]
    return [name, *(f"{number:,}" for number in found), f"{sum(found):,}"]


def _shares(splits: Sequence[InspectedSplit], names: Sequence[str]) -> Plot:
    """A dot for the share that each label has in each split, so that a skewed split shows."""
    shares = {split.split.name: {count.name: count.share for count in split.label_counts} for split in splits}
    spread, widest = max((_spread(shares, name), name) for name in names)
    summary = "Share of the images of a split that have the label."
    if len(shares) > 1:
        summary += f" Splits differ most in {widest}: by {100 * spread:.2f} percentage points."
    spec = _specification("shares", _values(names[:_MAX_BARS], shares, "{:.2%}"))
    spec["height"] = {"step": max(7, 18 // len(shares))}
    rows = [[name, *(f"{found.get(name, 0):.2%}" for found in shares.values())] for name in names[:1000]]
    return Plot("Share of each label", summary, _svg(spec), ("", *shares), rows)


def _spread(shares: Numbers, name: str) -> float:
    found = [of_split.get(name, 0) for of_split in shares.values()]
    return max(found) - min(found)


def _matrix(splits: Sequence[InspectedSplit], names: Sequence[str], totals: Mapping[str, int]) -> Plot:
    """How many images of all splits have both of two labels."""
    by_split = {
        split.split.name: {" + ".join(pair.labels): pair.records for pair in split.label_pairs}
        for split in splits
    }
    found = Counter[tuple[str, ...]]()
    for split in splits:
        found.update({pair.labels: pair.records for pair in split.label_pairs})
    shown = sorted(names, key=lambda name: -totals[name])[:_MAX_MATRIX]
    values = [
        {"one": one, "other": other, "number": n, "text": f"{n:,}", "hint": f"{one} and {other}: {n:,}"}
        for pair, n in found.items()
        for one, other in (pair, pair[::-1])
        if one in shown and other in shown
    ]
    spec = _specification("pairs", values)
    for side in ("x", "y"):
        spec["encoding"][side]["scale"] = {"domain": shown}
    ranked = found.most_common()
    first, most = ranked[0]
    summary = f"{len(ranked):,} pairs of labels occur; most often {' and '.join(first)} ({most:,})."
    if len(shown) < len(names):
        summary += f" The plot has the {len(shown)} most frequent labels; the table has more."
    rows = [_row(" + ".join(pair), by_split) for pair, _ in ranked[:1000]]
    head = ("", *by_split, "all")
    return Plot("Labels that occur together", summary, _svg(spec), head, rows, wide=len(shown) > 8)


def _specification(kind: str, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One of :file:`plots.json`, with the values to draw."""
    found = json.loads(resources.files("converters.show").joinpath("plots.json").read_text("utf-8"))
    return {**found["every"], **found[kind], "data": {"values": values}}


def _svg(spec: Mapping[str, Any]) -> Markup:
    """A plot as SVG; no URL is ever followed, and hints become titles that browsers show."""
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return Markup(_MARK.sub(r"<path\2><title>\1</title></path>", svg))  # Vega escapes all texts


def _power(power: int) -> str:
    return f"{_bytes(1 << power)} – {_bytes(2 << power)}"


def _bytes(number: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number} {unit}"
        number >>= 10
    return f"{number} GiB"
