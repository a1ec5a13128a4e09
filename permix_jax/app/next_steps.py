"""What to do after a command: commands that can be pasted."""

import os
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import permix_jax
from permix_jax.core.fields import flat_fields
from permix_jax.core.persona import EVAL_SETS
from permix_jax.evaluation.results import read_json
from permix_jax.personas.bank import default_bank, load_personas

_COUNTERPARTS = {"permix": "rlvr", "rlvr": "permix", "sft": "permix", "distill": "permix"}
# Fields of a run that its counterpart sets differently, or does not read.
_OF_THE_METHOD = ("train.method", "distill.", "personas.share")
# The fields of `personas` that plain RLVR reads, for its evaluation.
_ASKED = ("personas.file", "personas.placement")


def after_training(workdir: Path, config: Sequence[str] | None = None) -> str:
    """The report, the counterpart, the comparison of both, more personas; of a real model, a chat
    and the export.

    `config` has the arguments that make the config. Where it is None, they are derived from
    config.json: the user's own script started the run.
    """
    record = read_json(workdir / "config.json")
    config = _arguments_of(record) if config is None else config
    commands = _beside_counterpart(workdir, record, config)
    if more := _more_personas(record["config"]):
        out = f"--out={workdir / 'eval' / 'more'}"
        commands.append(_command("evaluate", f"--workdir={workdir}", *more, out))
    if record["config"]["model"]["source"]:
        commands.append(_command("chat", f"--workdir={workdir}"))
        commands.append(_command("export", f"--workdir={workdir}", f"--out={workdir / 'export'}"))
    return _ending(workdir, commands)


def after_evaluation(folder: Path, config: Sequence[str], workdir: Path) -> str:
    """The same evaluation of the run's base."""
    base = ["--step=0", f"--out={folder.with_name(folder.name + '-base')}"]
    return _next([_command("evaluate", *config, f"--workdir={workdir}", *base)])


def after_comparison(folder: Path | None) -> str:
    """The report, or how to make one."""
    return _ending(folder) if folder else "for a report of it, with plots: --out=DIR"


def after_reproduction(folder: Path, config: Sequence[str], ablation: str) -> str:
    """The report, and an ablation of the same runs."""
    if ablation != "none":
        return _ending(folder)
    config = [x for x in config if not x.startswith("--config.reproduce.methods=")]
    more = ["--config.reproduce.ablation=kl", f"--out={folder}"]
    return _ending(folder, [_command("reproduce", *config, *more)])


def after_export(workdir: Path, folder: Path, adapter: bool) -> str:
    """How to load the folder, and of a run on named data sets, the evaluation on MATH500."""
    wrote = f"wrote {folder}"
    if adapter:
        return f"{wrote}; peft.PeftModel.from_pretrained(base, {str(folder)!r}) loads it"
    wrote += f"; transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r}) loads it"
    config = read_json(workdir / "config.json")["config"]
    data = config["data"]
    named = ".jsonl" not in data["train"] + data["test"]  # MATH500 says little of one's own data
    if config["task"]["name"] != "problems" or not named:
        return wrote
    out = f"--out={folder.with_name(folder.name + '-math500')}"
    config = f"--config={_root() / 'configs' / 'eval_math500.py'}"
    return f"{wrote}\n{_next([_command('evaluate', config, f'--model={folder}', out)])}"


def after_planning(config: Sequence[str]) -> str:
    """The run that fits."""
    return _next([_command("train", *config)])


def after_search(config: Sequence[str], topology: str) -> str:
    """The whole plan of the best setting, and the run."""
    return _next([_command("plan", *config, f"--topology={topology}"), _command("train", *config)])


def _more_personas(config: Mapping[str, Any]) -> list[str]:
    """The argument that asks more personas than the run did; [] where there are no more."""
    asked, file = set(config["eval"]["sets"].split(",")), config["personas"]["file"]
    there = {"heldout", "train"}
    if config["task"]["name"] != "latent_style":
        there = set()
        if not file or Path(file).is_file():  # it may have been moved while the run was under way
            personas = load_personas(file) if file else default_bank()
            there = {persona.split for persona in personas} & {*EVAL_SETS}
    if more := (there - asked - {"train"}) or (there - asked):
        return [f"--config.eval.sets={','.join(s for s in EVAL_SETS if s in asked | more)}"]
    return ["--config.eval.personas=0"] if config["eval"]["personas"] else []


def _arguments_of(record: Mapping[str, Any]) -> list[str]:
    """The arguments that make a run's config.

    [] where its config file is not in this checkout, lacks the preset, or has other fields.
    """
    file, preset = _root() / "configs" / f"{record['name']}.py", record["preset"]
    try:
        default = flat_fields(runpy.run_path(str(file))["get_config"](preset).to_dict())
    except (FileNotFoundError, ValueError):
        return []
    chosen = flat_fields(record["config"])
    if default.keys() != chosen.keys():
        return []
    changed = [f"--config.{field}={x}" for field, x in chosen.items() if x != default[field]]
    return [f"--config={file}{':' if preset else ''}{preset}", *changed]


def _beside_counterpart(
    workdir: Path, record: Mapping[str, Any], config: Sequence[str]
) -> list[str]:
    """Trains the method that this run is compared with, if that is not done, and compares.

    A run with the user's own functions has no counterpart: a command line cannot name them.
    """
    name, own = record["name"], workdir.name
    other = _COUNTERPARTS.get(name)
    if other is None or record.get("method") or not config:
        return []
    place = own.replace(name, other, 1) if name in own else f"{own}-{other}"
    theirs, commands = workdir.with_name(place), []
    if not (theirs / "report.html").exists():
        file, colon, preset = config[0].partition("=")[2].partition(":")
        spec = f"--config={Path(file).with_name(f'{other}.py')}{colon}{preset}"
        shared = [argument for argument in config[1:] if _is_shared(argument, other)]
        commands.append(_command("train", spec, *shared, f"--workdir={theirs}"))
    out = f"--out={workdir.with_name('comparison')}"
    return [*commands, _command("compare", str(workdir), str(theirs), out)]


def _is_shared(argument: str, other: str) -> bool:
    """Whether the counterpart takes the field too; `argument` is --config.FIELD=VALUE."""
    field = argument.removeprefix("--config.").partition("=")[0]
    if other == "rlvr" and field.startswith("personas."):
        return field in _ASKED
    return not field.startswith(_OF_THE_METHOD)


def _ending(folder: Path, commands: Sequence[str] = ()) -> str:
    report = f"report: {folder / 'report.html'}"
    return f"{report}\n{_next(commands)}" if commands else report


def _next(commands: Sequence[str]) -> str:
    return "\n".join(["next:", *(f"  {command}" for command in commands)])


def _command(script: str, *arguments: str) -> str:
    return shlex.join(["python", str(_root() / "launch" / f"{script}.py"), *arguments])


def _root() -> Path:
    """The checkout: that of the command of launch/, as it was typed.

    In another script it is the checkout of the package, as a relative path where it lies below.
    """
    typed = Path(sys.argv[0])
    if typed.parent.name == "launch":
        return typed.parents[1]
    root = Path(permix_jax.__file__).parents[1]
    near = Path(os.path.relpath(root))
    return root if ".." in near.parts else near
