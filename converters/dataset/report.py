"""What a conversion or verification found: checks, each passed, failed or unverified, and the report of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Annotated, Any, Literal

from converters.dataset.column_table import ColumnTable
from converters.dataset.damage import records_lost
from converters.dataset.decode import Count, encode
from converters.dataset.description import Description, Split
from converters.dataset.filenames import safe_path
from converters.dataset.fingerprint import Fingerprint, Node
from converters.dataset.quarantine import Quarantine
from converters.dataset.shard import Effort
from converters.dataset.source_facts import SourceFacts
from converters.errors import ConverterError
from converters.storage.file_list import OutputFile

Result = Literal["passed", "failed", "unverified"]

STEPS = ("reading", "writing", "reading_back")


@dataclass(frozen=True)
class Check:
    """One check of one split.

    Attributes:
        name: what was checked.
        result: passed, failed, or unverified: it could not be checked, for the reason given.
        reason: what was compared, or why not.
        published: whether it was checked against the facts published with the dataset; such a failure is what
            ``allow_mismatch`` lets pass.
        explained: whether it failed, and just as it must with the records that were quarantined.
    """

    name: str
    result: Result
    reason: str
    published: bool = field(default=False, metadata={"required": True})
    explained: bool = False

    def to_json(self) -> dict[str, Any]:
        """The check as a JSON object; ``explained`` is there only where it is true."""
        return {key: value for key, value in asdict(self).items() if key != "explained" or value}


def _leaves_output(path: str) -> str | None:
    return None if safe_path(path.removesuffix("/")) else f"the path {path!r} leaves the output"


OutputPath = Annotated[str, _leaves_output]
"""The path of a file in an output; of a folder, with a slash at the end."""


@dataclass(frozen=True)
class ShardFacts:
    """What an output has of one shard.

    Attributes:
        records: their number.
        nodes: the nodes of the records' tree that it finishes, left to right.
        files: the files that hold them; of many, the folders that they alone are in, with a slash at the end.
    """

    records: Count
    nodes: tuple[Node, ...]
    files: tuple[OutputPath, ...]


@dataclass(frozen=True, repr=False)
class SplitReport:
    """What was found of one split.

    Attributes:
        split: the split.
        sources: its source files.
        output_bytes: size of its files in the output; 0 of a verification.
        fingerprint: of its records as they were read back.
        checks: what was compared.
        quarantine: what was left out; None where damage is an error.
        shards: what the output has of each shard, in order.
        joined: the files that all shards have parts of.
        summaries: what the format said of each shard, as far as it said anything.
    """

    split: Split
    sources: tuple[SourceFacts, ...]
    output_bytes: int
    fingerprint: Fingerprint
    checks: tuple[Check, ...]
    quarantine: Quarantine | None = None
    shards: tuple[ShardFacts, ...] = ()
    joined: tuple[str, ...] = ()
    summaries: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        results = ", ".join(f"{check.name} {check.result}" for check in self.checks)
        return f"<SplitReport {self.split.title}: {self.fingerprint.records:,} records; {results}>"

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "config": self.split.config,
            "split": self.split.name,
            "columns": [column.to_json() for column in self.split.schema],
            "sources": encode(self.sources),
            "fingerprint": encode(self.fingerprint),
            "shards": encode(self.shards),
            "joined": list(self.joined),
            "checks": encode(self.checks),
            **({} if self.quarantine is None else {"quarantine": encode(self.quarantine)}),
        }


@dataclass
class Work:
    """What a conversion took; adds up what its shards did.

    Attributes:
        records: how many this run converted; those of an interrupted run, which it took up, are not among them.
        processes: which did, each as host and number.
        seconds: of all of them together, by step.
    """

    records: int = 0
    processes: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))

    def add(self, records: int, effort: Effort) -> None:
        """Take what one shard took."""
        self.records += records
        self.processes.add(effort.worker)
        for step in STEPS:
            self.seconds[step] += getattr(effort, step)

    @property
    def workers(self) -> int:
        """How many processes there were."""
        return len(self.processes)

    @property
    def records_per_second(self) -> float:
        """Of one worker, while it worked."""
        return self.records / total if (total := sum(self.seconds.values())) else 0.0

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "records": self.records,
            "workers": self.workers,
            "records_per_second_per_worker": round(self.records_per_second, 1),
            "seconds": {step: round(seconds, 3) for step, seconds in self.seconds.items()},
        }


@dataclass(frozen=True, repr=False)
class Report:
    """What a conversion or verification found.

    Attributes:
        description: of the dataset.
        format: name of the output's format.
        out: the output.
        splits: the splits that were converted, in the description's order.
        absent: splits that were asked for and have no source file.
        warnings: what the user should know and no check is about.
        files: the output's files with sizes and digests, in the order of their paths.
        problems: what failed and is about no split (verification: missing, extra or changed files).
        allow_mismatch: whether differences from the published facts were allowed.
        options: those that the output depends on.
        origin: the outputs that it was made from, the first one first; none where it was made from the originals.
        resumed_shards: how many shards an interrupted run had finished.
        work: what the conversion took; None of a verification.
        inferred: what was inferred of each config that nothing describes.
        damaged_shards: keys of the shards whose files are changed or missing (verification).
        remade_shards: keys of the shards that were made again; None where none was to be.
    """

    description: Description
    format: str
    out: str
    splits: tuple[SplitReport, ...]
    absent: tuple[Split, ...] = ()
    warnings: tuple[str, ...] = ()
    files: Sequence[OutputFile] = ()
    problems: tuple[str, ...] = ()
    allow_mismatch: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    origin: Sequence[Any] = ()
    resumed_shards: int = 0
    work: Work | None = None
    inferred: Sequence[ColumnTable] = ()
    damaged_shards: Sequence[str] = ()
    remade_shards: Sequence[str] | None = None

    def __repr__(self) -> str:
        failures = self.failures()
        state = f"failed: {failures[0]}" if failures else "verified"
        return f"<Report {self.out}: {self.records:,} records, {len(self.splits)} splits, {state}>"

    def _repr_html_(self) -> str:
        """The checks as a table, as notebooks show it."""
        names = list(dict.fromkeys(check.name for split in self.splits for check in split.checks))
        rows = [["config", "split", "records", *names]]
        for split in self.splits:
            results = {check.name: check.result for check in split.checks}
            found = f"{split.fingerprint.records:,}"
            rows.append(
                [split.split.config, split.split.name, found, *(results.get(name, "") for name in names)]
            )
        return html_table(rows, repr(self)[1:-1])

    @property
    def records(self) -> int:
        """Number of records converted."""
        return sum(split.fingerprint.records for split in self.splits)

    @property
    def quarantined(self) -> int:
        """Number of damaged ranges whose bytes were put into quarantine; 0 means that nothing is lost."""
        return sum(len(split.quarantine.ranges) for split in self.splits if split.quarantine)

    @property
    def lost_records(self) -> int | None:
        """Number of records lost to damage; None where it is not known."""
        return records_lost(split.quarantine.lost_records for split in self.splits if split.quarantine)

    def failures(self) -> list[str]:
        """What failed and was not allowed to, a sentence each."""
        return list(self.problems) + [
            f"{split.split.title}: {check.name}: {check.reason}"
            for split in self.splits
            for check in split.checks
            if check.result not in ("passed", "unverified")
            and not (check.published and (self.allow_mismatch or check.explained))
        ]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "dataset": self.description.name,
            "format": self.format,
            "out": self.out,
            "verified": not self.failures(),
            "records": self.records,
            "resumed_shards": self.resumed_shards,
            "quarantined": self.quarantined,
            "lost_records": self.lost_records,
            "allow_mismatch": self.allow_mismatch,
            "splits": [split.to_json() for split in self.splits],
            "absent": [split.title for split in self.absent],
            "warnings": list(self.warnings),
            "problems": list(self.problems),
            "damaged_shards": list(self.damaged_shards),
            "files": len(self.files),
            "bytes": sum(file.size for file in self.files),
            **({"inferred": [table.to_json() for table in self.inferred]} if self.inferred else {}),
            **({} if self.remade_shards is None else {"remade_shards": list(self.remade_shards)}),
            **({} if self.work is None else {"work": self.work.to_json()}),
        }


def html_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Rows of text as an HTML table; the first row is its head."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows[1:])
    return f"<table><caption>{escape(caption)}</caption>{row(rows[0], 'th')}{body}</table>"


class CheckError(ConverterError):
    """A conversion or verification whose checks did not all pass; the report says which."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message, report)
        self.message = message
        self.report = report

    def __str__(self) -> str:
        return self.message
