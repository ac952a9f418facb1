"""The mutations: each a small fault in one place of the package, and what it is tried on."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from mutate import Constant, Edit, Wrap


@dataclass(frozen=True)
class Mutation:
    """A fault.

    Attributes:
        room: what it is a fault of.
        name: what it does.
        change: how.
        runs: the formats that it is tried with, and the configs; ``jpeg+`` is with class folders.
        labels: with label CSVs.
    """

    room: str
    name: str
    change: tuple[Edit | Constant | Wrap, ...]
    runs: tuple[tuple[str, str], ...]
    labels: bool = False


def _mutation(
    room: str, name: str, change: Edit | Constant | Wrap, runs: str, *, labels: bool = False
) -> Mutation:
    pairs = tuple(tuple(run.split(":")) for run in runs.split())
    return Mutation(room, name, (change,), pairs, labels)


# --- Changes of what functions return ------------------------------------------------------------------


def _feature(name: str, **changes: Any) -> Any:
    """The parser's values of a feature changed, array by array."""

    def change(found: Any, *_: Any) -> Any:
        if name in found:
            new = {part: make(getattr(found[name], part).copy()) for part, make in changes.items()}
            found[name] = replace(found[name], **new)
        return found

    return change


def _roll(step: int = 1) -> Any:
    return lambda array: np.roll(array, step)


def _copy(target: slice, source: slice) -> Any:
    def change(array: Any) -> Any:
        array[target] = array[source]
        return array

    return change


def _between_reversed(width: int) -> Any:
    """All records but the first and the last in the opposite order."""

    def change(array: Any) -> Any:
        rows = array.reshape(-1, width)
        return np.concatenate([rows[:1], rows[-2:0:-1], rows[-1:]]).ravel()

    return change


def _exchanged_features(one: str, other: str) -> Any:
    def change(found: Any, *_: Any) -> Any:
        if one in found and other in found:
            found[one], found[other] = found[other], found[one]
        return found

    return change


def _swapped_columns(one: str, other: str) -> Any:
    def change(batch: Any, *_: Any) -> Any:
        names = batch.schema.names
        if one not in names:
            return batch
        columns = dict(zip(names, batch.columns, strict=True))
        columns[one], columns[other] = columns[other], columns[one]
        return pa.RecordBatch.from_arrays([columns[name] for name in names], schema=batch.schema)

    return change


def _first_label_only(array: Any, *_: Any) -> Any:
    return pa.array([row[:1] for row in array.to_pylist()], array.type)


def _rolled_list(found: Any, *_: Any, **__: Any) -> Any:
    return found[-1:] + found[:-1]


def _rolled_texts(found: Any, *_: Any) -> Any:
    texts, labels = found
    first = next(iter(texts))
    return {**texts, first: pa.array(_rolled_list(texts[first].to_pylist()))}, labels


def _exchanged_columns_features(schema: Any, *_: Any) -> Any:
    names = {"first": "second", "second": "first", "height": "width", "width": "height"}
    columns = tuple(replace(column, feature=names.get(column.feature, column.feature)) for column in schema)
    return type(schema)(columns)


def _sorted_names(found: Any, *_: Any) -> Any:
    for column in found.values():
        if isinstance(column, dict) and isinstance(column.get("label_names"), list):
            column["label_names"] = sorted(column["label_names"])
    return found


_PARSE = "formats.tfrecord.fast_parser:BatchParser.parse"
_FAST = "formats.tfrecord.fast_parser"
_COLUMNS = "formats.tfrecord.columns"
_ENCODER = "formats.tfrecord.encoder"
_TABLE = "formats.table"
_FOLDER = "formats.jpeg.image_folder"

