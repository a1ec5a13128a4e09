"""What benchmarks/run.py has every implementation do."""

import math
import random
from dataclasses import asdict, dataclass
from statistics import NormalDist

from permix_jax.formats.published import CONFIGS

SMOLLM2 = CONFIGS["HuggingFaceTB/SmolLM2-135M-Instruct"]
TINY = {
    **SMOLLM2,
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@dataclass(frozen=True)
class Setting:
    """A GRPO step: `prompts` prompts, `samples` completions of each.

    shape: config.json of a Llama model, whose weights are random.
    prompt_tokens: of every prompt. limit: the longest completion, in tokens.
    median: of the completions' lengths, see `lengths`; 0: all of them run to the limit.
    personas: whether the first quarter of a prompt is a persona's.
    """

    shape: dict
    prompts: int
    samples: int
    prompt_tokens: int
    limit: int
    median: int = 0
    personas: bool = False

    def describe(self) -> str:
        ends = f"half of them end within {self.median}" if self.median else "none ends early"
        kind = "persona prompts" if self.personas else "prompts"
        return (
            f"{self.prompts} {kind} of {self.prompt_tokens} tokens, {self.samples} completions of "
            f"each, of at most {self.limit} tokens: {ends}"
        )

    def work(self) -> dict:
        """The same as JSON, with the prompts' texts and the lengths of all completions."""
        rng, vocabulary = random.Random(0), self.shape["vocab_size"]
        words = lambda: (f"w{rng.randrange(2, vocabulary)}" for _ in range(self.prompt_tokens))  # noqa: E731
        rows = self.prompts * self.samples
        return {
            **asdict(self),
            "prompts": [" ".join(words()) for _ in range(self.prompts)],
            "lengths": lengths(rows, self.limit, self.median),
        }


def lengths(rows: int, limit: int, median: int, sigma: float = 0.75) -> list[int]:
    """Tokens of each completion, end token included; one of `limit` tokens has none, it is cut off.

    The quantiles (i + 1/2) / rows of a log-normal distribution, in a fixed random order: with
    sigma 0.75, a median of 40 and a limit of 128, 6 % are cut off and the mean is 50. They are 2 at
    least. `median` 0: all are cut off.
    """
    if not median:
        return [limit] * rows
    normal = NormalDist(math.log(median), sigma)
    drawn = [round(math.exp(normal.inv_cdf((i + 0.5) / rows))) for i in range(rows)]
    random.Random(0).shuffle(drawn)
    return [min(max(n, 2), limit) for n in drawn]


def median_of(limit: int, share: float, sigma: float = 0.75) -> int:
    """The median with which `share` of the lengths run to the limit."""
    return round(limit * math.exp(sigma * NormalDist().inv_cdf(share)))


SETTINGS = {
    "first": Setting(SMOLLM2, 8, 8, 128, 128),
    "second": Setting(SMOLLM2, 4, 8, 256, 128, median=40, personas=True),
}
TINY_SETTINGS = {
    "first": Setting(TINY, 2, 2, 16, 8),
    "second": Setting(TINY, 2, 2, 32, 8, median=3, personas=True),
}
