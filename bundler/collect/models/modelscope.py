"""ModelScope, by its own client ``modelscope_hub``.

The endpoint and the token come from where that client looks: ``MODELSCOPE_ENDPOINT`` (or
``MODELSCOPE_DOMAIN``), ``MODELSCOPE_API_TOKEN``, and what ``modelscope login`` left in
``~/.modelscope/credentials``.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bundler.collect.client import certificates
from bundler.collect.models.listing import ListedFile, Listing
from bundler.collect.models.remote import Fault, HubClient
from bundler.errors import BundlerError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx2

_COMMIT = re.compile(r"[0-9a-f]{40}")


class ModelScopeClient(HubClient):
    """ModelScope's listings and files."""

    kind = "modelscope"
    title = "ModelScope"
    branch = "master"
    tokens = ("MODELSCOPE_API_TOKEN",)
    login = "modelscope login"
    variable = "MODELSCOPE_ENDPOINT"
    pages = "/models"
    other = "hf"

    def __init__(self) -> None:
        """Make a client; nothing is asked yet."""
        self._local = threading.local()

    @cached_property
    def _config(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from modelscope_hub.config import HubConfig

            # The client's own retries are ours to tell of: its log would run across the progress bars.
            logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
            # The client would send an identifier of this host, kept in the user's home, with each request.
            quiet = type("QuietConfig", (HubConfig,), {"get_session_id": lambda _: "0" * 32})
            return quiet()

    @property
    def endpoint(self) -> str:
        """The hub's address."""
        return str(self._config.endpoint)

    @property
    def _api(self) -> Any:
        """The calling thread's client: its session is not made for several threads."""
        if not hasattr(self._local, "api"):
            from modelscope_hub import HubApi

            self._local.api = HubApi(self._config)
            if known := certificates():
                for session in (self._local.api.legacy._session, self._local.api.legacy._read_session):
                    session.verify = known[1]
        return self._local.api

    def listing(self, model: str, revision: str | None) -> Listing:
        """Return all files at a revision, resolved to a commit.

        ModelScope tells the commit that each file last changed in. The newest of them is the state's own
        commit, unless the last commit only removed files: so the listing at that commit is compared.
        """
        self.check_tokens()
        wanted = revision or self.branch
        entries = self._entries(model, wanted)
        files = self._files(entries)
        if _COMMIT.fullmatch(wanted):
            return Listing(files, wanted)
        newest = max(
            (entry for entry in entries if _COMMIT.fullmatch(str(entry.get("Revision", "")))),
            key=lambda entry: int(entry.get("CommittedDate") or 0),
            default=None,
        )
        if newest is None:
            return Listing(files, wanted)
        try:
            same = self._files(self._entries(model, newest["Revision"])) == files
        except BundlerError:
            same = False
        return Listing(files, newest["Revision"] if same else wanted)

    def _entries(self, model: str, revision: str) -> list[dict[str, Any]]:
        from modelscope_hub.errors import HubError, NetworkError

        try:
            entries = self._api.legacy.list_repo_files(model, "model", revision=revision, recursive=True)
        except NetworkError as problem:
            raise self.unreachable(problem) from problem
        except HubError as problem:
            status = getattr(problem, "status_code", None)
            said = str(getattr(problem, "message", problem)).splitlines()[0][:200]
            raise self._explained(status, said, model, revision) from problem
        except (ValueError, TypeError, AttributeError, LookupError) as problem:
            raise self.no_listing() from problem
        except OSError as problem:
            raise self.unreachable(problem) from problem
        found = [entry for entry in entries if (entry.get("Type") or "blob") != "tree"]
        if not found:
            raise FetchError(
                f"ModelScope lists no file of {model}",
                where=f"{self.endpoint} {model}@{revision}",
                hint="check the id and the revision; a private model needs MODELSCOPE_API_TOKEN",
            )
        return found

    def address(self, model: str, revision: str | None, path: str) -> tuple[str, Mapping[str, str]]:
        """Return a file's address and the headers to ask for it with."""
        legacy = self._api.legacy
        url: str = legacy.get_download_url(model, "model", path, revision or self.branch)
        headers = {"Cache-Control": "no-transform"}
        if legacy.token:
            # Older endpoints know the cookie only; neither is handed on to another host.
            headers |= {"Authorization": f"Bearer {legacy.token}", "Cookie": f"m_session_id={legacy.token}"}
        return url, headers

    def explained(self, answer: httpx2.Response, model: str, revision: str | None, path: str) -> BundlerError:
        """Return what an answer without the file means, where the same request won't succeed later."""
        try:
            said = str(answer.json()["Message"]).splitlines()[0][:200]
        except (ValueError, LookupError, TypeError):
            said = answer.reason_phrase
        return self._explained(answer.status_code, said, model, revision, path)

    def _explained(
        self, status: int | None, said: str, model: str, revision: str | None, path: str = ""
    ) -> BundlerError:
        fault: Fault = "failed"
        if status in (401, 403):
            fault, said = "gated", str(status)
        elif status == 404:
            fault = "no file" if path else "no revision" if self._has(model) else "no model"
        elif status is not None:
            said = f"{status} {said}"
        return self.explain(fault, model, revision, path, said)

    def _has(self, model: str) -> bool:
        try:
            self._api.legacy.list_repo_files(model, "model", revision=self.branch, recursive=False)
        except Exception:  # whatever it is: the model can't be shown to exist
            return False
        return True

    def revisions(self, model: str) -> Iterable[object]:
        """Return a model's branches and tags."""
        return [one.get("Revision") for one in self._api.list_repo_revisions(model, "model")]

    def near(self, model: str) -> Iterable[object]:
        """Return ids of models that are called alike."""
        page = self._api.list_repos("model", search=model.rpartition("/")[2], page_size=5)
        return [one.repo_id for one in page.items]

    def _files(self, entries: list[dict[str, Any]]) -> tuple[ListedFile, ...]:
        found = []
        for entry in entries:
            sha256 = str(entry.get("Sha256") or "").lower()
            path = str(entry.get("Path") or entry.get("Name") or "")
            if entry.get("Size") is None:
                raise self.no_size(path)
            known = sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else None
            found.append(ListedFile(path, int(entry["Size"]), known))
        return tuple(sorted(found))
