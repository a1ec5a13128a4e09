"""The pictures of the gallery: which there are, and of whom."""

import sys

import gallery
import pytest
from synthetic_run import write_run


def _metrics(persona: bool) -> tuple[str, ...]:
    return ("reward", "kl", "persona/none/accuracy", *["persona/cook/accuracy"] * persona)


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / name, name=name, metrics=_metrics(name == "permix"))
        for name in ("rlvr", "permix")
    ]


def test_the_command_writes_the_pictures_that_the_runs_allow(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gallery.py", *map(str, runs), f"--out={tmp_path}/out"])
    monkeypatch.setattr(gallery.shutil, "which", lambda _: None)
    gallery.main()
    names = {"accuracy_by_persona", "training", "right_by_prompt", "lottery"}
    written = {path.stem for path in (tmp_path / "out").iterdir()}
    assert written == names | {"robustness_and_fidelity"}
    (runs[1] / "eval/60/fidelity.json").unlink()
    assert set(gallery.draw(*runs)) == names


def test_who_is_named(runs):
    figures = gallery.draw(*runs)
    named = {
        name: [text.get_text() for text in figures[name].legends[0].get_texts()]
        for name in ("training", "right_by_prompt", "robustness_and_fidelity")
    }
    assert named == {
        "training": ["RLVR", "PerMix"],
        "right_by_prompt": ["without a persona", "with a persona"],
        "robustness_and_fidelity": ["base", "RLVR", "PerMix"],
    }


def test_an_unfinished_run_is_refused_in_one_line(runs, tmp_path, monkeypatch, capsys):
    (runs[0] / "eval/60/stability.json").unlink()
    monkeypatch.setattr(sys, "argv", ["gallery.py", *map(str, runs), f"--out={tmp_path}/out"])
    with pytest.raises(SystemExit):
        gallery.main()
    assert "gallery.py: error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
