import json
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_run import PERSONAS, write_rows, write_run

from permix_jax.core.persona import Persona
from permix_jax.report.compare import compare_runs, compare_two
from permix_jax.report.run_figures import MEASURES, read_answers, read_run
from permix_jax.stats.paired import Graded, compare_policies, over_seeds
from permix_jax.stats.samples import majority_at, pass_at
from permix_jax.stats.stability import measure, pss_min_over_max, stability
from permix_jax.stats.statistics import bootstrap_weights
from permix_jax.stats.summary import summarise

PROBLEMS = 120


def graded(rng, skill) -> Graded:
    """Answers to problems that differ in difficulty, so that policies share what is hard."""
    ease = np.random.default_rng(7).normal(size=(1, PROBLEMS, 1))
    level = np.linspace(0, skill, len(PERSONAS))[:, None, None]
    correct = (rng.normal(size=(len(PERSONAS), PROBLEMS, 1)) < level + ease).astype(float)
    return Graded(correct, (rng.normal(size=(PROBLEMS, 1)) < ease[0]).astype(float))


def test_a_run_that_ended_early_is_finished_where_it_ended(tmp_path):
    write_run(tmp_path, steps=60)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"steps": 60', '"steps": 90'))
    with pytest.raises(ValueError, match="last evaluation is of step 60, train.steps is 90; run"):
        read_run(tmp_path)
    best = {"figure": "pss", "step": None, "value": None, "stopped_at": 60}
    (tmp_path / "best.json").write_text(json.dumps(best))
    assert read_run(tmp_path).evaluations[-1].step == 60
    (tmp_path / "best.json").write_text(json.dumps(best | {"stopped_at": None}))
    with pytest.raises(ValueError, match="train.steps is 90"):
        read_run(tmp_path)


def write_answers(workdir, answers: Graded, first_problem: int, **kwargs):
    write_run(workdir, steps=3, **kwargs)
    rows = [
        {"task": "problems", "problem": f"p{first_problem + q}", "persona": persona, "sample": 0}
        | {"correct": row[q, 0], "in_style": None}
        for persona, row in [(None, answers.plain), *zip(PERSONAS, answers.correct, strict=True)]
        for q in range(PROBLEMS)
    ]
    np.random.default_rng(0).shuffle(rows)
    folder = workdir / "eval" / "3"
    write_rows(folder / "completions.jsonl", rows)
    rng = np.random.default_rng(0)
    content = stability(answers.correct, PERSONAS, answers.plain, rng, resamples=100)
    (folder / "stability.json").write_text(json.dumps(content))
    return workdir


@pytest.mark.parametrize("shared", [True, False])
def test_a_pair_of_methods_comes_out_as_over_seeds_says(tmp_path, shared):
    rng = np.random.default_rng(1)
    ours, theirs = [[graded(rng, skill) for _ in range(4)] for skill in (0.2, 1.5)]
    runs = []
    for method_name, method in (("permix", ours), ("rlvr", theirs)):
        for seed, answers in enumerate(method):
            first = 0 if shared else seed * PROBLEMS
            fields = {"name": method_name, "seed": seed}
            runs.append(write_answers(tmp_path / f"{method_name}-{seed}", answers, first, **fields))
    pair = compare_runs([read_run(workdir) for workdir in runs])["pairs"][0]
    # Whatever the problems are called, sorting them pairs the same ones.
    weights = bootstrap_weights(PROBLEMS, 4000, rng)
    (a, ra), (b, rb) = (by_figure(method, weights) for method in (ours, theirs))
    for name, figure in (("PSS", "pss"), ("mean", "accuracy_mean"), ("worst", "accuracy_worst")):
        x, rx, y, ry = a[figure], ra[figure], b[figure], rb[figure]
        apart = {"difference": (x - y, rx - ry), "relative": (x / y - 1, rx / ry - 1)}
        for kind, values in apart.items():
            got, (mean, (low, high)) = pair[kind][name], over_seeds(*values, shared)
            assert got["mean"] == pytest.approx(mean)
            # Where problems are shared the two have other resamples.
            tolerance = 0.1 if shared else 1e-9
            assert got["half_width"] == pytest.approx((high - low) / 2, rel=tolerance)


def by_figure(method, weights) -> tuple[dict, dict]:
    """Figure -> its values [seed], and its resamples [resample, seed]."""
    found = [measure(*answers, weights, pss_min_over_max) for answers in method]
    values = {name: np.array([of[name].value for of in found]) for name in found[0]}
    return values, {n: np.stack([of[n].resampled for of in found], axis=-1) for n in values}


def test_answers_are_found_in_any_order_and_what_is_missing_is_nan():
    rows = [
        {"task": "problems", "problem": "b", "persona": "x", "sample": 1, "correct": 1.0},
        {"task": "role_play", "problem": "c", "persona": "x", "sample": 0, "in_style": True},
        {"task": "problems", "problem": "a", "persona": None, "sample": 0, "correct": None},
        {"task": "problems", "problem": "a", "persona": "x", "sample": 0, "correct": 0.0},
    ]
    found = read_answers(rows)
    problems = found["problems"]
    assert problems.personas == (None, "x") and problems.problems == ("a", "b")
    expected = [[[np.nan, np.nan]] * 2, [[0, np.nan], [np.nan, 1]]]
    np.testing.assert_array_equal(problems.correct, expected)
    assert found["role_play"].in_style.tolist() == [[[1.0]]]


