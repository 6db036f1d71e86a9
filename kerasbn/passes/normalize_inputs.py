"""Normalize the model's inputs, in the place of standardising the data beforehand."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator
from typing import Any

import keras

from kerasbn.catalog.roles import NORMALIZING, role_of
from kerasbn.graph.edit import InsertBehindInput
from kerasbn.graph.model import Graph, Value, core_of
from kerasbn.layers import BatchNormalization
from kerasbn.options import Options
from kerasbn.passes.naming import Names
from kerasbn.passes.proposal import Edit, Proposals, Reason, Skip
from kerasbn.passes.prototype import Prototype

_EPSILON = 1e-8
"""Inputs come in units of all sizes; the usual 1e-3 would swallow those with a deviation below 0.03."""


def normalize_inputs(graph: Graph, names: Names, options: Options) -> Proposals:
    """Propose a normalization right behind each input of numbers."""
    return Proposals.of(_outcomes(graph, names, options)) if options.normalize_inputs else Proposals()


def _outcomes(graph: Graph, names: Names, options: Options) -> Iterator[Edit | Skip]:
    fresh = options.data is None
    own = BatchNormalization(epsilon=_EPSILON, zero_debias=fresh) if options.norm is None else options.norm
    prototype = Prototype.asked_for(dataclasses.replace(options, norm=own))
    for value in keras.tree.flatten(graph.inputs):
        address = value.spec.name
        refusal = _refusal(graph, value, options)
        if refusal is not None:
            yield Skip(address, *refusal)
            continue
        spec = prototype.named(names.fresh(f"{address}_bn", beside=address), _channel_axis(graph, value))
        detail = f"{spec.name!r} ({spec.cls.__name__}) behind the input"
        yield Edit(address, "insert", detail, (InsertBehindInput(address, spec),))


def _refusal(graph: Graph, value: Value, options: Options) -> tuple[Reason, str] | None:
    name, spec = value.spec.name, value.spec
    rule = next((position for glob, position in options.rules if fnmatch.fnmatchcase(name, glob)), None)
    users = graph.flat().consumers[value]
    if rule in ("skip", "none"):
        return Reason.RULE, f'a rule says "{rule}"'
    if not keras.backend.is_float_dtype(spec.dtype) or spec.sparse or spec.ragged:
        return Reason.NOT_NUMERIC, "holds no dense floating point numbers"
    if len(spec.shape) < 2 or spec.shape[_channel_axis(graph, value)] is None:
        return Reason.CHANNEL_AXIS, "its last axis has no fixed size"
    if users and all(_normalizes(user.operation) for user in users):
        return Reason.NORMALIZED, "normalized already"
    return None


def _normalizes(operation: Any) -> bool:
    return role_of(operation) in NORMALIZING or isinstance(operation, keras.layers.Normalization)


def _channel_axis(graph: Graph, value: Value) -> int:
    """1 where a layer takes the value with the channels first, else -1."""
    users = (core_of(user.operation) for user in graph.flat().consumers[value])
    return 1 if any(getattr(user, "data_format", None) == "channels_first" for user in users) else -1
