"""What lies beside the weights and the server reads: configs, tokenizer, template, code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bundler.collect.models import config as configs
from bundler.collect.models.code import code_fault, imported_beside
from bundler.collect.models.small_files import POINTER_LIMIT, fault, is_read, wrong_kind

if TYPE_CHECKING:
    from bundler.collect.models.proof import Proof
    from bundler.model import ModelSpec


def check_pointers(proof: Proof) -> None:
    """Name every git LFS pointer: a clone without LFS has them wherever a large file should be."""
    for path, size in sorted(proof.sizes.items()):
        if 0 < size < POINTER_LIMIT and not path.endswith((".py", ".md")):
            problem = wrong_kind(proof.reader.read(path, 0, size))
            if problem is not None and "LFS" in problem:
                proof.spoil(path, problem)


def check_small_files(proof: Proof) -> None:
    """Parse what the server reads beside the weights."""
    for path in sorted(proof.sizes):
        data = proof.bytes(path) if is_read(path) else None
        if data is not None and (problem := fault(path, data)) is not None:
            proof.spoil(path, problem)


def check_config(proof: Proof) -> dict[str, Any]:
    """Check that config.json is there and names the model's architecture; return it, or an empty object."""
    config = proof.json("config.json")
    if "config.json" not in proof.sizes:
        proof.findings.append("config.json is missing")
    elif "config.json" not in proof.broken and not isinstance(config.get("architectures"), list):
        proof.findings.append("config.json names no architecture: SGLang can't tell what model it is")
    return config


def check_code(proof: Proof) -> tuple[str, ...]:
    """Check the Python code that the configs name; return its files."""
    parsed = {name: proof.json(name) for name in configs.AUTO_MAP_FILES if name in proof.sizes}
    code, elsewhere = configs.remote_code(parsed)
    proof.say(
        (f"{name} is missing: auto_map names it" for name in code if name not in proof.sizes), "code files"
    )
    proof.say(
        (
            f"auto_map names code of another repository ({word}): copy it beside, name it without '--'"
            for word in elsewhere
        ),
        "references to other repositories",
    )
    _check_modules(proof, code)
    return code


def _check_modules(proof: Proof, code: tuple[str, ...]) -> None:
    """Parse the modules that a config names, and those beside them that they import."""
    waiting, seen = list(code), set[str]()
    while waiting:
        name = waiting.pop()
        data = proof.bytes(name) if name not in seen else None
        seen.add(name)
        if data is None:
            continue
        if (problem := code_fault(data)) is not None:
            proof.spoil(name, problem)
            continue
        beside = [f"{name.rpartition('/')[0]}/{path}".lstrip("/") for path in imported_beside(data)]
        beside = [path for path in beside if f"{path.removesuffix('.py')}/__init__.py" not in proof.sizes]
        lacking = (path for path in beside if path not in proof.sizes and path not in seen)
        proof.say((f"{path} is missing: {name} imports it" for path in lacking), "code files")
        waiting += beside


def check_tokenizer(proof: Proof, spec: ModelSpec | None) -> bool:
    """Check that there is a tokenizer; return whether there is a chat template."""
    names = {path for path in proof.sizes if "/" not in path}
    settings = proof.json("tokenizer_config.json")
    mapped = settings.get("auto_map")
    # Where a tokenizer is code of the model's, that alone knows which files it reads.
    if not isinstance(mapped, dict) or "AutoTokenizer" not in mapped:
        proof.findings += _tokenizer_findings(names)
    template = bool(names & set(configs.TEMPLATES)) or bool(settings.get("chat_template"))
    if not template and spec is not None and (spec.smoke.tools or spec.smoke.reasoning):
        proof.findings.append(
            "there is no chat template: neither chat_template.jinja nor tokenizer_config.json has one"
        )
    return template


def _tokenizer_findings(names: set[str]) -> list[str]:
    if not names & set(configs.TOKENIZERS) and not any(name.endswith(".tiktoken") for name in names):
        return [f"there is no tokenizer: none of {', '.join(configs.TOKENIZERS)}"]
    if "vocab.json" in names and not names & {"tokenizer.json", "merges.txt", "tokenizer.model"}:
        return ["merges.txt is missing: vocab.json alone is no tokenizer"]
    return []
