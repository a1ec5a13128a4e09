"""Own mixing, reward terms and advantages in a run, and what a run says of them."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from runs import assert_same_run, crash_after, load_config, metrics

from permix_jax.app.experiment import run
from permix_jax.app.export import export
from permix_jax.app.policies import policy_of_run
from permix_jax.app.workdir import claim_workdir
from permix_jax.core.problem import Problem
from permix_jax.core.sharding import make_mesh
from permix_jax.personas.mixture import assign, build_mixture
from permix_jax.rewards.terms import Completion, Term, correctness, term_values
from permix_jax.tasks.embedded_world import PERSONAS
from permix_jax.train.advantages import group_advantages
from permix_jax.train.loss import token_losses
from permix_jax.train.method import (
    PERMIX,
    Method,
    all_terms,
    as_advantages,
    describe,
    read_method,
    require_assigned,
    require_used,
)

FIELDS = {"personas__level": "rollout", "personas__share": 1.0, "train__steps": 3}


def half_plain(mixture, seed, step, num_problems, group_size, state=None):
    """Every second rollout of a problem without a persona."""
    rows = assign(mixture, seed, step, num_problems, group_size, state=state)
    return [[p if i % 2 else None for i, p in enumerate(row)] for row in rows]


def even_length(completion):
    return float(len(completion.text) % 2 == 0)


def uncentred(rewards, groups, scale):
    return np.nan_to_num(rewards).astype(np.float64)


OWN = Method(half_plain, [Term("even", 0.5, even_length)], uncentred)


@pytest.fixture(scope="module", autouse=True)
def finished(tmp_path_factory):
    """The workdir of a run with the three, and the cache that it used."""
    folder = tmp_path_factory.mktemp("method")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(folder / "cache"))
        run(load_config("permix.py", "tiny", **FIELDS), folder / "run", "permix", method=OWN)
        yield folder / "run"


def test_each_part_does_what_it_says_in_a_run(finished):
    rows = metrics(finished)
    for row in rows:
        assert 0 < row["rewards/even/mean"] < 1
        expected = row["rewards/correctness/mean"] + 0.5 * row["rewards/even/mean"]
        assert row["reward"] == pytest.approx(expected)
    records = [json.loads(x) for x in (finished / "completions/3.jsonl").read_text().splitlines()]
    drawn = [record["persona"] for record in records]
    assert set(drawn[::2]) == {None} and None not in drawn[1::2]
    for record in records:
        even = float(len(record["completion"]) % 2 == 0)
        assert record["reward"] == pytest.approx(record["correct"] + 0.5 * even)


def test_advantages_reach_the_update(finished, tmp_path):
    ours = OWN._replace(advantages=group_advantages)
    config = load_config("permix.py", "tiny", **FIELDS | {"train__steps": 1})
    run(config, tmp_path / "run", "permix", method=ours)
    mine, theirs = metrics(finished), metrics(tmp_path / "run")
    assert mine[0]["reward"] == theirs[0]["reward"]
    assert mine[0]["grad_norm"] != theirs[0]["grad_norm"]


def test_a_killed_run_goes_on_with_the_same_functions_alone(finished, tmp_path):
    config = load_config("permix.py", "tiny", **FIELDS)
    with crash_after(3, having="reward"):
        run(config, tmp_path / "run", "permix", method=OWN)
    with pytest.raises(
        ValueError, match=r"other functions \(method.advantages: ours instead of 'test"
    ):
        run(config, tmp_path / "run", "permix", method=OWN._replace(advantages=group_advantages))
    with pytest.raises(ValueError, match=r"method.assign: .*; method.terms: .*; name another work"):
        run(config, tmp_path / "run", "permix")
    run(config, tmp_path / "run", "permix", method=OWN)
    assert_same_run(tmp_path / "run", finished)


def test_the_policy_needs_no_functions_and_its_card_names_them(finished, tmp_path):
    export(finished, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "assign: `test_method.half_plain (sha256 " in card
    assert "terms.even: `0.5 * test_m" in card
    policy_of_run(finished, make_mesh(1, 1, 1))
    assert "test_method.uncentred" in (finished / "report.html").read_text()


def test_ours_are_not_described_and_own_ones_by_name_and_source():
    assert describe(PERMIX) == describe(Method(assign=assign, terms=[])) == {}
    first, again = describe(OWN), describe(OWN._replace(assign=half_plain))
    assert first == again and list(first) == ["assign", "advantages", "terms"]

    def half_plain_(*args, state=None):
        return []

    half_plain_.__module__, half_plain_.__qualname__ = half_plain.__module__, "half_plain"
    changed = describe(OWN._replace(assign=half_plain_))["assign"]
    assert changed.startswith("test_method.half_plain (sha256 ") and changed != first["assign"]
    typed = {"__name__": "typed"}
    exec("def f(completion): return 1.0", typed)
    assert describe(Method(terms=[Term("f", 2, typed["f"])])) == {"terms": {"f": "2 * typed.f"}}


def test_a_workdir_from_before_methods_were_kept_is_of_ours(tmp_path):
    config = load_config("permix.py", "tiny")
    claim_workdir(tmp_path, config, "permix", "tiny", tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    assert record.pop("method") == {}
    (tmp_path / "config.json").write_text(json.dumps(record))
    claim_workdir(tmp_path, config, "permix", "tiny", tmp_path, method={})
    (tmp_path / "checkpoints/1").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"other functions \(method.assign: 'x' instead of"):
        claim_workdir(tmp_path, config, "permix", "tiny", tmp_path, method={"assign": "x"})


@pytest.mark.parametrize(
    ("method", "part", "used"),
    [
        ("sft", {"terms": OWN.terms}, False),
        ("sft", {"assign": half_plain}, False),
        ("distill", {"terms": OWN.terms}, False),
        ("distill", {"assign": half_plain}, True),
        ("distill", {}, True),
    ],
)
def test_what_a_baseline_leaves_unused_is_refused(method, part, used):
    refused = f"method.{''.join(part)} is given, and train.method = {method}"
    with contextlib.nullcontext() if used else pytest.raises(ValueError, match=refused):
        require_used(Method(**part), load_config(f"{method}.py", "tiny"))


def test_two_terms_of_one_name_are_refused():
    config = load_config("permix.py", "tiny")
    with pytest.raises(ValueError, match="two terms are called 'correctness'"):
        all_terms(Method(terms=[Term("correctness", 1.0, correctness)]), config)


def test_what_assign_gave_is_checked():
    mixture = build_mixture(PERSONAS, load_config("permix.py", "tiny").personas)
    a, b = mixture.train[:2]
    stranger = dataclasses.replace(a, id="stranger")
    require_assigned([[a, a], [None, None]], mixture, 2, 2, shared=True)
    require_assigned([[a, b], [None, a]], mixture, 2, 2, shared=False)
    for rows, message in (
        ([[a, a], [a]], r"rows of \[1, 2\] personas for 2 problems; give 2 for"),
        ([[a, a], [a, None]], "gave problem 1 of the step several personas: set pers"),
        ([[a, a], [stranger] * 2], "gave persona 'stranger', which the mixture has not"),
    ):
        with pytest.raises(ValueError, match=message):
            require_assigned(rows, mixture, 2, 2, shared=True)


def test_what_advantages_gave_is_checked():
    assert as_advantages([1, 2.5], 2).dtype == np.float32
    for given, shape, finite in (([np.nan, 1.0], r"\(2,\)", 1), ([[1.0, 2.0]], r"\(1, 2\)", 2)):
        with pytest.raises(
            ValueError, match=f"gave shape {shape}, {finite} of them finite; give 2"
        ):
            as_advantages(given, 2)


FILE = """
import jax.numpy as jnp
from permix_jax.rewards.terms import Term

