from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.problem import Problem
from permix_jax.tasks.order import problems_of_step


def bank(length):
    return [Problem(str(i), "", "", "test") for i in range(length)]


def order(length, seed, count, steps):
    """Ids in the order in which steps 1 .. `steps` train on them, `count` a step."""
    problems = bank(length)
    taken = [problems_of_step(problems, seed, step, count) for step in range(1, steps + 1)]
    assert all(len(step) == count for step in taken)
    return [problem.id for step in taken for problem in step]


def test_a_step_takes_what_comes_next_across_the_end_of_an_epoch():
    # 10 problems, 4 a step: steps 1 to 5 are two epochs, and step 3 has the end of one and the
    # start of the next.
    ids = order(10, 0, 4, 5)
    assert sorted(ids[:10]) == sorted(ids[10:]) == [str(i) for i in range(10)]
    assert ids[:10] != ids[10:]


@settings(deadline=None)
@given(length=st.integers(1, 30), seed=st.integers(0, 2**31 - 1), count=st.integers(1, 40))
def test_every_epoch_is_a_permutation_whatever_the_count(length, seed, count):
    ids = order(length, seed, count, steps=-(-3 * length // count))
    every = sorted(str(i) for i in range(length))
    for epoch in range(3):
        assert sorted(ids[epoch * length : (epoch + 1) * length]) == every


@settings(deadline=None)
@given(seed=st.integers(0, 2**31 - 1), step=st.integers(1, 10_000))
def test_a_step_depends_on_nothing_but_seed_and_step(seed, step):
    problems = bank(7)
    first = problems_of_step(problems, seed, step, 3)
    for other in range(1, 40):  # more epochs than the cache of permutations holds
        problems_of_step(problems, seed, other, 3)
    assert problems_of_step(problems, seed, step, 3) == first


@settings(deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_the_order_does_not_depend_on_how_it_is_cut_into_steps(seed):
    assert order(12, seed, 3, 8) == order(12, seed, 4, 6) == order(12, seed, 24, 1)


def test_seeds_have_orders_of_their_own():
    assert len({tuple(order(20, seed, 20, 1)) for seed in range(20)}) == 20
