import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.core.problem import Problem
from permix_jax.tasks.filters import filter_problems


def bank(name, values):
    return [Problem(str(i), "", "1", "here", {name: value}) for i, value in enumerate(values)]


def ids(problems):
    return [problem.id for problem in problems]


OTHERS = [Problem("other", "", "1", "there", {"type": "addsub"})]
SUBJECTS = bank("subject", ["Algebra", "Counting & Probability", "Number Theory", "Prealgebra"])


def test_no_filter_lets_everything_pass():
    problems = [*bank("steps", [0, 1, 5]), *bank("level", [0, 5]), *OTHERS]
    assert filter_problems(problems, 0, "", "") == problems


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 9))
def test_max_steps_keeps_one_to_so_many_and_what_has_no_steps(steps, most):
    problems = [*bank("steps", [*steps, 1]), *OTHERS]
    kept = filter_problems(problems, most, "", "")
    assert ids(kept) == [str(i) for i, n in enumerate([*steps, 1]) if 1 <= n <= most] + ["other"]


@pytest.mark.parametrize("levels", ["1,5", "5, 1", "Level 1,Level 5"])
def test_levels(levels):
    problems = bank("level", [0, 1, 3, 5, 5])
    assert ids(filter_problems([*problems, *OTHERS], 0, levels, "")) == ["1", "3", "4", "other"]


@pytest.mark.parametrize(
    "subjects", ["Counting & Probability,Algebra", "algebra, counting_and_probability"]
)
def test_subjects_by_their_names_or_folders(subjects):
    assert ids(filter_problems([*SUBJECTS, *OTHERS], 0, "", subjects)) == ["0", "1", "other"]


def test_filters_are_all_to_be_passed():
    problems = [
        Problem(f"{level}{subject}", "", "1", "here", {"level": level, "subject": subject})
        for level in (1, 2)
        for subject in "AB"
    ]
    assert ids(filter_problems(problems, 0, "2", "B")) == ["2B"]


@pytest.mark.parametrize(
    ("problems", "arguments", "message"),
    [
        (OTHERS, (0, "1", ""), "data.levels is set, but no problem of data.train has level"),
        (OTHERS, (0, "", "Algebra"), "data.subjects is set, but no problem of data.train has su"),
        (bank("steps", [0, 3, 4]), (2, "", ""),
         "data.max_steps is 2, which leaves no problem; use 3 or more"),
        (bank("level", [2, 5]), (0, "2,6", ""),
         "data.levels is '2,6', but no problem of data.train has level '6'; use some of 2, 5"),
        (bank("level", [2, 5]), (0, "2,", ""), "has level ''; use some of 2, 5"),
        (SUBJECTS, (0, "", "Algebra,geometri"),
         "data.subjects is 'Algebra,geometri', but no problem of data.train has subject "
         "'geometri'; use some of Algebra, Counting & Probability, Number Theory, Prealgebra"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_met_names_field_value_and_remedy(problems, arguments, message):
    with pytest.raises(ValueError) as error:
        filter_problems(problems, *arguments)
    assert message in str(error.value)


def test_max_steps_leaves_problems_alone_of_which_none_has_steps():
    assert filter_problems(OTHERS, 2, "", "") == list(OTHERS)
