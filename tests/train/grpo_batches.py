"""Rollout batches for the tests of `permix_jax.train`."""

from typing import NamedTuple

import jax
import numpy as np
from dense import pack_arrays

from permix_jax.models.config import ModelConfig
from permix_jax.models.packing import Packing
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampler import Completions
from permix_jax.train.batch import RolloutBatch, loss_tokens
from permix_jax.train.loss import LossConfig, LossTokens, token_losses
from permix_jax.train.programs import pack_tokens


def small_decoder(**changes) -> Decoder:
    """Every axis of it is divided by every mesh of eight devices that the tests use."""
    sizes = {"vocab_size": 40, "embed_dim": 16, "mlp_dim": 16, "num_layers": 1}
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4}
    return Decoder(ModelConfig(**sizes, **heads, **changes))


def loss_config(**changes) -> LossConfig:
    """The usual method, without KL."""
    usual = {
        "loss": "ppo",
        "aggregation": "dapo",
        "dead_groups": "keep",
        "dual_clip": 0.0,
        "importance": "token",
        "kl_in": "loss",
        "entropy_weight": 0.0,
        "clip_low": 0.2,
        "clip_high": 0.28,
        "kl_weight": 0.0,
        "kl_estimator": "k3",
        "mask_truncated": False,
        "max_new_tokens": 4,
        "importance_cap": 0.0,
    }
    return LossConfig(**{**usual, **changes})


def token_batch(lengths, tokens, *, logprobs=None, advantages=0, truncated=False):
    """N rollouts of `lengths` tokens out of `tokens`; what only a model would read is left 0."""
    shape = (len(lengths), tokens)

    def of_rows(x, dtype):
        return np.broadcast_to(np.asarray(x, dtype), shape[:1])

    completions = Completions(
        np.zeros(shape, np.int32),
        np.arange(tokens) < np.array(lengths)[:, None],
        np.zeros(shape, np.float32) if logprobs is None else logprobs,
        of_rows(truncated, bool),
    )
    rewards, advantages = of_rows(0, np.float32), of_rows(advantages, np.float32)
    groups = np.arange(shape[0])
    return RolloutBatch(None, completions, None, None, groups, rewards, advantages)


def losses_of(logprobs, batch: RolloutBatch, config: LossConfig, **scored):
    """(losses, metrics) [N, T] of log-probs [N, T]; `scored`: reference and trainer log-probs."""
    return token_losses(logprobs, loss_tokens(batch, config)._replace(**scored), config)


def assert_close(got, expected, tolerance=1e-5):
    """The same tree, every leaf equal to within `tolerance` of its largest entry."""

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())

    jax.tree.map(close, got, expected)


class Packed(NamedTuple):
    """A batch as an update takes it, and how it was packed."""

    packing: Packing
    tokens: LossTokens

    @property
    def rows(self):
        return self.packing.rows


def packed(
    batch: RolloutBatch, config: LossConfig, reference=None, tokens=None, rows=1, of_loss=None
) -> Packed:
    """Micro-batches of `rows` rows of about `tokens` tokens; by default a single row.

    `reference`: log-probs [N, T] under the reference. `of_loss`: LossTokens [N, T]; None: those of
    the batch.
    """
    packing = pack_arrays(*batch.prompts, *batch.completions[:2], tokens, rows)
    of_loss = loss_tokens(batch, config) if of_loss is None else of_loss
    of_loss = pack_tokens(of_loss, batch.completions.mask, packing)
    if reference is not None:
        of_loss = of_loss._replace(reference=packing.spread(reference[batch.completions.mask]))
    return Packed(packing, of_loss)


def random_rollouts(
    seed, prompts, samples, *, vocab, prompt_tokens=5, tokens=6
) -> tuple[RolloutBatch, np.ndarray]:
    """Ragged rollouts of random tokens, and their log-probs [N, T] under a reference.

    A rollout is truncated where it fills the budget.
    """
    rng = np.random.default_rng(seed)
    rows = prompts * samples
    lengths = rng.integers(1, tokens + 1, rows)
    lengths[:2] = 1, tokens  # both ends of the range are always there
    prompt_lengths = rng.integers(1, prompt_tokens + 1, prompts)
    words = [
        rng.integers(0, vocab, (n, t), np.int32)
        for n, t in ((prompts, prompt_tokens), (rows, tokens))
    ]
    # Near what a fresh policy says, so that some ratios are clipped and some are not.
    logprobs, reference = (
        -np.log(vocab).astype(np.float32) + 0.3 * rng.normal(size=(2, rows, tokens))
    ).astype(np.float32)
    mask = np.arange(tokens) < lengths[:, None]
    batch = RolloutBatch(
        (words[0], np.arange(prompt_tokens) < prompt_lengths[:, None]),
        Completions(words[1], mask, logprobs, lengths == tokens),
        problem=np.repeat(np.arange(prompts, dtype=np.int32), samples),
        persona=np.full(rows, -1, np.int32),
        group=np.repeat(np.arange(prompts), samples),
        rewards=rng.integers(0, 2, rows).astype(np.float32),
        advantages=rng.normal(size=rows).astype(np.float32),
    )
    return batch, reference
