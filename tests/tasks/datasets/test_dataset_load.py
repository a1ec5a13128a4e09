import gzip
import logging
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from small_data import GSM8K, MATH, MATH_TEST, MAWPS, jsonl

from permix_jax.core.problem import Problem
from permix_jax.tasks.datasets.builders import BUILDERS, ProblemSet
from permix_jax.tasks.datasets.catalogue import DATASETS
from permix_jax.tasks.datasets.load import content_digest, load_problems
from permix_jax.tasks.datasets.rows import mawps, read_problems


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def built(cache, name):
    return sorted((cache / "datasets").glob(f"{name}-*"))


def test_every_data_set_is_built_from_a_folder_without_network_or_tensorflow(
    folder, cache, no_network, capfd
):
    counts = {name: len(load_problems(name, str(folder), cache)) for name in DATASETS}
    assert counts == {
        "gsm8k": 4, "gsm8k_test": 1, "math": 6, "math12k": 7, "math500": 3, "aime24": 1,
        "mawps": 6, "svamp": 3,
    }  # fmt: skip
    assert {name: builder.name for name, builder in BUILDERS.items()} == {
        name: f"permix_{name}" for name in DATASETS
    }
    assert "tensorflow" not in sys.modules
    assert capfd.readouterr() == ("", "")


def test_what_is_read_back_is_what_the_rows_say(folder, cache, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "permix_jax")
    content = (folder / "mawps/mawps.jsonl").read_bytes()
    expected = list(read_problems(content, "file", "mawps", mawps))
    assert load_problems("mawps", str(folder), cache) == expected
    monkeypatch.setattr(ProblemSet, "_generate_examples", None)  # it is built once
    assert load_problems("mawps", str(folder), cache) == expected
    digest = content_digest(expected)
    assert caplog.messages == [f"mawps: 6 problems, sha256 {digest[:12]}"] * 2


def test_text_of_any_kind_survives(folder, cache):
    texts = ['½ of €3 \\frac{1}{2}\n\t"quoted"', "مرحبا", "\u0000\u2028", "𝔘" * 50]
    rows = [{"input": f"x{text}x", "target": 1} for text in texts]
    (folder / "mawps/mawps.jsonl").write_bytes(jsonl(rows))
    problems = load_problems("mawps", str(folder), cache)
    assert [problem.prompt for problem in problems] == [row["input"] for row in rows]


def test_math12k_is_both_files_in_their_order(folder, cache):
    problems = load_problems("math12k", str(folder), cache)
    assert [p.id for p in problems] == [row["unique_id"] for row in [*MATH, *MATH_TEST]]
    assert {p.source for p in problems} == {"math12k"}


def test_files_may_be_gzipped_or_not(folder, cache):
    gzipped = load_problems("gsm8k", str(folder), cache)
    (folder / "gsm8k/train.jsonl.gz").unlink()
    (folder / "gsm8k/train.jsonl").write_bytes(jsonl(GSM8K))
    assert load_problems("gsm8k", str(folder), cache) == gzipped


def test_a_changed_file_makes_a_new_build_and_the_old_one_stays(folder, cache):
    old = load_problems("mawps", str(folder), cache)
    path = folder / "mawps/mawps.jsonl"
    content = path.read_bytes()
    path.write_bytes(jsonl(MAWPS[:2]))
    assert load_problems("mawps", str(folder), cache) == old[:2]
    assert len(built(cache, "mawps")) == 2
    path.write_bytes(content)
    assert load_problems("mawps", str(folder), cache) == old
    assert len(built(cache, "mawps")) == 2


KILLED = """
import os, sys
from pathlib import Path
from permix_jax.tasks.datasets import builders, load

def killed(self, problems):
    yield 0, dict.fromkeys(builders.FEATURES, "x")
    os.kill(os.getpid(), 9)

builders.ProblemSet._generate_examples = killed
load.load_problems("mawps", sys.argv[1], Path(sys.argv[2]))
"""


