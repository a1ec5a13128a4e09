"""A search: what it tries, in which order, what it compiles once, and what it says of no solution.

The compiler is a stand-in here, which knows the seconds and the bytes of each mesh.
"""

import jax
import pytest
from runs import load_config

from permix_jax.core.tpus import GIB, Chip
from permix_jax.planning import search as searching
from permix_jax.planning.compiled import Compiled, step_programs
from permix_jax.planning.prediction import CYCLES, Cost
from permix_jax.planning.search import FIELDS, NothingFits, meshes, search, search_slices
from permix_jax.planning.search_report import changed_by, search_report, slices_table

CHIP = Chip(1.0 * GIB, flops=1e9, hbm_bandwidth=1e9, ici_bandwidth=1e9, links=4, clock=1e9)
# Seconds of a program by its mesh; that of one needs more than the chip has.
SECONDS = {(1, 1, 2): 3.0, (1, 2, 1): 2.0, (2, 1, 1): 1.0}
TOO_LARGE = (2, 1, 1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def config():
    return load_config("permix.py", "tiny", mesh__tensor=2)


@pytest.fixture
def compiled(monkeypatch):
    """The programs that the stand-in compiled, as (name, mesh)."""
    done = []

    def compile_programs(programs, topology, cache):
        mesh = tuple(jax.sharding.get_abstract_mesh().shape.values())
        done.extend((name, mesh) for name in programs)
        costs = (Cost("layers", CYCLES, SECONDS[mesh], 0.0),)
        size = 2 * GIB if mesh == TOO_LARGE else 1000
        return {name: Compiled(2000, size, size, 10.0, 10.0, costs) for name in programs}

    monkeypatch.setattr(searching, "compile_programs", compile_programs)
    monkeypatch.setattr(searching, "chip_of", lambda topology: CHIP)
    monkeypatch.setattr(searching, "topology_devices", _devices)
    return done


def _devices(topology: str):
    rows, columns = topology.partition(":")[2].split("x")
    return jax.devices()[: int(rows) * int(columns)]


def test_meshes_are_all_ways_to_cut_the_chips():
    assert {*meshes(4)} == {(4, 1, 1), (1, 4, 1), (1, 1, 4), (2, 2, 1), (2, 1, 2), (1, 2, 2)}
    assert {*meshes(3)} == {(3, 1, 1), (1, 3, 1), (1, 1, 3)}


def test_the_fastest_that_fits_is_found_and_is_compiled_once(config, cache, compiled):
    found = search(config, "v5e:1x2", cache, 3)
    best = found.best()
    assert best.mesh() == (1, 2, 1) and best.plan.predicted() == 3 * 2.0
    # The config's own comes first, whatever its bound. What does not fit comes last, and a program
    # that does not fit is compiled again only if it is made smaller.
    assert compiled[0] == ("rollout", (1, 1, 2))
    assert [x.plan.fits() for x in found.compiled] == [
        x.mesh() != TOO_LARGE for x in found.compiled
    ]
    large = [x.fields for x in found.compiled if x.mesh() == TOO_LARGE]
    assert found.compiled[-1].fields in large
    assert len({x["rollout.micro_batches"] for x in large}) == len(large)
    report = search_report(found, config)
    assert "--config.mesh.fsdp=2" in report and "--config.mesh.tensor=1" in report
    assert "1.50 times as fast as the config (9 s)" in report
    assert {"mesh.fsdp", "mesh.tensor"} <= {*changed_by(best, config)} <= {*FIELDS}

    before = len(compiled)
    again = search(config, "v5e:1x2", cache, 3)
    assert len(compiled) == before and search_report(again, config) == report


def test_flops_of_another_mesh_and_batch_follow_from_the_one_that_is_traced(
    config, cache, compiled
):
    judge = searching._Judge(config, "v5e:1x2", cache)
    judge.traced()
    own = {field: judge.reference.get(field) for field in FIELDS[:3]}
    other = {"mesh.data": 2, "mesh.fsdp": 1, "mesh.tensor": 1}
    assert own != other
    changed = other | {"train.micro_batch_tokens": 64, "rollout.micro_batches": 2}
    config = judge._with(changed)
    mesh = judge._mesh(config)
    with jax.set_mesh(mesh):
        _, programs = step_programs(config, judge.model, mesh)
        for name in programs:
            assert judge._flops(name, config) == programs[name].flops()


def test_a_search_without_a_solution_says_what_is_nearest(config, cache, compiled, monkeypatch):
    monkeypatch.setattr(searching, "chip_of", lambda topology: CHIP._replace(hbm=1000.0))
    nearest = (
        r"nearest is --config\.mesh\.data=\d .*, whose \w+ needs 0\.00 GiB a chip more than 0\.00, "
        "as estimated; take more chips"
    )
    with pytest.raises(NothingFits, match=nearest):
        search(config, "v5e:1x2", cache)
    odd = "v5e:1x3 has 3 chips, and no mesh of 3 suits the run: mesh.tensor is 3"
    with pytest.raises(NothingFits, match=odd):
        search(config, "v5e:1x3", cache)
    assert not compiled


def test_slices_are_compared_by_chip_seconds(config, cache, compiled):
    found, refused = search_slices(config, ["v5e:1x2", "v5e:1x3"], cache, 3)
    lines = slices_table(found, refused).splitlines()
    assert lines[-1] == refused["v5e:1x3"]
    assert any(line.split()[:4] == ["v5e:1x2", "2", "6", "12"] for line in lines)
