"""Tunix: `GRPOLearner.train`, one step for each line (protocol.py).

Rollout: `RLCluster.generate` with the vanilla sampler, all rows at once, from strings to strings.
Update: `RLCluster.update_actor`. Between steps the learner waits for its next batch of prompts. A
row ends where its logits are changed so that it draws the end token; nowhere else can it draw that
one. The learner cuts the end token off completions, so it is added to their lengths here.

Options: those of its GRPO example, but beta 0 (then there is no reference and no log-probs before
the update), full sampling, a cache no longer than the rows, no rematerialisation, and PROMPTS
prompts with all their samples a micro-batch.
"""

from collections.abc import Iterator
from importlib.metadata import version

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import AxisType
from protocol import END, PAD, Session, compile_seconds, reward, tokenizer
from tunix.models.llama3.model import Llama3, ModelConfig
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

PROMPTS = 1  # of a micro-batch
STEPS = 1_000_000  # more than will be asked for


def main() -> None:
    session = Session()
    work = session.work
    cluster = make_cluster(work)
    sampler = cluster.rollout._sampler
    sampler._sample = scripted(sampler._sample, work)
    lengths: list[int] = []
    cluster.generate = session.in_phase("rollout", keep_lengths(cluster.generate, lengths, work))
    cluster.update_actor = session.in_phase(
        "update", once_to_warm_up(cluster.update_actor, session)
    )
    learner = GRPOLearner(
        rl_cluster=cluster,
        algo_config=GRPOConfig(num_generations=work["samples"], beta=0.0),
        reward_fns=rewards,
    )
    session.ready(
        versions={name: version(name) for name in ("google-tunix", "jax", "flax")},
        settings=f"{PROMPTS * work['samples']} rows a micro-batch, no rematerialisation",
    )
    learner.train(batches(session, sampler, lengths))


def make_cluster(work: dict) -> RLCluster:
    shape, prompts = work["shape"], len(work["prompts"])
    model = Llama3(
        ModelConfig(
            num_layers=shape["num_hidden_layers"],
            vocab_size=shape["vocab_size"],
            embed_dim=shape["hidden_size"],
            hidden_dim=shape["intermediate_size"],
            num_heads=shape["num_attention_heads"],
            head_dim=shape["hidden_size"] // shape["num_attention_heads"],
            num_kv_heads=shape["num_key_value_heads"],
            rope_theta=shape["rope_theta"],
            norm_eps=shape["rms_norm_eps"],
            weight_tying=shape["tie_word_embeddings"],
        ),
        rngs=nnx.Rngs(0),
    )
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(AxisType.Auto,) * 2)
    adamw = optax.adamw(1e-6, b1=0.9, b2=0.99, weight_decay=0.1)
    training = RLTrainingConfig(
        actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), adamw),
        eval_every_n_steps=STEPS,
        max_steps=STEPS,
        mini_batch_size=prompts,
        train_micro_batch_size=PROMPTS,
        rollout_micro_batch_size=prompts,
        compute_logps_micro_batch_size=prompts,
    )
    rollout = RolloutConfig(
        max_tokens_to_generate=work["limit"],
        max_prompt_length=work["prompt_tokens"],
        kv_cache_size=work["prompt_tokens"] + work["limit"],
        temperature=1.0,
        top_p=1.0,
        top_k=None,
    )
    return RLCluster(
        actor=model,
        tokenizer=tokenizer(shape["vocab_size"]),
        cluster_config=ClusterConfig(
            role_to_mesh=dict.fromkeys((Role.ACTOR, Role.REFERENCE, Role.ROLLOUT), mesh),
            training_config=training,
            rollout_config=rollout,
        ),
    )


def scripted(sample, work: dict):
    """The sampler's `_sample`, which sees each step's logits, with rows that end as prescribed."""
    ends = jnp.array([n if n < work["limit"] else 0 for n in work["lengths"]])

    def scripted_sample(logits, eos, cache, sampler_state):
        number = sampler_state.decoding_step - work["prompt_tokens"] + 2  # 1 is the first token's
        logits = logits[:, -1:].at[:, 0, PAD].set(-jnp.inf)
        logits = logits.at[:, 0, END].set(jnp.where(ends == number, 1e9, -jnp.inf))
        return sample(logits, eos, cache, sampler_state)

    return scripted_sample


def keep_lengths(generate, lengths: list[int], work: dict):
    """`RLCluster.generate`, which leaves the lengths of its rows, end tokens included."""

    def kept(*args, **kwargs):
        found = generate(*args, **kwargs)
        lengths[:] = [min(len(tokens) + 1, work["limit"]) for tokens in found.tokens]
        return found

    return kept


def once_to_warm_up(update_actor, session: Session):
    """`RLCluster.update_actor`, called for each micro-batch; the first one compiles everything."""
    warmed = False

    def update(*args, **kwargs):
        nonlocal warmed
        if session.wanted == "step" or not warmed:
            update_actor(*args, **kwargs)
        warmed = True

    return update


def batches(session: Session, sampler, lengths: list[int]) -> Iterator[dict]:
    """The learner's data: a batch when the driver wants a step; asking for the next one ends it."""
    compiled, make_state = compile_seconds(), sampler.init_sample_state

    def ended_state(*args, **kwargs):
        state = make_state(*args, **kwargs)
        return state.replace(done=jnp.ones_like(state.done))

    while wanted := session.wait():
        # Warming up takes the first token of each row, and not the rounds of the decode loop.
        sampler.init_sample_state = ended_state if wanted == "warm-up" else make_state
        yield {"prompts": session.work["prompts"]}
        session.done(lengths, compile_seconds=compiled())


def rewards(prompts, completions, **_) -> list[float]:
    return [reward(text) for text in completions]


if __name__ == "__main__":
    main()
