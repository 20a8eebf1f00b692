"""The Balancer and the Observer: check → measure → decide → combine → record."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, TypedDict, final, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gaba import methods
from gaba.absences import Absences
from gaba.autograd.closure import ClosureGuard
from gaba.autograd.combination import (
    as_scalar,
    combine,
    overflown,
    plain_backward,
    plain_sum,
    someone_listens,
    usable,
)
from gaba.autograd.graph import LossGraph
from gaba.autograd.losses import Batch, check_choice, check_losses
from gaba.autograd.moves import Moves
from gaba.autograd.passes import at_the_end, compile_to_keep, refuse_reentrant
from gaba.autograd.reach import misplaced, out_of_reach
from gaba.autograd.shared import SharedSpec, as_shared
from gaba.autograd.uncompiled import uncompiled
from gaba.autograd.undo import Undo, unsound
from gaba.measurement import Observation, Request, Tracked, Watched
from gaba.measurement.along import Along, Products
from gaba.measurement.base import balanced
from gaba.measurement.cadence import Cadence
from gaba.measurement.metric import as_metric
from gaba.measurement.tracked import Plan, effective
from gaba.measurement.watched import parts_of
from gaba.methods import Method
from gaba.methods.method import MethodState
from gaba.methods.settings import refusing_unknown
from gaba.multipliers import Scale
from gaba.pieces import Seen
from gaba.ranks import Sync, by_name
from gaba.ranks.agreement import Agreement
from gaba.ranks.processes import running
from gaba.ranks.wrappers import in_first_static_pass
from gaba.record import Diagnosis, History, Step, diagnose
from gaba.record.step import Engine
from gaba.refusals import Refusals
from gaba.roles import Roles
from gaba.rules import Proportional, Targets
from gaba.state import StateBuffers, select
from gaba.tensors import on_device, spread
from gaba.windows import Windows

OnNonfinite = Literal["pass", "skip", "drop", "raise"]
"""The value of ``on_nonfinite``."""

AsTheMethod = Literal["method"]
"""The value of a setting that is as the method has it."""


UNUSED = 3
"""After so many results in a row that nobody called ``backward`` on, one warning."""


class _Saved(TypedDict):
    tasks: list[str]
    step: int
    begun: int
    reached: list[int]
    cadence: dict[str, Any]
    windows: dict[str, Any]


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
    groups: Tensor | None = None
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
        groups: ``"module"``, with ``method="observe"``: see :func:`gaba.Observer`.
        fixed: coefficients by name of losses that are added as they are and never balanced, such as
            ``{"kl": 0.1}``: regularisers, entropy bonuses, commitment losses.
        observed: the names of losses that are recorded and never added.
        share_targets: the part of the update that each task should have, by name; only their
            proportions matter.
        optimizer: that of θ, or several: for ``metric="optimizer"``, and with ``shared="auto"`` to
            leave out what others move, such as a discriminator.
        accumulate: how many micro-batches make one step of the optimizer. A task has one multiplier
            in all of them, and pulls are equal over the whole step: a task with labels in few of
            them is amplified for it. Exact methods measure each task once in such a step.
        sync: how the ranks of a distributed run come to one decision: ``"auto"`` (exactly),
            ``"sketch"``, a :class:`gaba.ranks.Sync`, or ``False`` for each rank by itself.
        on_nonfinite: what NaN or ∞ in a loss or gradient does. Nothing is learnt from it.
            ``"pass"`` fills ``.grad`` all the same, as a GradScaler needs it; ``"skip"`` leaves
            ``.grad`` as it was; ``"drop"`` leaves out the task; ``"raise"``: FloatingPointError.

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

    @refusing_unknown
    def __init__(
        self,
        tasks: Sequence[str],
        shared: SharedSpec,
        method: str | Method = "gaba",
        *,
        fixed: Mapping[str, float] | None = None,
        observed: Iterable[str] = (),
        limit: float | AsTheMethod | None = "method",
        scale: Scale | AsTheMethod = "method",
        anchor: str | None = None,
        every: int | AsTheMethod = "method",
        budget: float | AsTheMethod = "method",
        share_targets: Mapping[str, float] | None = None,
        metric: Literal["euclidean", "optimizer"] | AsTheMethod = "method",
        groups: Literal["module"] | None = None,
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        accumulate: int = 1,
        sync: Sync | Literal["auto", "exact", "sketch", False] = "auto",
        on_nonfinite: OnNonfinite = "pass",
    ) -> None:
        super().__init__()
        self.roles: Roles = Roles.of(tasks, fixed, observed)
        self.tasks: tuple[str, ...] = self.roles.tasks
        check_choice("on_nonfinite", on_nonfinite, get_args(OnNonfinite))
        if isinstance(shared, Iterable) and not isinstance(shared, str | nn.Module | Tensor):
            shared = list(shared)
        if optimizer is None:
            optimizers: tuple[Optimizer, ...] = ()
        else:
            optimizers = (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)
            for found in optimizers:
                if not isinstance(found, Optimizer):
                    raise TypeError(
                        f"optimizer must be a torch.optim.Optimizer, or several, found "
                        f"{type(found).__name__}: pass the optimizer that you call step() on"
                    )
        self._shared = as_shared(shared, optimizers)
        changes: dict[str, Any] = {"limit": limit, "scale": scale, "every": every}
        changes |= {"budget": budget, "metric": metric, "groups": groups or "method"}
        changes = {name: value for name, value in changes.items() if value != "method"}
        if anchor is not None:
            check_choice("anchor", anchor, self.tasks)
            changes["anchor"] = self.tasks.index(anchor)
        made = methods.get(method, self.tasks, shared, **changes)
        if share_targets is not None:
            made = self._aimed(made, share_targets)
        self.method: Method = made
        if not isinstance(accumulate, Integral) or accumulate < 1:
            raise ValueError(
                f"accumulate must be a whole number of at least 1, found {accumulate!r}: 1 if each "
                "backward pass is followed by optimizer.step()"
            )
        if accumulate > 1 and self.method.needs_every_step:
            raise ValueError(
                f"accumulate must be 1 with heads={self.method.heads!r}, found {accumulate}: it "
                "needs the gradients of each task in each step"
            )
        self.accumulate: int = int(accumulate)
        self.on_nonfinite = on_nonfinite
        self.history: History = History(self.tasks)
        self.last_step: Step | None = None
        tracks = self.method.measured.tracks
        self._metric = as_metric(
            self.method.metric, optimizers, needed=shared != "auto", tracked=tracks
        )
        self._moves = Moves(optimizers) if tracks and self.method.metric == "optimizer" else None
        self._agreement = Agreement(
            by_name(sync), self.roles.terms, self._shared, self.method.measured.loss_shape
        )
        self._closures, self._refusals = ClosureGuard(), Refusals()
        self._steps = self._begun = 0
        self._cadence = Cadence()
        self._absences, self._windows = Absences(), Windows.of(len(self.tasks))
        self._looked = isinstance(shared, str)  # "auto" is what two losses reach
        self._pending: Along | None = None
        self._unused = 0
        self._held_back = False
        self._keep_calls()
        bounds, spared = self.method.bounds, self.method.spared
        self._about = {
            "method": methods.spelled(method) if isinstance(method, str) else repr(method.rule),
            "metric": self.method.metric,
            "measurement": repr(self.method.measure),
            **({"limit": f"{bounds.limit:g}"} if bounds.limited and bounds.limit else {}),
            **({"spared": ", ".join(self.tasks[k] for k in spared)} if spared else {}),
            **({"rise": f"{self.method.rise:g}"} if self.method.rise else {}),
            **({"warm-up": str(self.method.warm_up)} if self.method.warm_up else {}),
            **(
                {"optimizer": ", ".join(type(o).__name__ for o in optimizers)} if optimizers else {}
            ),
            **({"fixed": _listed(self.roles.fixed)} if self.roles.fixed else {}),
            **({"targets": _listed(share_targets)} if share_targets else {}),
        }
        self._state = StateBuffers(self._initial())

    def _aimed(self, method: Method, targets: Mapping[str, float]) -> Method:
        """``method`` with shares in these proportions; contributions go with their roots."""
        proportions = self.roles.proportions(targets)
        if not isinstance(method.rule, Proportional):
            raise ValueError(
                "share_targets must go with a rule that makes something equal, found "
                f"{type(method.rule).__name__}: use method='gaba' or 'equal-share'"
            )
        power = 1.0 if method.rule.needs == "gramian" else 0.5
        ratios = [value**power for value in proportions]
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

        After ``balancer.eval()`` it uses the multipliers as they are, and records nothing.

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
        if not self.training:
            return self._unlearnt(losses, features, scaler, retain_graph=retain_graph)
        self._closures.check()
        return self._backward(losses, features, scaler, retain_graph=retain_graph)

    def _backward(
        self,
        losses: Mapping[str, Tensor | None],
        features: object,
        scaler: torch.amp.GradScaler | None,
        *,
        retain_graph: bool,
    ) -> Step:
        keep = retain_graph or self.on_nonfinite == "drop"
        batch, request = self._check(losses, features, scaler, retain_graph=keep)
        undo, cadence = self._undo(request.graph, scaler), self._cadence
        seen, remembered = self._measure(batch, request, by_hand=True)
        decided = self._decide(batch, seen, remembered)
        plan = self._plan(batch, request, decided)
        combined = self._combine(batch, request, seen, decided, scaler)
        if plan is not None:
            found = plan.along.finish(arrived=combined == "backward")
            decided = self._correct(batch, plan, found, decided, guarded=undo is not None)
        elif scaler is not None:
            decided = self._unless_overflown(request.graph, decided)
        if undo is not None and not self._is_sound(undo, batch, decided):
            undo.put_back()
            if bad := self._to_drop(request.graph):
                self._cadence = cadence
                left = {name: None if name in bad else loss for name, loss in losses.items()}
                return self._backward(left, features, scaler, retain_graph=retain_graph)
            finite = torch.zeros_like(decided.finite)
            decided = replace(decided, finite=finite, state=self._state.get())
        return self._record(batch, decided, combined)

    def _unlearnt(
        self,
        losses: Mapping[str, Tensor | None],
        features: object,
        scaler: torch.amp.GradScaler | None,
        *,
        retain_graph: bool,
    ) -> Step:
        """The step with the multipliers as they are, which is not recorded."""
        batch, decided = self._as_they_are(losses, need_graph=True)
        used = batch if scaler is None else batch.scaled(scaler)
        places = {"tasks": batch.present, "n_tasks": len(self.roles.terms)}
        graph = LossGraph(used.losses, self._shared, features, **places, given=used.given)
        request = Request(graph, retain_graph=retain_graph)
        combined = self._combine(batch, request, None, decided, scaler)
        return self._step(batch, decided, combined)

    def _as_they_are(
        self, losses: Mapping[str, Tensor | None], *, need_graph: bool
    ) -> tuple[Batch, _Decided]:
        """The losses, and the multipliers as they are."""
        shape = self.method.measured.loss_shape
        terms, others = self._split(losses)
        met = self._absences.met
        batch = check_losses(
            terms, self.roles.terms, loss_shape=shape, need_graph=need_graph, met=met
        )
        batch = replace(batch, others=others)
        self._state.to(batch.device)
        decided = self._decide(batch, None, self._state.get().measure, learning=False)
        return batch, decided

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
            return self._scalar(*self._as_they_are(losses, need_graph=False))
        self._closures.check()
        batch, request = self._check(losses, None, scaler)
        seen, remembered = self._measure(batch, request)
        decided = self._decide(batch, seen, remembered)
        plan = None if self.method.observes else self._plan(batch, request, decided)
        if seen is None and plan is None:
            compile_to_keep(request.graph)
        self._record(batch, decided, "caller")
        total = self._scalar(batch, decided)
        if plan is not None:
            self._listen(batch, plan, decided, total, guarded=scaler is None)
        if self.on_nonfinite != "pass" and scaler is None:
            self._stand_by(request.graph, total)
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
        if isinstance(features, torch.amp.GradScaler):
            raise TypeError(
                "features must hold tensors, found a GradScaler: write "
                "balancer.backward(losses, scaler=scaler)"
            )
        self._forget_pending()
        multipliers = self._state.get().method.multipliers
        marks = self._steps, self._cadence
        terms, others = self._split(losses)
        met = self._absences.met
        batch, roll = self._agreement.batch(terms, multipliers, marks, met)
        batch = replace(batch, others=others)
        if multipliers.device != batch.device:
            self._state.to(batch.device)
        used = batch if scaler is None else batch.scaled(scaler)
        graph = LossGraph(
            used.losses,
            self._shared,
            features,
            tasks=batch.present,
            n_tasks=len(self.roles.terms),
            given=used.given,
        )
        self._agreement.check(graph, roll)
        if not self._held and self.accumulate > 1:
            self._windows = self._windows.begun(self.method.every)
        if not self._held:
            values, about = batch.values[: len(self.tasks)], self._about["method"]
            unfit, takes = self.method.unfit(values, self._state.get().method)
            self._refusals.check(unfit, values, self.tasks, takes, about)
        self._look_at(graph)
        self._absences = self._absences.after(batch)
        window = self._windows.whole if self.accumulate > 1 else self._steps
        return batch, Request(
            graph,
            metric=self._metric,
            ranks=self._agreement.ranks,
            loss_scale=None if scaler is None else scaler.scale(torch.ones_like(batch.values[0])),
            gramian=self.method.rule.needs == "gramian",
            step=window // self.method.every,
            retain_graph=retain_graph,
        )

    def _measure(
        self, batch: Batch, request: Request, *, by_hand: bool = False
    ) -> tuple[Observation | None, Any]:
        """What is observed before the losses are combined, if anything is, and what that leaves."""
        remembered, graph = self._state.get().measure, request.graph
        tasks = [k for k in batch.present if k < len(self.tasks)]
        asked = self._asked(replace(request, graph=graph.only(tasks)), by_hand=by_hand)
        if not asked:
            return None, remembered
        request = replace(request, graph=graph.only(asked))
        if not self.method.measured.tracks:
            alone = len(asked) == len(batch.present)  # what is fixed comes by a backward pass
            gradients = by_hand and alone and not someone_listens(graph.leaves)
            request = replace(request, gradients=gradients)
        if self.accumulate > 1:
            measured = tuple({*self._windows.measured, *asked})
            self._windows = replace(self._windows, measured=measured)
        with self._shared.undisturbed():
            seen, remembered = self.method.measured.update(request, remembered)
        if seen.asked is None and len(asked) < len(tasks):
            seen = replace(seen, asked=request.graph.present)
        strange = [k for k in seen.unreached if k not in self._absences.reached]
        if strange:
            refuse_reentrant(graph)
            says = self.method.measured.unreached_says
            raise ValueError(out_of_reach(request.graph, self.tasks, strange, says))
        self._note(asked, seen.unreached)
        if self.method.measured.tracks:
            self._cadence = self._tracked.first(self._cadence, asked, self._steps)
        return balanced(seen, len(self.tasks)), remembered

    def _decide(
        self, batch: Batch, seen: Observation | None, remembered: Any, *, learning: bool = True
    ) -> _Decided:
        """The multipliers of this step and the state that follows, if all of it is finite."""
        state, n = self._state.get(), len(self.tasks)
        old = new = state.method
        values, mask = batch.values[:n], batch.mask[:n]
        finite = (batch.values.isfinite() | ~batch.mask).all()
        norms = torch.full_like(values, torch.nan)
        gramian = statistics = asked = None
        if seen is not None:
            norms, gramian, statistics = seen.norms, seen.gramian, seen.statistics
            asked = mask if seen.asked is None else seen.asked
            finite = finite & (norms.isfinite() | ~asked).all()
        if learning and self._learns(seen):
            told = Seen(values, norms, gramian, statistics)
            sound, new = self.method.update(*self._over_window(told, old))
            finite = finite & sound
            new = select(finite, new, old)
            remembered = select(finite, remembered, state.measure)
        if self.on_nonfinite == "raise" and learning:
            self._refuse_unless(finite, batch, norms)
        window = self._rising(new.multipliers, state.window)
        if self._held:
            window = state.window if asked is None else torch.where(asked, window, state.window)
        used = self._usable(batch, window)
        if window is not state.window or new is not old:
            window = torch.where(finite, window, state.window)
            state = BalancerState(remembered, new, window)
        return _Decided(
            used,
            new.saturated & mask,
            finite,
            norms,
            state,
            self._steps,
            gramian,
            groups=statistics if self.method.observes else None,
            engine="" if seen is None else "norms",
        )

    def _over_window(
        self, seen: Seen, state: MethodState
    ) -> tuple[Seen, MethodState, Tensor | None]:
        """What the method is told: the mean norms of the gradients of a whole optimizer step."""
        if self.accumulate == 1 or self._windows.even:
            return seen, state, None
        parts = on_device(self._windows.parts, seen.norms.device).to(seen.norms)
        gramian = None if seen.gramian is None else seen.gramian * parts[:, None] * parts
        there = on_device(self._windows.there, seen.norms.device)
        return replace(seen, norms=seen.norms * parts, gramian=gramian), state, there

    def _usable(self, batch: Batch, window: Tensor) -> Tensor:
        """(K,), the multipliers as they can be used; NaN where a task is missing."""
        n = len(window)
        places = [k for k in batch.present if k < n]
        if not places:
            return torch.full_like(window, torch.nan)
        taken = window if len(places) == n else window[on_device(places, window.device)]
        return spread(usable(taken, batch.losses[: len(places)]), places, n)

    def _combine(
        self,
        batch: Batch,
        request: Request,
        seen: Observation | None,
        decided: _Decided,
        scaler: torch.amp.GradScaler | None,
    ) -> Literal["by-hand", "backward"]:
        """Fill ``.grad``: by what was measured, or by one backward pass; how it was done."""
        graph, keep = request.graph, request.retain_graph
        if self.method.observes:
            return plain_backward(graph, batch.losses, scaler, retain_graph=keep)
        gradients = None if seen is None else seen.gradients
        used = self._used(batch, decided)
        return combine(graph, gradients, used, heads=self.method.heads, retain_graph=keep)

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
        return self._tracked.plan(request, self._used(batch, decided), self._cadence)

    def _correct(
        self, batch: Batch, plan: Plan, found: Products, decided: _Decided, *, guarded: bool
    ) -> _Decided:
        """The same with what the update revealed, for the steps that follow.

        Where the pass is ``guarded``, what is not finite is refused once ``.grad`` is put back.
        """
        self._cadence = self._tracked.learn(
            plan, found, self._cadence, decided.step, self.roles.terms
        )
        self._keep_calls()
        self._note(plan.along.tasks, plan.along.unreached)
        n = len(self.tasks)
        slopes, multipliers = found.slopes[:n], found.multipliers[:n]
        if found.problem:
            slopes = torch.full_like(slopes, torch.nan)
        norms, measure = effective(slopes, multipliers), decided.state.measure
        told = norms
        if self._moves is not None:
            measure = measure.advance(slopes, multipliers)
            told = measure.norms(~slopes.isnan())
        finite = decided.finite & found.square.isfinite()
        new = decided.state.method
        if not self.method.observes:
            told = Seen(batch.values[:n], told)
            sound, new = self.method.update(*self._over_window(told, new))
            finite = finite & sound
        if self.on_nonfinite == "raise" and not guarded:
            self._refuse_unless(finite, batch, norms)
        pulls = slopes * multipliers
        whole = pulls.nansum()  # along another direction it may be below 0
        shares = torch.where(batch.mask[:n], pulls / torch.where(whole > 0, whole, torch.nan), 0.0)
        return replace(
            decided,
            finite=finite,
            norms=decided.norms if self.method.observes else norms.clamp(min=0),
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
                f"{_named(self.roles.terms, batch.values)} and norms "
                f"{_named(self.tasks, norms)}: fix the loss (or, if these are finite, the rule or "
                "stabiliser), or let on_nonfinite='skip' leave such steps out, 'drop' the task"
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
        step = self._step(batch, decided, combined)
        self._state.set(decided.state)
        if again:
            self.history.amend(step)
        else:
            if self.accumulate > 1:
                self._windows = self._windows.after(batch.present)
            self._steps += 1
            self.history.append(step)
            self._keep_calls()
        self.last_step = step
        return step

    def _step(
        self, batch: Batch, decided: _Decided, combined: Literal["by-hand", "backward", "caller"]
    ) -> Step:
        return Step(
            tasks=self.tasks,
            step=decided.step,
            measured=decided.engine != "",
            combined=combined,
            losses=batch.values[: len(self.tasks)],
            norms=decided.norms,
            multipliers=decided.multipliers,
            saturated=decided.saturated,
            finite=decided.finite,
            gramian=decided.gramian,
            shares=decided.shares,  # pyright: ignore[reportArgumentType]
            engine=decided.engine,
            others=batch.others,
            groups=self._by_part(decided.groups),
            about=self._about | self._noted,
        )

    def _by_part(self, norms: Tensor | None) -> dict[str, Tensor]:
        """Norms (K, G) by part of the shared module."""
        names = parts_of(self._shared) if norms is not None else ()
        return {} if norms is None else dict(zip(names, norms.unbind(dim=1), strict=True))

    # ---- what is not finite ---------------------------------------------------------------------

    def _undo(self, graph: LossGraph, scaler: torch.amp.GradScaler | None) -> Undo | None:
        """What puts ``.grad`` back, if it is to be; a GradScaler must see what overflows."""
        if self.on_nonfinite == "pass" or scaler is not None:
            return None
        return Undo((*graph.shared.parameters(), *graph.leaves))

    def _is_sound(self, undo: Undo, batch: Batch, decided: _Decided) -> bool:
        """Whether losses, norms and ``.grad`` are finite on every rank."""
        sound = bool(decided.finite) and undo.sound()
        sound = self._agreement.ranks.all(sound, batch.device)
        if not sound and self.on_nonfinite == "raise":
            undo.put_back()
            raise _not_finite()
        return sound

    def _to_drop(self, graph: LossGraph) -> set[str]:
        """The tasks to be left out of this step, if others remain; ranks leave out all."""
        if self.on_nonfinite != "drop" or self._agreement.ranks.several:
            return set()
        bad = unsound(graph)
        return {self.roles.terms[k] for k in bad} if len(bad) < len(graph.tasks) else set()

    def _stand_by(self, graph: LossGraph, total: Tensor) -> None:
        """Put ``.grad`` back if the caller's backward pass of ``total`` brings NaN or ∞."""
        leaves = (*graph.shared.parameters(), *graph.leaves)
        device, number = graph.device, self._steps - 1

        def begin(_: Tensor) -> None:
            undo = Undo(leaves)
            at_the_end(lambda: end(undo))

        def end(undo: Undo) -> None:
            if self._agreement.ranks.all(undo.sound(), device):
                return
            undo.put_back()
            last = self.last_step
            if last is not None and last.step == number:
                self.last_step = replace(last, finite=torch.zeros_like(last.finite))
                self.history.amend(self.last_step)
            if self.on_nonfinite == "raise":
                raise _not_finite()

        total.register_hook(begin)

    # ---- the backward pass of somebody else --------------------------------------------------

    def _listen(
        self, batch: Batch, plan: Plan, decided: _Decided, total: Tensor, *, guarded: bool
    ) -> None:
        """Measure as soon as the backward pass of ``total`` has filled ``.grad``."""
        along = self._pending = plan.along

        def correct() -> None:
            if self._pending is along:
                self._pending, self._unused = None, 0
                corrected = self._correct(batch, plan, along.finish(), decided, guarded=guarded)
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
            self._unused += 1
            if self._unused == UNUSED:
                warnings.warn(
                    "what balancer(losses) returns was not trained on in the last steps that were "
                    "to be measured: call backward() on it, or use balancer.backward(losses), or "
                    "gaba.Observer if you keep your own sum",
                    stacklevel=5,
                )

    # ---- when -----------------------------------------------------------------------------------

    @property
    def _held(self) -> bool:
        """Whether this micro-batch uses the multipliers of an earlier one."""
        return (self._steps - self._begun) % self.accumulate > 0

    def _asked(self, request: Request, *, by_hand: bool) -> Sequence[int]:
        """Whose norms are to be measured before the losses are combined."""
        graph = request.graph
        unknown = len(graph.losses) <= 1 and not graph.shared.parameters()
        if unknown or not self.method.measures:
            return ()
        if self.method.measured.tracks:
            new = [k for k in graph.tasks if k not in self._cadence.known]
            asked = self._tracked.exact(request, self._cadence, new, self._steps, probing=by_hand)
        else:
            due, done = self._steps % self.method.every == 0, ()
            if self.accumulate > 1:
                due, done = self._windows.due, self._windows.measured
            asked = [k for k in graph.tasks if k not in done] if due else ()
        return () if asked and self._in_first_static_pass(graph) else asked

    def _in_first_static_pass(self, graph: LossGraph) -> bool:
        return running() and in_first_static_pass(graph.nodes)

    def _learns(self, seen: Observation | None) -> bool:
        """Whether the rule is asked: after a measurement, or if losses are all that it needs."""
        if self.method.observes:
            return False
        return seen is not None or (self.method.rule.needs == "losses" and not self._held)

    def _keep_calls(self) -> None:
        """Keep what the next step needs if it is measured: calls to make again, and the move."""
        if self.method.measured.tracks:
            due = self._steps >= self._cadence.due
            self._shared.keep_calls(due)
            if due and self._moves is not None:
                self._moves.watch()

    @property
    def _tracked(self) -> Tracked | Watched:
        measured = self.method.measured
        assert isinstance(measured, Tracked | Watched)
        return measured

    @property
    def _noted(self) -> dict[str, str]:
        """What happened on the way, for the record."""
        noted = {"probe": self._cadence.reason} if self._cadence.reason else {}
        if self.accumulate > 1:  # an integration may have set it
            noted["accumulate"] = str(self.accumulate)
        return noted | self._absences.about(self.tasks)

    # ---- the terms ------------------------------------------------------------------------------

    def _look_at(self, graph: LossGraph) -> None:
        """Note, once there are all losses, which shared parameters are not shared."""
        if not self._looked and len(graph.losses) == graph.n_tasks:
            self._looked = True
            if found := misplaced(graph, self.roles.terms):
                self._about["shared"] = found

    def _note(self, asked: Sequence[int], unreached: Sequence[int]) -> None:
        """Note who reaches nothing shared; on several ranks a loss may be another's."""
        lost = () if self._agreement.ranks.several else unreached
        names = self.roles.terms
        self._absences = self._absences.measured(asked, lost, self._steps, names)

    def _split(self, losses: Any) -> tuple[Any, dict[str, Tensor]]:
        """What is added up, and the values of what is recorded beside."""
        beside = (self.roles.fixed or self.roles.observed) and isinstance(losses, Mapping)
        return self.roles.split(losses) if beside else (losses, {})

    def _used(self, batch: Batch, decided: _Decided) -> Tensor:
        """The multipliers of all that is there; what is fixed has its coefficient in it already."""
        used = decided.multipliers
        if self.roles.fixed:
            used = torch.cat([used, used.new_ones(len(self.roles.fixed))])
        return batch.take(used)

    def _scalar(self, batch: Batch, decided: _Decided) -> Tensor:
        """What a framework calls backward on."""
        if self.method.observes:
            return plain_sum(batch.losses)
        return as_scalar(batch.losses, self._used(batch, decided))

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

    def __repr__(self) -> str:
        parameters = self._shared.parameters()
        numbers = sum(p.numel() for p in parameters)
        shared = f"{len(parameters)} shared parameters ({numbers:,} numbers)"
        fixed = f", fixed {_listed(self.roles.fixed)}" if self.roles.fixed else ""
        return (
            f"Balancer({', '.join(self.tasks)}{fixed}; method {self._about['method']!r}; "
            f"{shared if parameters else 'shared parameters not known yet'}; "
            f"{self._steps:,} step{'s' * (self._steps != 1)})"
        )

    def diagnose(self) -> Diagnosis:
        """What the history says, in plain words: see :func:`gaba.diagnose`."""
        return diagnose(self.history)

    def begin_window(self) -> None:
        """The next micro-batch is the first of an optimizer step, however many came before.

        Call it where a window may be shorter than ``accumulate``, as the last one of an epoch is.
        The integrations with Lightning, Transformers and Accelerate do.

        Example:
            >>> import torch, gaba
            >>> w = torch.nn.Parameter(torch.ones(2))
            >>> balancer = gaba.Balancer(["a", "b"], [w], "inverse", accumulate=4)
            >>> for n in range(3):  # the epoch ends within a window
            ...     _ = balancer.backward({"a": w[0], "b": 3 * w[1]})
            >>> balancer.begin_window()
            >>> balancer.backward({"a": w[0], "b": 9 * w[1]}).measured
            True
        """
        self._begun = self._steps

    def reset(self) -> None:
        """Forget everything that was learnt; the history is kept."""
        self._forget_pending()
        device = self._state.get().method.multipliers.device
        self._state = StateBuffers(self._initial()).to(device)
        self._steps = self._begun = 0
        self._cadence, self._held_back = Cadence(), False
        self._absences, self._windows = Absences(), Windows.of(len(self.tasks))
        self._keep_calls()

    def _initial(self) -> BalancerState:
        n_tasks = len(self.tasks)
        method = self.method.init(n_tasks)
        return BalancerState(self.method.measured.init(n_tasks), method, method.multipliers)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load; a checkpoint of a model that had no Balancer yet leaves this one as it is."""
        if prefix and not any(key.startswith(prefix) for key in state_dict):
            state_dict.update(self.state_dict(prefix=prefix))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def get_extra_state(self) -> _Saved:
        """The names of the tasks and the number of steps, saved with the state."""
        cadence = self._cadence.to_dict()
        reached = sorted(self._absences.reached)
        return {
            "tasks": list(self.tasks),
            "step": self._steps,
            "begun": self._begun,
            "reached": reached,
            "cadence": cadence,
            "windows": self._windows.to_dict() if self.accumulate > 1 else {},
        }

    def set_extra_state(self, state: _Saved) -> None:
        """Take over the number of steps from a saved state of the same tasks."""
        if tuple(state["tasks"]) != self.tasks:
            raise ValueError(
                f"state_dict is of the tasks {tuple(state['tasks'])}, this Balancer of "
                f"{self.tasks}: make the Balancer with the tasks that were saved"
            )
        self._steps, self._begun = state["step"], state.get("begun", 0)
        self._cadence = Cadence.from_dict(state.get("cadence", {}))
        self._windows = Windows.from_dict(state.get("windows", {}), len(self.tasks))
        self._absences = Absences(reached=frozenset(state.get("reached", ())))
        self._keep_calls()


def _named(tasks: Sequence[str], values: Tensor) -> dict[str, float]:
    return dict(zip(tasks, values.tolist(), strict=True))


def _not_finite() -> FloatingPointError:
    return FloatingPointError(
        "gradients must be finite, found NaN or ∞ in .grad after the backward pass, which is as it "
        "was before: torch.autograd.set_detect_anomaly(True) finds where it comes from; or let "
        "on_nonfinite='skip' leave such steps out, 'drop' the task"
    )


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


@refusing_unknown
def Observer(  # noqa: N802 - reads as what it makes
    tasks: Sequence[str],
    shared: SharedSpec,
    *,
    every: int | None = None,
    budget: float = 0.05,
    fixed: Mapping[str, float] | None = None,
    observed: Iterable[str] = (),
    groups: Literal["module"] | None = None,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    accumulate: int = 1,
    sync: Sync | Literal["auto", "exact", "sketch", False] = "auto",
) -> Balancer:
    """A Balancer that changes nothing and says whether a loss dominates: ``method="observe"``.

    ``observer.backward(losses)`` fills ``.grad`` as ``sum(losses.values()).backward()`` does, bit
    for bit. If you keep your own backward pass, call ``observer(losses)`` in front of it and leave
    what it returns. Pass the losses as they enter your sum, with your own coefficients.

    Args:
        tasks: the names of the losses.
        shared: the shared parameters: a module, an iterable of parameters, or ``"auto"``.
        every: measure in every n-th step; otherwise as often as ``budget`` allows.
        budget: the part of the training time that may go into measuring.
        fixed: coefficients by name of what else you add, such as ``{"kl": 0.1}``.
        observed: the names of losses that are recorded only.
        groups: ``"module"`` to see to whom each child of the shared module belongs: its norms by
            task, in ``history.groups`` and in the diagnosis.
        optimizer: of the shared parameters, where ``shared="auto"`` needs it.
        accumulate: how many micro-batches make one step of the optimizer.
        sync: how ranks measure together, as for :class:`Balancer`.

    Raises:
        ValueError, TypeError: as for :class:`Balancer`.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> observer = gaba.Observer(["rul", "health"], [w])
        >>> losses = {"rul": 208 * w[0], "health": w[1]}
        >>> _ = observer(losses)
        >>> sum(losses.values()).backward()  # as before
        >>> observer.last_step.norms.tolist()
        [208.0, 1.0]
    """
    return Balancer(
        tasks,
        shared,
        "observe",
        groups=groups,
        every="method" if every is None else every,
        budget=budget,
        fixed=fixed,
        observed=observed,
        optimizer=optimizer,
        accumulate=accumulate,
        sync=sync,
    )