SCALE = 2.0

def even_length(completion):
    return float(len(completion.text) % 2 == 0)

terms = [Term("even", 0.5, even_length)]

def token_loss(logprobs, tokens, config):
    return -SCALE * tokens.advantages * logprobs, {"mine": logprobs}
"""


def test_the_functions_of_a_file_stand_in_for_ours(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    config = load_config("permix.py", "tiny", method=str(file), **FIELDS | {"train__steps": 2})
    run(config, tmp_path / "run", "permix")
    rows = metrics(tmp_path / "run")
    assert all(0 < row["rewards/even/mean"] < 1 and row["mine"] < 0 for row in rows)
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert record["method"]["file"].startswith("sha256 ") and "even" in record["method"]["terms"]
    # A loss of twice the size has twice the gradient.
    double = FILE.replace("SCALE = 2.0", "SCALE = 4.0")
    file.write_text(double)
    with pytest.raises(ValueError, match=r"belongs to a run with other functions \(method.file"):
        run(config, tmp_path / "run", "permix")
    config = load_config("permix.py", "tiny", method=str(file), **FIELDS | {"train__steps": 1})
    run(config, tmp_path / "other", "permix")
    twice = metrics(tmp_path / "other")[0]["grad_norm"]
    assert twice == pytest.approx(2 * rows[0]["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def assign(mixture:\n    pass", r"mine.py, line 1: SyntaxError"),
        ("x = 1\nimport nothing_of_the_kind", r"mine.py, line 2: ModuleNotFoundError"),
        ("x = 1", r"mine.py defines none of assign, advantages, token_loss, terms; define one"),
        ("def advantages(rewards):\n    return rewards", r"advantages cannot be called as adv"),
        ("def token_loss(logprobs, tokens):\n    return 0, {}", r"token_loss cannot be called as"),
        ("assign = 3", r"assign cannot be called as assign\(mixture, seed"),
        ("terms = [len]", r"terms is no list of Terms"),
        (
            "terms = []\ndef advantage(rewards, groups, scale):\n    return rewards",
            r"mine.py defines advantage, which nothing calls; did you mean advantages",
        ),
    ],
)
def test_a_file_that_is_no_method_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_method(str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_two_baselines_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="method is 'nowhere.py': there is no such file"):
        read_method("nowhere.py")
    with pytest.raises(FileNotFoundError, match="method is 'grpo': .*; train.method takes that"):
        read_method("grpo")
    both = {"grpo__advantage_baseline": "leave_one_out", "grpo__advantage_scale": "none"}
    with pytest.raises(ValueError, match="method.advantages has a baseline of its own"):
        require_used(OWN, load_config("permix.py", "tiny", **both))


@pytest.mark.parametrize(
    ("token_loss", "message"),
    [
        (
            lambda logprobs, tokens, config: -logprobs,
            r"gives no \(losses, metrics by name\): .*TypeEr",
        ),
        (
            # Without a KL there is no reference.
            lambda logprobs, tokens, config: (logprobs - tokens.reference, {}),
            r"gives no \(losses, metrics by name\): .*TypeError: .*; mend it, as permix_jax",
        ),
        (
            lambda logprobs, tokens, config: (-logprobs.mean(), {}),
            r"gives losses of shape \(\) for tokens of shape \(2, 3\); give a number for each",
        ),
        (
            lambda logprobs, tokens, config: (-logprobs, {"mine": 1.0}),
            r"gives mine of shape \(\) for",
        ),
    ],
)
def test_a_token_loss_of_another_form_is_refused_before_anything_is_sampled(token_loss, message):
    config = load_config("permix.py", "tiny", grpo__kl_weight=0.0)
    with pytest.raises(ValueError, match=f"method.token_loss {message}") as caught:
        require_used(Method(token_loss=token_loss), config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{}, {"grpo__loss": "gspo"}, {"grpo__importance_cap": 2.0, "grpo__epochs": 2}],
)
def test_a_token_loss_gets_what_the_loss_of_the_config_gets(fields):
    config = load_config("permix.py", "tiny", **fields)
    require_used(Method(token_loss=lambda *args, config: token_losses(*args, config)), config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("return reward", "mine.py, line 2: NameError: name 'reward' is not defined; mend it"),
        ("return rewards[:1]", "method.advantages gave shape (1,), 1 of them finite; give 16"),
        ("return rewards", "method.advantages gave shape (16,), 15 of them finite; give 16"),
    ],
)
def test_advantages_that_fail_are_refused_before_anything_is_sampled(tmp_path, text, said):
    file = tmp_path / "mine.py"
    file.write_text(f"def advantages(rewards, groups, scale):\n    {text}\n")
    config = load_config("permix.py", "tiny", method=str(file), rollout__group_size=8)
    with pytest.raises(ValueError) as caught:
        run(config, tmp_path / "run", "permix")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_step_may_get_other_functions(tmp_path):
    """A file that failed in the first step is mended, and the same command goes on."""
    config = load_config("permix.py", "tiny")
    claim_workdir(tmp_path, config, "permix", "tiny", tmp_path, method={"file": "sha256 a"})
    claim_workdir(tmp_path, config, "permix", "tiny", tmp_path, method={"file": "sha256 b"})
    assert json.loads((tmp_path / "config.json").read_text())["method"] == {"file": "sha256 b"}


def test_a_reward_term_that_fails_is_named_with_its_place():
    def broken(completion):
        return completion.nothing

    problem = Problem("id", "one?", "1", "test")
    with pytest.raises(ValueError) as caught:
        term_values([Term("mine", 1.0, broken)], [Completion("1", 1, 2, False, problem, 1.0)])
    said = str(caught.value)
    assert said.startswith("reward term 'mine' fails: ") and "test_method.py, line " in said
    assert "AttributeError" in said and "\n" not in said
