"""Both policies of a run answer what they are asked, and say clearly what they cannot be asked."""

import jax
import pytest
from runs import run_tiny

from permix_jax.app.chat import Answers, Turn, open_chat
from permix_jax.personas.prompts import render
from permix_jax.rollout.generate import Answer, right_pad
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.tasks.embedded_world import PERSONAS

SUM = "what is 12 plus 34 ?"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of adapters on a random base, with steps that change what it says."""
    folder = tmp_path_factory.mktemp("chat")
    fields = {"sft__steps": 0, "train__steps": 2, "train__learning_rate": 0.1, "lora__rank": 4}
    fields |= {"rewards__format": 1.0, "grpo__kl_weight": 0.0, "eval__kl_responses": 0}
    fields |= {"rewards__overlong": 1.0, "rewards__overlong_tokens": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(folder / "cache"))
        yield run_tiny(folder / "run", **fields)


@pytest.fixture(scope="module")
def chat(workdir):
    return open_chat(workdir)


def test_both_answer_greedily_under_the_persona(chat):
    answers = chat.ask("you are a pirate .", SUM, max_new_tokens=8)
    assert answers.base != answers.trained
    assert answers == chat.ask(PERSONAS[12], SUM, max_new_tokens=8, seed=1)
    assert PERSONAS[12].system_prompt == "you are a pirate ."
    for (policy, params, mesh), answer in zip((chat.base, chat.trained), answers, strict=True):
        prompt = right_pad([render(policy.tokenizer, PERSONAS[12], SUM)], 64)
        keys = jax.random.key(0)[None]
        with jax.set_mesh(mesh):
            drawn = sample(policy.model, params, prompt, keys, Sampling(8, 0.0), policy.end_tokens)
        expected = policy.text(drawn.tokens, drawn.mask)[0], bool(drawn.truncated[0])
        assert answer == expected


def test_what_a_person_would_write_is_asked_in_the_words_of_the_embedded_world(chat):
    """README's and the guide's examples have capitals, and a full stop at the last word."""
    expected = chat.ask("you are a pirate .", SUM, max_new_tokens=8)
    assert chat.ask("You are a pirate.", "What is 12 plus 34?", max_new_tokens=8) == expected


def test_draws_depend_on_the_seed_and_none_is_the_plain_prompt(chat):
    drawn = [chat.ask(None, SUM, 8, temperature=2.0, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != chat.ask("you are a pirate .", SUM, 8, temperature=2.0)


def test_each_policy_sees_its_own_answers(chat):
    """What follows a turn is the answer to the whole conversation, as the template writes it."""
    first = chat.ask("you are a pirate .", SUM, max_new_tokens=8)
    again = chat.ask("You are a pirate.", SUM, 8, turns=[Turn("What is 12 plus 34?", first)])
    for i, (policy, params, mesh) in enumerate((chat.base, chat.trained)):
        said = [(SUM, first[i].text)]
        tokens = render(policy.tokenizer, PERSONAS[12], SUM, said)
        written = policy.tokenizer.decode(tokens)
        assert written.count("<user>") == 2 and written.count("<assistant>") == 2
        prompt, keys = right_pad([tokens], 64), jax.random.key(0)[None]
        with jax.set_mesh(mesh):
            drawn = sample(policy.model, params, prompt, keys, Sampling(8, 0.0), policy.end_tokens)
        assert again[i].text == policy.text(drawn.tokens, drawn.mask)[0]


def test_the_base_is_held_once(chat):
    assert chat.trained.policy.model.config.lora.rank == 4
    assert chat.base.policy.model.config.lora is None
    base, trained = (jax.tree.leaves(loaded.params) for loaded in (chat.base, chat.trained))
    assert len({id(x) for x in base} & {id(x) for x in trained}) == len(base)


def test_what_cannot_be_asked_is_refused(chat, tmp_path, workdir):
    lacking = r"tokenizer lacks 'dragon', 'who'; leave out\. .*: 'what is 12 plus 34 \?'"
    for asked, said in {
        ("You are a dragon.", "Who are you?"): lacking,
        (None, " "): "message is empty; write one$",
        ("", SUM): "persona is empty; write one or None",
        (None, "what is \ud83d ?"): r"^the message holds '\\ud83d', one half of a surrogate",
        ("you are \udc00", SUM): r"^the persona holds '\\udc00', one half of a surrogate",
    }.items():
        with pytest.raises(ValueError, match=said) as refused:
            chat.ask(*asked)
        if "surrogate" not in said:
            assert refused.value._render_traceback_() == [f"error: {refused.value}"]
    with pytest.raises(FileNotFoundError, match="name the workdir of a run"):
        open_chat(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint 7; there are"):
        open_chat(workdir, step=7)


def test_a_notebook_shows_text_as_it_is():
    shown = Answers(Answer("<b>1 & 2\n3", False), Answer("4", True))._repr_html_()
    assert "<td>&lt;b&gt;1 &amp; 2<br>3</td><td>4 [cut off]</td>" in shown
