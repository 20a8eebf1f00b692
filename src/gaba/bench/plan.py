"""Which trainings a benchmark is made of, and which of them can be run by now."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

from gaba import methods
from gaba.bench import _points
from gaba.bench._points import Candidate
from gaba.bench.config import SWEEP, TUNED, Config
from gaba.bench.problem import PROBLEMS, Problem, load
from gaba.bench.store import Row
from gaba.bench.trial import Optimizer, Trial

STAGES = ("tune", "grid", "final", "frozen")
"""In the order in which they can be run; "frozen" is a part of ``final`` in the store."""


@final
@dataclass(frozen=True)
class Outcome:
    """What the plan must know of a finished training."""

    problem: str
    method: str
    quality: float
    diverged: bool
    error: str | None
    seconds: float
    weights: tuple[float, ...]
    gain: float

    @property
    def failed(self) -> bool:
        """Whether it raised an error."""
        return self.error is not None

    @classmethod
    def of(cls, run: Row | Trial, result: Mapping[str, Any]) -> Outcome:
        """That of a result in the store."""
        return cls(
            problem=run.problem,
            method=run.method,
            quality=float(result["quality"]),
            diverged=bool(result["diverged"]),
            error=result["error"],
            seconds=float(result.get("wall_seconds", result["seconds"])),
            weights=tuple(result.get("weights_mean", {}).values()),
            gain=float(result.get("gain_median", 1.0)),
        )


Known = Mapping[str, Outcome]
"""What is finished, by :attr:`Trial.key`."""


@final
@dataclass(frozen=True)
class Unit:
    """One method on one problem with one optimizer: tuned, run at every seed, and held."""

    base: Trial
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    frozen: bool

    @property
    def stage(self) -> str:
        """What its tuning is called."""
        return "grid" if self.base.method == SWEEP else "tune"

    def _at(self, candidate: Candidate, seed: int, stage: str) -> Trial:
        return replace(
            self.base,
            learning_rate=candidate.learning_rate,
            weight_decay=candidate.weight_decay,
            weights=candidate.weights,
            seed=seed,
            stage=stage,
        )

    @cached_property
    def tuning(self) -> list[list[Trial]]:
        """The trainings of each candidate."""
        return [[self._at(c, s, self.stage) for s in self.tuning_seeds] for c in self.candidates]

    def chosen(self, known: Known) -> Candidate | None:
        """The candidate with the best mean validation quality, the earlier of two equal ones.

        None while one of them is not finished, or if all failed.
        """
        best, least = None, math.inf
        for candidate, trials in zip(self.candidates, self.tuning, strict=True):
            found = [known.get(trial.key) for trial in trials]
            done = [outcome for outcome in found if outcome is not None]
            if len(done) < len(found):
                return None
            if any(outcome.failed for outcome in done):
                continue
            quality = statistics.fmean(outcome.quality for outcome in done)
            if best is None or quality < least:
                best, least = candidate, quality
        return best

    def finals(self, known: Known) -> list[Trial]:
        """The trainings that are reported; none as long as nothing is chosen."""
        chosen = self.chosen(known)
        return [] if chosen is None else [self._at(chosen, s, "final") for s in self.seeds]

    def controls(self, known: Known) -> list[Trial]:
        """Each final training once more, with its own mean weights and median gain held."""
        if not self.frozen:
            return []
        found: list[Trial] = []
        for trial in self.finals(known):
            outcome = known.get(trial.key)
            if outcome is not None and not (outcome.failed or outcome.diverged):
                held = replace(trial, method=f"frozen:{trial.method}", weights=outcome.weights)
                found.append(replace(held, gain=outcome.gain))
        return found

    def counts(self) -> dict[str, int]:
        """How many trainings of each stage it can come to."""
        tuning = len(self.candidates) * len(self.tuning_seeds)
        return {
            self.stage: tuning,
            "final": len(self.seeds),
            **({"frozen": len(self.seeds)} if self.frozen else {}),
        }

    def out_of_reach(self, known: Known) -> dict[str, int]:
        """How many trainings of each stage will never be: what they follow from failed."""
        tuned = all(trial.key in known for trials in self.tuning for trial in trials)
        if not tuned:
            return {}
        finals = self.finals(known)
        lost = {} if finals else {"final": len(self.seeds)}
        if self.frozen:
            finished = sum(trial.key in known for trial in finals)
            lost["frozen"] = finished - len(self.controls(known)) if finals else len(self.seeds)
        return lost


@final
@dataclass(frozen=True)
class Stage:
    """How far one stage is."""

    name: str
    done: int
    total: int
    failed: int
    diverged: int
    lost: int

    @property
    def left(self) -> int:
        """How many trainings are still to be run."""
        return self.total - self.lost - self.done


@final
@dataclass
class Plan:
    """Every unit of a configuration, and what is finished of it.

    ``known`` grows as results come in; :meth:`ready` says what can be run then.
    """

    units: list[Unit]
    known: dict[str, Outcome] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Plan:
        """All of ``config``, nothing of it done.

        Raises:
            ValueError: a problem cannot be had, or two have one name.

        Example:
            >>> config = Config(("conflict-toy",), ("uniform",), ("adam",), frozen=False)
            >>> plan = Plan.of(config)
            >>> [unit.base.method for unit in plan.units]
            ['uniform', 'single:f1', 'single:f2']
            >>> plan.units[0].counts()
            {'tune': 3, 'final': 5}
        """
        problems = {spec: load(spec, config.data_dir) for spec in config.problems}
        names = Counter(problem.name for problem in problems.values())
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValueError(
                f"bench.problems: must have names that differ, found {twice[0]!r} twice: rename one"
            )
        return cls(
            [
                _unit(config, spec, problem, optimizer, method)
                for spec, problem in problems.items()
                for optimizer in config.optimizers
                for method in _methods(config, spec, problem)
            ]
        )

    def part(self, index: int, of: int) -> Plan:
        """The ``index``-th (from 0) of ``of`` parts, each with whole units of its own."""
        return Plan(self.units[index::of], self.known)

    def ready(self) -> list[Trial]:
        """What is not finished and waits for nothing, each once."""
        waiting = {trial.key: trial for trial in self._reachable() if trial.key not in self.known}
        return list(waiting.values())

    def _reachable(self) -> Iterator[Trial]:
        for unit in self.units:
            for trials in unit.tuning:
                yield from trials
            yield from unit.finals(self.known)
            yield from unit.controls(self.known)

    def left(self) -> Counter[tuple[str, str]]:
        """How many trainings of each problem and method are still to be run."""
        found = Counter[tuple[str, str]]()
        for unit in self.units:
            problem, method = unit.base.problem, unit.base.method
            counts, lost = unit.counts(), unit.out_of_reach(self.known)
            for stage, count in counts.items():
                name = f"frozen:{method}" if stage == "frozen" else method
                found[problem, name] += count - lost.get(stage, 0)
        for trial in self._reachable():
            found[trial.problem, trial.method] -= trial.key in self.known
        return +found

    def errors(self) -> Counter[str]:
        """What the failed trainings said, with problem and method, and how often."""
        found = Counter[str]()
        for trial in self._reachable():
            outcome = self.known.get(trial.key)
            if outcome is not None and outcome.failed:
                found[f"{trial.problem}, {trial.method}: {outcome.error}"] += 1
        return found

    def stages(self) -> list[Stage]:
        """How far each stage is, those that there are."""
        total, lost = Counter[str](), Counter[str]()
        done, failed, diverged = Counter[str](), Counter[str](), Counter[str]()
        for unit in self.units:
            total.update(unit.counts())
            lost.update(unit.out_of_reach(self.known))
        for trial in self._reachable():
            if (outcome := self.known.get(trial.key)) is not None:
                name = stage_of(trial)
                done[name] += 1
                failed[name] += outcome.failed
                diverged[name] += outcome.diverged
        return [
            Stage(name, done[name], total[name], failed[name], diverged[name], lost[name])
            for name in STAGES
            if total[name]
        ]


def stage_of(trial: Trial) -> str:
    """The stage that a training is counted in.

    >>> stage_of(Trial("toy", "frozen:gaba", "adam", 0.1, 0.0, seed=0, steps=9, stage="final"))
    'frozen'
    """
    return "frozen" if trial.method.startswith("frozen:") else trial.stage


def _methods(config: Config, spec: str, problem: Problem) -> Iterator[str]:
    """The methods that ``problem`` is run with."""
    skipped = config.skip.get(spec, ())
    found: Iterable[str] = config.methods
    if config.single_task:
        found = (*found, *(f"single:{task}" for task in problem.tasks))
    for method in dict.fromkeys(found):
        word, _, argument = method.partition(":")
        fits = word != "fixed" or argument.count(",") + 1 == len(problem.tasks)
        known = word != "single" or argument in problem.tasks
        if fits and known and method not in skipped:
            yield method


def _unit(config: Config, spec: str, problem: Problem, optimizer: Optimizer, method: str) -> Unit:
    if optimizer not in problem.learning_rates:
        raise ValueError(
            f"bench.optimizers: {problem.name} must have learning_rates for each, found none for "
            f"{optimizer!r}: leave it out, or add them to the problem"
        )
    every = _points.settings(problem.learning_rates[optimizer], problem.weight_decays)
    budget, n_tasks = every[: config.trials], len(problem.tasks)
    candidates = budget
    if method == TUNED:
        label = f"{problem.name} {optimizer}"
        candidates = _points.joint(label, len(budget), n_tasks, config.span, every)
    elif method == SWEEP:
        weights = _points.grid(n_tasks, config.points, config.span)
        candidates = [replace(c, weights=w) for w in weights for c in every[: config.settings]]
    base = Trial(
        problem=problem.name,
        method=method,
        optimizer=optimizer,
        learning_rate=math.nan,
        weight_decay=math.nan,
        seed=-1,
        steps=config.steps_of.get(spec, config.steps or problem.steps),
        spec=None if spec in PROBLEMS else spec,
        data_dir=None if config.data_dir is None else str(config.data_dir),
        device=config.device,
    )
    return Unit(
        base, tuple(candidates), config.seeds, config.tuning_seeds, config.frozen and adapts(method)
    )


def adapts(method: str) -> bool:
    """Whether the weights of ``method`` may change, so that holding them says something.

    >>> adapts("gaba"), adapts("uniform"), adapts("fixed:1,2"), adapts("fixed-sweep")
    (True, False, False, False)
    """
    if method in (SWEEP, TUNED):
        return False
    return methods.find(method)[0].group != "control"
