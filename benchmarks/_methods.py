"""The ways of making a step that are compared: a plain step, ours, the published loop, TorchJD."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, final

import torch
from _report import COLOURS, GREYS
from torchjd.aggregation import Mean
from torchjd.autogram import Engine
from torchjd.autojac import jac_to_grad, mtl_backward

import gaba
from _models import Batch, MultiTask
from gaba.measurement import ExactNorms, Measurement, Tracked

Step = Callable[[Batch], None]
"""One training step as far as the gradients: ``.grad`` is emptied, then filled."""


Status = Literal["runs", "fails"]


@final
@dataclass(frozen=True)
class Method:
    """One way of making a step.

    Attributes:
        title: what it is called in the tables.
        make: from a model, which is the method's own, to its step.
        period: its cost repeats every so many steps, and is to be averaged over them.
        ours: whether it is this library's.
    """

    title: str
    make: Callable[[MultiTask], Step]
    period: int = 1
    ours: bool = False


def _plain(model: MultiTask) -> Step:
    def step(batch: Batch) -> None:
        model.zero_grad(set_to_none=True)
        _, losses = model(batch)
        torch.stack(list(losses.values())).mean().backward()

    return step


def _published(model: MultiTask) -> Step:
    """K probes of the shared parameters, then a backward pass of the weighted sum."""
    theta = list(model.trunk.parameters())

    def step(batch: Batch) -> None:
        model.zero_grad(set_to_none=True)
        _, losses = model(batch)
        norms = []
        for loss in losses.values():
            found = torch.autograd.grad(loss, theta, retain_graph=True)
            norms.append(torch.stack([g.norm() for g in found]).norm())
        weights = 1 / torch.stack(norms)
        (weights / weights.sum() * torch.stack(list(losses.values()))).sum().backward()

    return step


def _balanced(measure: Measurement, every: int = 1) -> Callable[[MultiTask], Step]:
    """The Balancer as it is by default, with this measurement in every n-th step."""

    def make(model: MultiTask) -> Step:
        method = gaba.methods.get("gaba").replace(measure=measure, every=every)
        balancer = gaba.Balancer(model.tasks, model.trunk, method)

        def step(batch: Batch) -> None:
            model.zero_grad(set_to_none=True)
            _, losses = model(batch)
            balancer.backward(losses)

        return step

    return make


def _autojac(chunk: int | None) -> Callable[[MultiTask], Step]:
    """TorchJD's Jacobian by rows (chunk 1) or all rows at once, combined by the mean."""

    def make(model: MultiTask) -> Step:
        theta = list(model.trunk.parameters())
        own = [list(head.parameters()) for head in model.heads]
        aggregator = Mean()

        def step(batch: Batch) -> None:
            model.zero_grad(set_to_none=True)
            features, losses = model(batch)
            mtl_backward(
                list(losses.values()),
                features,
                tasks_params=own,
                shared_params=theta,
                parallel_chunk_size=chunk,
            )
            jac_to_grad(theta, aggregator)

        return step

    return make


def _autogram(model: MultiTask) -> Step:
    """TorchJD's Gramian without the Jacobian, then a backward pass of the weighted sum."""
    gram = Engine(model.trunk, batch_dim=None)

    def step(batch: Batch) -> None:
        model.zero_grad(set_to_none=True)
        _, losses = model(batch)
        stacked = torch.stack(list(losses.values()))
        weights = gram.compute_gramian(stacked).diagonal().rsqrt()
        stacked.backward(weights / weights.sum())

    return step


METHODS: Mapping[str, Method] = {
    "plain": Method("plain mean loss", _plain),
    "again": Method("plain mean loss once more (what the timing itself makes)", _plain),
    "published": Method("published loop (K probes + backward)", _published),
    "store": Method("`ExactNorms()`", _balanced(ExactNorms()), ours=True),
    "stream": Method('`ExactNorms("stream")`', _balanced(ExactNorms("stream")), ours=True),
    "every-10": Method(
        "`ExactNorms()`, `every=10`", _balanced(ExactNorms(), every=10), period=10, ours=True
    ),
    "gaba": Method("the default, `every=8`", _balanced(Tracked(), every=8), period=8, ours=True),
    "jd-rows": Method("TorchJD `mtl_backward`, row by row", _autojac(1)),
    "jd-batched": Method("TorchJD `mtl_backward`, batched", _autojac(None)),
    "jd-autogram": Method("TorchJD autogram", _autogram),
}

OURS, OTHERS = (
    [
        name
        for name, method in METHODS.items()
        if method.ours == ours and name not in ("plain", "again")
    ]
    for ours in (True, False)
)


def style(name: str) -> dict[str, Any]:
    """How the method is drawn: ours in colours, solid, the others in greys, dashed."""
    if name in OURS:
        look = {"color": COLOURS[OURS.index(name)], "linestyle": "-", "marker": "o"}
    else:
        place = OTHERS.index(name)
        look = {"color": GREYS[place], "linestyle": "--", "marker": "xs^v"[place]}
    return {**look, "markersize": 4, "linewidth": 1.4, "label": METHODS[name].title}


PEERS = ("jd-rows", "jd-batched", "jd-autogram")


@final
@dataclass(frozen=True)
class Ready:
    """A method that has made its first steps, or the reason why it cannot.

    Attributes:
        step: the step, or ``None``.
        status: whether it runs.
        reason: why it cannot, or what it warned of while it ran.
    """

    step: Step | None
    status: Status
    reason: str = ""


def prepare(method: Method, model: MultiTask, batch: Batch) -> Ready:
    """Give ``method`` a copy of ``model`` and make its first steps, one period of them.

    A step that leaves the ``.grad`` of a parameter empty counts as a failure.
    """
    model = copy.deepcopy(model)

    def first() -> Step:
        step = method.make(model)
        for _ in range(method.period):
            step(batch)
        empty = [name for name, p in model.named_parameters() if p.grad is None]
        if empty:
            raise RuntimeError(f"leaves .grad empty: {empty[0]} and {len(empty) - 1} more")
        return step

    tried = attempt(first)
    return Ready(tried.value, tried.status, tried.reason)


T = TypeVar("T")


@final
@dataclass(frozen=True)
class Attempt(Generic[T]):
    """What ``attempt`` got, with the fields of :class:`Ready`."""

    value: T | None
    status: Status
    reason: str = ""


def attempt(work: Callable[[], T]) -> Attempt[T]:
    """Call ``work``; what it raises or warns of is a result."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            value = work()
        except Exception as error:
            return Attempt(None, "fails", f"{type(error).__name__}: {_first_line(error)}")
    warned = dict.fromkeys(_first_line(w.message) for w in heard)
    return Attempt(value, "runs", "; ".join(warned))


def _first_line(message: object) -> str:
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    first = lines[0] if lines else type(message).__name__
    return first.partition(". Please file us an issue")[0][:200]
