"""Counts what a run or an evaluation still has to do, before it begins."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.app.best import last_step
from permix_jax.app.build import asked_personas, eval_settings, kl_settings
from permix_jax.app.workdir import newest_saved_step
from permix_jax.core.problem import Task
from permix_jax.core.progress import EVALUATION, KL, LIKELIHOODS, RESPONSES, SFT, TRAINING, Phase
from permix_jax.evaluation.divergence import responses_asked
from permix_jax.evaluation.evaluate import answers_asked
from permix_jax.evaluation.judge_free import FILE
from permix_jax.train.programs import rollouts_per_step
from permix_jax.train.run import Run


def phases_of_run(run: Run) -> list[Phase]:
    """The phases of `experiment.run`, without what is done."""
    config, task, workdir = run.config, run.task, run.workdir
    t, e = config.train, config.eval
    last = last_step(config, workdir)
    evaluated = [0, *(range(e.every, last, e.every) if e.every else ()), last]
    folders = [workdir / "eval" / str(step) for step in evaluated]
    sft = config.sft.steps - newest_saved_step(run.base_folder)
    steps = last - newest_saved_step(workdir)
    responses = rollouts_per_step(config)
    ask_kl = e.kl_responses and not (folders[-1] / "kl.json").exists()
    kl = responses_asked(kl_settings(config, task)) if ask_kl else 0
    return [
        Phase(SFT, sft, "steps of SFT", "sft"),
        Phase(TRAINING, steps, f"steps of {t.method} with {responses} responses each", "training"),
        *phases_of_evaluations(run, folders, [folders[0], folders[-1]]),
        Phase(KL, kl, "responses for the KL", RESPONSES),
    ]


def phases_of_evaluations(
    run: Run, folders: Sequence[Path], measured: Sequence[Path]
) -> list[Phase]:
    """The phases of evaluations into `folders`; `measured` are those measured without a judge."""
    config, task = run.config, run.task
    personas = asked_personas(config, task)
    unfinished = [folder for folder in folders if not (folder / "stability.json").exists()]
    each = answers_asked(task, personas, eval_settings(config))
    files = [folder / "completions.jsonl" for folder in unfinished]
    done = sum(file.read_bytes().count(b"\n") for file in files if file.exists())
    answers = each * len(unfinished) - done
    unmeasured = sum(not (folder / FILE).exists() for folder in measured)
    likelihoods = unmeasured * _likelihoods_asked(config, task, len(personas))
    return [
        Phase(EVALUATION, answers, "answers to evaluate", RESPONSES),
        Phase(LIKELIHOODS, likelihoods, "likelihoods", "likelihoods"),
    ]


def _likelihoods_asked(config: ConfigDict, task: Task, personas: int) -> int:
    """How many likelihoods an evaluation needs: of each answer under each candidate and under none.

    Answers without a token are counted, although they are not scored.
    """
    e = config.eval
    if not e.judge_free_candidates:
        return 0
    played = len(task.role_play) if task.in_style else 0
    most = e.judge_free_questions or max(len(task.test), played)
    each = min(len(task.test), most) * e.samples + min(played, most) * e.role_play_samples
    return each * personas * (e.judge_free_candidates + 1)
