"""Asks every judge about every answer, and writes the scores and their summary."""

import logging
from collections.abc import Sequence
from pathlib import Path

from permix_jax.core.files import write_json, write_rows
from permix_jax.core.randomness import generator
from permix_jax.personagym.answers import Answer, read_answers
from permix_jax.personagym.asking import ask
from permix_jax.personagym.benchmark import Benchmark
from permix_jax.personagym.cache import ReplyCache
from permix_jax.personagym.judge_prompts import (
    Prompt,
    example_prompt,
    has_all_scores,
    score_prompt,
    with_final_line,
)
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, check_judges
from permix_jax.personagym.scores import summarise_scores
from permix_jax.personagym.verdict import parse_score, without_thinking

_LOG = logging.getLogger(__name__)


def judge(
    answers_path: str | Path,
    out_folder: Path,
    judges: Sequence[Judge | LocalJudge],
    benchmark: Benchmark,
    examples: bool = True,
    seed: int = 0,
    resamples: int = 2000,
) -> dict:
    """Writes replies.jsonl as replies come, then scores.jsonl and summary.json, which it returns.

    A prompt that a judge has answered in an earlier call is not put to it again.

    Args:
      answers_path: JSONL of Answer.
      examples: whether the first judge writes a response of each score for each question, to be
        shown to all judges, as in the paper.
      seed: of the bootstrap.

    Raises:
      FileNotFoundError, ValueError: answers or judges that cannot be used.
      JudgeError: names the judges that failed. The others have been asked, and all replies kept.
      OSError: the folder cannot be written; what was written is kept.
    """
    check_judges(judges)
    answers = read_answers(answers_path, benchmark.rubrics)
    with ReplyCache(Path(out_folder) / "replies.jsonl") as cache:
        sheets = [None] * len(answers)
        if examples:
            sheets = _examples(judges[0], answers, benchmark, cache)
        pairs = zip(answers, sheets, strict=True)
        prompts = _as_asked(judges, [score_prompt(benchmark, *pair) for pair in pairs], cache)
        rows, failures = [], []
        for rater in judges:
            try:
                replies = ask(rater, prompts, cache, f"scores by {rater.name}")
            except JudgeError as error:
                failures.append(str(error))
                continue
            rows += [
                _row(answer, rater, replies[prompt])
                for answer, prompt in zip(answers, prompts, strict=True)
            ]
    if failures:
        raise JudgeError(f"{'; '.join(failures)} (finished judgements are kept in {out_folder})")

    results = summarise_scores(rows, list(benchmark.rubrics), generator(seed, "judging"), resamples)
    results["examples"] = None
    if examples:
        incomplete = sum(sheet is None or not has_all_scores(sheet) for sheet in sheets)
        about = {"judge": judges[0].name, "answers": len(sheets), "incomplete": incomplete}
        results["examples"] = about
    for entry in results["by_judge"]:
        if entry["unreadable"]:
            _LOG.warning(
                "judge %(judge)s: %(unreadable)d of %(asked)d scores cannot be read and count in "
                "no mean (%(truncated)d replies cut off, %(refused)d prompts refused)",
                entry,
            )
    write_rows(Path(out_folder) / "scores.jsonl", rows)
    write_json(Path(out_folder) / "summary.json", results)
    return results


def _as_asked(
    judges: Sequence[Judge | LocalJudge], rubrics: list[Prompt], cache: ReplyCache
) -> list[Prompt]:
    """The rubrics with the demand for a final line.

    Earlier versions asked without it. A folder that holds replies to the bare rubrics keeps to
    them, so that they are not paid for twice, and all answers of a folder are judged alike.
    """
    if not any(cache.get(judge, rubric) for judge in judges for rubric in rubrics):
        return [with_final_line(rubric) for rubric in rubrics]
    _LOG.warning(
        "replies.jsonl was begun by an earlier version, which did not ask judges for a line "
        '"Final score: N"; the rest is asked as it asked'
    )
    return rubrics


def _examples(rater, answers, benchmark, cache) -> list[str | None]:
    """For each answer the score examples of its question; None if the judge refused."""
    prompts = [example_prompt(benchmark, answer) for answer in answers]
    try:
        replies = ask(rater, prompts, cache, f"score examples by {rater.name}")
    except JudgeError as error:
        raise JudgeError(
            f"{error} (it writes the score examples; finished ones are kept)"
        ) from None
    texts = [replies[prompt].text for prompt in prompts]
    return [without_thinking(text or "").strip() or None for text in texts]


def _row(answer: Answer, rater: Judge | LocalJudge, reply) -> dict:
    """A row of scores.jsonl. `score` is null if none can be read, `reply` if there is none."""
    return {
        "id": answer.id,
        "persona": answer.persona,
        "task": answer.task,
        "judge": rater.name,
        "score": None if reply.text is None else parse_score(reply.text, reply.truncated),
        "reply": reply.text,
        "truncated": reply.truncated,
        "refusal": reply.refusal,
    }
