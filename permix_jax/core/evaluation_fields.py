"""The fields of evaluations, of PersonaGym and of the comparison of methods."""

from permix_jax.core.declare import (
    SHARE_ABOVE_0,
    Field,
    OtherThan,
    Rule,
    Section,
    at_least,
    one_of,
    some_of,
    zero_or_at_least,
)
from permix_jax.core.persona import EVAL_SETS

_OWN_KEY = "an answer depends only on its own key: equal up to rounding"
_WITHOUT_JUDGE = {"eval.judge_free_candidates": OtherThan(0)}
_GYM = {"command": "personagym"}
_CANDIDATES = zero_or_at_least(2, "off", "the persona that was asked for, and others")

EVAL = Section("", (), dict(
    every=Field(0, "steps between evaluations; 0: only the base and the final policy", at_least(0)),
    pss=Field("min_over_max", "PSS formula:",
        one_of("min_over_max", "mean_over_plain", "one_minus_range", "worst_over_plain",
               "one_minus_cv")),
    samples=Field(1, "completions per problem and persona", at_least(1)),
    role_play_samples=Field(16, "completions per conversation prompt and persona", at_least(0),
        reads={"task.name": "latent_style"}),
    sets=Field("heldout", "personas to ask, with commas:",
        Rule(lambda v: sorted(v.split(",")) == sorted(set(v.split(",")) & set(EVAL_SETS)),
             f"use one or more of {','.join(EVAL_SETS)}, each once", EVAL_SETS)),
    personas=Field(0, "how many of each set, from its beginning; 0: all", at_least(0)),
    temperature=Field(1.0, "of sampling; 0: greedy", at_least(0)),
    max_new_tokens=Field(0, "the longest answer of an evaluation; 0: rollout.max_new_tokens",
        zero_or_at_least(2, "rollout.max_new_tokens", "an answer takes a token and its end")),
    kl_responses=Field(1024, "samples that estimate the final policy's KL to the base; 0: none",
        at_least(0)),
    batch_size=Field(512, "completions generated at once", at_least(1), _OWN_KEY),
    resamples=Field(2000, "of the bootstrap", at_least(1)),
    judge_free_candidates=Field(0, "personas under which a response is scored; 0: not measured",
        _CANDIDATES),
    judge_free_questions=Field(64, "questions of each kind to score at most; 0: all",
        zero_or_at_least(2, "all", "the interval is over questions"), reads=_WITHOUT_JUDGE),
    judge_free_reference=Field("", 'model that scores, as in model.source; "": the base policy',
        reads=[_WITHOUT_JUDGE, _GYM | {"personagym.candidates": OtherThan(0)}]),
))  # fmt: skip
PERSONAGYM = Section("read by launch/personagym.py alone (docs/judging.md)", _GYM, dict(
    folder=Field("", 'a local folder with the benchmark\'s files; "": download them'),
    light=Field(True, "only the first question of each task: 1,000 of 10,000"),
    personas=Field(0, "how many of the 200 personas, drawn by seed; 0: all", at_least(0)),
    per_task=Field(0, "how many questions of each task, drawn by seed; 0: all", at_least(0)),
    temperature=Field(0.9, "of the answers; 0.9 is the published value", at_least(0)),
    top_p=Field(0.9, "of the answers; 0.9 is the published value", SHARE_ABOVE_0),
    max_new_tokens=Field(512, "the longest answer; longer ones are cut off", at_least(1)),
    batch_size=Field(32, "answers generated at once", at_least(1), _OWN_KEY),
    candidates=Field(4, "personas under which an answer is scored without a judge; 0: off",
        _CANDIDATES),
    judges=Field("", 'path of judges.jsonl; "": only answer'),
    examples=Field(True, "judges see a response for each score, by the first judge",
        reads={"personagym.judges": OtherThan("")}),
))  # fmt: skip
REPRODUCE = Section("read by launch/reproduce.py alone (configs/reproduce.py)",
    (), dict(
    methods=Field("sft,distill,rlvr,permix", "what to train; their base is evaluated, too",
        some_of("sft", "distill", "rlvr", "permix"), reads={"reproduce.ablation": "none"}),
    seeds=Field(5, "how many, from c.seed on; each has its own base, split and runs", at_least(1)),
    ablation=Field("none", "what to change in further runs of permix and rlvr:",
        one_of("none", "level", "advantage_group", "share", "kl", "adaptive", "personas",
               "rehearsal", "plain")),
    processes=Field(0, "runs side by side on the CPU; 0: as many as cores; 1: on any device",
        Rule(lambda v: v >= 0, "use 0 (all cores) or more")),
))  # fmt: skip
