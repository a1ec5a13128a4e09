"""Asks every judge about every answer, and writes the scores and their summary."""

import logging
from collections.abc import Sequence
from pathlib import Path

from permix_jax.core.files import write_json, write_rows
from permix_jax.core.randomness import generator
from permix_jax.personagym import judge_prompts
from permix_jax.personagym.asking import ReplyCache, ask
from permix_jax.personagym.benchmark import Answer, Benchmark, read_answers
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, Reply, check_judges
from permix_jax.personagym.scores import summarise_scores

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

    With `examples` the first judge writes a response of each score for each question, to be shown
    to all judges, as in the paper. The seed is that of the bootstrap.

    Raises FileNotFoundError or ValueError for answers or judges that cannot be used; OSError if the
    folder cannot be written; and JudgeError, which names the judges that failed, when the others
    have been asked. What was written is kept.
    """
    check_judges(judges)
    answers, out = read_answers(answers_path, benchmark.rubrics), Path(out_folder)
    rows, failures = [], []
    with ReplyCache(out / "replies.jsonl") as cache:
        sheets = [None] * len(answers)
        if examples:
            wanted = [judge_prompts.example_prompt(benchmark, answer) for answer in answers]
            sheets = _examples(judges[0], wanted, cache)
        pairs = zip(answers, sheets, strict=True)
        bare = [judge_prompts.score_prompt(benchmark, *pair) for pair in pairs]
        prompts = _as_asked(judges, bare, cache)
        for rater in judges:
            try:
                replies = ask(rater, prompts, cache, f"scores by {rater.name}")
            except JudgeError as error:
                failures.append(str(error))
                continue
            pairs = zip(answers, prompts, strict=True)
            rows += [_row(answer, rater, replies[prompt]) for answer, prompt in pairs]
    if failures:
        raise JudgeError(f"{'; '.join(failures)} (finished judgements are kept in {out_folder})")

    results = summarise_scores(rows, list(benchmark.rubrics), generator(seed, "judging"), resamples)
    results["examples"] = None
    if examples:
        whole = sum(judge_prompts.has_all_scores(sheet or "") for sheet in sheets)
        about = {"judge": judges[0].name, "answers": len(sheets)}
        results["examples"] = about | {"incomplete": len(sheets) - whole}
    for entry in results["by_judge"]:
        if entry["unreadable"]:
            _LOG.warning(
                "judge %(judge)s: %(unreadable)d of %(asked)d scores cannot be read and count in "
                "no mean (%(truncated)d replies cut off, %(refused)d prompts refused)",
                entry,
            )
    write_rows(out / "scores.jsonl", rows)
    write_json(out / "summary.json", results)
    return results


def _as_asked(
    judges: Sequence[Judge | LocalJudge], rubrics: list[Prompt], cache: ReplyCache
) -> list[Prompt]:
    """The rubrics with the demand for a final line.

    Earlier versions asked without it. A folder that holds replies to the bare rubrics keeps to
    them, so that they are not paid for twice, and all answers of a folder are judged alike.
    """
    if not any(cache.get(judge, rubric) for judge in judges for rubric in rubrics):
        return [rubric._replace(user=rubric.user + judge_prompts.FINAL_LINE) for rubric in rubrics]
    _LOG.warning(
        "replies.jsonl was begun by an earlier version, which did not ask judges for a line "
        '"Final score: N"; the rest is asked as it asked'
    )
    return rubrics


def _examples(
    rater: Judge | LocalJudge, prompts: list[Prompt], cache: ReplyCache
) -> list[str | None]:
    """For each prompt the score examples that it asks for; None if the judge refused."""
    try:
        replies = ask(rater, prompts, cache, f"score examples by {rater.name}")
    except JudgeError as error:
        said = f"{error} (it writes the score examples; finished ones are kept)"
        raise JudgeError(said) from None
    texts = [replies[prompt].text for prompt in prompts]
    return [judge_prompts.without_thinking(text or "").strip() or None for text in texts]


def _row(answer: Answer, rater: Judge | LocalJudge, reply: Reply) -> dict:
    """A row of scores.jsonl. `score` is null if none can be read, `reply` if there is none."""
    about = {"id": answer.id, "persona": answer.persona, "task": answer.task, "judge": rater.name}
    score = None if reply.text is None else judge_prompts.parse_score(reply.text, reply.truncated)
    reply = {"reply": reply.text, "truncated": reply.truncated, "refusal": reply.refusal}
    return {**about, "score": score, **reply}
