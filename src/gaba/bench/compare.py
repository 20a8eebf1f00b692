"""Several methods on your own model in one call: paired seeds, a table, a picture."""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gaba import Balancer, Method
from gaba import methods as catalogue
from gaba.bench.comparison import BASELINE, Comparison, Row, Run
from gaba.bench.statistics import t_interval

__all__ = ["Comparison", "Row", "Run", "compare"]

Batches: TypeAlias = "Iterable[Any] | Callable[[int], Iterable[Any]]"
"""Batches that can be gone through again and again, or what makes them of a seed."""
Shared: TypeAlias = "nn.Module | Iterable[nn.Parameter] | Literal['auto']"


def compare(
    make_model: Callable[[], nn.Module],
    data: Batches,
    methods: Sequence[str | Method] | Mapping[str, str | Method] = ("uniform", "gaba"),
    *,
    losses: Callable[[Any, Any], Mapping[str, Tensor | None]] | None = None,
    shared: Callable[[Any], Shared] | Literal["auto"] = "auto",
    tasks: Sequence[str] | None = None,
    validation: Batches | None = None,
    test: Batches | None = None,
    metric: Callable[[Any, Iterable[Any]], Mapping[str, float]] | None = None,
    optimizer: Callable[[list[nn.Parameter]], Optimizer] | None = None,
    learning_rates: Sequence[float] | None = None,
    steps: int = 1000,
    seeds: int = 3,
    quiet: bool = False,
) -> Comparison:
    """Train your model with each method from the same seeds, and print the table, best first.

    Args:
        make_model: makes a new model, which the seed initializes.
        data: training batches: a DataLoader, a list, or a function of the seed.
        methods: names of :data:`gaba.methods.METHODS` and methods, or a dict of your names for
            them. ``"uniform"``, what the others are compared with, is always among them.
        losses: ``(model, batch)`` to the losses by name; by default ``model.losses(*batch)``, or
            ``model(*batch)`` without such a method.
        shared: ``model`` to what the tasks share, as :class:`gaba.Balancer` takes it.
        tasks: the names of the losses; by default those of the first batch with a gradient.
        validation: batches to judge by; without them the last tenth of the training does.
        test: batches that the table is of; then ``validation`` chooses learning rates alone.
        metric: ``(model, batches)`` to figures by name in place of the losses; lower is better.
        optimizer: of a list of parameters; by default Adam with learning rate 0.001.
        learning_rates: the best of these, on validation data, is taken for each method.
        steps: of each training.
        seeds: how many trainings of each method; seed 0, 1, ... is the same for all.
        quiet: print nothing.

    Raises:
        ValueError, TypeError: an argument breaks its rule; the message says which and what to do.
        ImportError: SciPy, or what a method needs, is not installed.

    Example:
        >>> model = lambda: torch.nn.Linear(3, 2)
        >>> loss = lambda model, x: dict(zip("ab", (model(x) - 1).square().mean(0) * x.new([1, 9])))
        >>> found = compare(model, [torch.ones(4, 3)], ["gaba"], losses=loss, steps=50, quiet=True)
        >>> [row.method for row in found.rows if not row.failures]
        ['gaba', 'uniform']
    """
    _check_counts(steps=steps, seeds=seeds)
    rates = _rates(learning_rates, validation)
    if (metric is not None or test is not None) and validation is None:
        raise ValueError(
            "validation must be given with metric or test, found None: pass the batches to judge by"
        )
    for name, batches in (("data", data), ("validation", validation), ("test", test)):
        _check_again(name, batches)
    named = _named(methods)
    if seeds > 1:
        t_interval([0.0, 1.0])  # fails before the trainings, not after, without SciPy
    engine = _Engine(
        make_model,
        data,
        losses or default_losses,
        shared,
        tuple(tasks or ()),
        {"validation": validation, "test": test},
        metric,
        optimizer or _adam,
        steps,
    )
    engine.rehearse(named.values())
    # Methods take turns: a machine that is busy for a while slows all of them.
    wanted = [(name, rate, seed) for rate in rates for seed in range(seeds) for name in named]
    runs: list[Run] = []
    for name, rate, seed in wanted:
        _tell(quiet, f"{name}, seed {seed}: run {len(runs) + 1} of {len(wanted)}")
        runs.append(engine.run(name, named[name], rate, seed))
    _tell(quiet, "")
    source = "training" if validation is None else "validation" if test is None else "test"
    found = Comparison(tuple(runs), seeds, steps, source)
    if not quiet:
        print(found)
    return found


