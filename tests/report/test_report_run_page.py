import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from report_page import Page, read_report, section, tables_of
from synthetic_run import PERSONAS, change, write_rows, write_run

from permix_jax.evaluation.results import read_evaluation
from permix_jax.report.charts import range_of
from permix_jax.report.comparison_page import compare
from permix_jax.report.overview import overview, summary_table
from permix_jax.report.run_page import run_report, write_evaluation_report, write_run_report
from permix_jax.report.tables import as_text, number_of
from permix_jax.stats.stability import stability

ATTACK = (
    "</script><script>alert(1)</script><!--<script> & <img src=x onerror=alert(2)> </pre> ```\n"
    "</table> \ud83d"
)


def written(workdir) -> tuple[Page, dict, str]:
    write_run_report(workdir)
    return read_report(workdir)


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """A run and its report; not to be changed."""
    workdir = write_run(tmp_path_factory.mktemp("run"), preset="tiny")
    return workdir, *written(workdir)


def test_page_has_every_section_and_is_well_formed(standard):
    _, page, report, _ = standard
    assert page.headings == [
        "permix:tiny", "Results", "Accuracy by persona", "Stability over steps", "What changed",
        "Fidelity by persona", "Training", "Completions", "Configuration",
    ]  # fmt: skip
    assert page.errors == []
    linked = {value for name, value in page.attributes if name == "href" and "?" not in value}
    ids = [value for name, value in page.attributes if name == "id"]
    assert {f"#{s['id']}" for s in report["sections"]} < linked <= {f"#{i}" for i in ids}
    assert len(ids) == len(set(ids))
    charts = [b for s in report["sections"] for b in s["blocks"] if "series" in b]
    assert [chart["title"] for chart in charts][1:] == [
        "reward", "KL to the base policy, nats per token", "entropy, nats per token",
        "mean length, tokens",
    ]  # fmt: skip


def test_html_markdown_and_json_have_the_same_tables(standard):
    _, page, report, markdown = standard
    tables = tables_of(report)
    assert len(page.tables) == len(tables) == 8
    for shown, table in zip(page.tables, tables, strict=True):
        header, rows = as_text(table)
        assert [[text for text, _ in row] for row in shown] == [header, *rows]
        for shown_row, row in zip(shown[1:], table["rows"], strict=True):
            for (_, sorted_by), cell in zip(shown_row, row, strict=True):
                number = number_of(cell)
                is_number = isinstance(number, (int, float))
                assert sorted_by is None or is_number
                assert not is_number or float(sorted_by) == number
    for table in tables:
        for cells in as_text(table)[1]:
            numbers = [cell for cell in cells[1:] if re.fullmatch(r"[-+.\d, \[\]e]+", cell)]
            assert any(all(n in line for n in numbers) for line in markdown.splitlines())


