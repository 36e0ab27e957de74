"""Hostile bundles, all of them: each module adds its rows to the table."""

from tests.hostile.cases import files, manifest, payload, stream, sums, tree
from tests.hostile.cases.table import CASES, Case

__all__ = ["CASES", "Case", "files", "manifest", "payload", "stream", "sums", "tree"]
