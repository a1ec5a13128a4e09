"""README and docs: links lead somewhere, fields and files are there, commands can be typed."""

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
from commands import parsed
from runs import ROOT, load_config

from permix_jax.app.policies import config_of_model
from permix_jax.app.validation import require_valid
from permix_jax.core.field_rules import require_read
from permix_jax.core.fields import flat_fields
from permix_jax.reproduction.methods import jobs_of

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FIELDS = set(flat_fields(load_config("reproduce.py", "").to_dict()))
SECTIONS = {field.partition(".")[0] for field in FIELDS if "." in field}

ANY_FIELD = (
    "launch/reproduce.py --config=configs/reproduce.py --config.task.name=problems"
    " --config.model.source=x"
)
RUN = "made-by-a-test"


def commands_of(text: str) -> list[str]:
    """The commands of launch/ and benchmarks/, and fields that stand without one as ANY_FIELD's;
    what a reader fills in is filled in, and where a command reads its config from a workdir, the
    workdir is RUN."""
    text = re.sub(r" \\\n\s+", " ", text)
    found = re.findall(r"python ((?:launch|benchmarks)/\w+\.py[^`\n\"]*)", text)
    fields = re.findall(r"(?:^(?: {4})?|`)(--config\.\w+\.\w+=[^`\s][^`\n]*)", text, re.MULTILINE)
    found += [f"{ANY_FIELD} {each}" for each in fields]
    commands = []
    for command in found:
        command = re.split(r"  |\t| #|;|&&|\)", command)[0]
        command = re.sub(r"[\[\]]| \.\.\.$|(?<=DIR) \.\.\.", "", command)
        command = re.sub("--config=(CONFIG|\\.\\.\\.)", "--config=configs/permix.py", command)
        command = command.replace(":PRESET", ":tiny").replace("ablation=NAME", "ablation=kl")
        command = re.sub(r"=[NI]\b", "=1", command)
        if "--config=" not in command:
            command = re.sub(r"--(workdir|compare)=\S+", rf"--\1={RUN}", command)
        commands.append(shlex.join(shlex.split(command)))
    return commands


COMMANDS = sorted({command for page in PAGES for command in commands_of(page.read_text("utf-8"))})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_fields_and_files_exist(page):
    text = page.read_text("utf-8")
    named = re.findall(r"--config\.([a-z_]+\.[a-z_]+)", text)
    named += [
        field
        for field in re.findall(r"`([a-z_]+\.[a-z_]+)(?: = [^`]*)?`", text)
        if field.partition(".")[0] in SECTIONS
        and not field.endswith((".py", ".jsonl", ".json", ".safetensors"))
    ]
    assert [field for field in named if field not in FIELDS] == []
    files = re.findall(r"\b(?:launch|configs|benchmarks)/\w+\.py", text)
    assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_taken(command, tmp_path):
    """By the parser and the rules of the config; the jobs have tests of their own."""
    record = {"config": load_config("permix.py", "tiny").to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(record))
    command = command.replace(RUN, str(tmp_path))
    if not (config := parsed(command)):
        return
    if "--model=" in command:
        config = config_of_model(config, "x")
    require_valid(config)
    if command.startswith("launch/") and not command.startswith(ANY_FIELD):
        name = Path(command.split()[0]).stem
        configs = [config.to_dict()]
        if name == "reproduce":
            jobs = jobs_of(config, Path("out"), "")
            configs = [job.config | {"reproduce": configs[0]["reproduce"]} for job in jobs]
        require_read(configs, re.findall(r"--config\.([\w.]+)=", command), name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_else_is_typed_is_there(page):
    text = page.read_text("utf-8")
    extras = set(re.findall(r"pip install -e '\.\[(\w+)\]'", text))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert extras <= set(setup["options.extras_require"])
    modules = re.findall(r"python -m (permix_jax[\w.]*)", text)
    assert all((ROOT / (name.replace(".", "/") + ".py")).is_file() for name in modules)
    tests = re.findall(r"\btests/[\w/]+\.\w+", text)
    assert all((ROOT / name).is_file() for name in tests)
    others = re.findall(r"^    (python (?!launch/|benchmarks/|-m ).*)", text, re.MULTILINE)
    assert others == []
    if page.name != "scale.md":  # whose table says which machines they are for
        assert not re.search(r"gcloud|srun|--distributed", text)


def test_pages_are_looked_at():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert text.count("](") > 40 and text.count("--config.") > 20
    assert len(COMMANDS) > 40 and any(command.startswith("benchmarks/") for command in COMMANDS)
