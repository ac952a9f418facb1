"""Whether an output is right: read with pyarrow, json, csv, tarfile and other general tools; nothing of the package.

:func:`check` knows the layouts and the definitions as they are documented, and raises on the first thing that is wrong.
"""

import csv
import hashlib
import io
import json
import tarfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sources
import yaml
from helpers.examples import FLOATS, fields, read_frames, varint
from helpers.proof import encoded_value, record_leaf, rfc9162_root

Row = dict[str, Any]


class WrongOutputError(AssertionError):
    """An output was published, and it is not what the source says."""


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise WrongOutputError(what)


def check(out: Path, target: str, configs: tuple[str, ...], *, labels: bool, class_folders: bool) -> None:
    """Raise WrongOutputError unless the output of these configs of ``sources.make`` in this format is right."""
    _check_files(out)
    manifest = json.loads((out / "MANIFEST.json").read_bytes())
    stated = [(split["config"], split["split"]) for split in manifest["splits"]]
    expect(stated == [(config, split) for config in configs for split in sources.SPLITS], f"splits {stated}")
    for entry in manifest["splits"]:
        config, split = entry["config"], entry["split"]
        rows = expected(config, split, labels=labels)
        _check_manifest(entry, config, rows)
        _check_paths(out, target, config, split)
        found = _READERS[target](out, config, split)
        expect(len(found) == len(rows), f"{config}/{split}: {len(found)} rows")
        for number, (one, other) in enumerate(zip(found, rows, strict=True)):
            wanted = as_loaded(target, config, split, number, other, class_folders=class_folders)
            for name in wanted.keys() | one.keys():
                same = _same(one.get(name, "nothing"), wanted.get(name, "nothing"))
                expect(
                    same, f"{config}/{split} {number} {name}: {one.get(name)!r:.90} {wanted.get(name)!r:.90}"
                )
    _check_descriptions(out, configs, labels=labels)


def expected(config: str, split: str, *, labels: bool) -> list[Row]:
    """The records, with their identities, and with the ``label`` that follows from what is stored."""
    found = []
    for row, names in zip(sources.rows(config, split), sources.identities(split), strict=True):
        label: Row = {}
        if config in sources.KINDS:
            ranks = [rank for rank, value in enumerate(row["label_vector"]) if value]
            label = {"label": ranks if config == "multi" else ranks[0]}
        if config == "numbered":
            label = {"label": row["category"] - 1}
        joined = dict(zip(("img_id", "clip_id"), names, strict=True)) if labels and config == "single" else {}
        found.append(row | label | joined)
    return found


def as_loaded(target: str, config: str, split: str, number: int, row: Row, *, class_folders: bool) -> Row:
    """A record as who loads this format has it."""
    row = dict(row)
    kinds = {
        name: "png" if data.startswith(b"\x89PNG") else "jpg" for name, data in row.items() if _is_image(data)
    }
    stem = f"{number:08}"
    named = row.get("img_id") or row.get("name")
    if named:
        stem = named.rpartition(".")[0]
    prefix = "" if named or target in ("jpeg", "webdataset") else f"{split}_"
    paths = {
        name: f"{prefix}{stem}{'' if name == 'image' else '_' + name}.{kind}" for name, kind in kinds.items()
    }
    if target in ("parquet", "hf", "arrow", "lance"):
        row |= {name: {"bytes": row[name], "path": path} for name, path in paths.items()}
        if "label" in row:
            several = isinstance(row["label"], list)
            names = [sources.NAMES[rank] for rank in (row["label"] if several else [row["label"]])]
            row["label names"] = names if several else names[0]
        return row
    if target in ("tfrecord", "arrayrecord"):
        derived = config in ("multi", "single", "numbered")
        return {
            sources.feature_of(config, name) if name in sources.CONFIGS[config][1] else name: value
            for name, value in row.items()
            if value is not None and not (derived and name == "label")
        }
    if target == "webdataset":
        return row | {"key": stem}
    sized = {"height", "width", "depth"}
    row = {name: value for name, value in row.items() if name not in sized}
    if config in sources.KINDS:
        vector = row.pop("label_vector")
        del row["label"]
        row |= dict(zip(sources.NAMES, vector, strict=True))
    folder = "images"
    if class_folders:
        rank = vector.index(1)
        folder = f"{rank:02}_{sources.NAMES[rank]}"
    if config == "numbered":
        row["label_name"] = sources.NAMES[row["label"]]
    if config == "boxes":
        row["label_names"] = [sources.NAMES[rank] for rank in row["label"]]
    return row | {"file_name": f"{folder}/{paths['image']}"}


