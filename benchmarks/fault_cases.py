"""The faults of a campaign: each case is a pure function of the seed and the case's number."""

from typing import NamedTuple

from permix_jax.core.randomness import generator

SFT, GRPO, SAVE, EVALUATION, REPORT = "SFT", "GRPO", "save", "evaluation", "report"
PHASES = (SFT, GRPO, SAVE, EVALUATION, REPORT)

KILL, TERMINATE, INTERRUPT, FULL_DISK = "kill -9", "SIGTERM", "SIGINT", "full disk"
TRUNCATED, FLIPPED = "truncated checkpoint", "flipped bit in a checkpoint"
NO_MEMORY = "restore out of memory"
# These kill the run first, and harm a checkpoint, or its restore, before the next run.
OF_CHECKPOINTS = (TRUNCATED, FLIPPED, NO_MEMORY)

# When the run is killed, and whose newest checkpoint is harmed then: by round, GRPO's, that of an
# SFT that is not finished, GRPO's, and that of the finished SFT.
_HARMED_IN = (GRPO, SFT, EVALUATION, GRPO)
_OF_SFT = (False, True, False, True)
# One round of the campaign; a kind with several phases has the next of them in the next round.
_ROUND = (
    (KILL, (SFT,)),
    (TERMINATE, (GRPO, EVALUATION, SFT, SAVE, REPORT)),
    (TRUNCATED, _HARMED_IN),
    (KILL, (GRPO,)),
    (INTERRUPT, (EVALUATION, SFT, GRPO, REPORT, SAVE)),
    (FLIPPED, _HARMED_IN),
    (KILL, (SAVE,)),
    (FULL_DISK, (SAVE, GRPO, SFT, EVALUATION, REPORT)),
    (NO_MEMORY, _HARMED_IN),
    (KILL, (EVALUATION,)),
    (KILL, (REPORT,)),
)
_SAVES = 9  # SFT's three, and six of GRPO
_AGAIN = 1 / 3


class Case(NamedTuple):
    """A run that suffers a fault, and the same command after it.

    Attributes:
      number: from 0.
      kind: of the fault.
      phase: in which it strikes.
      instant: when, as a share of the phase's length, or a save's, in an uninterrupted run.
      save: for SAVE: which save of the run, from 1.
      of_sft: for OF_CHECKPOINTS: whether a checkpoint of SFT is harmed, not one of GRPO.
      again: when the next run suffers a second fault, as a share of an uninterrupted run's length;
        None: it does not. After one of OF_CHECKPOINTS the second fault is a kill -9.
      draw: seeds what is drawn at the fault itself: a file, a length, a bit.
    """

    number: int
    kind: str
    phase: str
    instant: float
    save: int
    of_sft: bool
    again: float | None
    draw: int

    @property
    def row(self) -> str:
        """Its row in the campaign's table."""
        return f"{self.kind} in {self.phase}" if self.kind == KILL else self.kind

    def __str__(self) -> str:
        """What a reader of the campaign's output needs to understand the case."""
        which = f" {self.save}" if self.phase == SAVE else ""
        harmed = f", of {'SFT' if self.of_sft else 'GRPO'}" if self.kind in OF_CHECKPOINTS else ""
        return f"case {self.number}: {self.kind}{harmed}, in {self.phase}{which}"


def draw_case(seed: int, number: int) -> Case:
    rounds, position = divmod(number, len(_ROUND))
    kind, phases = _ROUND[position]
    rng = generator(seed, "faults", number)
    instant, chance, again = map(float, rng.random(3))
    return Case(
        number,
        kind,
        phases[rounds % len(phases)],
        instant,
        int(rng.integers(1, _SAVES + 1)),
        kind in OF_CHECKPOINTS and _OF_SFT[rounds % len(_OF_SFT)],
        again if chance < _AGAIN else None,
        int(rng.integers(2**31)),
    )
