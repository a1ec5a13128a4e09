import json

import numpy as np
import pytest
from synthetic_run import PERSONAS, write_run

from permix_jax.report import plots
from permix_jax.stats.lottery import lottery
from permix_jax.train.log import read_rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    workdirs = [write_run(folder / name, name=name) for name in ("permix", "rlvr")]
    for workdir in workdirs:
        task = {"kl": 0.5, "kl_ci95": [0.4, 0.6]}
        kl = {"kl": 0.5, "by_task": {"problems": task, "role_play": task}}
        (workdir / "eval/60/kl.json").write_text(json.dumps(kl))
    return plots.read_runs(workdirs)


def legend(figure) -> list[str]:
    return [text.get_text() for part in figure.legends for text in part.get_texts()]


def labels(figure) -> list[tuple[str, str]]:
    return [(axes.get_xlabel(), axes.get_ylabel().replace("\n", " ")) for axes in figure.axes]


def test_the_base_stands_first_and_once(runs):
    policies = plots.policies_of(runs)
    assert {name: of.step for name, of in policies.items()} == {"base": 0, "permix": 60, "rlvr": 60}


def test_two_runs_of_one_name_are_refused(runs, tmp_path):
    again = write_run(tmp_path / "permix")
    with pytest.raises(ValueError, match="have one name; rename one of them"):
        plots.read_runs([runs["permix"].workdir, again])


def test_figures_name_their_axes_and_keep_the_colour_of_a_name(runs):
    policies = plots.policies_of(runs)
    metrics = {name: read_rows(run.workdir / "metrics.jsonl") for name, run in runs.items()}
    curves = plots.training_curves(metrics)
    step = "training step"
    assert labels(curves) == [(step, "reward"), (step, "KL to the base policy, nats per token")]
    over = plots.over_steps(runs)
    assert labels(over) == [(step, "PSS"), (step, "role-play fidelity")]
    scatter = plots.robustness_and_fidelity(policies)
    assert labels(scatter) == [("PSS", "role-play fidelity")]
    kl = plots.kl_and_what_it_bought(policies)
    assert labels(kl) == [
        ("KL to the base on problems, nats a response", "mean accuracy over personas"),
        ("KL to the base on conversation, nats a response", "role-play fidelity"),
    ]
    assert legend(curves) == legend(over) == ["permix", "rlvr"]
    assert legend(scatter) == legend(kl) == ["base", "permix", "rlvr"]
    colours = [
        {line.get_label(): line.get_color() for line in figure.axes[0].lines}
        for figure in (curves, over)
    ]
    assert colours[0]["permix"] == colours[1]["permix"] != colours[0]["rlvr"]


def test_every_policy_has_its_mark_and_interval_under_each_persona(runs):
    policies = plots.policies_of(runs)
    accuracy = plots.accuracy_by_persona(policies).axes[0]
    fidelity = plots.fidelity_by_persona(policies).axes[0]
    assert len(accuracy.containers) == 3 * (1 + len(PERSONAS))
    assert len(fidelity.containers) == 3 * len(PERSONAS)
    assert all(bar.has_xerr for bar in (*accuracy.containers, *fidelity.containers))
    assert "$robot$ <b>" in [tick.get_text() for tick in accuracy.get_yticklabels()]


def test_the_lottery_begins_at_the_mean_and_has_its_band(runs):
    correct = (np.random.default_rng(0).random((4, 50, 1)) < 0.6) * 1.0
    policies = plots.policies_of(runs)
    policies["base"].stability["lottery"] = lottery(correct)
    axes = plots.persona_lottery({"base": policies["base"]}).axes[0]
    best, worst = (line.get_ydata() for line in axes.lines)
    assert best[0] == pytest.approx(correct.mean()) and worst[0] == pytest.approx(correct.mean())
    assert best[-1] == correct.mean(axis=(1, 2)).max()
    assert len(axes.collections) == 2


def test_paired_differences_are_named_in_full(runs):
    axes = plots.paired_differences(runs, "permix", "rlvr").axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()][::-1]
    assert names[:3] == ["PSS", "accuracy, worst persona", "accuracy, mean over personas"]
    assert axes.get_xlabel() == "permix - rlvr"
    assert [0, 0] in [list(line.get_xdata()) for line in axes.lines]  # no difference
