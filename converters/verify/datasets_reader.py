"""`datasets` as a second opinion on an output: it is loaded as users load it, and compared record by record.

It runs in a process of its own (:mod:`datasets_child`), offline, with its cache in a temporary folder, and takes no
code of the current folder. What it gives is held against what the format reads back, which is held against the
manifest elsewhere: numbers of records, names of labels, every label, and every image's bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from converters.dataset.report import Check, Report
from converters.dataset.shard import Progress
from converters.errors import CallError, MachineError
from converters.formats.readme import empty_splits
from converters.plugins import require_extra
from converters.storage.object_store import SCRATCH
from converters.storage.processes import child_command

NAME = "datasets"

FORMATS = ("hf", "jpeg", "parquet")

_PATTERN = re.compile(r"[*?\[\]{}]")


def require_datasets() -> None:
    """Raise a CallError that says what to install where `datasets` is missing; imports nothing."""
    require_extra("hf", "--reader datasets", "datasets")


def require_known_layout(format_name: str) -> None:
    """Raise a CallError where `datasets` does not know the layout of a format."""
    if format_name not in FORMATS:
        raise CallError(
            f"--reader datasets reads outputs of --to {', '.join(FORMATS)}; this is one of --to {format_name}."
        )


def confirm(report: Report, out: Path, sound: bool, progress: Progress | None) -> Report:
    """The report with one more check a split: whether `datasets` gives what the format reads back.

    Args:
        report: what the verification found so far.
        out: the output.
        sound: whether its content may be read, as no file of it was changed.
        progress: called with ("confirmed", records).

    Raises:
        MachineError: there is no room for the cache of `datasets`, or its process died.
    """
    unread = "" if sound else "the content of the output was not read"
    if sound and _PATTERN.search(path := str(out.resolve())):
        unread = f"`datasets` takes the path {path} for a pattern"
    checks = {split.split.title: Check(NAME, "unverified", unread) for split in report.splits}
    if not unread:
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as name:
            checks = _load_all(report, out.resolve(), Path(name), progress)
    splits = [replace(split, checks=(*split.checks, checks[split.split.title])) for split in report.splits]
    return replace(report, splits=tuple(splits))


def _load_all(report: Report, out: Path, folder: Path, progress: Progress | None) -> dict[str, Check]:
    """The checks of all splits, by their titles; ``folder`` is for what is temporary.

    Raises:
        MachineError: the process of `datasets` died, or the machine failed it.
    """
    if report.format != "jpeg":  # of JPEG files the cache holds no bytes
        _require_space(report, folder)
    checks = {
        split.title: Check(NAME, "unverified", "`datasets` loads no split without records")
        for split in empty_splits(report)
    }
    records = {split.split.title: split.fingerprint.records for split in report.splits}
    configs: dict[str, list[str]] = {}
    for split in report.splits:
        if split.split.title not in checks:
            configs.setdefault(split.split.config, []).append(split.split.title)
    with subprocess.Popen(
        child_command("converters.verify.datasets_child", "serve"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=_environment(folder),
        text=True,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError), process.stdin:
                json.dump({"out": str(out), "configs": configs}, process.stdin)
            for line in process.stdout:
                answer = json.loads(line)
                if "machine" in answer:
                    raise MachineError(f"`datasets` could not load {answer['title']}: {answer['machine']}.")
                if "confirmed" not in answer:
                    checks[answer["title"]] = _check(answer, records[answer["title"]])
                elif progress is not None:
                    progress("confirmed", answer["confirmed"])
        except BaseException:
            process.kill()
            raise
    if status := process.returncode:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise MachineError(f"the process of `datasets` died ({how}), so it confirms nothing.")
    return checks


def _check(answer: dict[str, Any], records: int) -> Check:
    if "unverified" in answer:
        return Check(NAME, "unverified", answer["unverified"])
    if answer["problem"] is not None:
        return Check(NAME, "failed", answer["problem"])
    loaded = f"{records} records as datasets {version('datasets')} loads them"
    return Check(NAME, "passed", f"{loaded}: every image's bytes, every label and its name")


def _environment(folder: Path) -> dict[str, str]:
    """That of a process in which `datasets` asks no network, and keeps what it makes in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return environment | {
        "HF_HOME": str(folder / "home"),
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }


def _require_space(report: Report, folder: Path) -> None:
    """Check that there is room for the copy that `datasets` makes of all it loads."""
    needed, free = sum(file.size for file in report.files), shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"{report.out}: `datasets` copies what it loads to {folder.parent}, which has {free:,} bytes free of "
            f"{needed:,} that it needs. TMPDIR names another folder."
        )
