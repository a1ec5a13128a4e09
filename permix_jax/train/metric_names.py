"""What each metric of a step means, and its unit. docs/metrics.md is written from it."""

import re
from typing import NamedTuple


class Metric(NamedTuple):
    """unit: "" for a pure number or a share of 1."""

    unit: str
    meaning: str


# A name with <...> stands for several: <persona> is a persona's id, <term> a term of the reward.
METRICS = {
    "step": Metric("", "the number of the step, from 1"),
    "loss": Metric("", "what the gradient is of, with KL, entropy bonus and rehearsal; SFT: nats"),
    "grad_norm": Metric("", "global norm of the gradients, before clipping"),
    "learning_rate": Metric("", "of the step's last update"),
    "entropy": Metric("nats", "of the policy's distributions, mean over the trained tokens"),
    "kl": Metric("nats", "a token's KL(policy || reference), the k3 estimate, mean over tokens"),
    "reward": Metric("", "mean over rollouts that have a verdict"),
    "reward_std": Metric("", "standard deviation in a group, mean over groups"),
    "frac_reward_zero_std": Metric("", "share of groups whose rewards are all equal"),
    "rewards/<term>/mean": Metric("", "mean of a term before its weight; correctness: accuracy"),
    "persona/<persona>/accuracy": Metric("", "share of right answers; none: without a persona"),
    "persona/<persona>/weight": Metric("", "its adaptive weight; that of the hardest is 1"),
    "personas/weight_entropy": Metric("nats", "of adaptive weights over the training personas"),
    "personas/weight_max_over_min": Metric("", "the highest adaptive weight over the lowest"),
    "completions/mean_length": Metric("tokens", "of a completion, its end token included"),
    "completions/clipped_ratio": Metric("", "share of completions without an end in the budget"),
    "clip_ratio/low_mean": Metric("", "share of tokens whose ratio is clipped from below"),
    "clip_ratio/high_mean": Metric("", "share of tokens whose ratio is clipped from above"),
    "sampling/logp_difference": Metric("nats", "|log-prob of sampler - of trainer|, mean"),
    "sampling/logp_difference_max": Metric("nats", "the same, the largest of a token"),
    "sampling/importance": Metric("", "weight that corrects the sampler's rounding, mean"),
    "verifier/unparseable_gold": Metric("rollouts", "whose gold answer states nothing: left out"),
    "refill/rounds": Metric("", "rounds of further problems that the step sampled"),
    "refill/unused": Metric("", "share of the step's rollouts that no update saw"),
    "rehearsal/loss": Metric("nats", "cross-entropy of a token of the base's own role-play"),
    "teacher/accuracy": Metric("", "distillation: share of the teacher's answers that are right"),
    "responses/trained": Metric("responses", "SFT and distillation: that the step trained on"),
    "tokens/generated": Metric("tokens", "that the step sampled, those for rehearsal included"),
    "tokens": Metric("tokens", "the base's SFT: targets of the step"),
    "tokens/trained": Metric("tokens", "SFT and distillation: targets of the step"),
    "tokens/rehearsal": Metric("tokens", "of role-play in the step"),
    "tokens/padding": Metric("", "share of the packed rows that holds no token"),
    "tokens_per_second": Metric("tokens/s", "sampled in time/rollout; SFT: trained in time/update"),
    "time/rollout": Metric("s", "sampling"),
    "time/reward": Metric("s", "waiting for verdicts after the sampling"),
    "time/update": Metric("s", "scoring and updates; SFT and distillation: the update"),
    "time/compile": Metric("s", "of compiling, within the times above"),
    "perf/mfu": Metric("", "the model's FLOPs in time/update over those of all devices at peak"),
    "perf/peak_memory_gib": Metric("GiB", "the most that a device has held since the start"),
}
_PATTERNS = {
    re.compile(re.sub(r"<\w+>", ".+", re.escape(name))): entry for name, entry in METRICS.items()
}


def metric(name: str) -> Metric | None:
    """The entry of a metric as `metrics.jsonl` has it; None where there is none."""
    return next((entry for pattern, entry in _PATTERNS.items() if pattern.fullmatch(name)), None)
