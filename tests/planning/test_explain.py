"""What takes a step's time, as a table and as a picture."""

import re
from html.parser import HTMLParser

import pytest

from permix_jax.core.tpus import CHIPS
from permix_jax.planning.explain import dearest, explain_page
from permix_jax.planning.plan import Plan, Use
from permix_jax.planning.prediction import COPIES, CYCLES, Cost


def use(*costs: Cost) -> Use:
    return Use({}, 0.0, 0.0, True, 0.0, 0.0, 0.0, costs)


@pytest.fixture
def plan():
    update = [
        Cost("layers/mlp", CYCLES, 5.0, 0.0),
        Cost("layers/mlp", "all-gather", 1.0, 2e9),
        Cost("layers/attention", COPIES, 2.0, 0.0),
        Cost("<b>", CYCLES, 0.004, 0.0),
    ]
    programs = {"rollout": use(Cost("decode/head", CYCLES, 1.996, 0.0)), "update": use(*update)}
    return Plan("v5e:1x1", CHIPS["v5e"], 1, programs)


def test_the_table_has_the_dearest_places_of_all_programs(plan):
    lines = [line.split() for line in dearest(plan, rows=3).splitlines()[2:]]
    assert lines == [
        ["update/layers/mlp", "cycles", "5", "50.0%", "-"],
        ["update/layers/attention", "waits", "for", "copies", "2", "20.0%", "-"],
        ["rollout/decode/head", "cycles", "2", "20.0%", "-"],
    ]
    assert dearest(plan).splitlines()[5].split()[-1] == "2"  # GB
    assert len(dearest(plan).splitlines()) == 2 + 5


class _Tree(HTMLParser):
    """(depth, title, flex) of each place."""

    def __init__(self, page: str):
        super().__init__()
        self.depth, self.places = 0, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            self.depth += 1
            values = dict(attrs)
            if "title" in values:
                flex = re.match(r"flex: (\d+) 1 0", values["style"])[1]
                self.places.append((self.depth // 2, values["title"], int(flex)))

    def handle_endtag(self, tag):
        self.depth -= tag == "div"


def test_the_picture_nests_places_by_their_seconds(plan):
    page = explain_page(plan)
    tree = _Tree(page)
    assert tree.depth == 0
    assert tree.places == [
        (1, "update 8 s, 80.0%", 800400),
        (2, "layers 8 s, 80.0%", 800000),
        (3, "mlp 6 s, 60.0%", 600000),
        (4, "cycles 5 s, 50.0%", 500000),
        (4, "all-gather 1 s, 10.0%", 100000),
        (3, "attention 2 s, 20.0%", 200000),
        (4, "waits for copies 2 s, 20.0%", 200000),
        (1, "rollout 2 s, 20.0%", 199600),
        (2, "decode 2 s, 20.0%", 199600),
        (3, "head 2 s, 20.0%", 199600),
        (4, "cycles 2 s, 20.0%", 199600),
    ]
    # What is too small to see keeps its width, without a label.
    assert 'style="flex: 400 1 0"' in page
    assert "<b>" not in page and "update/&lt;b&gt;" in page
    assert not re.search(r"https?:|<script|src=", page)
    assert "10 s as predicted" in page


def test_a_plan_without_predictions_has_an_empty_picture(plan):
    empty = plan._replace(programs={"rollout": use()})
    assert len(dearest(empty).splitlines()) == 2
    assert _Tree(explain_page(empty)).places == []
