"""A method: which pieces a Balancer is made of, and what they decide together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor

from gaba import measurement as measurements
from gaba.autograd.losses import check_choice
from gaba.autograd.shared import Shared, SharedSpec
from gaba.measurement import Measurement
from gaba.multipliers import Asked, Bounds, Multiplied, Scale
from gaba.pieces import Piece, Seen
from gaba.rules import Rule, asked
from gaba.stabilisers import Chain, Identity, LogEMA, Stabiliser, Warmup
from gaba.state import all_finite, flatten

Heads: TypeAlias = Literal["weighted", "plain"]
Metric: TypeAlias = Literal["euclidean", "optimizer"]


@final
@dataclass(frozen=True, eq=False)
class MethodState:
    """What the pieces of a method remember."""

    believe: Any
    rule: Any
    smooth: Any
    bounds: Multiplied

    @property
    def multipliers(self) -> Tensor:
        """(K,), those of the last step; a task of which nothing is believed keeps its own."""
        return self.bounds.multipliers


@final
@dataclass(frozen=True, eq=False)
class Decision:
    """What follows from what was seen.

    Attributes:
        multipliers: (K,), m.
        saturated: (K,), bool, which of them are at their limit or floor.
        finite: (), bool, whether they and all that is remembered are finite.
    """

    multipliers: Tensor
    saturated: Tensor
    finite: Tensor


@final
@dataclass(frozen=True)
class Method(Piece[Seen, Decision]):
    """The pieces of a Balancer: measure → believe → rule → smooth → scale and limit.

    Args:
        rule: from norms, Gramian or losses to multipliers.
        measure: what is observed of each task, an object, a name, or ``"auto"`` for what
            :func:`gaba.measurement.choose` recommends.
        believe: what is believed about the norms. By default
            :class:`~gaba.stabilisers.LogEMA`, or nothing where the measurement averages itself.
        smooth: how multipliers move.
        scale: the common length of the update, see :class:`gaba.multipliers.Bounds`.
        heads: ``"weighted"``: the heads get m_k ∇L_k. ``"plain"``: parameters that are not shared
            and that one task alone reaches get ∇L_k.
        every: measure in every n-th step; the others keep the multipliers as they are.
        limit: no loss is multiplied or divided by more than this; ``None`` for no limit.
        recovery: a task that converges is not amplified by more than this; ``None`` for no bound.
        anchor: the position of the task whose multiplier stays 1.
        metric: ``"euclidean"``, or ``"optimizer"`` for norms in the steps that the optimizer takes.

    Raises:
        ValueError, TypeError: a setting breaks its rule.

    Example:
        >>> import gaba
        >>> method = gaba.methods.get("inverse").replace(measure="sketch", every=4)
        >>> type(method.measure).__name__, method.believe
        ('SketchNorms', Identity())
    """

    rule: Rule
    measure: Measurement | str = "exact"
    believe: Stabiliser | None = None
    smooth: Stabiliser = Identity()  # noqa: RUF009 - frozen
    scale: Scale = "sum"
    heads: Heads = "weighted"
    every: int = 1
    limit: float | None = 1000.0
    recovery: float | None = None
    anchor: int | None = None
    metric: Metric = "euclidean"

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise TypeError(
                f"rule must be a Rule object, found {self.rule!r}: use gaba.methods.get('inverse') "
                "for a method by its name"
            )
        check_choice("heads", self.heads, ("weighted", "plain"))
        check_choice("metric", self.metric, ("euclidean", "optimizer"))
        if isinstance(self.measure, str) and self.measure != "auto":
            object.__setattr__(self, "measure", measurements.by_name(self.measure))
        if self.believe is None:
            averages = isinstance(self.measure, Measurement) and self.measure.averages
            object.__setattr__(self, "believe", Identity() if averages else LogEMA())
        for name, kind in (("believe", Stabiliser), ("smooth", Stabiliser)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be a Stabiliser object, found {getattr(self, name)!r}: use "
                    "gaba.stabilisers.Identity() for none"
                )
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be a whole number of at least 1, found {self.every!r}")
        if self.needs_every_step and self.every > 1:
            raise ValueError(
                f"every must be 1 with heads={self.heads!r} and {self.measure!r}, found "
                f"{self.every}: they need the gradients of each task in each step"
            )
        self.bounds  # noqa: B018 - refuses a scale or limit that breaks its rule

    def replace(self, **changes: Any) -> Method:
        """This method with some of its slots changed.

        A new ``measure`` brings the matching ``believe`` with it, so nothing is averaged twice. A
        method that believes norms as they are still does.
        """
        if "measure" in changes and "believe" not in changes:
            matching = Method(self.rule, changes["measure"]).believe
            averaged = isinstance(self.measure, Measurement) and self.measure.averages
            if isinstance(matching, Identity) or averaged:
                changes["believe"] = matching
        return replace(self, **changes)

    def for_model(self, n_tasks: int, shared: Shared | SharedSpec) -> tuple[Method, str]:
        """This method with its measurement settled for K tasks and a model, and why.

        Example:
            >>> import gaba
            >>> method = gaba.methods.get("inverse", measure="auto")
            >>> method.for_model(2, torch.nn.Linear(2, 2))[0].every
            10
        """
        if self.measure != "auto":
            return self, ""
        choice = measurements.choose(
            n_tasks,
            shared,
            gramian=self.rule.needs == "gramian",
            every_step=self.heads == "plain",
        )
        return self.replace(measure=choice.measurement, every=choice.every), choice.reason

    @property
    def needs_every_step(self) -> bool:
        """Whether steps without measurement would be combined from other gradients."""
        settled = isinstance(self.measure, Measurement) and self.measure.needs_every_step
        return self.heads == "plain" or settled

    @property
    def measured(self) -> Measurement:
        """The measurement, once it is settled."""
        assert isinstance(self.measure, Measurement), "for_model settles 'auto'"
        return self.measure

    @property
    def measures(self) -> bool:
        """Whether anything has to be measured at all."""
        return self.rule.needs != "losses" or self.heads == "plain"

    @property
    def bounds(self) -> Bounds:
        """What keeps the multipliers within their limits."""
        return Bounds(self.scale, self.limit, self.recovery, self.anchor)

    @property
    def warm_up(self) -> int:
        """In how many steps the multipliers are equal, whatever is measured.

        Example:
            >>> import gaba
            >>> gaba.methods.get("paper").warm_up
            100
        """
        links = self.smooth.stabilisers if isinstance(self.smooth, Chain) else (self.smooth,)
        return self.every * sum(link.steps for link in links if isinstance(link, Warmup))

    def init(self, n_tasks: int) -> MethodState:
        """The state before the first step, for K = ``n_tasks``."""
        believe = self.believe or Identity()
        return MethodState(
            believe.init(n_tasks),
            self.rule.init(n_tasks),
            self.smooth.init(n_tasks),
            self.bounds.init(n_tasks),
        )

    def update(self, told: Seen, state: MethodState) -> tuple[Decision, MethodState]:
        """Believe → weigh → smooth → scale and limit, for norms as they were measured."""
        believe, bounds = self.believe or Identity(), self.bounds
        living = bounds.living(told.norms, state.bounds)
        believed, believe_state = believe.update(living, state.believe)
        norms = bounds.recovered(believed, state.bounds)
        seen = _believing(told, norms)
        raw, rule_state = asked(self.rule, seen, state.rule)
        weights = bounds.shared_out(raw, state.bounds)
        smooth, smooth_state = self.smooth.update(weights, state.smooth)
        multipliers, bounded = bounds.update(Asked(smooth, norms), state.bounds)
        new = MethodState(believe_state, rule_state, smooth_state, bounded)
        decision = Decision(multipliers, _saturated(new), self._sound(seen, weights, new))
        return decision, new

    def keep(self, state: MethodState) -> Decision:
        """The decision of a step from which nothing is learnt: the multipliers as they are.

        Example:
            >>> import gaba
            >>> method = gaba.methods.get("inverse")
            >>> method.keep(method.init(2)).multipliers
            tensor([1., 1.], dtype=torch.float64)
        """
        multipliers = state.multipliers
        return Decision(multipliers, _saturated(state), multipliers.isfinite().all())

    def _sound(self, seen: Seen, weights: Tensor, new: MethodState) -> Tensor:
        """Whether the rule answered for each task it was told of, and all is finite: (), bool."""
        known = {
            "losses": seen.losses,
            "norms": seen.norms,
            "gramian": seen.norms if seen.gramian is None else seen.gramian.diagonal(),
        }[self.rule.needs]
        answered = (known.isnan() | ~weights.isnan()).all()
        return answered & new.multipliers.isfinite().all() & all_finite(new).to(weights.device)


def _believing(told: Seen, norms: Tensor) -> Seen:
    """What a rule is told: the norms as believed, and the Gramian with these norms."""
    gramian = told.gramian
    if gramian is not None:
        measured = told.norms
        ratio = torch.where(measured > 0, norms / measured, norms - norms + 1)  # NaN if unknown
        gramian = gramian * ratio[:, None] * ratio
    return Seen(told.losses, norms, gramian, told.statistics)


def _saturated(state: MethodState) -> Tensor:
    """(K,), bool: which multipliers are at the limit, or at a bound of the smoothing."""
    flags = state.bounds.saturated
    for name, tensor in flatten(state.smooth).items():
        if name.rpartition(".")[2] == "saturated":
            flags = flags | tensor
    return flags
