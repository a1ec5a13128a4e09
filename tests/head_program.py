"""The gradient of a small decoder's SFT, compiled, and what it sends of its head's gradient."""

import json
import re
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
from hlo import collectives, in_loops
from jax.sharding import Mesh

from permix_jax.models.config import ModelConfig
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import RowShape
from permix_jax.models.params import abstract_params, param_shardings
from permix_jax.models.transformer import Decoder
from permix_jax.planning.compiled import abstract_rows
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.supervised import SftTokens

MESHES = {"fsdp=4": (1, 4, 1), "fsdp=2, tensor=2": (1, 2, 2), "tensor=4": (1, 1, 4)}
# No other parameter is near as large as the head.
VOCABULARY, WIDTH = 1024, 64


def counts(mesh: Mesh, tie_embeddings: bool) -> dict[str, int]:
    """How many reductions of an array as large as the head's gradient are in the program.

    `head`: in loops, of the head. `lookup`: in loops, of the embedding that is looked up.
    `after`: outside of loops. Three micro-batches have two chunks each.
    """
    sizes = {"embed_dim": WIDTH, "mlp_dim": 64, "num_layers": 1, "head_dim": 16}
    heads = {"num_heads": 4, "num_kv_heads": 4, "tie_embeddings": tie_embeddings}
    model = Decoder(ModelConfig(vocab_size=VOCABULARY, dtype="bfloat16", **sizes, **heads))
    scoring, shards = Scoring(1.0, 32), mesh.shape["data"] * mesh.shape["fsdp"]
    with jax.set_mesh(mesh):
        rows = abstract_rows(RowShape(parts=3, rows=shards, width=64, block=32, reads=2), mesh)
        tokens = SftTokens(rows.targets.update(dtype=jnp.float32))
        gradients = jax.jit(
            partial(packed_gradients, model, cross_entropy, scoring),
            out_shardings=(param_shardings(model, mesh), None),
        )
        compiled = gradients.lower(abstract_params(model, mesh), rows, tokens).compile()
    text = compiled.as_text()
    inside = in_loops(text)
    looked_up = [line for line in inside if "embedding" in line]
    in_all, lookup = _reductions(inside, mesh), _reductions(looked_up, mesh)
    after = _reductions(text.splitlines(), mesh) - in_all
    return {"head": in_all - lookup, "lookup": lookup, "after": after}


def _reductions(lines: list[str], mesh: Mesh) -> int:
    """Arrays in all-reduces and reduce-scatters that are large as the head is on a device."""
    least = VOCABULARY * WIDTH // mesh.size
    return sum(
        prod(int(size) for size in dims.split(",") if size) >= least
        for one in collectives(lines)
        if one.kind in ("all-reduce", "reduce-scatter")
        for dims in re.findall(r"\w\[([\d,]*)\]", one.line.partition(f" {one.kind}")[0])
    )


def print_for_tpu() -> None:
    """Prints {mesh: counts, untied and tied} as JSON, of programs compiled for four TPU chips.

    The chips need not be there. Call `compile_for_tpu` before this module is imported.
    """
    from permix_jax.planning.chips import topology_mesh

    jax.config.update("jax_enable_compilation_cache", False)
    found = {
        name: [counts(topology_mesh("v5e:2x2", *shape), tied) for tied in (False, True)]
        for name, shape in MESHES.items()
    }
    print(json.dumps(found))
