"""What a traced function computes, for tests of what it must never materialise."""

import jax


def array_shapes(function, *args) -> set[tuple[int, ...]]:
    """The shapes of all arrays in the jaxpr of function(*args), inner jaxprs included."""
    return set(_shapes(jax.make_jaxpr(function)(*args).jaxpr))


def primitives(function, *args) -> set[str]:
    """The names of all primitives in the jaxpr of function(*args), inner jaxprs included."""
    return {eqn.primitive.name for eqn in _equations(jax.make_jaxpr(function)(*args).jaxpr)}


def product_shapes(function, *args) -> set[tuple[int, ...]]:
    """The shapes of what all matmuls in the jaxpr of function(*args) give, as `array_shapes`."""
    equations = _equations(jax.make_jaxpr(function)(*args).jaxpr)
    return {eqn.outvars[0].aval.shape for eqn in equations if eqn.primitive.name == "dot_general"}


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
