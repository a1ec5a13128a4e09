"""Batches that eight devices do not divide: every phase's host code, with programs that only look.

What is sampled or scored here is a function of a row's own prompt and key, so that the results on
eight devices must be those on one.
"""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from dense import pairs_of
from runs import load_config, run_of

from permix_jax.app.build import build_task, drop_overlong, eval_settings, kl_settings
from permix_jax.app.policies import build_policy
from permix_jax.app.validation import require_valid
from permix_jax.core.sharding import make_mesh, row_shards
from permix_jax.evaluation import likelihood
from permix_jax.evaluation.divergence import measure_kl
from permix_jax.evaluation.evaluate import evaluate
from permix_jax.evaluation.judge_free import JudgeFreeSettings, measure_without_judge
from permix_jax.evaluation.likelihood import Reference
from permix_jax.models.params import create_params
from permix_jax.models.policy import StoredPolicy
from permix_jax.personagym import answering, model_judge
from permix_jax.personagym.benchmark import Question
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import ModelJudge
from permix_jax.rewards.verifier import Verifier
from permix_jax.rollout import generate
from permix_jax.rollout.sampler import Completions
from permix_jax.rollout.sampling import Sampling
from permix_jax.tasks.embedded_world import PERSONAS
from permix_jax.train import base, grpo, rollouts, supervised

ODD = {
    "mesh__data": 8,
    "sft__steps": 2,
    "sft__batch_size": 5,
    "train__steps": 1,
    "train__problems_per_step": 8,  # the only one that eight must divide, for rollouts
    "train__micro_batch_tokens": 33,
    "rollout__group_size": 3,
    "rehearsal__rows": 3,
    "task__num_test": 3,
    "eval__samples": 3,
    "eval__role_play_samples": 5,
    "eval__personas": 2,
    "eval__batch_size": 7,
    "eval__kl_responses": 5,
    "eval__resamples": 3,
    "personagym__batch_size": 3,
}
NOTHING = {"loss": 0.0, "grad_norm": 0.0}


def odd(file="permix.py", **fields):
    config = load_config(file, "tiny", **{**ODD, **fields})
    require_valid(config)
    return config


def require_whole_rows(*arrays):
    """As a program requires whose rows are spread over the mesh."""
    assert all(len(x) % row_shards() == 0 for x in arrays)


def sampled(model, params, prompts, keys, sampling, end_tokens) -> Completions:
    """Two tokens that tell prompt and key, and the end."""
    tokens, mask = prompts
    require_whole_rows(tokens, mask, keys)
    rows, T = len(keys), sampling.max_new_tokens
    seen = np.asarray(tokens).sum(axis=1).repeat(rows // len(tokens))
    drawn = np.asarray(jax.random.key_data(keys)).astype(np.int64).sum(axis=1)
    written = np.full((rows, T), end_tokens[0], np.int32)
    written[:, :2] = 16 + np.stack([seen % 60, drawn % 60], axis=1)  # words, no special tokens
    kept = np.broadcast_to(np.arange(T) < 3, written.shape)
    return Completions(written, kept, np.where(kept, -0.5, 0), np.zeros(rows, bool))


def scored(model, params, rows, scoring):
    """A log-prob a token that tells the prompt."""
    require_whole_rows(np.moveaxis(rows.tokens, 1, 0))
    found = np.zeros(rows.tokens.shape)
    for m, r in np.ndindex(found.shape[:2]):
        tokens, sequence, prompt, states = (
            np.asarray(x)[m, r]
            for x in (rows.tokens, rows.layout.sequence, rows.layout.prompt, rows.states)
        )
        seen = np.bincount(sequence + 1, tokens, len(tokens) + 1)
        found[m, r] = -seen[prompt[states] + 1] / 1e4
    return np.where(rows.scored, found, 0)


@pytest.fixture(autouse=True)
def programs_that_only_look(monkeypatch):
    for module in (generate, rollouts):
        monkeypatch.setattr(module, "sample", sampled)
    for module in (likelihood, grpo):
        monkeypatch.setattr(module, "score", scored)


@pytest.fixture(scope="module", params=[8, 1])
def world(request, tmp_path_factory):
    mesh, config = make_mesh(request.param, 1, 1), odd(mesh__data=request.param)
    with jax.set_mesh(mesh):
        cache = tmp_path_factory.mktemp("cache")
        policy, _ = build_policy(config, cache, mesh)
        params = create_params(policy.model, jax.random.key(0), mesh)
        yield config, drop_overlong(config, build_task(config, cache), policy), policy, params, mesh


@pytest.fixture(scope="module")
def seen():
    """What came out on the mesh that was tried before."""
    return {}


def same_on_both(seen, name, mesh, found):
    if mesh.size == 8:
        seen[name] = found
    else:
        assert found == seen[name]


# ---- evaluation ---------------------------------------------------------------------------------


def test_evaluation_and_its_likelihoods(world, seen, tmp_path):
    config, task, policy, params, mesh = world
    settings, personas = eval_settings(config), PERSONAS[1:4:2]
    with Verifier(task.grade) as verifier:
        asked = StoredPolicy("it", policy, mesh, lambda: params)
        evaluate(task, asked, verifier, settings, {}, tmp_path)
    reference = Reference(asked, settings.batch_size, 64, 64)
    measure_without_judge(reference, personas, JudgeFreeSettings(0, 2, 2, 3), [tmp_path])
    rows = (tmp_path / "completions.jsonl").read_text()
    assert len(rows.splitlines()) == 3 * 3 * 3 + 2 * 12 * 5
    found = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("stability", "judge_free")]
    same_on_both(seen, "evaluation", mesh, (rows, found))


