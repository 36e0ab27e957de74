"""Models as their publishers lay them out: what is carried, counted, left out and refused of each."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from bundler.collect.models.source import carry
from bundler.collect.models.specs import open_model
from bundler.errors import InputError
from bundler.work.plan import listed_models
from tests.collect.models.layouts import LAYOUTS, Layout, names
from tests.support.shards import write_index, write_shard

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.collect.models.source import ModelSource

ELEMENTS = 10
"""Of each shard's one tensor, of two bytes each."""
SPARE = 500
"""Those of weights that lie beside."""
TOKENIZER_OF_CODE = json.dumps({"auto_map": {"AutoTokenizer": ["own_tokenizer.Tokenizer", None]}})
CONTENT = {
    "tokenizer.model": b"\x0a\x01a",
    "tiktoken.model": b"IQ== 0\n",
    "qwen.tiktoken": b"IQ== 0\n",
}


def lay_out(folder: Path, layout: Layout, tokenizer: Path) -> None:
    for path in names(layout.files):
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".safetensors"):
            write_shard(place, {f"{path}.weight": SPARE})
        elif place.name in CONTENT:
            place.write_bytes(CONTENT[place.name])
        else:
            place.write_text("{}" if path.endswith((".json", ".py")) else "x")
    if (folder / "tokenizer.json").exists():
        shutil.copy(tokenizer, folder)
    if (folder / "own_tokenizer.py").exists():
        (folder / "tokenizer_config.json").write_text(TOKENIZER_OF_CODE)
    shards = {name: {f"weight.{number}": ELEMENTS} for number, name in enumerate(names(layout.shards))}
    for name, tensors in shards.items():
        write_shard(folder / name, tensors)
    if shards and layout.index:
        write_index(folder / "model.safetensors.index.json", shards)
    if layout.config is not None:
        (folder / "config.json").write_text(json.dumps({"architectures": ["X"], **layout.config}))


def carried_size(folder: Path, source: ModelSource) -> int:
    """Return the bytes of all files but those that are left out."""
    gone = {file.path for file in source.listing.left_out} | {".gitattributes"}
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in gone
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_model_as_its_publisher_lays_it_out(layout: Layout, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some-model"
    lay_out(folder, layout, tiny_model / "tokenizer.json")
    source = open_model(str(folder), workspace=tmp_path)
    if layout.refused:
        with pytest.raises(InputError) as caught:
            listed_models([source], tmp_path)
        assert layout.refused in str(caught.value)
        assert caught.value.hint
        return
    (planned,) = listed_models([source], tmp_path)
    assert planned.size == carried_size(folder, source)
    said = planned.left_out.removeprefix("left out, as the server doesn't load them: ")
    assert said.rpartition(" (")[0] == layout.left_out
    carried = carry(source, tmp_path)
    assert carried.size == planned.size
    facts, count = carried.entry.facts, len(names(layout.shards))
    draft = 2 * SPARE if "mtp.safetensors" in layout.files else 0
    assert facts.draft_weight_bytes == draft
    assert facts.weight_bytes == count * ELEMENTS * 2 + draft
    assert facts.shards == count + bool(draft)
