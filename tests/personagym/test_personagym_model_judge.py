"""A tiny random model as a judge."""

import jax
import pytest

from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import LoadedPolicy, Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, ModelJudge
from permix_jax.personagym.model_judge import with_models
from permix_jax.tasks.embedded_world import build_tokenizer

JUDGE = ModelJudge("m", "folder", max_tokens=6, batch_size=4)
SHORT = [
    Prompt("", "the sea ."),
    Prompt("you are a pirate .", "the sea ."),
    Prompt("", "the moon ."),
]
LONG = Prompt("", "the sea . " * 20)


@pytest.fixture(scope="module")
def opened(mesh):
    tokenizer = build_tokenizer()
    model = Decoder(ModelConfig(len(tokenizer), 16, 1, 2, 1, 8, 24, max_context=64))
    params = create_params(model, jax.random.key(1), mesh)
    return LoadedPolicy(Policy(model, tokenizer, (tokenizer.eos_token_id,)), params, mesh)


def test_replies_are_greedy_and_do_not_depend_on_the_batch(opened):
    (judge,) = with_models([JUDGE], lambda _: opened)
    together = judge.reply(SHORT)
    assert together == [judge.reply([prompt])[0] for prompt in SHORT] == judge.reply(SHORT)
    assert len({reply.text for reply in together}) == 3  # the system message counts, too
    longer = with_models([JUDGE._replace(max_tokens=9)], lambda _: opened)[0].reply(SHORT)
    for short, long in zip(together, longer, strict=True):
        assert short.truncated and short.text and long.text.startswith(short.text)


def test_a_prompt_over_the_context_is_refused_and_the_others_answered(opened):
    (judge,) = with_models([JUDGE], lambda _: opened)
    first, refused, last = judge.reply([SHORT[0], LONG, SHORT[2]])
    assert [first, last] == [judge.reply([prompt])[0] for prompt in (SHORT[0], SHORT[2])]
    assert refused.text is None
    assert refused.refusal.endswith("with max_tokens of 6 over the model's context of 64")
    assert judge.reply([LONG]) == [refused]


def test_models_are_opened_when_asked_and_one_is_held_at_a_time(opened):
    asked = []

    def open_model(judge):
        asked.append(judge.name)
        return opened

    endpoint = Judge("e", "http://127.0.0.1:1/v1", "m")
    first, same, second = with_models([JUDGE, endpoint, JUDGE._replace(name="n")], open_model)
    assert same is endpoint and asked == []
    for judge in (first, first, second, first):
        judge.reply(SHORT[:1])
    assert asked == ["m", "n", "m"]


def test_what_changes_the_replies_is_in_the_identity_and_a_batch_size_is_not(opened):
    changes = ({"source": "x"}, {"dtype": "bfloat16"}, {"max_tokens": 7}, {"batch_size": 2}, {})
    judges = with_models([JUDGE._replace(**change) for change in changes], lambda _: opened)
    *different, smaller, same = (judge.model for judge in judges)
    assert smaller == same and len({*different, same}) == 4


def test_a_model_that_cannot_be_opened_is_a_judge_that_fails():
    def missing(judge):
        raise FileNotFoundError(f"{judge.source}: no such folder")

    (judge,) = with_models([JUDGE], missing)
    with pytest.raises(JudgeError, match="judge 'm': folder: no such folder"):
        judge.reply(SHORT)
