"""Writes the policy of a run as a Hugging Face folder.

  python launch/export.py --workdir=runs/x --out=DIR
  python launch/export.py --workdir=runs/x --out=DIR --adapter
  python launch/export.py --workdir=runs/x --out=DIR --push=ORG/NAME

transformers loads the folder; with --adapter, peft does. Takes the newest checkpoint, unless --step
names another: a number, or best. --push sends the folder, with its model card, to the Hugging Face
hub; log in before, by `hf auth login`.
"""

import os
from collections.abc import Sequence

os.environ["JAX_PLATFORMS"] = "cpu"  # weights go through host memory; no accelerator is needed

from permix_jax.app.cli import Parser, fail, step_named
from permix_jax.app.next_steps import after_export
from permix_jax.core.places import place_of, require_local


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--workdir", type=place_of, required=True, metavar="DIR", help="workdir of a run")
    add(
        "--out", type=place_of, required=True, metavar="DIR", help="folder to write; must not exist"
    )
    add("--step", metavar="N", help="checkpoint to take, or best; default: the newest")
    add("--dtype", choices=("float32", "bfloat16"), default="", help="default: the run's own")
    add("--adapter", action="store_true", help="LoRA adapters alone, as a PEFT folder")
    add("--push", default="", metavar="ORG/NAME", help="model repository of the hub to send it to")
    add("--private", action="store_true", help="with --push: nobody else may read a new repository")
    a = parser.parse_args(argv)
    if a.private and not a.push:
        fail("--private is about a repository of the hub; name it: --push=ORG/NAME")

    from permix_jax.app.export import export
    from permix_jax.app.push import push

    try:
        require_local(a.out, "--out")
        export(a.workdir, a.out, step_named(a.step), a.dtype, a.adapter)
        if a.push:
            print(f"sent to {push(a.out, a.push, a.private)}")
    except (OSError, ValueError, ImportError) as error:
        fail(str(error))
    print(after_export(a.workdir, a.out, a.adapter))


if __name__ == "__main__":
    main()
