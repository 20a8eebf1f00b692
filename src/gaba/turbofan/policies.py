"""What a method's name stands for: a balancer, and whether the samples are weighted too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import nn
from torch.optim import Optimizer

import gaba
from gaba import measurement, methods
from gaba import rules as weighting
from gaba.turbofan.losses import TASKS

FIXED = "fixed:"

METHODS = {
    "gaba": "the published algorithm: GABA's rule, EMA .99, floor .05, warm-up 100",
    "inverse": "this library's defaults: weights ∝ 1/norm, smoothed log-norms, no floor",
    "inverse-sketch": "the same with norms from a sketch in every 4th step, nearly free",
    "uniform": "the same weight for every task",
    "fixed:W,W": "fixed weights for rul and health, brought to a sum of 1",
    "amnl": "sample weights near failure, uniform task weights",
    "grace": "AMNL's sample weights under GABA's task weights",
}
"""The methods by name, each in a few words; every other one of `gaba methods` is one besides."""


@final
@dataclass(frozen=True)
class Policy:
    """How a run balances its two losses.

    Attributes:
        method: The name it was made from.
        make_balancer: From a shared module, and the optimizer that trains it where the method needs
            one, to a new balancer.
        weigh_samples: Whether the RUL loss carries AMNL's sample weights.
    """

    method: str
    make_balancer: Callable[..., gaba.Balancer]
    weigh_samples: bool = False


def policy(method: str) -> Policy:
    """The policy of that name.

    Args:
        method: A key of :data:`METHODS`, with figures for ``fixed:`` (``"fixed:.05,.95"``), or one
            of :data:`gaba.methods.METHODS` (``"equal-share"``, ``"gradnorm"``, ``"pcgrad"``, ...).

    Raises:
        ValueError: ``method`` is unknown, or ``fixed:`` is not followed by one non-negative number
            a task with a positive sum.

    >>> policy("grace").weigh_samples
    True
    >>> import torch
    >>> net = torch.nn.Linear(2, 2)
    >>> policy("fixed:1,3").make_balancer(net).weighting
    Fixed(weights=(0.25, 0.75))
    """
    if method.startswith(FIXED):
        return Policy(method, _constant(weighting.Fixed(_parse_fixed(method))))
    if method in _POLICIES:
        return _POLICIES[method]
    try:
        methods.find(method)
    except ValueError as error:
        known = ", ".join(METHODS)
        raise ValueError(
            f"method: must be one of {known}, or one of `gaba methods`; got {method!r} ({error})"
        ) from error
    return Policy(method, _named(method))


def _named(method: str) -> Callable[..., gaba.Balancer]:
    def make(shared: nn.Module, optimizer: Optimizer | None = None) -> gaba.Balancer:
        settings = {"optimizer": optimizer} if method == "inverse-optimizer" else {}
        return methods.make(method, TASKS, shared, **settings)

    return make


def _paper(shared: nn.Module, _: Optimizer | None = None) -> gaba.Balancer:
    return gaba.Balancer.paper(TASKS, shared)


def _default(shared: nn.Module, _: Optimizer | None = None) -> gaba.Balancer:
    return gaba.Balancer(TASKS, shared)


def _sketched(shared: nn.Module, _: Optimizer | None = None) -> gaba.Balancer:
    engine = measurement.SketchNorms(every=4)  # which smooths what it sees by itself
    return gaba.Balancer(TASKS, shared, measurement=engine, norm_stabiliser=None)


def _constant(rule: weighting.Weighting) -> Callable[..., gaba.Balancer]:
    """Weights that need no norms: nothing is measured, and nothing is paid for."""

    def make(shared: nn.Module, _: Optimizer | None = None) -> gaba.Balancer:
        return gaba.Balancer(TASKS, shared, weighting=rule, norm_stabiliser=None, scale="simplex")

    return make


def _parse_fixed(method: str) -> tuple[float, ...]:
    try:
        weights = tuple(float(word) for word in method.removeprefix(FIXED).split(","))
    except ValueError:
        weights = ()
    total = sum(weights)
    good = len(weights) == len(TASKS) and all(w >= 0 for w in weights) and 0 < total < float("inf")
    if not good:
        raise ValueError(
            f"method: fixed: needs {len(TASKS)} weights of at least 0, for {' and '.join(TASKS)}, "
            f"with a positive sum, as in fixed:.05,.95; got {method!r}"
        )
    return tuple(w / total for w in weights)


_POLICIES = {
    "gaba": Policy("gaba", _paper),
    "inverse": Policy("inverse", _default),
    "inverse-sketch": Policy("inverse-sketch", _sketched),
    "uniform": Policy("uniform", _constant(weighting.Uniform())),
    "amnl": Policy("amnl", _constant(weighting.Uniform()), weigh_samples=True),
    "grace": Policy("grace", _paper, weigh_samples=True),
}
