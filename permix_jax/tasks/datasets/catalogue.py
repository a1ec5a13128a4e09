"""The data sets by name: their files, and the function that reads a row of them.

A file has a URL at a fixed commit, and a checksum of its content. MATH has one file for each
problem, in an archive of a whole repository; `builders.py` joins them.
"""

from dataclasses import dataclass
from pathlib import Path

from permix_jax.tasks.datasets import rows

_RAW = "https://raw.githubusercontent.com"
_GSM8K_DATA = (f"{_RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
               "/grade_school_math/data")  # fmt: skip
_QWEN = f"{_RAW}/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data"
_SIMPLERL = (f"{_RAW}/hkust-nlp/simpleRL-reason/cf1c7858bfc145a27aa733e75d930d34f0d318a6"
             "/examples/simplelr_math_eval/data")  # fmt: skip
_AGENTS = ("https://codeload.github.com/aiwaves-cn/agents/tar.gz/"
           "e8c4e3c2d19739d3dff59e577d1c97090cc15f59")  # fmt: skip


@dataclass(frozen=True)
class SourceFile:
    """A JSONL file, with the sha256 and the size in bytes of its content."""

    path: str  # in a local folder
    url: str
    sha256: str
    size: int
    archived: str = ""  # the split of MATH that this is, joined from the archive at `url`,
    without: "SourceFile | None" = None  # except the problems of this file


@dataclass(frozen=True)
class DataSet:
    """`split` is what its publisher made it for; `reader` reads a row of any of its `files`."""

    description: str
    split: str
    files: tuple[SourceFile, ...]
    reader: rows.Reader
    homepage: str
    license: str


GSM8K_TRAIN = SourceFile("gsm8k/train.jsonl", f"{_GSM8K_DATA}/train.jsonl",
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465", 4_166_206)  # fmt: skip
GSM8K_TEST = SourceFile("gsm8k/test.jsonl", f"{_GSM8K_DATA}/test.jsonl",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14", 749_738)  # fmt: skip
MATH_TRAIN = SourceFile("math/train.jsonl", _AGENTS,
    "ce4cf15fa0398cd4650bc1d92bd6f3bc0eb16d441b499a1cf35b78129789897f", 7_003_548,
    "train")  # fmt: skip
MATH500 = SourceFile("math/math500_test.jsonl", f"{_SIMPLERL}/math500/test.jsonl",
    "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132", 446_564)  # fmt: skip
MATH_TEST_MINUS_MATH500 = SourceFile("math/test_minus_math500.jsonl", _AGENTS,
    "1918db1a9186f8d71d5e721a84a016fadb87d69c91b7639d4c1f37c301eb6caf", 3_952_825,
    "test", without=MATH500)  # fmt: skip
AIME24 = SourceFile("aime24/test.jsonl", f"{_QWEN}/aime24/test.jsonl",
    "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac", 156_944)  # fmt: skip
MAWPS = SourceFile("mawps/mawps.jsonl", f"{_QWEN}/mawps/test.jsonl",
    "00ffe31161be8623a3d36741830edbba87a3aee0109f693810fe40b9d5d91b8b", 402_636)  # fmt: skip
SVAMP = SourceFile("svamp/svamp.jsonl", f"{_QWEN}/svamp/test.jsonl",
    "d0826ff1264f3860e46fc4e71db9e31d2d188960db87090e22677f9493e67a0d", 280_029)  # fmt: skip

_GSM8K = ("https://github.com/openai/grade-school-math", "MIT")
_MATH = ("https://github.com/hendrycks/math", "MIT")
_MATH500 = ("https://github.com/openai/prm800k", "MIT")
_QWEN_MATH = "https://github.com/QwenLM/Qwen2.5-Math"

DATASETS: dict[str, DataSet] = {
    "gsm8k": DataSet("GSM8K, the training problems", "train",
        (GSM8K_TRAIN,), rows.gsm8k, *_GSM8K),
    "gsm8k_test": DataSet("GSM8K, the test problems", "test",
        (GSM8K_TEST,), rows.gsm8k, *_GSM8K),
    "math": DataSet("MATH, the training problems", "train",
        (MATH_TRAIN,), rows.math_problem, *_MATH),
    "math12k": DataSet("MATH, its training problems and its test problems that are not in MATH500",
        "train", (MATH_TRAIN, MATH_TEST_MINUS_MATH500), rows.math_problem, *_MATH),
    "math500": DataSet("MATH500, 500 test problems of MATH", "test",
        (MATH500,), rows.math_problem, *_MATH500),
    "aime24": DataSet("AIME 2024, both parts", "test",
        (AIME24,), rows.aime, _QWEN_MATH, "MIT; the problems are the MAA's"),
    "mawps": DataSet("MAWPS, elementary word problems", "train",
        (MAWPS,), rows.mawps, _QWEN_MATH, "MIT"),
    "svamp": DataSet("SVAMP, elementary word problems in varied wording", "test",
        (SVAMP,), rows.svamp, _QWEN_MATH, "MIT"),
}  # fmt: skip


def local_path(folder: str | Path, file: SourceFile, name: str) -> Path:
    """The file's path in `folder`, plain or gzipped; FileNotFoundError names the set `name`."""
    for suffix in ("", ".gz"):
        path = Path(folder).expanduser() / f"{file.path}{suffix}"
        if path.is_file():
            return path
    lacks = f"data.folder is {str(folder)!r}, which has neither {file.path} nor {file.path}.gz"
    remedy = "put it there, or leave data.folder empty to download it"
    raise FileNotFoundError(f"{lacks} for {name}; {remedy}")
