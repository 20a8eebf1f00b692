"""What the physics-informed problems have in common: the network, its derivatives, the session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import ClassVar, NamedTuple, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from gaba.bench._data import made
from gaba.bench._training import ByExample
from gaba.bench.problem import Metric, Problem, Rates, Session, Split

WIDTHS = (2, 32, 32, 32)
"""Inputs and hidden layers."""
BATCH = {"residual": 256, "boundary": 64, "initial": 64}
"""Points of a batch by task, where there is such a task."""
JUDGED = {"residual": 2000, "boundary": 500, "initial": 500}
"""Points at which a model is judged."""
SEEDS: dict[Split, int] = {"validation": 1, "test": 2}
Box: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""The lowest and the highest value of p, and of q."""


@final
class Jet(NamedTuple):
    """A function u of (p, q) at N points: its value, both first derivatives, D u.

    (N,) each, or (N, m) where u has m components.
    """

    u: Tensor
    p: Tensor
    q: Tensor
    second: Tensor


@final
class Net(nn.Module):
    """A perceptron with tanh from (p, q) to u, which gives its derivatives along with its values.

    D = c_p ∂²/∂p² + c_q ∂²/∂q² with the ``coefficients`` c. Derivatives are carried forward, layer
    by layer, with h = tanh a: h_p = (1 − h²) a_p, and D h = (1 − h²) D a − 2 h (1 − h²) (c_p a_p² +
    c_q a_q²). They cost four times a plain forward pass and no second derivative of the graph.
    """

    def __init__(self, coefficients: tuple[float, float], components: int = 1) -> None:
        super().__init__()
        self.coefficients, self.components = coefficients, components
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((*WIDTHS, components)))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor) -> Tensor:
        """Points (N, 2) to (4, N), or to (4, N, m) for m components: the rows of a :class:`Jet`."""
        first = torch.eye(2, device=points.device).unsqueeze(1).expand(2, *points.shape)
        z = torch.cat([points.unsqueeze(0), first, torch.zeros_like(points).unsqueeze(0)])
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            a = z @ layer.weight.T
            z = a if layer is self.layers[-1] else self._through_tanh(a, layer.bias)
        bias = self.layers[-1].bias
        assert isinstance(bias, Tensor)
        rows = torch.cat([z[:1] + bias, z[1:]])
        return rows[..., 0] if self.components == 1 else rows

    def _through_tanh(self, a: Tensor, bias: Tensor) -> Tensor:
        c_p, c_q = self.coefficients
        h = torch.tanh(a[0] + bias)
        slope = 1 - h.square()
        rest = slope * a[1:]
        bent = 2 * h * slope * (c_p * a[1].square() + c_q * a[2].square())
        return torch.cat([h.unsqueeze(0), rest[:2], (rest[2] - bent).unsqueeze(0)])


@final
@dataclass(frozen=True, eq=False)
class Judge:
    """Points (N, 2) of one split, and the true values there, (N,) or (N, m)."""

    points: Tensor
    truth: Tensor


