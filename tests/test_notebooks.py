"""The notebooks run from start to end, shrunk; what is committed of them is fit to be read."""

import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from execute import execute, parameters_at
from own_problems import own_problems
from runs import ROOT, own_process

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _tiny_model(folder: Path) -> dict:
    """A random model, and sums in the place of GSM8K, under the personas of the bank."""
    own = own_problems(folder, {}, sums=40)
    names = ("model.source", "data.train", "data.test", "sft.steps")
    fields = {name: own[name] for name in names} | {
        "task.num_test": 4,
        "lora.rank": 2,
        "train.steps": 2,
        "train.problems_per_step": 2,
        "rollout.group_size": 4,
        "rollout.max_prompt_tokens": 512,
        "rollout.max_new_tokens": 8,
        "eval.batch_size": 16,
        "eval.kl_responses": 0,
        "eval.judge_free_candidates": 2,
        "eval.judge_free_questions": 2,
    }
    return {"PRESET": "smollm2_mawps", "FIELDS": fields, "ANSWER_TOKENS": 8}


# Notebook -> the parameters that a test of it sets, or what makes them in a folder. FOLDER, where
# the notebook writes, is set for all.
SHRUNK = {
    "analysis": {"PRESET": ":tiny", "STEPS": 6, "EVAL_EVERY": 3},
    "extend": {"PRESET": "tiny", "STEPS": 2},
    "quickstart": {"PRESET": ":tiny", "STEPS": 6, "EVAL_EVERY": 3},
    "real_model": _tiny_model,
}
_SECONDS_A_CELL = 300
_MOST_BYTES = 400_000
_MACHINE_PATH = re.compile(r"/(work|tmp|home|root|content|Users)/")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@each_notebook
def test_what_is_imported_of_the_package_is_there(path):
    imports = re.findall(r"^from (permix_jax[\w.]*) import (.+)$", sources(path), re.MULTILINE)
    assert imports
    for module, names in imports:
        for name in names.split(", "):
            assert hasattr(import_module(module), name) or import_module(f"{module}.{name}")


def sources(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where all notebooks work: analysis looks at what quickstart has made."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture
def outside(folder, monkeypatch):
    """Nothing is written at home or in the checkout."""
    for name in ("PERMIX_CACHE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
    monkeypatch.setenv("PYTHONPATH", own_process()["PYTHONPATH"])


def _entries() -> set[Path]:
    """What lies there, but for what the tests that run meanwhile may write."""
    of_tests = {ROOT / ".pytest_cache", ROOT / ".hypothesis"}
    return {*ROOT.iterdir(), *(ROOT / "notebooks").iterdir()} - of_tests


def _images(notebook) -> list[int]:
    """How many figures each code cell shows."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [sum("image/png" in out.get("data", {}) for out in cell.outputs) for cell in cells]


@each_notebook
def test_runs_from_start_to_end(path, folder, outside):
    committed, before = nbformat.read(path, as_version=4), _entries()
    parameters = committed.cells[parameters_at(committed)].source
    shrunk = SHRUNK[path.stem]
    shrunk = shrunk(folder) if callable(shrunk) else shrunk
    overrides = {"FOLDER": str(folder / "runs"), **shrunk}
    unknown = [name for name in overrides if not re.search(rf"^{name} = ", parameters, re.M)]
    assert unknown == []
    executed = execute(path, overrides, _SECONDS_A_CELL)
    assert _entries() - before <= {ROOT / "notebooks" / "__pycache__"}
    executed.cells.pop(parameters_at(executed) + 1)
    assert _images(executed) == _images(committed)


@each_notebook
def test_is_committed_with_outputs(path):
    assert path.stat().st_size < _MOST_BYTES
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {"stream", "display_data", "execute_result"}
    assert {output.output_type for output in outputs} <= kinds
    assert "stderr" not in [output.get("name") for output in outputs]
    texts = [output.get("text", "") for output in outputs]
    texts += [
        str(content)
        for output in outputs
        for kind, content in output.get("data", {}).items()
        if kind != "image/png"
    ]
    assert any(texts)
    assert [text for text in texts if _MACHINE_PATH.search(text)] == []


@each_notebook
def test_begins_as_all_do(path):
    first, of_this = (nbformat.read(file, as_version=4) for file in (NOTEBOOKS[0], path))
    title, setup = of_this.cells[:2]
    assert title.cell_type == "markdown" and title.source.startswith("# ")
    badge = re.search(r"colab\.research\.google\.com/github/(.+?)/blob/main/(\S+?)\)", title.source)
    assert badge[2] == f"notebooks/{path.name}"
    assert f"https://github.com/{badge[1]}" in setup.source
    assert setup.source == first.cells[1].source
    assert parameters_at(of_this) > 1
