"""Rows that end early, halved away or replaced: python benchmarks/ending.py

Rollouts of unequal lengths keep a batch until the last has ended. `rollout.halvings` cuts the batch
as rows end; the other remedy is a fixed number of slots, which waiting rollouts take over. Measures
the former, and what a decode step takes by its number of rows; from that it computes what slots
would take at the least: admission free, prompts prefilled at once, no slot idle but at the end.
On the lengths of `settings.SETTINGS["second"]`, with more prompts.

With --spread: what a rollout computes over what its tokens need, where a tenth of the rows run to
the limit, as reasoning models' do, and rollouts are sampled in parts, so that prompts wait. By the
lengths alone for the preset qwen3_8b_long; measured on a small model.
"""

import argparse
import heapq
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from settings import SETTINGS, TINY_SETTINGS, Setting, lengths, median_of

from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder
from permix_jax.report.tables import text_table
from permix_jax.rollout import sampler
from permix_jax.rollout.sampling import Sampling

END, OTHER = 1, 2
HALVINGS = (0, 1, 2, 3)
LONG_ROWS, LONG_LIMIT, LONG_PROMPT = 128, 16384, 1024  # of the preset qwen3_8b_long
AT_THE_LIMIT = 0.1  # share of the rows
SMALL = SETTINGS["second"].shape | {
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
SPREAD = Setting(SMALL, prompts=16, samples=8, prompt_tokens=32, limit=128)
TINY_SPREAD = replace(TINY_SETTINGS["second"], prompts=4, samples=4)


class Plan(NamedTuple):
    """How the rows of a rollout are decoded.

    parts: sampled one after the other. halvings: of each part, as `Sampling.halvings`. slots: 0, or
    how many rows there are, each taken over by a rollout that waits when its own has ended; then
    there are no parts and no halvings. shards: of the mesh, which share the rows of a part; all of
    them are halved when each can be.
    """

    parts: int = 1
    halvings: int = 0
    slots: int = 0
    shards: int = 1


PLANS = {f"all at once, {n} halvings": Plan(1, n) for n in (0, 1, 2, 3, 4)}
PLANS |= {f"in 4 parts, {n} halvings": Plan(4, n) for n in (0, 1, 2, 3, 4)}
PLANS |= {f"in 4 parts on 2 shards, {n} halvings": Plan(4, n, shards=2) for n in (2, 3)}
PLANS |= {f"{n} slots": Plan(slots=n) for n in (64, 32, 16)}
MEASURED = [*list(PLANS)[:4], "in 4 parts, 0 halvings", "in 4 parts, 3 halvings"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--spread", action="store_true", help="computed over needed")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether it runs at all")
    args = parser.parse_args()
    if args.spread:
        spread(args.repeats, args.tiny)
        return
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


def spread(repeats: int, tiny: bool) -> None:
    """Prints what is computed over what is needed, by the lengths, and measured."""
    ends = lengths(LONG_ROWS, LONG_LIMIT, median_of(LONG_LIMIT, AT_THE_LIMIT))
    print(f"qwen3_8b_long, by its lengths, over what is needed ({_about(ends)})")
    print(factors_table(ends, LONG_PROMPT))

    setting = TINY_SPREAD if tiny else SPREAD
    rows, prompts = setting.prompts * setting.samples, setting.prompts
    ends = lengths(rows, setting.limit, median_of(setting.limit, AT_THE_LIMIT))
    print(f"a small model, over what is needed ({_about(ends)})", flush=True)
    mesh, found = make_mesh(1, 1, 1), []
    with jax.set_mesh(mesh):
        model = Decoder(config_from_hf(setting.shape))
        params = create_params(model, jax.random.key(0), mesh)
        whole = _seconds(model, params, setting, repeats)
        full = whole - _seconds(model, params, setting, repeats, limit=1)
        needed = sum(ends) * full / (setting.limit - 1) / rows
        for name in MEASURED:
            parts, halvings, *_ = PLANS[name]
            part, seconds = replace(setting, prompts=prompts // parts), 0.0
            prefill = _seconds(model, params, part, repeats, limit=1)
            for some in np.split(np.array(ends), parts):
                each = _seconds(model, params, part, repeats, some.tolist(), halvings=halvings)
                seconds += each - prefill
            predicted = work(ends, Plan(parts, halvings))[0] / sum(ends)
            found.append([name, f"{predicted:.2f}", f"{seconds / needed:.2f}"])
            print(f"{name}: {seconds:.3g} s of decoding, {needed:.3g} s needed", flush=True)
    print(text_table(["", "rows", "seconds"], found))


def factors_table(ends: Sequence[int], prompt: int) -> str:
    """Row steps and keys read of each of the PLANS, over those that the tokens need."""
    limit, table = max(ends), []
    needed = sum(ends), sum(n * prompt + n * (n + 1) // 2 for n in ends)
    caches = {
        "whole cache": [limit],
        "doubles 3 times": [limit >> i for i in (3, 2, 1, 0)],
        "in 16ths": [-(-limit * i // 16) for i in range(1, 17)],
    }
    for name, plan in PLANS.items():
        keys = [work(ends, plan, prompt, sizes)[1] / needed[1] for sizes in caches.values()]
        found = [work(ends, plan)[0] / needed[0], *keys]
        table.append([name, *(f"{x:.2f}" for x in found)])
    return text_table(["", "rows", *(f"keys, {name}" for name in caches)], table)


def work(
    ends: Sequence[int], plan: Plan, prompt: int = 0, caches: Sequence[int] = ()
) -> tuple[int, int]:
    """(row steps, keys read) of the decoding of rows that have `ends` tokens.

    A step of a batch of n rows counts n row steps. Each of them reads the keys of its prompt, and
    all slots of the smallest of the `caches` (ascending) that holds what is written; (): the cache
    is as long as the longest row. A row that took over a slot reads what its own tokens need.
    """
    limit = max(ends)
    caches = np.array(caches or [limit])
    read = prompt + caches[np.searchsorted(caches, np.arange(1, limit + 1))]
    read = np.append(0, np.cumsum(read))  # by the number of steps
    if plan.slots:
        idle = plan.slots * steps_with_slots(ends, plan.slots) - sum(ends)
        return sum(ends) + idle, int(read[list(ends)].sum() + idle * read[1])
    row_steps = keys = 0
    for part in np.split(np.array(ends), plan.parts):
        rows, shards, step = len(part), plan.shards, 0
        longest = np.sort(part.reshape(shards, -1))[:, ::-1].max(axis=0)
        sizes = [rows >> i for i in range(plan.halvings + 1) if rows % (shards << i) == 0]
        for size, fewer in zip(sizes, [*sizes[1:], 0], strict=True):
            until = max(step, int(longest[fewer // shards]))
            row_steps += size * (until - step)
            keys += size * int(read[until] - read[step])
            step = until
    return row_steps, keys


def _about(ends: Sequence[int]) -> str:
    limit = max(ends)
    share = np.mean([n == limit for n in ends])
    return f"{len(ends)} rows, {share:.0%} of {limit} tokens, mean {np.mean(ends):.0f}"


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