def _is_image(value: object) -> bool:
    return isinstance(value, bytes) and value[:2] in (b"\xff\xd8", b"\x89P")


def _same(found: object, wanted: object) -> bool:
    if isinstance(wanted, float):
        return isinstance(found, float) and np.float32(found) == np.float32(wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_same, found, wanted))
    return found == wanted and type(found) is type(wanted)


# --- What every output has -----------------------------------------------------------------------------


def _check_files(out: Path) -> None:
    there = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items()}
    del digests["SHA256SUMS"]
    lines = [line.split("  ", 1) for line in there["SHA256SUMS"].read_text().splitlines()]
    expect({name: digest for digest, name in lines} == digests, "SHA256SUMS")
    expect(len(lines) == len(digests), "SHA256SUMS says a file twice")
    files = json.loads(there["MANIFEST.json"].read_bytes())["files"]
    del digests["MANIFEST.json"]
    expect({file["path"]: file["sha256"] for file in files} == digests, "digests in the manifest")
    expect(all(file["size"] == there[file["path"]].stat().st_size for file in files), "sizes in the manifest")
    expect((out / "LICENSE").is_file(), "LICENSE")


def _check_manifest(entry: dict[str, Any], config: str, rows: list[Row]) -> None:
    found = entry["fingerprint"]
    columns = list(sources.CONFIGS[config][1])
    leaves = []
    for row in rows:
        values = []
        for name in [*columns, *(("img_id", "clip_id") if "img_id" in row else ())]:
            stated = sources.CONFIGS[config][1].get(name, "string")
            kind = stated if isinstance(stated, str) else stated.get("type", "")
            values.append(
                encoded_value(
                    row[name],
                    is_list=isinstance(row[name], list),
                    is_float=kind.startswith("float32"),
                    image=_is_image(row[name]),
                )
            )
        leaves.append(record_leaf(values))
    expect(found["records"] == len(rows), "records in the manifest")
    expect(found["records_sha256"] == rfc9162_root(leaves), f"{config}: records_sha256")
    images = sum(len(value) for row in rows for value in row.values() if _is_image(value))
    expect(found["image_bytes"] == images, "image_bytes")
    ranks = [label if isinstance(label := row["label"], list) else [label] for row in rows]
    counts = [sum(rank in one for one in ranks) for rank in range(3)]
    expect(found["label_counts"] == counts, f"{config}: label_counts")
    per_image: dict[str, int] = {}
    for one in ranks:
        per_image[str(len(set(one)))] = per_image.get(str(len(set(one))), 0) + 1
    expect(found["labels_per_image"] == per_image, f"{config}: labels_per_image")
    expect(found["distinct_label_sets"] == len({frozenset(one) for one in ranks}), "distinct_label_sets")
    if config in sources.KINDS:
        vectors = b"".join(bytes(row["label_vector"]) for row in rows)
        expect(found["labels_sha256"] == hashlib.sha256(vectors).hexdigest(), "labels_sha256")
    if "img_id" in rows[0]:
        names = [hashlib.sha256(f"{row['img_id']}\n{row['clip_id']}".encode()).digest() for row in rows]
        expect(found["identities_sha256"] == rfc9162_root(names, b""), "identities_sha256")


