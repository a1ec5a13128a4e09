"""The house is in order, and each fault of a made-up one is seen."""

import json
import subprocess
import sys

import house
import pytest

SOUND = {
    "ground/stone.py": "def lay(a, b, c, d, e, f, option=1, *rest, needed): ...\n",
    "attic/roof.py": "class Roof:\n    def __init__(self, a, b, c, d, e, f): ...\n",
    "attic/beam.py": "from made_up.ground import stone\nfrom . import roof\n",
}
UP = {"ground/stone.py": "def lift():\n    import made_up.attic.roof\n"}
CIRCLE = {"attic/roof.py": "from .beam import *\n"}
LOOSE = {"tent.py": ""}
TAKES = {"ground/stone.py": "def lay(a, b, c, d, e, f, g): ...\n"}


@pytest.fixture
def build(tmp_path):
    def build(files):
        for name, text in (SOUND | files).items():
            path = tmp_path / "made_up" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "made_up"

    return build


def test_the_package_is_in_order():
    figures = house.measure(house.PACKAGE)
    for fault in house.FAULTS:
        assert figures[fault] == [], fault
    assert figures["rooms"][0] == ["core"] and figures["arrows"] > 0


def test_a_sound_tree(build):
    assert house.measure(build({})) == {
        "rooms": [["ground"], ["attic"]],
        "modules": 3,
        "lines": 5,
        "arrows": 1,
        "circle of rooms": [],
        "circle of modules": [],
        "loose modules": [],
        "too many parameters": [],
        "names of several modules": [],
        "longest files": {"attic.roof": 2, "attic.beam": 2, "ground.stone": 1},
    }


@pytest.mark.parametrize(
    "files, fault, found",
    [
        (UP, "circle of rooms", ["attic -> ground", "ground -> attic"]),
        (CIRCLE, "circle of modules", ["attic.beam -> attic.roof", "attic.roof -> attic.beam"]),
        (LOOSE, "loose modules", ["tent"]),
        (TAKES, "too many parameters", ["ground.stone:lay takes 7"]),
    ],
)
def test_each_fault_is_seen(build, files, fault, found):
    figures = house.measure(build(files))
    assert figures[fault] == found
    assert not house.is_sound(figures)
    assert sum(bool(figures[other]) for other in house.FAULTS) == 1


def test_a_name_that_stands_twice_is_told_and_no_fault(build):
    figures = house.measure(build({"ground/roof.py": ""}))
    assert figures["names of several modules"] == ["roof"]
    assert house.is_sound(figures)


def test_the_command_fails_where_there_is_a_fault(build):
    for files, status in ({}, 0), (TAKES, 1):
        asked = [sys.executable, house.__file__, "--json", str(build(files))]
        done = subprocess.run(asked, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert len(json.loads(done.stdout)["too many parameters"]) == status
