"""The Balancer: check → measure → decide → combine → record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gaba import methods
from gaba.autograd.closure import ClosureGuard
from gaba.autograd.combination import as_scalar, combine, overflown, someone_listens, usable
from gaba.autograd.graph import LossGraph
from gaba.autograd.losses import Batch, check_choice, check_losses, checked_tasks
from gaba.autograd.moves import Moves
from gaba.autograd.passes import at_the_end, compile_to_keep, refuse_reentrant
from gaba.autograd.shared import SharedSpec, as_shared
from gaba.autograd.uncompiled import uncompiled
from gaba.measurement import Observation, Request, Tracked
from gaba.measurement.along import Along, Products
from gaba.measurement.cadence import Cadence
from gaba.measurement.metric import as_metric
from gaba.measurement.tracked import Plan, effective
from gaba.methods import Method
from gaba.methods.method import MethodState
from gaba.multipliers import Scale
from gaba.pieces import Seen
from gaba.ranks import Sync, by_name
from gaba.ranks.agreement import Agreement
from gaba.ranks.processes import running
from gaba.ranks.wrappers import in_first_static_pass
from gaba.record import Diagnosis, History, Step, diagnose
from gaba.record.step import Engine
from gaba.rules import Proportional, Targets
from gaba.state import StateBuffers, select

AsTheMethod = Literal["method"]
"""The value of a setting that is as the method has it."""


class _Saved(TypedDict):
    tasks: list[str]
    step: int
    cadence: dict[str, Any]


@final
@dataclass(frozen=True, eq=False)
class BalancerState:
    """All that a Balancer remembers.

    Attributes:
        measure: what the measurement remembers.
        method: what the pieces of the method remember.
        window: (K,), the multipliers of this optimizer step, which all its micro-batches get.
    """

    measure: Any
    method: MethodState
    window: Tensor


@final
@dataclass(frozen=True, eq=False)
class _Decided:
    """What one step does: vectors (K,), NaN where a task is missing, and the state that follows."""

    multipliers: Tensor
    saturated: Tensor
    finite: Tensor
    norms: Tensor
    state: BalancerState
    step: int
    gramian: Tensor | None = None
    shares: Tensor | None = None
    engine: Engine = ""


@final
class Balancer(nn.Module):
    """Balances the losses of one model, so that every task pulls equally hard on what they share.

    Args:
        tasks: the names of the K ≥ 2 losses.
        shared: the shared parameters θ: a module, an iterable of parameters, or ``"auto"`` for
            what two or more losses are found to reach.
        method: a name of :data:`gaba.methods.METHODS` or a :class:`gaba.Method`.
        limit, scale, every, metric: change these slots of the method.
        budget: the part of the training time that may go into measuring along the update.
        anchor: the task whose multiplier stays 1.
        share_targets: the part of the update that each task should have, by name; only their
            proportions matter.
        optimizer: that of θ, or several: for ``metric="optimizer"``, and with ``shared="auto"`` to
            leave out what others move, such as a discriminator.
        accumulate: how many micro-batches make one step of the optimizer. All of them get the
            multipliers of the first. Without an update to measure along, it alone is measured.
        sync: how the ranks of a distributed run come to one decision: ``"auto"`` (exactly),
            ``"sketch"``, a :class:`gaba.ranks.Sync`, or ``False`` for each rank by itself.
        on_nonfinite: what a NaN or infinite loss or norm does. ``"skip"``: nothing is learnt and
            ``.grad`` is filled with the last multipliers. ``"raise"``: FloatingPointError.

    Raises:
        ValueError, TypeError: a setting breaks its rule; the message says which and what to do.

    Source: for K = 2, equation 4 of the GABA paper; ``method="paper"`` is the published algorithm.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(tasks=["a", "b"], shared=[w])  # or shared=model.backbone
        >>> for _ in range(30):
        ...     losses = {"a": 5 * w[0], "b": w[1]}
        ...     step = balancer.backward(losses)  # instead of sum(losses.values()).backward()
        >>> seen = balancer.history.imbalance[balancer.history.measured]
        >>> seen[[0, -1]].round(2).tolist()
        [2.5, 1.0]
    """

    def __init__(
        self,
        tasks: Sequence[str],
        shared: SharedSpec,
        method: str | Method = "gaba",
        *,
        limit: float | AsTheMethod | None = "method",
        scale: Scale | AsTheMethod = "method",
        anchor: str | None = None,
        every: int | AsTheMethod = "method",
        budget: float | AsTheMethod = "method",
        share_targets: Mapping[str, float] | None = None,
        metric: Literal["euclidean", "optimizer"] | AsTheMethod = "method",
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        accumulate: int = 1,
        sync: Sync | Literal["auto", "exact", "sketch", False] = "auto",
        on_nonfinite: Literal["skip", "raise"] = "skip",
    ) -> None:
        super().__init__()
        self.tasks: tuple[str, ...] = checked_tasks(tasks)
        check_choice("on_nonfinite", on_nonfinite, ("skip", "raise"))
        if isinstance(shared, Iterable) and not isinstance(shared, str | nn.Module | Tensor):
            shared = list(shared)
        if optimizer is None:
            optimizers: tuple[Optimizer, ...] = ()
        else:
            optimizers = (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)
        self._shared = as_shared(shared, optimizers)
        changes: dict[str, Any] = {"limit": limit, "scale": scale, "every": every}
        changes |= {"budget": budget, "metric": metric}
        changes = {name: value for name, value in changes.items() if value != "method"}
        if anchor is not None:
            check_choice("anchor", anchor, self.tasks)
            changes["anchor"] = self.tasks.index(anchor)
        if isinstance(method, str):
            made = methods.get(method, self.tasks, shared, **changes)
        else:
            made = method.replace(**changes)
        if share_targets is not None:
            made = self._aimed(made, share_targets)
        self.method: Method = made
        if accumulate < 1 or (accumulate > 1 and self.method.needs_every_step):
            raise ValueError(
                f"accumulate must be at least 1, and 1 with heads='plain', found {accumulate} with "
                f"heads={self.method.heads!r}: plain heads need the gradients of each task in "
                "each step"
            )
        self.accumulate = accumulate
        self.on_nonfinite = on_nonfinite
        self.history: History = History(self.tasks)
        self.last_step: Step | None = None
        tracks = self.method.measured.tracks
        self._metric = as_metric(
            self.method.metric, optimizers, needed=shared != "auto", tracked=tracks
        )
        self._moves = Moves(optimizers) if tracks and self.method.metric == "optimizer" else None
        self._agreement = Agreement(
            by_name(sync), self.tasks, self._shared, self.method.measured.loss_shape
        )
        self._closures = ClosureGuard()
        self._steps = 0
        self._cadence = Cadence()
        self._pending: Along | None = None
        self._held_back = False
        self._keep_calls()
        bounds = self.method.bounds
        self._about = {
            "method": method if isinstance(method, str) else repr(method.rule),
            "metric": self.method.metric,
            "measurement": repr(self.method.measure),
            **({"limit": f"{bounds.limit:g}"} if bounds.limited and bounds.limit else {}),
            **({"rise": f"{self.method.rise:g}"} if self.method.rise else {}),
            **({"warm-up": str(self.method.warm_up)} if self.method.warm_up else {}),
        }
        self._state = StateBuffers(self._initial())

    def _aimed(self, method: Method, targets: Mapping[str, float]) -> Method:
        """``method`` with shares in these proportions; contributions go with their roots."""
        if set(targets) != set(self.tasks) or not isinstance(method.rule, Proportional):
            raise ValueError(
                f"share_targets must give a number for each of the tasks {', '.join(self.tasks)} "
                f"to a rule that makes something equal, found {dict(targets)} for "
                f"{type(method.rule).__name__}: use method='gaba' or 'equal-share'"
            )
        power = 1.0 if method.rule.needs == "gramian" else 0.5
        ratios = [float(targets[task]) ** power for task in self.tasks]
        return method.replace(rule=Targets(ratios, method.rule))

    # ---- the flow -------------------------------------------------------------------------------

    @uncompiled
    def backward(
        self,
        losses: Mapping[str, Tensor | None],
        features: object = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
        retain_graph: bool = False,
    ) -> Step:
        """Balance ``losses`` and add the combined gradient to ``.grad``, as a backward pass would.

        Args:
            losses: scalars by task name. A task that is absent or ``None`` is missing: what is
                believed of it stays, and it changes nothing for the others.
            features: the tensors that leave the shared part, in any nest, for a measurement that
                needs them and cannot find them.
            scaler: of mixed precision. ``.grad`` is left scaled, for ``scaler.step`` or
                ``scaler.unscale_``. Nothing is learnt from a step whose gradients overflow.
            retain_graph: keep the graph for another backward pass.

        Returns:
            What was seen and done.

        Raises:
            ValueError, TypeError: a loss is unknown, no scalar, or reaches no shared parameter.
            FloatingPointError: a loss or norm is not finite and ``on_nonfinite="raise"``.
            RuntimeError: an optimizer asks for the second time within one step, or the graph is
                gone. In each case no state has changed, and before the pass itself no ``.grad``.
        """
        batch, request = self._check(losses, features, scaler, retain_graph=retain_graph)
        seen, remembered = self._measure(batch, request, by_hand=True)
        decided = self._decide(batch, seen, remembered)
        plan = self._plan(batch, request, decided)
        combined = combine(
            request.graph,
            None if seen is None else seen.gradients,
            batch.take(decided.multipliers),
            heads=self.method.heads,
            retain_graph=retain_graph,
        )
        if plan is not None:
            found = plan.along.finish(arrived=combined == "backward")
            decided = self._correct(batch, plan, found, decided)
        elif scaler is not None:
            decided = self._unless_overflown(request.graph, decided)
        return self._record(batch, decided, combined)

    @uncompiled
    def forward(
        self,
        losses: Mapping[str, Tensor | None],
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> Tensor:
        """The scalar Σ m_k L_k, for frameworks that call backward themselves.

        In training, with gradients enabled, it measures and learns as :meth:`backward` does: along
        the update as soon as the backward pass of the result has filled ``.grad``. Otherwise
        (``eval()``, ``no_grad``) it uses the multipliers as they are and records nothing. With a
        ``scaler`` it measures scaled losses; the result is for the caller to scale.
        """
        if self.method.heads == "plain":
            raise ValueError(
                "heads='plain' has no scalar loss: use balancer.backward(losses), or "
                "heads='weighted'"
            )
        if not (self.training and torch.is_grad_enabled()):
            shape = self.method.measured.loss_shape
            batch = check_losses(losses, self.tasks, loss_shape=shape, need_graph=False)
            self._state.to(batch.device)
            decided = self._decide(batch, None, self._state.get().measure, learning=False)
            return as_scalar(batch.losses, batch.take(decided.multipliers))
        batch, request = self._check(losses, None, scaler)
        seen, remembered = self._measure(batch, request)
        decided = self._decide(batch, seen, remembered)
        plan = self._plan(batch, request, decided)
        if seen is None and plan is None:
            compile_to_keep(request.graph)
        self._record(batch, decided, "caller")
        total = as_scalar(batch.losses, batch.take(decided.multipliers))
        if plan is not None:
            self._listen(batch, plan, decided, total)
        return total

    def _check(
        self,
        losses: Mapping[str, Tensor | None],
        features: object,
        scaler: torch.amp.GradScaler | None,
        *,
        retain_graph: bool = False,
    ) -> tuple[Batch, Request]:
        """The losses, sound on every rank, and what a measurement is told of them."""
        self._closures.check()
        self._forget_pending()
        multipliers = self._state.get().method.multipliers
        marks = self._steps, self._cadence
        batch, roll = self._agreement.batch(losses, multipliers, marks)
        self._state.to(batch.device)
        used = batch if scaler is None else batch.scaled(scaler)
        graph = LossGraph(
            used.losses,
            self._shared,
            features,
            tasks=batch.present,
            n_tasks=len(self.tasks),
            given=used.given,
        )
        self._agreement.check(graph, roll)
        return batch, Request(
            graph,
            metric=self._metric,
            ranks=self._agreement.ranks,
            loss_scale=None if scaler is None else scaler.scale(torch.ones_like(batch.values[0])),
            gramian=self.method.rule.needs == "gramian",
            step=self._steps // self.accumulate // self.method.every,
            retain_graph=retain_graph,
        )

    def _measure(
        self, batch: Batch, request: Request, *, by_hand: bool = False
    ) -> tuple[Observation | None, Any]:
        """What is observed before the losses are combined, if anything is, and what that leaves."""
        remembered, graph = self._state.get().measure, request.graph
        new = [k for k in batch.present if k not in self._cadence.known]
        if not self._measures(graph, new):
            return None, remembered
        if self.method.measured.tracks:
            request = replace(request, graph=graph.only(new))
        else:
            gradients = by_hand and not someone_listens(graph.leaves)
            request = replace(request, gradients=gradients)
        seen, remembered = self.method.measured.update(request, remembered)
        if seen.unreached:
            refuse_reentrant(graph)
            raise ValueError(
                f"losses[{self.tasks[seen.unreached[0]]!r}] {self.method.measured.unreached_says}"
            )
        if self.method.measured.tracks:
            self._cadence = self._tracked.first(self._cadence, new, self._steps)
        return seen, remembered

    def _decide(
        self, batch: Batch, seen: Observation | None, remembered: Any, *, learning: bool = True
    ) -> _Decided:
        """The multipliers of this step and the state that follows, if all of it is finite."""
        state = self._state.get()
        old = new = state.method
        finite = (batch.values.isfinite() | ~batch.mask).all()
        norms = torch.full_like(batch.values, torch.nan)
        gramian = statistics = asked = None
        if seen is not None:
            norms, gramian, statistics = seen.norms, seen.gramian, seen.statistics
            asked = batch.mask if seen.asked is None else seen.asked
            finite = finite & (norms.isfinite() | ~asked).all()
        if learning and self._learns(seen):
            sound, new = self.method.update(Seen(batch.values, norms, gramian, statistics), old)
            finite = finite & sound
            new = select(finite, new, old)
            remembered = select(finite, remembered, state.measure)
        if self.on_nonfinite == "raise" and learning:
            self._refuse_unless(finite, batch, norms)
        window = self._rising(new.multipliers, state.window)
        if self._held:
            window = state.window if asked is None else torch.where(asked, window, state.window)
        used = batch.spread(usable(batch.take(window), batch.losses))
        if window is not state.window or new is not old:
            window = torch.where(finite, window, state.window)
            state = BalancerState(remembered, new, window)
        return _Decided(
            used,
            new.saturated & batch.mask,
            finite,
            norms,
            state,
            self._steps,
            gramian,
            engine="" if seen is None else "norms",
        )

    def _rising(self, wanted: Tensor, before: Tensor) -> Tensor:
        """(K,), the multipliers ``wanted``, none far above those of the optimizer step before."""
        rise = self.method.rise
        return wanted if rise is None else torch.minimum(wanted, rise * before)

    def _plan(self, batch: Batch, request: Request, decided: _Decided) -> Plan | None:
        """What to hold before the backward pass, if this step is measured along its update."""
        if not self.method.measured.tracks:
            return None
        held_back, before = self._agreement.held_back, self._held_back
        self._held_back = held_back
        due = self._steps >= self._cadence.due and not decided.engine
        if not due or self._in_first_static_pass(request.graph) or (before and not held_back):
            return None  # after passes that were held back, .grad is not this pass's alone
        request = replace(request, own=held_back)
        if self._moves is not None:
            direction = self._moves.take(request.graph.theta)
            if direction is None:
                return None  # no step since it was last asked for
            request = replace(request, direction=direction)
        return self._tracked.plan(request, batch.take(decided.multipliers), self._cadence)

    def _correct(self, batch: Batch, plan: Plan, found: Products, decided: _Decided) -> _Decided:
        """The same with what the update revealed, for the steps that follow."""
        self._cadence = self._tracked.learn(plan, found, self._cadence, decided.step, self.tasks)
        self._keep_calls()
        slopes = torch.full_like(found.slopes, torch.nan) if found.problem else found.slopes
        norms, measure = effective(slopes, found.multipliers), decided.state.measure
        told = norms
        if self._moves is not None:
            measure = measure.advance(slopes, found.multipliers)
            told = measure.norms(~slopes.isnan())
        finite = decided.finite & found.square.isfinite()
        sound, new = self.method.update(Seen(batch.values, told), decided.state.method)
        finite = finite & sound
        if self.on_nonfinite == "raise":
            self._refuse_unless(finite, batch, norms)
        pulls = slopes * found.multipliers
        whole = pulls.nansum()  # along another direction it may be below 0
        shares = torch.where(batch.mask, pulls / torch.where(whole > 0, whole, torch.nan), 0.0)
        return replace(
            decided,
            finite=finite,
            norms=norms.clamp(min=0),
            shares=pulls if found.problem else shares,
            engine="" if found.problem else plan.engine,
            state=select(
                finite,
                replace(decided.state, measure=measure, method=new),
                self._state.get(),
            ),
        )

    def _refuse_unless(self, finite: Tensor, batch: Batch, norms: Tensor) -> None:
        if not bool(finite):
            raise FloatingPointError(
                f"losses, norms and all that the method remembers must be finite, found losses "
                f"{_named(self.tasks, batch.values)} and norms {_named(self.tasks, norms)}: fix "
                "the loss (or, if these are finite, the rule or stabiliser), or let "
                "on_nonfinite='skip' leave such steps out"
            )

    def _unless_overflown(self, graph: LossGraph, decided: _Decided) -> _Decided:
        """Learn nothing from a step that the GradScaler will skip."""
        if not decided.engine and self.method.measures:
            return decided
        leaves = (*graph.shared.parameters(), *graph.leaves)
        found = overflown(leaves).to(decided.multipliers)
        finite = decided.finite & (self._agreement.ranks.total(found) == 0)
        state = select(finite, decided.state, self._state.get())
        return replace(decided, finite=finite, state=state)

    def _record(
        self,
        batch: Batch,
        decided: _Decided,
        combined: Literal["by-hand", "backward", "caller"],
        *,
        again: bool = False,
    ) -> Step:
        """The step, in the history, and the state that it leaves."""
        step = Step(
            tasks=self.tasks,
            step=decided.step,
            measured=decided.engine != "",
            combined=combined,
            losses=batch.values,
            norms=decided.norms,
            multipliers=decided.multipliers,
            saturated=decided.saturated,
            finite=decided.finite,
            gramian=decided.gramian,
            shares=decided.shares,  # pyright: ignore[reportArgumentType]
            engine=decided.engine,
            about=self._about | self._tracking,
        )
        self._state.set(decided.state)
        if again:
            self.history.amend(step)
        else:
            self._steps += 1
            self.history.append(step)
            self._keep_calls()
        self.last_step = step
        return step

    # ---- the backward pass of somebody else --------------------------------------------------

    def _listen(self, batch: Batch, plan: Plan, decided: _Decided, total: Tensor) -> None:
        """Measure as soon as the backward pass of ``total`` has filled ``.grad``."""
        along = self._pending = plan.along

        def correct() -> None:
            if self._pending is along:
                self._pending = None
                corrected = self._correct(batch, plan, along.finish(), decided)
                self._record(batch, corrected, "caller", again=True)

        def begin(factor: Tensor) -> None:
            if self._pending is along:
                along.begin(factor)
                at_the_end(correct)

        total.register_hook(begin)

    def _forget_pending(self) -> None:
        if self._pending is not None:
            self._pending.release()
            self._pending = None

    # ---- when -----------------------------------------------------------------------------------

    @property
    def _held(self) -> bool:
        """Whether this micro-batch uses the multipliers of an earlier one."""
        return self._steps % self.accumulate > 0

    def _measures(self, graph: LossGraph, new: Sequence[int]) -> bool:
        """Whether something is to be measured before the losses are combined."""
        if self.method.measured.tracks:
            due = bool(new)
        else:
            due = not self._held and self._steps // self.accumulate % self.method.every == 0
        if not (self.method.measures and due):
            return False
        unknown = len(graph.losses) == 1 and not graph.shared.parameters()
        return not (unknown or self._in_first_static_pass(graph))

    def _in_first_static_pass(self, graph: LossGraph) -> bool:
        return running() and in_first_static_pass(graph.nodes)

    def _learns(self, seen: Observation | None) -> bool:
        """Whether the rule is asked: after a measurement, or if losses are all that it needs."""
        return seen is not None or (self.method.rule.needs == "losses" and not self._held)

    def _keep_calls(self) -> None:
        """Keep what the next step needs if it is measured: calls to make again, and the move."""
        if self.method.measured.tracks:
            due = self._steps >= self._cadence.due
            self._shared.keep_calls(due)
            if due and self._moves is not None:
                self._moves.watch()

    @property
    def _tracked(self) -> Tracked:
        measured = self.method.measured
        assert isinstance(measured, Tracked)
        return measured

    @property
    def _tracking(self) -> dict[str, str]:
        """What happened to the probe, for the record."""
        return {"probe": self._cadence.reason} if self._cadence.reason else {}

    # ---- the state ------------------------------------------------------------------------------

    @property
    def multipliers(self) -> dict[str, float]:
        """What each loss is multiplied by in the next step, 1 for as the user wrote it.

        Waits for the device.
        """
        return _named(self.tasks, self._next())

    @property
    def weights(self) -> dict[str, float]:
        """The current multipliers brought to sum 1. Waits for the device."""
        multipliers = self._next()
        return _named(self.tasks, multipliers / multipliers.sum())

    def _next(self) -> Tensor:
        state = self._state.get()
        if self._held:
            return state.window
        return self._rising(state.method.multipliers, state.window)

    @property
    def measurement_state(self) -> Any:
        """What the measurement remembers, such as the noise that HalfBatch found; on the device."""
        return self._state.get().measure

    def diagnose(self) -> Diagnosis:
        """What the history says, in plain words: see :func:`gaba.diagnose`."""
        return diagnose(self.history)

    def reset(self) -> None:
        """Forget everything that was learnt; the history is kept."""
        self._forget_pending()
        device = self._state.get().method.multipliers.device
        self._state = StateBuffers(self._initial()).to(device)
        self._steps, self._cadence, self._held_back = 0, Cadence(), False
        self._keep_calls()

    def _initial(self) -> BalancerState:
        n_tasks = len(self.tasks)
        method = self.method.init(n_tasks)
        return BalancerState(self.method.measured.init(n_tasks), method, method.multipliers)

    def get_extra_state(self) -> _Saved:
        """The names of the tasks and the number of steps, saved with the state."""
        cadence = self._cadence.to_dict()
        return {"tasks": list(self.tasks), "step": self._steps, "cadence": cadence}

    def set_extra_state(self, state: _Saved) -> None:
        """Take over the number of steps from a saved state of the same tasks."""
        if tuple(state["tasks"]) != self.tasks:
            raise ValueError(
                f"state_dict is of the tasks {tuple(state['tasks'])}, this Balancer of "
                f"{self.tasks}: make the Balancer with the tasks that were saved"
            )
        self._steps = state["step"]
        self._cadence = Cadence.from_dict(state.get("cadence", {}))
        self._keep_calls()


def _named(tasks: Sequence[str], values: Tensor) -> dict[str, float]:
    return dict(zip(tasks, values.tolist(), strict=True))
