"""Hugging Face, by its own client ``huggingface_hub``.

The endpoint is ``HF_ENDPOINT``; the token comes from ``HF_TOKEN`` or what ``hf auth login`` left. Files come
by plain HTTP with Range, not by Xet's chunks: so they can be gone on with and streamed.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from bundler.collect.client import Credentials, make_client
from bundler.collect.faults import PASSING, retry_after
from bundler.collect.models.listing import ListedFile, Listing
from bundler.collect.models.remote import LISTING_PATIENCE, LISTING_SECONDS, Fault, HubClient
from bundler.errors import BundlerError, FetchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx2


class HuggingFaceClient(HubClient):
    """Hugging Face's listings and files."""

    kind = "huggingface"
    title = "Hugging Face"
    branch = "main"
    tokens = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    login = "hf auth login"
    variable = "HF_ENDPOINT"
    other = "ms"

    @property
    def endpoint(self) -> str:
        """The hub's address."""
        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, library_name="bundler")

    def listing(self, model: str, revision: str | None) -> Listing:
        """Return all files at a revision, resolved to a commit."""
        self.check_tokens()
        info = self._info(model, revision)
        files = []
        for sibling in info.siblings or ():
            large = sibling.lfs
            size = large.size if large else sibling.size
            if size is None:
                raise self.no_size(sibling.rfilename)
            digests = (large.sha256, None) if large else (None, sibling.blob_id)
            files.append(ListedFile(sibling.rfilename, int(size), *digests))
        return Listing(tuple(sorted(files)), info.sha or revision)

    def _info(self, model: str, revision: str | None) -> Any:
        import httpx2
        from huggingface_hub import constants, set_client_factory
        from huggingface_hub.errors import HfHubHTTPError

        if constants.is_offline_mode():
            raise FetchError("Hugging Face's client is told to stay offline", hint="unset HF_HUB_OFFLINE")
        # Its own client would know of other certificates and proxies than the downloads.
        set_client_factory(lambda: make_client(Credentials.load()))
        patience, stop = LISTING_PATIENCE, threading.Event()
        for failures in range(1, patience.attempts + 1):
            try:
                return self._api.model_info(
                    model, revision=revision, files_metadata=True, timeout=LISTING_SECONDS
                )
            except HfHubHTTPError as problem:
                status = problem.response.status_code
                if status not in PASSING or failures == patience.attempts:
                    raise self._explained(problem, model, revision) from problem
                patience.wait(failures, retry_after(problem.response), stop)
            except (httpx2.HTTPError, OSError) as problem:
                if failures == patience.attempts:
                    raise self.unreachable(problem) from problem
                patience.wait(failures, None, stop)
            except (ValueError, TypeError, AttributeError, LookupError) as problem:
                raise self.no_listing() from problem
        raise AssertionError

    def address(self, model: str, revision: str | None, path: str) -> tuple[str, Mapping[str, str]]:
        """Return a file's address and the headers to ask for it with."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(model, path, revision=revision, endpoint=self.endpoint)
        return url, build_hf_headers(library_name="bundler")

    def explained(self, answer: httpx2.Response, model: str, revision: str | None, path: str) -> BundlerError:
        """Return what an answer without the file means, where the same request won't succeed later."""
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import hf_raise_for_status

        try:
            hf_raise_for_status(answer)
        except HfHubHTTPError as problem:
            return self._explained(problem, model, revision, path)
        return self.explain("failed", model, revision, path, str(answer.status_code))

    def _explained(self, problem: Any, model: str, revision: str | None, path: str = "") -> BundlerError:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        status = problem.response.status_code
        said = str(status)
        fault: Fault = "failed"
        if isinstance(problem, GatedRepoError):
            fault = "gated"
        elif isinstance(problem, RevisionNotFoundError):
            fault = "no revision"
        elif isinstance(problem, RepositoryNotFoundError):
            fault = "no model"
        elif status in (401, 403):
            fault = "refused"
        elif status == 404 and path:
            fault = "no file"
        else:
            said = f"{status} {problem.response.reason_phrase}"
        return self.explain(fault, model, revision, path, said)

    def near(self, model: str) -> Iterable[object]:
        """Return ids of models that are called alike."""
        return [one.id for one in self._api.list_models(search=model.rpartition("/")[2], limit=5)]
