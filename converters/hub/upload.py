"""A push from the verified output to the compared repo; each step is taken only if the one before held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from converters.dataset.manifest import read_manifest
from converters.dataset.report import CheckError, Report
from converters.dataset.shard import Progress
from converters.errors import CallError, DataError, Location
from converters.formats.hf import HfFormat
from converters.hub.changes import Changes, find_changes, groups, local_files
from converters.hub.destination import MAIN, RIGHT_NEEDED, Destination
from converters.hub.failures import HubError
from converters.hub.remote import Remote, RepoState
from converters.hub.session import find_token, hub_session
from converters.storage.file_list import OutputFile
from converters.verify.output import verify_output

_log = logging.getLogger(__name__)

# Where huggingface_hub commits a folder at once, so many bytes: what is committed need not be sent again.
_COMMIT_BYTES = 100_000_000


@dataclass(frozen=True, repr=False)
class PushReport:
    """What a push did, or (``dry_run``) would do.

    Attributes:
        destination: where to.
        changes: what was to be sent, replaced, left, and what else is there.
        state: the repo as the Hub described it last; None if it was not there or not looked at.
        looked: whether the Hub was asked at all (a dry run without a token asks nothing).
        licence: the terms of the data.
        quarantined: number of damaged ranges of the source that are not in the data, but in ``quarantine/``.
        dry_run: whether nothing was sent.
        verified: how many remote files were downloaded and are the output's, byte for byte.
        deleted: remote files that were deleted.
        pull_request: address of the pull request that was opened.
        warnings: what the Hub remarked about the card.
    """

    destination: Destination
    changes: Changes
    state: RepoState | None
    looked: bool
    licence: str
    quarantined: int = 0
    dry_run: bool = False
    verified: int = 0
    deleted: tuple[str, ...] = ()
    pull_request: str | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        state = "dry run" if self.dry_run else f"{self.verified:,} files verified"
        return f"<PushReport {self.url}: {self.visibility}, {state}>"

    @property
    def visibility(self) -> str:
        """``private`` or ``public``: as it is after the push, or would be."""
        return "public" if self.destination.public else "private"

    @property
    def url(self) -> str:
        """Where to look at it."""
        if self.pull_request:
            return self.pull_request
        revision = self.destination.revision
        return self.destination.url + ("" if revision == MAIN else f"/tree/{revision}")

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "url": self.url,
            "repo": self.destination.repo,
            "endpoint": self.destination.endpoint,
            "revision": self.destination.revision,
            "visibility": self.visibility,
            "gated": self.destination.gating,
            "dry_run": self.dry_run,
            "looked_at_the_repo": self.looked,
            "new": [file.path for file in self.changes.new],
            "replaced": [file.path for file in self.changes.replaced],
            "unchanged": [file.path for file in self.changes.unchanged],
            "extra": list(self.changes.extra),
            "deleted": list(self.deleted),
            "bytes": self.changes.pending_bytes,
            "verified_files": self.verified,
            "pull_request": self.pull_request,
            "warnings": list(self.warnings),
            "licence": self.licence,
            "quarantined": self.quarantined,
        }


def push(
    out: Path,
    destination: Destination,
    *,
    dry_run: bool = False,
    announce: Callable[[PushReport], None] | None = None,
    progress: Progress | None = None,
) -> PushReport:
    """Verify an ``hf`` output, load it with `datasets`, upload it, and compare what the Hub then hands out.

    Args:
        out: the output.
        destination: where to, and who may see it.
        dry_run: look only; nothing is created, changed or sent.
        announce: called once with what will be done, before anything is.
        progress: called with what was done to records or files, and to how many.

    Raises:
        CallError: the call, the token, the network or the Hub does not allow it.
        CheckError: the output does not verify; nothing was sent.
        DataError: the Hub rejects the card, or holds something else than the output after the upload.
    """
    with hub_session(destination):
        try:
            token: str | None = find_token()
        except CallError:
            if not dry_run:
                raise
            token = None
    report = _verified(out, progress)
    files = local_files(out, report)
    intent = PushReport(
        destination,
        find_changes(out, files, {}),
        None,
        looked=False,
        licence=str(report.description.about.licence),
        quarantined=report.quarantined,
        dry_run=dry_run,
    )
    announce = announce or (lambda _: None)
    if token is None:
        # Nothing of a private repo can be seen; what would be sent is known all the same.
        announce(intent)
        return intent
    with hub_session(destination, bars=progress is not None) as session:
        remote = Remote(destination, token, session)
        state = remote.state()
        _refuse_public(destination, state)
        changes = find_changes(out, files, remote.files() if state else {}, remote.digest)
        intent = replace(intent, changes=changes, state=state, looked=True)
        announce(intent)
        if dry_run:
            return intent
        state = _prepare(remote, state)
        if destination.revision != MAIN:
            remote.make_branch()
            changes = find_changes(out, files, remote.files(), remote.digest)
        deleted = changes.extra if destination.delete_extra else ()
        warnings = _upload(remote, out, report, changes.pending, deleted, state)
        _compare(remote, files, deleted, progress)
        return replace(
            intent,
            changes=changes,
            state=_settle(remote),
            verified=len(files),
            deleted=deleted,
            pull_request=remote.pull_request,
            warnings=tuple(dict.fromkeys(warnings)),
        )


def check(destination: Destination) -> None:
    """Refuse before a long conversion what :func:`push` would refuse after it.

    Raises:
        CallError: there is no token, the Hub is not there, or the repo is public already and may not be.
    """
    with hub_session(destination) as session:
        token = find_token()
        _refuse_public(destination, Remote(destination, token, session).state())


def _verified(out: Path, progress: Progress | None) -> Report:
    manifest, _ = read_manifest(out)
    if manifest.format != HfFormat.name:
        raise CallError(
            f"{out}: this is an output of --to {manifest.format}; only one of --to hf can be pushed. "
            "Nothing was sent."
        )
    report = verify_output(out, None, "datasets", progress)
    if report.failures():
        raise CheckError(f"{out}: this output does not verify; nothing was sent.", report)
    return report


def _refuse_public(destination: Destination, state: RepoState | None) -> None:
    if state is not None and not state.private and not destination.public:
        raise CallError(
            f"{destination.repo}: this repo is there already, and it is public. {RIGHT_NEEDED} Make the repo private "
            "in its settings, or choose another name."
        )


def _prepare(remote: Remote, state: RepoState | None) -> RepoState:
    """The repo, private and gated by the Hub's own word."""
    gating = remote.destination.gating
    if state is None:
        remote.create()
        state = _seen(remote)
    if state.gating != gating:
        remote.set_gating(gating)
    state = _guarded(remote)
    if state.gating is None:
        _log.warning("the Hub took the gating %s, but does not tell it back", gating)
    return state


