import pytest

from permix_jax.report import tables
from permix_jax.report.tables import cell_text, escape_markdown, estimate, link, table


@pytest.mark.parametrize(
    ("cell", "spec", "text"),
    [
        ({"value": 0.97, "ci95": [0.95, 0.99]}, ".3f", "0.970 [0.950, 0.990]"),
        ({"value": 0.97, "ci95": None}, ".3f", "0.970"),
        ({"value": 0.02, "ci95": [-0.13, None]}, "+.1%", "+2.0% [-13.0%, -]"),
        ({"value": -1e-17, "ci95": [-1e-9, 0.0]}, ".3f", "0.000 [0.000, 0.000]"),
        (-1e-9, "+.1%", "+0.0%"),
        (12, "d", "12"),
        (None, ".3f", "-"),
        ("text", ".3f", "text"),
        (link("jester", "#x"), "", "jester"),
    ],
)
def test_text_of_a_cell(cell, spec, text):
    assert cell_text(cell, spec) == text


def test_an_estimate_that_is_missing_or_no_number_is_an_empty_cell():
    entry = {"pss": 0.5, "pss_ci95": [0.4, 0.6], "nan": float("nan"), "none": None, "alone": 1.0}
    assert estimate(entry, "pss") == {"value": 0.5, "ci95": [0.4, 0.6]}
    assert estimate(entry, "alone") == {"value": 1.0, "ci95": None}
    assert [estimate(entry, key) for key in ("nan", "none", "absent")] == [None] * 3


def test_a_table_as_text():
    header, rows = tables.as_text(table({"a": "", "b": ".1f"}, [("x", 0.25), ("y", None)]))
    assert (header, rows) == (["a", "b"], [["x", "0.2"], ["y", "-"]])


def test_markup_in_a_markdown_cell_is_escaped():
    text = tables.markdown_table(
        table({"name": "", "value": "d"}, [["a|b", 1], ["<b>$x$\n*y*", 2]])
    )
    assert text.splitlines() == [
        "| name | value |",
        "| :-- | --: |",
        "| a\\|b | 1 |",
        "| &lt;b>\\$x\\$ \\*y\\* | 2 |",
    ]
    assert escape_markdown("[x](http://a) &lt;") == "[x]\\(http://a) &amp;lt;"
