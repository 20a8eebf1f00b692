"""Norms from one directional derivative: the price of one forward pass, however many tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from gaba.arrays import work_dtype
from gaba.ranks.wrappers import sharded
from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Gradients, Measurement, Observation, TaskGradients
from gaba.measurement._derivative import bounded, by_difference, by_forward, step_size
from gaba.measurement._directions import Distribution, direction, stretched
from gaba.measurement._exact import ExactNorms
from gaba.measurement._gradients import task_passes
from gaba.autograd.rerun import Rerun

Method = Literal["difference", "forward"]


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

    def advance(self, slopes: Tensor, tasks: Sequence[int], decay: float) -> SketchState:
        """With ``slopes`` (probes, tasks present) taken in; missing tasks keep what they have."""
        probes, n_tasks = slopes.shape[0], self.mass.shape[0]
        where = torch.tensor(tasks, device=slopes.device) if len(tasks) < n_tasks else None
        if where is None:
            here, full = torch.ones_like(self.mass), slopes
        else:
            here = torch.zeros_like(self.mass).index_fill(0, where, 1)
            full = slopes.new_zeros(probes, n_tasks).index_copy(1, where, slopes)
        keep = torch.where(here > 0, decay, torch.ones_like(here))
        root = keep.sqrt()  # on both sides, so that a positive semidefinite matrix stays one
        new = (full[:, :, None] * full[:, None, :]).mean(0)
        return SketchState(
            self.products * (root[:, None] * root) + (1 - decay) * new,
            self.mass * keep + (1 - decay) * here,
            self.draws + probes,
        )

    def gramian(self, tasks: Sequence[int]) -> Tensor:
        """The estimate Ĝ for the tasks at these positions."""
        root = self.mass.sqrt()
        whole = self.products / (root[:, None] * root)
        if len(tasks) == len(root):
            return whole
        where = torch.tensor(tasks, device=whole.device)
        return whole[where[:, None], where]


@final
@dataclass(frozen=True)
class SketchNorms(Measurement):
    """The norms of all K tasks from one directional derivative of the features.

    Let θ be the shared parameters, z the features, J_z = ∂z/∂θ, and v a random direction in θ with
    independent entries of mean 0 and variance 1. The slope of task k along v,

        s_k = v · ∇_θ L_k = ⟨J_z v, ∂L_k/∂z⟩,

    has E[s_k s_l] = ⟨∇_θ L_k, ∇_θ L_l⟩, so s_k² is an unbiased estimate of g_k². J_z v serves all
    tasks: the price is K passes through the heads, one forward pass of the shared part a probe,
    and one backward pass of the shared part. Held: one copy of the parameters, K gradients of the
    features, and the inputs of the shared module until the step is over.

    *What comes out.* Ĝ_kl is the mean of s_k s_l over m probes, smoothed over the measured steps
    by Ĝ ← d Ĝ + (1 − d) s sᵀ, debiased; ĝ_k = √Ĝ_kk, so squares are smoothed before the root is
    taken. The norms of the record are these smoothed ones. Ĝ is positive semidefinite, but of rank
    at most m times the number of measured steps: singular for few.

    *Error.* For a fixed gradient the squares are unbiased (but for the difference below). One
    probe's square has the relative variance 2 if Gaussian and 2 (1 − Σ_i g_i⁴/g⁴) ≤ 2 for signs,
    g_i being the entries of the gradient. So after n measured steps

        Var(ĝ²)/g⁴ = V ≤ (2/m) · (1 − d)/(1 + d) · (1 + dⁿ)/(1 − dⁿ),

    as from (1 + d)/(1 − d) independent steps in the end: a standard error of √V of the square and
    √V/2 of the norm, which has a bias of −V/8, both relative. With one probe: 5 % at d = .99, 11 %
    at .95. Ratios between tasks of similar direction are better, as they share v. Gradients that
    change are averaged over the last 1/(1 − d) measured steps; n counts a task's own.

    *The difference.* ``"difference"`` takes J_z v = (z(θ + εv) − z(θ))/ε from one further call
    with the same inputs, dropout masks and autocast; z(θ) is kept from the first (and made again,
    at the price of another, where somebody has written into z or where the call changes floating
    buffers that count, as spectral_norm does). Parameters, buffers and generators come back bit for
    bit, also from an exception; what else a module changes as it runs (attributes, generators
    outside torch) does not, and its own hooks run again. It works through everything that runs,
    checkpointed (``use_reentrant=False``) and compiled modules included (``shared=`` is then what
    ``torch.compile`` returned, or holds it; the pass without graph is compiled once more). Not for
    CUDA graphs and sharded parameters. ε = rms(θ) · √u/3 with u the machine epsilon of the coarsest
    dtype at work. On the networks tried the error of s_k was below 2 % of g_k (root mean square) in
    float32 and 10 to 40 % under bfloat16 autocast, where norms so come out up to 8 % too large. It
    is rounding, so it does not shrink with g_k: where the gradients of the samples cancel almost
    wholly, at a stationary point of a task, what is reported is this floor. ``"forward"`` has
    no such error: forward-mode differentiation, where each part of the module has it (LSTM and
    fused attention do not).

    Both take the derivative of what the module computes. Where its backward pass is another (a
    ``detach``, a straight-through estimate, gradient reversal), use exact norms.

    *Fallback.* Where the calls cannot be made again, the step has exact norms at their price, and
    no trace in the state: without a sound boundary between heads and shared part
    (:attr:`gaba.autograd.graph.LossGraph.features`), with a whole model compiled as one or a shared module
    compiled in place (``module.compile()``), with features that come from elsewhere, or if an input
    of the shared module has been overwritten.

    Args:
        probes: m ≥ 1, directions a measured step, each with its own forward pass.
        every: measure in the steps 0, n, 2n, ...; the others are one plain backward pass.
        method: how J_z v is found.
        decay: d in [0, 1), per measured step.
        distribution: of the entries of v; signs have the smaller error.
        seed: of the directions. They are a function of it and of the count in the state: the same
            on every rank and after a resume.
        epsilon: ε itself, in the unit of the parameters, in place of the choice above.

    Raises:
        ValueError: a setting breaks its rule; at once, or ``shared`` is no module.
        RuntimeError: ``method="forward"`` meets a part without forward-mode derivative.

    Source: Hutchinson, Communications in Statistics 1990 (probes); Baydin et al., Gradients without
    Backpropagation, 2022 (v · ∇L by forward mode); the rest is arithmetic.

    Example:
        >>> import torch, gaba
        >>> from gaba.measurement import SketchNorms
        >>> trunk = torch.nn.Linear(3, 4)
        >>> balancer = gaba.Balancer(["a", "b"], trunk, measurement=SketchNorms())
        >>> z = trunk(torch.ones(8, 3))
        >>> step = balancer.backward({"a": z.sum(), "b": 5 * z.sum()})
        >>> round(float(step.norms[1] / step.norms[0]), 4)
        5.0
    """

    probes: int = 1
    every: int = 1
    method: Method = "difference"
    decay: float = 0.99
    distribution: Distribution = "rademacher"
    seed: int = 0
    epsilon: float | None = None

    needs_calls: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("probes", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), found {self.decay}: 0 does not smooth")
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, found {self.epsilon}: None chooses it")
        for name, choices in (("method", Method), ("distribution", Distribution)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(choices))}, "
                    f"found {getattr(self, name)!r}"
                )

    def init(self, n_tasks: int) -> SketchState:
        """Nothing seen yet, and no direction used."""
        dtype = work_dtype(torch.device("cpu"))
        return SketchState(
            torch.zeros(n_tasks, n_tasks, dtype=dtype),
            torch.zeros(n_tasks, dtype=dtype),
            torch.zeros((), dtype=torch.int64),
        )

    def due(self, step: int) -> bool:
        """In every n-th step."""
        return step % self.every == 0

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        if sharded(graph.shared.parameters()):
            raise ValueError(
                "SketchNorms cannot move parameters that FSDP has sharded: use "
                "measurement='features', or 'exact' at the price of a pass a task"
            )
        rerun = Rerun.of(graph)
        together = graph.ranks.all(rerun is not None, graph.losses[0].device)
        if rerun is None or not together:
            exact = ExactNorms()(graph, gramian=gramian, gradients=gradients)
            return replace(exact, state=state)
        old = state if isinstance(state, SketchState) else self.init(len(graph.losses))
        device = graph.losses[0].device
        count = old.draws.to(device)
        scales = graph.scales(rerun.parameters)
        derivatives = [self._derivative(rerun, count + i, scales) for i in range(self.probes)]
        at, found = _head_passes(graph, gradients)
        reached = [any(g is not None for g in row) for row in at]
        slopes, unreached = _averaged(_slopes(derivatives, at, device), reached, graph)
        new = old.advance(slopes, graph.tasks, self.decay)
        estimate = new.gramian(graph.tasks)
        return Observation(
            norms=estimate.diagonal().sqrt(),
            gramian=estimate if gramian else None,
            unreached=unreached,
            gradients=found,
            state=new,
        )

    def _derivative(
        self, rerun: Rerun, count: Tensor, scales: Sequence[Tensor] | None
    ) -> list[Tensor]:
        """J_z v for direction number ``count``, its entries of standard deviation ``scales``."""
        v = direction(rerun.parameters, self.seed, count, self.distribution)
        if self.method == "forward":
            return by_forward(rerun, v if scales is None else stretched(v, scales))
        step = step_size(rerun, count.device) if self.epsilon is None else self._epsilon(count)
        if scales is None:
            return by_difference(rerun, v, step)
        scales, length = bounded(scales, count.device)
        return by_difference(rerun, stretched(v, scales), step / length)

    def _epsilon(self, like: Tensor) -> Tensor:
        return torch.full(
            (), self.epsilon or 0.0, dtype=work_dtype(like.device), device=like.device
        )


def _head_passes(graph: LossGraph, gradients: bool) -> tuple[list[Gradients], TaskGradients | None]:
    """K rows ∂L_k/∂z, with the gradients of the heads on the way there if they are wanted."""
    edges = graph.features or ()
    by_hand = gradients and graph.apart
    heads = graph.heads if by_hand else ()
    rows = task_passes(graph.losses, (*edges, *heads), free=by_hand)
    at: list[Gradients] = [row[: len(edges)] for row in rows]
    if not by_hand:
        return at, None
    of = tuple(row[len(edges) :] for row in rows)
    return at, TaskGradients(tuple(heads), of, tuple(edges), tuple(at))


def _slopes(
    derivatives: Sequence[Sequence[Tensor]], at: Sequence[Gradients], device: torch.device
) -> Tensor:
    """The slopes s (probes, K): the inner products ⟨J_z v, ∂L_k/∂z⟩ over all features."""
    along = [
        torch.stack([_flat(dz) for dz in column], 1) for column in zip(*derivatives, strict=True)
    ]
    rows = []
    for gradients in at:
        parts = [
            (_flat(g) @ dz).to(device, non_blocking=True)
            for g, dz in zip(gradients, along, strict=True)
            if g is not None
        ]
        nothing = torch.zeros(len(derivatives), dtype=work_dtype(device), device=device)
        rows.append(sum(parts, start=nothing))
    return torch.stack(rows, 1)


def _averaged(
    slopes: Tensor, reached: Sequence[bool], graph: LossGraph
) -> tuple[Tensor, tuple[int, ...]]:
    """The slopes of the mean loss over the ranks, and the tasks that reach no feature on any."""
    if graph.ranks.several:
        flags = torch.tensor(reached, dtype=slopes.dtype).to(slopes.device, non_blocking=True)
        heard = graph.ranks.mean(torch.cat([slopes, flags[None]]))
        slopes = heard[:-1]
        if not all(reached):
            reached = [n > 0 for n in heard[-1].tolist()]
    return graph.unscaled(slopes), tuple(k for k, found in enumerate(reached) if not found)


def _flat(tensor: Tensor) -> Tensor:
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return tensor.detach().flatten().to(work_dtype(tensor.device))
