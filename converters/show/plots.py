"""The plots of a config, each with a table of the numbers that it shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_WIDTH = 230  # of the part of a plot that has the marks: so a plot fits a phone without being scaled
_LABELS = 100  # pixels of a name at an axis; longer ones are cut there, and whole in the table
_CELL = 24
_AXIS = {
    "labelColor": "currentColor",
    "titleColor": "currentColor",
    "domainColor": "currentColor",
    "tickColor": "currentColor",
    "gridColor": "currentColor",
    "gridOpacity": 0.15,
    "labelFontSize": 11,
    "titleFontSize": 11,
    "titleFontWeight": "normal",
    "labelLimit": _LABELS,
    "title": None,
}
_CONFIG = {
    "aria": False,
    "axis": _AXIS,
    "view": {"stroke": None},
    "legend": {
        "labelColor": "currentColor",
        "labelFontSize": 11,
        "labelLimit": _WIDTH,
        "orient": "top",
        "columns": 3,
        "title": None,
    },
    "text": {"color": "currentColor"},
}
_COLOURS = 6  # of the style sheet
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
_MARK = re.compile(r'<path aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[^"]*"([^>]*)/>')

Numbers = Mapping[str, Mapping[str, float]]
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
    counts = {
        split.split.name: {count.name: count.records for count in split.label_counts} for split in splits
    }
    if names:
        totals = Counter[str]()
        for found in counts.values():
            totals.update(found)
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
            several = sum(sum(n for size, n in found.items() if size > 1) for found in per_image.values())
            yield _bars(
                "Labels per image",
                f"{several:,} images have several labels.",
                [f"{size} label{'s'[: size != 1]}" for size in sizes],
                {
                    split: {f"{size} label{'s'[: size != 1]}": n for size, n in found.items()}
                    for split, found in per_image.items()
                },
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
    yield _most_frequent("Sizes", "width × height × channels", sizes)
    yield _most_frequent(
        "Encodings", "encoding", {split: counts.encodings for split, counts in images.items()}
    )


def _most_frequent(title: str, what: str, numbers: Numbers) -> Plot:
    totals = Counter[str]()
    for found in numbers.values():
        totals.update({name: int(number) for name, number in found.items()})
    ranked = [name for name, _ in totals.most_common()]
    if len(ranked) == 1:
        summary = f"All images have one {what}: {ranked[0]}."
    else:
        summary = f"{len(ranked):,} different ({what})."
    return _bars(title, summary, ranked, numbers, _MAX_SIZES)


def _bars(title: str, summary: str, names: Sequence[str], numbers: Numbers, most: int = _MAX_BARS) -> Plot:
    """Bars by category, one for each split; the plot has the first ``most`` categories."""
    splits = list(numbers)
    shown, note = names[:most], ""
    if len(names) > len(shown):
        note = f" The plot has the first {len(shown)} of {len(names):,}; the table has more."
    values = [
        {
            "name": name,
            "split": split,
            "number": (number := numbers[split].get(name, 0)),
            "text": f"{number:,}",
            "hint": f"{name}, {split}: {number:,}",
        }
        for name in shown
        for split in splits
    ]
    longest = max((numbers[split].get(name, 0) for name in shown for split in splits), default=0)
    encoding: dict[str, Any] = {
        "y": {"field": "name", "type": "nominal", "sort": list(shown), "scale": {"paddingInner": 0.25}},
        "yOffset": {"field": "split", "sort": splits},
        "x": {
            "field": "number",
            "type": "quantitative",
            # Room at the right for the number of the longest bar.
            "scale": {"domain": [0, longest * 1.25 or 1], "nice": False},
            "axis": {"tickCount": 4, "format": ",d"},
        },
    }
    layers = [
        {"mark": "bar", "encoding": {"color": _colour(splits), "description": {"field": "hint"}}},
        {
            "mark": {"type": "text", "align": "left", "dx": 3, "fontSize": 9, "baseline": "middle"},
            "encoding": {"text": {"field": "text"}},
        },
    ]
    svg = _draw({"data": {"values": values}, "encoding": encoding, "layer": layers, "height": {"step": 10}})
    return Plot(
        title, summary + note, svg, ("", *splits, "all"), [_row(name, numbers) for name in names[:1000]]
    )


def _row(name: str, numbers: Numbers) -> list[str]:
    found = [numbers[split].get(name, 0) for split in numbers]
    return [name, *(f"{number:,}" for number in found), f"{sum(found):,}"]


def _shares(splits: Sequence[InspectedSplit], names: Sequence[str]) -> Plot:
    """A dot for the share that each label has in each split, so that a skewed split shows."""
    shares = {split.split.name: {count.name: count.share for count in split.label_counts} for split in splits}
    order = list(shares)
    values = [
        {
            "name": name,
            "split": split,
            "number": shares[split].get(name, 0),
            "hint": f"{name}, {split}: {shares[split].get(name, 0):.2%}",
        }
        for name in names[:_MAX_BARS]
        for split in order
    ]
    spread, widest = max((_spread(shares, name), name) for name in names)
    summary = "Share of the images of a split that have the label."
    if len(order) > 1:
        summary += f" Splits differ most in {widest}: by {100 * spread:.2f} percentage points."
    shapes = {"domain": order, "range": [_SHAPES[number % len(_SHAPES)] for number in range(len(order))]}
    spec = {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 40, "opacity": 0.9},
        "encoding": {
            "y": {
                "field": "name",
                "type": "nominal",
                "sort": list(names[:_MAX_BARS]),
                "axis": {"grid": True},
            },
            "yOffset": {"field": "split", "sort": order},
            "x": {"field": "number", "type": "quantitative", "axis": {"tickCount": 4, "format": "~%"}},
            "color": _colour(order),
            "shape": {"field": "split", "type": "nominal", "scale": shapes},
            "description": {"field": "hint"},
        },
        "height": {"step": max(7, 18 // len(order))},
    }
    rows = [[name, *(f"{shares[split].get(name, 0):.2%}" for split in order)] for name in names[:1000]]
    return Plot("Share of each label", summary, _draw(spec), ("", *order), rows)


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
        {
            "one": one,
            "other": other,
            "number": number,
            "text": f"{number:,}",
            "hint": f"{one} and {other}: {number:,}",
        }
        for pair, number in found.items()
        for one, other in (pair, pair[::-1])
        if one in shown and other in shown
    ]
    axis = {"labelLimit": _LABELS, "domain": False, "ticks": False}
    spec = {
        "data": {"values": values},
        "encoding": {
            "x": {
                "field": "one",
                "type": "nominal",
                "scale": {"domain": shown},
                "axis": axis | {"orient": "top", "labelAngle": -60},
            },
            "y": {"field": "other", "type": "nominal", "scale": {"domain": shown}, "axis": axis},
        },
        "layer": [
            {
                "mark": {"type": "rect", "fill": "var(--c0)"},
                "encoding": {
                    "opacity": {
                        "field": "number",
                        "type": "quantitative",
                        "scale": {"type": "sqrt", "range": [0.04, 0.75]},
                        "legend": None,
                    },
                    "description": {"field": "hint"},
                },
            },
            {"mark": {"type": "text", "fontSize": 8.5}, "encoding": {"text": {"field": "text"}}},
        ],
        "width": {"step": _CELL + 4},
        "height": {"step": _CELL - 4},
    }
    ranked = found.most_common()
    summary = (
        f"{len(ranked):,} pairs of labels occur; most often {' and '.join(ranked[0][0])} ({ranked[0][1]:,})."
    )
    if len(shown) < len(names):
        summary += f" The plot has the {len(shown)} most frequent labels; the table has more."
    rows = [_row(" + ".join(pair), by_split) for pair, _ in ranked[:1000]]
    return Plot(
        "Labels that occur together", summary, _draw(spec), ("", *by_split, "all"), rows, wide=len(shown) > 8
    )


def _colour(splits: Sequence[str]) -> dict[str, Any]:
    colours = [f"var(--c{number % _COLOURS})" for number in range(len(splits))]
    return {"field": "split", "type": "nominal", "scale": {"domain": list(splits), "range": colours}}


def _draw(spec: Mapping[str, Any]) -> Markup:
    """A plot as SVG; no URL is ever followed, and hints become titles that browsers show."""
    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": None,
        # Browsers have other fonts than the one that names are measured with.
        "padding": {"left": 20, "right": 14, "top": 18, "bottom": 5},
        "width": _WIDTH,
    }
    svg = vl_convert.vegalite_to_svg(whole | dict(spec), config=_CONFIG, allowed_base_urls=[])
    return Markup(_MARK.sub(r"<path\2><title>\1</title></path>", svg))  # Vega escapes all texts


def _power(power: int) -> str:
    return f"{_bytes(1 << power)} – {_bytes(2 << power)}"


def _bytes(number: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number} {unit}"
        number >>= 10
    return f"{number} GiB"