def _check_paths(out: Path, target: str, config: str, split: str) -> None:
    """What the files of a split are called."""
    if target in ("jpeg",):
        return
    found = sorted(path.name for path in (out / config).iterdir() if path.name.startswith(f"{split}-"))
    found = [name for name in found if not name.endswith((".sha256", ".idx"))]
    suffix = {"hf": "parquet", "arrayrecord": "array_record"}.get(target, target)
    count = len(found)
    if target == "webdataset":
        wanted = [f"{split}-{number:06}.tar" for number in range(count)]
    else:
        wanted = [f"{split}-{number:05}-of-{count:05}.{suffix}" for number in range(count)]
    expect(bool(found) and found == wanted, f"{config}/{split}: the files are {found}")


def _check_descriptions(out: Path, configs: tuple[str, ...], *, labels: bool) -> None:
    front_matter = yaml.safe_load((out / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    files = [path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if path.is_file()]
    if "configs" in front_matter:
        stated = {
            entry["config_name"]: {file["split"]: file["path"] for file in entry["data_files"]}
            for entry in front_matter["configs"]
        }
        expect(
            {config: list(splits) for config, splits in stated.items()}
            == {c: [*sources.SPLITS] for c in configs},
            "configs",
        )
        for config, splits in stated.items():
            for split, pattern in splits.items():
                matched = [name for name in files if fnmatchcase(name, pattern)]
                expect(bool(matched), f"{pattern} matches nothing")
                expect(all(name.startswith(f"{config}/{split}") for name in matched), f"{pattern}: {matched}")
    for info in front_matter.get("dataset_info", ()):
        config = info["config_name"]
        wanted = expected(config, "train", labels=labels)[0]
        # Of a WebDataset the features are files, one of them JSON with the columns that are no bytes.
        features = next((feature["struct"] for feature in info["features"] if "struct" in feature), None)
        if features is None:
            features = info["features"]
            counts = [split["num_examples"] for split in info["splits"]]
            expect(counts == list(map(sum, sources.SPLITS.values())), "num_examples")
        else:
            wanted = {name: value for name, value in wanted.items() if not isinstance(value, bytes)}
        expect(sorted(feature["name"] for feature in features) == sorted(wanted), "features in the card")
        (label,) = (feature for feature in features if feature["name"] == "label")
        names = (label.get("sequence") or label["dtype"])["class_label"]["names"]
        expect(names == {str(number): name for number, name in enumerate(sources.NAMES)}, "names in the card")
    if (out / "dataset.json").is_file():
        document = json.loads((out / "dataset.json").read_bytes())
        for config in configs:
            columns = document["configs"][config]["columns"]
            for name, column in columns.items():
                feature = name if name in ("img_id", "clip_id") else sources.feature_of(config, name)
                expect(column.get("feature", name) == feature, f"the feature of {name} in dataset.json")
                if column.get("role") == "label":
                    stated_names = column["label_names"]
                    stated_names = (
                        list(stated_names.values()) if isinstance(stated_names, dict) else stated_names
                    )
                    expect(stated_names == sources.NAMES, "names in dataset.json")
            for split, sizes in sources.SPLITS.items():
                expect(
                    document["configs"][config]["splits"][split]["records"] == sum(sizes),
                    "records in dataset.json",
                )
    if (out / "croissant.json").is_file():
        for records in json.loads((out / "croissant.json").read_bytes())["recordSet"]:
            if records.get("dataType") == "sc:Enumeration":
                names = [list(row.values()) for row in records["data"]]
                expect(
                    names == [[number, name] for number, name in enumerate(sources.NAMES)],
                    "names in croissant.json",
                )


# --- The records, format by format ---------------------------------------------------------------------


def _table_rows(out: Path, config: str, split: str) -> list[Row]:
    found = []
    for path in sorted((out / config).glob(f"{split}-*")):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        elif path.suffix == ".arrow":
            table = pa.ipc.open_file(path).read_all()
        elif path.suffix == ".lance":
            import lance.file

            table = lance.file.LanceFileReader(str(path)).read_all().to_table()
        else:
            continue
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        label = features["label"]
        names = (label.get("feature") or label)["names"]
        for row in table.to_pylist():
            several = isinstance(row["label"], list)
            found.append(
                row
                | {"label names": [names[rank] for rank in row["label"]] if several else names[row["label"]]}
            )
        images = {name for name, feature in features.items() if feature["_type"] == "Image"}
        expect(images == {"image", "mask"} & set(features), f"images are {images}")
    return found


def _example(data: bytes) -> Row:
    """The features of an Example; one value as such, except where there are none or several."""
    found: Row = {}
    ((_, entries),) = fields(data)
    for _, entry in fields(entries):
        (_, name), (_, feature) = fields(entry)
        ((kind, content),) = fields(feature)
        values: list[Any] = [value for _, value in fields(content)]
        if kind == FLOATS:
            values = np.frombuffer(b"".join(values), "<f4").tolist()
        elif kind != 1:
            numbers, run, position = [], b"".join(values), 0
            while position < len(run):
                number, position = varint(run, position)
                numbers.append(number - (1 << 64) if number >> 63 else number)
            values = numbers
        found[name.decode()] = values
    return found


def _example_rows(out: Path, config: str, split: str) -> list[Row]:
    found = []
    for path in sorted((out / config).glob(f"{split}-*")):
        if path.suffix == ".tfrecord":
            examples = read_frames(path)
        elif path.suffix == ".array_record":
            from array_record.python.array_record_module import ArrayRecordReader

            reader = ArrayRecordReader(str(path))
            examples = reader.read(0, reader.num_records())
            reader.close()
        else:
            continue
        found += [_example(data) for data in examples]
    wanted = sources.CONFIGS[config][1]
    lists = {
        sources.feature_of(config, name)
        for name, column in wanted.items()
        if "[" in (column if isinstance(column, str) else column.get("type", ""))
    }
    texts = {
        sources.feature_of(config, name)
        for name, column in {**wanted, "img_id": "string", "clip_id": "string"}.items()
        if (column if isinstance(column, str) else column.get("type", "")).startswith("string")
    }
    return [
        {
            name: values if name in lists else values[0]
            for name, values in (
                (name, [value.decode() for value in values] if name in texts else values)
                for name, values in row.items()
            )
        }
        for row in found
    ]


def _tar_rows(out: Path, config: str, split: str) -> list[Row]:
    found: list[Row] = []
    for path in sorted((out / config).glob(f"{split}-*.tar")):
        with tarfile.open(path) as archive:
            records: dict[str, Row] = {}
            for member in archive.getmembers():
                key, _, field = member.name.partition(".")
                file = archive.extractfile(member)
                data = file.read() if file else b""
                row = records.setdefault(key, {"key": key})
                if field == "json":
                    row |= json.loads(data)
                elif field.endswith(".bin"):
                    row[field.removesuffix(".bin")] = data
                else:
                    row[field.rpartition(".")[0] or "image"] = data
            found += records.values()
    return found


def _folder_rows(out: Path, config: str, split: str) -> list[Row]:
    folder = out / config / split
    found: list[Row] = []
    if (folder / "metadata.csv").is_file():
        for row in csv.DictReader(io.StringIO((folder / "metadata.csv").read_text(encoding="utf-8"))):
            found.append({name: int(value) if value.isdigit() else value for name, value in row.items()})
    else:
        found = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
    names = {row["file_name"] for row in found}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expect(there - names == {next(folder.glob("metadata.*")).name}, f"other files {there - names}")
    for row in found:
        row["image"] = (folder / row["file_name"]).read_bytes()
        head, _, name = row["file_name"].rpartition("/")
        row["file_name"] = f"{head.partition('/')[0]}/{name}"  # without the folder of the shard
    return found


_READERS = {
    **dict.fromkeys(("parquet", "hf", "arrow", "lance"), _table_rows),
    **dict.fromkeys(("tfrecord", "arrayrecord"), _example_rows),
    "webdataset": _tar_rows,
    "jpeg": _folder_rows,
}
