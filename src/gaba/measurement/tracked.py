"""Effective norms: what the update itself reveals of how hard each task pulls."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from gaba.autograd.combination import steps_at_once
from gaba.autograd.graph import LossGraph
from gaba.autograd.losses import check_choice
from gaba.autograd.rerun import Rerun
from gaba.autograd.sharding import holds_gradients_back, sharded
from gaba.autograd.shared import SharedModule
from gaba.measurement.along import Along, Products
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.cadence import BACKWARD, FORWARD, TRUSTED, TURN, WRONG, Cadence
from gaba.measurement.exact import ExactNorms
from gaba.tensors import DTYPE

Engine: TypeAlias = Literal["auto", "probe", "products"]

PROBE, PRODUCTS = 2.0, 1.25
"""What a probe, and gradients, cost beyond their passes: moved copies of the parameters, sums."""
FULL = 8.0
"""As how many passes under autocast one in float32 counts on a GPU; assumed, not measured."""
FEW = 2
"""Up to so many tasks, one product and ‖u‖² give all shares: that is simpler than a probe."""
WIDE = 2**23
"""Gradients at the features may take so many numbers, or as many as the shared parameters have."""
DOUBT = math.log(2)
"""How far log q of a probe may be from that of the gradient."""
HEARD = 0.01
"""A task whose part K s_k of the update is below this may have the wrong sign."""


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """How one step is measured.

    Attributes:
        along: the measurement under way.
        turn: the position of the task whose probe is held against its gradient, or ``None``.
        engine: ``"probe"`` or ``"products"``.
        repeat: whether the rerun at unmoved parameters is among it.
    """

    along: Along
    turn: int | None
    engine: Literal["probe", "products"]
    repeat: bool


SMOOTH = 0.9
"""How much of the mean of earlier products stays, along the update of an optimizer."""
SURE, ENOUGH = 3.0, 4
"""How many standard errors Σ m_k q_k must be above 0, after more measurements than so many."""


@final
@dataclass(frozen=True, eq=False)
class Smoothed:
    """Means over the measurements along the update of an optimizer.

    Attributes:
        ratio: (K,), the weighted sum of q_k/m_k.
        mass: (K,), the sum of the weights.
        total: (2,), the weighted sums of Σ m_k q_k and of its square.
        seen: (), the sum of the weights.
    """

    ratio: Tensor
    mass: Tensor
    total: Tensor
    seen: Tensor

    def advance(self, slopes: Tensor, multipliers: Tensor) -> Smoothed:
        """With products (K,) taken in, NaN for a task of which nothing is known."""
        known = ~slopes.isnan()
        ratio = torch.where(known, slopes / multipliers, 0.0)
        whole = torch.where(known, slopes * multipliers, 0.0).sum()
        total = torch.stack([whole, whole**2])
        return Smoothed(
            torch.where(known, SMOOTH * self.ratio + (1 - SMOOTH) * ratio, self.ratio),
            torch.where(known, SMOOTH * self.mass + (1 - SMOOTH), self.mass),
            SMOOTH * self.total + (1 - SMOOTH) * total,
            SMOOTH * self.seen + (1 - SMOOTH),
        )

    def norms(self, known: Tensor) -> Tensor:
        """Effective norms (K,) of the tasks ``known``; NaN as long as noise hides Σ m_k q_k.

        Near a stationary point that sum is often negative: then the shares mean nothing.
        """
        ratio = self.ratio / torch.where(self.mass > 0, self.mass, 1.0)
        mean, square = self.total / torch.where(self.seen > 0, self.seen, 1.0)
        spread = ((square - mean**2).clamp(min=0) * (1 - SMOOTH) / (1 + SMOOTH)).sqrt()
        sure = (mean > SURE * spread) & (self.seen > 1 - SMOOTH**ENOUGH)
        heard = known & (self.mass > 0) & sure
        return torch.where(heard, ratio.abs().sqrt() * ratio.sign(), math.nan)


@final
@dataclass(frozen=True)
class Tracked(Measurement):
    """Effective norms ĝ_k = √(q_k/m_k), with q_k = ⟨∇L_k, u⟩ along the update u = Σ m_k ∇L_k.

    The update that is made anyway is the measurement. After the one backward pass, a probe (one
    more forward pass of the shared part, without a graph) gives q_k for all tasks. The share of
    task k in the update is s_k = m_k q_k / Σ m_j q_j, so m_k ∝ 1/ĝ_k makes all shares equal. For
    orthogonal gradients, and for a task that is alone, ĝ_k = g_k.

    A task that is new has its norm g_k measured exactly, once. Where the shared part is no module,
    or its features cannot be found or computed again, the gradients of K − 1 tasks take the place
    of the probe; the last product follows from Σ m_k q_k = ‖u‖². So it is for K = 2 everywhere.
    Each probe checks itself: see ``docs/how-it-works.md``.

    Args:
        budget: which part of the training time may go into measuring; the cadence follows from it.
        every: measure in every n-th step instead.
        engine: ``"probe"`` or ``"products"`` to prefer one, ``"auto"`` for the cheaper one.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], [w], every=1)
        >>> for _ in range(20):
        ...     step = balancer.backward({"a": 5 * w[0], "b": w[1]})
        >>> step.engine, step.shares.round(decimals=3).tolist()
        ('products', [0.5, 0.5])
    """

    tracks: ClassVar[bool] = True

    budget: float = 0.05
    every: int | None = None
    engine: Engine = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise ValueError(
                f"budget must be above 0 and at most 1, found {self.budget}: 0.05 is 5 % of the "
                "training time"
            )
        if self.every is not None and self.every < 1:
            raise ValueError(
                f"every must be at least 1, or None, found {self.every}: 8 measures in every 8th "
                "step, None as often as the budget allows, and method='uniform' never"
            )
        check_choice("engine", self.engine, get_args(Engine))

    def init(self, n_tasks: int) -> Smoothed:
        """Nothing measured along the update of an optimizer."""
        nothing = torch.zeros(n_tasks, dtype=DTYPE)
        return Smoothed(nothing, nothing, torch.zeros(2, dtype=DTYPE), torch.zeros((), dtype=DTYPE))

    def exact(
        self, request: Request, cadence: Cadence, new: Sequence[int], step: int, *, probing: bool
    ) -> Sequence[int]:
        """Whose norms are measured exactly in this step, before the losses are combined."""
        return new

    def can_probe(self, request: Request, cadence: Cadence) -> bool:
        """Whether the shares of this step can come from a probe; for one process.

        Example:
            >>> import torch
            >>> from gaba.autograd.graph import LossGraph
            >>> from gaba.autograd.shared import as_shared
            >>> w = torch.nn.Parameter(torch.ones(3))
            >>> graph = LossGraph([w[0] * 2, w[1] * 3, w[2] * 4], as_shared([w]))
            >>> Tracked().can_probe(Request(graph), Cadence())  # no module to call once more
            False
        """
        graph = request.graph
        usable = bool(graph.theta) and not sharded(graph.theta)
        return usable and self._rerun(request, cadence)[0] is not None

    def first(self, cadence: Cadence, new: Sequence[int], step: int) -> Cadence:
        """The cadence after the norms of the tasks ``new`` were measured exactly."""
        known = tuple(sorted({*cadence.known, *new}))
        spent = cadence.spent + PRODUCTS * BACKWARD * len(new)
        due = step + (1 if self.every is None else self.every)
        return replace(cadence, known=known, spent=spent, due=max(cadence.due, due))

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """The exact norms of tasks that are new; the state is of measurements along updates."""
        seen, _ = ExactNorms("stream").update(replace(told, gradients=False), ())
        return replace(seen, asked=told.graph.present), state

    def plan(self, request: Request, multipliers: Tensor, cadence: Cadence) -> Plan | None:
        """What to hold before the backward pass of this step, or ``None`` if it cannot be measured.

        Args:
            request: the losses of the tasks present.
            multipliers: (k,), with which they are combined in this step.
            cadence: what has been so far.
        """
        graph = request.graph
        if not graph.theta:
            return None
        if sharded(graph.theta):
            return self._sharded(request, multipliers)
        rerun, around = self._rerun(request, cadence)
        if rerun is None:
            return self._products(request, multipliers)
        settled = {*around, *cadence.direct} & set(graph.tasks)
        turn = self._turn(graph, cadence, settled)
        direct = sorted(settled if turn is None else {*settled, turn})
        repeat = cadence.repeated < TRUSTED or cadence.failures > 0
        cost = _cost(graph, rerun, len(settled))
        along = Along(
            request, multipliers, direct, rerun, settled=settled, repeat=repeat, cost=cost
        )
        return Plan(along, turn, "probe", repeat)

    def _rerun(self, request: Request, cadence: Cadence) -> tuple[Rerun | None, Sequence[int]]:
        """The calls to make again for a probe, if every rank can, and who goes around them."""
        graph, ranks = request.graph, request.ranks
        several = len(graph.tasks) > FEW or self.engine == "probe"
        moved = steps_at_once(graph.theta)  # before the probe, which is of where they were
        if self.engine == "products" or not several or cadence.given_up or moved:
            return None, ()
        rerun = Rerun.at(graph, graph.edges)
        if rerun is not None and self._too_wide_or_coarse(graph, rerun):
            rerun = None
        if rerun is not None and rerun.lowered and self.engine != "probe":
            dear = _cost(graph, rerun, 0) > PRODUCTS * BACKWARD * (len(graph.tasks) - 1)
            rerun = None if dear else rerun
        around = graph.around
        if ranks.several:
            flags = [k in around for k in range(graph.n_tasks)]
            said = torch.tensor([rerun is None, *flags], dtype=torch.float32)
            alone, *counts = ranks.total(said.to(graph.device)).tolist()
            around = tuple(k for k, count in enumerate(counts) if count)
            rerun = None if alone else rerun
        return rerun, around

    def _too_wide_or_coarse(self, graph: LossGraph, rerun: Rerun) -> bool:
        coarse = any(torch.finfo(p.dtype).bits < 32 for p in graph.theta)
        z = sum(mark.value.numel() for mark in rerun.marks if mark.value is not None)
        return coarse or len(graph.tasks) * z > max(WIDE, sum(p.numel() for p in graph.theta))

    def _turn(self, graph: LossGraph, cadence: Cadence, direct: set[int]) -> int | None:
        """Whose probe is held against its gradient: every task's in turn, the quietest first."""
        rest = [k for k in graph.tasks if k not in direct]
        if cadence.made % TURN or not rest:
            return None
        turns = cadence.turns or (0,) * graph.n_tasks
        place = {k: i for i, k in enumerate(cadence.order)}
        return min(rest, key=lambda k: (turns[k], place.get(k, -1)))

    def _products(self, request: Request, multipliers: Tensor) -> Plan:
        tasks, theta = request.graph.tasks, request.graph.theta
        hooked = any(getattr(p, "_backward_hooks", None) for p in theta)  # u may be another sum
        coarse = any(torch.finfo(p.dtype).bits < 32 for p in theta)  # a difference would drown
        complete = not (hooked or coarse or request.graph.shared.spread)
        direct = tasks[:-1] if complete else tasks
        cost = PRODUCTS * BACKWARD * max(len(direct), 1)
        along = Along(request, multipliers, direct, None, complete=complete, cost=cost)
        return Plan(along, None, "products", False)

    def _sharded(self, request: Request, multipliers: Tensor) -> Plan | None:
        graph = request.graph
        if request.direction is not None:
            raise ValueError(
                "metric='optimizer' must see whole parameters, found some that FSDP has sharded: "
                "use metric='euclidean', or DistributedDataParallel"
            )
        if isinstance(graph.shared, SharedModule) and holds_gradients_back(graph.shared.module):
            return None
        cost = PRODUCTS * BACKWARD * len(graph.tasks)
        return Plan(
            Along(request, multipliers, graph.tasks, None, cost=cost), None, "products", False
        )

    def learn(
        self, plan: Plan, found: Products, cadence: Cadence, step: int, tasks: tuple[str, ...]
    ) -> Cadence:
        """The cadence after a measurement; one warning says why a probe is given up.

        Example:
            >>> import torch, gaba
            >>> w = torch.nn.Parameter(torch.ones(2))
            >>> balancer = gaba.Balancer(["a", "b"], [w], every=1)
            >>> for _ in range(3):  # the exact norms, then two measurements along the update
            ...     _ = balancer.backward({"a": w[0], "b": 3 * w[1]})
            >>> balancer.get_extra_state()["cadence"]["made"]
            2
        """
        new = cadence.moved(step, found.cost, self.budget, self.every)
        new = replace(new, order=found.order)
        if plan.engine == "products":
            return new
        if found.problem:
            all_of_them = len(found.unrepeatable) == len(plan.along.tasks)
            if found.unrepeatable and not all_of_them:
                direct = tuple(sorted({*cadence.direct, *found.unrepeatable}))
                new = replace(new, direct=direct, due=step + 1, reason=found.problem)
            else:
                failures = WRONG if all_of_them else cadence.failures + 1
                new = replace(new, failures=failures, due=step + 1, reason=found.problem)
            _warn(found.problem, [tasks[k] for k in found.unrepeatable if not all_of_them], new)
            return new
        reason = cadence.reason if cadence.direct else ""
        new = replace(new, failures=0, repeated=cadence.repeated + plan.repeat, reason=reason)
        return new if plan.turn is None else self._doubted(plan.turn, found, new, tasks)

    def _doubted(
        self, k: int, found: Products, cadence: Cadence, tasks: tuple[str, ...]
    ) -> Cadence:
        """After the probe of task k was held against its gradient."""
        n = len(tasks)
        turns = list(cadence.turns or (0,) * n)
        doubts = list(cadence.doubts or (0,) * n)
        turns[k] += 1
        true, probe = float(found.exact[k]), float(found.probed[k])
        heard = n * abs(true) * float(found.multipliers[k]) > HEARD * float(found.square)
        same = true * probe > 0 and abs(math.log(probe / true)) < DOUBT
        doubts[k] = doubts[k] + 1 if heard and not same else 0
        new = replace(cadence, turns=tuple(turns), doubts=tuple(doubts))
        if doubts[k] < WRONG:
            return new
        reason = "the probe differs from the gradient"
        new = replace(new, direct=tuple(sorted({*new.direct, k})), reason=reason)
        _warn(reason, [tasks[k]], new)
        return new


