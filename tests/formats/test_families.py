"""Models of transformers are the definitions that the Decoder is held to, family by family.

`pytest -n 0 -s tests/formats/test_families.py` prints the table of what was measured.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from dense import dense_logits, pack_arrays, unpack

from permix_jax.formats.huggingface import config_from_hf, config_to_hf, params_to_hf
from permix_jax.formats.weights import load_weights
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling

torch = pytest.importorskip("torch", reason="the reference implementation needs torch")

VOCAB, LENGTH, WINDOW, ORIGINAL_CONTEXT, NEW = 97, 64, 8, 32, 64
SMALL = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, initializer_range=0.4)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(rope_theta=10_000.0, original_max_position_embeddings=ORIGINAL_CONTEXT)
WINDOWED_QWEN = dict(head_dim=8, num_hidden_layers=3, rms_norm_eps=1e-2, use_sliding_window=True)
WINDOWED_QWEN |= dict(sliding_window=WINDOW, max_window_layers=1)
WINDOWED_QWEN2 = {**WINDOWED_QWEN, "tie_word_embeddings": True}
del WINDOWED_QWEN2["head_dim"]  # which its config.json does not have
GEMMA = {
    "num_hidden_layers": 6,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-2,
    "sliding_window": WINDOW,
    "sliding_window_pattern": 3,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}
# name: model type, heads, key/value heads, other fields
FAMILIES = {
    "llama": ("llama", 4, 1, dict(rms_norm_eps=1e-2, rope_theta=500.0)),
    "llama with scaled RoPE": (
        *("llama", 2, 2),
        dict(head_dim=24, tie_word_embeddings=True, rope_parameters=LLAMA3),
    ),
    "qwen2": ("qwen2", 4, 2, dict(rms_norm_eps=1e-2, rope_theta=1000.0)),
    "qwen2 with a window": ("qwen2", 4, 2, WINDOWED_QWEN2),
    "qwen3": ("qwen3", 4, 2, dict(head_dim=24, tie_word_embeddings=True, rope_theta=1000.0)),
    "qwen3 with a window": ("qwen3", 4, 2, WINDOWED_QWEN),
    "gemma3": ("gemma3_text", 4, 2, GEMMA),
}
WINDOWED = ("qwen2 with a window", "qwen3 with a window", "gemma3")


def random_model(model_type: str, heads: int, kv_heads: int, fields: dict):
    """A model of transformers, of weights that make its completions vary.

    Attention is sharp, and the embeddings are small, so that tied ones do not just repeat tokens.
    """
    torch.manual_seed(0)
    fields = {"num_hidden_layers": 2, "max_position_embeddings": 256, **SMALL, **fields}
    fields |= dict(num_attention_heads=heads, num_key_value_heads=kv_heads)
    fields |= dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = transformers.CONFIG_MAPPING[model_type](**fields, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    centre = 0.0 if model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(centre - 0.5, centre + 0.5)
            if "q_norm" in name:
                weight += 4
            if "bias" in name:  # as large as what it is added to
                weight.normal_()
            if "embed_tokens" in name:
                weight *= 0.25
    return model


def load(folder, mesh):
    model = Decoder(config_from_hf(json.loads((folder / "config.json").read_text())))
    return model, jax.device_get(load_weights(folder, model, mesh))


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory, mesh):
    """(family, a model of transformers, the same as Decoder and parameters)."""
    theirs, folder = random_model(*FAMILIES[request.param]), tmp_path_factory.mktemp("family")
    theirs.save_pretrained(folder, max_shard_size="40KB")
    return request.param, theirs, *load(folder, mesh)


@pytest.fixture(scope="module")
def figures():
    """Rows of the table, printed when all tests have run."""
    rows = {}
    yield rows
    print(
        "\n\n| family | tokens | relative error, right-padded | left-padded | gradient | greedy |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for family, row in rows.items():
        errors = (f"{row[x]:.1e}" if x in row else "" for x in ("right", "left", "gradient"))
        print(f"| {family} | {LENGTH} | {' | '.join(errors)} | {row.get('greedy', '')} |")


def their_logits(theirs, tokens, positions, valid):
    with torch.no_grad():
        return theirs(
            torch.tensor(tokens),
            attention_mask=torch.tensor(valid.astype(int)),
            position_ids=torch.tensor(positions),
        ).logits.numpy()


def relative_error(ours, theirs) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def padded_batch(side: str):
    """Tokens, positions and mask [3, 64] of rows of 64, 41 and 7 tokens."""
    lengths = np.array([LENGTH, 41, 7])[:, None]
    places = np.arange(LENGTH)
    valid = places < lengths if side == "right" else places >= LENGTH - lengths
    tokens = np.random.default_rng(1).integers(VOCAB, size=(3, LENGTH))
    return tokens, np.maximum(np.cumsum(valid, axis=1) - 1, 0), valid


@pytest.mark.parametrize("side", ["right", "left"])
def test_logits_of_a_padded_batch_equal_those_of_transformers(pair, figures, side):
    family, theirs, model, params = pair
    batch = padded_batch(side)
    valid = batch[-1]
    expected = their_logits(theirs, *batch)
    error = relative_error(np.asarray(dense_logits(model, params, *batch))[valid], expected[valid])
    figures.setdefault(family, {})[side] = error
    assert error <= 1e-4


def test_greedy_completions_of_unequal_prompts_equal_generate(pair, figures):
    family, theirs, model, params = pair
    rng, lengths = np.random.default_rng(2), (3, 12, 7)
    width = max(lengths)
    left, right = np.zeros((2, 3, width), int)
    left_mask, right_mask = np.zeros((2, 3, width), bool)
    for i, n in enumerate(lengths):
        left[i, -n:] = right[i, :n] = rng.integers(VOCAB, size=n)
        left_mask[i, -n:] = right_mask[i, :n] = True

    def generate(end):
        return theirs.generate(
            input_ids=torch.tensor(left),
            attention_mask=torch.tensor(left_mask.astype(int)),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )[:, width:].numpy()

    # A token that one row comes to produce and another never does: one ends while others go on.
    rows = generate(None).tolist()
    end = next(t for row in rows for t in row[NEW // 4 :] if any(t not in r for r in rows))
    keys = jax.random.split(jax.random.key(0), 3)
    ours = sample(
        model, params, (right, right_mask), keys, Sampling(NEW, temperature=0), end_tokens=(end,)
    )
    expected = generate(end)
    equal = np.array_equal(ours.tokens[:, : expected.shape[1]], expected)
    figures.setdefault(family, {})["greedy"] = f"{'equal' if equal else 'differs'} ({NEW} tokens)"
    assert equal
    assert set(ours.truncated.tolist()) == {True, False}
    assert min(len(set(row)) for row in rows) > NEW // 8


def test_gradients_equal_those_of_pytorch(pair, figures):
    family, theirs, model, params = pair
    tokens, positions, valid = padded_batch("right")
    scored = valid[:, 1:]

    theirs.zero_grad()
    output = theirs(torch.tensor(tokens), attention_mask=torch.tensor(valid.astype(int))).logits
    chosen = output.log_softmax(-1)[:, :-1].gather(-1, torch.tensor(tokens[:, 1:, None]))[..., 0]
    (-chosen[torch.tensor(scored)].mean()).backward()

    @jax.jit
    @jax.grad
    def gradient(params):
        logprobs = jax.nn.log_softmax(dense_logits(model, params, tokens, positions, valid))
        chosen = jnp.take_along_axis(logprobs[:, :-1], tokens[:, 1:, None], axis=-1)[..., 0]
        return -(chosen * scored).sum() / scored.sum()

    ours = dict(params_to_hf(model.config, gradient(params)))
    errors = {
        name: relative_error(ours[name], p.grad.numpy()) for name, p in theirs.named_parameters()
    }
    figures.setdefault(family, {})["gradient"] = max(errors.values())
    assert errors.keys() == ours.keys()
    assert max(errors.values()) <= 1e-3, errors


def test_tensors_survive_the_way_in_and_out_bit_by_bit(pair):
    _, theirs, model, params = pair
    out = dict(params_to_hf(model.config, params))
    tensors = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
    assert out.keys() == tensors.keys()
    assert all(np.array_equal(out[name], tensors[name]) for name in tensors)


def test_the_config_written_makes_the_same_model_in_transformers(pair):
    _, theirs, model, _ = pair
    written = config_to_hf(model.config)
    assert config_from_hf(json.loads(json.dumps(written))) == model.config
    again = type(theirs)(type(theirs.config)(**written, attn_implementation="eager")).eval()
    again.load_state_dict(theirs.state_dict())
    batch = padded_batch("right")
    assert np.array_equal(their_logits(again, *batch), their_logits(theirs, *batch))


@pytest.mark.parametrize("pair", WINDOWED, indirect=True)
def test_completions_after_a_shared_prompt_score_as_whole_sequences_do(pair):
    """The window of a completion's first tokens reaches back into the prompt."""
    _, theirs, model, params = pair
    rng, lengths, S, T = np.random.default_rng(3), (5, 12), 2, 20
    prompts, prompt_mask = np.zeros((2, 12), int), np.arange(12) < np.array(lengths)[:, None]
    prompts[prompt_mask] = rng.integers(VOCAB, size=sum(lengths))
    completions = rng.integers(VOCAB, size=(2 * S, T))
    mask = np.arange(T) < np.array([T, 13, 3, 17])[:, None]
    packing = pack_arrays(prompts, prompt_mask, completions, mask)
    ours = unpack(packing, score(model, params, packing.rows, Scoring(1.0, 16)), mask)
    for b, (completion, kept) in enumerate(zip(completions, mask, strict=True)):
        prompt = prompts[b // S][prompt_mask[b // S]]
        whole = np.concatenate([prompt, completion[kept]])[None]
        valid = np.ones_like(whole, bool)
        output = their_logits(theirs, whole, np.arange(whole.size)[None], valid)[0]
        logprobs = torch.tensor(output).log_softmax(-1).numpy()
        expected = logprobs[np.arange(len(prompt) - 1, whole.size - 1), completion[kept]]
        np.testing.assert_allclose(ours[b][kept], expected, atol=1e-4)


def test_the_text_part_of_a_model_with_images_is_read(tmp_path, mesh):
    torch.manual_seed(0)
    text = {**GEMMA, **SMALL, "num_attention_heads": 4, "num_key_value_heads": 2}
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    vision |= dict(model_type="siglip_vision_model", image_size=28, patch_size=14)
    config = transformers.Gemma3Config(
        text_config={**text, "num_hidden_layers": 3}, vision_config=vision, mm_tokens_per_image=4
    )
    config._attn_implementation = "eager"
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    model, params = load(tmp_path, mesh)
    batch = padded_batch("right")
    valid = batch[-1]
    actual, expected = dense_logits(model, params, *batch), their_logits(theirs, *batch)
    assert relative_error(actual[valid], expected[valid]) <= 1e-4
