"""Asks a checkpoint of a run, or any Hugging Face model, the questions of PersonaGym.

  python launch/personagym.py --workdir=runs/x --out=DIR
  python launch/personagym.py --workdir=runs/x --step=0 --out=DIR
  python launch/personagym.py --config=CONFIG --model=DIR_OR_HUB_ID --out=DIR

First the policy answers. Then a frozen reference measures its fidelity without a judge. Then judges
grade the answers, if personagym.judges names any. A run uses its own config, unless --config names
another. --config.personagym.* set what is asked. Repeat the command to continue where it stopped.
docs/judging.md says what the results mean.
"""

from absl import flags

from permix_jax.app.cli import changed_fields, launch, step_named
from permix_jax.core.field_rules import require_read
from permix_jax.core.places import place_of, require_local

_STEP = flags.DEFINE_string(
    "step",
    None,
    "N: checkpoint of the run; 0: its base; best: by keep_best; default: the newest",
)
_MODEL = flags.DEFINE_string("model", None, "DIR_OR_HUB_ID: a Hugging Face model, instead of a run")
_OUT = flags.DEFINE_string("out", None, "DIR: for answers and scores; required")


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.personagym_run import personagym
    from permix_jax.app.policies import config_of_model, subject_of_model, subject_of_run

    model, step = _MODEL.value, step_named(_STEP.value)
    asked = config_of_model(config, model) if model else config
    require_read([asked.to_dict()], changed_fields(), "personagym")
    if _OUT.value is None:
        raise ValueError("name --out=DIR, the folder to write answers and scores to")
    out = place_of(_OUT.value)
    require_local(out, "--out")
    if model is None:
        subject = subject_of_run(config, workdir, step, out)
    elif flags.FLAGS["workdir"].present or step is not None:
        raise ValueError("--model is asked as it is; leave out --workdir and --step")
    else:
        subject = subject_of_model(config, model, out)
    print(personagym(subject))


if __name__ == "__main__":
    launch(main, config_of="workdir")
