"""Every method by one name, as a Balancer: our rules, the published ones, peers and controls.

>>> import torch
>>> from gaba import methods
>>> trunk = torch.nn.Linear(3, 4)
>>> balancer = methods.make("equal-share", ["rul", "health"], trunk)
>>> balancer.weighting
EqualShare(iterations=30)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gaba
from gaba.methods._own import CONTROLS, OWN, settled_weights
from gaba.methods._peers import PEERS
from gaba.methods._published import PUBLISHED
from gaba.methods._relatives import RELATIVES
from gaba.methods._table import Method

__all__ = ["METHODS", "Method", "find", "make", "settled_weights"]

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (*OWN, *CONTROLS, *PUBLISHED, *RELATIVES, *PEERS)}
)
"""All methods by name."""


def find(name: str) -> tuple[Method, str | None]:
    """The method that ``name`` means, and its argument, as ``.05,.95`` in ``fixed:.05,.95``.

    Raises:
        ValueError: there is no such method, or an argument is missing or one too many.

    Example:
        >>> method, argument = find("single:rul")
        >>> method.formula, argument
        ('λ_TASK = 1, all others 0', 'rul')
    """
    word, colon, argument = name.partition(":")
    if word not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; found {name!r}")
    method = METHODS[word]
    if bool(method.argument) != bool(colon):
        form = f"{word}:ARGUMENT with {method.argument}" if method.argument else word
        raise ValueError(f"method {word!r} is written as {form}; found {name!r}")
    return method, argument if colon else None


def make(name: str, tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
    """The Balancer of the method called ``name``.

    Args:
        name: a key of :data:`METHODS`, with an argument where it needs one: ``"fixed:.05,.95"``.
        tasks: the names of the K losses.
        shared: what they share, as :class:`gaba.Balancer` takes it.
        **settings: settings of the method, and settings of the Balancer, which go before those that
            the method chooses: ``measurement="sketch"``, ``every=10``, ``scale="mean"``.

    Raises:
        ValueError: there is no such method, or a setting breaks its rule.
        ImportError: the method comes from TorchJD, which is not installed.

    Example:
        >>> import torch
        >>> balancer = make("fixed:1,3", ["a", "b"], torch.nn.Linear(2, 2))
        >>> balancer.weighting
        Fixed(weights=(0.25, 0.75))
    """
    method, argument = find(name)
    if argument is None:
        return method.make(tasks, shared, **settings)
    return method.make(tasks, shared, argument=argument, **settings)
