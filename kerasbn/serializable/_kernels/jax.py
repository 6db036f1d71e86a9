"""Batch normalization with JAX: the gradient as derived, and replicas by the names of axes.

JAX would derive a gradient with one more pass over the values, and keep x - mean beside x for it. The gradient here
takes two passes, and has the compiler work x - mean out anew, which costs less than the memory for it. The price:
reverse mode alone, also of itself. `jax.jvp` of the layer in training is an error, `jax.hessian` is not.

Where an axis is bound, as in `shard_map`, `pmap` and `vmap` with a name, each replica sees its share of the batch.
Where none is, the batch is whole, also where the compiler shares it out over devices, as with `keras.distribution`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from jax import lax

from kerasbn.serializable._kernels import plain
from kerasbn.serializable._kernels.arrangement import Arranged, arrange
from kerasbn.serializable._kernels.plain import Normalized, Saved


def normalize(
    x: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    axis: int,
    mask: Any = None,
    group_size: int | None = None,
    synchronized: bool | str = False,
) -> Normalized:
    """Normalize each channel of each group of examples."""
    bound = _bound_axes()
    engine = _engine(bound, synchronized)
    batch = arrange(jnp.asarray(x), axis, mask=mask, group_size=group_size, merged=False)

    def forward(x: Any, gamma: Any, beta: Any, mask: Any) -> tuple[Any, Any]:
        given = dataclasses.replace(batch, x=x, mask=mask)
        results, saved = plain.forward(given, gamma, beta, epsilon, engine)
        return tuple(results), (x, mask, tuple(saved))

    def backward(residuals: Any, cotangents: Any) -> tuple[Any, ...]:
        x, mask, saved = residuals
        given = dataclasses.replace(batch, x=x, mask=mask)
        return *plain.backward(cotangents[0], given, Saved(*saved), engine), None

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def normalized(x: Any, gamma: Any, beta: Any, mask: Any) -> Any:
        return forward(x, gamma, beta, mask)[0]

    normalized.defvjp(forward, backward)
    given = (batch.x, jnp.asarray(gamma), jnp.asarray(beta))
    results = normalized(*(_alike(*given) if bound else given), batch.mask)
    return plain.restored(Normalized(*results), batch)


def _engine(bound: tuple[str, ...], synchronized: bool | str) -> plain.Engine:
    if not synchronized or not bound:
        return dataclasses.replace(plain.ALONE, afresh=_afresh)
    if len(bound) > 1 and synchronized is True:
        raise ValueError(
            f"A layer with synchronized=True cannot tell over which of the axes {bound} the batch is shared out: name "
            f"it, as in BatchNormalization(synchronized={bound[0]!r})."
        )
    name = bound[0] if synchronized is True else synchronized
    if name not in bound:
        raise ValueError(
            f"A layer with synchronized={name!r} is called where no axis of that name is bound, but {bound}: give it "
            f"the name of the axis that the batch is shared out over, as in "
            f"BatchNormalization(synchronized={bound[0]!r})."
        )
    total = plain.at_once(lambda vector: lax.psum(vector, name))
    return plain.Engine(lambda batch: plain.moments(batch, total), total, _afresh)


def _afresh(batch: Arranged, mean: Any) -> tuple[Arranged, Any]:
    x, mean = _barrier((batch.x, mean))
    return dataclasses.replace(batch, x=x), mean


@jax.custom_jvp  # type: ignore[untyped-decorator]
def _barrier(values: Any) -> Any:
    return lax.optimization_barrier(values)


@_barrier.defjvp  # type: ignore[untyped-decorator]
def _(primals: Any, tangents: Any) -> Any:
    """As of what does nothing; not all versions of JAX know that."""
    return _barrier(*primals), tangents[0]


def _bound_axes() -> tuple[str, ...]:
    core = jax.extend.core if hasattr(jax.extend.core, "unsafe_get_axis_names_DO_NOT_USE") else jax.core
    return tuple(core.unsafe_get_axis_names_DO_NOT_USE())


def _alike(*values: Any) -> tuple[Any, ...]:
    """Values that, to `shard_map`, differ between devices along the same axes, as a gradient of one's own has to.

    Nothing is added to them, but what came of them all.
    """
    nothing = sum(lax.stop_gradient(jnp.sum(jnp.ravel(each)[:0])) for each in values)
    return tuple(each + nothing.astype(each.dtype) for each in values)
