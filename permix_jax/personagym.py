"""PersonaGym for a run's checkpoint or any Hugging Face folder: its answers, then their judging."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from permix_jax.config import require_model_fits, require_valid
from permix_jax.evaluation.personagym.answering import FILE, AnswerSettings, answer, is_answered
from permix_jax.evaluation.personagym.benchmark import Question, load_benchmark
from permix_jax.evaluation.personagym.judges import read_judges
from permix_jax.evaluation.personagym.judging import judge
from permix_jax.evaluation.personagym.overview import overview
from permix_jax.evaluation.personagym.subsets import light, subsample
from permix_jax.evaluation.results import read_jsonl
from permix_jax.evaluations import checkpoint_of_run, config_of_model, run_identity, source_loader
from permix_jax.policies import build_policy
from permix_jax.rollout.sampling import Sampling
from permix_jax.sharding import make_mesh
from permix_jax.training.stop import Stopped, StopRequest
from permix_jax.workdir import cache_folder, use_compilation_cache


def personagym_of_run(config: ConfigDict, workdir: Path, step: int | None, out: Path) -> str:
    """Answers by a checkpoint of a run (None: the newest; 0: its base), and judges; see below.

    Model and LoRA have to be what the run's own config says.
    """
    _require_words(config)
    require_valid(config)
    step, load = checkpoint_of_run(config, workdir, step)
    return _personagym(config, load, run_identity(workdir, step, out), out, f"step {step}")


def personagym_of_model(config: ConfigDict, source: str, out: Path) -> str:
    """The same for a Hugging Face folder or hub id as it is."""
    config = config_of_model(config, source)
    require_valid(config)
    return _personagym(config, source_loader, {"model": source}, out, source)


def _personagym(
    config: ConfigDict, load: Callable, of: dict[str, Any], out: Path, label: str
) -> str:
    """Answers, unless that is done, then judges, if judges are named; returns what to print.

    Args:
      load: as `checkpoint_of_run` gives it.
      of: says which policy answers.
      out: the folder of answers.jsonl and of what `judge` writes.

    Raises:
      ValueError, FileNotFoundError, OSError: bad input or a full disk, in one line.
      JudgeError: a judge failed; answers and finished judgements are kept.
      Stopped: Ctrl-C, or SIGTERM while answering; what is done is kept.
    """
    p = config.personagym
    judges = read_judges(p.judges) if p.judges else []
    benchmark = load_benchmark(p.folder, cache_folder())
    questions = _questions(config, benchmark.questions)
    identity = {"policy": of, "config": _identity(config)}
    if not is_answered(questions, identity, out):
        _answer(config, load, questions, identity, out, label)
    note = _about_answers(out / FILE)
    if not judges:
        return f"{note}\njudge them with --config.personagym.judges=judges.jsonl (docs/judging.md)"
    try:
        summary = judge(out / FILE, out, judges, benchmark, p.examples, config.seed)
    except KeyboardInterrupt:
        raise Stopped from None
    return f"{note}\n\n{overview(summary)}"


def _answer(
    config: ConfigDict,
    load: Callable,
    questions: list[Question],
    identity: dict[str, Any],
    out: Path,
    label: str,
) -> None:
    p = config.personagym
    use_compilation_cache()
    mesh = make_mesh(**config.mesh)
    sampling = Sampling(
        p.max_new_tokens, p.temperature, top_p=p.top_p, halvings=config.rollout.halvings
    )
    settings = AnswerSettings(config.seed, p.batch_size, sampling)
    with jax.set_mesh(mesh), StopRequest() as stop:
        policy, initial_params = build_policy(config, cache_folder(), mesh)
        require_model_fits(policy.model.config, config)
        policy, load_params, *_ = load(policy, initial_params, mesh)
        answer(questions, policy, load_params, mesh, settings, identity, out, label, stop.check)


def _questions(config: ConfigDict, questions: list[Question]) -> list[Question]:
    p = config.personagym
    if p.light:
        questions = light(questions)
    try:
        return subsample(questions, p.personas, p.per_task, config.seed)
    except ValueError as error:
        raise ValueError(f"personagym.{error}") from None


def _identity(config: ConfigDict) -> dict[str, Any]:
    """The fields of the config that answers depend on, beside the questions."""
    parts = {
        "model": set(config.model) - {"head_chunk", "remat"},
        "lora": set(config.lora),
        "personagym": {"temperature", "top_p", "max_new_tokens", "batch_size"},
    }
    fields = {part: {n: config[part][n] for n in sorted(names)} for part, names in parts.items()}
    return {"seed": config.seed, **fields}


def _about_answers(path: Path) -> str:
    rows = read_jsonl(path)
    cut = sum(row["truncated"] for row in rows)
    empty = sum(not row["response"].strip() for row in rows)
    return (
        f"{len(rows)} answers in {path}; {cut} cut off at personagym.max_new_tokens, {empty} empty"
    )


def _require_words(config: ConfigDict) -> None:
    if not config.model.source:
        raise ValueError(
            "model.source is '': the embedded world's policy lacks the words of PersonaGym's "
            "questions; use the run of a real model, or --model=DIR"
        )
