"""Norms without the noise of the mini-batch: from two disjoint halves of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba.arrays import on_device, work_dtype
from gaba.ranks.processes import Ranks
from gaba.ranks.wrappers import sharded
from gaba.autograd.graph import LossGraph
from gaba.measurement._averages import averages
from gaba.measurement._base import Gradients, Measurement, Observation, TaskGradients
from gaba.measurement._gradients import gramian_of, known_shared, norm, scaled


@final
@dataclass(frozen=True, eq=False)
class SignalAndNoise:
    """What is known of the expected gradient of each task, and of the scatter about it.

    Attributes:
        mean: (2, K), weighted sums of the samples ⟨a_k, b_k⟩ and ¼ ‖a_k − b_k‖².
        mass: (K,), the sum of those weights, which rises from 0 to 1.

    Example:
        >>> import torch
        >>> samples = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).double()
        >>> found = HalfBatch().init(2).advance(samples, decay=0.5, tasks=(0, 1))
        >>> found.signal.tolist(), found.noise_scale.tolist()
        ([4.0, 1.0], [0.25, 3.0])
    """

    mean: Tensor
    mass: Tensor

    @property
    def signal(self) -> Tensor:
        """(K,), the estimate of ‖∇_θ E L_k‖²; NaN before the first sample, negative by chance."""
        return self.mean[0] / self.mass

    @property
    def noise(self) -> Tensor:
        """(K,), the estimate of tr Σ_k / B, the mean square error of the gradient of a batch."""
        return self.mean[1] / self.mass

    @property
    def noise_scale(self) -> Tensor:
        """(K,), tr Σ_k / (B ‖∇_θ E L_k‖²): the gradient noise scale in batches of the size B used.

        Above 1 a gradient is more noise than signal. Infinite where no signal was found.
        """
        scale = self.noise / self.signal
        return torch.where(self.signal > 0, scale, torch.full_like(scale, torch.inf))

    def advance(self, samples: Tensor, decay: float, tasks: tuple[int, ...]) -> SignalAndNoise:
        """With the samples (2, present) of ``tasks`` taken in; the others keep what they had."""
        where = on_device(tasks, samples.device)
        mean, mass = self.mean[:, where], self.mass[where]
        return SignalAndNoise(
            self.mean.index_copy(1, where, decay * mean + (1 - decay) * samples),
            self.mass.index_copy(0, where, decay * mass + (1 - decay)),
        )


@final
@dataclass(frozen=True)
class HalfBatch(Measurement):
    """The norm of each task's expected gradient, so that a noisy task is not taken for a loud one.

    With a_k and b_k the gradients of task k on the two halves of a batch of size B, and
    g_k = (a_k + b_k)/2 that on the batch: E‖g_k‖² = ‖∇_θ E L_k‖² + tr Σ_k/B is too large by the
    noise, where Σ_k is the covariance of the gradient of a single example; E⟨a_k, b_k⟩ is
    ‖∇_θ E L_k‖² exactly, and E ¼‖a_k − b_k‖² is tr Σ_k/B. Both are averaged over the steps, since
    a single ⟨a_k, b_k⟩ is often negative, and what is reported is the root of the first,
    max(signal, floor · (signal + noise))^½. With that in place, ``norm_stabiliser=None`` is the
    Balancer's matching setting. :attr:`SignalAndNoise.noise_scale` of
    ``balancer.measurement_state`` is each task's gradient noise scale.

    The losses must then come by halves, as tensors of shape (2,), each entry the mean over one half
    of the batch; the loss of the step is the mean of the two::

        errors = (prediction - target).square().mean(dim=1)  # one for each example
        losses = {"a": torch.stack([half.mean() for half in errors.chunk(2)]), ...}

    The halves must be drawn independently: shuffle. BatchNorm in training mode couples them a
    little. No Gramian is given.

    Cost: 2 K passes in a step, no further one. Held: K + 1 gradients of the parameters.

    Args:
        decay: d in [0, 1), with which both averages forget; .99 averages about 100 steps.
        floor: in (0, 1], which part of the plain mean squared norm is reported at least, where the
            signal is lost in the noise; .01 keeps a norm from falling below a tenth of the plain.

    Raises:
        ValueError: a setting is out of its range, or the Gramian is asked for.

    Source: McCandlish et al., An Empirical Model of Large-Batch Training, 2018, section 2.2
    (noise scale tr Σ/‖g‖²) and appendix A.1 (two batch sizes, both averages taken before the
    quotient), here with B and B/2.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> engine = gaba.measurement.HalfBatch()
        >>> balancer = gaba.Balancer(["a", "b"], [w], measurement=engine, norm_stabiliser=None)
        >>> x = torch.tensor([[4.0, 1.0], [4.0, -1.0]])  # the mean over each half of the batch
        >>> step = balancer.backward({"a": x @ w, "b": x[:, 0] * w[0]})
        >>> [round(g, 3) for g in step.norms.tolist()]  # of "a": √(4·4 − 1·1), not √17
        [3.873, 4.0]
        >>> [round(s, 3) for s in balancer.measurement_state.noise_scale.tolist()]
        [0.067, 0.0]
    """

    halves: ClassVar[bool] = True

    decay: float = 0.99
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, found {self.decay}")
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor must be above 0 and at most 1, found {self.floor}")

    def init(self, n_tasks: int) -> SignalAndNoise:
        """Nothing known of any task."""
        dtype = work_dtype(torch.device("cpu"))
        return SignalAndNoise(
            torch.zeros(2, n_tasks, dtype=dtype), torch.zeros(n_tasks, dtype=dtype)
        )

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        if gramian or graph.halves is None:
            raise ValueError(
                "HalfBatch needs losses by halves and gives no Gramian: give losses of shape (2,), "
                "and use a weighting that needs norms only, or measurement='exact'"
            )
        leaves = (not gradients and graph.shared.parameters()) or graph.leaves
        theta = known_shared(graph, leaves)
        scales = graph.scales([leaves[i] for i in theta])
        if sharded(graph.shared.parameters()):
            raise ValueError(
                "HalfBatch cannot take the gradients of parameters that FSDP has sharded: use "
                "measurement='exact' or 'features', with losses that are scalars"
            )
        ranks, of = graph.ranks, list[Gradients]()
        means = averages(ranks, [leaves[i] for i in theta], graph.step) if ranks.several else None
        squares: list[Tensor] = []
        reached: list[bool] = []
        for k, halves in enumerate(graph.halves):
            last = gradients and k == len(graph.halves) - 1
            a = _gradient(halves, 0, leaves, free=False)
            b = _gradient(halves, 1, leaves, free=last)
            on_a, on_b = (scaled([row[i] for i in theta], scales) for row in (a, b))
            reached.append(any(g is not None for g in (*on_a, *on_b)))
            if means is None:
                squares.append(_squares(on_a, on_b, halves.device))
            else:
                means.add(on_a)
                means.add(on_b)
            if gradients:
                of.append([_mean(*pair) for pair in zip(a, b, strict=True)])
        device = graph.losses[0].device
        if means is not None:
            rows = means.parts()
            squares = [_squares(a, b, device) for a, b in zip(rows[::2], rows[1::2], strict=True)]
        heard, unreached = _summed(torch.stack(squares), reached, ranks)
        samples = graph.unscaled(graph.unscaled(_samples(heard)))
        new = state.advance(samples, self.decay, graph.tasks)
        where = on_device(graph.tasks, new.mass.device)
        least = self.floor * (new.signal + new.noise)
        return Observation(
            norms=torch.maximum(new.signal, least)[where].sqrt(),
            gramian=None,
            unreached=unreached,
            gradients=TaskGradients(tuple(leaves), tuple(of)) if gradients else None,
            state=new,
        )


def _gradient(
    halves: Tensor, half: int, leaves: Sequence[Tensor], *, free: bool
) -> tuple[Tensor | None, ...]:
    which = (torch.arange(2, device=halves.device) == half).to(halves.dtype)
    return torch.autograd.grad(halves, leaves, which, retain_graph=not free, allow_unused=True)


def _squares(a: Gradients, b: Gradients, device: torch.device) -> Tensor:
    """The inner products of a and b with themselves and each other: (2, 2)."""
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for x, y in zip(a, b, strict=True):
        some = y if x is None else x
        if some is not None:
            rows[0].append(torch.zeros_like(some) if x is None else x)
            rows[1].append(torch.zeros_like(some) if y is None else y)
    return gramian_of(rows, torch.stack([norm(row, device) for row in rows]))


def _summed(
    squares: Tensor, reached: Sequence[bool], ranks: Ranks
) -> tuple[Tensor, tuple[int, ...]]:
    """The inner products (K, 2, 2) of all ranks' parts, and the tasks that reach nothing on any."""
    if ranks.several:
        flags = torch.tensor(reached, dtype=squares.dtype).to(squares.device, non_blocking=True)
        heard = ranks.total(torch.cat([squares.flatten(), flags]))
        squares = heard[: -len(reached)].view_as(squares)
        if not all(reached):
            reached = [n > 0 for n in heard[-len(reached) :].tolist()]
    return squares, tuple(k for k, found in enumerate(reached) if not found)


def _samples(squares: Tensor) -> Tensor:
    """⟨a, b⟩ and ¼ ‖a − b‖² of each task: (2, K)."""
    both = squares[:, 0, 1]
    apart = squares[:, 0, 0] + squares[:, 1, 1] - 2 * both
    return torch.stack([both, apart.clamp(min=0) / 4])


def _mean(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        one = a if b is None else b
        return None if one is None else one / 2
    return (a + b) / 2
