"""This project: `permix_jax.train.grpo.train_grpo`, one step for each line (protocol.py).

Rollout: `RolloutWorker.sample`, from problems and personas to tokens and texts. Update: the rest of
the step. A row ends where its draw is replaced by the end token; all other draws of that token
become another one. Which row it is, and how far it is, is read from the key of the draw, wherever
the row is computed.

The config is configs/permix.py with the work's sizes, KL 0, and what `make_config` sets.
"""

import runpy
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from protocol import END, PAD, Session, compile_seconds, reward, tokenizer

from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem, Task
from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.models.transformer import Decoder
from permix_jax.rewards.verifier import Verifier
from permix_jax.rollout import sampler
from permix_jax.train.grpo import train_grpo
from permix_jax.train.rollouts import RolloutWorker
from permix_jax.train.run import Run

ROOT = Path(__file__).parents[2]
STEPS = 100  # more than will be asked for


def main() -> None:
    session, compiled = Session(), compile_seconds()
    work = session.work
    config = make_config(work)
    task, mesh = make_task(work), make_mesh(**config.mesh)
    model = Decoder(config_from_hf(work["shape"]))
    policy = Policy(model, tokenizer(work["shape"]["vocab_size"]), (END,))
    sampler.draw = scripted(sampler.draw, work, config.seed)
    lengths: list[int] = []
    RolloutWorker.sample = in_phases(RolloutWorker.sample, session, lengths)

    def load_params() -> dict:
        return create_params(model, key(config.seed, "model"), mesh)

    def wait() -> None:
        if not session.wait():
            raise SystemExit

    def after_step(params, step: int) -> None:
        session.done(lengths, compile_seconds=compiled())
        wait()

    session.ready(
        versions={name: version(name) for name in ("permix_jax", "jax", "flax")},
        settings=f"{config.train.micro_batch_tokens} tokens a micro-batch",
    )
    wait()
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
        base, workdir = StoredPolicy("base", policy, mesh, load_params), Path(folder)
        run = Run(config, workdir, task, policy, base, workdir, Verifier(grade))
        with run.verifier, run.stop:
            train_grpo(run, after_step)


def make_config(work: dict):
    """The config of a run that does the work."""
    c = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]().unlock()
    c.task.name = "problems"
    c.sft.steps = 0
    c.model.head_chunk = 512
    c.train.steps = c.train.checkpoint_every = c.train.log_completions_every = STEPS
    c.train.problems_per_step = len(work["prompts"])
    c.train.micro_batch_tokens = 640
    c.train.learning_rate = 1e-6
    c.rollout.group_size = work["samples"]
    c.rollout.max_prompt_tokens = work["prompt_tokens"]
    c.rollout.max_new_tokens = work["limit"]
    c.rollout.halvings = 3
    c.personas.share = 1.0 if work["personas"] else 0.0
    c.grpo.kl_weight = 0.0
    return c.lock()


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
    """The sampler's `draw`, with rows that end as prescribed. A draw's key is its row's in this
    step, folded with the number of tokens that the row has."""
    fold = jax.vmap(jax.random.fold_in, (0, 0))
    lengths = np.array(work["lengths"])
    rows = np.flatnonzero(lengths < work["limit"])
    ends = []
    for step in range(1, STEPS + 1):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key(seed, "rollout", step), rows)
        ends.append(jax.random.key_data(fold(keys, lengths[rows] - 1)))
    ends = np.concatenate(ends)

    def scripted_draw(keys, logits, sampling):
        tokens, logprobs = draw(keys, logits, sampling)
        ending = (jax.random.key_data(keys)[:, None] == ends).all(axis=-1).any(axis=-1)
        tokens = jnp.where((tokens == END) | (tokens == PAD), END + 1, tokens)
        return jnp.where(ending, END, tokens), logprobs

    return scripted_draw


def in_phases(sample, session: Session, lengths: list[int]):
    """`RolloutWorker.sample`, between the phases, which leaves the lengths of its rows."""

    def sample_in_phases(*args, **kwargs):
        session.phase("rollout")
        sampled = sample(*args, **kwargs)
        lengths[:] = np.asarray(sampled.batch.completions.mask).sum(axis=1).tolist()
        session.phase("update")
        return sampled

    return sample_in_phases


if __name__ == "__main__":
    main()
