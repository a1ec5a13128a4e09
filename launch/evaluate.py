"""Evaluates a checkpoint of a run, or any Hugging Face model:

    python launch/evaluate.py --config=configs/permix.py --workdir=runs/permix
    python launch/evaluate.py --config=configs/eval_math500.py --model=DIR_OR_HUB_ID --out=DIR

  --step=N    the checkpoint; default: the newest; 0: the base policy that the run started from
  --out=DIR   where the results are written; default: eval/<step> of the workdir

--config.eval.* say how. The same command again goes on where the last one stopped. Prints the
results; docs/evaluation.md says what they mean.
"""

from pathlib import Path

from absl import flags

from permix_jax.cli import launch
from permix_jax.evaluations import evaluate_model, evaluate_run

_STEP = flags.DEFINE_integer("step", None, "checkpoint; default: the newest", lower_bound=0)
_MODEL = flags.DEFINE_string("model", None, "Hugging Face folder or hub id, instead of a run")
_OUT = flags.DEFINE_string("out", None, "folder of the results; default: in the workdir")


def main(config, workdir, name, preset) -> None:
    out = Path(_OUT.value) if _OUT.value else None
    if _MODEL.value is None:
        print(evaluate_run(config, workdir, _STEP.value, out))
    elif flags.FLAGS["workdir"].present or _STEP.value is not None:
        raise ValueError("--model is evaluated as it is; leave out --workdir and --step")
    elif out is None:
        raise ValueError("--model needs --out=DIR, the folder to write the results to")
    else:
        print(evaluate_model(config, _MODEL.value, out))


if __name__ == "__main__":
    launch(main, several_processes=True)
