"""Worlds of shared and unshared parts on which every measurement must fill ``.grad`` rightly.

And how a measurement is asked, alone and in a Balancer of equal contributions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import gaba
from gaba.autograd.graph import LossGraph
from gaba.measurement import Measurement, Observation, Request

NAMES = ("a", "b", "c")


SLOTS = ("rule", "believe", "smooth", "heads", "limit", "recovery")


def balanced(
    tasks: Sequence[str], shared: Any, measure: Measurement | str = "exact", **settings: Any
) -> gaba.Balancer:
    """A Balancer of equal contributions; ``settings`` are its own or its method's."""
    slots = {name: settings.pop(name) for name in SLOTS if name in settings}
    slots = {"rule": gaba.rules.InverseNorm(), "limit": None, **slots}
    return gaba.Balancer(tasks, shared, gaba.Method(measure=measure, **slots), **settings)


def observe(
    engine: Measurement, graph: LossGraph, state: Any = None, **asked: Any
) -> tuple[Observation, Any]:
    """What ``engine`` sees, from its first state on, and its next state."""
    known = engine.init(graph.n_tasks) if state is None else state
    return engine.update(Request(graph, **asked), known)


def linear(n: int, m: int) -> nn.Linear:
    return nn.Linear(n, m).double()


class Trunk(nn.Module):
    """Two layers, with the identity ``Counting`` in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = linear(6, 5), linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Counting.apply(self.first(x).tanh(), "trunk"))


class Counting(torch.autograd.Function):
    """The identity, which counts by name how often a backward pass goes through it."""

    passes: dict[str, int] = {}  # noqa: RUF012

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str) -> Tensor:
        ctx.name = name
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        Counting.passes[ctx.name] = Counting.passes.get(ctx.name, 0) + 1
        return grads[0], None


class World(nn.Module):
    """A trunk that is shared, a head a task, all in float64; ``boundary`` says if z is one."""

    boundary = True
    loss_shape: tuple[int, ...] = ()  # (2,) if the losses are wanted by halves of the batch

    def __init__(self, scales: Sequence[float] = (1.0, 30.0, 0.02)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scales = scales
        self.trunk = self.make_trunk()
        self.heads = nn.ModuleList(linear(4, 2) for _ in scales)
        self.x = nn.Parameter(torch.randn(12, 6, dtype=torch.float64), requires_grad=False)

    def make_trunk(self) -> nn.Module:
        return Trunk()

    @abstractmethod
    def outputs(self) -> list[Tensor]:
        """What the loss of each task is the mean square of."""

    def losses(self) -> dict[str, Tensor | None]:
        outs = zip(NAMES, self.scales, self.outputs(), strict=True)
        return {name: scale * self.reduce(out.sub(0.3).square()) for name, scale, out in outs}

    def reduce(self, errors: Tensor) -> Tensor:
        """Their mean, or that over each half of the batch."""
        if not self.loss_shape:
            return errors.mean()
        return torch.stack([half.mean() for half in errors.chunk(2)])

    def own(self) -> list[list[Tensor | None]]:
        """The oracle: each task's gradient of every leaf, by a plain pass of its own."""
        leaves = self.trainable()
        return [
            list(torch.autograd.grad(loss.mean(), leaves, allow_unused=True))
            for name in NAMES
            if (loss := self.losses()[name]) is not None
        ]

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def theta(self) -> list[int]:
        """The positions of the shared parameters among those that are trainable."""
        shared = {id(p) for p in self.trunk.parameters()}
        return [i for i, p in enumerate(self.trainable()) if id(p) in shared]


class Plain(World):
    def outputs(self) -> list[Tensor]:
        z = self.trunk(self.x)
        return [head(Counting.apply(z, "heads")) for head in self.heads]


class EncoderBelow(World):
    """Something trainable before the shared part, inputs that require a gradient, a joint neck."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.neck = linear(6, 6), linear(4, 4)
        self.x.requires_grad_()

    def outputs(self) -> list[Tensor]:
        z = self.neck(self.trunk(self.encoder(self.x).sigmoid()))
        return [head(z) for head in self.heads]


class SeveralCalls(World):
    """A call of the shared part a task, and one that two tasks use."""

    def outputs(self) -> list[Tensor]:
        z = [self.trunk(self.x + k) for k in range(3)]
        return [self.heads[0](z[0]), self.heads[1](z[1] * z[2]), self.heads[2](z[2])]


class InPlace(World):
    def outputs(self) -> list[Tensor]:
        z = self.trunk(self.x)
        z.relu_()
        return [head(z) for head in self.heads]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Trunk(), Trunk()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


class TwoFeatures(World):
    """One of the two features is used by one task alone."""

    def make_trunk(self) -> nn.Module:
        return Pair()

    def outputs(self) -> list[Tensor]:
        one, two = self.trunk(self.x)
        a, b, c = self.heads
        return [a(one), b(one + two), c(one)]


class SkipAround(World):
    """The encoder is reached around the shared part too, which itself has a clean boundary."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.skip = linear(6, 6), linear(6, 4)

    def outputs(self) -> list[Tensor]:
        early = self.encoder(self.x)
        z = self.trunk(early)
        return [head(z + self.skip(early)) for head in self.heads]


class Leaking(World):
    """A shared parameter is in a loss directly: there is no boundary."""

    boundary = False

    def outputs(self) -> list[Tensor]:
        z = self.trunk(self.x)
        extra = self.trunk.get_parameter("first.weight").sum()
        return [self.heads[0](z), self.heads[1](z) + extra, self.heads[2](z)]


WORLDS: dict[str, type[World]] = {
    kind.__name__: kind
    for kind in (Plain, EncoderBelow, SeveralCalls, InPlace, TwoFeatures, SkipAround, Leaking)
}
