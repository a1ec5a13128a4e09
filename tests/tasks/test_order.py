import pytest
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


@settings(deadline=None)
@given(
    length=st.integers(1, 30),
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(1, 50),
    share=st.integers(1, 6),
    hosts=st.integers(1, 5),
)
def test_the_parts_of_all_hosts_are_the_step_of_a_single_one(length, seed, step, share, hosts):
    problems, count = bank(length), share * hosts
    parts = [problems_of_step(problems, seed, step, count, host, hosts) for host in range(hosts)]
    assert all(len(part) == share for part in parts)
    whole = problems_of_step(problems, seed, step, count)
    assert [problem for part in parts for problem in part] == whole


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    share=st.integers(1, 4),
    hosts=st.integers(1, 4),
    stops=st.lists(st.integers(1, 29), max_size=4),
)
def test_hosts_that_stop_and_go_on_take_every_problem_of_an_epoch_once(seed, share, hosts, stops):
    # A run of 30 steps in pieces: each begins afresh, with the step that follows the last one.
    count, steps = share * hosts, 30
    problems = bank(steps * count)
    borders = [0, *sorted(set(stops)), steps]
    taken = [
        problem.id
        for start, end in zip(borders, borders[1:], strict=False)
        for step in range(start + 1, end + 1)
        for host in range(hosts)
        for problem in problems_of_step(bank(len(problems)), seed, step, count, host, hosts)
    ]
    assert sorted(taken) == sorted(problem.id for problem in problems)
    assert taken == order(len(problems), seed, count, steps)


@pytest.mark.parametrize(("count", "host", "hosts"), [(5, 0, 2), (4, 2, 2), (4, -1, 2)])
def test_a_part_that_cannot_be_taken_is_refused(count, host, hosts):
    with pytest.raises(ValueError, match=f"host {host} of {hosts} .* = {count}; use a multiple"):
        problems_of_step(bank(9), 0, 1, count, host, hosts)