def test_a_build_that_was_killed_is_not_used(folder, cache):
    command = [sys.executable, "-c", KILLED, str(folder), str(cache)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    (place,) = built(cache, "mawps")
    assert len(list(place.glob("*/*incomplete*"))) == 1
    problems = load_problems("mawps", str(folder), cache)
    assert len(problems) == len(MAWPS)
    # Nor is a folder that is no whole build.
    (info,) = place.rglob("dataset_info.json")
    info.unlink()
    assert load_problems("mawps", str(folder), cache) == problems


def test_another_process_may_finish_the_same_build_first(folder, cache, monkeypatch):
    whole = ProblemSet._generate_examples

    def overtaken(self, problems):
        monkeypatch.setattr(ProblemSet, "_generate_examples", whole)
        load_problems("mawps", str(folder), cache)
        yield from whole(self, problems)

    monkeypatch.setattr(ProblemSet, "_generate_examples", overtaken)
    assert len(load_problems("mawps", str(folder), cache)) == len(MAWPS)
    (place,) = built(cache, "mawps")
    assert not list(place.glob("*/*incomplete*"))


def test_a_malformed_row_is_named_in_one_line_and_leaves_no_build(folder, cache):
    path = folder / "mawps/mawps.jsonl"
    path.write_bytes(jsonl(MAWPS[:1]) + b'{"input": "a"}')
    for _ in range(2):
        with pytest.raises(ValueError) as error:
            load_problems("mawps", str(folder), cache)
        assert str(error.value) == (
            f"{path}:2: there is no field 'target', only 'input'; add it, or rename the field "
            "that has it"
        )


@pytest.mark.parametrize("place", ["absent", "."])
def test_a_missing_file_names_field_value_and_remedy(tmp_path, cache, place):
    with pytest.raises(FileNotFoundError) as error:
        load_problems("math12k", str(tmp_path / place), cache)
    assert str(error.value) == (
        f"data.folder is {str(tmp_path / place)!r}, which has neither math/train.jsonl nor "
        "math/train.jsonl.gz for math12k; put it there, or leave data.folder empty to download it"
    )


def test_an_unknown_name_lists_the_names(cache):
    with pytest.raises(ValueError) as error:
        load_problems("gsm9k", "", cache)
    for name in (*DATASETS, "'gsm9k'", ".jsonl"):
        assert name in str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_users_own_file(tmp_path, cache, suffix):
    path = tmp_path / f"mine{suffix}"
    content = jsonl([{"prompt": "What is 2+3?", "answer": "5"}, {"prompt": "Why?", "answer": 7}])
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert load_problems(str(path), "", cache) == [
        Problem("1", "What is 2+3?", "5", str(path)), Problem("2", "Why?", "7", str(path))
    ]  # fmt: skip
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{suffix}: there is no such file; name a"):
        load_problems(str(path), "", cache)


def test_the_digest_is_of_content_and_order_not_of_the_source():
    one, two = Problem("1", "a", "b", "x", {"m": 1, "n": 2}), Problem("2", "c", "d", "x")
    digest = content_digest([one, two])
    assert digest == content_digest([Problem("1", "a", "b", "y", {"n": 2, "m": 1}), two])
    others = [[two, one], [one], [Problem("1", "a", "b", "x", {"m": 1}), two]]
    assert len({digest, *map(content_digest, others)}) == 4


@pytest.mark.parametrize("name", DATASETS)
def test_real_data_sets_have_the_rows_and_checksums_that_docs_data_md_names(real_problems, name):
    problems = real_problems(name)
    assert len({problem.id for problem in problems}) == len(problems)
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    assert f"| `{name}` | {len(problems):,} | `{content_digest(problems)[:12]}` |" in page


def test_real_sets_have_their_known_steps_equations_and_levels(real_problems):
    def metas(name, field):
        return [p.meta[field] for p in real_problems(name) if field in p.meta]

    steps = {0: 95, 1: 404, 2: 2175, 3: 2137, 4: 1424, 5: 785, 6: 287, 7: 123, 8: 40, 9: 3}
    assert Counter(metas("gsm8k", "steps")) == steps
    assert not any("<<" in solution for solution in metas("gsm8k", "solution"))
    equations = metas("mawps", "solution")
    assert len(equations) == 1264 and equations[:2] == ["70 - 27 = 43", "54 - 28 = 26"]
    levels = {0: 2, 1: 564, 2: 1348, 3: 1592, 4: 1690, 5: 2302}
    assert Counter(metas("math", "level")) == levels
    assert len(set(metas("math", "subject")) & set(metas("math500", "subject"))) == 7
