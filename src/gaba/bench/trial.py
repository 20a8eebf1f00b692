"""One training of one method on one problem: what decides it, and what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

import gaba
from gaba import methods
from gaba.bench._data import drawn_from
from gaba.bench._peak import peak_bytes
from gaba.bench.problem import Problem, Session, load

__all__ = ["Optimizer", "Trial", "run_trial"]

Optimizer = Literal["adam", "sgd"]

EVALUATIONS = 20
"""How often a training is validated, at even distances; the best of them is what is tested."""

WARMUP = 0.05
"""The part of the steps in which the learning rate grows; then it falls to 0 along a cosine."""

PATIENCE = 20
"""Steps in a row without finite losses and gradients after which a training has diverged."""

PROFILED = 2
"""The step whose memory is measured: the optimizer has its state by then."""

_ELSEWHERE = ("stage", "spec", "data_dir", "device")
"""Why a trial is run and where things are: these do not decide its outcome."""


@final
@dataclass(frozen=True)
class Trial:
    """Everything that decides the outcome of one training, and where its data are.

    Attributes:
        problem: the name of the problem.
        method: a name of :data:`gaba.methods.METHODS`, or ``"fixed-tuned"``, ``"fixed-sweep"`` or
            ``"frozen:NAME"``, which have ``multipliers``.
        optimizer: ``"adam"`` is AdamW, ``"sgd"`` has momentum 0.9.
        learning_rate: at its highest, after the warm-up.
        weight_decay: of that optimizer.
        seed: decides the initial parameters, the batches and the dropout.
        steps: of the optimizer.
        stage: why it runs: ``"tune"``, ``"grid"`` (of fixed weights) or ``"final"``.
        multipliers: constant ones, one a task.
        spec: where the problem is, if it has no name; see :func:`gaba.bench.load`.
        data_dir: the folder of the data.
        device: a torch device.

    Example:
        >>> from dataclasses import replace
        >>> trial = Trial("conflict-toy", "uniform", "adam", 1e-3, 0.0, seed=0, steps=10)
        >>> trial.key == replace(trial, stage="tune", data_dir="elsewhere").key
        True
        >>> trial.key == replace(trial, seed=1).key
        False
    """

    problem: str
    method: str
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    seed: int
    steps: int
    stage: str = "final"
    multipliers: tuple[float, ...] | None = None
    spec: str | None = None
    data_dir: str | None = None
    device: str = "cpu"

    @cached_property
    def key(self) -> str:
        """The sha256 of what decides the outcome, as JSON with sorted names."""
        decides = {name: v for name, v in asdict(self).items() if name not in _ELSEWHERE}
        text = json.dumps(decides, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=4)
def problem_of(spec: str, data_dir: str | None) -> Problem:
    """The problem, loaded once in a process."""
    return load(spec, data_dir)


def run_trial(trial: Trial) -> dict[str, Any]:
    """Train, validate twenty times, test the best: what came of ``trial``.

    The learning rate grows linearly over the first 5 % of the steps, then falls to 0 along a
    cosine. The parameters with the best validation quality are tested; test data decide nothing. On
    a CPU with one thread all figures but times and memory repeat bit for bit.

    Returns:
        =====================  ====================================================================
        ``validation, test``   {metric: value} of the best parameters; NaN if it diverged
        ``quality``            :meth:`gaba.bench.Problem.quality` on validation data, lower is
                               better; infinite if it diverged
        ``selected_step``      after how many steps these were the parameters
        ``curve``              [[step, quality], ...] of every validation
        ``seconds``            of training without evaluation; ``wall_seconds`` all of it
        ``seconds_per_step``   the median
        ``peak_memory_bytes``  the most that one step held above what was held before it
        ``weights_mean``       {task: mean of λ over the second half}; ``weights_std`` alike
        ``multipliers``        {task: mean of m over the second half}
        ``saturated``          the part of the steps in which a multiplier was at a bound
        ``imbalance_median``   max c / min c; None where no norms are measured
        ``warm_up``            steps in which the method gives equal weights whatever it measures
        ``steps``              how many were made; fewer than asked for if it diverged
        ``diverged``           losses, gradients or qualities were not finite
        ``error``              None
        ``metrics``            the :class:`gaba.bench.Metric` of the problem, as dictionaries
        =====================  ====================================================================

    Raises:
        ValueError, ImportError, FileNotFoundError: the problem or the method cannot be loaded.

    Example:
        >>> trial = Trial("conflict-toy", "uniform", "adam", 1e-3, 0.0, seed=0, steps=10)
        >>> result = run_trial(trial)
        >>> result["steps"], result["diverged"], result["multipliers"]
        (10, False, {'f1': 1.0, 'f2': 1.0})
    """
    began = time.perf_counter()
    problem = problem_of(trial.spec or trial.problem, trial.data_dir)
    device = torch.device(trial.device)
    with drawn_from(trial.seed, device):
        training = _Training(trial, problem, problem.start(trial.seed, device), device)
        training.run()
        result = training.result()
    return {**result, "wall_seconds": time.perf_counter() - began}


@final
class _Training:
    """A session in progress: ``step`` trains on a batch, ``validate`` looks for the best."""

    def __init__(
        self, trial: Trial, problem: Problem, session: Session, device: torch.device
    ) -> None:
        self.trial, self.problem, self.session, self.device = trial, problem, session, device
        self.parameters = [p for p in session.model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(trial, self.parameters)
        self.balancer = _balancer(trial, problem, session, self.optimizer).to(device)
        self.halves = self.balancer.method.measured.loss_shape == (2,)
        self.times: list[float] = []
        self.curve: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] = {}
        self.figures: dict[str, float] = {}
        self.quality, self.selected = math.inf, 0
        self.steps = self.lost = self.memory = 0
        self.diverged = False

    def run(self) -> None:
        """Every step, with the validations between them; ends early where it diverges."""
        due = validations(self.trial.steps)
        profiled = min(PROFILED, self.trial.steps - 1)
        while self.steps < self.trial.steps and not self.diverged:
            if self.steps == profiled:
                self.memory = peak_bytes(self.step, self.device)
            else:
                began = time.perf_counter()
                self.step()
                self.times.append(time.perf_counter() - began)
            self.steps += 1
            if self.steps in due and not self.diverged:
                self.validate()

    def step(self) -> None:
        """One step of the optimizer, which a gradient that is not finite does not reach."""
        rate = self.trial.learning_rate * schedule(self.steps, self.trial.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self.session.losses_of_halves() if self.halves else self.session.losses()
        step = self.balancer.backward(losses, features=self.session.features)
        finite = step.finite
        if self.session.grad_clip is not None:
            length = nn.utils.clip_grad_norm_(self.parameters, self.session.grad_clip)
            finite = finite & length.isfinite().to(finite.device)
        if bool(finite):
            self.optimizer.step()
            self.lost = 0
        else:
            self.lost += 1
            self.diverged = self.lost >= PATIENCE
        self.optimizer.zero_grad()

    def validate(self) -> None:
        """Keep the parameters if they are the best so far."""
        figures = self._evaluate("validation")
        quality = self.problem.quality(figures)
        self.curve.append((self.steps, quality))
        if not math.isfinite(quality):
            self.diverged = True
        elif quality < self.quality:
            self.quality, self.selected, self.figures = quality, self.steps, figures
            state = self.session.model.state_dict()
            self.best = {name: value.detach().clone() for name, value in state.items()}

    def _evaluate(self, split: Literal["validation", "test"]) -> dict[str, float]:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # an evaluation never moves the training
            return {name: float(v) for name, v in self.session.evaluate(split).items()}

    def result(self) -> dict[str, Any]:
        """See :func:`run_trial`."""
        self.diverged = self.diverged or not self.best
        if self.diverged:
            validation = test = {metric.name: math.nan for metric in self.problem.metrics}
        else:
            self.session.model.load_state_dict(self.best)
            validation, test = self.figures, self._evaluate("test")
        return {
            "validation": validation,
            "test": test,
            "quality": math.inf if self.diverged else self.quality,
            "selected_step": self.selected,
            "curve": [list(point) for point in self.curve],
            "seconds": sum(self.times) * self.steps / max(1, len(self.times)),
            "seconds_per_step": statistics.median(self.times) if self.times else None,
            "peak_memory_bytes": self.memory,
            **behaviour(self.balancer.history),
            "warm_up": self.balancer.method.warm_up,
            "steps": self.steps,
            "diverged": self.diverged,
            "error": None,
            "metrics": [asdict(metric) for metric in self.problem.metrics],
        }


def behaviour(history: gaba.History) -> dict[str, Any]:
    """What the multipliers did: means over the second half of the steps, and parts of all steps.

    >>> balancer = gaba.Balancer(["a", "b"], [w := nn.Parameter(torch.ones(2))], "inverse")
    >>> for _ in range(4):
    ...     _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
    >>> {name: round(m, 4) for name, m in behaviour(balancer.history)["multipliers"].items()}
    {'a': 2.0, 'b': 0.6667}
    """
    late = history[len(history) // 2 :]
    late_weights, known = late.weights, history.imbalance[~np.isnan(history.imbalance)]
    try:
        multipliers = methods.settled(history)
    except ValueError:  # there is no finite step
        multipliers = _by_task(history.tasks, late.multipliers.mean(axis=0))
    return {
        "weights_mean": _by_task(history.tasks, late_weights.mean(axis=0)),
        "weights_std": _by_task(history.tasks, late_weights.std(axis=0)),
        "multipliers": multipliers,
        "saturated": float(history.saturated.any(axis=1).mean()),
        "imbalance_median": float(np.median(known)) if known.size else None,
    }


def _by_task(tasks: Iterable[str], values: Any) -> dict[str, float]:
    return dict(zip(tasks, map(float, values), strict=True))


def schedule(step: int, steps: int) -> float:
    """The learning rate of ``step`` (from 0) in parts of the highest.

    With w = max(1, 0.05 T) steps of warm-up out of T: (t + 1)/w while t < w, then
    ½ (1 + cos(π (t − w)/(T − w))).

    >>> [round(schedule(t, 40), 3) for t in (0, 1, 2, 21, 39)]
    [0.5, 1.0, 1.0, 0.5, 0.002]
    """
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def validations(steps: int) -> frozenset[int]:
    """After which steps the model is validated: twenty times, the last time at the end.

    >>> sorted(validations(100))[:3], len(validations(100)), sorted(validations(3))
    ([5, 10, 15], 20, [1, 2, 3])
    """
    found = (max(1, round(steps * i / EVALUATIONS)) for i in range(1, EVALUATIONS + 1))
    return frozenset(found)


def _optimizer(trial: Trial, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = trial.learning_rate, trial.weight_decay
    if trial.optimizer == "adam":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    if trial.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay)
    raise ValueError(f"optimizer: must be adam or sgd, found {trial.optimizer!r}")


def _balancer(
    trial: Trial, problem: Problem, session: Session, optimizer: torch.optim.Optimizer
) -> gaba.Balancer:
    name = trial.method if trial.multipliers is None else fixed(trial.multipliers)
    entry, _ = methods.find(name)
    settings: dict[str, Any] = {}
    if "last_layer=" in entry.needs and session.last_layer is not None:
        settings["last_layer"] = session.last_layer
    method = methods.get(name, problem.tasks, session.shared, **settings)
    told = optimizer if method.metric == "optimizer" else None
    return gaba.Balancer(problem.tasks, session.shared, method, optimizer=told)


def fixed(multipliers: Iterable[float]) -> str:
    """The name of the method of constant ``multipliers``.

    >>> fixed((0.1, 1.9))
    'fixed:0.1,1.9'
    """
    return "fixed:" + ",".join(map(repr, multipliers))
