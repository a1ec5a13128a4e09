"""Part 5 of benchmarks/accelerator.py: RLVR and PerMix of SmolLM2 on one-step arithmetic.

The preset smollm2_arithmetic, 150 steps of each method, or as many as there is time for. PerMix
comes first, and RLVR takes at most as many steps. Of the base and of both: accuracy and PSS under
held-out personas; and how often the base's likelihood finds the persona that a policy plays, among
four, in answers to conversation prompts.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from accelerator_record import Given, Tell
from accelerator_values import arithmetic_config
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import asked_personas, build_run, judge_free_settings
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.evaluations import evaluate_policy, make_reference
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.results import read_evaluation
from permix_jax.models.policy import StoredPolicy
from permix_jax.personagym.answering import AnswerSettings, answer, personagym_judge_free
from permix_jax.personagym.benchmark import Question
from permix_jax.personas.conversation import CONVERSATION
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.grpo import train_grpo
from permix_jax.train.log import read_rows
from permix_jax.train.loop import Verdict
from permix_jax.train.run import Run

_STEPS, _EVERY = 150, 10  # steps between two points of a curve
_SHARES = {"permix": 0.75, "rlvr": 0.0}  # personas.share of each method
_CANDIDATES, _ANSWER_TOKENS = 4, 48
_STABILITY = ("pss", "accuracy_worst", "accuracy_mean", "accuracy_best", "accuracy_no_persona")


def measure(given: Given, tell: Tell) -> None:
    """Tells of the base, and of each method's curve and end. Raises where there are no weights."""
    weights, goal = given.need_weights(), 2 if given.tiny else _STEPS
    mesh = make_mesh(1, 1, 1)
    with compiled_programs(), jax.set_mesh(mesh):
        begin = time.time()
        for method, share in _SHARES.items():
            config = config_of(weights, given.tiny, share)
            with Experiment(config, given.scratch / method, mesh, given.tiny, tell) as experiment:
                if method == "permix":  # the base is the same for both
                    tell("base", experiment.judged("base", experiment.run.base))
                    judging = time.time() - begin  # compiling included, so later ones take less
                rest = 2 if method == "permix" else 1  # methods that are still to come
                until = time.time() + (given.left() - rest * judging) / rest
                policy, goal = experiment.train(method, goal, until)
                tell(method, {"steps": goal, **experiment.judged(method, policy)})


def config_of(weights: Path, tiny: bool, share: float) -> ConfigDict:
    """The preset, with nothing saved and no evaluation that is not asked for."""
    steps = _STEPS + 1  # the last one, which would be saved, is never reached
    fields = {"personas__share": share, "train__steps": steps, "train__checkpoint_every": steps}
    fields |= {"train__log_completions_every": steps}
    fields |= {"eval__judge_free_candidates": 2 if tiny else _CANDIDATES}
    if not tiny:
        fields["eval__batch_size"] = 512
    return arithmetic_config(weights, tiny, **fields)


class Experiment:
    """A run that is trained for as long as there is time, and judged. A context manager."""

    def __init__(self, config: ConfigDict, workdir: Path, mesh: Mesh, tiny: bool, tell: Tell):
        self.run: Run = build_run(config, workdir, mesh)
        self._tell, self._tiny = tell, tiny

    def __enter__(self) -> "Experiment":
        self.run.verifier.__enter__()
        self.run.stop.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.run.stop.__exit__(*error)
        self.run.verifier.__exit__(*error)

    def train(self, method: str, goal: int, until: float) -> tuple[StoredPolicy, int]:
        """The policy after `goal` steps, or when the time is over, and its step."""
        rows, last = self.run.workdir / "metrics.jsonl", time.time()

        def after_step(params: dict, step: int) -> Verdict:
            nonlocal last
            now, before = time.time(), last
            last = now
            ends = step >= goal or 2 * now - before > until
            if ends or step % _EVERY == 0:
                self._tell(f"{method}, curve", curve(read_rows(rows)))
            return Verdict(None, ends)

        state = train_grpo(self.run, after_step)
        policy = replace(self.run.at(0), name=method, load_params=partial(_same, state.policy))
        return policy, int(state.step)

    def judged(self, name: str, policy: StoredPolicy) -> dict[str, Any]:
        """PSS and accuracies, and the share of answers whose persona is found, with its chance."""
        folder = self.run.workdir / "eval" / name
        evaluate_policy(self.run, policy, {"policy": name}, folder)
        stability = read_evaluation(folder).stability
        figures = {key.removeprefix("accuracy_"): stability[key] for key in _STABILITY}
        return figures | self._identified(name, policy, folder / "conversation")

    def _identified(self, name: str, policy: StoredPolicy, folder: Path) -> dict[str, Any]:
        run, c = self.run, self.run.config
        prompts = CONVERSATION[:2] if self._tiny else CONVERSATION
        questions = [
            Question(f"{who.id}-{i}", who.name, "conversation", text)
            for who in asked_personas(c, run.task)
            for i, text in enumerate(prompts)
        ]
        most = c.rollout.max_new_tokens if self._tiny else _ANSWER_TOKENS
        settings = AnswerSettings(c.seed, c.eval.batch_size, Sampling(most))
        answer(questions, policy, settings, {"policy": name}, folder)
        reference = make_reference(c, run.base, run.base_folder, c.eval.batch_size, run.stop.check)
        found = personagym_judge_free(reference, judge_free_settings(c), folder, name)
        identification = found["identification"] or {}
        keys = {"identified": "share", "identified_ci95": "share_ci95", "chance": "chance"}
        return {key: identification.get(of) for key, of in keys.items()}


def curve(rows: list[dict]) -> dict[str, Any]:
    """The mean reward of every so many steps, and what a step of the later half takes."""
    ends = [*range(_EVERY, len(rows), _EVERY), len(rows)]
    parts = [rows[max(0, end - _EVERY) : end] for end in ends]
    later = rows[len(rows) // 2 :]

    def median(name: str) -> float:
        return float(np.median([row[name] for row in later]))

    return {
        "steps": ends,
        "reward": [float(np.mean([row["reward"] for row in part])) for part in parts],
        "rollout_seconds": median("time/rollout"),
        "update_seconds": median("time/update"),
        "kl": later[-1].get("kl"),
    }


def _same(params: dict) -> dict:
    return params
