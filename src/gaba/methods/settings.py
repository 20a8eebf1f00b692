"""Settings by name: one that nobody knows is refused, with what was probably meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import ParamSpec, TypeVar

from gaba.methods.method import Method
from gaba.spelling import did_you_mean, letters

P = ParamSpec("P")
R = TypeVar("R")

SLOTS = frozenset({field.name for field in fields(Method)} - {"rule"})
"""What can be changed of a method by name."""
OF_MEASURE = frozenset({"budget", "engine", "groups"})
"""What goes on to a measurement along the update."""

_WEIGHTS = (
    "share_targets={'a': 2, 'b': 1} lets one task pull harder, fixed={'kl': 0.1} adds a loss with "
    "a coefficient and never balances it, and method='fixed:2,1' multiplies each loss by a constant"
)
_MEANT = {
    **dict.fromkeys(("weights", "lossweights", "taskweights", "coefficients"), _WEIGHTS),
    **dict.fromkeys(("lambdas", "initialweights", "importance", "priorities"), _WEIGHTS),
    **dict.fromkeys(("model", "module", "backbone", "trunk", "encoder"), "it is called shared"),
    **dict.fromkeys(("parameters", "params", "sharedparameters"), "it is called shared"),
    **dict.fromkeys(("losses", "names", "tasknames", "lossnames"), "it is called tasks"),
    **dict.fromkeys(("rule", "weighting", "strategy", "algorithm"), "it is called method"),
    **dict.fromkeys(("device", "dtype"), "the state follows the losses, so leave it out"),
    **dict.fromkeys(("accumulationsteps", "gradaccumulation"), "it is called accumulate"),
}
"""What people mean by other names, spelled by :func:`gaba.spelling.letters`."""


def meant(name: str, known: Iterable[str]) -> str:
    """What to do about a setting that nobody knows, behind a colon; empty if there is no telling.

    Example:
        >>> meant("limits", ["limit", "scale"])
        " (did you mean 'limit'?)"
        >>> meant("model", ["tasks", "shared"])
        ': it is called shared'
    """
    said = _MEANT.get(letters(name))
    return did_you_mean(name, known) if said is None else f": {said}"


def refusing_unknown(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, which says of an argument that it does not have what was probably meant.

    Raises:
        TypeError: an argument has no such name.

    Example:
        >>> @refusing_unknown
        ... def make(tasks, limit=None): ...
        >>> make(["a", "b"], limits=32)
        Traceback (most recent call last):
            ...
        TypeError: make has no argument 'limits' (did you mean 'limit'?)
    """
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{owner} has no argument {name!r}{_remedy(name, known)}")
        return function(*args, **kwargs)

    return checked


def _remedy(name: str, known: Iterable[str]) -> str:
    if name in SLOTS | OF_MEASURE and "method" not in known:
        return ": it changes nothing of the training; use gaba.Balancer to balance"
    if name in SLOTS | OF_MEASURE:
        return f": it is of the method, method=gaba.methods.get('gaba', {name}=...)"
    other = ""
    if "method" in known:
        other = f": a setting of a rule goes to method=gaba.methods.get('inverse', {name}=...)"
    return meant(name, known) or other
