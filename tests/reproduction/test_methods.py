import json
import runpy
from pathlib import Path

import pytest
from runs import ROOT, load_config

from permix_jax.app.validation import require_valid
from permix_jax.core.fields import differing_fields
from permix_jax.reproduction.methods import ABLATIONS, METHODS, jobs_of


def config(preset="", **fields):
    return load_config("reproduce.py", preset, **fields)


@pytest.mark.parametrize("preset", ["", "tiny", "smollm2_mawps"])
def test_a_method_is_what_its_config_file_says(preset):
    jobs = jobs_of(config(preset, reproduce__seeds=1), Path("out"), preset)
    assert [job.name for job in jobs] == list(METHODS)
    for job in jobs:
        own = runpy.run_path(str(ROOT / "configs" / f"{job.name}.py"))["get_config"](preset)
        every = f"eval.every: {max(1, own.train.steps // 3)} instead of {own.eval.every}"
        assert differing_fields(job.config, json.loads(own.to_json())) in ([], [every])


def test_the_real_model_is_asked_under_more_personas():
    jobs = jobs_of(config("smollm2_arithmetic", reproduce__seeds=1), Path("out"), "")
    assert {job.config["eval"]["personas"] for job in jobs} == {24}
    assert {job.config["eval"]["every"] for job in jobs} == {0}


def test_neighbours_differ_in_their_seed_and_fields_go_to_all_runs():
    chosen = {"seed": 4, "train__steps": 7, "reproduce__methods": "rlvr, permix"}
    jobs = jobs_of(config(reproduce__seeds=3, **chosen), Path("out"), "")
    assert [(job.name, job.seed) for job in jobs] == [
        (name, seed) for name in ("rlvr", "permix") for seed in (4, 5, 6)
    ]
    assert {job.config["train"]["steps"] for job in jobs} == {7}
    assert [job.config["seed"] for job in jobs] == [job.seed for job in jobs]
    assert len({job.workdir for job in jobs}) == 6 and jobs[0].workdir == Path("out/rlvr-s4")
    assert not any("reproduce" in job.config for job in jobs)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_is_valid_and_each_of_its_runs_another(ablation):
    jobs = jobs_of(config(reproduce__seeds=1, reproduce__ablation=ablation), Path("out"), "")
    assert [job.name for job in jobs[:2]] == ["rlvr", "permix"] and len(jobs) > 2
    configs = [json.dumps(job.config, sort_keys=True) for job in jobs]
    assert len(set(configs)) == len({job.workdir for job in jobs}) == len(jobs)
    for of in (job.config for job in jobs):  # as many responses a step in all of them
        assert of["train"]["problems_per_step"] * of["rollout"]["group_size"] == 256


def test_the_map_of_plain_styles_runs_each_cell_once():
    jobs = jobs_of(config(reproduce__seeds=1, reproduce__ablation="plain"), Path("out"), "")
    cells = {
        (job.name.split()[0], of["task"]["plain_style_share"], of["grpo"]["kl_weight"])
        for job in jobs
        for of in [job.config]
    }
    assert len(jobs) == len(cells) == 2 * 6 * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reproduce__methods": "rlvr,ppo"}, "reproduce.methods is 'rlvr,ppo'; use some of sft,"),
        ({"reproduce__methods": ""}, "reproduce.methods is ''; use some of sft,distill,rlvr,perm"),
        ({"reproduce__ablation": "lr"}, "reproduce.ablation is 'lr'; use one of none, level,"),
        ({"reproduce__seeds": 0}, "reproduce.seeds is 0; use 1 or more"),
        ({"reproduce__processes": -1}, "reproduce.processes is -1; use 0"),
        ({"train__learning_rate": -1.0}, "train.learning_rate is -1.0; use a number above 0"),
    ],
)
def test_bad_input_is_one_line(fields, message):
    require_valid(config())
    with pytest.raises(ValueError) as error:
        jobs_of(config(**fields), Path("out"), "")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
