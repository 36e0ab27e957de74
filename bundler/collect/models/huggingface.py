"""Hugging Face, by its own client ``huggingface_hub``.

The endpoint is ``HF_ENDPOINT``; the token comes from ``HF_TOKEN`` or what ``hf auth login`` left. Files come
by plain HTTP with Range, not by Xet's chunks: so they can be gone on with and streamed.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from bundler.collect.client import Credentials, make_client
from bundler.collect.faults import PASSING, UnreachableError, retry_after, root_cause
from bundler.collect.models.listing import ListedFile, Listing
from bundler.collect.models.remote import LISTING_PATIENCE, LISTING_SECONDS, check_tokens, no_listing, no_size
from bundler.collect.transfer import AGAIN
from bundler.errors import BundlerError, FetchError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2


class HuggingFaceClient:
    """Hugging Face's listings and files."""

    kind = "huggingface"
    title = "Hugging Face"

    @property
    def _endpoint(self) -> str:
        return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._endpoint, library_name="bundler")

    def listing(self, model: str, revision: str | None) -> Listing:
        """Return all files at a revision, resolved to a commit.

        :raises FetchError: it failed, or wants a token.
        :raises UnknownNameError: no such model or revision.
        """
        check_tokens("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
        info = self._info(model, revision)
        files = []
        for sibling in info.siblings or ():
            large = sibling.lfs
            size = large.size if large else sibling.size
            if size is None:
                raise no_size(self.title, sibling.rfilename, self._endpoint)
            files.append(
                ListedFile(
                    path=sibling.rfilename,
                    size=int(size),
                    sha256=large.sha256 if large else None,
                    git_sha1=None if large else sibling.blob_id,
                )
            )
        return Listing(tuple(sorted(files)), info.sha or revision)

    def _info(self, model: str, revision: str | None) -> Any:
        import httpx2
        from huggingface_hub import constants, set_client_factory
        from huggingface_hub.errors import HfHubHTTPError

        if constants.is_offline_mode():
            raise FetchError("Hugging Face's client is told to stay offline", hint="unset HF_HUB_OFFLINE")
        # Its own client would know of other certificates and proxies than the downloads.
        set_client_factory(_make_client)
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
                    raise self._unreachable(problem) from problem
                patience.wait(failures, None, stop)
            except (ValueError, TypeError, AttributeError, LookupError) as problem:
                raise no_listing(self.title, self._endpoint) from problem
        raise AssertionError

    def address(self, model: str, revision: str | None, path: str) -> tuple[str, Mapping[str, str]]:
        """Return a file's address and the headers to ask for it with."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(model, path, revision=revision, endpoint=self._endpoint)
        return url, build_hf_headers(library_name="bundler")

    def explained(self, answer: httpx2.Response, model: str, revision: str | None, path: str) -> BundlerError:
        """Return what an answer without the file means, where the same request won't succeed later."""
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import hf_raise_for_status

        try:
            hf_raise_for_status(answer)
        except HfHubHTTPError as problem:
            return self._explained(problem, model, revision, path)
        return FetchError(f"Hugging Face answered {answer.status_code}", where=str(answer.url), hint=AGAIN)

    def _explained(self, problem: Any, model: str, revision: str | None, path: str = "") -> BundlerError:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        status = problem.response.status_code
        where = f"{self._endpoint} {model}@{revision or 'main'} {path}".rstrip()
        if isinstance(problem, GatedRepoError):
            return self._gated(model, status, where)
        if isinstance(problem, RevisionNotFoundError):
            return UnknownNameError(
                f"Hugging Face has no revision {revision!r} of {model} "
                "(it may have been removed or rewritten)",
                where=where,
                hint="name a branch, tag or commit that is there, or leave the revision out",
            )
        if isinstance(problem, RepositoryNotFoundError):
            return self._no_model(model, where)
        if status in (401, 403):
            return FetchError(
                f"Hugging Face, or a proxy before it, refuses {model} ({status})",
                where=where,
                hint="a token that may read it goes into HF_TOKEN, or `hf auth login`; "
                "HTTPS_PROXY and NO_PROXY say which way is taken",
            )
        if status == 404 and path:
            return FetchError(
                f"{path} is no longer on Hugging Face at this revision",
                where=where,
                hint="run the same command again: it lists the files anew",
            )
        return FetchError(
            f"Hugging Face failed: {status} {problem.response.reason_phrase}",
            where=where,
            hint=AGAIN,
        )

    def _gated(self, model: str, status: int, where: str) -> FetchError:
        return FetchError(
            f"Hugging Face won't give {model} without a token that may read it ({status})",
            where=where,
            hint=f"accept the terms on {self._endpoint}/{model}, then `hf auth login`, "
            "or put the token into HF_TOKEN",
        )

    def _no_model(self, model: str, where: str) -> UnknownNameError:
        try:
            near = [str(one.id) for one in self._api.list_models(search=model.rpartition("/")[2], limit=5)]
        except Exception:  # only a suggestion is lost
            near = []
        return UnknownNameError(
            f"Hugging Face has no model {model}" + (f"; there are {', '.join(near)}" if near else ""),
            where=where,
            hint="check the id; a private model needs a token in HF_TOKEN, which may read it; "
            "--model ms:OWNER/NAME asks the other hub",
        )

    def _unreachable(self, problem: Exception) -> FetchError:
        return UnreachableError(
            f"Hugging Face can't be reached ({root_cause(problem)})",
            where=self._endpoint,
            hint="check the network and the proxy variables; HF_ENDPOINT names another endpoint; "
            "a model that was fetched before packs from its folder: --model weights/NAME",
        )


def _make_client() -> httpx2.Client:
    return make_client(Credentials.load())
