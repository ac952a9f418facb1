"""Mutations of the package: none of them publishes a wrong output.

Each small fault of ``mutations.py`` is put into the code in this process, and a conversion is run. Either it is
refused, or the output is right by ``oracle.py``, which uses nothing of the package. A mutation that is refused nowhere
proves nothing: it would have no effect.
"""

import hashlib
import shutil

import oracle
import pytest
import sources
from mutate import Constant, Edit, applied
from mutations import MUTATIONS, Mutation

from converters import ConverterError, convert, verify

# So small that each `train` has two shards, and what the strict parser reads alone is in one of them.
SHARD_BYTES = 9000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutations") / "source"
    sources.make(folder)
    return folder


def _convert(source, out, run, *, labels):
    target, config = run
    convert(
        source,
        to=target.rstrip("+"),
        out=out,
        configs=[config],
        labels=source if labels else None,
        class_folders=target.endswith("+"),
        workers=1,
        max_shard_bytes=SHARD_BYTES,
    )


def _check(out, run, *, labels):
    target, config = run
    oracle.check(out, target.rstrip("+"), (config,), labels=labels, class_folders=target.endswith("+"))


RUNS = sorted({(run, mutation.labels) for mutation in MUTATIONS for run in mutation.runs})


@pytest.mark.parametrize(
    ("run", "labels"), RUNS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_the_code_as_it_is_publishes_what_is_right(source, tmp_path, run, labels):
    _convert(source, tmp_path / "out", run, labels=labels)
    _check(tmp_path / "out", run, labels=labels)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.room}: {mutation.name}")
def test_no_mutation_publishes_a_wrong_output(source, tmp_path, mutation: Mutation):
    refused = 0
    for number, run in enumerate(mutation.runs):
        out = tmp_path / str(number)
        with applied(mutation.change):
            try:
                _convert(source, out, run, labels=mutation.labels)
            except Exception as error:  # noqa: BLE001  # a mutant may end in any way
                print(f"{':'.join(run)}: {type(error).__name__}: {error}")
                refused += 1
        if out.exists():
            _check(out, run, labels=mutation.labels)
        shutil.rmtree(out, ignore_errors=True)
    assert refused, "this mutation has no effect here"


INFERRED = (
    Edit("formats.tfrecord.listing:_names_below", "tuple(sorted(names))", "tuple(sorted(names)[:-1])"),
    Edit("formats.tfrecord.descriptions:_by_names", "splits_of(files, source_name).items()",
         "reversed(splits_of(files, source_name).items())"),
    Edit("formats.tfrecord.file_names:splits_of", ") or None\n", ") or None\n        found[path] = None\n"),
    Edit("formats.tfrecord.inference:_call", "if _unusable(name)", "if name"),
    Edit("formats.tfrecord.inference:_call", 'image.call("image")', 'image.call("picture")'),
)  # fmt: skip


@pytest.mark.parametrize("change", INFERRED, ids=lambda change: change.where)
def test_no_mutation_infers_wrongly_what_names_say(source, tmp_path, change):
    files = tmp_path / "files"
    files.mkdir()
    for path in source.glob("plain-*"):
        shutil.copy(path, files / path.name.replace("-of-0000", " of "))  # no number of files is published
    (files / "labels.txt").write_text("\n".join(sources.NAMES))
    report = convert(files, to="arrow", out=tmp_path / "right", workers=1)
    assert report.splits[0].split.label_names[-3:] == tuple(sources.NAMES)
    with applied((change,)), pytest.raises(ConverterError, match="a fault of kfer-convert"):
        convert(files, to="arrow", out=tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    "change",
    [
        Constant("formats.tfrecord.framing:_MASK_DELTA", 0xA282EAD9),
        Edit("formats.output_source:OutputShardReader.__iter__", "yield batch if",
             "yield batch.take(pa.array(range(len(batch))[::-1])) if"),
    ],
    ids=lambda change: change.where,
)  # fmt: skip
def test_no_mutation_makes_a_wrong_output_of_another_one(source, tmp_path, change):
    convert(source, to="parquet", out=tmp_path / "parquet", configs=["boxes"], workers=1)
    with applied((change,)), pytest.raises(ConverterError, match="a fault of kfer-convert"):
        convert(tmp_path / "parquet", to="tfrecord", out=tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    "change",
    [
        Edit("verify.output:Verification.report", "in self.damaged.items()", "in ()"),
        Edit("verify.output:Verification._split_report", "if not checks:", "if False:"),
        Edit("dataset.report:Report.failures", "list(self.problems)", "[]"),
    ],
    ids=lambda change: change.where,
)
def test_no_mutation_lets_a_forged_output_pass(source, tmp_path, change):
    out = tmp_path / "out"
    convert(source, to="arrow", out=out, configs=["boxes"], workers=1)
    path = out / "MANIFEST.json"
    if "_split_report" in change.where:
        manifest = path.read_bytes()
        forged = manifest.replace(b'"image_bytes": ', b'"image_bytes": 1', 1)
        digests = [hashlib.sha256(data).hexdigest() for data in (manifest, forged)]
        path.write_bytes(forged)
        path = out / "SHA256SUMS"
        path.write_text(path.read_text().replace(*digests))
    else:
        (out / "boxes" / "test-00000-of-00001.arrow").write_bytes(b"")
    assert verify(out, workers=1).failures()
    with applied((change,)), pytest.raises(ConverterError, match="a fault of kfer-convert"):
        verify(out, workers=1)


def test_there_are_at_least_forty_of_different_names():
    assert len({(mutation.room, mutation.name) for mutation in MUTATIONS}) == len(MUTATIONS) >= 40
