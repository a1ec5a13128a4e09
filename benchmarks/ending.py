"""Rows that end early, halved away or replaced: python benchmarks/ending.py

Rollouts of unequal lengths keep a batch until the last has ended. `rollout.halvings` cuts the batch
as rows end; the other remedy is a fixed number of slots, which waiting rollouts take over. Measures
the former, and what a decode step takes by its number of rows; from that it computes what slots
would take at the least: admission free, prompts prefilled at once, no slot idle but at the end.
On the lengths of `settings.SETTINGS["second"]`, with more prompts.
"""

import argparse
import heapq
import time
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from settings import SETTINGS, TINY_SETTINGS, Setting, lengths

from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder
from permix_jax.report.tables import text_table
from permix_jax.rollout import sampler
from permix_jax.rollout.sampling import Sampling

END, OTHER = 1, 2
HALVINGS = (0, 1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether it runs at all")
    args = parser.parse_args()
    setting = (TINY_SETTINGS if args.tiny else SETTINGS)["second"]
    setting = replace(setting, prompts=args.prompts)

    mesh = make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        model = Decoder(config_from_hf(setting.shape))
        params = create_params(model, jax.random.key(0), mesh)
        rows = setting.prompts * setting.samples
        ends = lengths(rows, setting.limit, setting.median)
        print(f"{rows} rollouts, {sum(ends)} tokens, {max(ends)} at most", flush=True)
        prefill = _seconds(model, params, setting, args.repeats, limit=1)
        measured = {
            f"{n} halvings": _seconds(model, params, setting, args.repeats, ends, halvings=n)
            for n in HALVINGS
        }
        sizes = [rows >> n for n in HALVINGS]
        step = {size: _step_seconds(model, params, setting, size, args.repeats) for size in sizes}
    steps = ", ".join(f"{rows}: {seconds:.3g} s" for rows, seconds in step.items())
    print(f"prefill {prefill:.3g} s; a decode step by rows, each with its own prefix: {steps}")
    computed = {f"{n} slots": prefill + steps_with_slots(ends, n) * x for n, x in step.items()}
    first = next(iter(measured.values()))
    table = [
        [name, kind, f"{x:.3g} s", f"{x / first:.2f}"]
        for kind, found in (("measured", measured), ("at the least", computed))
        for name, x in found.items()
    ]
    print(text_table(["", "", "rollout", "of no remedy"], table))


def steps_with_slots(ends: Sequence[int], slots: int) -> int:
    """Decode steps until all have ended, where a rollout takes the first slot that is free."""
    free = [0] * slots
    for tokens in ends:
        heapq.heappush(free, heapq.heappop(free) + tokens)
    return max(free)


def _step_seconds(model, params, setting: Setting, rows: int, repeats: int) -> float:
    """Of a decode step of rows that each have a prompt of their own, on average over the limit."""
    alone = replace(setting, prompts=rows, samples=1)
    whole = _seconds(model, params, alone, repeats)
    return (whole - _seconds(model, params, alone, repeats, limit=1)) / (setting.limit - 1)


def _seconds(
    model,
    params,
    setting: Setting,
    repeats: int,
    ends: Sequence[int] | None = None,
    limit: int = 0,
    halvings: int = 0,
) -> float:
    """Median seconds of a rollout. ends: tokens of each row; None: all run to the limit."""
    U, P = setting.prompts, setting.prompt_tokens
    rows, sampling = U * setting.samples, Sampling(limit or setting.limit, halvings=halvings)
    keys = jax.random.split(jax.random.key(1), rows)
    tokens = jax.random.randint(jax.random.key(2), (U, P), OTHER, setting.shape["vocab_size"])
    draw = sampler.draw
    sampler.draw = _ending(draw, keys, ends or [2 * setting.limit] * rows)
    try:
        # A new function, as the compiled one does not know of the other draw.
        run = jax.jit(lambda params, tokens, keys: sampler.sample.__wrapped__(
            model, params, (tokens, jnp.ones((U, P), bool)), keys, sampling, (END,)))  # fmt: skip
        found = run(params, tokens, keys)
        if ends:
            assert found.mask.sum(axis=1).tolist() == list(ends)
        times = []
        for _ in range(repeats):
            begin = time.monotonic()
            jax.block_until_ready(run(params, tokens, keys))
            times.append(time.monotonic() - begin)
    finally:
        sampler.draw = draw
    return float(np.median(times))


def _ending(draw, keys, ends: Sequence[int]):
    """The sampler's `draw`, with row i ending at its token ends[i] and not before."""
    last = jax.random.key_data(jax.vmap(jax.random.fold_in)(keys, jnp.array(ends) - 1))

    def scripted(keys, logits, sampling):
        tokens, logprobs = draw(keys, logits, sampling)
        is_last = (jax.random.key_data(keys)[:, None] == last).all(axis=-1).any(axis=-1)
        return jnp.where(is_last, END, jnp.where(tokens == END, OTHER, tokens)), logprobs

    return scripted


if __name__ == "__main__":
    main()
