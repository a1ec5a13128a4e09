"""The table of planned scaling, by hand."""

import os

import pytest

from permix_jax.report.tables import markdown_table


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # it sets what libtpu reads
    import scaling

    return scaling


def test_of_ideal_is_against_the_fewest_chips(scaling):
    rows = [
        (8, {"rollout": 3.0, "update": 1.0}, 32, 4.0),
        (16, {"rollout": 2.0, "update": 0.5}, 64, 5.0),
    ]
    lines = markdown_table(scaling.scaling_table(rows)).splitlines()
    assert lines[0].startswith("| chips | slice | rollout | update | strong: step, s | of ideal |")
    assert lines[2] == "| 8 | 2x4 | 3.00 | 1.00 | 4.00 | 1.00 | 32 | 4.00 | 1.00 |"
    # 4 s on 8 chips are 2 s on 16 at best.
    assert lines[3] == "| 16 | 4x4 | 2.00 | 0.50 | 2.50 | 0.80 | 64 | 5.00 | 0.80 |"
