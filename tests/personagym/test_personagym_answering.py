"""What a policy is asked; tests/app/test_personagym_run.py has it answer."""

import pytest
from judge_server import BENCHMARK

from permix_jax.personagym import answering
from permix_jax.tasks.embedded_world import build_tokenizer


def test_the_persona_is_the_system_message_in_the_benchmark_s_words():
    (prompt,) = answering._prompts(_Recorder(), BENCHMARK.questions[:1])
    assert prompt == [
        {
            "role": "system",
            "content": "Adopt the identity of A pirate. Answer the questions while staying in "
            "strict accordance with the nature of this identity.",
        },
        {"role": "user", "content": BENCHMARK.questions[0].question},
    ]


class _Recorder:
    """A tokenizer whose tokens are the messages."""

    unk_token_id = None

    def apply_chat_template(self, conversations, **_):
        return conversations


def test_a_tokenizer_that_lacks_the_words_is_refused():
    with pytest.raises(ValueError, match="does not know .*; use a policy that comes from a"):
        answering._prompts(build_tokenizer(), BENCHMARK.questions)
