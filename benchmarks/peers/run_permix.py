"""This project: the steps of `permix_jax/training/grpo.py`, one for each line (protocol.py).

Rollout: `RolloutWorker.sample`, from problems and personas to tokens and texts. Update: the run's
update program. A row ends where its draw is replaced by the end token; all other draws of that
token become another one. Which row it is, and how far it is, is read from the key of the draw,
wherever the row is computed.

The config is configs/permix.py with the work's sizes, KL 0, and what `make_config` sets.
"""

import runpy
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from protocol import END, PAD, Session, compile_seconds, reward, tokenizer

from permix_jax.models.huggingface import config_from_hf
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.mixture import build_mixture
from permix_jax.personas.persona import Persona
from permix_jax.randomness import key
from permix_jax.rewards.terms import reward_terms
from permix_jax.rewards.verifier import Verifier
from permix_jax.rollout import sampler
from permix_jax.sharding import make_mesh
from permix_jax.tasks.problem import Problem, Task
from permix_jax.training.programs import grpo_programs
from permix_jax.training.rollouts import RolloutWorker
from permix_jax.training.state import create_state

ROOT = Path(__file__).parents[2]
STEP = 1  # the same one each time, so that a row has the same keys


def main() -> None:
    session = Session()
    compiled = compile_seconds()
    config = make_config(session.work)
    sampler.draw = scripted(sampler.draw, session.work, config.seed)
    mesh = make_mesh(**config.mesh)
    with jax.set_mesh(mesh), Verifier(grade, workers=0) as verifier:
        step = make_step(session, config, mesh, verifier)
        session.ready(
            versions={name: version(name) for name in ("permix_jax", "jax", "flax")},
            settings=f"{config.train.micro_batches} micro-batches",
        )
        while session.wait():
            lengths = step()
            session.done(lengths, compile_seconds=compiled())


def make_config(work: dict):
    """The config of a run that does the work."""
    c = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]().unlock()
    c.task.name = "problems"
    c.model.head_chunk = 512
    c.train.problems_per_step = len(work["prompts"])
    c.train.micro_batches = len(work["prompts"])
    c.train.learning_rate = 1e-6
    c.rollout.group_size = work["samples"]
    c.rollout.max_prompt_tokens = work["prompt_tokens"]
    c.rollout.max_new_tokens = work["limit"]
    c.rollout.halvings = 2
    c.personas.share = 1.0 if work["personas"] else 0.0
    c.grpo.kl_weight = 0.0
    return c.lock()


def make_step(session: Session, config, mesh, verifier: Verifier):
    """A function that does one step and returns the lengths of its rows."""
    shape = session.work["shape"]
    model = Decoder(config_from_hf(shape))
    policy = Policy(model, tokenizer(shape["vocab_size"]), (END,))
    task = make_task(session.work)
    terms = reward_terms(config.rewards, config.rewards.overlong_tokens)
    mixture = build_mixture(task.personas, config.personas)
    worker = RolloutWorker(config, task, policy, mesh, mixture, verifier, terms)
    programs = grpo_programs(config, model, mesh)
    params = create_params(model, key(config.seed, "model"), mesh)
    state = create_state(params, programs.optimizer, programs.shardings)
    del params  # the state has its own copy

    def step() -> np.ndarray:
        nonlocal state
        session.phase("rollout")
        sampled = worker.sample(state.params, STEP, {})
        session.phase("rest")
        batch = worker.grade(sampled).batch
        session.phase("update")
        state, metrics = jax.block_until_ready(programs.update(state, batch, {}))
        session.phase("rest")
        if not np.isfinite(metrics["loss"]):
            raise ValueError(f"the loss is {metrics['loss']}")
        return np.asarray(batch.completion_mask).sum(axis=1)

    return step


def make_task(work: dict) -> Task:
    """The prompts of the work; with personas, the first quarter of each is the persona's."""
    problems, personas = [], []
    for i, text in enumerate(work["prompts"]):
        words = text.split()
        cut = len(words) // 4 if work["personas"] else 0
        problems.append(Problem(str(i), " ".join(words[cut:]), "", "benchmark"))
        personas.append(Persona(str(i), "", " ".join(words[:cut]), "benchmark", "train"))
    return Task("benchmark", problems, (), personas, grade, None)


def grade(text: str, problem: Problem) -> float:
    return reward(text)


def scripted(draw, work: dict, seed: int):
    """The sampler's `draw`, with rows that end as prescribed. A draw's key is its row's, folded
    with the number of tokens that the row has."""
    rows = jnp.arange(len(work["lengths"]))
    last = jnp.array(work["lengths"]) - 1
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key(seed, "rollout", STEP), rows)
    ends = jax.random.key_data(jax.vmap(jax.random.fold_in)(keys, last))
    ends = np.asarray(ends)[np.asarray(last) + 1 < work["limit"]]

    def scripted_draw(keys, logits, sampling):
        tokens, logprobs = draw(keys, logits, sampling)
        ending = (jax.random.key_data(keys)[:, None] == ends).all(axis=-1).any(axis=-1)
        tokens = jnp.where((tokens == END) | (tokens == PAD), END + 1, tokens)
        return jnp.where(ending, END, tokens), logprobs

    return scripted_draw


if __name__ == "__main__":
    main()
