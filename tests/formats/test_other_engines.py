"""Exports have the names of architecture and tensors that other engines know models by."""

import pytest
import transformers

from permix_jax.formats.huggingface import config_from_hf, config_to_hf, weights
from permix_jax.formats.published import CONFIGS

gguf = pytest.importorskip("gguf", reason="llama.cpp's names are in the gguf package")
ARCHITECTURES = {
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Gemma3ForCausalLM": gguf.MODEL_ARCH.GEMMA3,
}


@pytest.mark.parametrize("source", CONFIGS)
def test_an_exports_architecture_and_tensors_have_the_names_that_converters_know(source):
    config = config_from_hf(CONFIGS[source])
    (architecture,) = config_to_hf(config)["architectures"]
    assert issubclass(getattr(transformers, architecture), transformers.PreTrainedModel)
    names = gguf.get_tensor_name_map(ARCHITECTURES[architecture], config.num_layers)
    written = [weight.name for weight in weights(config)]
    assert len(written) > 9 * config.num_layers
    unknown = [name for name in written if not names.get_name(name, (".weight", ".bias"))]
    assert unknown == []
