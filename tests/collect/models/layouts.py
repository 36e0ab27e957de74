"""How models' repositories are laid out on the hubs: their files' names, as their publishers gave them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

TOKENIZER = "tokenizer.json tokenizer_config.json "
ABOUT = ".gitattributes README.md generation_config.json " + TOKENIZER
REMOTE = {"auto_map": {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XModel"}}
CODE = "configuration_x.py modeling_x.py tokenizer_config.json README.md "


@dataclass(frozen=True)
class Layout:
    """A repository, and what of it is true; in names ``{1..3}`` stands for each number."""

    files: str
    """All but the shards of the model itself, its index and config.json."""
    shards: str = ""
    """The weights that the server loads."""
    index: bool = True
    config: dict[str, Any] | None = field(default_factory=dict)
    """What config.json holds beside the architecture; ``None``: there is none."""
    left_out: str = ""
    """What of the files is named and left out, as people read it."""
    refused: str = ""
    """What is said where it isn't taken."""


def names(text: str) -> list[str]:
    """Return the names of a text, each range of numbers written out."""
    found = []
    for word in text.split():
        if (match := re.search(r"\{(\d+)\.\.(\d+)\}", word)) is None:
            found.append(word)
            continue
        for number in range(int(match[1]), int(match[2]) + 1):
            found.append(word.replace(match[0], f"{number:0{len(match[1])}}"))
    return found


