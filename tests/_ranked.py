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
from _ranks import World

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


def loss(task: str, output: Tensor, target: Tensor, halves: bool) -> Tensor:
    """The mean over the batch, or over each of its halves."""
    errors = SCALES[TASKS.index(task)] * (output - target).square().sum(1)
    return torch.stack([half.mean() for half in errors.chunk(2)]) if halves else errors.mean()


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
        truth: settings of the Balancer of the one process, where they are others.
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
    truth: dict[str, Any] = field(default_factory=dict)

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
        return gaba.Balancer(TASKS, net.trunk, **settings)


@dataclass
class Outcome:
    """What a training came to: weights and norms by micro-step, ``.grad`` by step, parameters."""

    weights: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    grads: list[dict[str, Tensor]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    balancer: Any = None
    losses: list[Tensor] = field(default_factory=list)


def alone(plan: Plan, world: int) -> Outcome:
    """By one process, on the mean over the ranks of what each of them would have as its loss."""
    net, found = Net(), Outcome()
    balancer = plan.balancer(net, **plan.truth)
    halves = balancer.measurement.halves

    def losses(step: int) -> Losses:
        outs: dict[str, list[Tensor]] = {task: [] for task in TASKS}
        for rank in range(world):
            x, y = plan.batch(step, rank)
            out = net(x)
            for task in plan.tasks(step, rank):
                outs[task].append(loss(task, out[task], y, halves))
        return {t: torch.stack(o).sum(0) / world if o else None for t, o in outs.items()}

    _train(plan, net, net, balancer, losses, found, by_hand_first=plan.late)
    return found


def together(plan: Plan, world: World) -> Outcome:
    """By all ranks; the process group must be there."""
    net, found = Net(), Outcome()
    model = plan.wrap(net)
    balancer = plan.balancer(net)
    halves = balancer.measurement.halves

    def losses(step: int) -> Losses:
        x, y = plan.batch(step, world.rank)
        tasks = plan.tasks(step, world.rank)
        out = model(x, tasks)
        return {task: loss(task, out[task], y, halves) for task in tasks}

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
                torch.stack(given).mean().backward()
                found.weights.append(torch.full((len(TASKS),), 1 / len(TASKS), dtype=torch.float64))
                continue
            with plan.held_back(model, part == plan.micro - 1):
                if plan.by_forward:
                    balancer(losses(at)).backward()
                else:
                    said = balancer.backward(losses(at))
                    found.losses.append(said.losses)
            found.weights.append(torch.as_tensor(balancer.history.weights[-1]))
            found.norms.append(torch.as_tensor(balancer.history.norms[-1]))
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
    """Weights and parameters are the same to the bit."""
    mine = [*found.weights, *found.parameters.values()]
    flat = torch.cat([tensor.flatten() for tensor in mine]).contiguous()
    others = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(others, flat)
    for rank, other in enumerate(others):
        assert torch.equal(other.view(torch.int64), flat.view(torch.int64)), f"rank {rank} differs"


def assert_as_alone(found: Outcome, truth: Outcome, rtol: float = 1e-8) -> None:
    """Weights, norms, gradients and parameters are those of one process."""
    for step, (mine, theirs) in enumerate(zip(found.weights, truth.weights, strict=True)):
        torch.testing.assert_close(
            mine, theirs, rtol=rtol, atol=1e-12, msg=lambda m, s=step: f"weights of {s}: {m}"
        )
    for step, (mine, theirs) in enumerate(zip(found.grads, truth.grads, strict=True)):
        assert {n for n in theirs if theirs[n].any()} <= set(mine) <= set(theirs) | set(mine)
        for name, value in mine.items():
            expected = theirs.get(name, torch.zeros_like(value))
            torch.testing.assert_close(
                value,
                expected,
                rtol=rtol,
                atol=1e-10,
                msg=lambda m, s=step, n=name: f"gradient of {n} in step {s}: {m}",
            )
    for name, value in found.parameters.items():
        torch.testing.assert_close(value, truth.parameters[name], rtol=rtol, atol=1e-10)


def check(plan: Plan, world: World, rtol: float = 1e-8) -> None:
    """The ranks agree with each other and with one process."""
    truth = alone(plan, world.size)
    with world.group():
        found = together(plan, world)
        assert_same_on_all_ranks(found)
    assert_as_alone(found, truth, rtol)
