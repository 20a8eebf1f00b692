"""q_k = ⟨∇L_k, u⟩: what is held before the backward pass of one step, and what follows from u."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, _foreach_norm  # pyright: ignore[reportPrivateImportUsage]

from gaba.autograd.combination import steps_at_once
from gaba.autograd.passes import Gradients, one_pass
from gaba.autograd.rerun import Rerun
from gaba.autograd.sharding import copies, local_part, sharded, whole
from gaba.measurement._fsdp import sharded_rows
from gaba.measurement.base import Request
from gaba.measurement.derivative import by_difference
from gaba.tensors import dense, flat, work_dtype

STEP = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 3e-3}
"""ε‖u‖/‖θ‖ by the coarsest dtype at work: between rounding and the bend of the network."""
SLOPE, COARSE = 0.1, 0.2
"""How far Σ m_k q_k may be from ‖u‖², as a part of it; below 32 bits."""
ROUNDING = 1e-5
"""A product that follows from the others and is below this part of ‖u‖² is rounding: it is 0."""
NOISE = 0.05
"""How much of the change of a feature may be there without any move of the parameters."""


@final
@dataclass(frozen=True, eq=False)
class Products:
    """What one measurement along the update found.

    Attributes:
        slopes: (K,), q_k = ⟨∇L_k, u⟩; NaN for a missing task and for one that was not measured.
        multipliers: (K,), with which the update was made; NaN for a missing task.
        square: (), ‖u‖², or ⟨u, d⟩ for products along another direction d.
        exact: (K,), q_k of the tasks whose gradient was taken, NaN for the others.
        probed: (K,), q_k as the probe has it, NaN where there is none.
        cost: what it cost, in plain steps; the same on every rank.
        problem: which check failed, empty if none did; then the slopes are not to be believed.
        order: the positions of the tasks, the quietest first, where the checks were looked at.
        unrepeatable: the positions of the tasks that use a feature which a rerun does not repeat.
    """

    slopes: Tensor
    multipliers: Tensor
    square: Tensor
    exact: Tensor
    probed: Tensor
    cost: float
    problem: str = ""
    unrepeatable: tuple[int, ...] = ()
    order: tuple[int, ...] = ()


@final
class Along:
    """One measurement along the update u of this very step.

    Before the backward pass it holds ∂L_k/∂z for each task, by one pass through its head, and
    ∇_θ L_k for those that are to be exact. Once ``.grad`` is there, one more forward pass of the
    shared part, without graph, gives J_z u, and the products follow:

        q_k = ⟨∂L_k/∂z, J_z u⟩,     J_z u ≈ (z(θ + εu) − z(θ))/ε

    Args:
        request: the losses of the tasks present.
        multipliers: (k,), those of the tasks present in this step.
        direct: the positions of the tasks whose gradient is taken.
        rerun: the calls of the shared part, or ``None`` for no probe.
        settled: those of them whose probe does not matter.
        repeat: whether to see that a rerun at unmoved parameters repeats the features.
        cost: of all this, in plain steps.
        complete: whether the one task that is not ``direct`` follows from Σ m_k q_k = ‖u‖².
    """

    def __init__(
        self,
        request: Request,
        multipliers: Tensor,
        direct: Sequence[int],
        rerun: Rerun | None,
        *,
        settled: Collection[int] = (),
        repeat: bool = False,
        complete: bool = False,
        cost: float = 0.0,
    ) -> None:
        graph = request.graph
        self._request = request
        self._rerun = rerun
        self._settled = frozenset(settled)
        self._repeat = repeat
        self._complete = complete
        self._cost = cost
        self.tasks: tuple[int, ...] = graph.tasks
        self._multipliers = multipliers
        self._theta = graph.theta
        self._sharded = sharded(self._theta)
        self._before = self._gradients()
        self._factor = request.loss_scale
        self._heads = _Heads(rerun, len(self.tasks))
        self._rows: dict[int, Gradients] = {}
        self._caught: dict[int, Tensor] = {}
        self.unreached: tuple[int, ...] = ()
        self._handles = [
            p.register_hook(self._catch(i))
            for i, p in enumerate(self._theta)
            if steps_at_once([p])  # then .grad is gone when the pass is over
        ]
        self._hold(set(direct))

    def _hold(self, direct: set[int]) -> None:
        graph, edges = self._request.graph, () if self._rerun is None else self._rerun.edges
        if self._sharded:
            rows = sharded_rows(self._request)
            self._rows = dict(enumerate(rows))
            return
        for i, (k, loss) in enumerate(zip(graph.tasks, graph.losses, strict=True)):
            theta = self._theta if k in direct else ()
            with graph.shared.undisturbed() if theta else nullcontext():
                row = one_pass(graph, loss, (*edges, *theta))
            self._heads.take(i, row[: len(edges)], self._multipliers[i])
            if theta:
                self._rows[i] = row[len(edges) :]
            if row and all(g is None for g in row):
                self.unreached += (k,)

    def begin(self, factor: Tensor) -> None:
        """Take note of what the weighted sum of the losses is multiplied by in its backward pass.

        By default that is the loss scale of the request.
        """
        self._before = self._gradients()  # which the caller may have cleared since the losses
        self._factor = factor.detach()
        scale = self._request.loss_scale
        self._heads.factor = self._factor if scale is None else self._factor / scale.to(factor)

    def _gradients(self) -> list[Tensor | None]:
        return [None if p.grad is None else local_part(p.grad).clone() for p in self._theta]

    def release(self) -> None:
        """Take the hooks off the graph again."""
        self._heads.release()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _catch(self, i: int) -> Callable[[Tensor], None]:
        def catch(gradient: Tensor) -> None:
            self._caught[i] = gradient.detach().clone()

        return catch

    def finish(self, *, arrived: bool = True) -> Products:
        """The products, once the gradient of this step is in ``.grad``.

        Waits for the device if there are checks to look at, which is with a probe or other ranks.

        Args:
            arrived: whether the pass was one of autograd's, so that the hooks have seen it.
        """
        self.release()
        graph, n = self._request.graph, len(self.tasks)
        device, dtype = graph.device, work_dtype(graph.device)
        own = self._update()
        length = _dot(own, own, device)
        update, square = self._along(own, length)
        exact = torch.full((n,), math.nan, dtype=dtype, device=device)
        for i, row in self._rows.items():
            exact[i] = _dot(row, update, device)
        probed, noises = torch.full_like(exact, math.nan), exact[:0]
        if self._rerun is not None:
            change, noises = self._change(self._rerun, update, length.sqrt())
            probed = torch.stack([self._heads.along(i, change, device) for i in range(n)])
        unscaled = self._request.unscaled
        residual = self._heads.residual(square) if arrived else torch.zeros_like(square)
        return self._checked(unscaled(probed), unscaled(exact), square, residual, noises)

    def _update(self) -> list[Tensor]:
        """The update u (this rank's part of it), dense, parameter by parameter."""
        found: list[Tensor] = []
        now = self._request.graph.shared.parameters()  # FSDP may have put others in their place
        self._complete = self._complete and sharded(now) == self._sharded
        for i, (p, then, old) in enumerate(zip(now, self._theta, self._before, strict=True)):
            if i in self._caught:
                found.append(dense(self._caught[i]).view_as(then))
                continue
            if p.grad is None:
                found.append(torch.zeros_like(local_part(then)))
                continue
            new = (local_part(p.grad) if self._sharded else whole(p.grad)).detach()
            u = new if old is None else _minus(new, old)
            wide = u if not u.is_sparse else u.to_dense()
            if self._factor is not None:
                real = wide.dtype.to_real()
                wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
                wide = wide / self._factor.to(wide.device, torch.promote_types(real, torch.float32))
            found.append(wide / copies(p) ** 0.5 if self._sharded else wide)
        return found

    def _along(self, own: list[Tensor], square: Tensor) -> tuple[list[Tensor], Tensor]:
        """The direction d, as long as the update u, and ⟨u, d⟩."""
        given = self._request.direction
        if given is None:
            return own, square
        length = _dot(given, given, square.device)
        usable = (length > 0) & (square > 0)
        scale = torch.where(usable, (square / length).sqrt(), torch.full_like(square, math.nan))
        direction = [d * scale.to(d.device, d.dtype.to_real()) for d in given]
        return direction, _dot(own, direction, square.device)

    def _change(
        self, rerun: Rerun, update: list[Tensor], length: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """J_z u, and for each feature what part of its change is there without a move.

        A call under autocast is repeated as it was, but moved in the precision of the parameters.
        """
        lengths = _foreach_norm([p.detach() for p in self._theta])
        device = self._request.graph.device
        wide = [g.to(device, work_dtype(device)) for g in lengths]
        theta = torch.linalg.vector_norm(torch.stack(wide))
        theta = torch.where(theta > 0, theta, torch.ones_like(theta))
        usable = (length > 0) & length.isfinite()
        scale = theta / torch.where(usable, length, torch.ones_like(length))
        again = rerun() if self._repeat else []
        moving = rerun.outside_autocast() if rerun.lowered else rerun
        change = by_difference(moving, update, moving.step(STEP) * scale)
        step = rerun.step(STEP) * scale
        if not again:
            return change, length.new_zeros(0)
        still = [
            _length(a.to(b.dtype) - b).to(length)
            for a, b in zip(again, rerun.values(), strict=True)
        ]
        moved = [_length(dz).to(length) * step for dz in change]
        noise, move = torch.stack(still), torch.stack(moved)
        return change, torch.where(noise > 0, noise / move, torch.zeros_like(noise))

    def _checked(
        self, probed: Tensor, exact: Tensor, square: Tensor, residual: Tensor, noises: Tensor
    ) -> Products:
        """Everything over all ranks, and the checks."""
        n, ranks = len(self.tasks), self._request.ranks
        loud = (noises > NOISE).to(square)
        spread = torch.zeros_like(square)
        cost = torch.full_like(square, self._cost)
        if ranks.several:
            mine = [
                probed.nan_to_num(0.0, math.nan, math.nan),
                exact.nan_to_num(0.0, math.nan, math.nan),
            ]
            heard = ranks.total(
                torch.cat([*mine, torch.stack([square, square**2, residual, cost]), loud])
            )
            size = 1 if self._sharded else ranks.size
            probed = torch.where(probed.isnan() & (heard[:n] == 0), probed, heard[:n] / size)
            exact = torch.where(exact.isnan(), exact, heard[n : 2 * n] / size)
            total, squares, residual, cost = heard[2 * n : 2 * n + 4]
            cost = cost / ranks.size
            if not (self._sharded or self._request.own):
                spread = (ranks.size * squares - total**2).abs() / total**2
            square, loud = total / size, heard[2 * n + 4 :]
        m = self._multipliers.to(square)
        slopes = torch.where(exact.isnan(), probed, exact)
        if self._complete:
            known = torch.where(slopes.isnan(), 0.0, slopes)
            rest = square - (m * known).sum()
            rest = torch.where(rest.abs() < ROUNDING * square, torch.zeros_like(rest), rest)
            slopes = torch.where(slopes.isnan(), rest / m, slopes)
        everywhere = self._request.graph.spread
        if self._rerun is None and not ranks.several:
            slopes, m, exact = everywhere(slopes), everywhere(m), everywhere(exact)
            return Products(slopes, m, square, exact, torch.full_like(exact, math.nan), self._cost)
        pulls = torch.where(slopes.isnan(), 0.0, m * slopes)
        scale = square if self._request.direction is None else pulls.abs().sum()
        parts = 1 + (pulls.sum() - square) / scale
        said = torch.cat([torch.stack([cost, spread, residual, parts]), pulls, loud])
        cost, apart, off, ratio, *rest = said.tolist()
        pulls, flags = rest[:n], rest[n:]
        order = tuple(k for _, k in sorted(zip(pulls, self.tasks, strict=True)))
        unrepeatable = tuple(
            k
            for i, k in enumerate(self.tasks)
            if any(flags) and k not in self._settled and self._heads.uses(i, flags)
        )
        problem = ""
        if apart > 1e-6:
            problem = "the gradient differs between the ranks, so one of them did not reduce it"
        elif off > self._heads.tolerance:
            problem = (
                f"the gradients of the heads are not those of the backward pass (off by {off:.1g})"
            )
        elif unrepeatable:
            problem = "the shared module returns other features when it is called once more"
        elif self._rerun is not None and abs(ratio - 1) > self._heads.slack:
            problem = f"the shares of the update add up to {ratio:.3g} instead of 1"
        slopes, m, exact, probed = (everywhere(part) for part in (slopes, m, exact, probed))
        return Products(slopes, m, square, exact, probed, cost, problem, unrepeatable, order)


@final
class _Heads:
    """∂L_k/∂z of each task, and whether the backward pass brings Σ m_k ∂L_k/∂z to each z."""

    def __init__(self, rerun: Rerun | None, n_tasks: int) -> None:
        self.features = () if rerun is None else rerun.edges
        self.factor: Tensor | None = None
        self._at: list[Gradients] = [()] * n_tasks
        self._sums: list[Tensor | None] = [None] * len(self.features)
        self._lengths: list[Tensor] = [torch.zeros(())] * len(self.features)
        self._arrived: dict[int, Tensor] = {}
        self._handles: list[Any] = [
            edge.node.register_prehook(self._hook(e, edge.output_nr))
            for e, edge in enumerate(self.features)
        ]

    def take(self, i: int, row: Gradients, multiplier: Tensor) -> None:
        """Hold the gradients of the task number ``i`` of those present."""
        self._at[i] = row
        for e, g in enumerate(row):
            if g is None:
                continue
            wide = g.detach().to(torch.promote_types(g.dtype, torch.float32))
            m = multiplier.to(wide.device, wide.dtype.to_real())
            part, before = wide * m, self._sums[e]
            self._sums[e] = part if before is None else before.add_(part)
            self._lengths[e] = self._lengths[e].to(part.device) + _length(part)

    def along(self, i: int, change: Sequence[Tensor], device: torch.device) -> Tensor:
        """⟨∂L/∂z, J_z u⟩ of the task number ``i``; NaN if it reaches no feature."""
        parts = [
            (flat(g) @ flat(dz)).to(device)
            for g, dz in zip(self._at[i], change, strict=True)
            if g is not None
        ]
        nothing = torch.full((), math.nan, dtype=work_dtype(device), device=device)
        return torch.stack(parts).sum() if parts else nothing

    def uses(self, i: int, flags: Sequence[float]) -> bool:
        """Whether the task number ``i`` reaches a feature that is flagged."""
        return any(flag and g is not None for g, flag in zip(self._at[i], flags, strict=True))

    @property
    def tolerance(self) -> float:
        """How large the residual may be, by the coarsest dtype of a gradient at a feature."""
        kinds = {g.dtype for row in self._at for g in row if g is not None}
        return max([2e-3, *(16 * torch.finfo(kind).eps for kind in kinds)])

    @property
    def slack(self) -> float:
        """How far the products may add up to something else than ‖u‖²."""
        kinds = {g.dtype for row in self._at for g in row if g is not None}
        return COARSE if any(torch.finfo(kind).bits < 32 for kind in kinds) else SLOPE

    def residual(self, like: Tensor) -> Tensor:
        """The largest relative difference over the features, (), in the dtype of ``like``."""
        found = [torch.zeros_like(like)]
        for e, total in enumerate(self._sums):
            if total is not None:
                apart, length = self._arrived.get(e, _length(total)), self._lengths[e]
                found.append((apart / torch.where(length > 0, length, 1.0)).to(like))
        return torch.stack(found).max()

    def release(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, e: int, output: int) -> Any:
        def arrive(gradients: Sequence[Tensor | None]) -> None:
            found, total = gradients[output], self._sums[e]
            if found is not None and total is not None:
                wide = dense(found).to(dense(total).dtype)
                if self.factor is not None:
                    wide = wide / self.factor.to(wide)
                self._arrived[e] = _length(wide - dense(total))

        return arrive


def _dot(row: Gradients, update: Sequence[Tensor], device: torch.device) -> Tensor:
    """⟨∇L, u⟩ (), in the working dtype."""
    dtype = work_dtype(device)
    parts = [
        _product(g, u).to(device, dtype)
        for g, u in zip(row, update, strict=True)
        if g is not None and g.numel()
    ]
    return torch.stack(parts).sum() if parts else torch.zeros((), dtype=dtype, device=device)


def _product(g: Tensor, u: Tensor) -> Tensor:
    a, b = dense(g).flatten(), dense(u).flatten()
    kind = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return torch.dot(a.to(kind), b.to(kind))


def _length(tensor: Tensor) -> Tensor:
    whole = dense(tensor)
    return torch.linalg.vector_norm(whole.to(torch.promote_types(whole.dtype, torch.float32)))


def _minus(new: Tensor, old: Tensor) -> Tensor:
    if new.is_sparse != old.is_sparse:
        return dense(new) - dense(old)
    return new - old