@pytest.mark.parametrize("responses", [1, 5])
def test_the_kl_to_the_base(world, seen, tmp_path, responses):
    config, task, policy, params, mesh = world
    with config.unlocked():
        settings = kl_settings(config, task)._replace(responses=responses)
    asked, path = StoredPolicy("it", policy, mesh, lambda: params), tmp_path / "kl.json"
    measure_kl(task, asked, asked, settings, path, lambda: None)
    found = json.loads(path.read_text())
    assert {entry["n"] for entry in found["by_task"].values()} == {max(1, responses // 2)}
    same_on_both(seen, f"kl {responses}", mesh, found)


def test_personagym_and_a_model_that_judges(world, seen, tmp_path):
    config, _, policy, params, mesh = world
    questions = [Question(f"q{i}", "robot", "t", f"what is 1{i} plus 3 ?") for i in range(10)]
    settings = answering.AnswerSettings(0, config.personagym.batch_size, Sampling(4))
    known = replace(PERSONAS[0], id="robot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answering, "as_persona", lambda name: known)  # in words of the world
        for _ in range(2):
            asked = StoredPolicy("it", policy, mesh, lambda: params)
            answering.answer(questions, asked, settings, {}, tmp_path)
            answers = (tmp_path / answering.FILE).read_text()
            assert len(answers.splitlines()) == 10
            # As after a kill: rows of a batch that is not whole are made again.
            (tmp_path / answering.FILE).write_text("".join(answers.splitlines(True)[:9]))
    judge = ModelJudge("m", "folder", max_tokens=4, batch_size=3)
    (local,) = model_judge.with_models([judge], lambda _: asked.load())
    replies = local.reply([Prompt("", f"what is 1{i} plus 3 ?") for i in range(3)])
    same_on_both(seen, "personagym", mesh, (answers, replies))


# ---- training -----------------------------------------------------------------------------------


@pytest.fixture
def only_looking(monkeypatch):
    """Makes the programs of a module change nothing; what their updates are given."""
    given = []

    def update(state, rows, tokens, *others):
        for packed in ((rows, tokens), *others[1:]):
            require_whole_rows(*(np.moveaxis(x, 1, 0) for x in jax.tree.leaves(packed) if x.ndim))
        given.append((rows, *others))
        return state, dict(NOTHING)

    def look(module, name="make_programs"):
        programs = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: programs(*args)._replace(update=update))
        return given

    return look


@pytest.fixture
def start(world, tmp_path):
    """A run of a config, without SFT."""
    _, task, policy, params, mesh = world
    fixed = {"mesh__data": mesh.size, "sft__steps": 0}
    with Verifier(task.grade) as verifier:
        parts = task, policy, params, mesh, tmp_path, verifier
        yield lambda file, **fields: run_of(odd(file, **fixed, **fields), *parts)


def test_grpo_with_rehearsal(world, start, seen, only_looking):
    given = only_looking(grpo, "grpo_programs")
    grpo.train_grpo(start("permix.py", rehearsal__weight=0.5), lambda *_: None)
    ((rows, _, rehearsed),) = given
    found = pairs_of(rows), pairs_of(rehearsed.rows)
    assert [len(pairs) for pairs in found] == [24, 3]
    same_on_both(seen, "grpo", world[-1], found)


def test_supervised_fine_tuning(world, start, seen, only_looking):
    given = only_looking(supervised)
    supervised.train_sft(start("sft.py", train__problems_per_step=3), lambda *_: None)
    pairs = pairs_of(given[0][0])
    assert len(pairs) == 3 * 3
    same_on_both(seen, "sft", world[-1], pairs)


def test_distillation(world, start, seen, only_looking):
    given = only_looking(supervised)
    run = start("distill.py")
    task = replace(run.task, grade=lambda text, problem: float(len(text) % 2))
    with Verifier(task.grade) as verifier:
        run = replace(run, verifier=verifier)
        supervised.train_distill(run, run.base, task, lambda *_: None)
    same_on_both(seen, "distill", world[-1], pairs_of(given[0][0]))


def test_the_base(world, seen, tmp_path, only_looking):
    given = only_looking(supervised)
    base.prepare_base(run_of(*world, tmp_path))
    batches = [pairs_of(rows) for rows, *_ in given]
    assert [len(pairs) for pairs in batches] == [5, 5]
    same_on_both(seen, "base", world[-1], batches)


def test_rollouts_alone_are_refused_before_anything_is_built():
    with pytest.raises(ValueError) as refused:
        odd(train__problems_per_step=3)
    assert str(refused.value) == (
        "train.problems_per_step is 3; use a multiple of mesh.data * mesh.fsdp = 8 times "
        "rollout.micro_batches = 1"
    )
