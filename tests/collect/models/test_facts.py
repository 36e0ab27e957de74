"""Facts and fits: for GLM-4.7's shape they are the figures that the team plans with."""

from __future__ import annotations

import json

import pytest

from bundler.collect.models.completeness import prove
from bundler.collect.models.config import card_license, read_shape, remote_code
from bundler.collect.models.specs import find_spec, manifest_folders
from bundler.host.fit import GB, fits, heads_divide, needs_text, share, smallest_fits
from bundler.model import Fit, ModelFacts, ModelSpec
from tests.support.glm47 import ShapeReader


@pytest.fixture(scope="module")
def bf16() -> ModelFacts:
    return prove(ShapeReader())


@pytest.fixture(scope="module")
def fp8() -> ModelFacts:
    return prove(ShapeReader(fp8=True))


def test_glm_in_bf16_has_the_known_sizes(bf16: ModelFacts) -> None:
    assert bf16.weight_bytes == pytest.approx(716.7 * GB, rel=0.01)
    assert bf16.weight_bytes == pytest.approx(667 * 2**30, rel=0.01)
    assert bf16.parameters == pytest.approx(358 * GB, rel=0.01)
    assert bf16.parameters is not None
    assert bf16.parameters - bf16.draft_weight_bytes / 2 == pytest.approx(353 * GB, rel=0.01)
    assert share(bf16, 8, 80 * GB, 0.9).weights == pytest.approx(88.2 * GB, rel=0.01)
    assert share(bf16, 8, 80 * GB, 0.9).weights == pytest.approx(82 * 2**30, rel=0.01)
    assert share(bf16, 8, 80 * GB, 0.9).kv_per_token == pytest.approx(47_000, rel=0.01)


def test_glm_in_fp8_has_the_known_size(fp8: ModelFacts) -> None:
    assert fp8.weight_bytes == pytest.approx(360 * GB, rel=0.01)
    assert fp8.dtype == "F8_E4M3"
    assert fp8.quantization == "compressed-tensors"


def test_glms_other_facts_are_its_configs(bf16: ModelFacts) -> None:
    assert bf16.architecture == "Glm4MoeForCausalLM"
    assert (bf16.layers, bf16.attention_heads, bf16.kv_heads, bf16.experts) == (92, 96, 8, 160)
    assert (bf16.dtype, bf16.shards, bf16.context_length) == ("BF16", 93, 202752)


def test_glm_in_bf16_fits_141_gb_and_not_80(bf16: ModelFacts) -> None:
    assert not fits(bf16, Fit(count=8, memory_gb=80), 0.9)
    assert fits(bf16, Fit(count=8, memory_gb=141), 0.9)
    assert fits(bf16, Fit(count=16, memory_gb=80), 0.9)
    assert Fit(count=8, memory_gb=141) in smallest_fits(bf16, 0.9)
    assert Fit(count=16, memory_gb=80) in smallest_fits(bf16, 0.9)


def test_glm_in_fp8_fits_eight_of_80_gb(fp8: ModelFacts) -> None:
    assert fits(fp8, Fit(count=8, memory_gb=80), 0.8)
    assert fits(fp8, Fit(count=4, memory_gb=141), 0.8)
    assert not fits(fp8, Fit(count=4, memory_gb=80), 0.8)


def test_needs_lead_with_the_misfit_and_say_what_does(bf16: ModelFacts) -> None:
    lines = needs_text(find_spec("GLM-4.7", manifest_folders()).spec, bf16)
    assert "doesn't fit 8 × 80 GB" in lines[0]
    assert lines[1] == "GPUs: 8 × 141 GB or 16 × 80 GB (BF16)"
    assert "88.2 GB on each of 8" in lines[2]
    assert lines[3].startswith("KV cache: 376,832 bytes a token")


def test_speculative_decoding_loads_the_draft_layer_too(fp8: ModelFacts) -> None:
    spec = find_spec("GLM-4.7-FP8", manifest_folders()).spec
    whole = f"{fp8.weight_bytes / 8 / GB:.1f} GB on each of 8"
    assert whole in needs_text(spec, fp8)[2]


def test_needs_of_a_model_without_a_manifest_are_derived(bf16: ModelFacts) -> None:
    lines = needs_text(ModelSpec(name="x"), bf16)
    assert lines[0].startswith("GPUs: ")
    assert "16 × 80 GB" in lines[0]
    assert needs_text(ModelSpec(name="x"), ModelFacts()) == []


def test_headers_of_45000_tensors_are_proved_without_their_data() -> None:
    reader = ShapeReader()
    prove(reader)
    assert reader.requested < 40_000_000


def test_kv_heads_are_not_split_further_than_there_are_any() -> None:
    facts = ModelFacts(weight_bytes=160, kv_heads=8, kv_bytes_per_token=800, attention_heads=96)
    assert share(facts, 4, 100, 1).kv_per_token == 200
    assert share(facts, 16, 100, 1).kv_per_token == 100
    assert heads_divide(facts, 16)
    assert not heads_divide(facts, 5)


def test_a_nested_config_is_read() -> None:
    shape = read_shape(
        {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "vision_config": {"num_hidden_layers": 32},
            "text_config": {
                "num_hidden_layers": 28,
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "hidden_size": 3584,
                "torch_dtype": "bfloat16",
            },
        }
    )
    assert shape.vision
    assert shape.kv_bytes_per_token == 28 * 2 * 4 * 128 * 2


def test_a_latent_cache_is_one_vector_a_layer() -> None:
    shape = read_shape(
        {
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "hidden_size": 7168,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
        }
    )
    assert shape.kv_bytes_per_token == 61 * 576 * 2
    assert shape.kv_heads == 1


@pytest.mark.parametrize(
    "config", [{}, {"architectures": "no list"}, {"num_hidden_layers": "92"}, {"text_config": 1}]
)
def test_a_config_that_says_nothing_gives_no_figures(config: dict[str, object]) -> None:
    assert read_shape(config).kv_bytes_per_token is None


def test_remote_code_is_read_from_every_config() -> None:
    files, elsewhere = remote_code(
        {
            "config.json": {
                "auto_map": {"AutoConfig": "configuration_x.XConfig", "AutoModel": "other/repo--m.X"}
            },
            "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tokenization_x.Tok", None]}},
        }
    )
    assert files == ("configuration_x.py", "tokenization_x.py")
    assert elsewhere == ("other/repo--m.X",)


@pytest.mark.parametrize(
    ("card", "license_id"),
    [
        ("---\nlicense: mit\nlanguage: en\n---\n# x", "mit"),
        ("---\nlicense: other\nlicense_name: 'tongyi-qianwen'\n---\n", "tongyi-qianwen"),
        ("# no front matter\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_cards_licence_is_read(card: str, license_id: str | None) -> None:
    assert card_license(card) == license_id


def test_facts_survive_the_bundles_manifest(bf16: ModelFacts) -> None:
    import msgspec

    assert msgspec.json.decode(json.dumps(msgspec.to_builtins(bf16)), type=ModelFacts) == bf16
