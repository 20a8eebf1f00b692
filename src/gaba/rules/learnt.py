"""Rules whose multipliers are themselves learnt, by gradient descent on a loss of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import check_each, check_number
from gaba.rules._vectors import counts, known, nobody, ones, positive, row, softmax, zeros
from gaba.rules.rule import Needs, Rule

Descent = Literal["adam", "sgd"]

_EPS = 1e-8  # FAMO's
_MOST = 80.0  # |log σ²|: losses from 1e-34 to 1e34


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """What Adam remembers of the slopes of each task.

    Attributes:
        mean: (K,), the exponential average of the slopes.
        square: (K,), that of their squares.
        count: (K,), int64, how many steps each task has made.
    """

    mean: Tensor
    square: Tensor
    count: Tensor

    @staticmethod
    def zero(n_tasks: int) -> Moments:
        """Before the first step."""
        return Moments(zeros(n_tasks), zeros(n_tasks), counts(n_tasks))


@final
@dataclass(frozen=True)
class Adam:
    """x ← x − η m̂ / (√v̂ + ε), with m̂ and v̂ the debiased averages of the slope s and of s².

    A task that is left out of a step keeps its number, its averages and its count.

    Args:
        learning_rate: η.
        decay: added to the slope as decay · x.
        betas: with which the two averages forget.
        eps: ε.

    Source: Kingma and Ba, Adam, ICLR 2015, algorithm 1.

    Example:
        >>> x, here = torch.zeros(2).double(), torch.tensor([True, False])
        >>> Adam(0.1, eps=0.0).step(x, torch.tensor([5.0, -3.0]), Moments.zero(2), here)[0]
        tensor([-0.1000,  0.0000], dtype=torch.float64)
    """

    learning_rate: float
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def step(
        self, x: Tensor, slope: Tensor, moments: Moments, here: Tensor
    ) -> tuple[Tensor, Moments]:
        """The next x (K,) and moments, for the tasks in the mask ``here`` (K,)."""
        slope = slope + self.decay * x
        one, two = self.betas
        mean = one * moments.mean + (1 - one) * slope
        square = two * moments.square + (1 - two) * slope.square()
        count = moments.count + 1
        root = (square / (1 - torch.pow(two, count.to(x.dtype)))).sqrt()
        step = mean / (1 - torch.pow(one, count.to(x.dtype))) / (root + self.eps)
        return torch.where(here, x - self.learning_rate * step, x), Moments(
            torch.where(here, mean, moments.mean),
            torch.where(here, square, moments.square),
            torch.where(here, count, moments.count),
        )


@final
@dataclass(frozen=True, eq=False)
class LogVariances:
    """The learnt log-variances.

    Attributes:
        s: (K,), s_k = log σ_k².
        moments: Adam's.
    """

    s: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class Uncertainty(Rule):
    """Learn a variance σ_k² for each task, and multiply by its inverse, m_k = ½ e^{−s_k}.

    s_k = log σ_k² descends, from 0 and by Adam, on Σ_k (½ e^{−s_k} L_k + ½ s_k). It is drawn to
    log L_k: learnt slowly, this is :class:`ScaleInvariant` up to the factor ½.

    Args:
        learning_rate: of s, positive. Each s_k moves by about this much in a step.

    Raises:
        ValueError: ``learning_rate`` is out of its range. A negative loss is followed as the
            formula says: m_k grows, up to e^80.

    Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics, CVPR 2018, equation 7 and section 3.2; the default rate is that of
    Navon et al. 2022.

    Example:
        >>> rule, losses = Uncertainty(learning_rate=0.5), torch.tensor([5.0, 0.5])
        >>> state = rule.init(2)
        >>> for _ in range(200):
        ...     m, state = rule.update(Seen(losses, torch.ones(2)), state)
        >>> m
        tensor([0.1000, 1.0000], dtype=torch.float64)
    """

    learning_rate: float = 0.025
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        check_number(self, "learning_rate", "0.025 is the default")

    def init(self, n_tasks: int) -> LogVariances:
        """All variances 1."""
        return LogVariances(zeros(n_tasks), Moments.zero(n_tasks))

    def update(self, seen: Seen, state: LogVariances) -> tuple[Tensor, LogVariances]:
        """The multipliers (K,) of this step, and the state with the step of s made."""
        losses, here = known(seen.losses, 1.0)
        multipliers = 0.5 * torch.exp(-state.s)
        slope = 0.5 - multipliers * losses
        s, moments = Adam(self.learning_rate).step(state.s, slope, state.moments, here)
        return multipliers, LogVariances(s.clamp(-_MOST, _MOST), moments)


@final
@dataclass(frozen=True, eq=False)
class Logits:
    """The learnt logits, and the losses that the next ones are compared with.

    Attributes:
        logits: (K,), ξ.
        last: (K,), the last D of each task.
        seen: (K,), bool, whether there has been one.
        moments: Adam's.
    """

    logits: Tensor
    last: Tensor
    seen: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class FAMO(Rule):
    """Let all losses fall at the same rate, m_k = (z_k/D_k) / Σ_j (z_j/D_j), z = softmax(ξ).

    D_k = L_k − b_k + 1e-8 is the loss over its lower bound. The logits ξ learn by Adam, with slope
    Jᵀδ + γ ξ, from δ_k = log D_k − log D'_k, how far a task fell in one step: a faster one loses
    weight. D' is the loss of the next step, where the published code repeats the same batch.
    Everything is over the tasks present; one that was missing is compared with its last loss.

    Args:
        learning_rate: of ξ, positive.
        decay: γ, zero or more, which draws z to uniform.
        minimum: b, one number or one a task.

    Raises:
        ValueError: A setting is out of its range, or ``minimum`` does not hold K numbers. A loss
            that is not above b is refused by a Balancer; here the answer is NaN where D_k is not
            above 0.

    Source: Liu, Feng, Stone and Liu, FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023,
    algorithm 1; defaults and 1e-8 of its published code.

    Example:
        >>> rule = FAMO(decay=0.0)
        >>> rule.update(Seen(torch.tensor([1.0, 4.0]), torch.ones(2)), rule.init(2))[0]  # ∝ 1/L
        tensor([0.8000, 0.2000], dtype=torch.float64)
    """

    learning_rate: float = 0.025
    decay: float = 0.01
    minimum: float | Sequence[float] = 0.0
    needs: ClassVar[Needs] = "losses"
    takes: ClassVar[str] = "above the rule's `minimum`"

    def __post_init__(self) -> None:
        check_number(self, "learning_rate", "the published code has 0.025")
        check_number(self, "decay", "the published code has 0.01", zero=True)
        if isinstance(self.minimum, Sequence):
            object.__setattr__(self, "minimum", tuple(float(bound) for bound in self.minimum))

    def init(self, n_tasks: int) -> Logits:
        """Uniform z, no loss seen."""
        if isinstance(self.minimum, Sequence):
            check_each(self, "minimum", n_tasks)
        return Logits(zeros(n_tasks), zeros(n_tasks), nobody(n_tasks), Moments.zero(n_tasks))

    def unfit(self, losses: Tensor, state: Logits) -> Tensor | None:
        """Losses that are not above their lower bound (K,)."""
        return losses <= self._bound(losses)

    def _bound(self, losses: Tensor) -> Tensor | float:
        return row(self.minimum, losses) if isinstance(self.minimum, Sequence) else self.minimum

    def update(self, seen: Seen, state: Logits) -> tuple[Tensor, Logits]:
        """The multipliers (K,) of this step, and the state: ξ has learnt what the last one did."""
        losses, here = known(seen.losses, 1.0)
        gap = positive(torch.where(here, losses - self._bound(losses) + _EPS, 1.0))
        both = here & state.seen
        z = softmax(state.logits, both)
        fallen = torch.where(both, torch.where(both, state.last, 1.0).log() - gap.log(), 0.0)
        slope = z * (fallen - (z * fallen).sum(-1, keepdim=True))
        adam = Adam(self.learning_rate, self.decay)
        logits, moments = adam.step(state.logits, slope, state.moments, both)
        raw = softmax(logits, here) / gap
        last = torch.where(here, gap, state.last)
        new = Logits(logits, last, state.seen | here, moments)
        return raw / raw.sum(-1, keepdim=True), new


@final
@dataclass(frozen=True, eq=False)
class LearntWeights:
    """The weights so far, and what their next step needs.

    Attributes:
        weights: (K,), w.
        first: (K,), the first loss of each task that is not 0.
        seen: (K,), bool, whether there has been one.
        moments: Adam's.
    """

    weights: Tensor
    first: Tensor
    seen: Tensor
    moments: Moments


@final
@dataclass(frozen=True)
class GradNorm(Rule):
    """Learn the multipliers w by which contributions follow the training rates.

    A step of descent on Σ_k |w_k g_k − ḡ r_k^α| in w, then Σ_k w_k = K again. ḡ is the mean
    contribution; r_k = (L_k/L_k(0)) / mean_j (L_j/L_j(0)) says how slowly task k learns. The step
    of w acts in the next step of the model. A weight that would become negative becomes 0. Means
    and sums are over the tasks present. At α = 0 the fixed point is :class:`InverseNorm`.

    Args:
        alpha: α, zero or more; 0 asks for equal contributions.
        learning_rate: of w, positive. Adam changes a weight by about this much in a step, plain
            gradient descent by this much times g_k.
        descent: ``"adam"`` or ``"sgd"``.

    Raises:
        ValueError: A setting is out of its range. A Balancer refuses a loss whose sign is not that
            of its first value where α is not 0: its rate has no power.

    Source: Chen et al., GradNorm, ICML 2018, equations 1 and 2 and algorithm 1; the defaults are
    those of its experiments, which measure at the last shared layer, unsmoothed.

    Example:
        >>> rule, seen = GradNorm(0.0, 0.1), Seen(torch.ones(2), torch.tensor([3.0, 1.0]))
        >>> state = rule.init(2)
        >>> for _ in range(200):
        ...     w, state = rule.update(seen, state)
        >>> [round(float(x), 1) for x in w]  # InverseNorm, times K
        [0.5, 1.5]
    """

    alpha: float = 1.5
    learning_rate: float = 0.025
    descent: Descent = "adam"
    defined_at_zero: ClassVar[bool] = True
    takes: ClassVar[str] = "of the sign that it had first"

    def __post_init__(self) -> None:
        check_number(self, "alpha", "the paper has 1.5", zero=True)
        check_number(self, "learning_rate", "the paper has 0.025")
        if self.descent not in get_args(Descent):
            raise ValueError(
                f"GradNorm: descent must be one of {', '.join(get_args(Descent))}, found "
                f"{self.descent!r}; the paper has adam"
            )

    def init(self, n_tasks: int) -> LearntWeights:
        """All weights 1, no loss seen."""
        return LearntWeights(ones(n_tasks), zeros(n_tasks), nobody(n_tasks), Moments.zero(n_tasks))

    def unfit(self, losses: Tensor, state: LearntWeights) -> Tensor | None:
        """Losses that have changed their sign (K,)."""
        return state.seen & (losses * state.first.sign() < 0) if self.alpha else None

    def update(self, seen: Seen, state: LearntWeights) -> tuple[Tensor, LearntWeights]:
        """The weights w (K,) of this step, and the state with the step of w made."""
        losses, told = known(seen.losses, 1.0)
        norms, measured = known(seen.norms, 0.0)
        here = told & measured
        n_tasks = here.sum(-1, keepdim=True)

        def total(values: Tensor) -> Tensor:
            return torch.where(here, values, 0.0).sum(-1, keepdim=True)

        started = state.seen | (here & (losses != 0))
        first = torch.where(state.seen, state.first, torch.where(started, losses, 0.0))
        rates = torch.where(here, losses / torch.where(started, first, 1.0), 0.0)
        mean_rate = total(rates) / n_tasks
        slowness = rates / torch.where(mean_rate == 0, 1.0, mean_rate)
        pulls = state.weights * norms
        wanted = total(pulls) / n_tasks * slowness**self.alpha
        slope = torch.where(here, (pulls - wanted).sign() * norms, 0.0)
        moved, moments = self._step(state.weights, slope, state.moments, here)
        moved = moved.clamp(min=0)
        before, after = total(state.weights), total(moved)
        weights = torch.where(here & (after != 0), moved * (before / after), state.weights)
        return state.weights, LearntWeights(weights, first, started, moments)

    def _step(
        self, weights: Tensor, slope: Tensor, moments: Moments, here: Tensor
    ) -> tuple[Tensor, Moments]:
        if self.descent == "adam":
            return Adam(self.learning_rate).step(weights, slope, moments, here)
        return weights - self.learning_rate * slope, moments
