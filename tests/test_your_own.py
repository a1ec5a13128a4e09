"""The recipe of docs/your_own.md, typed as it stands, on a random model in place of SmolLM2."""

import json
import re
import shlex
import subprocess

from commands import executed, next_of
from random_model import write_model
from runs import ROOT


def test_the_recipe_runs_as_it_is_written(tmp_path, monkeypatch):
    text = (ROOT / "docs/your_own.md").read_text("utf-8")
    files, look, train = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    subprocess.run(["bash", "-e", "-c", files], cwd=tmp_path, check=True)
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "model")
    small = f" --config.model.source={tmp_path}/model --config.rollout.max_prompt_tokens=256"

    def typed(command: str, more: str) -> str:
        command = command.replace("\\\n", "").replace("mine/", f"{tmp_path}/mine/")
        return shlex.join(shlex.split(command.removeprefix("python ") + small + more))

    said = executed(typed(look, ""))
    assert "You are a cook." in said and "Answer with a number." in said
    assert next_of(said)[0].startswith("launch/train.py ")

    executed(typed(train, " --config.train.steps=1 --config.rollout.max_new_tokens=8"))
    results = json.loads((tmp_path / "mine/run/eval/1/stability.json").read_text())
    assert [each["persona"] for each in results["per_persona"]] == ["diver"]
    rows = (tmp_path / "mine/run/completions/1.jsonl").read_text().splitlines()
    assert len(rows) == 2 * 8
    assert {json.loads(row)["persona"] for row in rows} <= {None, "cook", "poet", "pirate"}
