import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.core.problem import Problem
from permix_jax.tasks import overlap
from permix_jax.tasks.datasets.catalogue import DATASETS
from permix_jax.tasks.overlap import grams, same_answer, without_doubles, without_overlap


def problems(*questions_and_answers):
    return [Problem(str(i), q, a, "here") for i, (q, a) in enumerate(questions_and_answers)]


def ids(kept):
    return [problem.id for problem in kept]


def jaccard(one, two):
    one, two = grams(one.prompt), grams(two.prompt)
    return len(one & two) / len(one | two)


def test_grams_by_hand():
    assert grams("Is $x_1 > 12$?") == {
        ("is", "$", "x", "_"), ("$", "x", "_", "1"), ("x", "_", "1", ">"), ("_", "1", ">", "12"),
        ("1", ">", "12", "$"), (">", "12", "$", "?"),
    }  # fmt: skip
    assert grams("Why not?") == {("why", "not", "?")}
    assert grams("") == {()}


@pytest.mark.parametrize(
    ("question", "exact"),
    [
        ("What is $2 + 3$?", 1), ("what is 2+3", 1), (r"What is \left $2\,+\!3$. \right", 1),
        ("What is $2 - 3$?", 0), ("What is $2 + 3!$", 0), ("What is $2 + 33$?", 0),
    ],
)  # fmt: skip
def test_word_for_word_is_without_case_spacing_and_full_stops(question, exact):
    # Whatever the answers are: one of the two is wrong then.
    found = without_overlap(problems((question, "5")), problems(("What is $2+3$?", "6")))
    assert (found.exact, found.reworded) == (exact, 0)
    assert len(found.kept) == 1 - exact


def test_other_words_with_the_same_answer_are_the_same_problem():
    question = "A train leaves at noon and travels at 60 miles per hour{}. How far is it by 3 {}?"
    reworded = question.format(" for a while", "pm")
    train = problems((reworded, "180"), (reworded, "170"), ("Another?", "180"))
    test = problems((question.format("", "o'clock"), "180.0"))
    assert jaccard(train[0], test[0]) >= 0.35
    found = without_overlap(train, test)
    assert ids(found.kept) == ["1", "2"]
    assert (found.exact, found.reworded) == (0, 1)


def test_the_threshold_is_met_from_either_side():
    # 10 tokens have 7 grams. Of two such questions that share their first k tokens, k - 3 grams are
    # common: J = (k - 3) / (14 - (k - 3)), which is 3/11 for k = 6, 4/10 for k = 7.
    test = problems(("a b c d e f g h i j", "1"))
    for other, same in (("a b c d e f za zb zc zd", 0), ("a b c d e f g za zb zc", 1)):
        assert without_overlap(problems((other, "1")), test).reworded == same


texts = st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join)
answers = st.sampled_from(["1", "2", r"\frac{2}{1}"])


some = st.lists(st.tuples(texts, answers), max_size=8)


@given(some, some)
def test_the_index_finds_what_comparing_all_pairs_finds(train, test):
    train, test = problems(*train), problems(*test)

    def occurs(problem):
        return any(
            overlap.question_key(problem) == overlap.question_key(other)
            or (jaccard(problem, other) >= 0.35 and same_answer(problem, other))
            for other in test
        )

    found = without_overlap(train, test)
    assert found.kept == [problem for problem in train if not occurs(problem)]
    assert found.exact + found.reworded + len(found.kept) == len(train)


def test_doubles_are_kept_once_and_contradictions_not_at_all():
    train = problems(
        ("Find $k$ if $k > 0$.", r"\frac12"), ("Find $k$ if $k < 0$.", "2"), ("Wrong.", "5"),
        ("Find $ k $ if $k>0.$", r"\frac{1}{2}"), ("Wrong", "6"), ("wrong", "5"),
        ("Find $k$ if $k>0$", "0.5"),
    )  # fmt: skip
    assert ids(without_doubles(train)) == ["0", "1"]


@given(some)
def test_without_doubles_no_question_occurs_twice_and_again_changes_nothing(rows):
    kept = without_doubles(problems(*rows))
    keys = [overlap.question_key(problem) for problem in kept]
    assert len(set(keys)) == len(keys)
    assert without_doubles(kept) == kept


def test_answers_are_compared_by_value():
    def same(one, two):
        return same_answer(Problem("", "", one, ""), Problem("", "", two, ""))

    assert same("3,000", "3000") and same(r"\frac12", "0.5") and same("1/3", r"\frac{1}{3}")
    assert not same("5", "6") and not same(r"\text{even}", r"\text{odd}")


def test_real_math500_problems_in_other_words_are_found(real_folder, real_problems):
    train, test = real_problems("math12k"), real_problems("math500")
    found = without_overlap(train, test)
    left_out = {problem.id for problem in train} - {problem.id for problem in found.kept}
    rewordings = (real_folder / "math/rewordings_of_math500.jsonl").read_text().splitlines()
    known = {json.loads(line)["unique_id"] for line in rewordings}
    assert len(known) == 4 and known < left_out
    assert (found.exact, found.reworded, len(left_out)) == (0, 16, 16)
    # Equal answers are asked for with reason: as similar ones with another answer are 18 problems.
    similar_to = overlap.similar_in(test)
    similar = [(one, other) for one in train for other in similar_to(one)]
    assert sum(jaccard(a, b) >= 0.8 for a, b in similar if a.answer != b.answer) == 18


@pytest.mark.parametrize(
    ("train", "test", "reworded"),
    [
        ("gsm8k", "gsm8k_test", 0), ("gsm8k", "svamp", 0), ("mawps", "svamp", 1),
        ("mawps", "gsm8k_test", 0), ("math", "math500", 10), ("math12k", "aime24", 0),
    ],
)  # fmt: skip
def test_real_overlaps(real_problems, train, test, reworded):
    found = without_overlap(real_problems(train), real_problems(test))
    assert (found.exact, found.reworded) == (0, reworded)


def test_real_doubles(real_problems):
    left_out = {n: len(real_problems(n)) - len(without_doubles(real_problems(n))) for n in DATASETS}
    others = dict.fromkeys(DATASETS, 0)
    assert left_out == others | {"math": 3, "math12k": 8, "mawps": 216}
