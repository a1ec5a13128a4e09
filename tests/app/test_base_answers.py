"""Runs that start from one base, and ask it the same, share its answers."""

import shutil

import pytest
from runs import run_tiny

SMALL = {"train__steps": 1, "sft__steps": 4, "eval__kl_responses": 0, "task__num_test": 4}
FILES = ("completions.jsonl", "stability.json", "fidelity.json")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The workdir of a PerMix run, beside the cache that it filled."""
    folder = tmp_path_factory.mktemp("first")
    return run_tiny(folder / "permix", "permix.py", folder / "cache", **SMALL)


@pytest.fixture
def cache(first, tmp_path):
    return shutil.copytree(first.with_name("cache"), tmp_path / "cache")


def files(workdir):
    return [(workdir / "eval/0" / name).read_text() for name in FILES]


def kept(cache):
    return list(cache.glob("base_answers/*/completions.jsonl"))


def test_the_second_run_asks_the_base_nothing(first, cache, tmp_path, capfd):
    before = kept(cache)
    second = run_tiny(tmp_path / "rlvr", "rlvr.py", cache, **SMALL)
    said = capfd.readouterr().err
    assert "evaluation of the trained policy" in said
    assert "evaluation of the base policy" not in said
    assert files(first) == files(second)
    assert kept(cache) == before and len(before) == 1

    # A run that was killed after a batch goes on with its own answers.
    path = second / "eval/0/completions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:36]))
    (second / "eval/0/stability.json").unlink()
    run_tiny(second, "rlvr.py", cache, **SMALL)
    assert "evaluation of the base policy 132/132" in capfd.readouterr().err
    assert files(first) == files(second)


@pytest.mark.parametrize("other", [{"seed": 1}, {"eval__temperature": 0.5}])
def test_another_base_or_other_questions_are_answered_anew(first, cache, tmp_path, other):
    second = run_tiny(tmp_path / "two", "permix.py", cache, **SMALL | other)
    assert files(first)[0] != files(second)[0]
    assert len(kept(cache)) == 2
