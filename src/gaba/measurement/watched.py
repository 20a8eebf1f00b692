"""What a run that is only observed tells: exact norms and cosines at times, shares in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from gaba.autograd.graph import LossGraph
from gaba.autograd.losses import check_choice
from gaba.autograd.passes import task_passes
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import Shared, SharedModule
from gaba.measurement.along import Products
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.cadence import BACKWARD, Cadence
from gaba.measurement.exact import ExactNorms
from gaba.measurement.norms import norm, observed
from gaba.measurement.tracked import PRODUCTS, Plan, Tracked

FEW = 3
"""Up to so many tasks, exact norms cost little more than a probe and say more."""
MANY = 16
"""Above so many tasks their gradients are not held together, so there are no cosines."""


@final
@dataclass(frozen=True)
class Watched(Measurement):
    """Norms g_k, shares and cosines of a run that is not to be changed, within a budget.

    Exact norms and the Gramian come from one backward pass a task. Above 3 tasks with a module as
    ``shared``, K probes come between two of these: a probe gives the shares of the update at the
    price of one more forward pass.

    Args:
        budget: which part of the training time may go into measuring; the cadence follows from it.
        every: measure in every n-th step instead.
        groups: ``"module"`` for the norms in each child of the shared module, too.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> observer = gaba.Observer(["a", "b"], [w])
        >>> step = observer.backward({"a": 5 * w[0], "b": w[1]})
        >>> step.norms.tolist(), step.multipliers.tolist(), w.grad.tolist()
        ([5.0, 1.0], [1.0, 1.0], [5.0, 1.0])
    """

    tracks: ClassVar[bool] = True

    budget: float = 0.05
    every: int | None = None
    groups: Literal["module"] | None = None

    def __post_init__(self) -> None:
        check_choice("groups", self.groups or "module", ("module",))
        self._probing  # noqa: B018 - refuses a setting that is out of its range

    @property
    def _probing(self) -> Tracked:
        return Tracked(self.budget, self.every, "probe")

    def exact(
        self, request: Request, cadence: Cadence, new: Sequence[int], step: int, *, probing: bool
    ) -> Sequence[int]:
        """Whose norms are measured exactly in this step, before the losses are combined."""
        graph = request.graph
        if step < cadence.due:
            return ()
        turn = cadence.made % (len(graph.tasks) + 1) > 0 and len(graph.tasks) > FEW
        if probing and turn and not request.ranks.several:
            return () if self._probing.can_probe(request, cadence) else graph.tasks
        return graph.tasks

    def first(self, cadence: Cadence, asked: Sequence[int], step: int) -> Cadence:
        """The cadence after the norms of the tasks ``asked`` were measured exactly."""
        cost = PRODUCTS * BACKWARD * len(asked)
        known = tuple(sorted({*cadence.known, *asked}))
        return replace(cadence.moved(step, cost, self.budget, self.every), known=known)

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Exact norms, with the Gramian up to 16 tasks; there is no state."""
        theta = told.graph.theta
        if self.groups and not (told.ranks.several or sharded(theta)):
            return self._by_group(replace(told, gramian=True)), state
        few = len(told.graph.tasks) <= MANY
        request = replace(told, gradients=False, gramian=few)
        seen, _ = ExactNorms("store" if few else "stream").update(request, ())
        return replace(seen, asked=told.graph.present), state

    def _by_group(self, told: Request) -> Observation:
        """The same, and the norms of each group (K, G) as statistics."""
        graph = told.graph
        rows = task_passes(graph, graph.theta, free=False)
        places = parts_of(graph.shared)
        of = {id(p): i for i, p in enumerate(graph.theta)}
        norms = [
            torch.stack(
                [norm([row[of[id(p)]] for p in ps if id(p) in of], graph.device) for row in rows]
            )
            for ps in places.values()
        ]
        seen = observed(told, rows, theta=graph.theta)
        statistics = graph.spread(told.unscaled(torch.stack(norms, dim=1))) if norms else None
        return replace(seen, statistics=statistics, asked=graph.present)

    def plan(self, request: Request, multipliers: Tensor, cadence: Cadence) -> Plan | None:
        """A probe of this step, if it can be made."""
        graph: LossGraph = request.graph
        if len(graph.tasks) <= FEW or request.ranks.several:
            return None
        if not self._probing.can_probe(request, cadence):
            return None
        return self._probing.plan(request, multipliers, cadence)

    def learn(
        self, plan: Plan, found: Products, cadence: Cadence, step: int, tasks: tuple[str, ...]
    ) -> Cadence:
        """The cadence after a probe.

        Example:
            >>> import torch, gaba
            >>> trunk = torch.nn.Linear(2, 3)
            >>> observer = gaba.Observer(["a", "b", "c", "d"], trunk, every=1)
            >>> for _ in range(3):
            ...     z = trunk(torch.ones(1, 2)).square().sum()
            ...     step = observer.backward({"a": z, "b": 2 * z, "c": 3 * z, "d": 4 * z})
            >>> step.engine, step.shares.round(decimals=3).tolist()
            ('probe', [0.1, 0.2, 0.3, 0.4])
        """
        return self._probing.learn(plan, found, cadence, step, tasks)


def parts_of(shared: Shared) -> dict[str, list[nn.Parameter]]:
    """The parameters of each child of the shared module, and of itself; empty if it is none."""
    if not isinstance(shared, SharedModule):
        return {}
    module = shared.module
    found = {name: list(child.parameters()) for name, child in module.named_children()}
    own = list(module.parameters(recurse=False))
    return {n: ps for n, ps in (found | ({"(own)": own} if own else {})).items() if ps}
