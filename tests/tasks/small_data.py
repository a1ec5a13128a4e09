"""Small made-up rows of every data set, with the traps of the real ones."""

import gzip
import json
from pathlib import Path

GSM8K = [
    {"question": "One step?", "answer": "It is <<1+1=2>>1+1 = $2.\n#### 2"},
    {"question": "Two? ", "answer": "<<2*3=6>>2*3 = 6\n<<6*500=3000>>6*500 = 3,000\n#### 3,000"},
    {"question": "Three?", "answer": "<<1=1>>1\n<<2=2>>2\n<<3=3>>3\n#### 3"},
    {"question": "Algebra?", "answer": "Let x be 4.\n#### 4"},
]
MAWPS = [
    {"input": "How many are 40 and 3 ?", "target": 43.0, "type": "addsub"},
    {"input": "What is a third?", "target": 0.3333333333},
    {"input": "how many are 40 , and 3?", "target": 43.0},
    {"input": "Contradicted.", "target": 5.0},
    {"input": "Contradicted?", "target": 6.0},
    {"input": "He had 9. How many left?", "target": 1.84},
]
SVAMP = [
    {"Body": "He had 9. ", "Question": "How many left?", "Answer": 8.0, "Type": "Subtraction"},
    {"Body": "If she had 2", "Question": "how many now?", "Answer": 2.0},
    {"Body": "He has 3.", "Question": "Why?", "Answer": 3.0},
]


def math_row(split, number, problem, answer, level="Level 1", subject="Algebra"):
    return {
        "problem": problem, "level": level, "type": subject,
        "solution": rf"It is $\boxed{{{answer}}}$.", "answer": answer,
        "unique_id": f"{split}/algebra/{number}.json",
    }  # fmt: skip


def math500_row(number, problem, answer, level=1):
    row = math_row("test", number, problem, answer, level)
    row["subject"] = row.pop("type")
    return row


MATH = [
    math_row("train", 1, "Find $k$ if $k > 0$.", r"\frac12"),
    math_row("train", 2, "Find $k$ if $k < 0$.", "2", "Level ?"),
    math_row("train", 3, "Find $ k $ if $k>0.$", r"\frac{1}{2}"),
    math_row("train", 4, "Contradicted.", "5"),
    math_row("train", 5, "Contradicted", "6"),
    math_row("train", 6, "What is\n$2+3$?", "5", "Level 5", "Counting & Probability"),
]
MATH_TEST = [math_row("test", 7, "Two and three make?", "5", "Level 2")]
MATH500 = [math500_row(1, "What is $2 + 3$?", "5", 2), math500_row(2, "Why?", "7"),
           math500_row(3, "How many?", "8")]  # fmt: skip
AIME24 = [{"id": 60, "problem": "Find it.", "solution": "It is 25.", "answer": "025"}]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_files(root: Path) -> Path:
    """Every file in the layout of data.folder."""
    for name, content in {
        "gsm8k/train.jsonl.gz": gzip.compress(jsonl(GSM8K)),
        "gsm8k/test.jsonl": jsonl(GSM8K[:1]),
        "math/train.jsonl.gz": gzip.compress(jsonl(MATH)),
        "math/test_minus_math500.jsonl.gz": gzip.compress(jsonl(MATH_TEST)),
        "math/math500_test.jsonl": jsonl(MATH500),
        "aime24/test.jsonl": jsonl(AIME24),
        "mawps/mawps.jsonl": jsonl(MAWPS),
        "svamp/svamp.jsonl": jsonl(SVAMP),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root
