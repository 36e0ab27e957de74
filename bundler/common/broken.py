"""What reading damaged or hostile text raises, whoever wrote it."""

from __future__ import annotations

import msgspec

BROKEN_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that ``msgspec.json.decode`` raises: not JSON or not of the type, not UTF-8, nested without end."""
BROKEN_TEXT = (ValueError, RecursionError)
"""All that ``tomli.loads`` raises: no TOML, not UTF-8, a number of thousands of digits, nested without end.

PyYAML raises these as well, besides its own ``YAMLError``.
"""
