"""The task: verify one shard of an output. Runs wherever an engine runs it, on this machine's files or a store's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.dataset.fingerprint import Part, PartBuilder
from converters.dataset.manifest import MANIFEST, Manifest
from converters.dataset.report import ShardFacts
from converters.dataset.shard import Progress, Shard
from converters.formats import Format, ReadsThrough, Summarizes, load_format
from converters.storage.file_list import OutputFile
from converters.storage.hashing_reader import HashingReader
from converters.storage.object_store import SCRATCH, Place, hash_object, side_by_side
from converters.storage.tree import hash_file
from converters.verify.read_back import read_back

MISSING = "this file is missing"


@dataclass(frozen=True)
class ShardPlace:
    """What the manifest says of a shard: its records, from ``start`` to ``end``, and its files.

    Attributes:
        path: the manifest.
        files: the files that it alone is made of.
        alone: whether it can be read without the other files of its split.
    """

    path: Place
    start: int
    end: int
    files: tuple[OutputFile, ...]
    alone: bool


@dataclass(frozen=True)
class VerifiedShard:
    """What was found of a shard.

    Attributes:
        shard: the shard.
        damaged: what is wrong with its files, by their paths; then nothing else is known.
        error: why its content could not be read.
        part: the fingerprint of its records.
        clips: the clips of its records, where known.
        summary: what the format says of it, where it says anything.
    """

    shard: Shard
    damaged: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    part: Part | None = None
    clips: frozenset[str] = frozenset()
    summary: Any = None


@dataclass(frozen=True)
class VerifyTask:
    """Verifies shards of one output. Frozen and picklable."""

    out: Place
    format: str
    format_options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, shard: Shard, progress: Progress | None = None) -> VerifiedShard:
        """Hash the files of a shard, read its records back, and fingerprint them."""
        target = load_format(self.format, **self.format_options)
        stated, in_store = _place_of(shard), not isinstance(self.out, Path)
        with _folder_of(self.out, stated) as folder:
            if isinstance(target, ReadsThrough) and not in_store and len(stated.files) > 1:
                # Of many small files, each is read once for its digest and its content.
                reader = HashingReader(folder)
                found = _read(target, folder, shard, progress, reader)
                seen = {file.path: (file.size, file.sha256) for file in reader.files}
                hashed = hash_of(self.out)
                damaged = changed_files(stated.files, lambda path: seen.get(path) or hashed(path))
            else:
                damaged = changed_files(stated.files, hash_of(self.out, folder), at_once=in_store)
                if not damaged:
                    found = _read(target, folder, shard, progress)
            # What was tampered with is not read any further: its content could lead anywhere.
            return VerifiedShard(shard, damaged) if damaged else found


def shards_of(out: Place, manifest: Manifest) -> list[Shard]:
    """The shards of an output, by its manifest; a split whose shards share files is one."""
    shards: list[Shard] = []
    by_path = {file.path: file for file in manifest.files}
    for entry in manifest.splits:
        split = manifest.split(entry)
        groups = [(facts.records, stated_files(facts, by_path)) for facts in entry.shards]
        if any(path.endswith("/") for facts in entry.shards for path in facts.files) or entry.joined:
            files = [file for _, own in groups for file in own] + [
                by_path[path] for path in entry.joined if path in by_path
            ]
            groups = [(entry.fingerprint.records, list(dict.fromkeys(files)))]
        first = 0
        for index, (records, own) in enumerate(groups):
            piece = ShardPlace(out / MANIFEST, first, first + records, tuple(own), len(groups) > 1)
            size = sum(file.size for file in own)
            shards.append(Shard(split, index, len(groups), first, (piece,), size))
            first += records
    return shards


def shards_with(manifest: Manifest, paths: Collection[str]) -> tuple[str, ...]:
    """The keys of the shards that have files of these paths; of a file that all of a split have parts of, all."""
    keys = []
    for entry in manifest.splits:
        split, whole = manifest.split(entry), not set(entry.joined).isdisjoint(paths)
        for index, facts in enumerate(entry.shards):
            folders = tuple(path for path in facts.files if path.endswith("/"))
            if (
                whole
                or not set(facts.files).isdisjoint(paths)
                or any(path.startswith(folders) for path in paths)
            ):
                keys.append(Shard(split, index, len(entry.shards), 0, (), 0).key)
    return tuple(keys)


def files_of(shard: Shard) -> tuple[OutputFile, ...]:
    """The files that a shard is made of."""
    return _place_of(shard).files


def _place_of(shard: Shard) -> ShardPlace:
    (place,) = shard.slices
    assert isinstance(place, ShardPlace)
    return place


def stated_files(facts: ShardFacts, by_path: Mapping[str, OutputFile]) -> list[OutputFile]:
    """The files that a manifest gives to a shard, of all by their paths."""
    found = [by_path[path] for path in facts.files if path in by_path]
    folders = tuple(path for path in facts.files if path.endswith("/"))
    if folders:
        found += [file for path, file in by_path.items() if path.startswith(folders)]
    return found


@contextmanager
def _folder_of(out: Place, stated: ShardPlace) -> Iterator[Path]:
    """A folder in which the records of a shard can be read; of an output in a store, once its files are hashed."""
    if isinstance(out, Path) and not stated.alone:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as name:
        folder = Path(name)
        for file in stated.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(out, Path):
                (folder / file.path).symlink_to((out / file.path).absolute())
        yield folder


def hash_of(out: Place, folder: Path | None = None) -> Callable[[str], tuple[int, str]]:
    """Gives the size and SHA-256 of a file of an output by its path; one from a store is copied to ``folder``, too."""
    if isinstance(out, Path):
        return lambda path: hash_file(out / path)
    return lambda path: hash_object(out / path, None if folder is None else folder / path)


def changed_files(
    files: Sequence[OutputFile], hashed: Callable[[str], tuple[int, str]], *, at_once: bool = False
) -> dict[str, str]:
    """What is wrong with files, by their paths; they are in no folder behind a link, for none was walked through."""

    def problem(file: OutputFile) -> str | None:
        try:
            size, sha256 = hashed(file.path)
        except FileNotFoundError:
            return MISSING
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if size != file.size:
            return f"has {size} bytes, the manifest says {file.size}"
        return None if sha256 == file.sha256 else "its SHA-256 is not the manifest's; it was changed"

    found = side_by_side(problem, files) if at_once else map(problem, files)
    return {file.path: wrong for file, wrong in zip(files, found, strict=True) if wrong is not None}


def _read(
    target: Format, folder: Path, shard: Shard, progress: Progress | None, reader: HashingReader | None = None
) -> VerifiedShard:
    split, stated = shard.split, _place_of(shard)
    builder = PartBuilder(shard.first_record, split.schema)
    clips: set[str] = set()
    try:
        for batch in read_back(target, folder, split, shard.first_record, reader):
            builder.add(batch, None if reader is None else reader.image_digests(len(batch), builder.images))
            if builder.records > stated.end - stated.start:
                raise ValueError(
                    f"there are more than the {stated.end - stated.start} records that the manifest says"
                )
            if "clip_id" in split.schema.joined_names:
                clips.update(batch.column("clip_id").unique().to_pylist())
            if progress is not None:
                progress("verified", len(batch))
        summary = target.summarize(folder, shard) if isinstance(target, Summarizes) else None
    except Exception as error:  # noqa: BLE001  # a format meeting damaged files, and maybe somebody else's
        return VerifiedShard(shard, error=f"cannot be read back: {error}")
    return VerifiedShard(shard, part=builder.part(), clips=frozenset(clips), summary=summary)
