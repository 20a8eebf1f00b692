"""Norms without the noise of the mini-batch: from two disjoint halves of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from gaba.autograd.passes import Gradients, TaskGradients, one_pass
from gaba.autograd.sharding import sharded
from gaba.measurement.averages import averages
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import gramian_of, norm, scaled, totals
from gaba.tensors import DTYPE


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
        >>> found = HalfBatch().init(2).advance(samples, decay=0.5)
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

    def advance(self, samples: Tensor, decay: float) -> SignalAndNoise:
        """With the samples (2, K) taken in; a task whose samples are NaN keeps what it has."""
        known = ~samples.isnan().any(0)
        return SignalAndNoise(
            torch.where(known, decay * self.mean + (1 - decay) * samples, self.mean),
            torch.where(known, decay * self.mass + (1 - decay), self.mass),
        )


@final
@dataclass(frozen=True)
class HalfBatch(Measurement):
    """The norm of each task's expected gradient, so that a noisy task is not taken for a loud one.

    With a_k and b_k the gradients of task k on two independent halves of a batch, E⟨a_k, b_k⟩ is
    ‖∇_θ E L_k‖² exactly, and E ¼‖a_k − b_k‖² is the noise of the batch gradient. Both are averaged
    over the steps; max(signal, floor · (signal + noise))^½ is reported. The losses must come by
    halves, (2,), each entry the mean over one half of a shuffled batch::

        errors = (prediction - target).square().mean(dim=1)  # one for each example
        losses = {"a": torch.stack([half.mean() for half in errors.chunk(2)]), ...}

    Args:
        decay: d in [0, 1), with which both averages forget; 0.99 averages about 100 steps.
        floor: in (0, 1], which part of the plain mean squared norm is reported at least.

    Raises:
        ValueError: a setting is out of its range, the losses are scalars, the Gramian is asked for,
            or FSDP has sharded the parameters.

    Source: McCandlish et al., An Empirical Model of Large-Batch Training, 2018, section 2.2 and
    appendix A.1, here with the batch and its halves.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.zeros(2))
        >>> halves = torch.tensor([[4.0, 1.0], [4.0, -1.0]]) @ w  # the mean over each half
        >>> graph = LossGraph([halves.mean()], as_shared([w]), given=[halves])
        >>> seen, state = HalfBatch().update(Request(graph), HalfBatch().init(1))
        >>> round(float(seen.norms[0]), 3), round(float(state.noise_scale[0]), 3)  # √(4·4 − 1·1)
        (3.873, 0.067)
    """

    loss_shape: ClassVar[tuple[int, ...]] = (2,)
    averages: ClassVar[bool] = True

    decay: float = 0.99
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, found {self.decay}")
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor must be above 0 and at most 1, found {self.floor}")

    def init(self, n_tasks: int) -> SignalAndNoise:
        """Nothing known of any task."""
        return SignalAndNoise(
            torch.zeros(2, n_tasks, dtype=DTYPE), torch.zeros(n_tasks, dtype=DTYPE)
        )

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses by halves; 2 K passes, and no further one."""
        graph, ranks = told.graph, told.ranks
        if told.gramian or any(pair.shape != (2,) for pair in graph.given):
            raise ValueError(
                "HalfBatch needs losses by halves and gives no Gramian: give losses of shape (2,), "
                "and use a rule that needs norms only, or measure='exact'"
            )
        theta, leaves = graph.theta, graph.leaves if told.gradients else graph.theta
        if sharded(theta):
            raise ValueError(
                "HalfBatch cannot take the gradients of parameters that FSDP has sharded: use "
                "measure='exact', with losses that are scalars"
            )
        scales = told.scales(theta)
        means = averages(ranks, theta, told.step) if ranks.several else None
        rows: list[Gradients] = []
        squares: list[Tensor] = []
        reached: list[bool] = []
        for k, pair in enumerate(graph.given):
            first, second = torch.eye(2, dtype=pair.dtype, device=pair.device)
            last = told.frees and k == len(graph.given) - 1
            a = one_pass(graph, pair, leaves, seed=first)
            b = one_pass(graph, pair, leaves, seed=second, free=last)
            on_a, on_b = (scaled(row[: len(theta)], scales) for row in (a, b))
            reached.append(any(g is not None for g in (*on_a, *on_b)))
            if means is None:
                squares.append(_squares(on_a, on_b, graph.device))
            else:
                means.add(on_a)
                means.add(on_b)
            if told.gradients:
                rows.append([_mean(*both) for both in zip(a, b, strict=True)])
        if means is not None:
            parts = means.parts()
            pairs = zip(parts[::2], parts[1::2], strict=True)
            squares = [_squares(a, b, graph.device) for a, b in pairs]
        heard, anywhere = totals(told, torch.stack(squares), reached)
        samples = graph.spread(told.unscaled(told.unscaled(_samples(heard).T))).T
        new = state.advance(samples, self.decay)
        norms = torch.maximum(new.signal, self.floor * (new.signal + new.noise)).sqrt()
        found = TaskGradients(leaves, tuple(rows)) if told.gradients else None
        lost = tuple(k for k, some in zip(graph.tasks, anywhere, strict=True) if not some)
        known = ~samples.isnan().any(0)
        return Observation(torch.where(known, norms, torch.nan), None, lost, found), new


def _squares(a: Gradients, b: Gradients, device: torch.device) -> Tensor:
    """The inner products of a and b with themselves and each other: (2, 2)."""
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for x, y in zip(a, b, strict=True):
        some = y if x is None else x
        if some is not None:
            rows[0].append(torch.zeros_like(some) if x is None else x)
            rows[1].append(torch.zeros_like(some) if y is None else y)
    return gramian_of(rows, torch.stack([norm(row, device) for row in rows]))


def _samples(squares: Tensor) -> Tensor:
    """⟨a, b⟩ and ¼ ‖a − b‖² of each task: (2, k)."""
    both = squares[:, 0, 1]
    apart = squares[:, 0, 0] + squares[:, 1, 1] - 2 * both
    return torch.stack([both, apart.clamp(min=0) / 4])


def _mean(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        one = a if b is None else b
        return None if one is None else one / 2
    return (a + b) / 2
