import json

import pytest
from report_page import read_report, section, tables_of
from synthetic_run import change, write_run

from permix_jax.report.compare import compare_runs
from permix_jax.report.comparison_page import compare, comparison_report, write_comparison_report
from permix_jax.report.run_figures import MEASURES, read_run
from permix_jax.report.run_page import write_run_report
from permix_jax.report.tables import as_text
from permix_jax.stats.statistics import t_interval


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    workdirs = [
        write_run(folder / f"{name}-s{seed}", name=name, seed=seed, steps=3)
        for name in ("permix", "rlvr")
        for seed in (0, 1)
    ]
    write_run_report(workdirs[0])
    table = compare(workdirs, folder)
    return folder, workdirs, table, *read_report(folder)


def test_report_and_plots_are_written(compared):
    folder, _, _, page, report, markdown = compared
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "report.html", "report.json", "report.md", "accuracy_by_persona.png",
        "pss_over_steps.png", "robustness_fidelity.png",
    }  # fmt: skip
    assert page.headings == [
        "Comparison", "Methods", "permix against rlvr", "More than PSS",
        "Robustness and fidelity", "PSS over steps", "Accuracy by persona", "Runs",
        "Completions", "Configuration",
    ]  # fmt: skip
    assert page.errors == []
    for shown, table in zip(page.tables, tables_of(report), strict=True):
        header, rows = as_text(table)
        assert [[text for text, _ in row] for row in shown] == [header, *rows]
    assert "## permix against rlvr" in markdown


def test_figures_are_those_of_the_comparison(compared):
    _, workdirs, _, _, report, _ = compared
    comparison = compare_runs([read_run(workdir) for workdir in workdirs])
    rows = section(report, "methods")["blocks"][0]["rows"]
    assert [row[:2] for row in rows] == [["base", 2], ["permix", 2], ["rlvr", 2]]
    entry = comparison["methods"]["permix"]["measures"]["PSS"]
    low, high = rows[1][2]["ci95"]
    assert rows[1][2]["value"] == entry["mean"]
    assert (high - low) / 2 == pytest.approx(entry["half_width"])
    pair = {row[0]: row[1:] for row in section(report, "pair-1")["blocks"][0]["rows"]}
    assert list(pair) == list(MEASURES)
    assert pair["PSS"][1]["value"] == comparison["pairs"][0]["relative"]["PSS"]["mean"]
    assert pair["PSS"][2] == 0.212 and pair["mean"][2] is None


def test_personas_and_steps_are_means_over_seeds(compared):
    _, workdirs, _, _, report, _ = compared
    stabilities = [
        json.loads((workdir / "eval/3/stability.json").read_text()) for workdir in workdirs[:2]
    ]

    def mean_of(figure):
        mean, half = t_interval([of[figure] for of in stabilities])
        return {"value": mean, "ci95": [mean - half, mean + half]}

    plain = section(report, "personas")["blocks"][0]["rows"][0]
    assert plain[0]["text"] == "no persona" and plain[2] == mean_of("accuracy_no_persona")
    assert section(report, "steps")["blocks"][1]["rows"][1][:2] == [3, mean_of("pss")]


def test_runs_are_linked_where_they_have_a_report(compared):
    rows = section(compared[4], "runs")["blocks"][0]["rows"]
    assert rows[0][0] == {"text": "permix-s0", "href": "permix-s0/report.html"}
    assert [row[0] for row in rows[1:]] == ["permix-s1", "rlvr-s0", "rlvr-s1"]


def test_pairs_over_two_fields_make_maps(tmp_path):
    """Two shares by two KL weights, one cell without runs."""
    runs = []
    for share, kl in ((0.0, 0.1), (0.5, 0.1), (0.5, 0.02)):
        for method in ("permix", "rlvr"):
            name = f"{method} plain {share} kl {kl}"
            for seed in (0, 1):
                folder = write_run(tmp_path / f"{name}-s{seed}", name=name, seed=seed, steps=3)
                fields = {"task": {"plain_style_share": share}, "grpo": {"kl_weight": kl}}
                change(folder / "config.json", config={"seed": seed, **fields})
                runs.append(read_run(folder))
    comparison = compare_runs(runs)
    gain = {pair["ours"]: pair["relative"]["PSS"] for pair in comparison["pairs"]}
    (maps,) = [s for s in comparison_report(runs, comparison, tmp_path)["sections"]
               if s["id"] == "maps"]  # fmt: skip
    chart = maps["blocks"][0]
    assert (chart["y"], chart["ys"]) == ("grpo.kl_weight", [0.02, 0.1])
    assert (chart["x"], chart["xs"]) == ("task.plain_style_share", [0.0, 0.5])
    assert chart["series"][0][0] is None
    entry = gain["permix plain 0.5 kl 0.02"]
    assert chart["series"][0][1]["value"] == entry["mean"]
    low, high = chart["series"][0][1]["ci95"]
    assert (high - low) / 2 == pytest.approx(entry["half_width"])
    write_comparison_report(runs, comparison, tmp_path / "out")
    page, _, _ = read_report(tmp_path / "out")
    assert page.errors == [] and (tmp_path / "out/map_role_play.png").stat().st_size > 5000


def test_completions_of_all_methods_stand_side_by_side(compared):
    browser = compared[4]["completions"]
    assert browser["policies"] == ["base", "permix", "rlvr"]
    assert all(len(pair["answers"]) == 3 for pair in browser["pairs"])


def test_fields_that_differ_come_first(tmp_path):
    workdirs = [write_run(tmp_path / name, name=name, steps=3) for name in ("permix", "rlvr")]
    path = workdirs[1] / "config.json"
    path.write_text(path.read_text().replace("0.05", "0.2"))
    runs = [read_run(workdir) for workdir in workdirs]
    report = comparison_report(runs, compare_runs(runs), tmp_path)
    assert section(report, "config")["blocks"][0]["rows"] == [
        ["grpo.kl_weight", "0.05", "0.2"],
        ["train.steps", "3", "3"],
    ]


def test_one_seed_without_style_rule(tmp_path):
    workdir = write_run(tmp_path / "run", name="permix", preset="x", with_fidelity=False)
    compare([workdir], tmp_path / "out")
    page, report, _ = read_report(tmp_path / "out")
    assert report["names"] == ["base:x", "permix:x"] and page.errors == []
    assert "Robustness and fidelity" not in page.headings
    assert not (tmp_path / "out/robustness_fidelity.png").exists()
