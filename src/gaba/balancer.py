"""The Balancer: measure → stabilise → weigh → stabilise → combine → record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from gaba import _state, combine, stabilisers
from gaba import measurement as measurements
from gaba import weighting as weightings
from gaba._array import work_dtype
from gaba._batch import Batch, check_choice, check_losses, checked_tasks
from gaba._buffers import StateBuffers
from gaba.graph import LossGraph
from gaba.history import History
from gaba.measurement import Measurement, Observation
from gaba.record import Combined, Step
from gaba.scale import Scale, gain_of
from gaba.shared import SharedSpec, as_shared
from gaba.stabilisers import AnyStabiliser
from gaba.weighting import Weighting

Heads: TypeAlias = Literal["weighted", "plain"]


@dataclass(frozen=True)
class BalancerState:
    """All that the Balancer remembers from step to step.

    Attributes:
        measurement: the state of the measurement.
        norm: the state of the norm stabiliser.
        weight: the state of the weight stabiliser.
        weights: (K,), the last weights, those of missing tasks as when they were last there.
        gain: (), the last common factor.
    """

    measurement: Any
    norm: Any
    weight: Any
    weights: Tensor
    gain: Tensor


@dataclass(frozen=True)
class _Decision:
    """What was decided for one step: vectors over all K tasks, and the state that follows."""

    weights: Tensor
    gain: Tensor
    saturated: Tensor
    finite: Tensor
    state: BalancerState


class _Saved(TypedDict):
    tasks: list[str]
    step: int


class Balancer(nn.Module):
    """Weights the losses of one model so that every task pulls equally hard on what they share.

    In each step, with θ the shared parameters: measure g_k = ‖∇_θ L_k‖; stabilise the norms; weigh,
    by default λ_k ∝ 1/g_k, so that the contributions c_k = λ_k g_k are equal; stabilise the
    weights; combine into gain · Σ_k λ_k ∇L_k; record.

    Args:
        tasks: the names of the K ≥ 2 losses.
        shared: the shared parameters: a module, an iterable of parameters, or ``"auto"`` for what
            two or more losses are found to reach.
        measurement: what is observed, an object or a name: ``"exact"``
            (:class:`gaba.measurement.ExactNorms`), or cheaper ``"sketch"``, ``"features"``,
            ``"last-layer"``, or unbiased by batch noise ``"half-batch"``.
        norm_stabiliser: what is believed about the norms, an object, a name or ``None``.
        weighting: the rule from norms (or Gramian) to weights, an object or a name.
        weight_stabiliser: what the weights may do, an object, a name or ``None``.
        scale: the length of the combined update (:mod:`gaba.scale`). ``"simplex"``: Σ λ_k ∇L_k as
            it is, which at a norm ratio of 500 is about as short as the smallest gradient: plain
            SGD slows down by as much, Adam does not notice. ``"mean"``: as long as under uniform
            weights, Σ λ_k g_k = mean g. ``"max"``: the largest contribution is as long as the
            largest norm. Without measured norms (a weighting that needs none): gain 1.
        anchor: a task that keeps weight 1, the others being brought to its contribution; takes
            the place of ``scale``.
        metric: in which metric norms are measured; ``"euclidean"``.
        heads: ``"weighted"``: the heads get λ_k ∇L_k, as from Σ λ_k L_k; ``"plain"``: parameters
            that one task alone reaches get ∇L_k.
        every: measure in every n-th step only; the others are one weighted backward pass with the
            weights as they are.
        on_nonfinite: what a NaN or infinite loss or norm does. ``"skip"``: nothing is learnt from
            the step and ``.grad`` is filled with the last weights, so that a GradScaler or a guard
            of the user's sees it; ``"raise"``: FloatingPointError before anything has changed.

    Raises:
        ValueError, TypeError: a setting breaks its rule; the message says which and what to do.

    Source: the rule of equal contributions, λ_k ∝ 1/‖∇L_k‖, for K = 2 equation 4 of the GABA paper
    (:meth:`paper` is that algorithm as published).

    Example:
        >>> import torch, gaba
        >>> trunk = torch.nn.Linear(3, 4)
        >>> heads = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 1), "b": torch.nn.Linear(4, 1)})
        >>> balancer = gaba.Balancer(tasks=["a", "b"], shared=trunk)
        >>> z = trunk(torch.ones(8, 3))
        >>> losses = {"a": 100 * heads["a"](z).square().mean(), "b": heads["b"](z).square().mean()}
        >>> step = balancer.backward(losses)  # instead of sum(losses.values()).backward()
        >>> bool(step.imbalance < 1.001)
        True
        >>> trunk.weight.grad is None
        False
    """

    def __init__(
        self,
        tasks: Sequence[str],
        shared: SharedSpec,
        *,
        measurement: Measurement | str = "exact",
        norm_stabiliser: AnyStabiliser | str | None = "log-ema",
        weighting: Weighting | str = "inverse",
        weight_stabiliser: AnyStabiliser | str | None = None,
        scale: Scale = "mean",
        anchor: str | None = None,
        metric: Literal["euclidean"] = "euclidean",
        heads: Heads = "weighted",
        every: int = 1,
        on_nonfinite: Literal["skip", "raise"] = "skip",
    ) -> None:
        super().__init__()
        self.tasks = checked_tasks(tasks)
        check_choice("scale", scale, ("simplex", "mean", "max"))
        check_choice("metric", metric, ("euclidean",))
        check_choice("heads", heads, ("weighted", "plain"))
        check_choice("on_nonfinite", on_nonfinite, ("skip", "raise"))
        if anchor is not None:
            check_choice("anchor", anchor, self.tasks)
        self.measurement = _named(measurement, measurements.by_name)
        if every < 1 or (heads == "plain" and (every > 1 or not self.measurement.due(1))):
            raise ValueError(
                f"every must be at least 1, and every step measured with heads='plain', found "
                f"every={every} with heads={heads!r} and {self.measurement!r}: plain heads need "
                "the gradients of each task in each step"
            )
        self.scale: Scale = scale
        self.anchor = None if anchor is None else self.tasks.index(anchor)
        self.heads: Heads = heads
        self.every = every
        self.on_nonfinite = on_nonfinite
        self.weighting = _named(weighting, weightings.by_name)
        self.norm_stabiliser = _optional(norm_stabiliser)
        self.weight_stabiliser = _optional(weight_stabiliser)
        self.history = History(self.tasks)
        self._shared = as_shared(shared)
        if self.measurement.needs_calls:
            self._shared.keep_calls()
        self._steps = 0
        self._state = StateBuffers(self._initial())

    @classmethod
    def paper(cls, tasks: Sequence[str], shared: SharedSpec) -> Balancer:
        """The algorithm exactly as published: rule of eq. 4, EMA .99 of the weights, floor .05.

        Uniform weights for 100 steps, then λ_k = (S − g_k)/((K−1) S), smoothed and floored, then
        renormalised, measured in every step; the update stays on the simplex scale. For two tasks
        the floor binds where norms are more than 19 times apart: beyond, the weights come to rest
        near .05/1.05, and contributions stay unequal.

        Example:
            >>> import torch, gaba
            >>> net = torch.nn.Linear(2, 2)
            >>> balancer = gaba.Balancer.paper(tasks=["rul", "health"], shared=net)
            >>> balancer.weights
            {'rul': 0.5, 'health': 0.5}
        """
        return cls(
            tasks,
            shared,
            norm_stabiliser=None,
            weighting=weightings.Gaba(),
            weight_stabiliser=stabilisers.Chain(
                (
                    stabilisers.Warmup(100),
                    stabilisers.EMA(0.99),
                    stabilisers.Floor(0.05, mode="renormalise"),
                )
            ),
            scale="simplex",
        )

    # ---- the flow -------------------------------------------------------------------------------

    def backward(self, losses: Mapping[str, Tensor | None], features: object = None) -> Step:
        """Balance ``losses`` and add the combined gradient to ``.grad``, as a backward pass would.

        Args:
            losses: scalars by task name; a task that is absent or ``None`` is missing in this
                step: it keeps its state, and the others share the weight. For
                :class:`gaba.measurement.HalfBatch`, (2,): the mean over each half of the batch.
            features: the tensors that leave the shared part, in any nest, where a measurement
                needs them and they cannot be found; exact norms do not.

        Returns:
            What was seen and done.

        Raises:
            ValueError, TypeError: a loss is unknown, no scalar, or reaches no shared parameter.
            FloatingPointError: a loss or norm is not finite and ``on_nonfinite="raise"``.
            In each case neither the state nor any ``.grad`` has changed.
        """
        batch = check_losses(losses, self.tasks, halves=self.measurement.halves)
        graph = self._graph(batch, features)
        listened = combine.someone_listens(graph.leaves) if self._measures(graph) else True
        seen = self._measure(graph, batch, gradients=not listened)
        decision = self._decide(batch, seen)
        combined = self._combine(batch, seen, decision)
        return self._record(batch, seen, decision, combined)

    def forward(self, losses: Mapping[str, Tensor | None]) -> Tensor:
        """The weighted scalar gain · Σ λ_k L_k, for frameworks that call backward themselves.

        In training, with gradients enabled, it measures and learns as :meth:`backward` does; else
        (``eval()``, ``no_grad``) it uses the weights as they are and records nothing.
        """
        if self.heads == "plain":
            raise ValueError(
                "heads='plain' has no scalar loss whose gradient it would be: use "
                "balancer.backward(losses), or heads='weighted'"
            )
        learning = self.training and torch.is_grad_enabled()
        batch = check_losses(losses, self.tasks, learning, self.measurement.halves)
        seen = None
        if learning:
            seen = self._measure(self._graph(batch, None), batch, gradients=False)
        decision = self._decide(batch, seen)
        if learning:
            self._record(batch, seen, decision, "caller")
        factors = batch.take(decision.weights) * decision.gain
        return sum(
            (c.to(loss.dtype) * loss for c, loss in zip(factors, batch.losses, strict=True)),
            start=batch.losses[0].new_zeros(()),
        )

    def _graph(self, batch: Batch, features: object) -> LossGraph:
        self._state.to(batch.device)
        old = self._state.get()
        factors = batch.take(batch.on_simplex(old.weights)) * old.gain
        return LossGraph(
            batch.losses,
            self._shared,
            features,
            batch.indices,
            step=self._steps,
            factors=factors,
            halves=batch.halves,
        )

    def _measures(self, graph: LossGraph) -> bool:
        needed = self.weighting.needs != "losses" or self.heads == "plain"
        due = self._steps % self.every == 0 and self.measurement.due(self._steps)
        lonely = len(graph.losses) == 1 and not graph.shared.parameters()
        return needed and due and not lonely

    def _measure(self, graph: LossGraph, batch: Batch, gradients: bool) -> Observation | None:
        if not self._measures(graph):
            return None
        if not gradients and self.heads == "plain":
            raise ValueError(
                "heads='plain' needs gradients combined by hand, but something acts on the "
                "backward pass here (a distributed run, or hooks on parameters): use "
                "heads='weighted'"
            )
        seen = self.measurement(
            graph,
            self._state.get().measurement,
            gramian=self.weighting.needs == "gramian",
            gradients=gradients,
        )
        if seen.unreached:
            raise ValueError(
                f"losses[{batch.names[seen.unreached[0]]!r}] reaches no shared parameter: check "
                "what was passed as shared, and that the loss is computed from its output"
            )
        found = seen.gradients
        if self.heads == "plain" and (found is None or not found.by_task):
            raise ValueError(
                "heads='plain' needs the gradients of each task, which "
                f"{self.measurement!r} did not give: use measurement='exact', or heads='weighted'"
            )
        return seen

    def _decide(self, batch: Batch, seen: Observation | None) -> _Decision:
        """Stabilise → weigh → stabilise; pure: the state that follows is part of the answer."""
        self._state.to(batch.device)
        old = self._state.get()
        new = old
        finite = torch.stack([loss.isfinite() for loss in batch.values]).all()
        if seen is not None:
            finite = finite & seen.norms.isfinite().all()
        if seen is not None or self.weighting.needs == "losses":
            new = self._update(batch, seen, old)
            finite = finite & new.weights.isfinite().all() & new.gain.isfinite()
            new = _state.select(finite, new, old)
        late = seen is not None and seen.gradients is not None and seen.gradients.weighted
        acting = old if late else new
        weights, gain = batch.on_simplex(acting.weights), acting.gain
        if self.on_nonfinite == "raise" and not bool(finite):
            raise FloatingPointError(_complaint(batch, seen))
        saturated = _state.saturated(acting.weight, len(self.tasks), batch.device)
        return _Decision(weights, gain, saturated & batch.mask, finite, new)

    def _update(self, batch: Batch, seen: Observation | None, old: BalancerState) -> BalancerState:
        norms, norm_state = None, old.norm
        if seen is not None:
            norms = batch.spread(seen.norms)
            if self.norm_stabiliser is not None:
                norms, norm_state = self.norm_stabiliser.update(norms, old.norm, batch.present)
            norms = batch.take(norms)
        asked = self.weighting.of(batch.indices)(self._needed(batch, seen, norms))
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
            anchor=batch.position(self.anchor),
            held=None if self.anchor is None else old.gain,
        )
        return BalancerState(
            old.measurement if seen is None else seen.state,
            norm_state,
            weight_state,
            batch.fill(batch.take(weights), old.weights),
            gain,
        )

    def _needed(self, batch: Batch, seen: Observation | None, norms: Tensor | None) -> Tensor:
        """What the weighting takes: losses, norms, or the Gramian with the believed norms."""
        if self.weighting.needs == "losses" or seen is None or norms is None:
            return torch.stack(batch.values)
        if self.weighting.needs == "norms":
            return norms
        if seen.gramian is None:
            raise ValueError(
                f"weighting {self.weighting!r} needs the Gramian, which {self.measurement!r} did "
                "not give: use measurement='exact'"
            )
        ratio = torch.where(seen.norms > 0, norms / seen.norms, torch.ones_like(norms))
        return seen.gramian * ratio[:, None] * ratio

    def _combine(self, batch: Batch, seen: Observation | None, decision: _Decision) -> Combined:
        factors = batch.take(decision.weights) * decision.gain
        if seen is None or seen.gradients is None:
            combine.by_backward(batch.losses, factors)
            return "backward"
        found = seen.gradients
        if found.weighted:
            combine.add(found.leaves, found.of[0])
            return "by-hand"
        combine.by_hand(found.leaves, found.of, factors, plain_heads=self.heads == "plain")
        if found.features:
            combine.by_features(found.features, found.at_features, factors)
        return "by-hand"

    def _record(
        self, batch: Batch, seen: Observation | None, decision: _Decision, combined: Combined
    ) -> Step:
        norms = torch.full_like(decision.weights[: len(batch.names)], torch.nan)
        step = Step(
            tasks=self.tasks,
            step=self._steps,
            measured=seen is not None,
            combined=combined,
            losses=batch.spread(torch.stack(batch.values).to(norms.dtype)),
            norms=batch.spread(norms if seen is None else seen.norms),
            weights=decision.weights,
            saturated=decision.saturated,
            gain=decision.gain,
            finite=decision.finite,
            gramian=None if seen is None else seen.gramian,
        )
        self._state.set(decision.state)
        self._steps += 1
        self.history.append(step)
        return step

    # ---- the state ------------------------------------------------------------------------------

    @property
    def weights(self) -> dict[str, float]:
        """The current weights by task name, on the simplex. Waits for the device."""
        return dict(zip(self.tasks, self._state.get().weights.tolist(), strict=True))

    @property
    def measurement_state(self) -> Any:
        """What the measurement remembers, such as the noise that HalfBatch has found; on device."""
        return self._state.get().measurement

    def reset(self) -> None:
        """Forget everything that was learnt, as if newly made; the history is kept."""
        device = self._state.get().weights.device
        self._state = StateBuffers(self._initial()).to(device)
        self._steps = 0

    def _initial(self) -> BalancerState:
        k = len(self.tasks)
        norm, weight = (
            () if s is None else s.init(k) for s in (self.norm_stabiliser, self.weight_stabiliser)
        )
        dtype = work_dtype(torch.device("cpu"))
        uniform = torch.full((k,), 1.0 / k, dtype=dtype)
        probe = torch.eye(k, dtype=dtype) if self.weighting.needs == "gramian" else uniform
        self.weighting(probe)  # a rule made for another number of tasks says so now
        measurement = self.measurement.init(k)
        return BalancerState(measurement, norm, weight, uniform, torch.ones((), dtype=dtype))

    def get_extra_state(self) -> _Saved:
        """The names of the tasks and the number of steps, saved with the state."""
        return {"tasks": list(self.tasks), "step": self._steps}

    def set_extra_state(self, state: _Saved) -> None:
        """Take the number of steps over from a saved state of the same tasks."""
        if tuple(state["tasks"]) != self.tasks:
            raise ValueError(
                f"state_dict is of the tasks {tuple(state['tasks'])}, this Balancer of "
                f"{self.tasks}: make the Balancer with the tasks that were saved"
            )
        self._steps = state["step"]


def _named(slot: Any, by_name: Callable[[str], Any]) -> Any:
    return by_name(slot) if isinstance(slot, str) else slot


def _optional(slot: AnyStabiliser | str | None) -> AnyStabiliser | None:
    return _named(slot, stabilisers.by_name)


def _complaint(batch: Batch, seen: Observation | None) -> str:
    losses = {name: float(v) for name, v in zip(batch.names, batch.values, strict=True)}
    norms = {} if seen is None else dict(zip(batch.names, seen.norms.tolist(), strict=True))
    return (
        f"losses and norms must be finite, found losses {losses} and norms {norms}: mend the loss, "
        "or let on_nonfinite='skip' leave such steps out"
    )
