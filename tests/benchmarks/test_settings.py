"""What the benchmark has every implementation do."""

import math

import pytest
from settings import SETTINGS, lengths


def test_lengths_are_quantiles_of_the_log_normal_distribution():
    # Two rows: the quartiles, e^(log 40 -+ 0.6745 * 0.75).
    assert sorted(lengths(2, 1000, 40)) == [round(40 * math.exp(x)) for x in (-0.50587, 0.50587)]


def test_most_rows_end_early_and_a_few_are_cut_off():
    drawn = lengths(64, 128, 40)
    assert sum(n <= 40 for n in drawn) == 32
    assert sum(n == 128 for n in drawn) == 4
    assert min(drawn) >= 2 and drawn == lengths(64, 128, 40) != sorted(drawn)


def test_without_a_median_no_row_ends_early():
    assert lengths(3, 7, 0) == [7, 7, 7]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_work_has_as_many_words_and_rows_as_the_setting_says(name):
    setting = SETTINGS[name]
    work = setting.work()
    assert len(set(work["prompts"])) == setting.prompts
    assert {len(text.split()) for text in work["prompts"]} == {setting.prompt_tokens}
    assert len(work["lengths"]) == setting.prompts * setting.samples
    assert max(work["lengths"]) == setting.limit