def _guarded(remote: Remote) -> RepoState:
    """The repo's state, which must be the one that was asked for.

    Raises:
        HubError: it is not, whatever the Hub answered when it was set.
    """
    state, gating = _seen(remote), remote.destination.gating
    # A private repo of which the Hub does not tell the gating, but took it, lets nobody in all the same.
    if state.gating != gating and not (state.gating is None and state.private):
        raise HubError(
            f"{remote.destination.repo}: the Hub says that the gating is {state.gating}, though it was set to "
            f"{gating}. No data is sent to it. Set it in the repo's settings."
        )
    return state


def _seen(remote: Remote) -> RepoState:
    """The repo's state, which must be known, and private unless the repo may be public."""
    state, repo = remote.state(), remote.destination.repo
    if state is None:
        raise HubError(
            f"{repo}: the Hub has the repo now, or had it before, and does not show it, so who may see it "
            "is unknown. Nothing was sent. The token needs read access to it too."
        )
    if not remote.destination.public and not state.private:
        raise HubError(
            f"{repo}: the Hub says that this repo is public, though it was to be private. No data is sent "
            "to it. Make it private in its settings, or choose another name."
        )
    return state


def _upload(
    remote: Remote,
    out: Path,
    report: Report,
    files: Sequence[OutputFile],
    delete: Sequence[str],
    state: RepoState,
) -> list[str]:
    """Send what is to be sent, a commit at a time, and delete in the last one; the Hub's warnings."""
    warnings: list[str] = []
    about, destination = report.description.about, remote.destination
    message = destination.commit_message or (
        f"Upload {' '.join(about.title.split())}: {report.records:,} records, converted and verified by "
        f"kfer-convert {version('kfer-convert')}"
    )
    at_once = destination.official or destination.create_pr
    parts = groups(files, None if at_once else _COMMIT_BYTES) or [[]] * bool(delete)
    if destination.revision == MAIN:
        remote.start_from(state.commit)
    for number, part in enumerate(parts, 1):
        if number > 1:
            _guarded(remote)
        which = f"part {number} of {len(parts)}"
        _log.info("Sending %d files, %d bytes (%s).", len(part), sum(file.size for file in part), which)
        title = message if len(parts) == 1 else f"{message} ({which})"
        licence = f"Licence of the data: {about.licence.name}."
        warnings += remote.upload(out, part, delete if number == len(parts) else (), title, licence)
    return warnings


def _compare(
    remote: Remote, files: Sequence[OutputFile], deleted: Sequence[str], progress: Progress | None
) -> None:
    """Hold the repo against the output: every file's bytes as the Hub hands them out.

    Its own listing is not asked, but for what was deleted: it says what the Hub took, and not what it kept.

    Raises:
        DataError: something is missing, or differs.
    """
    listed = remote.files() if deleted else {}
    problems = [f"{path}: was deleted and is still there" for path in deleted if path in listed]
    for file in files:
        found = remote.digest(file)
        if found is None:
            problems.append(f"{file.path}: is not there")
        elif found != file.sha256:
            problems.append(f"{file.path}: has SHA-256 {found}, and SHA256SUMS says {file.sha256}")
        elif progress is not None:
            progress("compared", 1)
    if problems:
        raise DataError(
            f"after the upload, the repo does not hold the output: {'; '.join(problems)}.",
            Location(f"{remote.destination.url} ({remote.revision})"),
            "Do not use it. Delete these files there and push again; if it stays so, tell the Hub.",
        )


def _settle(remote: Remote) -> RepoState:
    """The repo's state at the end; a public one becomes public only here, when all of it is compared."""
    state, destination = _guarded(remote), remote.destination
    if destination.public and state.private:
        remote.publish()
        state = _seen(remote)
        if state.private or state.gating != destination.gating:
            raise HubError(
                f"{destination.repo}: everything is there and compared, but the Hub did not make the repo public with "
                f"gating {destination.gating}. Do so in its settings."
            )
    return state
