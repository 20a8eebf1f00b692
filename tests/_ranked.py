"""A training on several ranks, and the same by one process on all their batches: the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import gaba
from _engines import balanced
from _ranks import World
from _tolerance import of_slopes, of_sums

TASKS = ("a", "b", "c")
SCALES = (1.0, 40.0, 0.02)
Losses = dict[str, Tensor | None]


class Net(nn.Module):
    """A trunk and a head a task, in float64; what it returns are the outputs of all heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(5, 2) for task in TASKS})
        self.double()

    def forward(self, x: Tensor, tasks: Sequence[str] = TASKS) -> dict[str, Tensor]:
        z = self.trunk(x)
        return {task: self.heads[task](z) for task in tasks}


def loss(task: str, output: Tensor, target: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """The mean over the batch, or over each of its halves."""
    errors = SCALES[TASKS.index(task)] * (output - target).square().sum(1)
    return torch.stack([half.mean() for half in errors.chunk(2)]) if shape else errors.mean()


@dataclass(frozen=True)
class Plan:
    """What is trained, and on how many examples by whom.

    Attributes:
        wrap: from the model to what is called.
        settings: of the Balancer.
        sizes: examples a micro-batch on each rank; taken in turn where there are more ranks.
        missing: (micro-step, rank) → tasks that are left out.
        steps: how many steps of the optimizer.
        micro: how many micro-batches each has.
        late: the first step is not measured.
        by_forward: the caller makes the backward pass.
        held_back: from whether this is the last micro-batch to a context around it.
    """

    wrap: Callable[[Net], nn.Module] = lambda net: net
    settings: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = (8, 8)
    missing: Callable[[int, int], Sequence[str]] = lambda step, rank: ()
    steps: int = 3
    micro: int = 1
    late: bool = False
    by_forward: bool = False
    held_back: Callable[[nn.Module, bool], Any] = lambda model, last: nullcontext()

    def batch(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a micro-batch on a rank."""
        made = torch.Generator().manual_seed(1000 * step + rank)
        n = self.sizes[rank % len(self.sizes)]
        draw = torch.randn(n, 8, generator=made, dtype=torch.float64)
        return draw[:, :6], draw[:, 6:]

    def tasks(self, step: int, rank: int) -> list[str]:
        """Those that a rank has."""
        return [task for task in TASKS if task not in self.missing(step, rank)]

    def balancer(self, net: Net, **others: Any) -> gaba.Balancer:
        """A fresh one."""
        settings = {"accumulate": self.micro, **self.settings, **others}
        return balanced(TASKS, net.trunk, **settings)


@dataclass
class Outcome:
    """What a training came to: multipliers and norms by micro-step, the rest by step."""

    multipliers: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    grads: list[dict[str, Tensor]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    balancer: Any = None
    losses: list[Tensor] = field(default_factory=list)


def alone(plan: Plan, world: int) -> Outcome:
    """By one process, on the mean over the ranks of what each of them would have as its loss."""
    net, found = Net(), Outcome()
    balancer = plan.balancer(net)
    shape = balancer.method.measured.loss_shape

    def losses(step: int) -> Losses:
        outs: dict[str, list[Tensor]] = {task: [] for task in TASKS}
        for rank in range(world):
            x, y = plan.batch(step, rank)
            out = net(x)
            for task in plan.tasks(step, rank):
                outs[task].append(loss(task, out[task], y, shape))
        return {t: torch.stack(o).sum(0) / world if o else None for t, o in outs.items()}

    _train(plan, net, net, balancer, losses, found, by_hand_first=plan.late)
    return found


def together(plan: Plan, world: World) -> Outcome:
    """By all ranks; the process group must be there."""
    net, found = Net(), Outcome()
    model = plan.wrap(net)
    balancer = plan.balancer(net)
    shape = balancer.method.measured.loss_shape

    def losses(step: int) -> Losses:
        x, y = plan.batch(step, world.rank)
        tasks = plan.tasks(step, world.rank)
        out = model(x, tasks)
        return {task: loss(task, out[task], y, shape) for task in tasks}

    _train(plan, net, model, balancer, losses, found)
    return found


def _train(
    plan: Plan,
    net: Net,
    model: nn.Module,
    balancer: gaba.Balancer,
    losses: Callable[[int], Losses],
    found: Outcome,
    by_hand_first: bool = False,
) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(plan.steps):
        optimizer.zero_grad()
        for part in range(plan.micro):
            at = step * plan.micro + part
            if by_hand_first and step == 0:
                given = [one for one in losses(at).values() if one is not None]
                torch.stack(given).sum().backward()
                found.multipliers.append(torch.ones(len(TASKS), dtype=torch.float64))
                continue
            with plan.held_back(model, part == plan.micro - 1):
                if plan.by_forward:
                    balancer(losses(at)).backward()
                else:
                    said = balancer.backward(losses(at))
                    found.losses.append(said.losses)
            found.multipliers.append(torch.tensor(balancer.history.multipliers[-1]))
            found.norms.append(torch.tensor(balancer.history.norms[-1]))
        found.grads.append(
            {n: whole(p.grad).clone() for n, p in net.named_parameters() if p.grad is not None}
        )
        optimizer.step()
    found.parameters = {n: whole(p.detach()) for n, p in net.named_parameters()}
    found.balancer = balancer


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over the ranks."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def assert_same_on_all_ranks(found: Outcome) -> None:
    """Multipliers and parameters are the same to the bit."""
    mine = [*found.multipliers, *found.parameters.values()]
    flat = torch.cat([tensor.flatten() for tensor in mine]).contiguous()
    others = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(others, flat)
    for rank, other in enumerate(others):
        assert torch.equal(other.view(torch.int64), flat.view(torch.int64)), f"rank {rank} differs"


CONDITION = 1e2
"""How much longer the parts of a combined gradient may be than their sum."""


def rounding(plan: Plan) -> float:
    """How far the ranks may be from one process, relative to the largest number of its kind.

    Sums over examples and parameters are taken in another order; and where a measurement takes a
    difference, rounding in the features is divided by its step.
    """
    net = Net()
    theta = torch.cat([p.detach().flatten() for p in net.trunk.parameters()])
    if plan.balancer(net).method.measured.tracks:
        fan_in = sum(p.shape[1] for p in net.trunk.parameters() if p.ndim == 2)
        return of_slopes(theta.dtype, fan_in, float(theta.square().mean().sqrt()))
    return of_sums(theta.dtype, len(theta) * sum(plan.sizes)) * CONDITION


def assert_as_alone(found: Outcome, truth: Outcome, tolerance: float) -> None:
    """Multipliers, gradients and parameters are those of one process."""
    pairs = zip(found.multipliers, truth.multipliers, strict=True)
    for step, (mine, theirs) in enumerate(pairs):
        assert_close(mine, theirs, tolerance, f"multipliers of {step}", each=True)
    for step, (mine, theirs) in enumerate(zip(found.grads, truth.grads, strict=True)):
        assert {n for n in theirs if theirs[n].any()} <= set(mine) <= set(theirs) | set(mine)
        for name, value in mine.items():
            expected = theirs.get(name, torch.zeros_like(value))
            assert_close(value, expected, tolerance, f"gradient of {name} in step {step}")
    for name, value in found.parameters.items():
        assert_close(value, truth.parameters[name], tolerance, name)


def assert_close(
    found: Tensor, expected: Tensor, tolerance: float, what: str, *, each: bool = False
) -> None:
    """Relative to each number, or to the largest of them, as sums that cancel have to be."""
    largest = float(expected.detach().abs().nan_to_num().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        found,
        expected,
        rtol=tolerance,
        atol=1e-12 if each else tolerance * largest + 1e-12,
        equal_nan=True,
        msg=lambda words: f"{what}: {words}",
    )


def check(plan: Plan, world: World) -> None:
    """The ranks agree with each other and with one process."""
    truth = alone(plan, world.size)
    with world.group():
        found = together(plan, world)
        assert_same_on_all_ranks(found)
    assert_as_alone(found, truth, rounding(plan))
