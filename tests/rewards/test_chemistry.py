"""Reactions, substances and electron configurations."""

import pytest

from permix_jax.rewards.chemistry import same_formula

WATER = r"2H_2 + O_2 \rightarrow 2H_2O"


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        (r"\ce{O2 + 2H2 -> 2H2O}", WATER, True), ("2H2(g) + O2(g) → 2H2O(l)", WATER, True),
        (r"O_2 + 2H_2 \to 2H_2O", WATER, True),
        (r"\ce{O2 + H2 -> 2H2O}", WATER, False), (r"2H_2O \rightarrow 2H_2 + O_2", WATER, False),
        (r"2H_2 + O_2", WATER, False),
        (r"\mathrm{H_2SO_4}", "H2SO4", True), ("H2SO3", "H2SO4", False), ("CO", "Co", False),
        (r"[\text{He}]\,2s^2\,2p^4", "1s^2 2s^2 2p^4", True), ("1s2 2s2 2p4", "1s^22s^22p^4", True),
        ("1s^2 2s^2 2p^3", "1s^2 2s^2 2p^4", False),
        (r"[\mathrm{Ne}]2s^2 2p^4", "1s^2 2s^2 2p^4", False),
        ("[Ar] 4s^1 3d^{10}", r"[\text{Ar}]3d^{10}4s^1", True),
        ("[Ar] 4s^2 3d^9", "[Ar]3d^{10}4s^1", False),
        ("5", "5", False),  # which are no formulas
    ],
)  # fmt: skip
def test_one_formula_in_other_writings(answer, gold, same):
    assert same_formula(answer, gold) == same
