import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from synthetic_run import write_run

from permix_jax.evaluation.charts import training_curve
from permix_jax.evaluation.report import summary_table, write_report

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> & </pre>"


class Page(HTMLParser):
    """Collects the tags, the text of the headings and every attribute of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.headings, self.attributes, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2") and data.strip():
            self.headings.append(data.strip())


def headings(html: str) -> list[str]:
    return Page(html).headings


def read(workdir, step: int) -> tuple[dict, dict]:
    folder = workdir / "eval" / str(step)
    return tuple(json.loads((folder / f"{n}.json").read_text()) for n in ("stability", "fidelity"))


def test_page_has_every_section(tmp_path):
    path = write_report(write_run(tmp_path, preset="tiny"))
    html = path.read_text("utf-8")
    assert path == tmp_path / "report.html"
    assert headings(html) == [
        "permix:tiny", "Results", "Accuracy by persona", "Training", "Completions",
    ]  # fmt: skip
    assert Page(html).tags.count("svg") == 1 + 4  # personas, and the four metrics there are
    assert "gradient norm" not in html
    assert "&#34;kl_weight&#34;: 0.05" in html
    assert "role_play prompt 0: 3 + 4 &lt; 8 ?" in html


def test_page_holds_the_figures_of_the_evaluations(tmp_path):
    html = write_report(write_run(tmp_path)).read_text("utf-8")
    for step in (0, 60):
        stability, fidelity = read(tmp_path, step)
        low, high = stability["pss_ci95"]
        assert f"{stability['pss']:.3f} [{low:.3f}, {high:.3f}]" in html
        assert f"{fidelity['by_task']['role_play']['fidelity']:.3f}" in html


def test_what_a_model_wrote_stays_text(tmp_path):
    html = write_report(write_run(tmp_path, completion=ATTACK)).read_text("utf-8")
    page = Page(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not {"script", "img", "b"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_page_loads_nothing(tmp_path):
    html = write_report(write_run(tmp_path)).read_text("utf-8")
    page = Page(html)
    assert "http://" not in html and "https://" not in html
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert references and all(value.startswith("#") for value in references)
    assert all(target == "#" for target in re.findall(r"url\(['\"]?(.)", html))


def test_ids_are_unique_and_the_page_reproducible(tmp_path):
    html = write_report(write_run(tmp_path)).read_text("utf-8")
    ids = [value for name, value in Page(html).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert html == write_report(tmp_path).read_text("utf-8")


def test_run_without_steps_shows_the_base_policy_alone(tmp_path):
    html = write_report(write_run(tmp_path, steps=0)).read_text("utf-8")
    assert headings(html) == ["permix", "Results", "Accuracy by persona", "Completions"]
    assert "trained" not in Page(html).headings and 'class="trained"' not in html


def test_run_without_style_rule_metrics_and_completions(tmp_path):
    write_run(tmp_path, with_fidelity=False)
    (tmp_path / "metrics.jsonl").unlink()
    for path in tmp_path.glob("eval/*/completions.jsonl"):
        path.unlink()
    html = write_report(tmp_path).read_text("utf-8")
    assert headings(html) == ["permix", "Results", "Accuracy by persona"]
    assert "fidelity" not in html.lower()


def test_missing_metric_values_are_left_out(tmp_path):
    write_run(tmp_path, steps=2)
    rows = ['{"step": 1, "kl": null}', '{"step": 2, "kl": NaN, "reward": 0.5}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert Page(write_report(tmp_path).read_text("utf-8")).tags.count("svg") == 2


def test_refuses_a_folder_without_evaluation(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "permix", "config": {}}')
    (tmp_path / "eval" / "5").mkdir(parents=True)  # an evaluation that was cut off
    with pytest.raises(FileNotFoundError, match="no evaluation"):
        write_report(tmp_path)


def test_names_the_line_that_is_not_json(tmp_path):
    write_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step"')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not JSON"):
        write_report(tmp_path)


def test_a_chart_is_well_formed_and_without_namespaces():
    svg = str(training_curve([1, 2, 3], [0.1, 0.3, 0.2], "a < b"))
    root = ElementTree.fromstring(svg.replace("xlink:", ""))
    assert root.tag == "svg"
    assert root.get("aria-label") == "a < b over the training steps"


def test_summary_table(tmp_path):
    write_run(tmp_path)
    base, trained = read(tmp_path, 0), read(tmp_path, 60)
    lines = summary_table({"base": base, "trained": (trained[0], None)}).splitlines()
    assert max(map(len, lines)) <= 110
    assert len({len(line) for line in lines[:4]}) == 1  # aligned
    assert lines[0].split("  ")[-1].strip() == "arithmetic [95 % CI]"
    assert lines[2].startswith("base ") and f"{base[0]['pss']:.3f} [" in lines[2]
    assert lines[3].startswith("trained ") and lines[3].split()[-2:] == ["-", "-"]
