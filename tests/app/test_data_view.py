"""What launch/data.py shows is what a run sees."""

import re

from own_problems import own_problems
from runs import load_config

from permix_jax.app.build import build_task
from permix_jax.app.data_view import data_view
from permix_jax.core.files import write_rows

SPLITS = {"cook": "train", "judge": "train", "smith": "heldout"}


def config_of(tmp_path, **fields):
    own = own_problems(tmp_path, SPLITS, sums=12) | {"task.num_test": 4, "personas.share": 0.5}
    names = {name.replace(".", "__"): value for name, value in (own | fields).items()}
    return load_config("permix.py", "tiny", **names)


def test_sets_lengths_and_first_prompts_are_shown(tmp_path):
    path = tmp_path / "mine.jsonl"
    config = config_of(tmp_path, **{"data.train": f"{path}*2", "data.prompt_template": "plain"})
    said = data_view(config, tmp_path / "cache")
    assert re.search(rf"^{path} +train +8 +16 +0 *$", said, re.M)
    assert re.search(rf"^{path} +test +4 +4 +0 *$", said, re.M)
    assert re.search(r"^train +\d+ +\d+ +\d+ +\d+ +0 \(0.0%\)$", said, re.M)

    task = build_task(config, tmp_path / "cache")
    asked = {p.id: p for p in task.train}
    shown = re.findall(rf"^--- {path} (\d+): (.+); gold answer '(\d+)'\n", said, re.M)
    assert len(shown) == 5
    assert {who for _, who, _ in shown} <= {"no persona", "cook", "judge"}
    assert all(asked[id].answer == gold for id, _, gold in shown)
    for id, who, _ in shown:
        persona = "You are a helpful AI" if who == "no persona" else f"You are a {who}."
        prompt = said.split(f"--- {path} {id}: {who}; ")[1].split("\n---")[0]
        assert persona in prompt and f"user\n{asked[id].prompt}<|im_end|>" in prompt


def test_prompts_over_the_budget_are_counted_and_not_among_the_first(tmp_path):
    config = config_of(tmp_path, **{"train.problems_per_step": 4})
    rows = [{"prompt": f"{i} {'x' * 300 * (i % 2)}?", "answer": i} for i in range(12)]
    write_rows(tmp_path / "mine.jsonl", rows)
    said = data_view(config, tmp_path / "cache")
    over = sum("xxx" in p.prompt for p in build_task(config, tmp_path / "cache").train)
    assert over and re.search(rf"^train .* {over} \({over / 8:.1%}\)$", said, re.M)
    assert "xxx" not in said and said.count("\n--- ") == 4
