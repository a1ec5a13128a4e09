from hypothesis import given
from hypothesis import strategies as st

from permix_jax.core.problem import Problem
from permix_jax.tasks.order import problems_of_step

PROBLEMS = [Problem(str(i), "", "", "test") for i in range(30)]


def order(length, seed, count, steps):
    """Ids in the order in which steps 1 .. `steps` train on them, `count` a step."""
    problems = PROBLEMS[:length]
    taken = [problems_of_step(problems, seed, step, count) for step in range(1, steps + 1)]
    assert all(len(step) == count for step in taken)
    return [problem.id for step in taken for problem in step]


@given(length=st.integers(1, 30), seed=st.integers(0, 2**31 - 1), count=st.integers(1, 40))
def test_every_epoch_is_a_permutation_whatever_the_count(length, seed, count):
    ids = order(length, seed, count, steps=-(-3 * length // count))
    every = sorted(str(i) for i in range(length))
    for epoch in range(3):
        assert sorted(ids[epoch * length : (epoch + 1) * length]) == every


@given(seed=st.integers(0, 2**31 - 1), step=st.integers(1, 10_000))
def test_a_step_depends_on_nothing_but_seed_and_step(seed, step):
    first = problems_of_step(PROBLEMS[:7], seed, step, 3)
    for other in range(1, 40):  # more epochs than the cache of permutations holds
        problems_of_step(PROBLEMS[:7], seed, other, 3)
    assert problems_of_step(PROBLEMS[:7], seed, step, 3) == first


@given(seed=st.integers(0, 2**31 - 1))
def test_the_order_does_not_depend_on_how_it_is_cut_into_steps(seed):
    assert order(12, seed, 3, 8) == order(12, seed, 4, 6) == order(12, seed, 24, 1)


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [order(20, seed, 20, 2) for seed in range(20)]
    assert len({tuple(epoch) for both in orders for epoch in (both[:20], both[20:])}) == 40
