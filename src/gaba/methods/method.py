"""A method: which pieces a Balancer is made of, and what they decide together."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor

from gaba import measurement as measurements
from gaba.autograd.losses import check_choice
from gaba.measurement import Measurement, SmoothedGradients, Tracked, Watched
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

    @property
    def saturated(self) -> Tensor:
        """(K,), bool: which multipliers are at the limit, or at a bound of the smoothing."""
        flags = self.bounds.saturated
        for name, tensor in flatten(self.smooth).items():
            if name.rpartition(".")[2] == "saturated":
                flags = flags | tensor
        return flags


@final
@dataclass(frozen=True)
class Method(Piece[Seen, Tensor]):
    """The pieces of a Balancer: measure → believe → rule → smooth → scale and limit.

    Args:
        rule: from norms, Gramian or losses to multipliers.
        measure: what is observed of each task, an object or a name.
        believe: what is believed about the norms. By default
            :class:`~gaba.stabilisers.LogEMA`, or nothing where the measurement averages itself.
        smooth: how multipliers move.
        scale: the common length of the update, see :class:`gaba.multipliers.Bounds`.
        heads: ``"weighted"``: the heads get m_k ∇L_k. ``"plain"``: parameters that are not shared
            and that one task alone reaches get ∇L_k.
        every: measure in every n-th step; the others keep the multipliers as they are.
        rise: no multiplier in use grows by more than this factor in one step of the optimizer, from
            1 at the start; it may fall at once. A task whose head is still near zero looks quiet,
            and would be amplified just before it gets loud. ``None`` for no bound.
        limit: no loss is multiplied or divided by more than this; ``None`` for no limit.
        recovery: a task that converges is not amplified by more than this; ``None`` for no bound.
        spared: the positions of tasks that are never multiplied by more than 1.
        excuse_rare: press a task down less if few batches have it, see
            :class:`gaba.multipliers.Bounds`.
        observes: the backward pass is that of the plain sum, bit for bit, whatever is measured.
        anchor: the position of the task whose multiplier stays 1.
        metric: ``"euclidean"``, or ``"optimizer"`` for norms in the steps that the optimizer takes.

    Raises:
        ValueError, TypeError: a setting breaks its rule.

    Example:
        >>> import gaba
        >>> method = gaba.methods.get("inverse").replace(measure="half-batch", every=4)
        >>> type(method.measure).__name__, method.believe
        ('HalfBatch', Identity())
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
    rise: float | None = None
    spared: tuple[int, ...] = ()
    excuse_rare: bool = False
    observes: bool = False
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
        if isinstance(self.measure, str):
            object.__setattr__(self, "measure", measurements.by_name(self.measure))
        if not isinstance(self.measure, Measurement):
            raise TypeError(
                f"measure must be a Measurement object or its name, found {self.measure!r}: use "
                "gaba.measurement.ExactNorms(), or measure='exact'"
            )
        if self.believe is None:
            believe = Identity() if self.measured.averages else LogEMA()
            object.__setattr__(self, "believe", believe)
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
        if self.rise is not None and not self.rise > 1:
            raise ValueError(
                f"rise must be above 1, or None for no bound, found {self.rise!r}: 1.2 lets a "
                "multiplier grow tenfold in 13 steps"
            )
        self.bounds  # noqa: B018 - refuses a scale or limit that breaks its rule

    def __repr__(self) -> str:
        """The rule, and every slot that is not as it is by default."""
        plain = Method(self.rule)
        changed = [
            f", {f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name != "rule" and getattr(self, f.name) != getattr(plain, f.name)
        ]
        return f"Method({self.rule!r}{''.join(changed)})"

    def replace(self, **changes: Any) -> Method:
        """This method with some of its slots changed.

        A new ``measure`` brings the matching ``believe`` with it, so nothing is averaged twice. A
        method that believes norms as they are still does.
        """
        if "measure" in changes and "believe" not in changes:
            matching = Method(self.rule, changes["measure"]).believe
            if isinstance(matching, Identity) or self.measured.averages:
                changes["believe"] = matching
        measure = changes.get("measure", self.measure)
        measure = measurements.by_name(measure) if measure == "tracked" else measure
        names = ("every", "budget", "groups" if isinstance(measure, Watched) else "engine")
        own = {name: changes[name] for name in names if name in changes}
        if "groups" in changes and "groups" not in own:
            raise ValueError(
                f"groups must go with method='observe', found measure={self.measure!r}: use "
                "gaba.Observer(tasks, shared, groups='module')"
            )
        if isinstance(measure, Tracked | Watched):
            changes = {name: value for name, value in changes.items() if name not in own}
            changes["measure"] = replace(measure, **own)
        elif own.keys() - {"every"}:
            raise ValueError(
                f"{' and '.join(own.keys() - {'every'})} must go with measure='tracked', found "
                f"measure={self.measure!r}: use every=n to measure in every n-th step"
            )
        return replace(self, **changes)

    @property
    def needs_every_step(self) -> bool:
        """Whether steps without measurement would be combined from other gradients."""
        return self.heads == "plain" or self.measured.needs_every_step

    @property
    def measured(self) -> Measurement:
        """What :attr:`measure` names."""
        assert isinstance(self.measure, Measurement), "a name was replaced by what it names"
        return self.measure

    @property
    def measures(self) -> bool:
        """Whether anything has to be measured at all."""
        return self.rule.needs != "losses" or self.heads == "plain" or self.observes

    @property
    def bounds(self) -> Bounds:
        """What keeps the multipliers within their limits."""
        return Bounds(
            self.scale, self.limit, self.recovery, self.anchor, self.spared, self.excuse_rare
        )

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

    def update(
        self, told: Seen, state: MethodState, there: Tensor | None = None
    ) -> tuple[Tensor, MethodState]:
        """Believe → weigh → smooth → scale and limit, for norms as they were measured.

        ``there`` (K,), bool, are tasks that are not rare although this batch may lack them.

        Returns:
            Whether the rule answered and all that is remembered is finite, () bool; and the state,
            which holds the multipliers.

        Example:
            >>> import torch, gaba
            >>> method, norms = gaba.methods.get("inverse"), torch.tensor([4.0, 1.0]).double()
            >>> sound, state = method.update(Seen(norms, norms), method.init(2))
            >>> bool(sound), state.multipliers.tolist()
            (True, [0.625, 2.5])
        """
        believe, bounds = self.believe or Identity(), self.bounds
        living = bounds.living(told.norms, state.bounds)
        believed, believe_state = believe.update(living, state.believe)
        norms = bounds.recovered(believed, state.bounds)
        seen = _believing(told, norms)
        raw, rule_state = asked(self.rule, seen, state.rule)
        weights = bounds.shared_out(raw, state.bounds)
        smooth, smooth_state = self.smooth.update(weights, state.smooth)
        pulling = told.norms.nan_to_num() != 0
        pulling = pulling if there is None else pulling | there
        _, bounded = bounds.update(Asked(smooth, norms, pulling), state.bounds)
        new = MethodState(believe_state, rule_state, smooth_state, bounded)
        return self._sound(seen, weights, new), new

    def unfit(self, losses: Tensor, state: MethodState) -> tuple[Tensor | None, str]:
        """Which losses (K,) the method can do nothing with, and which it takes, in words.

        ``None`` if it takes all.

        Example:
            >>> import gaba
            >>> method = gaba.methods.get("scale-invariant")
            >>> method.unfit(torch.tensor([2.0, -1.0]), method.init(2))
            (tensor([False,  True]), 'above 0')
        """
        if isinstance(self.measure, SmoothedGradients) and self.measure.log:
            return losses <= 0, "above 0"
        return self.rule.unfit(losses, state.rule), self.rule.takes

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
    """What a rule is told: the norms as believed, and the Gramian with these norms.

    A task that is away has its believed norm there too, at right angles to the others.
    """
    gramian = told.gramian
    if gramian is not None:
        measured = told.norms
        ratio = torch.where(measured > 0, norms / measured, norms - norms + 1)  # NaN if unknown
        gramian = gramian * ratio[:, None] * ratio
        away = gramian.diagonal().isnan() & ~norms.isnan()
        alone = torch.diag(norms.square()) + 0 * norms * norms[:, None]  # NaN beside the unknown
        gramian = torch.where(away | away[:, None], alone, gramian)
    return Seen(told.losses, norms, gramian, told.statistics)
