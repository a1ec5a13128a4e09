"""The gradient of GRPO's or SFT's loss on packed rows, one micro-batch after another."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from permix_jax.models.lm_head import Scoring, TokenLoss, head_logprobs, head_loss, head_sums
from permix_jax.models.logprobs import head_name, head_weight, micro_batch, target_states
from permix_jax.models.packing import PackedRows
from permix_jax.models.params import join
from permix_jax.models.transformer import Decoder


def cross_entropy(logprobs: jax.Array, tokens) -> tuple[jax.Array, dict]:
    """SFT's `token_losses` for `packed_gradients`, in nats; it has no metrics of its own."""
    return -logprobs, {}


def packed_gradients(
    model: Decoder,
    token_losses: Callable,
    scoring: Scoring,
    params,
    rows: PackedRows,
    tokens,
    frozen: dict | None = None,
    prepare: Callable | None = None,
    entropy: Callable | None = None,
) -> tuple[dict, dict[str, jax.Array]]:
    """Gradients like `params`, and metrics, of sum(weights * losses) over targets of packed rows.

    They are the same, up to rounding, for any packing. The metrics, f32 scalars by name, are
    `loss`, `entropy` and those of `token_losses`: means by `shares`, but for names in `_max`, which
    are the largest where the share is not 0. Without a target all are 0.

    Args:
      token_losses: (log-probs f32 [...], tokens) -> (losses f32 [...], metrics by name, each
        [...]), token by token.
      params: the parameters to differentiate by.
      tokens: what the loss knows of each target; a pytree of arrays [M, R, L] with the fields
        `weights`, of its loss in the sum, and `shares`, of its metrics. Both hold the global
        denominators.
      frozen: the rest of the decoder's parameters, where `params` are adapters.
      prepare: (log-probs f32 [R, L], tokens) -> tokens, which adds what the loss has to know of
        whole completions, without gradient. It costs a second pass of the LM head.
      entropy: tokens -> f32 [...], what each token's entropy is multiplied with in the loss.
    """

    def token_loss(logprobs, tokens):
        return weighted(tokens.weights, token_losses(logprobs, tokens)[0])

    # Each row shard adds up its own gradient of the head over all micro-batches. The shards' sums
    # are added after the last one, so the head's gradient crosses the network once.
    name, tied = head_name(model), model.config.tie_embeddings
    learned = {key: x for key, x in params.items() if tied or key != name}
    fixed = join(params, frozen or {})
    sums, add_shards = jax.vjp(head_sums, params[name]) if name in params else (None, None)

    def part_loss(trained, part):
        (learned, sums), (rows, tokens) = trained, part
        params = join(learned, fixed)
        hidden, head = target_states(model, params, rows), head_weight(model, params)
        if prepare:
            stopped = jax.lax.stop_gradient((hidden, head))
            logprobs = head_logprobs(*stopped, rows.targets, rows.scored, scoring)
            tokens = prepare(logprobs, tokens)
        targets = rows.targets, rows.scored, tokens
        of_token = TokenLoss(token_loss, scoring, entropy)
        loss, statistics = head_loss(of_token, hidden, head, *targets, sums)
        _, metrics = token_losses(statistics.logprobs, tokens)
        metrics = {"entropy": statistics.entropy, **metrics}
        reduced = {name: _reduced(name, tokens.shares, x) for name, x in metrics.items()}
        return loss, {"loss": loss, **reduced}

    gradients_of, batch = jax.grad(part_loss, has_aux=True), (rows, tokens)
    (grads, sums), metrics = accumulate(gradients_of, (learned, sums), batch, rows.count)
    if add_shards:
        (of_head,) = add_shards(sums)
        grads = {**grads, name: grads[name] + of_head if tied else of_head}
    return grads, metrics


def _reduced(name: str, shares: jax.Array, values: jax.Array) -> jax.Array:
    if name.endswith("_max"):
        return jnp.where(shares > 0, values, 0).max()
    return weighted(shares, values).sum()


def weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    """weights * values, but 0, in value and gradient, wherever the weight is 0."""
    return weights * jnp.where(weights > 0, values, 0)


def accumulate(gradients_of: Callable, params, parts, count: jax.Array | int):
    """(gradients, metrics) of `gradients_of(params, part)`, added up over the parts.

    That is what it gives for the whole batch, up to rounding, in the same dtypes: gradients like
    `params`, and f32 scalars by name, all plain sums over rows. Of a metric that ends in `_max`,
    the largest is kept. `parts`: a pytree of arrays [parts, rows, ...], of which the first `count`
    hold anything.
    """
    if jax.tree.leaves(parts)[-1].shape[0] == 1:
        return gradients_of(params, micro_batch(parts, 0))
    like = jax.eval_shape(lambda: gradients_of(params, micro_batch(parts, 0)))

    def add(i, sums):
        gradients, metrics = gradients_of(params, micro_batch(parts, i))
        with jax.named_scope("add_gradients"):
            total = jax.tree.map(jnp.add, sums[0], gradients)
        return total, {
            name: (jnp.maximum if name.endswith("_max") else jnp.add)(sums[1][name], x)
            for name, x in metrics.items()
        }

    # Summed in f32, whatever the parameters' dtype: in bf16 each addition would lose a little.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), like)
    sums = jax.lax.fori_loop(0, count, add, zeros)
    return jax.tree.map(lambda total, like: total.astype(like.dtype), sums, like)
