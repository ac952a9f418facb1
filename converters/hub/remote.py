"""A dataset repo on a Hub: the few things a push asks of it, each through huggingface_hub's own calls."""

from __future__ import annotations

import glob
import hashlib
import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, RepoFile, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError

from converters.hub.destination import MAIN, Destination, Gating
from converters.hub.failures import HubError, clean, in_words
from converters.hub.session import HubSession, retried
from converters.storage.file_list import OutputFile

_log = logging.getLogger(__name__)

_TYPE = "dataset"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_READ_BYTES = 1 << 20
_BAD_TOKEN = "Invalid credentials in Authorization header"


@dataclass(frozen=True)
class RepoState:
    """A repo by the Hub's own word: who sees it, who is let in (None: it does not say), and its last commit."""

    private: bool
    gating: Gating | None
    commit: str | None


class Remote:
    """The repo of a destination. Every method may raise :class:`HubError`."""

    def __init__(self, destination: Destination, token: str, session: HubSession) -> None:
        self.destination = destination
        self._token = token
        self._session = session
        self._client = get_session()
        self._api = HfApi(endpoint=destination.endpoint, token=token, library_name="kfer-convert")
        self._repo = destination.repo
        self.revision = destination.revision
        self.pull_request: str | None = None
        self._parent: str | None = None

    def state(self) -> RepoState | None:
        """What the Hub says of the repo; None where there is none, or none that the token may see."""
        with self._words("looking at the repo"):
            try:
                info = retried(self._api.dataset_info, self._repo)
            except HfHubHTTPError as error:
                if _no_repo(error):
                    return None
                raise
            # What the Hub does not say to be private is taken to be public.
            return RepoState(info.private is True, _gating(info.gated), info.sha)

    def create(self) -> None:
        """Make the repo, private; no error where there is one, and nothing is changed about that."""
        with self._words("creating the repo"):
            try:
                retried(self._api.create_repo, self._repo, repo_type=_TYPE, private=True)
            except HfHubHTTPError as error:
                # `exist_ok` would have huggingface_hub look for an address in this answer, which may have none.
                if error.response.status_code != 409:
                    raise
            except (ValueError, KeyError, TypeError):
                # The Hub took it; only the address in its answer is none that huggingface_hub knows. It is not needed,
                # and whether the repo is there is asked next.
                _log.debug("the answer to the creation of %s was not understood", self._repo)

    def set_gating(self, gating: Gating) -> None:
        """Say who is let in."""
        with self._words(f"setting the gating to {gating}"):
            gated = False if gating == "no" else gating
            retried(self._api.update_repo_settings, self._repo, repo_type=_TYPE, gated=gated)

    def publish(self) -> None:
        """Let everybody see the repo."""
        with self._words("making the repo public"):
            retried(self._api.update_repo_settings, self._repo, repo_type=_TYPE, private=False)

    def make_branch(self) -> None:
        """Make the branch of the destination, where it is another than main and no pull request's."""
        if self.revision == MAIN or self.revision.startswith("refs/"):
            return
        with self._words(f"making the branch {self.revision}"):
            retried(self._api.create_branch, self._repo, branch=self.revision, repo_type=_TYPE, exist_ok=True)

    def files(self) -> dict[str, RepoFile]:
        """The repo's files by path. A branch that is not there yet will begin with main's; an empty repo has none."""
        with self._words("listing the repo's files"):
            for revision in dict.fromkeys((self.revision, MAIN)):
                try:
                    listed = self._api.list_repo_tree(
                        self._repo, recursive=True, revision=revision, repo_type=_TYPE
                    )
                    return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
                except HfHubHTTPError as error:
                    if error.response.status_code != 404:
                        raise
            return {}

    def start_from(self, commit: str | None) -> None:
        """The commit that what is sent next follows; the Hub refuses it if somebody else's came between."""
        self._parent = commit if commit and _COMMIT.fullmatch(commit) else None

    def upload(
        self, out: Path, files: Sequence[OutputFile], delete: Sequence[str], message: str, description: str
    ) -> list[str]:
        """Send files and delete others, with huggingface_hub's folder upload; the Hub's warnings about the card.

        Raises:
            DataError: the Hub's validator rejects the card.
        """
        opens = self.destination.create_pr
        with warnings.catch_warnings(record=True) as caught, self._words(f"uploading {_named(files)}"):
            warnings.simplefilter("always")
            send = partial(
                self._api.upload_folder,
                repo_id=self._repo,
                repo_type=_TYPE,
                folder_path=out,
                allow_patterns=_patterns(file.path for file in files),
                delete_patterns=_patterns(delete) or None,
                commit_message=message,
                commit_description=description,
                revision=None if opens else self.revision,
                create_pr=opens,
                parent_commit=None if opens else self._parent,
            )
            # Sent again, a request that opens a pull request could open a second one.
            done = self._session.interruptible(send if opens else partial(retried, send, twice=False))
            self.start_from(done.oid)
            if opens and done.pr_url:
                self.pull_request = clean(done.pr_url, self._token)
                self.revision = done.pr_revision or self.revision
        return [
            clean(warning.message, self._token)
            for warning in caught
            if "metadata" in str(warning.message)  # the others are about libraries
        ]

    def digest(self, file: OutputFile) -> str | None:
        """SHA-256 of what the Hub hands out for a file, read as a stream and to no more than its size.

        None where it has no such file (404).
        """
        where = {"revision": self.revision, "endpoint": self.destination.endpoint}
        url = hf_hub_url(self._repo, file.path, repo_type=_TYPE, **where)
        headers = {"authorization": f"Bearer {self._token}", "accept-encoding": "identity"}
        with self._words(f"reading {file.path} back"):
            try:
                return retried(_digest, url, headers, file.size)
            except HfHubHTTPError as error:
                if error.response.status_code == 404:
                    return None
                raise

    def _words(self, doing: str) -> AbstractContextManager[None]:
        if get_session() is not self._client:
            raise HubError(
                f"{self._repo}: {doing}: another part of this program closed the connections of huggingface_hub, and "
                "with them the guard on where requests go. Run the push again, alone."
            )
        return in_words(doing, self.destination, self._token)


def _no_repo(error: HfHubHTTPError) -> bool:
    """Whether the Hub says that there is no such repo: it does so by 401, too, where it does accept the token."""
    answer = error.response
    return (
        answer.status_code == 404
        or answer.headers.get("X-Error-Code") == "RepoNotFound"
        or (answer.status_code == 401 and answer.headers.get("X-Error-Message") != _BAD_TOKEN)
    )


def _digest(url: str, headers: Mapping[str, str], size: int) -> str:
    digest = hashlib.sha256()
    found = 0
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes(_READ_BYTES):
            digest.update(chunk)
            found += len(chunk)
            if found > size:
                break
    return digest.hexdigest()


def _patterns(paths: Iterable[str]) -> list[str]:
    """Patterns of huggingface_hub that match these paths and nothing else."""
    return [glob.escape(path) for path in paths]


def _named(files: Sequence[OutputFile]) -> str:
    if len(files) == 1:
        return files[0].path
    return f"{len(files)} files, {files[0].path} to {files[-1].path}" if files else "deletions"


def _gating(said: str | bool | None) -> Gating | None:
    """What `huggingface_hub` gives as ``gated``: False, ``"auto"``, ``"manual"``, or None where the Hub has no word."""
    if said is None:
        return None
    return "no" if not said else "auto" if said == "auto" else "manual"
