"""The known inputs that fuzzing begins with; run as a program, they are written to the corpus anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bundler import manifest as manifests
from bundler.archive import frames, sums
from bundler.archive.parity import ParityHeader
from tests.conftest import PROJECT
from tests.hostile.cases.stream import DICTIONARY, bomb, sized
from tests.hostile.targets import CORPUS, known
from tests.hostile.workshop import make_bundle
from tests.test_workspace import LOCK_7


def seeds() -> dict[str, dict[str, bytes]]:
    """Return sound inputs of each target, by name."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder))
        manifest = (bundle / "manifest.json").read_bytes()
        listed = (bundle / "SHA256SUMS").read_bytes()
    small, stream = known()
    return {
        "manifest": {"whole": manifest, "small": manifests.encode(small)},
        "sums": {"whole": listed, "rendered": sums.render({"a": "0" * 64, "b-1.x": "f" * 64})},
        "frame": {
            "stored": frames.store(stream),
            "compressed": sized(stream, level=3),
            "checksum": sized(stream, write_checksum=True),
            "bomb": bomb(b"")[:300],
            "dictionary": DICTIONARY.as_bytes()[:100],
        },
        "tar": {"whole": stream, "headers": stream[:2048]},
        "lock": {"seven": LOCK_7.encode(), "empty": b"version: 6\nenvironments: {}\npackages: []\n"},
        "model": {path.name: path.read_bytes() for path in sorted((PROJECT / "manifests").glob("*.toml"))},
        "parity": {
            "whole": ParityHeader(b"{}", b"").encode(1),
            "long": ParityHeader(manifest, listed).encode(7),
        },
    }


if __name__ == "__main__":
    for target, found in seeds().items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            (CORPUS / target / name).write_bytes(data)
