"""What to do after a command, as commands that can be pasted."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from permix_jax.evaluation.results import read_json

_COUNTERPARTS = {"permix": "rlvr", "rlvr": "permix", "sft": "permix", "distill": "permix"}


def after_training(workdir: Path, config: Sequence[str]) -> str:
    """The report; its counterpart, the comparison of both, more personas, and for a real model the
    export. `config`: the arguments that make the config."""
    record = read_json(workdir / "config.json")
    real, commands = _is_real(record), _beside_counterpart(workdir, record["name"], config)
    sets = "heldout,harmful,neutral" if real else "heldout,train"
    more = [f"--config.eval.sets={sets}", f"--out={workdir / 'eval' / 'more'}"]
    commands.append(_command("evaluate", *config, f"--workdir={workdir}", *more))
    if real:
        commands.append(_command("export", f"--workdir={workdir}", f"--out={workdir / 'export'}"))
    return _ending(workdir, commands)


def after_evaluation(folder: Path, config: Sequence[str], workdir: Path) -> str:
    """The base of the run, asked the same."""
    base = ["--step=0", f"--out={folder.with_name(folder.name + '-base')}"]
    return _next([_command("evaluate", *config, f"--workdir={workdir}", *base)])


def after_comparison(folder: Path | None) -> str:
    """The report, or how to get one."""
    return _ending(folder) if folder else "for a report of it, with plots: --out=DIR"


def after_reproduction(folder: Path, config: Sequence[str], ablation: str) -> str:
    """The report, and an ablation of the same runs."""
    if ablation != "none":
        return _ending(folder)
    more = ["--config.reproduce.ablation=kl", f"--out={folder}"]
    return _ending(folder, [_command("reproduce", *config, *more)])


def after_export(workdir: Path, folder: Path, adapter: bool) -> str:
    """What loads the folder, and the evaluation of a real model."""
    wrote = f"wrote {folder}"
    if adapter:
        return f"{wrote}; peft.PeftModel.from_pretrained(base, {str(folder)!r}) loads it"
    wrote += f"; transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r}) loads it"
    if not _is_real(read_json(workdir / "config.json")):
        return wrote
    out = f"--out={folder.with_name(folder.name + '-math500')}"
    config = f"--config={Path(sys.argv[0]).parents[1] / 'configs' / 'eval_math500.py'}"
    return f"{wrote}\n{_next([_command('evaluate', config, f'--model={folder}', out)])}"


def after_planning(config: Sequence[str]) -> str:
    """The run that was found to fit."""
    return _next([_command("train", *config)])


def _is_real(record: Mapping[str, Any]) -> bool:
    """Whether its model has weights of its own, and is not of the embedded world."""
    return bool(record["config"]["model"]["source"])


def _beside_counterpart(workdir: Path, name: str, config: Sequence[str]) -> list[str]:
    """Trains the method that this one is compared with, if that is not done, and compares."""
    other = _COUNTERPARTS.get(name)
    if other is None:
        return []
    place = f"{workdir.name}-{other}"
    if name in workdir.name:
        place = workdir.name.replace(name, other, 1)
    theirs, commands = workdir.with_name(place), []
    if not (theirs / "report.html").exists():
        file, colon, preset = config[0].partition("=")[2].partition(":")
        changed = [x for x in config[1:] if not x.startswith("--config.personas.")]
        spec = f"--config={Path(file).with_name(f'{other}.py')}{colon}{preset}"
        commands.append(_command("train", spec, *changed, f"--workdir={theirs}"))
    out = f"--out={workdir.with_name('comparison')}"
    return [*commands, _command("compare", str(workdir), str(theirs), out)]


def _ending(folder: Path, commands: Sequence[str] = ()) -> str:
    report = f"report: {folder / 'report.html'}"
    return f"{report}\n{_next(commands)}" if commands else report


def _next(commands: Sequence[str]) -> str:
    return "\n".join(["next:", *(f"  {command}" for command in commands)])


def _command(script: str, *arguments: str) -> str:
    """A command of launch/, beside the one that runs."""
    return shlex.join(["python", str(Path(sys.argv[0]).with_name(f"{script}.py")), *arguments])
