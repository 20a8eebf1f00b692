"""Norms from one directional derivative: the price of one forward pass, however many tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from gaba.autograd.losses import check_choice
from gaba.autograd.passes import Gradients
from gaba.autograd.rerun import Rerun
from gaba.autograd.sharding import sharded
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.derivative import bounded, by_difference, by_forward, step_size
from gaba.measurement.directions import direction, stretched
from gaba.measurement.exact import ExactNorms
from gaba.measurement.features import head_passes
from gaba.measurement.norms import totals
from gaba.tensors import DTYPE, flat, work_dtype

Way: TypeAlias = Literal["difference", "forward"]


@final
@dataclass(frozen=True, eq=False)
class SketchState:
    """What has been seen so far.

    Attributes:
        products: (K, K), the weighted sum of s_k s_l.
        mass: (K,), the sum of the weights, which rises from 0 to 1 with each task's own samples.
        draws: (), int64, how many directions have been used.
    """

    products: Tensor
    mass: Tensor
    draws: Tensor

    def advance(self, slopes: Tensor, decay: float) -> SketchState:
        """With ``slopes`` (probes, K) taken in; a task of NaN slopes keeps what it has."""
        here = ~slopes.isnan().any(0)
        full = torch.where(here, slopes, 0.0)
        keep = torch.where(here, decay, torch.ones_like(self.mass))
        root = keep.sqrt()  # on both sides, so that a positive semidefinite matrix stays one
        new = (full[:, :, None] * full[:, None, :]).mean(0)
        return SketchState(
            self.products * (root[:, None] * root) + (1 - decay) * new,
            self.mass * keep + (1 - decay) * here,
            self.draws + len(slopes),
        )

    @property
    def gramian(self) -> Tensor:
        """The estimate Ĝ (K, K), NaN for a task that was never seen."""
        root = self.mass.sqrt()
        return self.products / (root[:, None] * root)


@final
@dataclass(frozen=True)
class SketchNorms(Measurement):
    """The norms of all K tasks from one directional derivative of the features.

    With J_z = ∂z/∂θ and v random signs in θ, the slope s_k = ⟨J_z v, ∂L_k/∂z⟩ has
    E[s_k s_l] = ⟨∇_θ L_k, ∇_θ L_l⟩. J_z v serves all tasks: the price is K passes through the heads
    and one forward pass of the shared part a probe. Squares are smoothed over the measured steps
    before the root is taken; with one probe and decay d a norm has the relative standard error
    ½ (2 (1 − d)/(1 + d))^½ in the end, 5 % at 0.99. The Gramian is singular for few steps.

    Where the shared calls cannot be made again, the step has exact norms at their price. Use exact
    norms where the backward pass is not the derivative of the forward pass: a ``detach``, gradient
    reversal, rounding (as in ``torch.nn.utils.parametrizations.orthogonal`` of a wide layer).

    Args:
        probes: m ≥ 1, directions a measured step, each with its own forward pass.
        method: ``"difference"``: J_z v ≈ (z(θ + εv) − z(θ))/ε with ε = rms(θ) √u/3, u the machine
            epsilon of the coarsest dtype at work; ``"forward"``: forward-mode differentiation,
            without rounding, where each part of the module has it.
        decay: d in [0, 1), per measured step.
        seed: of the directions, which are the same on every rank and after a resume.

    Raises:
        ValueError: a setting breaks its rule, or FSDP has sharded the parameters.
        RuntimeError: ``method="forward"`` meets a part without forward-mode derivative.

    Source: Hutchinson, Communications in Statistics 1990 (probes); Baydin et al., Gradients without
    Backpropagation, 2022 (v · ∇L by forward mode).

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> trunk = torch.nn.Linear(3, 4)
        >>> shared = as_shared(trunk)
        >>> shared.keep_calls()
        >>> z = trunk(torch.ones(8, 3))
        >>> engine, graph = SketchNorms(), LossGraph([z.sum(), 5 * z.sum()], shared)
        >>> seen, state = engine.update(Request(graph), engine.init(2))
        >>> round(float(seen.norms[1] / seen.norms[0]), 4), int(state.draws)
        (5.0, 1)
    """

    needs_calls: ClassVar[bool] = True
    averages: ClassVar[bool] = True

    probes: int = 1
    method: Way = "difference"
    decay: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes must be at least 1, found {self.probes}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), found {self.decay}: 0 does not smooth")
        check_choice("method", self.method, get_args(Way))

    def init(self, n_tasks: int) -> SketchState:
        """Nothing seen yet, and no direction used."""
        return SketchState(
            torch.zeros(n_tasks, n_tasks, dtype=DTYPE),
            torch.zeros(n_tasks, dtype=DTYPE),
            torch.zeros((), dtype=torch.int64),
        )

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses along new directions."""
        graph = told.graph
        if sharded(graph.theta):
            raise ValueError(
                "SketchNorms cannot move parameters that FSDP has sharded: use "
                "measure='features', or 'exact' at the price of a pass a task"
            )
        rerun = Rerun.of(graph)
        together = told.ranks.all(rerun is not None, graph.device)
        if rerun is None or not together:
            return ExactNorms().update(told, ())[0], state
        count = state.draws.to(graph.device)
        scales = told.scales(rerun.parameters)
        derivatives = [self._derivative(rerun, count + i, scales) for i in range(self.probes)]
        rows, found = head_passes(told)
        reached = [any(g is not None for g in row) for row in rows]
        heard, reached = totals(told, _slopes(derivatives, rows, graph.device), reached)
        slopes = graph.spread(told.unscaled(heard / told.ranks.size))
        new = state.advance(slopes.T, self.decay)
        known = torch.where(slopes.isnan().any(1), torch.nan, 1.0)  # a task that is missing has NaN
        estimate = new.gramian * (known[:, None] * known)
        return Observation(
            norms=estimate.diagonal().sqrt(),
            gramian=estimate if told.gramian else None,
            unreached=tuple(k for k, some in zip(graph.tasks, reached, strict=True) if not some),
            gradients=found,
        ), new

    def _derivative(
        self, rerun: Rerun, count: Tensor, scales: Sequence[Tensor] | None
    ) -> list[Tensor]:
        """J_z v for direction number ``count``, its entries of standard deviation ``scales``."""
        v = direction(rerun.parameters, self.seed, count)
        if self.method == "forward":
            return by_forward(rerun, v if scales is None else stretched(v, scales))
        step = step_size(rerun, count.device)
        if scales is None:
            return by_difference(rerun, v, step)
        scales, length = bounded(scales, count.device)
        return by_difference(rerun, stretched(v, scales), step / length)


def _slopes(
    derivatives: Sequence[Sequence[Tensor]], rows: Sequence[Gradients], device: torch.device
) -> Tensor:
    """The slopes s (k, probes): the inner products ⟨∂L_k/∂z, J_z v⟩ over all features."""
    along = [
        torch.stack([flat(dz) for dz in column], 1) for column in zip(*derivatives, strict=True)
    ]
    slopes = []
    for gradients in rows:
        parts = [
            (flat(g) @ dz).to(device, non_blocking=True)
            for g, dz in zip(gradients, along, strict=True)
            if g is not None
        ]
        nothing = torch.zeros(len(derivatives), dtype=work_dtype(device), device=device)
        slopes.append(sum(parts, start=nothing))
    return torch.stack(slopes)
