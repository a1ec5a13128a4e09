"""The config.json of the published models that presets are made for: what decides their function.

From https://huggingface.co/<id>/blob/main/config.json.
"""

from typing import Any


def _sizes(embed: int, mlp: int, layers: int, heads: int, tied: bool | None = True) -> dict:
    """`tied`: whether the head is the embedding; None: config.json does not say."""
    fields = {
        "hidden_size": embed,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return fields if tied is None else {**fields, "tie_word_embeddings": tied}


def _llama(sizes: dict, **fields) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        **sizes,
        **fields,
    }


def _llama3(rope_factor: float, sizes: dict, **fields) -> dict[str, Any]:
    return _llama(
        sizes,
        vocab_size=128_256,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        rope_theta=500_000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        **fields,
    )


def _smollm2(sizes: dict, kv_heads: int, rope_theta: int) -> dict[str, Any]:
    return _llama(
        sizes,
        vocab_size=49_152,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        rope_theta=rope_theta,
    )


def _qwen3(sizes: dict) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "vocab_size": 151_936,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "rope_scaling": None,
        "attention_bias": False,
        "use_sliding_window": False,
        **sizes,
    }


def _gemma3(sizes: dict) -> dict[str, Any]:
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "vocab_size": 262_144,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "rope_local_base_freq": 10_000,
        "rope_scaling": None,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "attention_bias": False,
        **sizes,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B-Instruct": _llama3(32.0, _sizes(2048, 8192, 16, 32), head_dim=64),
    "meta-llama/Llama-3.1-8B-Instruct": _llama3(8.0, _sizes(4096, 14_336, 32, 32, tied=False)),
    "Qwen/Qwen3-0.6B": _qwen3(_sizes(1024, 3072, 28, 16)),
    "Qwen/Qwen3-1.7B": _qwen3(_sizes(2048, 6144, 28, 16)),
    "Qwen/Qwen3-4B": _qwen3(_sizes(2560, 9728, 36, 32)),
    "Qwen/Qwen3-8B": _qwen3(_sizes(4096, 12_288, 36, 32, tied=False)),
    "google/gemma-3-270m-it": _gemma3(_sizes(640, 2048, 18, 4, tied=None)),
    "google/gemma-3-1b-it": _gemma3(_sizes(1152, 6912, 26, 4, tied=None)),
    # It reads images, too. The fields that its text_config leaves out have transformers' defaults.
    "google/gemma-3-4b-it": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10_240,
            "num_hidden_layers": 34,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window": 1024,
        },
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": _smollm2(_sizes(576, 1536, 30, 9), 3, 100_000),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _smollm2(_sizes(960, 2560, 32, 15), 5, 100_000),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _smollm2(_sizes(2048, 8192, 24, 32), 32, 130_000),
}
