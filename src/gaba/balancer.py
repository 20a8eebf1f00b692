"""The Balancer: measure → stabilise → weigh → stabilise → combine → record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gaba import _state, stabilisers
from gaba.autograd import combination as combine
from gaba import measurement as measurements
from gaba import rules as weightings
from gaba.ranks.agreement import Agreement
from gaba.autograd.losses import Batch, check_choice, check_losses, checked_tasks
from gaba._buffers import StateBuffers
from gaba.autograd.closure import ClosureGuard
from gaba.methods.method import Decision, Rules
from gaba.autograd.uncompiled import uncompiled
from gaba.ranks import Sync, by_name
from gaba.ranks.processes import Roll, running
from gaba.ranks.wrappers import in_first_static_pass
from gaba.autograd.graph import LossGraph
from gaba.record.history import History
from gaba.measurement import Choice, Measurement, Observation
from gaba.measurement.metric import as_metric
from gaba.record.jsonl import Combined, Step
from gaba.multipliers import Scale
from gaba.autograd.shared import SharedSpec, as_shared
from gaba.stabilisers import AnyStabiliser
from gaba.rules import AnyWeighting

Heads: TypeAlias = Literal["weighted", "plain"]


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
            ``"last-layer"``, or unbiased by batch noise ``"half-batch"``; ``"auto"`` is what
            :func:`gaba.measurement.choose` recommends, and the record says why.
        norm_stabiliser: what is believed about the norms, an object, a name or ``None``.
        weighting: the rule from norms (or Gramian, or losses) to weights, an object or a name.
        weight_stabiliser: what the weights may do, an object, a name or ``None``.
        scale: the length of the combined update (:mod:`gaba.multipliers`). ``"simplex"``: Σ λ_k ∇L_k as
            it is, which at a norm ratio of 500 is about as short as the smallest gradient: plain
            SGD slows down by as much, Adam does not notice. ``"mean"``: as long as under uniform
            weights, Σ λ_k g_k = mean g. ``"max"``: the largest contribution is as long as the
            largest norm. ``"rule"``: Σ w_k ∇L_k, with the weights w of any sum that the weighting
            itself gives. Without measured norms "mean" and "max" leave the gain at 1.
        anchor: a task that keeps weight 1, the others being brought to its contribution; takes
            the place of ``scale``.
        metric: in which metric pulls are measured: ``"euclidean"``, ‖∇_θ L_k‖, or ``"optimizer"``,
            ‖P ∇_θ L_k‖, with P the steps that the optimizer takes (:mod:`gaba.measurement.metric`): what a task
            alone would do to the parameters. Norms, Gramian and contributions are then in it.
        optimizer: those whose metric that is: the optimizer, or several, of what is shared.
        heads: ``"weighted"``: the heads get λ_k ∇L_k, as from Σ λ_k L_k; ``"plain"``: parameters
            that are not shared and that one task alone reaches get ∇L_k.
        every: measure in every n-th step only; the others are one weighted backward pass with the
            weights as they are.
        accumulate: of how many micro-batches one step of the optimizer is made. The weights are
            those of the first of them throughout: only it is measured, so ``every`` counts windows.
        sync: how the ranks of a distributed run come to one decision
            (:class:`gaba.ranks.Sync`): ``"auto"`` (exactly), ``"sketch"`` (from a few
            thousand numbers a task), settings, or ``False`` for each rank by itself.
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
        weighting: AnyWeighting | str = "inverse",
        weight_stabiliser: AnyStabiliser | str | None = None,
        scale: Scale = "mean",
        anchor: str | None = None,
        metric: Literal["euclidean", "optimizer"] = "euclidean",
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        heads: Heads = "weighted",
        every: int = 1,
        accumulate: int = 1,
        sync: Sync | Literal["auto", "exact", "sketch", False] = "auto",
        on_nonfinite: Literal["skip", "raise"] = "skip",
    ) -> None:
        super().__init__()
        self.tasks: tuple[str, ...] = checked_tasks(tasks)
        check_choice("scale", scale, get_args(Scale))
        check_choice("metric", metric, ("euclidean", "optimizer"))
        check_choice("heads", heads, ("weighted", "plain"))
        check_choice("on_nonfinite", on_nonfinite, ("skip", "raise"))
        if anchor is not None:
            check_choice("anchor", anchor, self.tasks)
        self.weighting: AnyWeighting = _named(weighting, weightings.by_name)
        self._shared = as_shared(shared)
        choice = self._choice(measurement, heads)
        self.measurement: Measurement = choice.measurement
        if every < 1 or (heads == "plain" and (every > 1 or not self.measurement.due(1))):
            raise ValueError(
                f"every must be at least 1, and every step measured with heads='plain', found "
                f"every={every} with heads={heads!r} and {self.measurement!r}: plain heads need "
                "the gradients of each task in each step"
            )
        if accumulate < 1 or (accumulate > 1 and heads == "plain"):
            raise ValueError(
                f"accumulate must be at least 1, and 1 with heads='plain', found {accumulate} with "
                f"heads={heads!r}: plain heads need the gradients of each task in each step"
            )
        self.accumulate = accumulate
        self.scale: Scale = scale
        self.anchor: int | None = None if anchor is None else self.tasks.index(anchor)
        self.heads: Heads = heads
        self.every = every
        self.on_nonfinite = on_nonfinite
        self.norm_stabiliser: AnyStabiliser | None = _optional(norm_stabiliser)
        self.weight_stabiliser: AnyStabiliser | None = _optional(weight_stabiliser)
        self.history: History = History(self.tasks)
        self._rules = Rules(
            self.norm_stabiliser,
            self.weighting,
            self.weight_stabiliser,
            self.scale,
            self.anchor,
            windows=accumulate > 1,
        )
        self._metric = as_metric(metric, optimizer)
        self._agreement = Agreement(
            by_name(sync), self.tasks, self._shared, self.measurement.halves
        )
        self._closures = ClosureGuard()
        if self.measurement.needs_calls:
            self._shared.keep_calls()
        self._about = {"metric": metric, "measurement": repr(self.measurement)}
        if choice.reason:
            self._about["reason"] = choice.reason
        self._steps = 0
        self._state = StateBuffers(self._rules.init(len(self.tasks), self.measurement))

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

    @uncompiled
    def backward(
        self,
        losses: Mapping[str, Tensor | None],
        features: object = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Step:
        """Balance ``losses`` and add the combined gradient to ``.grad``, as a backward pass would.

        Args:
            losses: scalars by task name; a task that is absent or ``None`` is missing in this
                step: it keeps its state, and the others share the weight. For
                :class:`gaba.measurement.HalfBatch`, (2,): the mean over each half of the batch.
            features: the tensors that leave the shared part, in any nest, where a measurement
                needs them and they cannot be found; exact norms do not.
            scaler: of mixed precision. The losses are multiplied by its scale for every pass, norms
                divided by it, and ``.grad`` is left scaled, for ``scaler.step`` or
                ``scaler.unscale_``. Nothing is learnt from a step whose gradients overflow.

        Returns:
            What was seen and done.

        Raises:
            ValueError, TypeError: a loss is unknown, no scalar, or reaches no shared parameter.
            FloatingPointError: a loss or norm is not finite and ``on_nonfinite="raise"``.
            RuntimeError: an optimizer asks for the second time within one step.
            In each case neither the state nor any ``.grad`` has changed, on any rank.
        """
        batch, roll = self._take(losses)
        graph = self._graph(batch, features, scaler)
        self._agreement.check(graph, roll)
        listened = combine.someone_listens(graph.leaves) if self._measures(graph) else True
        seen = self._measure(graph, batch, gradients=not listened)
        decision = self._decide(batch, seen)
        combined = self._combine(graph, batch, seen, decision)
        if scaler is not None:
            decision = self._unless_overflown(graph, decision)
        return self._record(batch, seen, decision, combined)

    @uncompiled
    def forward(
        self,
        losses: Mapping[str, Tensor | None],
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Tensor:
        """The weighted scalar gain · Σ λ_k L_k, for frameworks that call backward themselves.

        In training, with gradients enabled, it measures and learns as :meth:`backward` does; else
        (``eval()``, ``no_grad``) it uses the weights as they are and records nothing. With a
        ``scaler`` it measures scaled losses; what comes back is for the caller to scale.
        """
        if self.heads == "plain":
            raise ValueError(
                "heads='plain' has no scalar loss whose gradient it would be: use "
                "balancer.backward(losses), or heads='weighted'"
            )
        learning = self.training and torch.is_grad_enabled()
        seen = None
        if learning:
            batch, roll = self._take(losses)
            graph = self._graph(batch, None, scaler)
            self._agreement.check(graph, roll)
            seen = self._measure(graph, batch, gradients=False)
        else:
            batch = check_losses(losses, self.tasks, False, self.measurement.halves)
            self._state.to(batch.device)
        decision = self._decide(batch, seen)
        if learning:
            self._record(batch, seen, decision, "caller")
        factors = batch.take(decision.weights) * decision.gain
        return sum(
            (c.to(loss.dtype) * loss for c, loss in zip(factors, batch.losses, strict=True)),
            start=batch.losses[0].new_zeros(()),
        )

    def _take(self, losses: Mapping[str, Tensor | None]) -> tuple[Batch, Roll | None]:
        self._closures.check()
        return self._agreement.batch(losses, self._state.get().weights, self._steps)

    def _graph(
        self, batch: Batch, features: object, scaler: torch.amp.GradScaler | None
    ) -> LossGraph:
        self._state.to(batch.device)
        old = self._state.get()
        factors = batch.take(batch.on_simplex(old.weights)) * self._rules.gain(batch, old)
        scale, losses, halves = None, batch.losses, batch.halves
        if scaler is not None:
            scale = scaler.scale(torch.ones((), device=batch.device))
            losses = tuple(scaler.scale(loss) for loss in losses)
            halves = None if halves is None else tuple(scaler.scale(pair) for pair in halves)
        return LossGraph(
            losses,
            self._shared,
            features,
            batch.indices,
            step=self._steps // self.accumulate,
            factors=factors,
            halves=halves,
            metric=self._metric,
            ranks=self._agreement.ranks,
            loss_scale=scale,
        )

    @property
    def _held(self) -> bool:
        """Whether the weights are those of an earlier micro-batch."""
        return self._steps % self.accumulate > 0

    def _measures(self, graph: LossGraph) -> bool:
        needed = self.weighting.needs != "losses" or self.heads == "plain"
        window = self._steps // self.accumulate
        due = not self._held and window % self.every == 0 and self.measurement.due(window)
        lonely = len(graph.losses) == 1 and not graph.shared.parameters()
        if not (needed and due) or lonely:
            return False
        return not (running() and in_first_static_pass(graph.nodes))

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

    def _decide(self, batch: Batch, seen: Observation | None) -> Decision:
        """Stabilise → weigh → stabilise; pure: the state that follows is part of the answer."""
        decision = self._rules.decide(batch, seen, self._state.get(), held=self._held)
        if self.on_nonfinite == "raise" and not bool(decision.finite):
            raise FloatingPointError(_complaint(batch, seen))
        return decision

    def _combine(
        self, graph: LossGraph, batch: Batch, seen: Observation | None, decision: Decision
    ) -> Combined:
        factors = batch.take(decision.weights) * decision.gain
        if seen is None or seen.gradients is None:
            combine.by_backward(graph.losses, factors)
            return "backward"
        found = seen.gradients
        if found.weighted:
            combine.add(found.leaves, found.of[0])
            return "by-hand"
        plain = self.heads == "plain"
        shared = graph.shared.parameters() if plain else ()
        combine.by_hand(found.leaves, found.of, factors, plain_heads=plain, shared=shared)
        if found.features:
            combine.by_features(found.features, found.at_features, factors)
        return "by-hand"

    def _unless_overflown(self, graph: LossGraph, decision: Decision) -> Decision:
        """``decision``, but nothing learnt where a gradient is not finite: the step is skipped."""
        overflown = combine.overflown((*graph.shared.parameters(), *graph.leaves))
        finite = decision.finite & (graph.ranks.total(overflown.to(decision.weights)) == 0)
        state = _state.select(finite, decision.state, self._state.get())
        return replace(decision, finite=finite, state=state)

    def _record(
        self, batch: Batch, seen: Observation | None, decision: Decision, combined: Combined
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
            gramian=(
                None if seen is None or seen.gramian is None else batch.spread_square(seen.gramian)
            ),
            about=self._about,
        )
        self._state.set(decision.state)
        self._steps += 1
        self.history.append(step)
        return step

    # ---- the state ------------------------------------------------------------------------------

    def _choice(self, slot: Measurement | str, heads: Heads) -> Choice:
        """What to measure with; the name ``"auto"`` leaves it to K, the model and the weighting."""
        if slot != "auto":
            return Choice(_named(slot, measurements.by_name), "")
        return measurements.choose(
            len(self.tasks),
            self._shared,
            gramian=self.weighting.needs == "gramian",
            every_step=heads == "plain",
        )

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
        initial = self._rules.init(len(self.tasks), self.measurement)
        self._state = StateBuffers(initial).to(device)
        self._steps = 0

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
