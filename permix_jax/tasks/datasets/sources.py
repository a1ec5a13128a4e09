"""The files of each data set: their URLs, each at a fixed commit, and checksums of their content.

MATH has one file for each problem, in an archive of a whole repository; `math_archive.py` joins
them.
"""

from dataclasses import dataclass
from pathlib import Path

_RAW = "https://raw.githubusercontent.com"
_GSM8K = (
    f"{_RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data"
)
_QWEN = f"{_RAW}/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data"
_SIMPLERL = (
    f"{_RAW}/hkust-nlp/simpleRL-reason/cf1c7858bfc145a27aa733e75d930d34f0d318a6"
    "/examples/simplelr_math_eval/data"
)
MATH_ARCHIVE = (
    "https://codeload.github.com/aiwaves-cn/agents/tar.gz/e8c4e3c2d19739d3dff59e577d1c97090cc15f59"
)


@dataclass(frozen=True)
class SourceFile:
    """A JSONL file: `path` in a local folder, else at `url`; `sha256` and `size` of its content.

    `archived` is a split of MATH: the file has its problems from the archive at `url`, except those
    that the file `without` has.
    """

    path: str
    url: str
    sha256: str
    size: int
    archived: str = ""
    without: "SourceFile | None" = None


GSM8K_TRAIN = SourceFile("gsm8k/train.jsonl", f"{_GSM8K}/train.jsonl",
    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465", 4_166_206)  # fmt: skip
GSM8K_TEST = SourceFile("gsm8k/test.jsonl", f"{_GSM8K}/test.jsonl",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14", 749_738)  # fmt: skip
MATH_TRAIN = SourceFile("math/train.jsonl", MATH_ARCHIVE,
    "ce4cf15fa0398cd4650bc1d92bd6f3bc0eb16d441b499a1cf35b78129789897f", 7_003_548,
    archived="train")  # fmt: skip
MATH500 = SourceFile("math/math500_test.jsonl", f"{_SIMPLERL}/math500/test.jsonl",
    "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132", 446_564)  # fmt: skip
MATH_TEST_MINUS_MATH500 = SourceFile("math/test_minus_math500.jsonl", MATH_ARCHIVE,
    "1918db1a9186f8d71d5e721a84a016fadb87d69c91b7639d4c1f37c301eb6caf", 3_952_825,
    archived="test", without=MATH500)  # fmt: skip
AIME24 = SourceFile("aime24/test.jsonl", f"{_QWEN}/aime24/test.jsonl",
    "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac", 156_944)  # fmt: skip
MAWPS = SourceFile("mawps/mawps.jsonl", f"{_QWEN}/mawps/test.jsonl",
    "00ffe31161be8623a3d36741830edbba87a3aee0109f693810fe40b9d5d91b8b", 402_636)  # fmt: skip
SVAMP = SourceFile("svamp/svamp.jsonl", f"{_QWEN}/svamp/test.jsonl",
    "d0826ff1264f3860e46fc4e71db9e31d2d188960db87090e22677f9493e67a0d", 280_029)  # fmt: skip


def local_path(folder: str | Path, file: SourceFile, name: str) -> Path:
    """The path of the file in `folder`, plain or gzipped.

    Raises FileNotFoundError that names the data set `name` and the missing file.
    """
    for suffix in ("", ".gz"):
        path = Path(folder).expanduser() / f"{file.path}{suffix}"
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"data.folder is {str(folder)!r}, which has neither {file.path} nor {file.path}.gz for "
        f"{name}; put it there, or leave data.folder empty to download it"
    )
