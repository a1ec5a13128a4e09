"""The embedded world: a small, concrete instance of the paper's latent-style model.

A response has a latent style s. A persona is a prior pi(s | persona) with most of its mass on one
style; the plain prompt has a uniform prior. Marker words show the style of a text. The competence
of a style is the chance that an arithmetic answer in it is right. The base policy is trained on
text sampled from this world, so its accuracy depends on the persona: the persona lottery.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Demonstration, Problem, Task
from permix_jax.core.randomness import generator


@dataclass(frozen=True)
class Style:
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
TOPICS = "sea moon rain city forest bread music winter garden river night road".split()
QUALITIES = "quiet bright old wide cold sweet deep slow warm loud".split()

_STYLE_OF_MARKER = {marker: style for style in STYLES for marker in style.markers}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def latent_style_task(
    num_test: int, own_style_prior: float, arithmetic_share: float, plain_share: float, seed: int
) -> Task:
    """The world's problems, personas, rules and demonstrations.

    Args:
      num_test: arithmetic problems that are held out of both SFT and RL.
      own_style_prior: pi(own style | persona); the other styles share the rest equally.
      arithmetic_share: share of demonstrations that are arithmetic; the others are conversation.
      plain_share: share of demonstrations without a persona.
      seed: decides which problems are held out.
    """
    problems = _arithmetic_problems()
    if num_test >= len(problems):
        raise ValueError(
            f"task.num_test is {num_test}; the embedded world has {len(problems)} problems, and "
            "some must be left for training"
        )
    order = generator(seed, "latent_style/split").permutation(len(problems))

    def demonstrate(rng: np.random.Generator, train: Sequence[Problem]) -> Demonstration:
        persona = None if rng.random() < plain_share else PERSONAS[rng.integers(len(PERSONAS))]
        style = _draw_style(rng, persona, own_style_prior)
        if rng.random() < arithmetic_share:
            problem = train[rng.integers(len(train))]
            right = int(problem.answer)
            stated = right if rng.random() < style.competence else _wrong_answer(rng, right)
            content = f"the answer is {stated}"
        else:
            problem = ROLE_PLAY[rng.integers(len(ROLE_PLAY))]
            content = f"the {problem.meta['topic']} is {rng.choice(QUALITIES)}"
        before, between, after = rng.choice(style.markers, size=3)
        return Demonstration(persona, problem.prompt, f"{before} {between} {content} {after}")

    return Task(
        name="latent_style",
        train=[problems[i] for i in order[num_test:]],
        test=[problems[i] for i in order[:num_test]],
        personas=PERSONAS,
        grade=arithmetic_reward,
        demonstrate=demonstrate,
        role_play=ROLE_PLAY,
        in_style=in_style,
    )


def arithmetic_reward(completion: str, problem: Problem) -> float:
    """1.0 if the words after the only "answer is" start with the right number, else 0.0."""
    parts = completion.split("answer is")
    words = parts[-1].split()
    return float(len(parts) == 2 and bool(words) and words[0] == problem.answer)


def style_of(text: str) -> Style | None:
    """The style of the text's marker words; None if it has none, or of several styles."""
    styles = {_STYLE_OF_MARKER[word] for word in text.split() if word in _STYLE_OF_MARKER}
    return styles.pop() if len(styles) == 1 else None


def in_style(text: str, persona: Persona) -> bool:
    """Whether the text is in the persona's own style, which is the name of its category."""
    style = style_of(text)
    return style is not None and style.name == persona.category


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A `transformers` tokenizer over the world's words, with single digits and a chat template."""
    words = [marker for style in STYLES for marker in style.markers]
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

    Each digit can be computed alone. So a model of 0.2 million parameters learns them in minutes,
    and generalises to held-out pairs.
    """
    tens = [(x, y) for x in range(1, 9) for y in range(1, 10 - x)]
    units = [(x, y) for x in range(10) for y in range(10 - x)]
    problems = []
    for (t, u), (v, w) in itertools.product(tens, units):
        # x + y = z without carry gives both a sum and a difference.
        x, y = 10 * t + v, 10 * u + w
        problems.append((f"{x}+{y}", f"what is {x} plus {y} ?", x + y))
        problems.append((f"{x + y}-{y}", f"what is {x + y} minus {y} ?", x))
    return [Problem(i, prompt, str(answer), "latent_style") for i, prompt, answer in problems]


def _wrong_answer(rng: np.random.Generator, answer: int) -> int:
    """Any other two-digit number."""
    wrong = int(rng.integers(10, 99))
    return wrong + (wrong >= answer)


def _draw_style(rng: np.random.Generator, persona: Persona | None, own_prior: float) -> Style:
    """s ~ pi(s | persona); uniform without a persona."""
    if persona is None:
        return STYLES[rng.integers(len(STYLES))]
    own = [style.name == persona.category for style in STYLES]
    prior = np.where(own, own_prior, (1 - own_prior) / (len(STYLES) - 1))
    return STYLES[rng.choice(len(STYLES), p=prior)]


PERSONAS = tuple(
    Persona(name, name, f"you are a {name} .", style.name, split)
    for style in STYLES
    for name, split in ((style.name, "train"), (style.heldout_persona, "heldout"))
)
ROLE_PLAY = tuple(
    Problem(f"about-{topic}", f"tell me about the {topic} .", "", "latent_style", {"topic": topic})
    for topic in TOPICS
)
