"""Rollout batches for the tests of `permix_jax.grpo`."""

import jax.numpy as jnp
import numpy as np

from permix_jax.models.config import ModelConfig
from permix_jax.models.transformer import Decoder
from permix_jax.train.batch import RolloutBatch
from permix_jax.train.loss import LossConfig, loss_tokens, token_losses
from permix_jax.train.packing import Packing, pack, packed_shapes


def small_decoder(**changes) -> Decoder:
    """Every axis of it is divided by every mesh of eight devices that the tests use."""
    sizes = {"vocab_size": 40, "embed_dim": 16, "mlp_dim": 16, "num_layers": 1}
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4}
    return Decoder(ModelConfig(**sizes, **heads, **changes))


def loss_config(**changes) -> LossConfig:
    """The usual method, without KL."""
    usual = {
        "aggregation": "dapo",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "kl_weight": 0.0,
        "kl_estimator": "k3",
        "mask_truncated": False,
        "max_new_tokens": 4,
        "importance_cap": 0.0,
    }
    return LossConfig(**{**usual, **changes})


def token_batch(lengths, tokens, *, logprobs=None, reference=None, advantages=0, truncated=False):
    """N rollouts of `lengths` tokens out of `tokens`; what only a model would read is left 0."""
    shape = (len(lengths), tokens)
    mask = np.arange(tokens) < np.array(lengths)[:, None]
    row = lambda x, dtype: jnp.broadcast_to(jnp.asarray(x, dtype), shape[:1])  # noqa: E731
    array = lambda x: jnp.zeros(shape) if x is None else jnp.asarray(x, jnp.float32)  # noqa: E731
    return RolloutBatch(
        prompt_tokens=jnp.zeros((shape[0], 1), jnp.int32),
        prompt_mask=jnp.ones((shape[0], 1), bool),
        completion_tokens=jnp.zeros(shape, jnp.int32),
        completion_mask=jnp.asarray(mask),
        logprobs=array(logprobs),
        reference_logprobs=array(reference),
        truncated=row(truncated, bool),
        rewards=row(0, jnp.float32),
        advantages=row(advantages, jnp.float32),
        problem=jnp.arange(shape[0], dtype=jnp.int32),
        persona=row(-1, jnp.int32),
    )


def losses_of(logprobs, batch: RolloutBatch, config: LossConfig):
    """(losses, metrics) [N, T] of log-probs [N, T]."""
    return token_losses(logprobs, loss_tokens(batch, config), config)


def packing_of(batch: RolloutBatch, tokens: int = 1024, rows: int = 1) -> Packing:
    """Micro-batches of `rows` rows of about `tokens` tokens; by default a single one."""
    masks = np.asarray(batch.prompt_mask), np.asarray(batch.completion_mask)
    return pack(*masks, packed_shapes(masks[0].shape, masks[1].shape, rows, tokens))


def random_batch(seed, prompts, samples, *, vocab, prompt_tokens=5, tokens=6) -> RolloutBatch:
    """Ragged rollouts of random tokens; a rollout is truncated where it fills the budget."""
    rng = np.random.default_rng(seed)
    rows = prompts * samples
    lengths = rng.integers(1, tokens + 1, rows)
    lengths[:2] = 1, tokens  # both ends of the range are always there
    prompt_lengths = rng.integers(1, prompt_tokens + 1, prompts)
    values = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return RolloutBatch(
        prompt_tokens=rng.integers(0, vocab, (prompts, prompt_tokens), np.int32),
        prompt_mask=np.arange(prompt_tokens) < prompt_lengths[:, None],
        completion_tokens=rng.integers(0, vocab, (rows, tokens), np.int32),
        completion_mask=np.arange(tokens) < lengths[:, None],
        # Near what a fresh policy says, so that some ratios are clipped and some are not.
        logprobs=-np.log(vocab).astype(np.float32) + 0.3 * values(rows, tokens),
        reference_logprobs=-np.log(vocab).astype(np.float32) + 0.3 * values(rows, tokens),
        truncated=lengths == tokens,
        rewards=rng.integers(0, 2, rows).astype(np.float32),
        advantages=values(rows),
        problem=np.repeat(np.arange(prompts, dtype=np.int32), samples),
        persona=np.full(rows, -1, np.int32),
    )
