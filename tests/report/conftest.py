"""The bundle that is packed once, and the command."""

from __future__ import annotations

from tests.cli.conftest import bundle, bundler, packed

__all__ = ["bundle", "bundler", "packed"]
