"""Requirements have lowest versions that CI can install, and CI runs README's test command."""

import configparser
import shutil
import subprocess
import sys

from runs import ROOT


def lowest(root):
    return subprocess.run(
        [sys.executable, str(root / ".ci/lowest.py")], capture_output=True, text=True
    )


def test_the_lowest_version_of_every_requirement_is_a_constraint():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    named = {line.partition(">=")[0].partition("[")[0] for text in lists for line in text.split()}
    constraints = lowest(ROOT).stdout.split()
    assert sorted(line.partition("==")[0] for line in constraints) == sorted(named)
    assert "orbax-checkpoint==0.12.3" in constraints


def test_a_requirement_without_a_lowest_version_is_refused(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/lowest.py", tmp_path / ".ci")
    text = (ROOT / "setup.cfg").read_text()
    (tmp_path / "setup.cfg").write_text(text.replace("    tqdm>=4.66.0\n", "    tqdm\n"))
    ended = lowest(tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (
        "setup.cfg: 'tqdm' names no lowest version; write it as tqdm>=VERSION\n"
    )


def test_ci_runs_the_tests_by_the_command_of_readme():
    command = "pip install -e '.[test]' && pytest"
    assert f"\n    {command}\n" in (ROOT / "README.md").read_text("utf-8")
    assert f"\n({command})" in (ROOT / ".ci/run").read_text("utf-8")
