"""A run: everything that its phases work with, opened once."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.core.fields import names_in
from permix_jax.core.keys import key
from permix_jax.core.problem import Task
from permix_jax.core.stop import StopRequest
from permix_jax.models.params import abstract_like, initial_trained, join, without_lora
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.rewards.verifier import Verifier
from permix_jax.train.checkpoints import load_params
from permix_jax.train.loggers import Loggers
from permix_jax.train.loop import Loop
from permix_jax.train.method import PERMIX, Method
from permix_jax.train.state import Programs, TrainState, create_state


@dataclass(frozen=True)
class Run:
    """What a run consists of. Enter `stop` and `verifier` before the first phase.

    config: its fields are in docs/config.md.
    workdir: the run writes everything there but the base policy.
    task: the problems and personas, without prompts that are over the budget.
    policy: RL trains it; it has adapters where the config asks for them.
    initial: the policy before any training, without adapters.
    base_folder: the base policy is there, if `base_is_stored`.
    origin: another run's policy, without adapters, if it is to be copied there.
    loggers: services that get the metrics, beside files.
    """

    config: ConfigDict
    workdir: Path
    task: Task
    policy: Policy
    initial: StoredPolicy
    base_folder: Path
    verifier: Verifier
    stop: StopRequest = field(default_factory=StopRequest)
    method: Method = PERMIX
    origin: StoredPolicy | None = None
    loggers: Loggers = field(default_factory=Loggers)

    @property
    def mesh(self) -> Mesh:
        return self.initial.mesh

    @property
    def base(self) -> StoredPolicy:
        """The policy that RL starts from; also the reference of its KL."""
        folder = self.base_folder if base_is_stored(self.config) else None
        return base_policy(self.policy, self.initial, folder)

    def at(self, step: int) -> StoredPolicy:
        """The policy at a checkpoint; the base at step 0."""
        return checkpoint(self.policy, self.base, self.workdir, step)

    def loop(self, label: str, shown: dict[str, str]) -> Loop:
        """The loop that trains the policy; see `Loop`."""
        c, label = self.config, f"{label} {self.workdir.name}"
        kept, steps = c.train.keep_checkpoints, [int(n) for n in names_in(c.train.keep_steps)]
        every, judged = c.train.checkpoint_every, c.eval.every if c.train.keep_best else 0
        profile = tuple(map(int, c.train.profile.split(":"))) if c.train.profile else None
        return Loop(
            label, self.workdir, c.train.steps, every, kept, shown,
            keep_steps=steps, judged_every=judged, profile=profile,
            tensorboard="tensorboard" in names_in(c.train.loggers), loggers=self.loggers,
        )  # fmt: skip

    def start(
        self,
        programs: Programs,
        load_base: Callable[[], dict],
        accuracies: dict | None = None,
    ) -> tuple[TrainState, Callable[[], TrainState]]:
        """The state that training starts from: its ShapeDtypeStructs, and what makes it.

        It is the base, with fresh adapters where there are any. `accuracies`: the personas' first
        ones, on the mesh, if the mixture adapts.
        """
        accuracies = accuracies or {}

        def create() -> TrainState:
            adapters = key(self.config.seed, "adapters")
            trained = initial_trained(self.policy.model, load_base(), adapters, self.mesh)
            state = create_state(trained, programs.optimizer, programs.abstract)
            return state.replace(accuracies=accuracies)

        return programs.abstract.replace(accuracies=abstract_like(accuracies)), create


def base_is_stored(config: ConfigDict) -> bool:
    """Whether the base is a checkpoint, by SFT or from another run, not the model as it is."""
    return bool(config.sft.steps or config.train.get("start"))


def base_policy(policy: Policy, initial: StoredPolicy, folder: Path | None) -> StoredPolicy:
    """The base of `policy`, without adapters: the newest checkpoint in `folder`, or the initial
    policy where that is None."""
    name, mesh, model = "the base policy", initial.mesh, without_lora(policy.model)
    if folder is None:
        return replace(initial, name=name)
    load = partial(load_params, folder / "checkpoints", model, mesh)
    return StoredPolicy(name, policy._replace(model=model), mesh, load)


def checkpoint(policy: Policy, base: StoredPolicy, workdir: Path, step: int) -> StoredPolicy:
    """The policy at a checkpoint of the run in `workdir`, joined with the base's parameters where
    it has adapters; at step 0 `base`."""
    if step == 0:
        return base

    def load() -> dict:
        trained = load_params(workdir / "checkpoints", policy.model, base.mesh, step)
        return join(trained, base.load_params() if policy.model.config.lora else {})

    return StoredPolicy(f"step {step}", policy, base.mesh, load)
