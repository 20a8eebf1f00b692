"""What follows from what was seen: stabilise → weigh → stabilise, without side effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from gaba import _state
from gaba.arrays import work_dtype
from gaba.autograd.losses import Batch
from gaba.measurement import Measurement, Observation
from gaba.multipliers import Scale, gain_of
from gaba.stabilisers import AnyStabiliser
from gaba.rules import AnyWeighting, Measured, Weighting


@dataclass(frozen=True)
class BalancerState:
    """All that the Balancer remembers from step to step.

    Attributes:
        measurement: the state of the measurement.
        norm: the state of the norm stabiliser.
        weight: the state of the weight stabiliser.
        weighting: the state of the weighting, if it has a memory.
        weights: (K,), the last weights, those of missing tasks as when they were last there.
        gain: (), the last common factor.
    """

    measurement: Any
    norm: Any
    weight: Any
    weighting: Any
    weights: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Decision:
    """What was decided for one step: vectors over all K tasks, and the state that follows."""

    weights: Tensor
    gain: Tensor
    saturated: Tensor
    finite: Tensor
    state: BalancerState


@final
@dataclass(frozen=True)
class Rules:
    """From norms (or Gramian, or losses) to weights and gain, and to the state that follows.

    Attributes:
        norm_stabiliser: what is believed about the norms.
        weighting: the rule.
        weight_stabiliser: what the weights may do.
        scale: the length of the combined update.
        anchor: the position of the task that keeps weight 1, if one does.
        windows: whether weights are held over several micro-batches.
    """

    norm_stabiliser: AnyStabiliser | None
    weighting: AnyWeighting
    weight_stabiliser: AnyStabiliser | None
    scale: Scale
    anchor: int | None
    windows: bool

    def init(self, n_tasks: int, measurement: Measurement) -> BalancerState:
        """The state before the first step, for K = ``n_tasks``; uniform weights."""
        norm, weight = (
            () if s is None else s.init(n_tasks)
            for s in (self.norm_stabiliser, self.weight_stabiliser)
        )
        dtype = work_dtype(torch.device("cpu"))
        uniform = torch.full((n_tasks,), 1.0 / n_tasks, dtype=dtype)
        seen, rule = measurement.init(n_tasks), ()
        if isinstance(self.weighting, Weighting):
            square = self.weighting.needs == "gramian"
            # a rule made for another number of tasks says so now
            self.weighting(torch.eye(n_tasks, dtype=dtype) if square else uniform)
        else:
            rule = self.weighting.init(n_tasks)
        return BalancerState(seen, norm, weight, rule, uniform, torch.ones((), dtype=dtype))

    def decide(
        self, batch: Batch, seen: Observation | None, old: BalancerState, *, held: bool
    ) -> Decision:
        """What to do with the losses of ``batch``, of which ``seen`` was observed.

        Args:
            batch: the losses of the tasks present.
            seen: what was observed of them, or ``None`` if nothing was.
            old: the state so far.
            held: whether the weights are to stay those of an earlier micro-batch.
        """
        new = old
        finite = torch.stack([loss.isfinite() for loss in batch.values]).all()
        if seen is not None:
            finite = finite & seen.norms.isfinite().all()
        if seen is not None or (self.weighting.needs == "losses" and not held):
            new = self._update(batch, seen, old)
            finite = finite & new.weights.isfinite().all() & new.gain.isfinite()
            new = _state.select(finite, new, old)
        late = seen is not None and seen.gradients is not None and seen.gradients.weighted
        acting = old if late else new
        weights, gain = batch.on_simplex(acting.weights), self.gain(batch, acting)
        saturated = _state.saturated(acting.weight, batch.n_tasks, batch.device)
        return Decision(weights, gain, saturated & batch.mask, finite, new)

    def _update(self, batch: Batch, seen: Observation | None, old: BalancerState) -> BalancerState:
        norms, norm_state = None, old.norm
        if seen is not None:
            norms = batch.spread(seen.norms)
            if self.norm_stabiliser is not None:
                norms, norm_state = self.norm_stabiliser.update(norms, old.norm, batch.present)
        raw, rule_state = self._ask(batch, seen, norms, old.weighting)
        norms = None if norms is None else batch.take(norms)
        length = raw.sum()
        asked = self._on_simplex(raw, length)
        weights, weight_state = batch.fill(asked, old.weights), old.weight
        if self.weight_stabiliser is not None:
            weights, weight_state = self.weight_stabiliser.update(
                weights, old.weight, batch.present
            )
        weights = batch.on_simplex(weights)
        gain = gain_of(
            batch.take(weights),
            norms,
            self.scale,
            length=length,
            anchor=batch.position(self.anchor),
            held=None if self.anchor is None else self.gain(batch, old),
        )
        if self._each_by_itself and batch.present is not None:
            kept = batch.fill(batch.take(weights), old.weights)
            gain = gain / torch.where(batch.mask, kept, 0.0).sum()
        return BalancerState(
            old.measurement if seen is None else seen.state,
            norm_state,
            weight_state,
            rule_state,
            batch.fill(batch.take(weights), old.weights),
            gain,
        )

    def _ask(
        self, batch: Batch, seen: Observation | None, norms: Tensor | None, state: Any
    ) -> tuple[Tensor, Any]:
        """The weights of the tasks present, of any sum, and what the weighting then remembers."""
        if isinstance(self.weighting, Weighting):
            rule = self.weighting.of(batch.indices)
            needed = self._needed(batch, seen, norms)
            return (rule.raw if self.scale == "rule" else rule)(needed), state
        raw, state = self.weighting.update(self._measured(batch, seen, norms), state, batch.present)
        return batch.take(raw), state

    def _needed(self, batch: Batch, seen: Observation | None, norms: Tensor | None) -> Tensor:
        """What a rule without memory takes, of the tasks present."""
        if seen is None or norms is None or self.weighting.needs == "losses":
            return torch.stack(batch.values)
        believed = batch.take(norms)
        return believed if self.weighting.needs == "norms" else self._gramian(seen, believed)

    def _gramian(self, seen: Observation, believed: Tensor) -> Tensor:
        """The Gramian of the tasks present, with their norms as they are believed."""
        if seen.gramian is None:
            raise ValueError(
                f"weighting {self.weighting!r} needs the Gramian, which the measurement did not "
                "give: use measurement='exact'"
            )
        found = seen.norms
        ratio = torch.where(found > 0, believed / found, torch.ones_like(found))
        return seen.gramian * ratio[:, None] * ratio

    def _measured(self, batch: Batch, seen: Observation | None, norms: Tensor | None) -> Measured:
        """What a rule with a memory is told, over all K tasks."""
        losses = batch.spread(torch.stack(batch.values))
        if seen is None or norms is None:
            return Measured(losses)
        gramian, statistics = seen.gramian, seen.statistics
        if gramian is not None or self.weighting.needs == "gramian":
            gramian = batch.spread_square(self._gramian(seen, batch.take(norms)))
        if statistics is not None:
            statistics = torch.stack([batch.spread(column) for column in statistics.unbind(-1)], -1)
        return Measured(losses, norms, gramian, statistics)

    def _on_simplex(self, raw: Tensor, length: Tensor) -> Tensor:
        """``raw`` brought to sum 1; NaN, so that the step is left out, where that would turn it.

        With its own ``length`` a rule may give weights of any sum, and none at all: gain 0 then.
        """
        if self.scale != "rule":
            return torch.where(length > 0, raw / length, torch.full_like(raw, torch.nan))
        return torch.where((raw == 0).all(), torch.full_like(raw, 1 / len(raw)), raw / length)

    def gain(self, batch: Batch, state: BalancerState) -> Tensor:
        """The gain of a step with the weights of ``state``.

        Within a window, and where the rule says how long the update is, λ_k · gain is held, for
        each task by itself, also where others are missing.
        """
        if not self._each_by_itself or batch.present is None:
            return state.gain
        return state.gain * torch.where(batch.mask, state.weights, 0.0).sum()

    @property
    def _each_by_itself(self) -> bool:
        return self.windows or self.scale == "rule"
