"""PersonaGym for a checkpoint of a run or any Hugging Face folder: it answers, and is judged."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import identity, judge_free_settings
from permix_jax.app.compilation import use_compilation_cache
from permix_jax.app.evaluations import make_reference, open_reference, reference_name
from permix_jax.app.policies import Subject, named_model
from permix_jax.app.validation import require_model_fits
from permix_jax.app.workdir import cache_folder
from permix_jax.core.files import write_json
from permix_jax.core.sharding import make_mesh
from permix_jax.core.stop import Stopped, StopRequest
from permix_jax.evaluation import judge_free
from permix_jax.evaluation.results import read_json, read_jsonl
from permix_jax.models.policy import LoadedPolicy, StoredPolicy
from permix_jax.personagym.answering import (
    FILE,
    AnswerSettings,
    answer,
    is_answered,
    personagym_judge_free,
)
from permix_jax.personagym.asking import Endpoint
from permix_jax.personagym.benchmark import Question, light, load_benchmark, subsample
from permix_jax.personagym.judges import Judge, JudgeError, ModelJudge, read_judges
from permix_jax.personagym.judging import judge
from permix_jax.personagym.model_judge import with_models
from permix_jax.personagym.scores import judge_free_text, scores_text
from permix_jax.rollout.sampling import Sampling


def personagym(subject: Subject) -> str:
    """Answers and their likelihoods, unless they are there, then judges, if the config names any.

    Returns what to print. Raises ValueError or OSError, in one line, for bad input or a full disk;
    JudgeError where a judge failed; Stopped for Ctrl-C, or SIGTERM while answering. What is done is
    kept.
    """
    config, p, out = subject.config, subject.config.personagym, subject.folder
    if not config.model.source:
        raise ValueError(
            "model.source is '': the embedded world's policy lacks the words of PersonaGym's "
            "questions; use the run of a real model, or --model=DIR"
        )
    judges = read_judges(p.judges) if p.judges else []
    benchmark = load_benchmark(p.folder, cache_folder())
    questions = _questions(config, benchmark.questions)
    asked = {"temperature", "top_p", "max_new_tokens"}
    answered = {"policy": subject.of, "config": identity(config, personagym=asked)}
    if not (is_answered(questions, answered, out) and _is_measured(subject)):
        _ask_and_measure(subject, questions, answered, judges)
    rows = read_jsonl(out / FILE)
    cut = sum(row["truncated"] for row in rows)
    empty = sum(not row["response"].strip() for row in rows)
    limits = f"{cut} cut off at personagym.max_new_tokens, {empty} empty"
    printed = [f"{len(rows)} answers in {out / FILE}; {limits}"]
    if p.candidates:
        printed.append(judge_free_text(read_json(out / judge_free.FILE)))
    if judges:
        opened = with_models(judges, partial(_open_judge, config))
        try:
            summary = judge(out / FILE, out, opened, benchmark, p.examples, config.seed)
        except KeyboardInterrupt:
            raise Stopped from None
        printed.append(scores_text(summary))
    else:
        printed.append("judge them with --config.personagym.judges=judges.jsonl (docs/judging.md)")
    return "\n\n".join(printed)


def _questions(config: ConfigDict, questions: list[Question]) -> list[Question]:
    """The questions that the config asks; ValueError where it asks for more than there are."""
    p = config.personagym
    try:
        asked = light(questions) if p.light else questions
        questions = subsample(asked, p.personas, p.per_task, config.seed)
    except ValueError as error:
        raise ValueError(f"personagym.{error}") from None
    personas = len({question.persona for question in questions})
    if p.candidates > personas:
        raise ValueError(
            f"personagym.candidates is {p.candidates}; {personas} personas are asked, use 2 to "
            "that many, or 0"
        )
    return questions


def _ask_and_measure(
    subject: Subject,
    questions: list[Question],
    answered: dict[str, Any],
    judges: Sequence[Judge | ModelJudge],
) -> None:
    config, p, out = subject.config, subject.config.personagym, subject.folder
    use_compilation_cache()
    mesh = make_mesh(**config.mesh)
    halvings = config.rollout.halvings
    sampling = Sampling(p.max_new_tokens, p.temperature, top_p=p.top_p, halvings=halvings)
    settings = AnswerSettings(config.seed, p.batch_size, sampling)
    with jax.set_mesh(mesh), StopRequest() as stop:
        asked, base = subject.open(mesh)
        require_model_fits(asked.policy.model.config, config)
        _require_scorers(subject, judges, mesh)
        answer(questions, asked, settings, answered, out, stop.check)
        if not _is_measured(subject):
            reference = make_reference(config, base, subject.base, p.batch_size, stop.check)
            settings = _judge_free_settings(config)
            figures = personagym_judge_free(reference, settings, out, asked.name)
            write_json(out / judge_free.FILE, figures)


def _is_measured(subject: Subject) -> bool:
    """Whether the likelihoods are there, or not asked for."""
    config, name = subject.config, reference_name(subject.config, subject.base)
    settings = _judge_free_settings(config)
    return not config.personagym.candidates or judge_free.claim(subject.folder, name, settings)


def _judge_free_settings(config: ConfigDict) -> judge_free.JudgeFreeSettings:
    candidates = config.personagym.candidates
    return replace(judge_free_settings(config), candidates=candidates, questions=0)


def _require_scorers(subject: Subject, judges: Sequence[Judge | ModelJudge], mesh: Mesh) -> None:
    """Raises where the reference or a judge cannot be opened, or an endpoint's key is missing."""
    config = subject.config
    if config.personagym.candidates and not (subject.folder / judge_free.FILE).exists():
        open_reference(config, mesh)
    for one in judges:
        if isinstance(one, ModelJudge):
            try:
                _policy_of_judge(config, one, mesh)
            except (ValueError, OSError, ImportError) as error:
                raise JudgeError(f"judge {one.name!r}: {error}") from None
        else:
            Endpoint(one)


def _open_judge(config: ConfigDict, one: ModelJudge) -> LoadedPolicy:
    use_compilation_cache()
    mesh = make_mesh(**config.mesh)
    with jax.set_mesh(mesh):
        return _policy_of_judge(config, one, mesh).load()


def _policy_of_judge(config: ConfigDict, one: ModelJudge, mesh: Mesh) -> StoredPolicy:
    config = config.copy_and_resolve_references()
    config.model.dtype = config.model.param_dtype = one.dtype
    config.model.pad_token, config.model.thinking = one.pad_token, False
    return named_model(config, one.source, mesh)
