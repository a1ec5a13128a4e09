"""The commands of launch/ as a user meets them: help, and every mistake answered by one line."""

import json
import subprocess
import sys

import pytest
from commands import answer, executed, parsed, refused
from runs import ROOT, load_config, train

from permix_jax.app.validation import require_valid

SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.py"))
TRAIN = "launch/train.py"
PERMIX = "configs/permix.py"


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_a_command_does_and_takes(name):
    said = answer(f"launch/{name} --help", help_wanted=True)
    assert said.count(f"  python launch/{name} ") >= (1 if name == "local.py" else 2)
    assert max(map(len, said.splitlines())) <= 110
    assert "--pdb" not in said  # nor the other flags of libraries
    if "--config=FILE:PRESET" in said:
        assert "smollm2_mawps" in said
        assert ("--workdir=DIR" in said) == (name not in {"data.py", "plan.py", "reproduce.py"})


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ("seed", ["--config.seed=0", "every draw of the run is a pure function of it (0 or more,"]),
        ("grpo.kl_weight", ["--config.grpo.kl_weight=0.1", "of the KL to the base policy; 0: no "]),
        ("sft", ["--config.sft.decay=cosine\n      after warm-up (none, linear, cosine)\n"]),
        ("distill", ["--config.distill.teacher=\n      workdir of the run whose policy teaches; "]),
    ],
)
def test_help_on_a_section_is_what_is_declared_of_its_fields(asked, lines):
    said = answer(f"{TRAIN} --help={asked}", help_wanted=True)
    assert all(line in said for line in lines)
    assert all(line.startswith(f"  --config.{asked}") for line in said.splitlines()[::2])


def test_help_on_what_is_no_section_names_the_nearest():
    message = "--help=rolout: there is no such section or field; did you mean rollout?"
    assert answer(f"{TRAIN} --help=rolout") == f"error: {message}"


def test_flags_are_listed_with_their_defaults():
    said = answer("launch/plan.py --help", help_wanted=True)
    row = next(line for line in said.splitlines() if line.startswith("  --topology="))
    assert "--topology=CHIP:SHAPE " in row and row.endswith("default: v5e:4x4")