def test_report_says_which_step_is_the_best_and_what_the_run_began_with(tmp_path):
    write_run(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["start"] = {"run": "/runs/other", "step": 7, "sha256": "0"}
    (tmp_path / "config.json").write_text(json.dumps(record))
    best = {"figure": "accuracy_worst", "step": 40, "value": 0.71849, "stopped_at": None}
    (tmp_path / "best.json").write_text(json.dumps(best))
    began, found = "begins with step 7 of /runs/other", "best accuracy_worst: 0.718 at step 40"
    assert run_report(tmp_path)["facts"][-2:] == [began, found]
    best |= {"step": None, "value": None, "stopped_at": 60}
    (tmp_path / "best.json").write_text(json.dumps(best))
    ended = ["no accuracy_worst at all", "stopped early at step 60: no new best"]
    assert run_report(tmp_path)["facts"][-2:] == ended


def test_report_holds_the_figures_of_the_evaluations(standard):
    workdir, _, report, _ = standard
    for place, step in ((1, 0), (2, 60)):
        of = json.loads((workdir / f"eval/{step}/stability.json").read_text())
        results = {row[0]: row for row in section(report, "results")["blocks"][0]["rows"]}
        score = {"value": of["pss"], "ci95": of["pss_ci95"]}
        assert results["Persona stability (PSS)"][place] == score
        chart = section(report, "personas")["blocks"][0]
        accuracies = {number_of(row[0]): row[place] for row in chart["rows"]}
        for entry in of["per_persona"]:
            cell = {"value": entry["accuracy"], "ci95": entry["accuracy_ci95"]}
            assert accuracies[entry["persona"]] == cell
        steps = {row[0]: row[1] for row in section(report, "steps")["blocks"][1]["rows"]}
        assert steps[step]["value"] == of["pss"]


def test_personas_are_ranked_by_the_base_policy_with_intervals(standard):
    _, page, report, _ = standard
    chart = section(report, "personas")["blocks"][0]
    names = [number_of(row[0]) for row in chart["rows"]]
    base = [row[1]["value"] for row in chart["rows"]]
    assert names[0] == "no persona" and set(names[1:]) == set(PERSONAS)
    assert base[1:] == sorted(base[1:], reverse=True)
    classes = [value for name, value in page.attributes if name == "class"]
    assert classes.count("interval") == 2 * (1 + 4) + 2 * 4  # accuracy, and fidelity
    low, high = range_of(chart)
    places = {f"{100 * (value - low) / (high - low):.2f}%" for value in base}
    assert places <= {value for name, value in page.attributes if name == "x"}


def test_the_difference_is_paired_and_left_out_where_others_were_asked(tmp_path):
    write_run(tmp_path)

    def results():
        table = section(run_report(tmp_path), "results")["blocks"][0]
        return [column["name"] for column in table["columns"]], table["rows"]

    columns, rows = results()
    assert columns == ["measure", "base", "trained", "trained - base", "what it is"]
    # Of both policies the same half of the problems is right.
    assert rows[0][3]["value"] == 0 and rows[0][3]["ci95"][0] <= 0 <= rows[0][3]["ci95"][1]
    path = tmp_path / "eval/60/completions.jsonl"
    path.write_text(path.read_text().replace('"problems-0"', '"another"'))
    assert results()[0] == ["measure", "base", "trained", "what it is"]


def test_answers_without_a_verdict_are_said(tmp_path):
    write_run(tmp_path)
    assert "verdict" not in section(run_report(tmp_path), "results")["note"]
    change(tmp_path / "eval/60/stability.json", unknown_verdicts=4, problems_left_out=1)
    said = "trained: 4 answers without a verdict; the problems with one (1) are left out for every"
    assert said in section(run_report(tmp_path), "results")["note"]


def test_what_a_model_wrote_stays_text(tmp_path):
    page, report, markdown = written(write_run(tmp_path, completion=ATTACK))
    assert len(page.scripts) == 2 and page.errors == []
    assert not {"img", "iframe", "object", "link", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert json.loads(page.scripts[0]) == report["completions"]
    texts = {a["completion"] for pair in report["completions"]["pairs"] for a in pair["answers"]}
    assert texts == {ATTACK}
    fence = "````"  # longer than the one in the text
    assert f"{fence}text\n{ATTACK.encode('utf-8', 'replace').decode()}\n{fence}\n" in markdown


def test_what_a_name_says_stays_text(tmp_path):
    page, _, markdown = written(write_run(tmp_path, name="<b>|bold|</b> [x](javascript:1)"))
    assert page.headings[0] == "<b>|bold|</b> [x](javascript:1)"
    assert "b" not in page.tags
    assert markdown.startswith("# &lt;b>\\|bold\\|&lt;/b> [x]\\(javascript:1)\n")


def test_page_loads_nothing_and_allows_its_own_script_alone(standard):
    workdir, page, _, _ = standard
    html = (workdir / "report.html").read_text("utf-8")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]|@import", html)
    references = [v for n, v in page.attributes if n in ("src", "href", "xlink:href", "action")]
    assert references and all(value.startswith("#") for value in references)
    assert all(target == "#" for target in re.findall(r"url\(['\"]?(.)", html))
    policy = next(v for n, v in page.attributes if n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_run_without_steps_shows_the_base_policy_alone(tmp_path):
    page, report, _ = written(write_run(tmp_path, steps=0))
    assert page.headings == [
        "permix", "Results", "Accuracy by persona", "Fidelity by persona", "Completions",
        "Configuration",
    ]  # fmt: skip
    assert report["names"] == ["base"] and page.errors == []


def test_run_without_style_rule_metrics_and_completions(tmp_path):
    write_run(tmp_path, with_fidelity=False)
    (tmp_path / "metrics.jsonl").unlink()
    for path in tmp_path.glob("eval/*/completions.jsonl"):
        path.write_text("")
    page, report, markdown = written(tmp_path)
    assert page.headings == [
        "permix", "Results", "Accuracy by persona", "Stability over steps", "Configuration",
    ]  # fmt: skip
    assert "a" in page.tags and not [v for n, v in page.attributes if n == "href" and "?" in v]
    assert report["completions"] is None and len(page.scripts) == 1 and page.errors == []
    assert "fidelity" not in markdown.lower()


def test_one_persona_and_figures_that_are_not_numbers(tmp_path):
    write_run(tmp_path, with_fidelity=False)
    rng = np.random.default_rng(0)
    for step in (0, 60):
        correct = (rng.random((1, 20, 1)) < 0.5).astype(float)
        of = stability(correct, ["alone"], correct[0], rng, 50) | {"flip_rate": float("nan")}
        (tmp_path / f"eval/{step}/stability.json").write_text(json.dumps(of))
    page, report, _ = written(tmp_path)
    rows = {row[0]: row for row in section(report, "results")["blocks"][0]["rows"]}
    assert rows["Flip rate"][1] is None
    assert len(section(report, "personas")["blocks"][0]["rows"]) == 2
    assert page.errors == []


def test_missing_metric_values_are_left_out_and_means_are_over_tenths_of_the_steps(tmp_path):
    write_run(tmp_path, steps=2)

    def training(*rows):
        write_rows(tmp_path / "metrics.jsonl", rows)
        *charts, means = section(run_report(tmp_path), "training")["blocks"]
        return [(chart["title"], chart["series"][0]["y"]) for chart in charts], means["rows"]

    shown, means = training({"step": 1, "kl": None}, {"step": 2, "kl": np.nan, "reward": 0.5})
    assert shown == [("reward", [0.5])] and means == [["1 to 1", None], ["2 to 2", 0.5]]
    _, means = training(*({"step": step, "reward": step} for step in range(1, 21)))
    assert len(means) == 10
    assert means[0] == ["1 to 2", 1.5] and means[-1] == ["19 to 20", 19.5]


def test_right_answers_with_and_without_a_persona_are_two_lines(tmp_path):
    write_run(tmp_path, steps=2)

    def charts(*rows):
        write_rows(tmp_path / "metrics.jsonl", [{"reward": 0.5} | row for row in rows])
        *charts, _ = section(run_report(tmp_path), "training")["blocks"]
        return charts

    none, cook, poet = (f"persona/{name}/accuracy" for name in ("none", "cook", "a/poet"))
    rows = {"step": 1, none: 0.5, "persona/cook/weight": 0.9}, {"step": 2, cook: 0.25, poet: 1.0}
    *_, shown = charts(*rows, {"step": 3, none: 1.0, cook: 0.0})
    without, under = shown["series"]
    assert (without["name"], without["x"], without["y"]) == ("without a persona", [1, 3], [0.5, 1])
    assert (under["name"], under["x"], under["y"]) == ("with a persona", [2, 3], [0.625, 0])
    assert len(charts(*rows[:1])) == 1  # RLVR has no prompts with a persona


def test_what_the_run_warned_of_stands_first(tmp_path):
    write_run(tmp_path)
    sick = {"reward": 0.5, "completions/clipped_ratio": 0.9}
    rows = [sick | {"step": step, "kl": 11.0 * (step == 7)} for step in range(1, 61)]
    write_rows(tmp_path / "metrics.jsonl", rows)
    page, report, markdown = written(tmp_path)
    first = report["sections"][0]
    assert first["title"] == "Warnings" and page.headings[1] == "Warnings" and page.errors == []
    said = [(row[0], row[1][:13]) for row in first["blocks"][0]["rows"]]
    assert said == [(5, "over 80 % of "), (7, "the KL to the")]
    assert "| 7 | the KL to the base policy is above 10 nats a token | lower train.le" in markdown


def test_a_score_of_0_over_0_is_a_dash_everywhere(tmp_path):
    """In the table of a run, its report, an evaluation and a comparison."""
    for name in ("permix", "rlvr"):
        write_run(tmp_path / name, name=name, steps=3)
        rng, nothing = np.random.default_rng(0), np.zeros((4, 20, 1))
        path = tmp_path / name / "eval/0/stability.json"
        path.write_text(json.dumps(stability(nothing, PERSONAS, nothing[0], rng, 50)))
        path = path.with_name("completions.jsonl")
        path.write_text(path.read_text().replace('"correct": 1.0', '"correct": 0.0'))
    workdir = tmp_path / "permix"
    page, report, markdown = written(workdir)
    assert page.errors == [] and "| Persona stability (PSS) | - | 0.9" in markdown
    results = section(report, "results")["blocks"][0]["rows"][0]
    assert results[1] is None and results[2]["value"] > 0.8 and results[3] is None
    assert report["headlines"][0]["values"][0] is None
    assert '<span class="s0">-</span>' in (workdir / "report.html").read_text()

    base = read_evaluation(workdir / "eval/0")
    printed = summary_table({"base": (base.stability, base.fidelity)}).splitlines()[2]
    assert printed.split()[:3] == ["base", "-", "0.000"]
    assert overview(base).splitlines()[3].split()[:4] == ["together", "4", "-", "0.000"]
    table = compare([workdir, tmp_path / "rlvr"], tmp_path / "out").splitlines()
    base = next(line for line in table if line.startswith("base"))
    assert base.split()[:4] == ["base", "1", "-", "0.000"]
    assert "nan" not in (tmp_path / "out/report.md").read_text()


def test_changed_fields_are_marked_and_come_first(tmp_path):
    write_run(tmp_path)
    change(tmp_path / "config.json", changed=["train.steps"])
    rows = section(run_report(tmp_path), "config")["blocks"][0]["rows"]
    assert rows[0] == ["train.steps", "60", "changed"]
    assert ["grpo.kl_weight", "0.05", ""] in rows and ["versions.jax", "0.10.2", ""] in rows


def test_names_the_line_that_is_not_json_and_a_folder_without_evaluation(tmp_path):
    write_run(tmp_path, steps=0)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step"')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not JSON"):
        write_run_report(tmp_path)
    (tmp_path / "eval/0/stability.json").unlink()  # an evaluation that was cut off
    with pytest.raises(FileNotFoundError, match="no evaluation"):
        write_run_report(tmp_path)


def test_every_chart_is_well_formed_and_comes_out_the_same_again(standard):
    paths = [standard[0] / f"report.{suffix}" for suffix in ("html", "json", "md")]
    first = [path.read_text("utf-8") for path in paths]
    write_run_report(standard[0])
    assert first == [path.read_text("utf-8") for path in paths]
    html = first[0]
    svgs = re.findall(r"<figure>.*?(<svg.*?</svg>)\s*</figure>", html, re.S)
    assert len(svgs) == 5
    for svg in svgs:
        assert ElementTree.fromstring(svg.replace("xlink:", "")).get("aria-label")


# ---- of one evaluation ----------------------------------------------------------------------


def identify(folder, prompts, samples=1, **policy):
    config = {"seed": 3, "eval": {"samples": samples}}
    identity = {"policy": policy, "config": config, "prompts_sha256": prompts}
    (folder / "evaluation.json").write_text(json.dumps(identity))


def test_an_evaluation_of_a_model_alone(tmp_path):
    folder = write_run(tmp_path, steps=0) / "eval/0"
    identify(folder, "a", model="some/model")
    write_evaluation_report(folder)
    page, report, markdown = read_report(folder)
    assert page.headings == [
        "Evaluation of model", "Results", "Accuracy by persona", "Fidelity by persona",
        "Completions", "Configuration",
    ]  # fmt: skip
    assert report["names"] == ["model"] and page.errors == []
    assert markdown.startswith("# Evaluation of model\n\nmodel: some/model\n")


def test_a_checkpoint_stands_beside_its_base_if_that_was_asked_the_same(tmp_path):
    run = write_run(tmp_path / "run", steps=60)
    out = tmp_path / "out"
    shutil.copytree(run / "eval/60", out)
    identify(run / "eval/0", "a", run="../..", step=0)
    identify(out, "a", run="../run", step=60)
    write_evaluation_report(out)
    report = read_report(out)[1]
    assert report["names"] == ["base", "step 60"]
    assert report["completions"]["policies"] == ["base", "step 60"]

    for differing in ({"prompts": "b"}, {"prompts": "a", "samples": 2}):
        identify(out, **differing, run="../run", step=60)
        write_evaluation_report(out)
        assert read_report(out)[1]["names"] == ["step 60"]
