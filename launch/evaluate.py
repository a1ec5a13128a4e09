"""Evaluates a checkpoint of a run, or any Hugging Face model.

  python launch/evaluate.py --workdir=runs/permix --step=50
  python launch/evaluate.py --workdir=runs/permix --config.eval.sets=heldout,train \\
      --out=runs/permix/eval/more
  python launch/evaluate.py --config=configs/eval_math500.py --model=DIR_OR_HUB_ID --out=DIR

A run is evaluated with its own config, unless --config names another. --config.eval.* set what is
asked. Repeat the command to continue where it stopped. Prints the results; docs/evaluation.md says
what they mean.
"""

from absl import flags

from permix_jax.app.cli import changed_fields, config_arguments, launch, step_named
from permix_jax.core.field_rules import require_read
from permix_jax.core.places import place_of

_STEP = flags.DEFINE_string(
    "step",
    None,
    "N: checkpoint of the run; 0: its base; best: by keep_best; default: the newest",
)
_MODEL = flags.DEFINE_string("model", None, "DIR_OR_HUB_ID: a Hugging Face model, instead of a run")
_OUT = flags.DEFINE_string("out", None, "DIR: for the results; default: eval/<step> of the workdir")


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.evaluations import evaluate_subject
    from permix_jax.app.next_steps import after_evaluation
    from permix_jax.app.policies import config_of_model, subject_of_model, subject_of_run

    out, model = place_of(_OUT.value) if _OUT.value else None, _MODEL.value
    step = step_named(_STEP.value)
    asked = config_of_model(config, model) if model else config
    require_read([asked.to_dict()], changed_fields(), "evaluate")
    if model is None:
        print(evaluate_subject(subject_of_run(config, workdir, step, out, ("seed", "task"))))
        if out and step != 0:
            print(after_evaluation(out, config_arguments(), workdir))
    elif flags.FLAGS["workdir"].present or step is not None:
        raise ValueError("--model is evaluated as it is; leave out --workdir and --step")
    elif out is None:
        raise ValueError("--model needs --out=DIR, the folder to write the results to")
    else:
        print(evaluate_subject(subject_of_model(config, model, out)))


if __name__ == "__main__":
    launch(main, several_processes=True, config_of="workdir")
