"""The Python code of a dataset card: how several libraries read a record, for columns of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """What the code shows: the first record of a split.

    Attributes:
        config: name of the config.
        split: name of the split.
        image: a column of images that every record has; None where there is none, or no record.
        value: another column, likewise.
        label: the column whose numbers have names; None where there is none.
        named: whether every value of it is a number with a name.
        is_list: whether a record has several of these numbers.
    """

    config: str
    split: str
    image: str | None = None
    value: str | None = None
    label: str | None = None
    named: bool = False
    is_list: bool = False


def snippets(example: Example) -> Iterator[tuple[str, str]]:
    """A title and the code of each library. The repo's folder is the working directory."""
    files = f"{example.split}-*.parquet"
    pattern = python(f"{example.config}/{files}")
    yield "", _datasets(example)
    listed = f"files = sorted(Path({python(example.config)}).glob({python(files)}))"
    yield (
        "pandas",
        _frame(
            example,
            "from pathlib import Path\n",
            "import pandas as pd",
            f"{listed}\ntable = pd.concat(map(pd.read_parquet, files), ignore_index=True)",
        ),
    )
    yield "polars", _frame(example, "", "import polars as pl", f"table = pl.read_parquet({pattern})")
    yield "DuckDB", _duckdb(example, pattern)
    if example.label is not None:
        feature = '["feature"]' if example.is_list else ""
        yield (
            "The names of the labels, without `datasets`",
            "import json\nfrom pathlib import Path\n\nimport pyarrow.parquet as pq\n\n"
            f"file = min(Path({python(example.config)}).glob({python(files)}))\n"
            'features = json.loads(pq.read_schema(file).metadata[b"huggingface"])["info"]["features"]\n'
            f'print(features[{python(example.label)}]{feature}["names"])',
        )


def python(text: object) -> str:
    """``text`` in Python."""
    return json.dumps(text, ensure_ascii=False)


def _datasets(example: Example) -> str:
    split = f"dataset[{python(example.split)}]"
    shown = [f"record[{python(example.image)}].size"] if example.image is not None else []
    names = []
    if example.value is not None:
        value = f"record[{python(example.value)}]"
        if example.named:
            feature = ".feature" if example.is_list else ""
            names = [f"names = {split}.features[{python(example.value)}]{feature}.names"]
            value = f"[names[number] for number in {value}]" if example.is_list else f"names[{value}]"
        shown.append(value)
    return "\n".join(
        [
            "from pathlib import Path\n",
            "from datasets import load_dataset\n",
            f"dataset = load_dataset(str(Path.cwd()), {python(example.config)})",
            *names,
            *([f"record = {split}[0]"] if shown else []),
            f"print({', '.join(shown) or 'dataset'})",
        ]
    )


def _frame(example: Example, standard: str, library: str, read: str) -> str:
    """Code for a library of data frames."""
    imports, opened, shown = _image(example, f"table[{python(example.image)}][0]")
    shown = ["len(table)", *shown]
    if example.value is not None:
        shown.append(f"table[{python(example.value)}][0]")
    return _program(f"{imports}{standard}", library, example, [read, *opened], shown)


def _duckdb(example: Example, pattern: str) -> str:
    imports, opened, shown = _image(example, f"record[{python(example.image)}]")
    if example.value is not None:
        shown.append(f"record[{python(example.value)}]")
    lines = [f"table = duckdb.read_parquet({pattern}).limit(1)"]
    if shown:
        lines += ["[values] = table.fetchall()", "record = dict(zip(table.columns, values))"]
    return _program(imports, "import duckdb", example, [*lines, *opened], shown or ["table"])


def _image(example: Example, struct: str) -> tuple[str, list[str], list[str]]:
    """What has to be imported to open the image, the line that does, and what is shown of it."""
    if example.image is None:
        return "", [], []
    return "import io\n", [f'image = Image.open(io.BytesIO({struct}["bytes"]))'], ["image.size"]


def _program(standard: str, library: str, example: Example, lines: list[str], shown: list[str]) -> str:
    pillow = "\nfrom PIL import Image" if example.image is not None else ""
    head = f"{standard}\n" if standard else ""
    return "\n".join([f"{head}{library}{pillow}\n", *lines, f"print({', '.join(shown)})"])
