"""PersonaGym for a run's checkpoint or any Hugging Face folder: its answers, then their judging."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import judge_free_settings
from permix_jax.app.compilation import use_compilation_cache
from permix_jax.app.evaluations import make_reference, reference_name, require_reference
from permix_jax.app.policies import Subject, named_model, subject_of_model, subject_of_run
from permix_jax.app.validation import require_model_fits, require_valid
from permix_jax.app.workdir import cache_folder
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.files import write_json
from permix_jax.core.sharding import make_mesh
from permix_jax.core.stop import Stopped, StopRequest
from permix_jax.evaluation import judge_free
from permix_jax.evaluation.results import read_json, read_jsonl
from permix_jax.models.policy import LoadedPolicy
from permix_jax.personagym.answering import FILE, AnswerSettings, answer, is_answered
from permix_jax.personagym.benchmark import Question, load_benchmark
from permix_jax.personagym.endpoint import Endpoint
from permix_jax.personagym.judges import Judge, JudgeError, ModelJudge, read_judges
from permix_jax.personagym.judging import judge
from permix_jax.personagym.likelihoods import personagym_judge_free
from permix_jax.personagym.model_judge import with_models
from permix_jax.personagym.subsets import light, subsample
from permix_jax.personagym.tables_of_scores import judge_free_text, scores_text
from permix_jax.rollout.sampling import Sampling


def personagym_of_run(config: ConfigDict, workdir: Path, step: int | None, out: Path) -> str:
    """Answers by a checkpoint of a run (None: the newest; 0: its base), and judges; see below.

    Model and LoRA have to be what the run's own config says.
    """
    _require_words(config)
    require_valid(config)
    return _personagym(subject_of_run(config, workdir, step, out))


def personagym_of_model(config: ConfigDict, source: str, out: Path) -> str:
    """The same for a Hugging Face folder or hub id as it is."""
    subject = subject_of_model(config, source, out)
    require_valid(subject.config)
    return _personagym(subject)


def _personagym(subject: Subject) -> str:
    """Answers and their likelihoods, unless that is done, then judges, if judges are named.

    Returns what to print.

    Raises:
      ValueError, FileNotFoundError, OSError: bad input or a full disk, in one line.
      JudgeError: a judge failed; answers and finished judgements are kept.
      Stopped: Ctrl-C, or SIGTERM while answering; what is done is kept.
    """
    config, p, out = subject.config, subject.config.personagym, subject.folder
    judges = read_judges(p.judges) if p.judges else []
    benchmark = load_benchmark(p.folder, cache_folder())
    questions = _questions(config, benchmark.questions)
    identity = {"policy": subject.of, "config": _identity(config)}
    if not (is_answered(questions, identity, out) and _is_measured(subject)):
        _ask_and_measure(subject, questions, identity, judges)
    printed = [_about_answers(out / FILE)]
    if p.candidates:
        printed.append(judge_free_text(read_json(out / judge_free.FILE)))
    if not judges:
        hint = "judge them with --config.personagym.judges=judges.jsonl (docs/judging.md)"
        return "\n\n".join([*printed, hint])
    opened = with_models(judges, partial(_open_judge, config))
    try:
        summary = judge(out / FILE, out, opened, benchmark, p.examples, config.seed)
    except KeyboardInterrupt:
        raise Stopped from None
    return "\n\n".join([*printed, scores_text(summary)])


def _ask_and_measure(
    subject: Subject,
    questions: list[Question],
    identity: dict[str, Any],
    judges: Sequence[Judge | ModelJudge],
) -> None:
    config, p, out = subject.config, subject.config.personagym, subject.folder
    use_compilation_cache()
    mesh = make_mesh(**config.mesh)
    sampling = Sampling(
        p.max_new_tokens, p.temperature, top_p=p.top_p, halvings=config.rollout.halvings
    )
    settings = AnswerSettings(config.seed, p.batch_size, sampling)
    with jax.set_mesh(mesh), StopRequest() as stop:
        asked, base = subject.open(mesh)
        require_model_fits(asked.policy.model.config, config)
        _require_scorers(subject, judges, mesh)
        answer(questions, asked, settings, identity, out, stop.check)
        if not _is_measured(subject):
            base = replace(base, name=reference_name(config, subject.base))
            reference = make_reference(config, base, p.batch_size, stop.check)
            settings = _judge_free_settings(config)
            figures = personagym_judge_free(reference, settings, out, asked.name)
            write_json(out / judge_free.FILE, figures)


def _is_measured(subject: Subject) -> bool:
    config = subject.config
    if not config.personagym.candidates:
        return True
    reference = reference_name(config, subject.base)
    return judge_free.claim(subject.folder, reference, _judge_free_settings(config))


def _judge_free_settings(config: ConfigDict) -> judge_free.JudgeFreeSettings:
    candidates = config.personagym.candidates
    return replace(judge_free_settings(config), candidates=candidates, questions=0)


def _require_scorers(subject: Subject, judges: Sequence[Judge | ModelJudge], mesh: Mesh) -> None:
    """Raises where what is to score the answers cannot be opened, or asked for want of a key.

    Reads no weights, and asks nothing.
    """
    config = subject.config
    if config.personagym.candidates and not (subject.folder / judge_free.FILE).exists():
        require_reference(config, mesh)
    for one in judges:
        if isinstance(one, ModelJudge):
            try:
                named_model(_config_of_judge(config, one), one.source, mesh)
            except (ValueError, OSError, ImportError) as error:
                raise JudgeError(f"judge {one.name!r}: {error}") from None
        else:
            Endpoint(one)


def _open_judge(config: ConfigDict, one: ModelJudge) -> LoadedPolicy:
    use_compilation_cache()
    mesh = make_mesh(**config.mesh)
    with jax.set_mesh(mesh):
        return named_model(_config_of_judge(config, one), one.source, mesh).load()


def _config_of_judge(config: ConfigDict, one: ModelJudge) -> ConfigDict:
    theirs = config.copy_and_resolve_references()
    theirs.model.dtype = theirs.model.param_dtype = one.dtype
    theirs.model.pad_token, theirs.model.thinking = one.pad_token, False
    return theirs


def _questions(config: ConfigDict, questions: list[Question]) -> list[Question]:
    p = config.personagym
    if p.light:
        questions = light(questions)
    try:
        questions = subsample(questions, p.personas, p.per_task, config.seed)
    except ValueError as error:
        raise ValueError(f"personagym.{error}") from None
    personas = len({question.persona for question in questions})
    if p.candidates > personas:
        raise ValueError(
            f"personagym.candidates is {p.candidates}; {personas} personas are asked, use 2 to "
            "that many, or 0"
        )
    return questions


def _identity(config: ConfigDict) -> dict[str, Any]:
    """The fields of the config that answers depend on, beside the questions."""
    whole = fixed_fields(config.to_dict())
    parts = {
        "model": set(whole["model"]),
        "lora": set(whole["lora"]),
        "personagym": {"temperature", "top_p", "max_new_tokens"},
    }
    fields = {part: {n: whole[part][n] for n in sorted(names)} for part, names in parts.items()}
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
