"""Llama in transformers is the definition that the Decoder is held to."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from permix_jax.models.config import ModelConfig
from permix_jax.models.huggingface import (
    Checkpoint,
    config_from_hf,
    params_from_hf,
    params_to_hf,
    tensor_names,
)
from permix_jax.models.params import init_params
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling

VOCAB = 97
CONFIGS = {
    "grouped-tied": {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "one-kv-head": {"num_attention_heads": 4, "num_key_value_heads": 1, "rms_norm_eps": 1e-2},
    "wide-heads": {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 24},
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def pair(request):
    """A random Llama of transformers, and the same as (Decoder, params)."""
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="eager",
            architectures=["LlamaForCausalLM"],
            **request.param,
        )
    ).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    config = config_from_hf(theirs.config.to_dict())
    return theirs, Decoder(config), params_from_hf(config, numpy_tensors(theirs))


def numpy_tensors(theirs) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in theirs.named_parameters()}


def logits(model, params, tokens, positions, valid):
    @jax.jit
    def run(params, tokens, positions, valid):
        hidden = model.apply({"params": params}, tokens, positions, valid)[0]
        return model.apply({"params": params}, hidden, method="unembed")

    return np.asarray(run(params, tokens, positions, valid))


def relative_error(ours, theirs) -> float:
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def padded_batch(side: str):
    """Tokens, positions and mask [3, 64] of rows of 64, 41 and 7 tokens."""
    lengths = np.array([64, 41, 7])[:, None]
    valid = np.arange(64) < lengths if side == "right" else np.arange(64) >= 64 - lengths
    tokens = np.random.default_rng(1).integers(VOCAB, size=(3, 64))
    return tokens, np.maximum(np.cumsum(valid, axis=1) - 1, 0), valid


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_of_a_padded_batch_equal_those_of_transformers(pair, side):
    import torch

    theirs, model, params = pair
    tokens, positions, valid = padded_batch(side)
    with torch.no_grad():
        expected = theirs(
            torch.tensor(tokens),
            attention_mask=torch.tensor(valid.astype(int)),
            position_ids=torch.tensor(positions),
        ).logits.numpy()
    actual = logits(model, params, tokens, positions, valid)
    assert relative_error(actual[valid], expected[valid]) <= 1e-4


def test_greedy_completions_of_unequal_prompts_equal_generate(pair):
    import torch

    theirs, model, params = pair
    rng, lengths, new = np.random.default_rng(2), (3, 8, 5), 32
    prompts = [rng.integers(VOCAB, size=n) for n in lengths]
    left, right = np.zeros((2, 3, 8), int)
    left_mask, right_mask = np.zeros((2, 3, 8), bool)
    for i, (prompt, n) in enumerate(zip(prompts, lengths, strict=True)):
        left[i, -n:], left_mask[i, -n:] = prompt, True
        right[i, :n], right_mask[i, :n] = prompt, True

    def generate(end):
        inputs = {"input_ids": left, "attention_mask": left_mask.astype(int)}
        tensors = {name: torch.tensor(x) for name, x in inputs.items()}
        return theirs.generate(
            **tensors, max_new_tokens=new, do_sample=False, eos_token_id=end, pad_token_id=end
        )[:, 8:].numpy()

    # A token that the first row does produce, so that one row ends early.
    end = int(generate(None)[0, 10])
    ours = sample(
        model,
        params,
        right,
        right_mask,
        jax.random.split(jax.random.key(0), 3),
        Sampling(new, temperature=0),
        (end,),
    )
    expected = generate(end)
    width = expected.shape[1]  # generate stops when all rows have ended
    assert not ours.truncated[0]
    assert np.array_equal(ours.tokens[:, :width], expected)
    assert not np.any(ours.mask[:, width:])


def test_gradients_equal_those_of_pytorch(pair):
    import torch

    theirs, model, params = pair
    tokens, positions, valid = padded_batch("right")
    scored = valid[:, 1:]

    theirs.zero_grad()
    output = theirs(torch.tensor(tokens), attention_mask=torch.tensor(valid.astype(int))).logits
    chosen = output.log_softmax(-1)[:, :-1].gather(-1, torch.tensor(tokens[:, 1:, None]))[..., 0]
    (-chosen[torch.tensor(scored)].mean()).backward()

    @jax.jit
    @jax.grad
    def gradient(params):
        hidden = model.apply({"params": params}, tokens, positions, valid)[0]
        logprobs = jax.nn.log_softmax(model.apply({"params": params}, hidden, method="unembed"))
        chosen = jnp.take_along_axis(logprobs[:, :-1], tokens[:, 1:, None], axis=-1)[..., 0]
        return -(chosen * scored).sum() / scored.sum()

    ours = params_to_hf(model.config, gradient(params))
    errors = {
        name: relative_error(ours[name], p.grad.numpy()) for name, p in theirs.named_parameters()
    }
    assert errors.keys() == ours.keys()
    assert max(errors.values()) <= 1e-3, errors


def test_params_survive_the_way_out_and_back_bit_by_bit(pair):
    theirs, model, params = pair
    tensors = numpy_tensors(theirs)
    out = params_to_hf(model.config, params)
    assert out.keys() == tensors.keys()
    assert all(np.array_equal(out[name], tensors[name]) for name in tensors)
    jax.tree.map(np.testing.assert_array_equal, params_from_hf(model.config, out), params)


def test_a_sharded_bf16_checkpoint_is_read(pair, tmp_path):
    import torch

    theirs, model, params = pair
    theirs.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="20KB")
    theirs.to(torch.float32)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    read = params_from_hf(model.config, Checkpoint(tmp_path))
    rounded = jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), params)
    jax.tree.map(np.testing.assert_array_equal, read, rounded)
    assert config_from_hf(json.loads((tmp_path / "config.json").read_text())) == model.config


# The rest needs no torch.

HF = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def param_shapes(config: ModelConfig):
    return jax.eval_shape(lambda: nn.unbox(init_params(Decoder(config), jax.random.key(0))))


def tensors_of(config: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), param_shapes(config))
    return params_to_hf(config, params)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("remat", [True, False])
def test_params_have_exactly_the_decoders_structure(tied, remat):
    config = config_from_hf({**HF, "tie_word_embeddings": tied}, "bfloat16", "bfloat16", remat)
    loaded = params_from_hf(config, tensors_of(config))
    expected = param_shapes(config)
    assert jax.tree.structure(loaded) == jax.tree.structure(expected)
    for actual, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=True):
        assert (actual.shape, actual.dtype) == (wanted.shape, wanted.dtype)


def test_config_defaults_are_those_of_llama():
    config = config_from_hf({k: v for k, v in HF.items() if k != "num_key_value_heads"})
    assert config == ModelConfig(
        vocab_size=11,
        embed_dim=8,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_dim=2,
        mlp_dim=12,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        tie_embeddings=False,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 7},
        {"rope_theta": 7, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 7, "rope_type": "default"}},
    ],
)
def test_rope_theta_is_read_where_either_version_of_transformers_writes_it(fields):
    assert config_from_hf({**HF, **fields}).rope_theta == 7.0


@pytest.mark.parametrize(
    "field, value",
    [
        ("architectures", ["MistralForCausalLM"]),
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("sliding_window", 4096),
        ("pretraining_tp", 2),
        ("quantization_config", {"bits": 4}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 5e5}),
    ],
)
def test_an_unsupported_field_is_refused_by_name_and_value(field, value):
    message = re.escape(f"config.json: {field} = {json.dumps(value)} is not supported; use a ")
    with pytest.raises(ValueError, match=f"^{message}.*$"):
        config_from_hf({**HF, field: value})


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="^config.json: hidden_size is missing; .*$"):
        config_from_hf({k: v for k, v in HF.items() if k != "hidden_size"})


def test_a_missing_surplus_or_misshapen_tensor_is_named():
    config = config_from_hf(HF)
    tensors = tensors_of(config)
    assert set(tensors) == set(tensor_names(config))
    down = "model.layers.1.mlp.down_proj.weight"

    with pytest.raises(ValueError, match=rf"^missing tensor {down} \(1 in all\): .*$"):
        params_from_hf(config, {k: v for k, v in tensors.items() if k != down})
    with pytest.raises(ValueError, match=r"^surplus tensor model.layers.2.x \(1 in all\): .*$"):
        params_from_hf(config, {**tensors, "model.layers.2.x": np.zeros(1)})
    with pytest.raises(
        ValueError, match=rf"^tensor {down} has shape \(12, 8\), expected \(8, 12\): "
    ):
        params_from_hf(config, {**tensors, down: tensors[down].T})


def test_a_tied_checkpoint_may_repeat_its_head_but_not_change_it():
    config = config_from_hf({**HF, "tie_word_embeddings": True})
    tensors = tensors_of(config)
    embedding = tensors["model.embed_tokens.weight"]
    repeated = params_from_hf(config, {**tensors, "lm_head.weight": embedding})
    assert "head" not in repeated
    with pytest.raises(ValueError, match="^lm_head.weight differs from .*tie_word_embeddings"):
        params_from_hf(config, {**tensors, "lm_head.weight": embedding + 1})


def test_stored_rope_frequencies_are_ignored():
    config = config_from_hf(HF)
    tensors = tensors_of(config)
    old = {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(1)}
    assert (
        flatten_dict(params_from_hf(config, old)).keys()
        == flatten_dict(params_from_hf(config, tensors)).keys()
    )


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="model.safetensors: no such file"):
        Checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({"x": np.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="model.safetensors: damaged .*fetch it again"):
        Checkpoint(tmp_path)