HEAVY = {
    "jax", "numpy", "scipy", "matplotlib", "transformers", "torch", "orbax", "flax", "optax",
    "tensorflow_datasets", "tensorboardX", "sympy", "mpmath", "wandb", "trackio",
}  # fmt: skip
IMPORTED = """
import atexit, runpy, sys
atexit.register(lambda: print("IMPORTED", *{name.partition(".")[0] for name in sys.modules}))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def imported(*command):
    """The top names of the modules that a command has imported at its end."""
    out = subprocess.run([sys.executable, "-c", IMPORTED, *command], cwd=ROOT, text=True,
                         capture_output=True)  # fmt: skip
    [line] = [line for line in out.stdout.splitlines() if line.startswith("IMPORTED")]
    return set(line.split()[1:])


def test_help_of_training_imports_nothing_heavy():
    names = imported(TRAIN, "--help")
    assert {"absl", "permix_jax"} <= names
    assert not HEAVY & names


def test_the_start_of_a_run_imports_what_its_first_steps_need():
    """scipy.stats, matplotlib, tensorboardX with PyTorch, data sets: where they are used."""
    later = ["matplotlib", "tensorboardX", "tensorflow_datasets", "torch", "scipy.stats"]
    program = (
        f"import sys, permix_jax.app.experiment; print(*[m for m in {later} if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (out.returncode, out.stdout) == (0, "\n")


def test_help_and_mistakes_need_no_jax():
    program = (
        "import sys, permix_jax.app.cli, permix_jax.app.next_steps, permix_jax.app.validation; "
        "print('jax' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "name a config: --config=configs/permix.py (--help says more)"),
        (f"{PERMIX}:tiny", f"name a config: --config={PERMIX}:tiny (--help says more)"),
        (f"--config={PERMIX}x", f"there is no file {PERMIX}x; did you mean {PERMIX}?"),
        ("--config=permix.py", f"there is no file permix.py; did you mean {PERMIX}?"),
        ("--config=README.md", "--config=README.md: "),
        (f"--config={PERMIX}:tinny", "no preset 'tinny'; use tiny, "),
        (f"--config {PERMIX}:tinny", "; did you mean tiny?"),
        ("--config=configs/rlvr.py:qwen3_8", "did you mean qwen3_8b"),
        (f"--confg={PERMIX}", "--confg: there is no such flag; did you mean --config?"),
        (f"--config={PERMIX} --wrkdir=x", "did you mean --workdir?"),
        (f"--config={PERMIX} --train.steps=3", "did you mean --config.train.steps?"),
        (f"--config={PERMIX} --config.trian.steps=3", "no such field; did you mean train.steps"),
        (
            f"--config={PERMIX} --config.rewards.workers=2",
            "--config.rewards.workers: there is no such field any more, for every answer is",
        ),
        (f"--config={PERMIX} --config.group_sise=3", "did you mean rollout.group_size?"),
        (f"--config={PERMIX} --config.train.steps=abc", "'abc'; use a value of type int, such as"),
        (f"--config={PERMIX} --config.model.thinking=maybe", "of type bool, such as False"),
        (f"--config={PERMIX} --processes=many", "--processes=many"),
        (f"--config={PERMIX} --workdir", "Missing value for flag --workdir"),
        (f"--config={PERMIX} stray", "'stray' is not a flag"),
    ],
)
def test_mistakes_are_answered_by_one_line(args, message):
    said = answer(f"{TRAIN} {args}")
    assert said.startswith("error: ") and message in said
    assert said.count("\n") == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("launch/compare.py", "the following arguments are required: DIR (--help says more)"),
        ("launch/compare.py a b --ot=c", "--ot: there is no such option; did you mean --out?"),
        ("launch/export.py --workdr=a --out=b", "did you mean --workdir?"),
        ("launch/export.py --workdir=a --out=b --dtype=float", "choose from 'float32', 'bfloat16'"),
        ("launch/local.py launch/train.py", "required: --processes"),
    ],
)
def test_mistakes_of_commands_without_a_config(command, message):
    said = answer(command)
    assert message in said and said.count("\n") == 0


@pytest.mark.parametrize(
    "args",
    [
        f"--config {PERMIX}:tiny --config.train.steps 3",
        f"-config={PERMIX}:tiny -config.train.steps=3",
        f"--config={PERMIX}:tiny --noconfig.model.thinking --config.train.steps=3",
    ],
)
def test_what_absl_takes_is_taken(args):
    config = parsed(f"{TRAIN} {args}")
    assert (config.train.steps, config.model.embed_dim, config.model.thinking) == (3, 32, False)


def test_a_mistake_ends_the_process_with_one_clear_line(tmp_path):
    args = (f"--config={ROOT / PERMIX}:tiny", "--config.rollout.group_size=1")
    out = train(*args, cwd=tmp_path)
    assert out.returncode == 1
    assert "group_size is 1" in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (f"--config={PERMIX}:smollm2_mawps --config.data.folder=x", "data.folder is 'x'"),
        (f"--config={PERMIX} --config.data.train=gsm8k", "data.train is 'gsm8k', which"),
        (
            f"--config={PERMIX} --config.train.loggers=wandbb",
            "use some of tensorboard,wandb,tracki",
        ),
    ],
)
def test_a_field_is_refused_before_anything_is_written(tmp_path, monkeypatch, args, message):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    assert message in refused(f"{TRAIN} {args} --workdir={tmp_path}/run")
    assert not (tmp_path / "run").exists()


# ---- commands that read a run's config from its workdir ---------------------------------------


@pytest.fixture
def workdir(tmp_path):
    """A run with fields of its own, as far as its config goes."""
    config = load_config("permix.py", "tiny", seed=3, eval__samples=2, model__embed_dim=48)
    (tmp_path / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    return tmp_path


@pytest.mark.parametrize("name", ["evaluate.py", "personagym.py"])
def test_the_config_is_that_of_the_workdir_with_what_the_command_line_sets(workdir, name):
    for given in (f"--workdir={workdir}", f"--workdir {workdir}"):
        config = parsed(f"launch/{name} --config.eval.samples=4 {given} --out=x")
        assert (config.seed, config.eval.samples, config.model.embed_dim) == (3, 4, 48)
        assert config.eval.temperature == 1.0
    config = parsed(f"launch/{name} --config={PERMIX}:tiny --workdir={workdir}")
    assert (config.seed, config.eval.samples, config.model.embed_dim) == (0, 1, 32)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", f"name a config: --config={PERMIX}, or the --workdir of a run"),
        ("--model=x --out=y", f"name a config: --config={PERMIX}, or the --workdir of a run"),
        ("--workdir=nowhere", "error: nowhere/config.json: no such file; name the workdir of a"),
        ("--workdir={} --config.eval.sample=2", "no such field; did you mean eval.samples"),
        ("--workdir={} --config.eval.samples=many", "eval.samples is 'many'; use a value of type"),
    ],
)
def test_mistakes_with_a_workdir_are_answered_by_one_line(workdir, args, message):
    said = answer(f"launch/evaluate.py {args.format(workdir)}")
    assert said.startswith("error: ") and message in said and said.count("\n") == 0


def test_fields_that_are_newer_than_the_run_have_their_defaults(workdir):
    record = json.loads((workdir / "config.json").read_text())
    del record["config"]["model"]["thinking"], record["config"]["eval"], record["config"]["mesh"]
    (workdir / "config.json").write_text(json.dumps(record))
    config = parsed(f"launch/evaluate.py --workdir={workdir} --config.eval.samples=2")
    require_valid(config)
    assert (config.model.thinking, config.model.embed_dim) == (False, 48)
    assert (config.eval.samples, config.eval.batch_size) == (2, 512)


def test_a_plan_takes_the_config_of_the_run_that_it_is_compared_with(workdir):
    assert parsed(f"launch/plan.py --compare {workdir}").seed == 3
    record = json.loads((workdir / "config.json").read_text()) | {"device": "1 x cpu"}
    (workdir / "config.json").write_text(json.dumps(record))
    said = refused(f"launch/plan.py --compare={workdir}")
    assert f"--compare: {workdir} ran on 1 x cpu, and plans are for TPUs" in said


def test_slices_to_compare_stand_in_place_of_the_topology():
    both = "--chips=v5e:2x2,v5e:2x4 --topology=v5e:2x2"
    said = refused(f"launch/plan.py --config={PERMIX}:tiny {both}")
    assert said == "error: --chips stands in place of --topology: leave one of them out"


def test_training_needs_a_config(workdir):
    assert "name a config" in answer(f"launch/train.py --workdir={workdir}")


def test_from_sets_a_field_and_is_printed_as_one(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "permix_jax.app.experiment.run",
        lambda config, *rest, arguments: seen.append((config.train.start, rest[-1], arguments)),
    )
    for given in ("--from=a:best", "--from a:best", "-from=a:best"):
        executed(f"{TRAIN} --config={PERMIX}:tiny {given} --workdir={tmp_path}")
    config = f"--config={PERMIX}:tiny"
    assert seen == 3 * [("a:best", ["train.start"], [config, "--config.train.start=a:best"])]
    said = answer(f"launch/evaluate.py --config={PERMIX} --from=a")
    assert said.startswith("error: --from: there is no such flag")


@pytest.mark.parametrize(
    "command",
    [
        "export.py --workdir=x --out=s3://b/x",
        "grade.py --file=x --out=s3://b/x",
        f"personagym.py --config={PERMIX}:tiny --workdir=x --out=s3://b/x",
        "reproduce.py --config=configs/reproduce.py:tiny --out=s3://b/x",
    ],
)
def test_a_command_that_writes_to_a_folder_alone_refuses_an_address(command):
    said = refused(f"launch/{command}")
    assert said == "error: --out is s3://b/x; name a folder of this machine"


@pytest.mark.parametrize("script", ["evaluate.py", "personagym.py", "export.py"])
@pytest.mark.parametrize("step", ["bst", "-1", "2.5"])
def test_a_step_is_a_number_or_best(script, step):
    config = "" if script == "export.py" else f"--config={PERMIX}:tiny"
    with pytest.raises(SystemExit) as ended:
        executed(f"launch/{script} {config} --workdir=x --out=x --step={step}")
    said = f"error: --step is {step!r}; use the number of a checkpoint, or best"
    assert ended.value.code == said
