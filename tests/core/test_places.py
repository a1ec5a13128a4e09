"""A place of an object store is used as a folder is; what is appended is joined when it is read."""

import fsspec
import pytest

from permix_jax.core import parts, places
from permix_jax.core.files import append, copy_file, read_json, write_json, write_rows
from permix_jax.core.places import Address, from_relative, place_of, relative_name


@pytest.fixture
def folder(request):
    """A new folder of fsspec's store in memory."""
    address = place_of(f"memory://{request.node.name}/run")
    yield address
    address.remove()


@pytest.fixture
def small_parts(monkeypatch):
    for module in (parts, places):
        monkeypatch.setattr(module, "PART_BYTES", 10)


def test_only_what_has_a_scheme_is_an_address(tmp_path):
    assert place_of("runs/x").parts == ("runs", "x")
    assert place_of(f"file://{tmp_path}") == tmp_path
    address = place_of("s3://bucket/runs/x")
    assert isinstance(address, Address) and place_of(address) is address
    assert str(address / "eval" / "0") == "s3://bucket/runs/x/eval/0"
    assert str(address.with_name("y")) == "s3://bucket/runs/y"
    assert [str(above) for above in address.parents] == ["s3://bucket/runs", "s3://bucket"]
    with pytest.raises(ValueError, match="s3://: name a bucket and a folder in it"):
        place_of("s3://")


def test_a_local_command_refuses_an_address():
    with pytest.raises(ValueError, match="--out is s3://b/x; name a folder of this machine"):
        places.require_local(place_of("s3://b/x"), "--out")
    with pytest.raises(TypeError):
        open(place_of("s3://b/x"))


@pytest.mark.parametrize(
    ("target", "start", "name"),
    [
        ("s3://b/run", "s3://b/run/eval/0", "../.."),
        ("s3://b/run", "/tmp/out", "s3://b/run"),
        ("/tmp/run", "/tmp/out", "../run"),
        ("/tmp/run", "s3://b/out", "/tmp/run"),
    ],
)
def test_a_place_is_found_again_by_its_name_from_another(target, start, name):
    target, start = place_of(target), place_of(start)
    assert relative_name(target, start) == name
    if isinstance(target, Address) or not isinstance(start, Address):
        assert from_relative(start, name) == target


def test_files_of_a_store_are_read_as_they_were_written(folder, tmp_path):
    write_json(folder / "config.json", {"a": 1})
    assert read_json(folder / "config.json", "") == {"a": 1}
    assert (folder / "config.json").is_file() and folder.is_dir() and not folder.is_file()
    with pytest.raises(FileNotFoundError, match="no such file; name it"):
        read_json(folder / "other.json", "name it")
    copy_file(folder / "config.json", tmp_path / "local.json")
    copy_file(tmp_path / "local.json", folder / "eval" / "0" / "back.json")
    assert [str(path) for path in folder.glob("eval/*/*.json")] == [f"{folder}/eval/0/back.json"]
    assert folder.files() == {"config.json": 12, "eval/0/back.json": 12}
    (folder / "config.json").unlink()
    (folder / "config.json").unlink(missing_ok=True)
    assert not (folder / "config.json").exists() and not (folder / "none").glob("*")


def test_one_of_several_creates_a_file(folder):
    assert [(folder / "x").create(b"1"), (folder / "x").create(b"2")] == [True, False]
    assert (folder / "x").read_bytes() == b"1"


def test_what_is_appended_is_joined_and_goes_on(folder, small_parts):
    path = folder / "rows.jsonl"
    for line in (b"one\n", b"two\n", b"three\n", b"four\n", b"five\n"):
        file = path.open("ab", buffering=0)
        append(file, line)
        file.close()
    assert path.read_bytes() == b"one\ntwo\nthree\nfour\nfive\n"
    assert max(folder.files().values()) <= 19 and len(folder.files()) > 1


@pytest.mark.parametrize("size", [0, 4, 14, 15, 24])
def test_a_file_that_is_cut_goes_on_from_there(folder, small_parts, size):
    """Also at the end of a part (14), where the next one still fits."""
    path, content = folder / "rows.jsonl", b"one\ntwo\nthree\nfour\nfive\n"
    with_parts = path.open("ab")
    for line in content.splitlines(keepends=True):
        append(with_parts, line)
    file = path.open("ab")
    file.truncate(size)
    assert path.is_file() and path.read_bytes() == content[:size]
    append(file, b"next\n")
    assert path.read_bytes() == content[:size] + b"next\n"


def test_rows_that_are_written_anew_replace_all_parts(folder, small_parts):
    path = folder / "rows.jsonl"
    file = path.open("ab")
    for number in range(5):
        append(file, b'{"step": %d}\n' % number)
    write_rows(path, [{"step": 0}])
    assert path.read_bytes() == b'{"step": 0}\n'
    assert folder.files() == {"rows.jsonl": 12}


def test_rows_reach_the_store_after_some_seconds_or_when_they_must(folder, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(parts.time, "monotonic", lambda: clock[0])
    path = folder / "rows.jsonl"
    file = path.open("ab")
    append(file, b"one\n", sync=False)
    assert not path.exists()
    clock[0] += parts.FLUSH_SECONDS + 1
    append(file, b"two\n", sync=False)
    append(file, b"three\n", sync=False)
    assert path.read_bytes() == b"one\ntwo\n"
    file.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_what_needs_a_local_folder_is_written_to_one_and_copied(folder, tmp_path):
    with places.staged(folder) as local:
        (local / "plugins").mkdir()
        (local / "plugins/trace").write_bytes(b"trace")
    assert folder.files() == {"plugins/trace": 5}
    with places.staged(tmp_path) as local:
        assert local == tmp_path


def test_a_store_whose_package_is_missing_names_the_extra(monkeypatch):
    def missing(scheme, **_):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ImportError, match=r"Install s3fs .*; pip install 'permix_jax\[s3\]'"):
        places.store_of.__wrapped__("s3")
