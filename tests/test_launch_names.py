"""What a model's manifest may set of the server, and what wants the user's word."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bundler.collect.models.specs import known_specs
from bundler.errors import InputError
from bundler.launch_names import FLAGS, VARIABLES, exceptions, malformed, may_set, unlisted
from bundler.model import FlagValue, Launch, LaunchVariant, ModelSpec

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"

ELSEWHERE = """
config load-format model-path model tokenizer-path api-key admin-api-key chat-template download-dir
ssl-keyfile ssl-certfile speculative-draft-model-path lora-paths custom-weight-loader
model-loader-extra-config json-model-override-args enable-custom-logit-processor dist-init-addr nnodes
crash-dump-folder hicache-storage-backend custom-sigquit-handler forward-hooks tool-server enable-trace
otlp-traces-endpoint plugin log-requests file-storage-path mooncake-ib-device
remote-instance-weight-loader-seed-instance-ip
"""

RUNNING = """
LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT PYTHONPATH PYTHONSTARTUP PYTHONHOME PYTHONINSPECT PATH HOME BASH_ENV
GCONV_PATH CUDA_HOME NCCL_NET_PLUGIN NCCL_CONF_FILE NCCL_TOPO_FILE SGLANG_EXTERNAL_MODEL_PACKAGE
HF_HUB_OFFLINE HF_ENDPOINT HTTPS_PROXY https_proxy CC TRITON_CACHE_DIR TORCH_EXTENSIONS_DIR
TRITON_PTXAS_PATH NCCL_DEBUG_FILE CUDA_VISIBLE_DEVICES GLOO_SOCKET_IFNAME MALLOC_CONF nccl_debug
"""


def spec_of(flags: dict[str, FlagValue] | None = None, env: dict[str, str] | None = None) -> ModelSpec:
    return ModelSpec(name="m", launch=Launch(flags=flags or {}, env=env or {}))


def test_the_manifests_of_the_repository_set_nothing_else() -> None:
    """None of them wants a word of the user's."""
    specs, broken = known_specs([MANIFESTS])
    assert len(specs) > 3 and not broken
    for known in specs:
        assert unlisted(known.spec) == () and not [*malformed(known.spec)], known.spec.name


@pytest.mark.parametrize("name", ELSEWHERE.split())
def test_flags_that_lead_elsewhere(name: str) -> None:
    """Files, folders, addresses, keys and code are not a manifest's to name."""
    spec = spec_of({name: "x"})
    assert unlisted(spec) == (name,)
    with pytest.raises(InputError, match="may not set by itself") as caught:
        exceptions([spec], (), "here")
    assert caught.value.exit_code == 3
    assert caught.value.hint is not None and f"--allow-launch {name}" in caught.value.hint
    assert caught.value.findings == (f"{name} = 'x'",)
    assert exceptions([spec], (name,), "here") == exceptions([spec], (f"--{name}",), "here") == (name,)


@pytest.mark.parametrize("name", RUNNING.split())
def test_variables_that_run_or_lead_elsewhere(name: str) -> None:
    spec = spec_of(env={name: "1"})
    with pytest.raises(InputError, match="may not set by itself"):
        exceptions([spec], ("LD_DEBUG",), "here")
    assert exceptions([spec], (name,), "here") == (name,)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("host", ["0.0.0.0", "127.0.0.1", "::1"], ["10.0.0.7", "evil.example", "0.0.0.0 --config", 7, True]),
        ("model-impl", ["auto", "transformers"], ["os", "my.module"]),
    ],
)
def test_names_of_which_some_values_will_do(name: str, good: list[FlagValue], bad: list[FlagValue]) -> None:
    assert all(may_set(name, value) for value in good)
    assert not any(may_set(name, value) for value in bad)


def test_a_variant_sets_nothing_more_than_the_rest() -> None:
    """Also one that doesn't hold here: it would on another host."""
    variant = LaunchVariant(gpu_families=("hopper",), flags={"load-format": "dummy"}, env={"LD_PRELOAD": "x"})
    spec = msgspec.structs.replace(spec_of(), launch=Launch(variants=(variant,)))
    assert unlisted(spec) == ("LD_PRELOAD", "load-format")
    with pytest.raises(InputError) as caught:
        exceptions([spec], ("load-format",), "here")
    assert caught.value.findings == ("LD_PRELOAD = 'x'",)


@pytest.mark.parametrize(
    "spec",
    [
        spec_of({"tp-size=8": 1}),
        spec_of({"tp-size 8 --config": "x"}),
        spec_of({"--config": "x"}),
        spec_of({"": "x"}),
        spec_of({"tool-call-parser": "--config=/etc/passwd"}),
        spec_of({"tool-call-parser": "-c"}),
        spec_of({"tool-call-parser": "a\0b"}),
        spec_of({"tool-call-parser": "a\x1b[2Jb"}),
        spec_of({"tool-call-parser": "x" * 5000}),
        spec_of(env={"A=B": "x"}),
        spec_of(env={"": "x"}),
        spec_of(env={"NCCL_DEBUG": "a\0b"}),
        spec_of(env={"NCCL_DEBUG": "a\nb"}),
        ModelSpec(name="m", served_name="--config=/tmp/x"),
        ModelSpec(name="m", served_name="a\nb"),
    ],
)
def test_more_than_one_thing_in_a_word(spec: ModelSpec) -> None:
    """What would be read as another flag is allowed by nobody."""
    assert [*malformed(spec)]


def test_no_listed_name_leads_to_a_file_or_an_address() -> None:
    """Whoever adds a name to the lists meets this."""
    endings = ("path", "paths", "file", "dir", "folder", "config", "addr", "url", "key", "template", "module")
    assert not [name for name in FLAGS if name.endswith(endings)]
    starts = ("LD_", "PYTHONP", "PIP_", "CONDA_", "HF_", "GCONV")
    assert not [
        name
        for name in VARIABLES
        if name.startswith(starts) or name.endswith(("PATH", "FILE", "DIR", "PLUGIN"))
    ]