class Equation(ABC):
    """A differential equation with conditions: where it is sampled, and what is demanded there.

    Attributes:
        tasks: Names of the losses; the first is the residual of the equation.
        coefficients: Of D, the second derivatives that the equation has.
        components: How many functions are sought.
    """

    tasks: ClassVar[tuple[str, ...]]
    coefficients: ClassVar[tuple[float, float]]
    components: ClassVar[int] = 1

    @abstractmethod
    def points(self, generator: torch.Generator, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """So many points by task, (N, 2) each; N is even."""

    @abstractmethod
    def truth(self, points: Tensor) -> Tensor:
        """The solution at points (N, 2), (N,) or (N, m), in the dtype of the points."""

    @abstractmethod
    def each(self, jets: Mapping[str, Jet], points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The squared violation at every point, by task."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The points of a batch by task: 256 inside, 64 for each condition."""
        return self.points(generator, BATCH)

    def judges(self, split: Split) -> dict[str, Judge]:
        """By task, where a model is judged: 2,000 points inside, 500 for each condition."""
        return _judges(type(self), split)


@cache
def _judges(kind: type[Equation], split: Split) -> dict[str, Judge]:
    equation, generator = kind(), torch.Generator().manual_seed(SEEDS[split])
    points = {k: x.double() for k, x in equation.points(generator, JUDGED).items()}
    return {k: Judge(x, equation.truth(x)) for k, x in points.items()}


@final
class Training(ByExample):
    """One training of a network on an equation; every batch has points of its own.

    The features are the values and derivatives at all points of the batch, (4, N) or (4, N, m).
    """

    def __init__(self, equation: Equation, seed: int, device: torch.device) -> None:
        self.equation, self.device = equation, device
        make = partial(Net, equation.coefficients, equation.components)
        self.model = self.shared = self.net = made(make, seed, device)
        self.generator = torch.Generator().manual_seed(seed)
        splits: tuple[Split, ...] = ("validation", "test")
        self.judged = {
            split: {
                task: Judge(judge.points.float().to(device), judge.truth.float().to(device))
                for task, judge in equation.judges(split).items()
            }
            for split in splits
        }

    @property
    def last_layer(self) -> nn.Module:
        return self.net.layers[-1]

    def _each(self) -> dict[str, Tensor]:
        drawn = self.equation.draw(self.generator)
        points = {task: x.to(self.device) for task, x in drawn.items()}
        self._features = found = self.net(torch.cat(list(points.values())))
        parts = found.split([len(x) for x in points.values()], dim=1)
        jets = {task: Jet(*part) for task, part in zip(points, parts, strict=True)}
        return self.equation.each(jets, points)

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, float]:
        errors: dict[str, float] = {}
        for task, judge in self.judged[split].items():
            wrong = (self.net(judge.points)[0] - judge.truth).square().mean().sqrt()
            if task == self.equation.tasks[0]:
                errors["relative_l2"] = float(wrong / judge.truth.square().mean().sqrt())
            else:
                errors[f"rmse_{task}"] = float(wrong)
        return errors


class Pinn(Problem):
    """An equation, solved by a tanh network 2→32→32→32→m, all of it shared.

    Judged by the relative L2 error inside, and by the root mean squared error for each condition,
    whose reference is the root mean square of the solution there.

    Attributes:
        equation: What is solved.
        zero: The conditions where the solution is 0; their reference is that inside.
    """

    equation: ClassVar[type[Equation]]
    zero: ClassVar[tuple[str, ...]] = ()
    steps = 3000
    learning_rates: Rates = {"adam": (1e-3, 3e-3, 1e-2), "sgd": (1e-2, 3e-2, 0.1)}  # noqa: RUF012

    def __init__(self) -> None:
        judges = self.equation().judges("validation")
        within, *conditions = self.equation.tasks
        references = {k: rms(judges[within if k in self.zero else k].truth) for k in conditions}
        self.metrics = (
            Metric("relative_l2", task=within),
            *(Metric(f"rmse_{k}", task=k, reference=size) for k, size in references.items()),
        )

    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""
        return Training(self.equation(), seed, device)


def uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """``count`` numbers between ``low`` and ``high``, (count,)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def inside(generator: torch.Generator, count: int, box: Box) -> Tensor:
    """``count`` points of the ``box``, evenly distributed, (count, 2)."""
    return torch.stack([uniform(generator, count, *between) for between in box], dim=1)


def around(generator: torch.Generator, count: int, box: Box) -> Tensor:
    """``count`` points on the four sides of the ``box``, a quarter on each, in turn, (count, 2).

    >>> points = around(torch.Generator(), 8, ((-1, 1), (2, 5)))
    >>> [points[k::4, k // 2].tolist() for k in range(4)]
    [[-1.0, -1.0], [1.0, 1.0], [2.0, 2.0], [5.0, 5.0]]
    """
    points = inside(generator, count, box)
    for k, side in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        points[k::4, side[0]] = box[side[0]][side[1]]
    return points


def square(generator: torch.Generator, counts: Mapping[str, int], box: Box) -> dict[str, Tensor]:
    """Points inside the ``box``, and on its four sides."""
    return {
        "residual": inside(generator, counts["residual"], box),
        "boundary": around(generator, counts["boundary"], box),
    }


def strip(generator: torch.Generator, counts: Mapping[str, int], box: Box) -> dict[str, Tensor]:
    """Points (t, x) inside the ``box``, on both sides of x in turn, and at the start t."""
    times, (left, right) = box
    within = inside(generator, counts["residual"], box)
    sides = torch.tensor([float(left), float(right)]).repeat(counts["boundary"] // 2)
    edge = uniform(generator, counts["boundary"], *times), sides
    start = uniform(generator, counts["initial"], left, right)
    first = torch.full_like(start, times[0])
    return {
        "residual": within,
        "boundary": torch.stack(edge, dim=1),
        "initial": torch.stack((first, start), dim=1),
    }


def rms(values: Tensor) -> float:
    """√(mean v²)."""
    return float(np.sqrt(np.mean(np.square(values.numpy()))))
