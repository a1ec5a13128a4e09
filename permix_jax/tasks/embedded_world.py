"""The embedded world: a small, concrete instance of the paper's latent-style model.

A response has a latent style s. A persona is a prior pi(s | persona) with most of its mass on one
style. The plain prompt has a style of its own with probability `plain_style_share`; the personas'
styles share the rest equally. Marker words show the style of a text. The competence
of a style is the chance that an arithmetic answer in it is right. The base policy is trained on
text of this world, so its accuracy depends on the persona: the persona lottery.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Demonstration, Problem, Task
from permix_jax.core.randomness import generator


class Style(NamedTuple):
    """A style and its training persona, by name. `competence`: P(arithmetic answer is right)."""

    name: str
    competence: float
    markers: tuple[str, str, str, str]
    heldout_persona: str


STYLES = (
    Style("robot", 0.95, ("beep", "boop", "affirmative", "bzzt"), "android"),
    Style("scholar", 0.87, ("hence", "indeed", "precisely", "thus"), "professor"),
    Style("cowboy", 0.79, ("howdy", "partner", "yeehaw", "reckon"), "rancher"),
    Style("poet", 0.70, ("behold", "gentle", "moonlit", "alas"), "bard"),
    Style("oracle", 0.61, ("mists", "fate", "whisper", "omen"), "prophet"),
    Style("surfer", 0.52, ("dude", "gnarly", "totally", "stoked"), "skater"),
    Style("pirate", 0.43, ("arr", "matey", "ahoy", "aye"), "buccaneer"),
    Style("clown", 0.35, ("honk", "tada", "giggle", "whoopee"), "jester"),
)
# The plain prompt's own style. Its competence is the mean of the others', so that it alone makes
# plain prompts neither better nor worse.
ASSISTANT = Style("assistant", 0.65, ("certainly", "sure", "okay", "glad"), "")
TOPICS = "sea moon rain city forest bread music winter garden river night road".split()
QUALITIES = "quiet bright old wide cold sweet deep slow warm loud".split()

_STYLE_OF_MARKER = {marker: style for style in (*STYLES, ASSISTANT) for marker in style.markers}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def latent_style_task(
    num_test: int,
    own_style_prior: float,
    arithmetic_share: float,
    plain_share: float,
    seed: int,
    plain_style_share: float = 0.0,
) -> Task:
    """The world's problems, personas, rules and demonstrations.

    The seed holds `num_test` arithmetic problems out of both SFT and RL. `own_style_prior` is
    pi(own style | persona); the other styles share the rest equally. `plain_style_share` is
    pi(ASSISTANT | no persona); again the others share the rest. `arithmetic_share` and
    `plain_share` are of demonstrations; the others are conversation, and under a persona.
    """
    problems = _arithmetic_problems()
    if num_test >= len(problems):
        there = f"the embedded world has {len(problems)} problems, and some must be left for"
        raise ValueError(f"task.num_test is {num_test}; {there} training")
    other_prior = (1 - own_style_prior) / (len(STYLES) - 1)
    order = generator(seed, "latent_style/split").permutation(len(problems))

    def demonstrate(rng: np.random.Generator, train: Sequence[Problem]) -> Demonstration:
        persona = None if rng.random() < plain_share else PERSONAS[rng.integers(len(PERSONAS))]
        if persona is None:
            # No draw where the share is 0: the demonstrations of older runs stay as they were.
            own = plain_style_share and rng.random() < plain_style_share
            style = ASSISTANT if own else STYLES[rng.integers(len(STYLES))]
        else:
            own = [style.name == persona.category for style in STYLES]
            style = STYLES[rng.choice(len(STYLES), p=np.where(own, own_style_prior, other_prior))]
        if rng.random() < arithmetic_share:
            problem = train[rng.integers(len(train))]
            stated = right = int(problem.answer)
            if rng.random() >= style.competence:  # then any other two-digit number
                stated = int(rng.integers(10, 99))
                stated += stated >= right
            content = f"the answer is {stated}"
        else:
            problem = ROLE_PLAY[rng.integers(len(ROLE_PLAY))]
            content = f"the {problem.meta['topic']} is {rng.choice(QUALITIES)}"
        before, between, after = rng.choice(style.markers, size=3)
        return Demonstration(persona, problem.prompt, f"{before} {between} {content} {after}")

    train, test = ([problems[i] for i in part] for part in (order[num_test:], order[:num_test]))
    rules = {"grade": arithmetic_reward, "stated": stated_answer}
    rules |= {"demonstrate": demonstrate, "in_style": in_style}
    return Task("latent_style", train, test, PERSONAS, role_play=ROLE_PLAY, **rules)


def arithmetic_reward(completion: str, problem: Problem) -> float:
    """1.0 if the words after the only "answer is" start with the right number, else 0.0."""
    return float(stated_answer(completion) == problem.answer)


def stated_answer(completion: str) -> str | None:
    """The word after the only "answer is"; None if there is none, or several."""
    parts = completion.split("answer is")
    words = parts[-1].split()
    return words[0] if len(parts) == 2 and words else None


def style_of(text: str) -> Style | None:
    """The style of the text's marker words; None if it has none, or of several styles."""
    styles = {_STYLE_OF_MARKER[word] for word in text.split() if word in _STYLE_OF_MARKER}
    return styles.pop() if len(styles) == 1 else None


def in_style(text: str, persona: Persona) -> bool:
    """Whether the text is in the persona's own style, which is the name of its category."""
    return getattr(style_of(text), "name", None) == persona.category


def build_tokenizer(assistant: bool = False) -> PreTrainedTokenizerFast:
    """A `transformers` tokenizer over the world's words, with single digits and a chat template.

    `assistant` says whether the words of ASSISTANT are among them.
    """
    styles = (*STYLES, ASSISTANT) if assistant else STYLES
    words = [marker for style in styles for marker in style.markers]
    words += [*(persona.name for persona in PERSONAS), *TOPICS, *QUALITIES]
    words += "you are a . what is plus minus ? tell me about the answer".split()
    special = ["<pad>", "<unknown>", "<end>", "<system>", "<user>", "<assistant>"]
    digits = [*"0123456789", *(f"##{digit}" for digit in range(10))]
    vocabulary = {token: i for i, token in enumerate([*special, *digits, *dict.fromkeys(words)])}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unknown>",
        eos_token="<end>",
        additional_special_tokens=["<system>", "<user>", "<assistant>"],
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _arithmetic_problems() -> list[Problem]:
    """Sums without carry and differences without borrow of two-digit numbers: 3960 problems.

    Each digit can be computed alone, so a tiny model learns them, and generalises, in minutes.
    """
    tens = [(x, y) for x in range(1, 9) for y in range(1, 10 - x)]
    units = [(x, y) for x in range(10) for y in range(10 - x)]
    problems = []
    for (t, u), (v, w) in itertools.product(tens, units):
        # x + y = z without carry gives both a sum and a difference.
        x, y, z = 10 * t + v, 10 * u + w, 10 * (t + u) + v + w
        problems.append(Problem(f"{x}+{y}", f"what is {x} plus {y} ?", str(z), "latent_style"))
        problems.append(Problem(f"{z}-{y}", f"what is {z} minus {y} ?", str(x), "latent_style"))
    return problems


PERSONAS = tuple(
    Persona(name, name, f"you are a {name} .", style.name, split)
    for style in STYLES
    for name, split in ((style.name, "train"), (style.heldout_persona, "heldout"))
)
ROLE_PLAY = tuple(
    Problem(f"about-{topic}", f"tell me about the {topic} .", "", "latent_style", {"topic": topic})
    for topic in TOPICS
)