def write_samples(workdir, rng, skill, samples, **kwargs):
    """As `write_answers`, with several answers to a problem, told apart by a number below 3."""
    stated = rng.integers(1, 3, (1 + len(PERSONAS), PROBLEMS, samples))
    stated[rng.random(stated.shape) < skill] = 0
    workdir = write_run(workdir, steps=3, with_fidelity=False, **kwargs)
    rows = [
        {"task": "problems", "problem": f"p{q}", "persona": persona, "sample": s}
        | {"correct": float(answer == 0), "in_style": None, "stated": str(answer)}
        for persona, of in zip((None, *PERSONAS), stated, strict=True)
        for q, answers in enumerate(of)
        for s, answer in enumerate(answers)
    ]
    write_rows(workdir / "eval/3/completions.jsonl", rows)
    people = [Persona(name, name, "", "any", "heldout") for name in PERSONAS]
    counts = {"seed": 0, "samples": samples, "role_play_samples": 0, "resamples": 100}
    settings = SimpleNamespace(**counts, pss="min_over_max")
    content = summarise(rows, people, settings)["stability"]
    (workdir / "eval/3/stability.json").write_text(json.dumps(content))
    return workdir, (stated[1:] == 0).astype(float), stated[1:]


def test_several_answers_are_measures_of_the_runs_that_have_them(tmp_path):
    rng, most = np.random.default_rng(2), ["pass@4", "majority@4"]
    ours, correct, stated = write_samples(tmp_path / "permix", rng, 0.6, 4)
    theirs, their_correct, their_stated = write_samples(tmp_path / "rlvr", rng, 0.4, 4, name="rlvr")
    runs = [read_run(ours), read_run(theirs)]
    expected = [pass_at(correct, 4).mean(), majority_at(correct, stated, 4).mean()]
    before = [pass_at(their_correct, 4).mean(), majority_at(their_correct, their_stated, 4).mean()]
    difference = np.subtract(expected, before)
    comparison, apart = compare_runs(runs), compare_two(*runs)
    measures = comparison["methods"]["permix"]["measures"]
    assert list(measures) == [*MEASURES, *most]
    assert [measures[name]["mean"] for name in most] == pytest.approx(expected)
    pair = comparison["pairs"][0]["difference"]
    assert [pair[name]["mean"] for name in most] == pytest.approx(difference)
    assert [apart[name]["difference"] for name in most] == pytest.approx(difference)
    for name in most:
        low, high = apart[name]["difference_ci95"]
        assert low < apart[name]["difference"] < high < low + 0.3
    alone, _, _ = write_samples(tmp_path / "alone", rng, 0.4, 1, name="rlvr", seed=1)
    runs[1] = read_run(alone)
    with pytest.raises(ValueError, match="were not asked the same"):
        compare_two(*runs)
    lacking = compare_runs(runs)["methods"]["rlvr"]["measures"]
    assert lacking["pass@4"]["mean"] is None and lacking["mean"]["mean"] is not None
    assert list(read_run(alone).trained.measures) == list(MEASURES)


def test_the_kl_is_a_measure_where_the_run_has_it(tmp_path):
    run = read_run(write_run(tmp_path, steps=3))
    assert np.isnan(run.trained.measures["KL"].value)
    (tmp_path / "eval/3/kl.json").write_text(json.dumps({"kl": 0.25}))
    assert read_run(tmp_path).trained.measures["KL"].value == 0.25


def test_two_runs_are_apart_as_compare_policies_says(tmp_path):
    rng = np.random.default_rng(4)
    answers = [graded(rng, skill) for skill in (0.2, 1.5)]
    runs = [
        read_run(write_answers(tmp_path / name, of, 0, name=name, with_fidelity=False))
        for name, of in zip(("permix", "rlvr"), answers, strict=True)
    ]
    found = compare_two(*runs)
    assert list(found) == ["PSS", "worst", "mean", "plain"]
    order = np.argsort(PERSONAS)  # as read_answers sorts them
    sorted_ = [Graded(of.correct[order], of.plain) for of in answers]
    said = compare_policies(*sorted_, np.random.default_rng(0))
    for name, figure in (("mean", "accuracy_mean"), ("PSS", "pss")):
        assert found[name]["difference"] == pytest.approx(said[figure]["difference"])
    ours, theirs = found["mean"]["difference_ci95"], said["accuracy_mean"]["difference_ci95"]
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_a_run_is_not_apart_from_itself_in_fidelity_either(tmp_path):
    run = read_run(write_run(tmp_path / "permix"))
    assert list(compare_two(run, run)) == [name for name in MEASURES if name != "KL"]
    for entry in compare_two(run, run).values():
        low, high = entry["difference_ci95"]
        assert entry["difference"] == 0 and low <= 0 <= high


def test_two_runs_that_were_asked_otherwise_are_refused(tmp_path):
    answers = graded(np.random.default_rng(5), 1.0)
    runs = [
        read_run(write_answers(tmp_path / str(first), answers, first)) for first in (0, PROBLEMS)
    ]
    with pytest.raises(ValueError, match="were not asked the same problems"):
        compare_two(*runs)
