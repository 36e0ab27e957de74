"""A model on a hub, and how its files are opened: addresses and words by the hub's own client, bytes by ours.

The clients' downloads aren't used. ModelScope's gives up after a budget of 3,600 s a file and hashes a file
again on each run; Hugging Face's doesn't check hashes and leaves a folder of its own beside the weights.
Neither can hand bytes to an archive while they arrive. So the clients list and sign in, and the files come by
:mod:`bundler.collect.transfer`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bundler.collect.faults import PASSING, Transient, of_status
from bundler.collect.network import Origin
from bundler.collect.transfer import Patience, Transfer
from bundler.errors import FetchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from bundler.collect.models.listing import ListedFile, Listing
    from bundler.collect.network import Network
    from bundler.errors import BundlerError

HUB_PATIENCE = Patience(attempts=8, first_wait=1.0, longest_wait=60.0, longest_retry_after=120.0)
"""Hubs throttle whoever takes hundreds of gigabytes: they are waited for longer than other hosts."""
LISTING_PATIENCE = Patience(attempts=4, first_wait=1.0)
"""With a listing: the user looks on."""
LISTING_SECONDS = 60.0
"""How long a hub may be silent while it lists."""


class HubClient(Protocol):
    """A hub's own client: it knows addresses, tokens and the hub's errors."""

    @property
    def kind(self) -> str:
        """``modelscope`` or ``huggingface``."""

    @property
    def title(self) -> str:
        """The hub's name for people."""

    def listing(self, model: str, revision: str | None) -> Listing:
        """Return all files at a revision, resolved to a commit.

        :raises FetchError: it failed, or wants a token.
        :raises UnknownNameError: no such model or revision.
        """

    def address(self, model: str, revision: str | None, path: str) -> tuple[str, Mapping[str, str]]:
        """Return a file's address and the headers to ask for it with."""

    def explained(self, answer: httpx2.Response, model: str, revision: str | None, path: str) -> BundlerError:
        """Return what an answer without the file means, where the same request won't succeed later."""


@dataclass(frozen=True)
class Remote:
    """A model on a hub at one revision, and how its files are read."""

    client: HubClient
    model: str
    revision: str | None
    network: Network
    patience: Patience = HUB_PATIENCE

    @property
    def where(self) -> str:
        """The place, for messages."""
        return f"{self.client.kind}:{self.model}" + (f"@{self.revision}" if self.revision else "")

    def origin(self, path: str) -> Origin:
        """Return the one place of a file."""
        url, headers = self.client.address(self.model, self.revision, path)

        def refused(answer: httpx2.Response) -> Exception:
            return self._refused(answer, path)

        return Origin(
            self.network,
            url,
            headers,
            refused,
            place=f"{self.where} {path}",
            title=self.client.title,
            mend="a proxy or mirror in between may alter it, or the hub's own listing is off: try later, "
            "or the model's other hub",
        )

    def transfer(self, file: ListedFile) -> Transfer:
        """Return how a file is read, from any place on or by parts."""
        return Transfer(
            file.path, [self.origin(file.path)], file.size, stop=self.network.stop, patience=self.patience
        )

    def _refused(self, answer: httpx2.Response, path: str) -> Exception:
        if answer.status_code in PASSING:
            return of_status(answer)
        if answer.status_code in (401, 403) and answer.history and _elsewhere(answer):
            # The hub let us in and signed an address for a while: it gives a new one.
            return Transient(
                f"{answer.url.host} refused the address that {self.client.title} gave ({answer.status_code})"
            )
        return self.client.explained(answer, self.model, self.revision, path)


def _elsewhere(answer: httpx2.Response) -> bool:
    """Say whether a redirect led to another host than the hub's."""
    return bool(answer.url.host != answer.history[0].url.host)


def no_listing(title: str, endpoint: str) -> FetchError:
    """Return what to say where a hub's answer is no listing."""
    return FetchError(
        f"{title} answered with something else than a listing: a page of a proxy or a portal, perhaps",
        where=endpoint,
        hint="open the address in a browser: does the network want a login? "
        "HTTPS_PROXY and NO_PROXY say which way is taken",
    )


def no_size(title: str, path: str, endpoint: str) -> FetchError:
    """Return what to say where a hub lists a file without its size: it could never be known to be whole."""
    return FetchError(
        f"{title} lists no size of {path}",
        where=endpoint or None,
        hint="run the same command again later, or take the model's other hub",
    )


def check_tokens(*variables: str) -> None:
    """Refuse a token that no HTTP header can carry, before it is sent.

    :raises UsageError: naming the variable, and not its value.
    """
    for variable in variables:
        if not re.fullmatch(r"[\x21-\x7e]*", os.environ.get(variable, "")):
            raise UsageError(
                f"{variable} can't be a token: it has a line break, a blank or a letter outside ASCII",
                hint=f"copy the token anew: export {variable}=… on one line",
            )
