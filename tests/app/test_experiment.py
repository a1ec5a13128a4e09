"""The whole job, end to end, on the shrunk real config."""

import json
import logging
import math
import re
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
from own_problems import own_problems, write_personas
from runs import load_config, metrics, run_tiny

from permix_jax.app.evaluations import evaluate_subject
from permix_jax.app.experiment import run
from permix_jax.app.policies import subject_of_model
from permix_jax.app.workdir import claim_workdir
from permix_jax.report.comparison_page import compare
from permix_jax.train.loop import NonFiniteError

TRL_NAMES = {
    "step", "reward", "reward_std", "frac_reward_zero_std", "kl", "entropy", "grad_norm",
    "learning_rate", "clip_ratio/low_mean", "clip_ratio/high_mean", "completions/mean_length",
    "completions/clipped_ratio",
}  # fmt: skip
# What the finished run asks for beside its preset.
ASKED = {"eval__every": 3, "train__peak_tflops": 1e-3, "train__profile": "2:3"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def use_cache(cache, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(cache))


@pytest.fixture(scope="module")
def permix(cache, tmp_path_factory):
    """A finished PerMix run and the table that it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "permix-tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(cache))
        config = load_config("permix.py", "tiny", **ASKED)
        return workdir, run(config, workdir, "permix", "tiny")


def test_workdir_holds_what_the_readme_says(permix):
    workdir, _ = permix
    record = json.loads((workdir / "config.json").read_text())
    assert record["config"]["train"]["steps"] == 6
    assert (record["name"], record["preset"]) == ("permix", "tiny")
    assert {"jax", "flax", "optax", "permix_jax"} <= set(record["versions"])
    assert any((workdir / "tensorboard").iterdir())
    for folder, names in {
        "completions": {"1.jsonl", "2.jsonl", "4.jsonl", "6.jsonl"},
        "checkpoints": {"2", "4", "6"},
        "eval": {"0", "3", "6"},
    }.items():
        assert {path.name for path in (workdir / folder).iterdir()} == names
    assert "<html" in (workdir / "report.html").read_text()
    assert json.loads((workdir / "report.json").read_text())["names"] == ["base", "trained"]
    assert (workdir / "report.md").read_text().startswith("# permix:tiny\n")


def test_metrics_have_the_names_that_trl_users_know(permix):
    rows = metrics(permix[0])
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        assert TRL_NAMES <= set(row)
        assert any(name.startswith("persona/") for name in row)
        assert np.isfinite(list(row.values())).all()
    assert rows[0]["kl"] == 0 < rows[-1]["kl"]  # the policy starts at the reference and leaves it
    raw = json.loads((permix[0] / "metrics.jsonl").read_text().splitlines()[0])
    assert {"time/rollout", "time/reward", "time/update", "tokens_per_second"} <= set(raw)
    assert raw["time/compile"] >= 0 and raw["perf/mfu"] > 0
    assert list(permix[0].glob("profile/plugins/profile/*/*.xplane.pb"))


def test_completions_carry_personas_and_group_rewards(permix):
    workdir, _ = permix
    lines = (workdir / "completions/2.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 64
    row = metrics(workdir)[1]
    assert np.mean([r["reward"] for r in records]) == pytest.approx(row["reward"])
    for start in range(0, 64, 8):  # one persona for a group, personas.level being problem
        assert len({(r["problem"], r["persona"]) for r in records[start : start + 8]}) == 1
    personas = {r["persona"] for r in records}
    assert {f"persona/{p or 'none'}/accuracy" for p in personas} <= set(row)


def test_evaluation_is_of_heldout_personas_and_problems(permix):
    workdir, table = permix
    stability = json.loads((workdir / "eval/6/stability.json").read_text())
    names = {"pss", "pss_ci95", "accuracy_mean", "accuracy_worst", "accuracy_best"}
    assert names | {"accuracy_no_persona", "per_persona"} <= set(stability)
    evaluated = {entry["persona"] for entry in stability["per_persona"]}
    assert len(evaluated) == 8
    trained_on = {name for row in metrics(workdir) for name in row if name.startswith("persona/")}
    assert not {f"persona/{name}/accuracy" for name in evaluated} & trained_on
    fidelity = json.loads((workdir / "eval/6/fidelity.json").read_text())
    assert set(fidelity["by_task"]) == {"role_play", "arithmetic"}
    assert table.splitlines()[2].startswith("base") and table.splitlines()[3].startswith("trained")


def test_several_answers_to_a_problem(tmp_path):
    """pass@k and majority@k of the files and tables are those of the rows, over all subsets."""
    folder, few = tmp_path / "permix", {"train__steps": 2, "eval__role_play_samples": 0}
    config = load_config("permix.py", "tiny", eval__samples=4, eval__kl_responses=0, **few)
    printed = run(config, folder, "permix", "tiny")
    answers = defaultdict(lambda: defaultdict(list))
    for line in (folder / "eval/2/completions.jsonl").read_text().splitlines():
        row = json.loads(line)
        answers[row["persona"]][row["problem"]].append((row["correct"], row["stated"]))
    at_k = json.loads((folder / "eval/2/stability.json").read_text())["at_k"]
    for k in (1, 2, 4):
        expected = {of: {} for of in (f"pass@{k}", f"majority@{k}")}
        for persona, problems in answers.items():
            subsets = [s for drawn in problems.values() for s in combinations(drawn, k)]
            assert len(subsets) == 16 * math.comb(4, k)
            passed = [max(right for right, _ in subset) for subset in subsets]
            expected[f"pass@{k}"][persona] = np.mean(passed)
            expected[f"majority@{k}"][persona] = np.mean([majority(s) for s in subsets])
        for measure, by_persona in expected.items():
            of, plain = at_k[measure], by_persona.pop(None)
            values = {entry["persona"]: entry["value"] for entry in of["per_persona"]}
            assert values == pytest.approx(by_persona)
            assert of["no_persona"] == pytest.approx(plain)
            assert of["mean"] == pytest.approx(np.mean(list(values.values())))
            assert of["worst"] == pytest.approx(min(values.values()))
    assert at_k["majority@4"]["mean"] != at_k["pass@4"]["mean"] != at_k["average@4"]["mean"]
    cell = f"trained: heldout, pass@4  {at_k['pass@4']['mean']:.3f} ["
    markdown, compared = (folder / "report.md").read_text(), compare([folder])
    assert cell in re.sub("  +", "  ", printed) and "## Several answers" in markdown
    assert f"trained: heldout, majority@4 | {at_k['majority@4']['mean']:.3f} [" in markdown
    assert compared.splitlines()[0].split()[-2:] == ["pass@4", "majority@4"]
    last = [f"{at_k[of]['mean']:.3f}" for of in ("pass@4", "majority@4")]
    assert re.findall(r"[0-9.]+", compared.splitlines()[3])[-2:] == last


def majority(answers) -> float:
    """The share of the right answer among those that most of the answers state."""
    votes = Counter("right" if right else said for right, said in answers if right or said)
    first = [answer for answer in votes if votes[answer] == max(votes.values())]
    return ("right" in first) / max(1, len(first))


def test_same_command_again_does_nothing_twice(permix, caplog):
    caplog.set_level(logging.INFO, "permix_jax")
    workdir, table = permix
    before = {p: p.stat().st_mtime_ns for p in workdir.glob("eval/*/*.*")}
    rows = metrics(workdir)
    config = load_config("permix.py", "tiny", **ASKED)
    assert run(config, workdir, "permix", "tiny") == table
    assert "to do: nothing but the report" in caplog.messages
    assert {p: p.stat().st_mtime_ns for p in workdir.glob("eval/*/*.*")} == before
    assert metrics(workdir) == rows


def test_another_config_is_refused_with_the_differing_fields(permix):
    config = load_config("permix.py", "tiny", **ASKED, train__learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"another config \(train.learning_rate: 0.001 instead"):
        run(config, permix[0], "permix", "tiny")


def test_rlvr_has_no_persona_in_training(permix, tmp_path):
    run_tiny(tmp_path / "run", "rlvr.py")
    for row in metrics(tmp_path / "run"):
        assert [name for name in row if name.startswith("persona/")] == ["persona/none/accuracy"]
    # From the same base as PerMix: the base's evaluation is equal, bit for bit.
    ours, theirs = (
        (w / "eval/0/stability.json").read_text() for w in (permix[0], tmp_path / "run")
    )
    assert ours == theirs


def test_persona_per_rollout_mixes_within_a_group_on_a_sharded_mesh(tmp_path):
    few = {"train__steps": 2, "eval__personas": 1}
    few |= {"eval__role_play_samples": 0, "eval__kl_responses": 0}
    run_tiny(
        tmp_path / "run",
        personas__level="rollout",
        grpo__epochs=2,
        grpo__importance_cap=2.0,
        grpo__aggregation="dr_grpo",
        train__micro_batch_tokens=128,
        mesh__fsdp=2,
        mesh__tensor=2,
        **few,
    )
    lines = (tmp_path / "run/completions/2.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    groups = [records[start : start + 8] for start in range(0, 64, 8)]
    assert all(len({r["problem"] for r in group}) == 1 for group in groups)
    assert max(len({r["persona"] for r in group}) for group in groups) > 1
    for row in metrics(tmp_path / "run"):
        # Before the first of two updates the policy is the one that sampled: nothing to correct.
        assert row["sampling/logp_difference"] <= row["sampling/logp_difference_max"] < 1e-4
        assert row["sampling/importance"] == pytest.approx(1, abs=1e-4)
        assert 0 <= row["tokens/padding"] < 1


def test_nonfinite_step_is_named_and_the_last_checkpoint_stays(tmp_path):
    with pytest.raises(NonFiniteError, match=r"step 2: .* is nan; checkpoint 1 stays"):
        run_tiny(tmp_path / "run", train__learning_rate=1e30, train__checkpoint_every=1)
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1]
    assert {p.name for p in (tmp_path / "run/checkpoints").iterdir()} == {"1"}


# ---- what the last phases need is looked at before the run begins, and before its workdir is ----


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def problems(tmp_path, own_cache):
    """Fields of a random model and problems without worked solutions."""
    own = own_problems(tmp_path, {"cook": "train", "miller": "heldout"}) | {"task.num_test": 2}
    del own["sft.steps"]
    return own


def refused_before_it_begins(message: str, folder, file="permix.py", **fields) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        run_tiny(folder / "run", file, **fields)
    assert "\n" not in str(raised.value) and not (folder / "run").exists()


@pytest.mark.parametrize(
    ("field", "file", "fields", "message"),
    [
        ("rehearsal.prompts", "permix.py", {"rehearsal.weight": 0.5}, "there is no such file; wri"),
        ("eval.judge_free_reference", "permix.py", {"eval.judge_free_candidates": 2},
         "no: no such folder; give a local Hugging Face"),
        ("distill.teacher", "distill.py", {}, "no/config.json: no such file; name the workdir of "),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_before_the_run_begins(
    own_cache, tmp_path, field, file, fields, message
):
    message = f"^{field} is 'no': {message}"
    refused_before_it_begins(message, tmp_path, file, **{**fields, field: "no"})


def test_a_teacher_that_is_not_finished_is_refused(own_cache, tmp_path):
    claim_workdir(tmp_path / "teacher", load_config("rlvr.py", "tiny"), "rlvr", "tiny", tmp_path)
    (tmp_path / "teacher/checkpoints").mkdir()
    message = "'teacher': teacher/checkpoints: no checkpoint 6; there are"
    refused_before_it_begins(message, tmp_path, "distill.py", distill__teacher="teacher")


def test_a_teacher_in_whose_tokens_the_prompts_are_too_long_is_refused(
    tmp_path, problems, monkeypatch
):
    teacher = load_config("rlvr.py", "tiny", **{**problems, "sft.steps": 0})
    claim_workdir(tmp_path / "teacher", teacher, "rlvr", "tiny", tmp_path)
    monkeypatch.setattr("permix_jax.app.policies.newest_step", lambda *_: 6)
    message = "^distill.teacher is 'teacher': rollout.max_prompt_tokens is 16; .* takes"
    refused_before_it_begins(message, tmp_path, "distill.py", distill__teacher="teacher")


@pytest.mark.parametrize("fields", [{}, {"train.method": "sft", "sft.steps": 0}])
def test_sft_without_worked_solutions_is_refused(tmp_path, problems, fields):
    message = "no training problem with a worked solution is left"
    refused_before_it_begins(message, tmp_path, **problems, **fields)


def test_an_evaluation_opens_its_reference_first(tmp_path, problems):
    write_personas(tmp_path / "personas.jsonl", {"miller": "heldout", "smith": "heldout"})
    asked = {"data.test": problems["data.train"], "data.train": "other.jsonl"}
    asked |= {"eval.sets": "heldout", "eval.judge_free_candidates": 2}
    asked |= {"eval.judge_free_reference": "no"}
    config = load_config("eval_math500.py", "", **{**problems, **asked})
    with pytest.raises(ValueError, match="^eval.judge_free_reference is 'no': no: no such f"):
        evaluate_subject(subject_of_model(config, "model", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
