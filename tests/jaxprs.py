"""What a traced function computes, for tests of what it must never materialise."""

from math import prod

import jax


def array_shapes(function, *args) -> set[tuple[int, ...]]:
    """The shapes of all arrays in the jaxpr of function(*args), inner jaxprs included."""
    return shapes_in(jax.make_jaxpr(function)(*args).jaxpr)


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
    """The shapes of all arrays in a jaxpr, as `array_shapes`."""
    return set(_shapes(jaxpr))


def product_shapes(function, *args) -> set[tuple[int, ...]]:
    """The shapes of what all matmuls in the jaxpr of function(*args) give, as `array_shapes`."""
    equations = _equations(jax.make_jaxpr(function)(*args).jaxpr)
    return {eqn.outvars[0].aval.shape for eqn in equations if eqn.primitive.name == "dot_general"}


def sums(function, *args) -> list[tuple[str, tuple[int, ...], str]]:
    """All sums in the jaxpr of function(*args): (primitive, axis sizes, dtype of the result).

    The sizes are of the axes that a product or reduction sums over; none for a scatter, which adds
    up whatever has one index. Reductions of one term are left out.
    """
    found = []
    for eqn in _equations(jax.make_jaxpr(function)(*args).jaxpr):
        name = eqn.primitive.name
        if name not in ("dot_general", "reduce_sum", "cumsum", "scatter-add"):
            continue
        axes = ()
        if name == "dot_general":
            axes = eqn.params["dimension_numbers"][0][0]
        elif name == "reduce_sum":
            axes = eqn.params["axes"]
        sizes = tuple(eqn.invars[0].aval.shape[axis] for axis in axes)
        if name != "reduce_sum" or prod(sizes) > 1:
            found.append((name, sizes, eqn.outvars[0].aval.dtype.name))
    return found


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                yield from _equations(getattr(inner, "jaxpr", inner))


def _is_jaxpr(x) -> bool:
    return hasattr(x, "eqns")


def _shapes(jaxpr):
    variables = [*jaxpr.invars, *jaxpr.constvars]
    for eqn in _equations(jaxpr):
        variables += [*eqn.invars, *eqn.outvars]
    return [tuple(v.aval.shape) for v in variables if hasattr(v.aval, "shape")]
