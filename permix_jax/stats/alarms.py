"""Warnings of a run: metrics that say, for some steps in a row, that training does not work.

They depend on the rows of metrics.jsonl alone. So a resumed run does not repeat a warning, and a
report lists what the terminal said.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

Row = Mapping[str, float]


class Alarm(NamedTuple):
    """A condition, and what is said once it holds in `steps` steps in a row.

    holds: whether it holds in one step; False where the row lacks the metric.
    remedy: as in docs/guide.md, "Reading the metrics".
    """

    name: str
    steps: int
    holds: Callable[[Row], bool]
    finding: str
    remedy: str


class Warned(NamedTuple):
    """An alarm, the step that completed its condition, and the `text` of one line."""

    step: int
    alarm: Alarm

    @property
    def text(self) -> str:
        return f"step {self.step}: {self.alarm.finding}; {self.alarm.remedy}"


def _above(metric: str, limit: float) -> Callable[[Row], bool]:
    return lambda row: row.get(metric, 0.0) > limit


def _nothing_right(row: Row) -> bool:
    """Whether no answer of the policy (in distillation: of the teacher) was right."""
    named = ("rewards/correctness/mean", "reward", "teacher/accuracy")
    return next((row[name] == 0 for name in named if name in row), False)


def _no_verdict(row: Row) -> bool:
    """Whether no rollout has a reward, for none of their gold answers states anything."""
    return "verifier/unparseable_gold" in row and not {"reward", "teacher/accuracy"} & row.keys()


ALARMS = (
    Alarm(
        "truncated",
        5,
        _above("completions/clipped_ratio", 0.8),
        "over 80 % of the completions were cut off, in 5 steps in a row",
        "raise rollout.max_new_tokens, or rewards.overlong with a ramp; grpo.mask_truncated leaves "
        "them out",
    ),
    Alarm(
        "nothing right",
        10,
        _nothing_right,
        "no answer was right, in 10 steps in a row",
        "read completions/; raise rewards.format or sft.steps, set rewards.last_number, or take "
        "easier problems",
    ),
    Alarm(
        "no spread",
        5,
        lambda row: "reward" in row and row.get("frac_reward_zero_std") == 1,
        "all rollouts of each group had the same reward and so taught nothing, in 5 steps in a row",
        "take problems of middling difficulty, a larger rollout.group_size, temperature 1",
    ),
    Alarm(
        "no verdict",
        3,
        _no_verdict,
        "the verifier came to no verdict on any answer, in 3 steps in a row",
        "look at the problems named in completions/; correct the data",
    ),
    Alarm(
        "KL",
        1,
        _above("kl", 10.0),
        "the KL to the base policy is above 10 nats a token",
        "lower train.learning_rate, raise grpo.kl_weight, look at grad_norm",
    ),
    Alarm(
        "sampler and trainer",
        1,
        _above("sampling/logp_difference", 0.1),
        "the log-probs of sampler and trainer differ by more than 0.1 nats a token on average",
        "set grpo.importance_cap to 2, or model.dtype to float32",
    ),
)


class Alarms:
    """Looks at the steps of a run one after the other, and warns of each alarm once.

    Args:
      rows: of metrics.jsonl, as the run left it. Their warnings are not repeated.
      step: where the run goes on. The steps of later rows are done again.
    """

    def __init__(self, rows: Sequence[Row] = (), step: int = 0):
        self._in_a_row = dict.fromkeys((alarm.name for alarm in ALARMS), 0)
        self._said = {warned.alarm.name for warned in warned_of(rows)} if rows else set()
        for row in rows:
            if row["step"] <= step:
                self._count(row)

    def see(self, row: Row) -> list[Warned]:
        """The alarms whose condition this step completes for the first time."""
        self._count(row)
        due = [a for a in ALARMS if self._in_a_row[a.name] >= a.steps and a.name not in self._said]
        self._said |= {alarm.name for alarm in due}
        return [Warned(row["step"], alarm) for alarm in due]

    def _count(self, row: Row) -> None:
        known = {name: x for name, x in row.items() if x is not None}
        for alarm in ALARMS:
            self._in_a_row[alarm.name] = self._in_a_row[alarm.name] + 1 if alarm.holds(known) else 0


def warned_of(rows: Iterable[Row]) -> list[Warned]:
    """What the rows of a metrics.jsonl warn of, by step."""
    alarms = Alarms()
    return [warned for row in rows for warned in alarms.see(row)]
