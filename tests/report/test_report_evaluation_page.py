import json
import shutil

from report_page import read_report
from synthetic_run import write_run

from permix_jax.report.run_page import write_evaluation_report


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
