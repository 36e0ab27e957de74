"""Inputs made of known ones: bytes cut, doubled and turned over, and values of JSON put elsewhere."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 1.5, 1e308),
    *("", ".", "..", "../x", "/etc/passwd", "a\0b", "\x1b[2J", "\u202e", "\ud800", "x" * 300, "9" * 5000),
    *("weights", ".bundler", "0" * 64),
    *([], {}, [[]], [None], {"a": 1}, ["weights/x", "file", 420, 1, "0" * 64, 512, ""]),
)
"""Values that are somebody's border."""
WORDS = (
    *(b"\0", b"\n", b"\r\n", b"\xff", b"[", b"{", b'"', b"\\u0000", b"../", b"/", b"  ", b"'", b": "),
    *(b"&a ", b"*a", b"9" * 5000, b"[" * 5000, b"x" * 5000, b"!!python/object:os.system "),
    *(b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"),
)
"""What means something to one of the readers."""


@st.composite
def altered(draw: st.DrawFn, known: Sequence[bytes]) -> bytes:
    """Return a known input, altered at some places."""
    data = draw(st.sampled_from(known))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from((0, 1, 2, 4, 8, 64, 512))))
        piece = draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=8), st.just(data[at:end] * 2)))
        data = data[:at] + piece + data[end:]
    return data


@st.composite
def altered_json(draw: st.DrawFn, known: Sequence[bytes]) -> bytes:
    """Return a known document with other values at some places of it."""
    document = json.loads(draw(st.sampled_from(known)))
    for _ in range(draw(st.integers(1, 3))):
        places = [*_places(document)]
        if not places:
            break
        node, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            node[key] = deepcopy(draw(st.sampled_from(ODD)))
        elif isinstance(node, list):
            node.insert(key, deepcopy(draw(st.sampled_from(node))))
        else:
            del node[key]
    return json.dumps(document).encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    pairs: list[tuple[Any, Any]] = []
    if isinstance(node, dict):
        pairs = [*node.items()]
    elif isinstance(node, list):
        pairs = [*enumerate(node)]
    for key, value in pairs:
        yield node, key
        yield from _places(value)
