"""The rules between fields of the config: values that are valid each, but not together."""

from ml_collections import ConfigDict

from permix_jax.core.fields import names_in


def broken_between_fields(c: ConfigDict) -> list[tuple[str, str]]:
    """(field, remedy) of each rule between fields that is broken; each field alone is valid."""
    world, method, budget = c.task.name == "latent_style", c.train.method, c.rollout.max_new_tokens
    devices, parts = c.mesh.data * c.mesh.fsdp, c.rollout.micro_batches
    # Every other batch is filled up to the mesh; rollouts that count for nothing would cost most.
    uneven = method != "sft" and c.train.problems_per_step % (devices * parts)
    played = c.eval.role_play_samples if world else 0
    by_persona = c.grpo.advantage_group == "problem_persona" and c.personas.level == "rollout"
    terms = c.rewards.correctness, c.rewards.format, c.rewards.overlong
    rules = [
        (uneven, "train.problems_per_step", f"use a multiple of mesh.data * mesh.fsdp = {devices} "
            f"times rollout.micro_batches = {parts}"),
        (c.eval.temperature == 0 and max(c.eval.samples, played) > 1, "eval.temperature",
            "greedy answers do not vary: use 1 sample, or more than 0"),
        (by_persona and not 0 < 2 * c.personas.count <= c.rollout.group_size,
            "grpo.advantage_group", "with personas.level = rollout such groups mostly hold one "
            "rollout, which has no baseline: use problem, or at most half as many personas.count "
            "as rollout.group_size"),
        (not world and not c.model.source, "model.source", f"task.name = {c.task.name} takes a "
            "model that reads: name a Hugging Face id or folder"),
        (world and c.personas.file, "personas.file",
            "the embedded world has its own personas: leave it empty"),
        (world and c.personas.placement != "system", "personas.placement",
            "the embedded world's policy knows system messages alone"),
        (world and c.personas.paraphrase, "personas.paraphrase",
            "the embedded world lacks the words: set it to False"),
        (c.rehearsal.weight and method != "grpo", "rehearsal.weight",
            "rehearsal stands beside GRPO: use 0, or train.method = grpo"),
        (c.distill.teacher and method != "distill", "distill.teacher",
            "only train.method = distill has a teacher: leave it empty"),
        (c.personas.weights == "adaptive" and method != "grpo", "personas.weights",
            "they adapt under train.method = grpo alone: use uniform"),
        (method == "grpo" and c.train.problems_per_step % c.grpo.mini_batches, "grpo.mini_batches",
            f"use a divisor of train.problems_per_step = {c.train.problems_per_step}"),
        (c.rollout.refill_rounds and c.grpo.kl_weight and c.grpo.kl_in == "reward",
            "rollout.refill_rounds", "with the KL in the reward every group has advantages: use 0, "
            "or grpo.kl_in = loss"),
        (c.grpo.multi_objective_aggregation == "normalize_then_sum" and c.grpo.kl_weight
            and c.grpo.kl_in == "reward", "grpo.kl_in", "normalize_then_sum sums the advantages of "
            "the terms of the reward, and the KL is none of them: use loss, or "
            "grpo.multi_objective_aggregation = sum_then_normalize"),
        (c.grpo.advantage_baseline == "leave_one_out" and c.grpo.advantage_scale != "none",
            "grpo.advantage_baseline", "leave_one_out is unbiased as it is, and a scale is not: "
            "set grpo.advantage_scale to none, or use group_mean"),
        (c.train.decay == "exponential" and not c.train.decay_to, "train.decay_to",
            "an exponential decay never ends at 0: use a share of the peak, such as 0.1"),
        (c.train.ema and c.model.param_dtype == "bfloat16" and not c.lora.rank, "train.ema",
            "an average moves by less than bf16 can hold: use 0, or model.param_dtype = float32"),
        (c.grpo.reference_every and c.grpo.reference_mix < 1 and not c.lora.rank
            and c.model.param_dtype == "bfloat16", "grpo.reference_mix",
            "a mixture moves by less than bf16 can hold: use 1, or model.param_dtype = float32"),
        (c.train.profile and int(c.train.profile.partition(":")[0]) > c.train.steps,
            "train.profile", f"begin with one of the train.steps = {c.train.steps}"),
        (c.train.keep_best and not c.eval.every, "train.keep_best",
            "without evaluations on the way there is no best: set eval.every, or leave it empty"),
        (c.train.stop_after and not c.train.keep_best, "train.stop_after",
            "name the figure that has to rise in train.keep_best, or use 0"),
        (any(int(n) > c.train.steps for n in names_in(c.train.keep_steps)), "train.keep_steps",
            f"use steps up to train.steps = {c.train.steps}"),
        (c.train.start and c.sft.steps, "sft.steps", "a run that begins with another run's policy "
            "(train.start, --from) has it as its base: use 0"),
        (not any(terms), "rewards.correctness", "every term has weight 0: give one a weight"),
        (c.rewards.overlong and not 1 <= c.rewards.overlong_tokens <= budget,
            "rewards.overlong_tokens", f"use 1 to rollout.max_new_tokens = {budget}"),
    ]  # fmt: skip
    return [(field, remedy) for broken, field, remedy in rules if broken]
