"""What a run needs in its later phases, opened before it begins: a mistake costs no training."""

from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import drop_overlong
from permix_jax.app.evaluations import require_reference
from permix_jax.app.policies import policy_of_run
from permix_jax.app.validation import require_model_fits
from permix_jax.app.workdir import cache_folder
from permix_jax.core.problem import Task
from permix_jax.core.randomness import generator
from permix_jax.models.policy import Policy
from permix_jax.train.rehearsal import build_rehearsal


def require_later_parts(config: ConfigDict, task: Task, policy: Policy, mesh: Mesh) -> None:
    """Raises ValueError or FileNotFoundError, in one line, for what the config names and cannot be
    used: demonstrations, the teacher, prompts of rehearsal, the reference of an evaluation.

    Reads no weights.
    """
    if config.sft.steps or config.train.method == "sft":
        task.demonstrate(generator(config.seed, "later_parts"), task.train)
    if config.train.method == "distill" and config.distill.teacher:
        open_teacher(config, task, mesh)
    build_rehearsal(config, task, policy, mesh)
    if config.eval.judge_free_candidates:
        require_reference(config, mesh)


def open_teacher(
    config: ConfigDict, task: Task, mesh: Mesh
) -> tuple[Policy, Callable[[], dict], Task]:
    """The policy that `distill.teacher` means, what loads its parameters, and the task without the
    problems whose prompts are over the budget in its tokens; ValueError where it is of no use."""
    workdir = Path(config.distill.teacher)
    try:
        teacher, load = policy_of_run(workdir, cache_folder(), mesh)
        require_model_fits(teacher.model.config, config)
        return teacher, load, drop_overlong(config, task, teacher)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"distill.teacher is {str(workdir)!r}: {error}") from None
