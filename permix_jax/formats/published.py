"""The config.json of the published models that presets are made for: what decides their function.

From https://huggingface.co/<id>/blob/main/config.json.
"""

from typing import Any

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LLAMA3 = {
    **_LLAMA,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rope_theta": 500_000.0,
    "rope_scaling": _ROPE,
}
_SMOLLM2 = {
    **_LLAMA,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "rope_theta": 100_000,
}
_QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "vocab_size": 151_936,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
_QWEN25 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": 32_768,
    "max_window_layers": 21,
}
_GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "vocab_size": 262_144,
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
}


def _of(family: dict, embed: int, mlp: int, layers: int, heads: int, kv: int, **fields) -> dict:
    """The config.json of a family's model of these sizes, and with these fields."""
    sizes = {"hidden_size": embed, "intermediate_size": mlp, "num_hidden_layers": layers}
    of_heads = {"num_attention_heads": heads, "num_key_value_heads": kv}
    return {**family, **sizes, **of_heads, **fields}


CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.2-1B-Instruct": _of(
        {**_LLAMA3, "rope_scaling": {**_ROPE, "factor": 32.0}}, 2048, 8192, 16, 32, 8, head_dim=64
    ),
    "meta-llama/Llama-3.1-8B-Instruct": _of(
        _LLAMA3, 4096, 14_336, 32, 32, 8, tie_word_embeddings=False
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": _of(_QWEN25, 896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-1.5B-Instruct": _of(_QWEN25, 1536, 8960, 28, 12, 2),
    "Qwen/Qwen2.5-7B-Instruct": _of(
        {**_QWEN25, "vocab_size": 152_064, "max_window_layers": 28, "tie_word_embeddings": False},
        *(3584, 18_944, 28, 28, 4),
    ),
    "Qwen/Qwen3-0.6B": _of(_QWEN3, 1024, 3072, 28, 16, 8),
    "Qwen/Qwen3-1.7B": _of(_QWEN3, 2048, 6144, 28, 16, 8),
    "Qwen/Qwen3-4B": _of(_QWEN3, 2560, 9728, 36, 32, 8),
    "Qwen/Qwen3-8B": _of(_QWEN3, 4096, 12_288, 36, 32, 8, tie_word_embeddings=False),
    "google/gemma-3-270m-it": _of(_GEMMA3, 640, 2048, 18, 4, 1),
    "google/gemma-3-1b-it": _of(_GEMMA3, 1152, 6912, 26, 4, 1),
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
    "HuggingFaceTB/SmolLM2-135M-Instruct": _of(_SMOLLM2, 576, 1536, 30, 9, 3),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _of(_SMOLLM2, 960, 2560, 32, 15, 5),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _of(
        _SMOLLM2, 2048, 8192, 24, 32, 32, rope_theta=130_000
    ),
}
