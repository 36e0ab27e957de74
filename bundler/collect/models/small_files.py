"""The files beside the weights that the server reads: each is parsed, as far as that goes without the server.

What :func:`fault` says of a file is a sentence without its subject: the caller puts the file's name first.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec
from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension

from bundler.common.broken import BROKEN_JSON

if TYPE_CHECKING:
    from jinja2.parser import Parser

SMALL_LIMIT = 256 << 20
"""No file of a model that is parsed is longer, in bytes; a longer one is not read."""
POINTER_LIMIT = 1024
"""Bytes; a git LFS pointer is shorter, by its specification."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype html|html|head|body)\b", re.I | re.S)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|error)\b", re.I)

JSON_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "quantize_config.json",
    "hf_quant_config.json",
    "tekken.json",
    "params.json",
)
"""Files that SGLang or transformers read as a JSON object."""
PIECES = ("tokenizer.model", "tiktoken.model", "spiece.model", "spm.model", "sentencepiece.bpe.model")
"""Tokenizers of sentencepiece or tiktoken; what another ``*.model`` is only the model's code knows."""
READ = (
    *JSON_FILES,
    "tokenizer.json",
    *PIECES,
    "*.tiktoken",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "vocab.txt",
    "merges.txt",
)
"""All small files that are parsed, as patterns of their paths."""


class GenerationTag(Extension):
    """The ``{% generation %}`` block that transformers adds to Jinja."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return what stands in the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def is_read(path: str) -> bool:
    """Return whether the server reads a file that is parsed here."""
    return any(fnmatchcase(path, pattern) for pattern in READ if path.count("/") == pattern.count("/"))


def wrong_kind(start: bytes) -> str | None:
    """Return what a file is instead of itself, by its first bytes: a pointer, a page; or ``None``.

    An empty one is named too.
    """
    if not start:
        return "is empty"
    if start.startswith(_POINTER):
        return "is a git LFS pointer, not the file itself: `git lfs pull` in the clone brings it"
    if _PAGE.match(start):
        return "is a web page, not the file: a login page or an error was saved in its place"
    if _XML.match(start):
        return "is a server's error message (XML), not the file"
    return None


def fault(path: str, data: bytes) -> str | None:
    """Return what is wrong with a file that the server reads, or ``None``.

    :param path: one that :func:`is_read` knows.
    :param data: all its bytes.
    """
    name = path.rpartition("/")[2]
    if (kind := wrong_kind(data)) is not None:
        return kind
    if name == "tokenizer.json":
        return _tokenizer_fault(data)
    if name.endswith(".json"):
        value, problem = decode(data)
        return problem or _embedded_fault(value)
    if name in PIECES or name.endswith(".tiktoken"):
        return _pieces_fault(data)
    return _text_fault(name, data)


def decode(data: bytes) -> tuple[dict[str, Any], str | None]:
    """Return a JSON object, as Python's own reader takes it, and what is wrong with it.

    Real configs hold ``Infinity``, which Python reads and JSON doesn't know.
    """
    try:
        return msgspec.json.decode(data, type=dict[str, Any]), None
    except BROKEN_JSON as problem:
        strict = problem
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        if "truncated" in str(strict):
            return {}, f"is cut short: its {len(data)} bytes end in the midst of JSON"
        return {}, f"is not a JSON object: {strict}"
    return (value, None) if isinstance(value, dict) else ({}, f"is not a JSON object: {strict}")


def template_fault(text: str) -> str | None:
    """Return what is wrong with a chat template's syntax, or ``None``; nothing is run."""
    jinja = Environment(extensions=[GenerationTag, "jinja2.ext.loopcontrols"], autoescape=False)
    try:
        jinja.parse(text)
    except TemplateSyntaxError as problem:
        return f"is no Jinja template, or is cut short: line {problem.lineno}: {problem.message}"
    except RecursionError:
        return "is no Jinja template that can be read: it is nested too deep"
    return None


def _tokenizer_fault(data: bytes) -> str | None:
    value, problem = decode(data)
    if problem is not None:
        return problem
    if not isinstance(value.get("model"), dict):
        return "is no tokenizer: it has no 'model'"
    try:
        import tokenizers
    except ImportError:
        return None
    try:
        tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:  # a panic of its Rust code is no Exception
        said = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        return f"is no tokenizer that tokenizers {tokenizers.__version__} reads: {said}"
    return None


def _embedded_fault(value: dict[str, Any]) -> str | None:
    """Return what is wrong with the chat templates that a JSON file holds."""
    held = value.get("chat_template")
    texts = held if isinstance(held, list) else [held]
    for one in texts:
        text = one.get("template") if isinstance(one, dict) else one
        if isinstance(text, str) and (problem := template_fault(text)) is not None:
            return f"holds a chat_template that {problem}"
    return None


def _text_fault(name: str, data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        return f"is not UTF-8 text, or is cut short (byte {problem.start})"
    return template_fault(text) if name.endswith(".jinja") else None


def _pieces_fault(data: bytes) -> str | None:
    """Check a file of tokens: sentencepiece's protobuf, or tiktoken's lines of base64 and rank."""
    if _is_ranks(data) or _is_sentencepiece(data):
        return None
    return (
        f"is no tokenizer, or is cut short: its {len(data)} bytes are neither sentencepiece's nor tiktoken's"
    )


def _is_ranks(data: bytes) -> bool:
    for line in data.splitlines():
        token, blank, rank = line.partition(b" ")
        if not (line and blank and rank.isdigit()):
            return False
        try:
            base64.b64decode(token, validate=True)
        except binascii.Error:
            return False
    return True


def _is_sentencepiece(data: bytes) -> bool:
    """Return whether a protobuf message ends where the file does, and holds pieces (its field 1)."""
    place = pieces = 0
    try:
        while place < len(data):
            key, place = _varint(data, place)
            kind = key & 7
            if kind == 2:
                length, place = _varint(data, place)
                place += length
                pieces += key >> 3 == 1
            elif kind == 0:
                _, place = _varint(data, place)
            elif kind in (1, 5):
                place += 8 if kind == 1 else 4
            else:
                return False
    except IndexError:
        return False
    return place == len(data) and pieces > 0


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a protobuf's number and the place behind it.

    :raises IndexError: the data ends in it, or it is longer than any.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise IndexError