MUTATIONS = (
    # --- The parser --------------------------------------------------------------------------------
    _mutation("parser", "images shifted by a record",
              Wrap(_PARSE, _feature("image_raw", starts=_roll(), sizes=_roll())), "parquet:plain"),
    _mutation("parser", "labels shifted by a record",
              Wrap(_PARSE, _feature("label", integers=_roll(3))), "parquet:multi parquet:single jpeg:single"),
    _mutation("parser", "the first record has the second's labels",
              Wrap(_PARSE, _feature("label", integers=_copy(slice(0, 3), slice(3, 6)))), "parquet:multi"),
    _mutation("parser", "the last record has the labels of the one before",
              Wrap(_PARSE, _feature("label", integers=_copy(slice(-3, None), slice(-6, -3)))), "parquet:multi"),
    _mutation("parser", "records between have each other's labels",
              Wrap(_PARSE, _feature("label", integers=_between_reversed(3))), "parquet:single"),
    _mutation("parser", "two features exchanged",
              Wrap(_PARSE, _exchanged_features("xmin", "xmax")), "parquet:boxes tfrecord:boxes"),
    _mutation("parser", "signs lost", Wrap(_PARSE, _feature("second", integers=np.abs)), "parquet:numbered"),
    _mutation("parser", "nulls moved by a record", Wrap(_PARSE, _feature("score", counts=_roll())), "parquet:numbered"),
    _mutation("parser", "texts of lists in another order",
              Wrap(_PARSE, _feature("texts", starts=lambda a: a[::-1], sizes=lambda a: a[::-1])), "webdataset:boxes"),
    _mutation("parser", "edges of lists moved by a record", Wrap(_PARSE, _feature("xmin", counts=_roll())), "lance:boxes"),
    _mutation("parser", "digits of integers put together wrongly",
              Edit("formats.tfrecord.strict_parser:decode_varints", "<< 7 * place", "<< 8 * place"), "parquet:numbered"),
    _mutation("parser", "integers of single records backwards",
              Edit("formats.tfrecord.strict_parser:_run", "numbers.append(number)", "numbers.insert(0, number)"), "parquet:doubted"),
    _mutation("parser", "negative integers of single records",
              Edit("formats.tfrecord.strict_parser:_run", "np.uint64).view(np.int64)", "np.uint64).astype(np.float64)"),
              "parquet:doubted"),
    _mutation("parser", "floats cut to whole numbers",
              Edit(f"{_FAST}:_read_floats", "view(np.float32)", "view(np.float32).round()"), "parquet:boxes"),
    _mutation("parser", "records doubted are put in by the wrong row",
              Edit(f"{_FAST}:_joined", 'np.argsort(rows, kind="stable")', "np.argsort(-rows, kind='stable')"),
              "parquet:doubted"),
    _mutation("frames", "records of a batch shifted",
              Edit("formats.tfrecord.reader:RangeReader.frames", "yield frames",
                   "yield Frames(frames.buffer, np.roll(frames.starts, 1), np.roll(frames.sizes, 1), frames.first_record, frames.first_offset)"),
              "parquet:multi"),
    _mutation("frames", "the last record of a batch lost",
              Edit("formats.tfrecord.reader:RangeReader.frames", "yield frames",
                   "yield Frames(frames.buffer, frames.starts[:-1], frames.sizes[:-1], frames.first_record, frames.first_offset)"),
              "parquet:multi"),
    _mutation("frames", "batches twice",
              Edit("formats.tfrecord.reader:RangeReader.frames", "yield frames", "yield frames; yield frames"), "parquet:plain"),
    # --- From features to columns ------------------------------------------------------------------
    _mutation("columns", "values beside their nulls",
              Edit(f"{_COLUMNS}:_with_gaps", "mask=~there", "mask=np.roll(~there, 1)"), "parquet:numbered"),
    _mutation("columns", "values between nulls backwards",
              Edit(f"{_COLUMNS}:_with_gaps", "pa.array(places, mask", "pa.array(places.max() - places, mask"),
              "parquet:numbered"),
    _mutation("columns", "narrow integers backwards",
              Edit(f"{_COLUMNS}:_narrowed", "return narrow", "return narrow[::-1]"), "parquet:single"),
    _mutation("columns", "short texts from other places",
              Edit(f"{_COLUMNS}:_gathered", "np.repeat(found.starts - before", "np.repeat(np.roll(found.starts, 1) - before"),
              "parquet:boxes"),
    _mutation("columns", "two columns exchanged",
              Wrap(f"{_COLUMNS}:ColumnReader.read", _swapped_columns("first", "second")), "parquet:numbered"),
    # --- Batches -----------------------------------------------------------------------------------
    _mutation("batches", "lists cut elsewhere",
              Edit("dataset.arrays:list_array", "offsets_of(counts)", "offsets_of(counts[::-1])"), "parquet:boxes"),
    _mutation("batches", "nulls at other places",
              Edit("dataset.arrays:with_nulls", "np.packbits(valid, bitorder", "np.packbits(valid[::-1], bitorder"),
              "parquet:numbered"),
    _mutation("batches", "texts cut elsewhere",
              Edit("dataset.arrays:packed_array", "offsets_of(sizes)", "offsets_of(sizes[::-1])"), "parquet:boxes"),
    _mutation("batches", "img_id shifted",
              Edit("dataset.identity:Identities.join", "self.img_id.slice(first,", "self.img_id.slice(max(0, first - 1),"),
              "parquet:single", labels=True),
    _mutation("batches", "clip_id of the record before",
              Edit("dataset.identity:Identities.join", "self.clip_id.slice(first, len(rows))",
                   "self.clip_id.take(pa.array([max(0, n - 1) for n in range(first, first + len(rows))]))"),
              "parquet:single", labels=True),
    _mutation("batches", "names of a label CSV shifted",
              Wrap("dataset.label_csv:read_label_csv", _rolled_texts), "jpeg:single", labels=True),
    # --- Leaves, trees, counts ---------------------------------------------------------------------
    _mutation("fingerprint", "a column is left out",
              Edit("dataset.leaves:record_leaves", "zip(schema.stored, batch.columns, strict=True)",
                   "list(zip(schema.stored, batch.columns, strict=True))[:-1]"), "parquet:multi"),
    _mutation("fingerprint", "another first byte",
              Edit("dataset.leaves:record_leaves", "np.zeros(rows, np.uint8)", "np.ones(rows, np.uint8)"), "parquet:multi"),
    _mutation("fingerprint", "nulls as empty lists",
              Edit("dataset.leaves:_value", "prefix[~valid] = _NULL", "prefix[~valid] = 0"), "parquet:numbered"),
    _mutation("fingerprint", "images by their first bytes",
              Edit("dataset.leaves:image_digests", "binary_views(array)", "[view[:100] for view in binary_views(array)]"), "parquet:multi"),
    _mutation("fingerprint", "sides exchanged within a batch",
              Edit("dataset.fingerprint:Tree.extend", "left + right", "right + left"), "parquet:multi"),
    _mutation("fingerprint", "sides exchanged between batches",
              Edit("dataset.fingerprint:Tree.push", "left.digest + right.digest", "right.digest + left.digest"),
              "parquet:multi"),
    _mutation("fingerprint", "sides exchanged at the root",
              Edit("dataset.fingerprint:Tree.root", "node.digest + digest)", "digest + node.digest)"), "parquet:multi"),
    _mutation("fingerprint", "only the first node of a part",
              Edit("dataset.fingerprint:Merger.add", "for node in part.nodes:", "for node in part.nodes[:1]:"),
              "parquet:multi"),
    _mutation("fingerprint", "label counts backwards",
              Edit("dataset.fingerprint:_label_counts", "counts[int(rank)]", "counts[-1 - int(rank)]"), "parquet:multi"),
    _mutation("fingerprint", "labels a record, one too few",
              Edit("dataset.fingerprint:Merger.fingerprint", 'ranks.count(",") + 1', 'ranks.count(",")'), "hf:multi"),
    _mutation("fingerprint", "label vectors backwards",
              Edit("dataset.fingerprint:PartBuilder.add", "vector_matrix(array)", "vector_matrix(array)[:, ::-1]"),
              "parquet:multi"),
    _mutation("fingerprint", "names and clips exchanged",
              Edit("dataset.fingerprint:identity_digest", "{img_id}\\n{clip_id}", "{clip_id}\\n{img_id}"), "parquet:single",
              labels=True),
    _mutation("fingerprint", "bytes of images from the first one on",
              Edit("dataset.fingerprint:PartBuilder.add", "int(offsets[-1] - offsets[0])", "int(offsets[-1])"),
              "parquet:multi"),
    _mutation("fingerprint", "labels counted under the next name",
              Edit("dataset.labels:ranks_of", "ranks = values", "ranks = (values + 1) % len(column.label_names)"),
              "parquet:plain"),
    _mutation("fingerprint", "sets of labels by their first one",
              Edit("dataset.labels:count_label_sets", "np.bitwise_or.reduceat(bits, starts)", "bits[starts]"),
              "parquet:multi"),
    # --- Tables ------------------------------------------------------------------------------------
    _mutation("tables", "label shifted by one",
              Edit("dataset.labels:derived_label", "values[rows] = ranks", "values[rows] = (ranks + 1) % 3"),
              "parquet:single arrow:numbered webdataset:single"),
    _mutation("tables", "label constant",
              Edit("dataset.labels:derived_label", "values[rows] = ranks", "values[rows] = 0"),
              "lance:single hf:numbered webdataset:numbered jpeg:numbered"),
    _mutation("tables", "second label dropped", Wrap("dataset.labels:derived_label", _first_label_only),
              "parquet:multi arrow:multi webdataset:multi"),
    _mutation("tables", "class names sorted in the features",
              Edit(f"{_TABLE}:_feature", "list(column.label_names)", "sorted(column.label_names)"),
              "parquet:multi arrow:single lance:boxes hf:plain"),
    _mutation("tables", "an image is no image to `datasets`",
              Edit(f"{_TABLE}:_feature", '{"_type": "Image"}', '{"dtype": "binary", "_type": "Value"}'), "parquet:multi"),
    _mutation("tables", "two columns exchanged", Wrap(f"{_TABLE}:to_table", _swapped_columns("first", "second")),
              "parquet:numbered arrow:numbered lance:numbered"),
    _mutation("tables", "rows backwards",
              Edit(f"{_TABLE}:tables", "pending.append(batch.slice(start, end - start))",
                   "pending.append(batch.slice(start, end - start).take(pa.array(range(end - start - 1, -1, -1))))"),
              "parquet:boxes arrow:boxes"),
    _mutation("tables", "read back by other rows",
              Edit(f"{_TABLE}:from_table", "array = _images(array)", "array = _images(array).take(pa.array([0, *range(len(array) - 1)]))"),
              "parquet:multi"),
    # --- Names -------------------------------------------------------------------------------------
    _mutation("names", "image.path off by one",
              Edit("dataset.image_names:image_stems", "range(first, first + len(batch))",
                   "range(first + 1, first + 1 + len(batch))"),
              "parquet:multi hf:single jpeg:multi webdataset:multi lance:boxes"),
    _mutation("names", "image.path without the split",
              Edit("dataset.image_names:image_stems", 'f"{split.name}_" if with_split else ""', '""'), "parquet:multi"),
    _mutation("names", "the suffix of another encoding", Wrap("dataset.image_names:suffixes", lambda found, *_: [".png"] * len(found)),
              "parquet:boxes jpeg:boxes jpeg:multi webdataset:multi"),
    _mutation("names", "file names of other records", Wrap("dataset.image_names:image_stems", _rolled_list),
              "parquet:plain webdataset:plain jpeg:multi"),
    _mutation("names", "paths shifted",
              Edit("dataset.arrays:string_array", 'joined = "".join(texts)',
                   'texts = [*texts[-1:], *texts[:-1]]\n    joined = "".join(texts)'), "parquet:multi jpeg:multi"),
    _mutation("names", "splits exchanged in the names of files",
              Edit("formats.parquet:ParquetFormat.split_name", "return split.name",
                   'return {"train": "test", "test": "train"}[split.name]'), "parquet:multi"),
    _mutation("names", "splits exchanged in the names of files of a card",
              Edit("formats.hf:HfFormat.split_name", "else split.name", 'else {"train": "test", "test": "train"}[split.name]'),
              "hf:multi"),
    _mutation("names", "shards numbered from 1",
              Edit("dataset.shard:Shard.numbered", "{self.index:0", "{self.index + 1:0"), "parquet:multi tfrecord:multi"),
    # --- Image folders -----------------------------------------------------------------------------
    _mutation("folders", "images in wrong class folders",
              Edit(f"{_FOLDER}:_places", "folders[rank]", "folders[(rank + 1) % len(folders)]"), "jpeg+:single"),
    _mutation("folders", "class folders in another order",
              Edit(f"{_FOLDER}:JpegFormat._class_folders", "enumerate(label.label_names)",
                   "enumerate(sorted(label.label_names))"), "jpeg+:single"),
    _mutation("folders", "images in each other's files",
              Edit(f"{_FOLDER}:_write_new", "zip(paths, contents", "zip(paths[::-1], contents"), "jpeg:multi"),
    _mutation("folders", "labels under the names of others",
              Edit("formats.jpeg.metadata:Metadata.rows", "vectors[:, place]", "vectors[:, place - 1]"), "jpeg:multi"),
    _mutation("folders", "label_name of another label",
              Edit("formats.jpeg.metadata:Metadata._label_names", "label.label_names[rank]", "label.label_names[rank - 1]"),
              "jpeg:numbered jpeg:boxes"),
    _mutation("folders", "columns of images and labels shifted against each other",
              Wrap("formats.jpeg.metadata:Metadata.stored", lambda found, *_: {
                  name: array.take(pa.array([len(array) - 1, *range(len(array) - 1)])) for name, array in found.items()}),
              "jpeg:multi"),
    _mutation("folders", "parts of the metadata in another order",
              Edit("convert.merge:merge_split", "parts[own[part.path]].append(part)", "parts[own[part.path]].insert(0, part)"),
              "jpeg:multi"),
    _mutation("folders", "the last part of the metadata is lost",
              Edit("storage.tree:join_files", "for part in parts:", "for part in parts[:-1]:"), "jpeg:multi"),
    # --- Tar archives ------------------------------------------------------------------------------
    _mutation("webdataset", "members exchanged between records",
              Edit("formats.webdataset.writing:write_archive", "files.append((tail + named[tail], binary_views(batch.column(column.name))))",
                   "files.append((tail + named[tail], binary_views(batch.column(column.name))[::-1]))"), "webdataset:boxes"),
    _mutation("webdataset", "keys exchanged between records", Wrap("formats.webdataset.files:keys", lambda keys, *_: keys[::-1]),
              "webdataset:multi webdataset:plain"),
    _mutation("webdataset", "fields of two columns exchanged",
              Wrap("formats.webdataset.files:_tail", lambda tail, *_: {".raw.bin": ".other.bin", ".other.bin": ".raw.bin"}.get(tail, tail)),
              "webdataset:plain"),
    _mutation("webdataset", "values under the names of others",
              Edit("formats.webdataset.writing:_json_objects", "names = [column.name for column in layout.values]",
                   "names = sorted(column.name for column in layout.values)"), "webdataset:numbered"),
    # --- Examples ----------------------------------------------------------------------------------
    _mutation("examples", "features exchanged", Wrap(f"{_ENCODER}:feature_schema", _exchanged_columns_features),
              "tfrecord:numbered arrayrecord:numbered tfrecord:multi"),
    _mutation("examples", "nulls written as empty lists",
              Edit(f"{_ENCODER}:_payloads", "if there else _ABSENT", "if there else 0"), "tfrecord:numbered arrayrecord:numbered"),
    _mutation("examples", "negative integers without their sign",
              Edit(f"{_ENCODER}:varints", "values.view(np.uint64)", "np.abs(values).view(np.uint64)"),
              "tfrecord:numbered arrayrecord:numbered"),
    _mutation("examples", "texts of a list backwards",
              Edit(f"{_ENCODER}:_byte_lists", "[b\"\".join(pieces[start:end])", "[b\"\".join(pieces[start:end][2:] + pieces[start:end][:2])"),
              "tfrecord:boxes arrayrecord:boxes"),
    _mutation("examples", "floats cut to whole numbers",
              Edit(f"{_ENCODER}:_number_runs", 'values.astype("<f4", copy=False)', 'values.astype("<f4").round()'), "tfrecord:boxes"),
    _mutation("examples", "records backwards",
              Edit(f"{_ENCODER}:ExampleEncoder.encode", "zip(*pieces, strict=True)", "list(zip(*pieces, strict=True))[::-1]"),
              "tfrecord:multi arrayrecord:multi"),
    _mutation("examples", "names sorted in dataset.json", Wrap("dataset.description:described_columns", _sorted_names),
              "tfrecord:multi arrayrecord:plain"),
    _mutation("examples", "a wrong number of records in dataset.json",
              Edit("formats.tfrecord.example_files:_published", '"records": fingerprint.records', '"records": fingerprint.records + 1'),
              "tfrecord:multi"),
    # --- Cards -------------------------------------------------------------------------------------
    _mutation("cards", "class names sorted in the card",
              Edit("formats.table:_yaml_feature", 'enumerate(feature["names"])', 'enumerate(sorted(feature["names"]))'), "hf:multi"),
    _mutation("cards", "a wrong number of records in the card",
              Edit("formats.hf:_yaml_info", '"num_examples": split.records', '"num_examples": split.records + 1'), "hf:multi"),
    _mutation("cards", "files of another split",
              Edit("formats.readme:configs_yaml", "data_files[split.title]", "data_files[max(data_files)]"),
              "parquet:multi jpeg:multi webdataset:multi"),
    _mutation("cards", "splits called otherwise",
              Edit("formats.readme:configs_yaml", "names.get(split.title, split.name)", '"train" + split.name'), "arrow:multi"),
    _mutation("cards", "class names sorted in croissant.json",
              Edit("formats.croissant:_labels", "enumerate(split.label_names)", "enumerate(sorted(split.label_names))"),
              "parquet:multi"),
    # --- Publishing --------------------------------------------------------------------------------
    _mutation("publishing", "SHA256SUMS with other digests",
              Edit("dataset.manifest:_sums_lines", "{sha256}  {path}", "{sha256[::-1]}  {path}"), "parquet:multi"),
    _mutation("publishing", "files without their last bytes hashed",
              Edit("storage.tree:hash_file", "hashlib.file_digest(file, \"sha256\")", "hashlib.sha256(file.read()[:-1])"), "parquet:multi jpeg:multi"),
    _mutation("publishing", "sizes of files one too large",
              Edit("storage.tree:hash_file", "file.tell(),", "file.tell() + 1,"), "parquet:multi"),
    _mutation("publishing", "files of the dataset missing in the manifest",
              Edit("convert.finish:_finish", "return files", "return []"), "parquet:multi"),
    _mutation("publishing", "splits of the manifest exchanged",
              Edit("dataset.manifest:write_manifest", "for split in report.splits]", "for split in report.splits[::-1]]"),
              "parquet:multi"),
    _mutation("publishing", "a file is lost on publishing",
              Edit("staging.folder:FolderStaging.publish", "sync_tree(self.output)",
                   'sync_tree(self.output)\n    (self.output / "LICENSE").unlink()'), "parquet:multi"),
    _mutation("publishing", "a file of the dataset is lost before the manifest",
              Edit("convert.finish:_finish", "Path(name, file.path).rename(place)",
                   'if file.path != "LICENSE": Path(name, file.path).rename(place)'), "parquet:multi"),
    _mutation("publishing", "class names sorted in the manifest's columns",
              Edit("dataset.schema:Column.to_json", "list(self.label_names)", "sorted(self.label_names)"), "parquet:multi"),
    _mutation("publishing", "another description in the manifest",
              Edit("dataset.manifest:write_manifest", "report.description.document,",
                   '{**report.description.document, "name": "other"},'), "parquet:multi"),
    _mutation("publishing", "digests of source files backwards",
              Edit("formats.tfrecord.source:source_facts", "piece.sha256", "piece.sha256[::-1]"), "parquet:plain"),
    _mutation("publishing", "other terms",
              Edit("formats.readme:licence_text", "licence.text)", 'licence.text.replace("domain", "house"))'), "jpeg:multi"),
    # --- What was asked for ------------------------------------------------------------------------
    _mutation("description", "names of labels backwards",
              Edit("dataset.description:_Names.from_json", "decode(cast(Any, _LabelNames), value, \"\"),",
                   "decode(cast(Any, _LabelNames), value, \"\")[::-1],"), "tfrecord:numbered webdataset:boxes"),
    _mutation("description", "features of two columns exchanged",
              Edit("dataset.description:_ColumnForm.column", "name if self.feature is None else self.feature",
                   "{'first': 'second', 'second': 'first'}.get(name, self.feature or name)"), "arrow:numbered"),
    _mutation("description", "names of the derived label backwards",
              Edit("dataset.schema:with_derived_label", "label_names=label.label_names,",
                   "label_names=label.label_names[::-1],"), "parquet:multi jpeg:numbered webdataset:single"),
    _mutation("sources", "a split is left out",
              Edit("formats.tfrecord.discovery:find_source", "if source.split in asked]", "if source.split in asked][1:]"),
              "parquet:multi"),
    _mutation("sources", "splits in another order",
              Edit("formats.tfrecord.source:TFRecordSource.__init__", "for there in found.splits\n    )",
                   "for there in found.splits[::-1]\n    )"), "parquet:multi"),
    _mutation("sources", "files of a split in another order",
              Edit("formats.tfrecord.discovery:find_source", "files[name] for name in found[split])",
                   "files[name] for name in found[split][::-1])"), "parquet:multi"),
    # --- What is written and read by the same code -------------------------------------------------
    _mutation("webdataset", "sums in headers that tar does not take",
              Constant("formats.webdataset.tar:_SUM", 1), "webdataset:multi"),
    _mutation("webdataset", "files that are folders to tar",
              Edit("formats.webdataset.tar:header", "_BEHIND_CHECKSUM)", "b'5' + _BEHIND_CHECKSUM[1:])"), "webdataset:multi"),
    _mutation("webdataset", "an archive ends with half a block",
              Edit("formats.webdataset.tar:_end", "return bytes(2", "return bytes(1"), "webdataset:multi"),
    _mutation("webdataset", "values in a file that nobody looks for", Constant("formats.webdataset.files:JSON", ".jsn"),
              "webdataset:multi"),
    _mutation("webdataset", "bytes in a file that nobody looks for", Constant("formats.webdataset.files:RAW", ".bim"),
              "webdataset:plain"),
    _mutation("folders", "paths under another name", Constant("formats.jpeg.metadata:FILE_NAME", "path"), "jpeg:multi"),
    _mutation("folders", "no names of labels",
              Edit("formats.jpeg.metadata:Metadata._name_column", "return None if name in self.schema else name", "return None"),
              "jpeg:boxes"),
    _mutation("folders", "texts in a CSV",
              Edit("formats.jpeg.metadata:Metadata.is_csv", "not all(", "False and not all("), "jpeg:numbered"),
    _mutation("publishing", "folders that are not empty among those that are",
              Edit("storage.tree:walk_empty_folders", "if path and empty", "if path"), "arrow:multi"),
    _mutation("folders", "metadata of another name",
              Edit("formats.jpeg.metadata:Metadata.file", "metadata.", "meta."), "jpeg:multi"),
    _mutation("names", "the suffix twice",
              Edit("dataset.image_names:stem_of", "return name[: -len(suffix)]", "return name[:]"), "parquet:plain"),
    _mutation("names", "files of a suffix that nobody looks for", Constant("formats.arrow:ArrowFormat.suffix", ".arro"),
              "arrow:multi"),
    _mutation("cards", "no terms", Edit("formats.readme:write_terms", "write_text(", "repr("), "arrow:multi"),
    _mutation("cards", "columns of croissant.json by their features",
              Edit("formats.croissant:_column", '{"column": column.name}', '{"column": column.feature}'), "parquet:multi"),
    _mutation("cards", "digests of croissant.json backwards",
              Edit("formats.croissant:_file_object", "file.sha256", "file.sha256[::-1]"), "parquet:multi"),
    _mutation("cards", "files of a split left out in croissant.json",
              Edit("formats.croissant:_file_set", "for name in names]", "for name in names[:1]]"), "hf:multi"),
    _mutation("webdataset", "the suffix of another encoding",
              Edit("formats.webdataset.files:common_suffix", "return suffix", 'return ".png"'), "webdataset:multi"),
)  # fmt: skip
