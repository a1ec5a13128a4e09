import pytest

from permix_jax.core.files import write_rows
from permix_jax.personagym.judges import Judge, LocalJudge, ModelJudge, check_judges, read_judges

MODEL = {"name": "m", "source": "org/model"}
ROW = {"name": "j", "base_url": "http://127.0.0.1:1/v1", "model": "m"}


def test_judges_are_read_with_their_defaults(tmp_path):
    second = ROW | {"name": "k", "temperature": None, "key_variable": "KEY", "timeout": 9}
    write_rows(tmp_path / "judges.jsonl", [ROW, second, MODEL])
    first, other, model = read_judges(tmp_path / "judges.jsonl")
    assert model == ModelJudge("m", "org/model")
    assert first == Judge("j", "http://127.0.0.1:1/v1", "m")
    assert (other.temperature, other.key_variable, other.timeout) == (None, "KEY", 9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW | {"key": "sk"}], "judges.jsonl:1: unknown field 'key'; use name, base_url"),
        ([{"name": "j"}], "judges.jsonl:1: there is no field 'base_url', only 'name'; add it"),
        ([ROW | {"base_url": "api.openai.com"}], "field 'base_url' is .*an http"),
        ([ROW | {"temperature": "0"}], "field 'temperature' is \"0\"; it must be 0 or more"),
        ([ROW | {"max_tokens": 0}], "field 'max_tokens' is 0; it must be a whole number from 1"),
        ([ROW | {"concurrency": True}], "field 'concurrency' is true"),
        ([ROW | {"timeout": 0}], "field 'timeout' is 0; it must be seconds above 0"),
        ([ROW | {"max_retries": -1}], "'max_retries' is -1; it must be a whole number from 0"),
        ([ROW | {"key_variable": None}], "field 'key_variable' is null"),
        ([MODEL | {"base_url": "http://x"}], "unknown field 'base_url'; use name, source, max_tok"),
        ([MODEL | {"source": ""}], "judges.jsonl:1: field 'source' is ''"),
        ([MODEL | {"dtype": "int8"}], "field 'dtype' is \"int8\"; it must be one of float32"),
        ([MODEL | {"batch_size": 0}], "field 'batch_size' is 0; it must be a whole number from 1"),
        ([MODEL | {"pad_token": None}], "field 'pad_token' is null; it must be a token"),
        ([ROW, ROW], "the name 'j' is there twice"),
    ],
)
def test_a_bad_judge_is_named(tmp_path, rows, message):
    write_rows(tmp_path / "judges.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        read_judges(tmp_path / "judges.jsonl")


def test_a_missing_file_and_no_judge_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="write one judge a line"):
        read_judges(tmp_path / "judges.jsonl")
    with pytest.raises(ValueError, match="judges is empty"):
        check_judges([])
    with pytest.raises(ValueError, match="'j' is there twice"):
        check_judges([Judge(**ROW), LocalJudge("j", "m", list)])