def _cost(graph: LossGraph, rerun: Rerun, direct: int) -> float:
    """What a probe costs in plain steps, with the gradients of so many tasks beside it."""
    forward = 1.0
    if rerun.lowered:  # twice, at the parameters and moved, outside of autocast
        forward = 2.0 * (FULL if graph.device.type == "cuda" else 1.0)
    return PROBE * (FORWARD * forward + BACKWARD * (direct + 1 / TURN + graph.heads_part))


def effective(slopes: Tensor, multipliers: Tensor) -> Tensor:
    """ĝ_k = √(q_k/m_k), with the sign of q_k: a task that opposes the update has a negative one.

    Example:
        >>> effective(torch.tensor([8.0, -8.0]), torch.tensor([2.0, 0.5]))
        tensor([ 2., -4.])
    """
    ratio = slopes / multipliers
    return ratio.abs().sqrt() * ratio.sign()


def _warn(problem: str, tasks: list[str], cadence: Cadence) -> None:
    if not tasks and not cadence.given_up:
        return
    of = f"of {', '.join(tasks)} " if tasks else ""
    warnings.warn(
        f"the shares {of}are measured from gradients from now on, which costs a backward pass a "
        f"task, because {problem}. Nothing was learnt from the step in which that was found.",
        stacklevel=5,
    )