LAYOUTS = {
    "GLM-4.7": Layout(ABOUT + "chat_template.jinja", "model-{00001..00092}-of-00092.safetensors"),
    "GLM-4.7 in FP4, its draft layer outside of the index": Layout(
        ABOUT + "chat_template.jinja hf_quant_config.json mtp.safetensors",
        "model-{00001..00002}-of-00002.safetensors",
    ),
    "Qwen2-VL-7B-Instruct": Layout(
        ABOUT + "LICENSE chat_template.json merges.txt vocab.json preprocessor_config.json",
        "model-{00001..00005}-of-00005.safetensors",
        config={"vision_config": {}},
    ),
    "Mixtral-8x7B-Instruct-v0.1": Layout(
        ABOUT + "special_tokens_map.json tokenizer.model consolidated.{00..07}.pt",
        "model-{00001..00019}-of-00019.safetensors",
        left_out="consolidated.*.pt (8 files)",
    ),
    "Mistral-7B-Instruct-v0.3": Layout(
        ABOUT + "params.json tokenizer.model tokenizer.model.v3 consolidated.safetensors",
        "model-{00001..00003}-of-00003.safetensors",
        left_out="consolidated.safetensors",
    ),
    "Mistral-Small-3.1-24B-Instruct": Layout(
        ABOUT + "SYSTEM_PROMPT.txt params.json tekken.json consolidated.safetensors",
        "model-{00001..00010}-of-00010.safetensors",
        left_out="consolidated.safetensors",
    ),
    "Pixtral-12B-2409": Layout(
        "README.md params.json tekken.json consolidated.safetensors",
        config=None,
        refused="this is a model in Mistral's own format, without config.json",
    ),
    "Llama-3.1-8B-Instruct": Layout(
        ABOUT + "LICENSE USE_POLICY.md special_tokens_map.json original/consolidated.00.pth "
        "original/params.json original/tokenizer.model",
        "model-{00001..00004}-of-00004.safetensors",
        left_out="original/ (3 files)",
    ),
    "Llama-2-7b-hf": Layout(
        ABOUT + "tokenizer.model pytorch_model.bin.index.json pytorch_model-{00001..00002}-of-00002.bin",
        "model-{00001..00002}-of-00002.safetensors",
        left_out="pytorch_model-*-of-00002.bin (2 files)",
    ),
    "Llama-3.1-8B as Meta gives it": Layout(
        "LICENSE original/consolidated.00.pth original/params.json original/tokenizer.model",
        config=None,
        refused="the weights lie in a folder (original/consolidated.00.pth) and not beside a config.json",
    ),
    "FLUX.1-dev": Layout(
        "model_index.json ae.safetensors flux1-dev.safetensors scheduler/scheduler_config.json "
        "text_encoder/config.json text_encoder/model.safetensors vae/config.json "
        "transformer/diffusion_pytorch_model-{00001..00003}-of-00003.safetensors",
        config=None,
        refused="this is a diffusers pipeline of several models",
    ),
    "DeepSeek-V3": Layout(
        ABOUT + CODE + "LICENSE-CODE LICENSE-MODEL README_WEIGHTS.md figures/benchmark.png "
        "inference/model.py inference/kernel.py inference/configs/config_671B.json",
        "model-{00001..00163}-of-000163.safetensors",
        config=REMOTE,
    ),
    "a repository of GGUF": Layout(
        "README.md imatrix.dat X-Q4_K_M.gguf X-Q8_0.gguf BF16/X-BF16-{00001..00002}-of-00002.gguf",
        config=None,
        refused="the weights are GGUF (BF16/ (2 files), X-Q4_K_M.gguf, X-Q8_0.gguf)",
    ),
    "a repository of GGUF with config.json": Layout(
        "README.md X-Q4_K_M.gguf mmproj-F16.gguf", refused="the weights are GGUF"
    ),
    "GPTQ": Layout(
        ABOUT + "quantize_config.json tokenizer.model",
        "model.safetensors",
        index=False,
        config={"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ),
    "GPTQ of another name": Layout(
        ABOUT + "quantize_config.json", "gptq_model-4bit-128g.safetensors", index=False
    ),
    "AWQ": Layout(
        ABOUT + "quant_config.json",
        "model-{00001..00002}-of-00002.safetensors",
        config={"quantization_config": {"quant_method": "awq", "bits": 4}},
    ),
    "an adapter of PEFT": Layout(
        TOKENIZER + "README.md adapter_config.json adapter_model.safetensors training_args.bin "
        "checkpoint-500/adapter_config.json checkpoint-500/adapter_model.safetensors",
        config=None,
        refused="this is an adapter, no model",
    ),
    "Phi-3-mini-4k-instruct": Layout(
        ABOUT + CODE + "added_tokens.json CODE_OF_CONDUCT.md sample_finetune.py tokenizer.model",
        "model-{00001..00002}-of-00002.safetensors",
        config=REMOTE,
    ),
    "Phi-4-multimodal-instruct": Layout(
        ABOUT + CODE + "merges.txt vocab.json preprocessor_config.json examples/what.wav "
        "speech-lora/adapter_config.json speech-lora/adapter_model.safetensors "
        "vision-lora/adapter_config.json vision-lora/adapter_model.safetensors",
        "model-{00001..00003}-of-00003.safetensors",
        config=REMOTE,
        left_out="speech-lora/ (2 files), vision-lora/ (2 files)",
    ),
    "Kimi-K2-Instruct": Layout(
        CODE + "tiktoken.model tokenization_kimi.py chat_template.jinja docs/deploy_guidance.md LICENSE",
        "model-{1..61}-of-61.safetensors",
        config=REMOTE,
    ),
    "Kimi-K2.6": Layout(
        CODE + "tiktoken.model tokenization_kimi.py chat_template.jinja figures/kimi-logo.png",
        "model-{00001..00064}-of-000064.safetensors",
        config=REMOTE,
    ),
    "gpt-oss-20b": Layout(
        ABOUT + "chat_template.jinja LICENSE USAGE_POLICY special_tokens_map.json metal/model.bin "
        "original/config.json original/dtypes.json original/model.safetensors",
        "model-{00000..00002}-of-00002.safetensors",
        left_out="metal/model.bin, original/ (3 files)",
    ),
    "whisper-large-v3": Layout(
        ABOUT + "merges.txt vocab.json normalizer.json flax_model.msgpack pytorch_model.bin "
        "model.fp32-{00001..00002}-of-00002.safetensors pytorch_model.fp32-{00001..00002}-of-00002.bin "
        "model.safetensors.index.fp32.json pytorch_model.bin.index.fp32.json",
        "model.safetensors",
        index=False,
        left_out="flax_model.msgpack, model.fp32-*-of-00002.safetensors (2 files), "
        "model.safetensors.index.fp32.json, pytorch_model.bin, pytorch_model.fp32-*-of-00002.bin (2 files)",
    ),
    "all-MiniLM-L6-v2": Layout(
        ABOUT + "vocab.txt modules.json 1_Pooling/config.json data_config.json train_script.py "
        "onnx/model.onnx onnx/model_O1.onnx openvino/openvino_model.bin openvino/openvino_model.xml "
        "pytorch_model.bin rust_model.ot tf_model.h5",
        "model.safetensors",
        index=False,
        left_out="onnx/ (2 files), openvino/ (2 files), pytorch_model.bin, rust_model.ot, tf_model.h5",
    ),
    "embeddinggemma-300m": Layout(
        ABOUT + "tokenizer.model modules.json 2_Dense/config.json 2_Dense/model.safetensors",
        "model.safetensors",
        index=False,
    ),
    "chatglm3-6b": Layout(
        CODE + "tokenizer.model tokenization_chatglm.py pytorch_model-{00001..00007}-of-00007.bin",
        "model-{00001..00007}-of-00007.safetensors",
        config=REMOTE,
        left_out="pytorch_model-*-of-00007.bin (7 files)",
    ),
    "Qwen-7B": Layout(
        CODE + "qwen.tiktoken tokenization_qwen.py cpp_kernels.py",
        "model-{00001..00008}-of-00008.safetensors",
        config=REMOTE,
    ),
    "a tokenizer of the model's own": Layout(
        CODE + "rwkv_vocab_v20230424.txt own_tokenizer.py", "model.safetensors", index=False, config=REMOTE
    ),
    "a model with files of its own code's": Layout(
        ABOUT + CODE + "silero_vad.model audio/model.safetensors old.safetensors.index.json",
        "model-{00001..00002}-of-00002.safetensors",
        config=REMOTE,
    ),
    "a pickled model": Layout(
        ABOUT + "pytorch_model.bin", refused="the weights are pickles (pytorch_model.bin)"
    ),
    "a training's checkpoint": Layout(
        TOKENIZER + "optimizer.pt rng_state.pth scheduler.pt trainer_state.json training_args.bin",
        "model-{00001..00002}-of-00002.safetensors",
        left_out="optimizer.pt, rng_state.pth, scheduler.pt, training_args.bin",
    ),
}
