"""The Python API: everything the command does, but for the page, which :mod:`converters.show` makes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.dataset.plan import MAX_SHARD_BYTES
from converters.dataset.source import MAX_RECORD_BYTES
from converters.storage.object_store import ObjectPath, place

if TYPE_CHECKING:
    from converters.dataset.report import Report
    from converters.dataset.shard import Progress
    from converters.formats.tfrecord.source import OnError, Reader
    from converters.hub import Gating, PushReport
    from converters.verify.output import OutputReader
    from converters.verify.source import Inspection

AnyPath = str | os.PathLike[str]
AnyPlace = AnyPath | ObjectPath


def convert(
    source: AnyPlace = "tfrecords",
    *,
    to: str,
    out: AnyPlace | None = None,
    configs: Sequence[str] = (),
    splits: Sequence[str] = (),
    without: Sequence[str] = (),
    labels: AnyPath | None = None,
    reader: Reader = "native",
    on_error: OnError = "fail",
    decode: bool = False,
    allow_mismatch: bool = False,
    overwrite: bool = False,
    repair: bool = False,
    workers: int | None = None,
    engine: str = "local",
    engine_options: Mapping[str, Any] | None = None,
    max_record_bytes: int = MAX_RECORD_BYTES,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    paranoid: bool = False,
    progress: Progress | None = None,
    **format_options: object,
) -> Report:
    """Convert a source, prove the output equal to it, and publish the output.

    Args:
        source: TFRecord files (a folder, a file or a pattern), or an output of any format; a path, or the URL of a
            store (``s3://…``).
        to: the format; ``kfer-convert formats`` lists them.
        out: the folder to make, or the URL of one; ``kfer-<format>`` by default.
        configs: the configs to convert; all by default.
        splits: the splits to convert; all by default.
        without: columns that are left out, by their names or those of their features; recorded in the manifest.
        labels: folder of the authors' label CSVs; recovers img_id and clip_id.
        reader: ``native``, or ``tensorflow`` to have TensorFlow confirm every record.
        on_error: ``fail``, or ``quarantine`` to leave damaged records out, put their bytes into ``quarantine/`` of
            the output, and account for every byte; :attr:`Report.quarantined` says whether anything was.
        decode: decode every image fully, not only its header.
        allow_mismatch: publish although published facts differ; recorded in the manifest.
        overwrite: replace an output that exists, once the new one is proven.
        repair: mend an output that exists: make again the shards whose files are lost or changed, and no others.
        workers: number of processes; the output's bytes do not depend on it. By default as many as there are cores, if
            there is enough to do for them.
        engine: where the work runs.
        engine_options: of the engine's own, such as the address of a cluster.
        max_record_bytes: longest record that is accepted.
        max_shard_bytes: most bytes of source that go into one output file or folder.
        paranoid: hash every source file once more at the end, though its state says that it did not change.
        progress: called with what was done to records ("read", "verified") and to how many.
        **format_options: of the format's own: ``class_folders`` for ``jpeg`` lays single-label configs out for
            torchvision's ImageFolder; ``index`` for ``tfrecord`` writes an index for DALI beside each file;
            ``image_suffix`` for ``webdataset`` is what the names of images end in, such as ``jpg``, by default what is
            in them.

    Returns:
        What was found; every check is in it.

    Raises:
        CallError: the call or the environment is wrong; nothing was touched.
        DataError: the source is damaged; nothing was published.
        CheckError: a check failed; nothing was published. It carries the report.
    """
    from converters.convert.run import Options, run

    options = Options(
        configs=tuple(configs),
        splits=tuple(splits),
        without=tuple(without),
        labels=None if labels is None else Path(labels),
        reader=reader,
        on_error=on_error,
        decode=decode,
        allow_mismatch=allow_mismatch,
        format_options={name: value for name, value in format_options.items() if value},
        max_record_bytes=max_record_bytes,
        max_shard_bytes=max_shard_bytes,
        paranoid=paranoid,
        workers=workers,
        engine=engine,
        engine_options=engine_options or {},
    )
    destination = place(f"kfer-{to}" if out is None else out)
    return run(place(source), to, destination, options, overwrite=overwrite, repair=repair, progress=progress)


def verify(
    out: AnyPlace,
    *,
    source: AnyPlace | None = None,
    reader: OutputReader = "native",
    sample: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    engine_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Prove an output again: from its manifest alone and, where given, against the source.

    Args:
        out: the output.
        source: what it was made from, TFRecords or another output.
        reader: ``native``; ``tensorflow`` to have TensorFlow confirm every record of the source; or ``datasets`` to
            have it load every config and split of the output, and to compare what it gives.
        sample: how many shards to read, by chance; what was not read is *unverified*. All by default.
        workers: see :func:`convert`, likewise ``engine`` and ``engine_options``: shards are verified side by side.
        engine: where the work runs.
        engine_options: of the engine's own.
        progress: see :func:`convert`.

    Returns:
        What was found; :meth:`Report.failures` is empty if all is proven.

    Raises:
        CallError: there is no finished output, or its format is not installed.
        DataError: the manifest or the source is damaged.
    """
    from converters.verify.output import verify_output

    return verify_output(
        place(out),
        None if source is None else place(source),
        reader,
        progress,
        sample=sample,
        workers=workers,
        engine=engine,
        engine_options=engine_options,
    )


def inspect(
    source: AnyPlace = "tfrecords", *, labels: AnyPath | None = None, progress: Progress | None = None
) -> Inspection:
    """What is in a source or an output, of which shape, and whether it is as published.

    Args:
        source: see :func:`convert`; likewise ``labels``, which tell the clips that splits share, and ``progress``.
        labels: see there.
        progress: see there.

    Raises:
        CallError: nothing is there, or it is neither TFRecords nor an output.
    """
    from converters.verify.source import inspect_source

    return inspect_source(place(source), progress, labels=None if labels is None else Path(labels))


def push(
    out: AnyPath,
    repo: str,
    *,
    revision: str = "main",
    commit_message: str | None = None,
    create_pr: bool = False,
    gated: Gating = "manual",
    public: bool = False,
    i_have_the_right_to_publish: bool = False,
    delete_extra: bool = False,
    dry_run: bool = False,
    announce: Callable[[PushReport], None] | None = None,
    progress: Progress | None = None,
) -> PushReport:
    """Upload an output of ``to="hf"`` to the Hugging Face Hub, and compare what is there with it byte for byte.

    The Hub is the one at ``HF_ENDPOINT``, or the official one. The token comes from ``HF_TOKEN`` or the login cache.

    Args:
        out: the output. It is verified first.
        repo: ``NAMESPACE/NAME``. It is made, private, where it is not there.
        revision: branch to commit to.
        commit_message: first line of the commits.
        create_pr: open a pull request instead of committing.
        gated: who is let in: ``manual``, ``auto`` or ``no``.
        public: whether everybody may see it; needs ``i_have_the_right_to_publish``.
        i_have_the_right_to_publish: that the caller holds the right to publish the data.
        delete_extra: delete files of the repo that the output has not.
        dry_run: look only; nothing is created, changed or sent.
        announce: called once with what will be done, before anything is.
        progress: see :func:`convert`; also called with ("compared", files).

    Returns:
        What was done, or would be.

    Raises:
        CallError: the call, the token, the network or the Hub does not allow it.
        CheckError: the output does not verify; nothing was sent.
        DataError: the Hub rejects the card, or holds something else than the output after the upload.
    """
    from converters.hub import Destination
    from converters.hub import push as push_output

    destination = Destination.configured(
        repo,
        revision=revision,
        public=public,
        has_right=i_have_the_right_to_publish,
        gating=gated,
        commit_message=commit_message,
        create_pr=create_pr,
        delete_extra=delete_extra,
    )
    return push_output(Path(out), destination, dry_run=dry_run, announce=announce, progress=progress)
