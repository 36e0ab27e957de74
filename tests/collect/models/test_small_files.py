"""Whatever the server reads beside the weights is parsed, and what isn't itself is named as what it is."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from bundler.collect.models.folder import FolderSource
from bundler.collect.models.small_files import fault
from bundler.collect.models.source import carry
from bundler.errors import DamagedError
from bundler.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 19970699\n"
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"
REFUSED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
SHARD = "model-00002-of-00004.safetensors"
SENTENCEPIECE = b"\x0a\x05\x0a\x03<s>" * 3 + b"\x12\x02\x18\x01"
RANKS = b"IQ== 0\nIg== 1\n"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model that the test may damage."""
    return shutil.copytree(tiny_model, tmp_path / "tiny-glm4-moe")


def problem(model: Path) -> DamagedError:
    with pytest.raises(DamagedError) as caught:
        carry(FolderSource(ModelSpec(name="m"), model), model.parent / "weights")
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
        "preprocessor_config.json",
        "model.safetensors.index.json",
        SHARD,
    ],
)
@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (POINTER, "is a git LFS pointer"),
        (PAGE, "is a web page"),
        (REFUSED, "is a server's error message"),
        (b"", "is empty"),
    ],
)
def test_what_is_not_the_file_is_named_as_what_it_is(
    name: str, data: bytes, finding: str, model: Path
) -> None:
    (model / name).write_bytes(data)
    findings = [one for one in problem(model).findings if one.startswith(name)]
    assert len(findings) == 1
    assert findings[0].startswith(f"{name} {finding}")


def test_a_pointer_is_named_where_the_server_never_looks(model: Path) -> None:
    (model / "figures").mkdir()
    (model / "figures/bench.png").write_bytes(POINTER)
    assert list(problem(model).findings) == [
        "figures/bench.png is a git LFS pointer, not the file itself: `git lfs pull` in the clone brings it"
    ]


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "tokenizer_config.json"])
def test_a_cut_file_is_named_with_its_length(name: str, model: Path) -> None:
    data = (model / name).read_bytes()
    (model / name).write_bytes(data[: len(data) // 2])
    assert list(problem(model).findings) == [
        f"{name} is cut short: its {len(data) // 2} bytes end in the midst of JSON"
    ]


def test_a_cut_template_is_named_with_its_line(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m.content }}\n")
    (finding,) = problem(model).findings
    assert finding.startswith("chat_template.jinja is no Jinja template, or is cut short: line 2")


def test_a_template_within_a_config_is_parsed() -> None:
    for held in ("{% if %}", [{"name": "tool_use", "template": "{% if %}"}]):
        data = json.dumps({"chat_template": held}).encode()
        assert "holds a chat_template that is no Jinja template" in str(fault("tokenizer_config.json", data))


def test_the_words_that_transformers_adds_to_jinja_are_known() -> None:
    text = b"{% for m in x %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}"
    assert fault("chat_template.jinja", text) is None


def test_what_python_reads_as_json_is_taken() -> None:
    assert fault("config.json", b'{"time_step_limit": [0.0, Infinity]}') is None
    assert "is not a JSON object" in str(fault("config.json", b"\xef\xbb\xbf{}"))


@pytest.mark.parametrize(
    ("data", "finding"),
    [
        (b"{}", "is no tokenizer: it has no 'model'"),
        (b'{"model": {"type": "Unheard"}}', "is no tokenizer that tokenizers"),
    ],
)
def test_a_tokenizer_is_loaded(data: bytes, finding: str) -> None:
    assert finding in str(fault("tokenizer.json", data))


def test_without_tokenizers_the_shape_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert fault("tokenizer.json", b'{"model": {"type": "Unheard"}}') is None
    assert "no 'model'" in str(fault("tokenizer.json", b"{}"))


@pytest.mark.parametrize("data", [SENTENCEPIECE, RANKS])
def test_files_of_tokens_are_walked_to_their_end(data: bytes) -> None:
    assert fault("tokenizer.model", data) is None
    assert "is cut short" in str(fault("tokenizer.model", data[:-3]))
    assert "is no tokenizer" in str(fault("tiktoken.model", b"\x12\x02\x18\x01"))


def test_a_folder_is_not_told_to_fetch(model: Path) -> None:
    (model / "tokenizer.json").write_bytes(POINTER)
    assert "fetch" not in str(problem(model).hint)
