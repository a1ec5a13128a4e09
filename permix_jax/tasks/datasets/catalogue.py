"""The data sets by name: their files, and the function that reads a row of them."""

from dataclasses import dataclass

from permix_jax.tasks.datasets import rows, sources


@dataclass(frozen=True)
class DataSet:
    """`split` is what its publisher made it for; `reader` reads a row of any of its `files`."""

    description: str
    split: str
    files: tuple[sources.SourceFile, ...]
    reader: rows.Reader
    homepage: str
    license: str


_GSM8K = ("https://github.com/openai/grade-school-math", "MIT")
_MATH = ("https://github.com/hendrycks/math", "MIT")
_MATH500 = ("https://github.com/openai/prm800k", "MIT")
_QWEN_MATH = "https://github.com/QwenLM/Qwen2.5-Math"

DATASETS: dict[str, DataSet] = {
    "gsm8k": DataSet("GSM8K, the training problems", "train",
        (sources.GSM8K_TRAIN,), rows.gsm8k, *_GSM8K),
    "gsm8k_test": DataSet("GSM8K, the test problems", "test",
        (sources.GSM8K_TEST,), rows.gsm8k, *_GSM8K),
    "math": DataSet("MATH, the training problems", "train",
        (sources.MATH_TRAIN,), rows.math_problem, *_MATH),
    "math12k": DataSet("MATH, its training problems and its test problems that are not in MATH500",
        "train", (sources.MATH_TRAIN, sources.MATH_TEST_MINUS_MATH500), rows.math_problem, *_MATH),
    "math500": DataSet("MATH500, 500 test problems of MATH", "test",
        (sources.MATH500,), rows.math_problem, *_MATH500),
    "aime24": DataSet("AIME 2024, both parts", "test",
        (sources.AIME24,), rows.aime, _QWEN_MATH, "MIT; the problems are the MAA's"),
    "mawps": DataSet("MAWPS, elementary word problems", "train",
        (sources.MAWPS,), rows.mawps, _QWEN_MATH, "MIT"),
    "svamp": DataSet("SVAMP, elementary word problems in varied wording", "test",
        (sources.SVAMP,), rows.svamp, _QWEN_MATH, "MIT"),
}  # fmt: skip
