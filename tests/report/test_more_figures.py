"""More than PSS, from what runs left to tables: the same figures as in stability.json."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from commands import executed
from report_page import read_report, section
from synthetic_run import change, write_rows, write_run

from permix_jax.core.persona import Persona
from permix_jax.evaluation.results import read_evaluation
from permix_jax.report.compare import compare_runs, comparison_table
from permix_jax.report.comparison_page import compare
from permix_jax.report.more_figures import MORE
from permix_jax.report.overview import kinds_table, more_table, overview
from permix_jax.report.run_figures import read_run
from permix_jax.report.run_page import write_run_report
from permix_jax.stats.lottery import expected_worst
from permix_jax.stats.stability import PSS
from permix_jax.stats.summary import summarise

SETS = {"mood": "heldout", "idea": "heldout", "expertise": "heldout", "fact": "neutral"}
PEOPLE = [
    Persona(f"{category}-{i}", f"{category}-{i}", "You are it.", category, split)
    for category, split in SETS.items()
    for i in range(2)
]
PROBLEMS = 60
TEXT = {"prompt": "?", "completion": "!", "answer": "right", "truncated": False}


def write(workdir, accuracy: float, spread: float, seed: int, **kwargs):
    """A run whose personas lie so far apart; two samples, wrong answers 0 to 2."""
    write_run(workdir, steps=3, seed=seed, with_fidelity=False, **kwargs)
    rng = np.random.default_rng([seed, int(1000 * accuracy)])
    level = accuracy + spread * np.linspace(-1, 1, len(PEOPLE))
    for step, lower in ((0, 0.2), (3, 0.0)):
        chance = np.append(accuracy, level)[:, None, None] - lower
        right = rng.random((len(PEOPLE) + 1, PROBLEMS, 2)) < chance
        rows = [
            {"task": "problems", "problem": f"p{q}", "persona": name, "sample": s}
            | {"correct": float(right[i, q, s]), "in_style": None}
            | {"stated": "right" if right[i, q, s] else str(rng.integers(3)), **TEXT}
            for i, name in enumerate((None, *(p.id for p in PEOPLE)))
            for q in range(PROBLEMS)
            for s in range(2)
        ]
        counts = {"seed": 0, "samples": 2, "role_play_samples": 0, "resamples": 100}
        settings = SimpleNamespace(**counts, pss="min_over_max")
        content = summarise(rows, PEOPLE, settings, {"mood", "expertise"})["stability"]
        folder = workdir / f"eval/{step}"
        (folder / "stability.json").write_text(json.dumps(content))
        rng.shuffle(rows)
        write_rows(folder / "completions.jsonl", rows)
    return workdir


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        write(folder / f"{name}-{seed}", accuracy, spread, seed, name=name)
        for name, accuracy, spread in (("permix", 0.7, 0.05), ("rlvr", 0.6, 0.2))
        for seed in (0, 1)
    ]


def stability_of(workdir, step: int = 3) -> dict:
    return json.loads((workdir / f"eval/{step}/stability.json").read_text())


def figures_of(stability: dict) -> dict:
    """What a comparison shows of one run, from the file alone."""
    accuracies = np.array([entry["accuracy"] for entry in stability["per_persona"]])
    return {
        "PSS corr.": stability["corrected"]["pss"],
        "worst - none": stability["corrected"]["worst_minus_none"],
        "hurt": stability["hurt"]["share"],
        "worst of 4": expected_worst(accuracies)[3],
        "verdicts": stability["agreement"]["verdict"]["kappa"],
        "answers": stability["agreement"]["answer"]["kappa"],
        "irrelevant": stability["principled"]["worst_case_utility"],
        "experts": stability["principled"]["expertise_advantage"],
    }


def test_answers_and_files_say_the_same(workdirs, tmp_path):
    for workdir in workdirs:
        expected = figures_of(stability_of(workdir))
        more = read_run(workdir).trained.more
        assert list(more) == list(MORE)
        assert {n: m.value for n, m in more.items()} == pytest.approx(expected)
        for name, measure in more.items():
            if name != "hurt":  # its test is not resampled
                assert measure.items and np.nanmean(measure.resampled) == pytest.approx(
                    expected[name], abs=0.15
                )
    alone = write(tmp_path / "alone", 0.6, 0.1, 3)
    (alone / "eval/3/completions.jsonl").unlink()
    more = read_run(alone).trained.more
    assert {n: m.value for n, m in more.items()} == pytest.approx(figures_of(stability_of(alone)))
    assert all(np.isnan(m.resampled).all() and m.items is None for m in more.values())


def test_an_older_run_has_what_its_answers_tell(tmp_path):
    run = write(tmp_path, 0.6, 0.1, 0)
    new = ("corrected", "hurt", "agreement", "principled", "by_kind", "worst_minus_none")
    path = run / "eval/3/stability.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({name: of for name, of in whole.items() if name not in new}))
    policy = read_run(run).trained
    assert list(policy.more) == [n for n in MORE if n not in ("irrelevant", "experts")]
    expected = figures_of(whole)
    assert {n: m.value for n, m in policy.more.items()} == pytest.approx(
        {name: expected[name] for name in policy.more}
    )
    assert policy.kinds == {} and read_run(run).base.kinds
    write_run_report(run)  # beside its base, which has all


def test_kinds_and_differences_over_seeds(workdirs):
    comparison = compare_runs([read_run(workdir) for workdir in workdirs])
    ours, theirs = (
        [stability_of(workdir)["by_kind"]["new category"]["accuracy_mean"] for workdir in of]
        for of in (workdirs[:2], workdirs[2:])
    )
    kinds = comparison["methods"]["permix"]["kinds"]
    assert list(kinds) == ["trained category", "new category", "neutral"]
    assert kinds["new category"]["per_seed"] == pytest.approx(ours)
    assert kinds["new category"]["half_width"] > 0
    apart = comparison["pairs"][0]
    difference = np.subtract(ours, theirs).mean()
    assert apart["kinds"]["new category"]["mean"] == pytest.approx(difference)
    assert apart["more"]["PSS corr."]["mean"] > 0
    assert list(apart["difference"]) == list(comparison["methods"]["permix"]["measures"])
    json.dumps(comparison, allow_nan=False)


def test_tables_stand_below_the_first_one(workdirs):
    comparison = compare_runs([read_run(workdir) for workdir in workdirs])
    first, more, kinds = comparison_table(comparison).split("\n\n")
    assert first.splitlines()[0].startswith("method") and more.startswith("More than PSS\nmethod")
    assert kinds.splitlines()[1].split("  ")[-1].strip() == "neutral"
    row = next(line for line in more.splitlines() if line.startswith("permix  "))
    values = [stability_of(workdir)["corrected"]["pss"] for workdir in workdirs[:2]]
    assert row.split()[2] == f"{np.mean(values):.3f}"
    for name in MORE:
        assert f"\n{name}: " in more  # in the legend


def test_the_score_is_read_again_by_another_formula(workdirs, tmp_path):
    for name, formula in PSS.items():
        comparison = compare_runs([read_run(workdir, name) for workdir in workdirs])
        found = comparison["methods"]["rlvr"]["measures"]["PSS"]["per_seed"]
        for value, workdir in zip(found, workdirs[2:], strict=True):
            of = stability_of(workdir)
            accuracies = np.array([entry["accuracy"] for entry in of["per_persona"]])
            expected = formula(accuracies, np.float64(of["accuracy_no_persona"]))
            assert value == pytest.approx(expected), name
    said = executed(f"launch/compare.py {workdirs[0]} --pss=one_minus_cv --out={tmp_path}")
    assert "note: PSS is read again by the formula one_minus_cv" in said
    report = read_report(tmp_path)[1]
    of = stability_of(workdirs[0])
    steps = section(report, "steps")["blocks"][1]["rows"]
    assert steps[-1][1]["value"] == pytest.approx(1 - of["accuracy_std"] / of["accuracy_mean"])
    assert stability_of(workdirs[0]) == of  # nothing is written into the run
    with pytest.raises(SystemExit) as failed:
        executed(f"launch/compare.py {workdirs[0]} --pss=worst")
    assert "--pss: invalid choice: 'worst' (choose from 'min_over_max'" in str(failed.value)


def test_scores_of_several_formulas_are_not_compared_in_silence(tmp_path):
    runs = [write(tmp_path / n, 0.6, 0.1, 0, name=n) for n in ("permix", "rlvr")]
    assert "several formulas" not in compare(runs)
    config = json.loads((runs[0] / "config.json").read_text())["config"]
    change(runs[0] / "config.json", config=config | {"eval": {"pss": "one_minus_cv"}})
    said = "note: PSS is of several formulas (one_minus_cv, min_over_max); --pss=NAME reads all"
    assert said in compare(runs) and "several" not in compare(runs, pss="one_minus_cv")


def test_tables_of_a_run(workdirs, tmp_path):
    of = {name: stability_of(workdirs[0], step) for name, step in (("base", 0), ("trained", 3))}
    rows = {row[0]: row[1:] for row in more_table(of)["rows"]}
    assert rows["PSS, corrected"][1] == {
        "value": of["trained"]["corrected"]["pss"],
        "ci95": of["trained"]["corrected"]["pss_ci95"],
    }
    assert rows["Personas that hurt"][0] == {"value": of["base"]["hurt"]["share"], "ci95": None}
    kappa = of["base"]["agreement"]["answer"]["kappa"]
    assert rows["Answers alike (kappa)"][0]["value"] == kappa
    kinds = kinds_table(of)["rows"]
    assert [row[0] for row in kinds[:4]] == [
        "base: trained category", "base: new category", "base: neutral", "trained: trained category"
    ]  # fmt: skip
    assert kinds[0][1] == 4 and kinds[1][1] == 2
    assert kinds_table({"": of["base"] | {"by_kind": {"neutral": of["base"]}}})["rows"] == []
    said = overview(read_evaluation(workdirs[0] / "eval/3"))
    assert "\n\nMore than PSS\nmeasure" in said and "\n\nBy kind of persona\n" in said


def test_report_of_a_run_has_the_difference(tmp_path):
    run = write(tmp_path, 0.7, 0.1, 0)
    write_run_report(run)
    page, report, markdown = read_report(run)
    assert page.headings[:4] == ["permix", "Results", "More than PSS", "Accuracy by persona"]
    assert page.errors == [] and "### By kind of persona" in markdown
    more = section(report, "more")["blocks"][0]
    row = next(row for row in more["rows"] if row[0] == "Worst persona minus none")
    trained, base = (stability_of(run, step)["worst_minus_none"] for step in (3, 0))
    assert row[3]["value"] == pytest.approx(trained - base)
    low, high = row[3]["ci95"]
    assert low < row[3]["value"] < high
