"""The glossary of metrics: which entry a name has. tests/conftest.py checks what runs write."""

import pytest

from permix_jax.train.metric_names import METRICS, metric


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("reward", "reward"),
        ("rewards/my term/mean", "rewards/<term>/mean"),
        ("persona/a.b+c/accuracy", "persona/<persona>/accuracy"),
        ("persona/a/b/weight", "persona/<persona>/weight"),
    ],
)
def test_a_name_has_its_entry(name, entry):
    assert metric(name) is METRICS[entry]


@pytest.mark.parametrize(
    "name", ["rewards", "rewards//mean", "persona/a/accuracies", "timexcompile"]
)
def test_other_names_have_none(name):
    assert metric(name) is None
