"""What is said of values that contradict each other, and what is possible next to it."""

import pytest
from runs import load_config

from permix_jax.app.validation import require_valid

PERSONAS_IN_A_GROUP = {"personas.level": "rollout", "grpo.advantage_group": "problem_persona"}
# What is said, and fields of which it is said.
TOGETHER = {
    "train.problems_per_step is 32; use a multiple of mesh.data * mesh.fsdp = 6 times "
    "rollout.micro_batches = 1": [{"mesh.data": 2, "mesh.fsdp": 3}],
    # Each alone divides, together they do not.
    "train.problems_per_step is 32; use a multiple of mesh.data * mesh.fsdp = 8 times "
    "rollout.micro_batches = 8": [{"rollout.micro_batches": 8, "mesh.data": 8}],
    "train.problems_per_step is 32; use a multiple of mesh.data * mesh.fsdp = 1 times "
    "rollout.micro_batches = 3": [{"rollout.micro_batches": 3}],
    "eval.temperature is 0.0; greedy answers do not vary: use 1 sample, or more than 0": [
        {"eval.temperature": 0.0},
        {"eval.temperature": 0.0, "eval.role_play_samples": 0, "eval.samples": 2},
    ],
    "grpo.advantage_group is 'problem_persona'; with personas.level = rollout such groups mostly "
    "hold one rollout, which has no baseline: use problem, or at most half as many personas.count "
    "as rollout.group_size": [PERSONAS_IN_A_GROUP],
    "personas.placement is 'user'; the embedded world's policy knows system messages alone": [
        {"personas.placement": "user"}
    ],
    "personas.paraphrase is True; the embedded world lacks the words: set it to False": [
        {"personas.paraphrase": True}
    ],
    "rehearsal.weight is 0.5; rehearsal stands beside GRPO: use 0, or train.method = grpo": [
        {"rehearsal.weight": 0.5, "train.method": "sft"}
    ],
    "distill.teacher is 'runs/rlvr'; only train.method = distill has a teacher: leave it empty": [
        {"distill.teacher": "runs/rlvr"}
    ],
    "personas.weights is 'adaptive'; they adapt under train.method = grpo alone: use uniform": [
        {"train.method": "distill", "personas.weights": "adaptive"}
    ],
    "rewards.correctness is 0.0; every term has weight 0: give one a weight": [
        {"rewards.correctness": 0.0}
    ],
    "grpo.mini_batches is 5; use a divisor of train.problems_per_step = 32": [
        {"grpo.mini_batches": 5},
        {"grpo.mini_batches": 5, "grpo.epochs": 5},
    ],
    "grpo.advantage_baseline is 'leave_one_out'; leave_one_out is unbiased as it is, and a scale "
    "is not: set grpo.advantage_scale to none, or use group_mean": [
        {"grpo.advantage_baseline": "leave_one_out"},
        {"grpo.advantage_baseline": "leave_one_out", "grpo.advantage_scale": "batch"},
    ],
    "rollout.refill_rounds is 1; with the KL in the reward every group has advantages: use 0, or "
    "grpo.kl_in = loss": [{"rollout.refill_rounds": 1, "grpo.kl_in": "reward"}],
    "grpo.kl_in is 'reward'; normalize_then_sum sums the advantages of the terms of the reward, "
    "and the KL is none of them: use loss, or grpo.multi_objective_aggregation = "
    "sum_then_normalize": [
        {"grpo.kl_in": "reward", "grpo.multi_objective_aggregation": "normalize_then_sum"}
    ],
    "train.decay_to is 0.0; an exponential decay never ends at 0: use a share of the peak, such as "
    "0.1": [{"train.decay": "exponential"}],
    "train.profile is '151:152'; begin with one of the train.steps = 150": [
        {"train.profile": "151:152"}
    ],
    "train.keep_best is 'pss'; without evaluations on the way there is no best: set eval.every, or "
    "leave it empty": [{"train.keep_best": "pss"}],
    "train.stop_after is 3; name the figure that has to rise in train.keep_best, or use 0": [
        {"train.stop_after": 3, "eval.every": 5}
    ],
    "train.keep_steps is '50,151'; use steps up to train.steps = 150": [
        {"train.keep_steps": "50,151"}
    ],
    "sft.steps is 1000; a run that begins with another run's policy (train.start, --from) has it "
    "as its base: use 0": [{"train.start": "runs/permix"}],
    "rewards.overlong_tokens is 0; use 1 to rollout.max_new_tokens = 16": [
        {"rewards.overlong": 1.0}
    ],
}


@pytest.mark.parametrize(
    ("message", "fields"), [(said, fields) for said, many in TOGETHER.items() for fields in many]
)
def test_values_that_are_impossible_together(message, fields):
    with pytest.raises(ValueError) as error:
        require_valid(load_config("permix.py", "", **fields))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"personas.share": 0.0},
        {"personas.share": 1.0},
        {"rollout.group_size": 2},
        {"grpo.kl_weight": 0.0},
        {"mesh.data": 2, "mesh.fsdp": 2, "rollout.micro_batches": 4},
        {"eval.temperature": 0.0, "eval.role_play_samples": 1},
        {"personas.level": "rollout"},
        {"sft.steps": 0},
        {"grpo.mini_batches": 32},
        {"grpo.mini_batches": 5, "train.method": "sft"},
        {"grpo.advantage_baseline": "leave_one_out", "grpo.advantage_scale": "none"},
        {"rollout.refill_rounds": 1, "grpo.kl_in": "reward", "grpo.kl_weight": 0.0},
        {"grpo.multi_objective_aggregation": "normalize_then_sum"},
        {"train.keep_steps": "1,150"},
        PERSONAS_IN_A_GROUP | {"personas.count": 4},
        # Batches that the mesh does not divide are filled up to it.
        {"mesh.data": 8, "rehearsal.weight": 0.5, "rehearsal.rows": 3, "eval.batch_size": 7}
        | {"sft.batch_size": 5, "personagym.batch_size": 3, "eval.role_play_samples": 3},
        {"mesh.data": 8, "train.method": "sft", "train.problems_per_step": 3},
        # Nothing is played where there is no rule of style.
        {"task.name": "problems", "model.source": "x", "eval.temperature": 0.0},
        {"train.method": "distill", "distill.teacher": "runs/rlvr"},
    ],
    ids=str,
)
def test_the_edges_of_what_is_possible(fields):
    require_valid(load_config("permix.py", "", **fields))