def default_losses(model: nn.Module, batch: Any) -> Any:
    """``model.losses`` of a batch, or ``model`` of it: a tuple is spread, a mapping by its names.

    >>> model = nn.Bilinear(2, 2, 1)
    >>> default_losses(model, (torch.ones(3, 2), torch.ones(3, 2))).shape
    torch.Size([3, 1])
    """
    called: Any = getattr(model, "losses", model)
    if isinstance(batch, Mapping):
        return called(**batch)
    return called(*batch) if isinstance(batch, (tuple, list)) else called(batch)


# ---- training -----------------------------------------------------------------------------------


@final
@dataclass
class _Engine:
    """What is the same in every run."""

    make_model: Callable[[], nn.Module]
    data: Batches
    losses: Callable[[Any, Any], Any]
    shared: Callable[[Any], Shared] | Literal["auto"]
    tasks: tuple[str, ...]
    judged_by: Mapping[str, Batches | None]
    metric: Callable[[Any, Iterable[Any]], Mapping[str, float]] | None
    optimizer: Callable[[list[nn.Parameter]], Optimizer]
    steps: int

    def rehearse(self, methods: Iterable[str | Method]) -> None:
        """Find the tasks in a first batch, and every mistake that shows before a training."""
        with _Draws(0), _seeded(self.data, 0):
            model = self._model()
            if self.make_model() is model:
                raise ValueError(
                    "make_model must make a new model in each call, found the same one twice: "
                    "build it inside the function"
                )
            found = self._losses_of(model, next(_endless(self.data, 0)))
            self.tasks = self.tasks or _tasks_in(found)
            for method in methods:
                made = self._balancer(model, method, self._optimizer(model, None)).method
                if made.measured.loss_shape:
                    raise ValueError(
                        f"methods must need one loss a batch, found {method!r}, which needs those "
                        "of two halves: leave it out, or run it in gaba bench"
                    )

    def run(self, name: str, method: str | Method, rate: float | None, seed: int) -> Run:
        """One training, judged at its end."""
        with _Draws(seed):
            model = self._model()
        with _Draws(seed), _seeded(self.data, seed):
            optimizer = self._optimizer(model, rate)
            balancer = self._balancer(model, method, optimizer)
            failure, seconds = self._train(model, optimizer, balancer, seed)
        figures: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
        if failure is None:
            model.eval()
            for split, batches in self.judged_by.items():
                if batches is not None:
                    figures[split] = self._figures(model, batches, seed)
            if self.judged_by["validation"] is None:
                figures["validation"] = self._late(balancer)
            failure = _strange(figures)
        if failure is not None:
            figures = {"validation": {}, "test": {}}
        return Run(
            method=name,
            seed=seed,
            learning_rate=rate,
            figures=figures["validation"],
            test=figures["test"],
            failure=failure,
            warm_up=balancer.method.warm_up,
            history=balancer.history,
            seconds_per_step=seconds,
        )

    def _train(
        self, model: nn.Module, optimizer: Optimizer, balancer: Balancer, seed: int
    ) -> tuple[str | None, float]:
        """Why it ended early, if it did, and the median time of a step."""
        batches, draws, times = _endless(self.data, seed), _Draws(seed), list[float]()
        failure: str | None = None
        for step in range(self.steps):
            with draws:  # what a method or a dropout draws moves no batch
                batch = next(batches)
            began = time.perf_counter()
            losses = self._losses_of(model, batch)
            if bad := _not_finite(losses, self.tasks):
                failure = f"loss {bad!r} is {losses[bad].item()} in step {step}"
                break
            balancer.backward(losses)
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - began)
        return failure, statistics.median(times) if times else math.nan

    def _model(self) -> nn.Module:
        model: Any = self.make_model
        if not isinstance(model, nn.Module):
            model = self.make_model()
            if isinstance(model, nn.Module):
                return model
        raise TypeError(
            f"make_model must be a function that makes a torch.nn.Module, found "
            f"{type(model).__name__}: pass lambda: MyModel(...)"
        )

    def _optimizer(self, model: nn.Module, rate: float | None) -> Optimizer:
        found = self.optimizer([p for p in model.parameters() if p.requires_grad])
        if not isinstance(found, Optimizer):
            raise TypeError(
                f"optimizer must make a torch.optim.Optimizer of parameters, found "
                f"{type(found).__name__}: pass lambda parameters: torch.optim.SGD(parameters, 0.1)"
            )
        if rate is not None:  # groups keep their proportions
            first = found.param_groups[0]["lr"]
            for group in found.param_groups:
                group["lr"] = rate * (group["lr"] / first)
        return found

    def _balancer(self, model: nn.Module, method: str | Method, optimizer: Optimizer) -> Balancer:
        shared: Any = self.shared(model) if callable(self.shared) else self.shared
        if isinstance(shared, Iterator):
            shared = list(shared)
        made = catalogue.get(method, self.tasks, shared) if isinstance(method, str) else method
        told = optimizer if made.metric == "optimizer" else None
        return Balancer(self.tasks, shared, made, optimizer=told)

    def _losses_of(self, model: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        found = self.losses(model, batch)
        if not isinstance(found, Mapping):
            raise TypeError(
                f"losses must be a dict of scalar tensors by name, found {type(found).__name__}: "
                "return {'a': loss_a, 'b': loss_b} from the model, or pass "
                "losses=lambda model, batch: {...}"
            )
        return found

    # ---- judging ------------------------------------------------------------------------------

    def _figures(self, model: nn.Module, data: Batches, seed: int) -> dict[str, float]:
        """The metric, or the mean of each loss over the batches, of the model as it is now."""
        with _Draws(seed), _seeded(data, seed):
            batches = data(seed) if callable(data) else data
            if self.metric is not None:
                return {name: float(value) for name, value in self.metric(model, batches).items()}
            found: dict[str, list[float]] = {task: [] for task in self.tasks}
            for batch in batches:
                for task, loss in self._losses_of(model, batch).items():
                    if task in found and loss is not None:
                        found[task].append(_number(task, loss))
        if never := [task for task, seen in found.items() if not seen]:
            raise ValueError(
                f"validation and test must hold every task, found none of {never[0]!r}: add "
                "batches with it, or pass metric="
            )
        return {task: math.fsum(seen) / len(seen) for task, seen in found.items()}

    def _late(self, balancer: Balancer) -> dict[str, float]:
        """The mean of each loss over the last tenth of the training, or over all of it if rare."""
        losses, last = balancer.history.losses, max(1, round(self.steps / 10))
        found = dict[str, float]()
        for k, task in enumerate(self.tasks):
            late, whole = (part[~np.isnan(part)] for part in (losses[-last:, k], losses[:, k]))
            if not len(whole):
                raise ValueError(
                    f"data must hold every task, found none of {task!r} in {self.steps} steps: use "
                    "more steps, or leave it out of tasks"
                )
            found[task] = float((late if len(late) else whole).mean())
        return found


# ---- data and random numbers --------------------------------------------------------------------


@final
class _Draws:
    """A stream of random numbers of torch, NumPy and Python; outside, theirs go on untouched."""

    def __init__(self, seed: int) -> None:
        self._seed, self._inside, self._outside = seed, None, _states()

    def __enter__(self) -> None:
        self._outside = _states()
        if self._inside is None:
            torch.manual_seed(self._seed)
            np.random.seed(self._seed)  # noqa: NPY002 (that of the user's data)
            random.seed(self._seed)
        else:
            _restore(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = _states()
        _restore(self._outside)


def _states() -> tuple[Any, ...]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), devices, np.random.get_state(), random.getstate()  # noqa: NPY002


def _restore(states: tuple[Any, ...]) -> None:
    cpu, devices, numpy, python = states
    torch.set_rng_state(cpu)
    if devices:
        torch.cuda.set_rng_state_all(devices)
    np.random.set_state(numpy)  # noqa: NPY002
    random.setstate(python)


@contextmanager
def _seeded(data: Batches | None, seed: int) -> Iterator[None]:
    """The generators of a DataLoader from ``seed`` on; afterwards they are as before."""
    owners = [data, getattr(data, "sampler", None), getattr(data, "batch_sampler", None)]
    owners.append(getattr(owners[-1], "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = {id(one): one for one in found if isinstance(one, torch.Generator)}.values()
    before = [(one, one.get_state()) for one in generators]
    for one, _ in before:
        one.manual_seed(seed)
    try:
        yield
    finally:
        for one, state in before:
            one.set_state(state)


def _endless(data: Batches, seed: int) -> Iterator[Any]:
    """The batches, from the beginning again when they are through."""
    batches = data(seed) if callable(data) else data
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("data must hold at least one batch, found none: pass more examples")
        if callable(data) and iter(batches) is batches:
            batches = data(seed)


# ---- what is asked of arguments -----------------------------------------------------------------


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, found {count!r}")


def _check_again(name: str, batches: Batches | None) -> None:
    if batches is None or callable(batches):
        return
    if not isinstance(batches, Iterable) or isinstance(batches, Iterator):
        raise TypeError(
            f"{name} must be batches that every run can go through again, found "
            f"{type(batches).__name__}: pass a DataLoader, a list, or lambda seed: batches"
        )


def _rates(rates: Sequence[float] | None, validation: object) -> Sequence[float | None]:
    if rates is None:
        return (None,)
    if validation is None:
        raise ValueError(
            "validation must be given with learning_rates, found None: training losses must not "
            "choose a learning rate"
        )
    found = [float(rate) for rate in rates]
    if not found or not all(math.isfinite(rate) and rate > 0 for rate in found):
        raise ValueError(
            f"learning_rates must be positive numbers, at least one, found {found}: pass "
            "[3e-4, 1e-3, 3e-3]"
        )
    return list(dict.fromkeys(found))


def _named(
    methods: Sequence[str | Method] | Mapping[str, str | Method],
) -> dict[str, str | Method]:
    """The methods by the names of the table, the baseline among them."""
    if isinstance(methods, str | Method):
        raise TypeError(f"methods must be several, found {methods!r}: pass [{methods!r}]")
    if isinstance(methods, Mapping):
        pairs = list(methods.items())
    else:
        pairs = [(repr(m.rule) if isinstance(m, Method) else m, m) for m in methods]
    found = {BASELINE: BASELINE, **dict(pairs)}
    if found[BASELINE] != BASELINE:
        raise ValueError(
            f"methods must call equal weights alone {BASELINE!r}, found {found[BASELINE]!r} under "
            "that name: give it another one"
        )
    names = [name for name, _ in pairs]
    if twice := [name for name in found if names.count(name) > 1]:
        raise ValueError(
            f"methods must have names that differ, found {twice[0]!r} twice: pass a dict "
            "{name: method}"
        )
    for method in found.values():
        if isinstance(method, str):
            catalogue.find(method)
        elif not isinstance(method, Method):
            raise TypeError(
                f"methods must be names or gaba.Method, found {type(method).__name__}: see "
                "gaba.methods.METHODS for the names"
            )
    return found


def _tasks_in(losses: Mapping[str, object]) -> tuple[str, ...]:
    """The entries that are losses: scalar tensors with a gradient."""
    found = {n: v for n, v in losses.items() if isinstance(v, Tensor) and v.requires_grad}
    wrong = [name for name, loss in found.items() if loss.numel() != 1]
    if wrong or len(found) < 2:
        told = ", ".join(f"{name}: {_described(value)}" for name, value in losses.items())
        raise ValueError(
            "losses must be a dict of at least 2 scalar tensors with a gradient, found "
            f"{{{told}}}: return the losses themselves, each reduced, for instance by .mean()"
        )
    return tuple(found)


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"tensor of shape {tuple(value.shape)}" + (
        "" if value.requires_grad else " without a gradient"
    )


def _not_finite(losses: Mapping[str, Any], tasks: Iterable[str]) -> str | None:
    """The first task whose loss is NaN or infinite."""
    for task in tasks:
        loss = losses.get(task)
        if isinstance(loss, Tensor) and loss.numel() == 1 and not math.isfinite(loss.item()):
            return task
    return None


def _number(name: str, loss: object) -> float:
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return float(loss.item())
    raise ValueError(
        f"losses[{name!r}] must be a scalar tensor, found {_described(loss)}: reduce it, for "
        "instance by .mean()"
    )


def _strange(figures: Mapping[str, Mapping[str, float]]) -> str | None:
    """The message about the first figure that is not finite."""
    for split, found in figures.items():
        for name, value in found.items():
            if not math.isfinite(value):
                return f"{name!r} is {value} on {split} data"
    return None


def _adam(parameters: list[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def _tell(quiet: bool, text: str) -> None:
    """How far it is, on a terminal only: one line that is written over."""
    if not quiet and sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
