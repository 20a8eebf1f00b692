"""Which trainings a benchmark is made of, and which of them can run now."""

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
from gaba.bench.problem import Problem, load
from gaba.bench.problems import PROBLEMS
from gaba.bench.store import Row
from gaba.bench.trial import Optimizer, Trial

__all__ = ["Plan"]

STAGES = ("tune", "grid", "final", "frozen")
"""In the order in which they can run; "frozen" is a part of ``final`` in the store."""


@final
@dataclass(frozen=True)
class Outcome:
    """What the plan needs of a finished training."""

    problem: str
    method: str
    quality: float
    diverged: bool
    error: str | None
    seconds: float
    multipliers: tuple[float, ...]

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
            multipliers=tuple(result.get("multipliers", {}).values()),
        )


Known = Mapping[str, Outcome]
"""What is finished, by :attr:`Trial.key`."""


@final
@dataclass(frozen=True)
class Part:
    """The trainings of one method in one stage, as far as they are known.

    Attributes:
        stage: one of :data:`STAGES`.
        method: as it is in the store.
        trials: those that can be named by now.
        total: how many there are in the best case.
        lost: how many will never be, because what they follow from failed or diverged.
    """

    stage: str
    method: str
    trials: list[Trial]
    total: int
    lost: int = 0


@final
@dataclass(frozen=True)
class Unit:
    """One method on one problem with one optimizer: tuned, run at every seed, and held."""

    base: Trial
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    frozen: bool

    @cached_property
    def tuning(self) -> list[list[Trial]]:
        """The trainings of each candidate."""
        stage = "grid" if self.base.method == SWEEP else "tune"
        return [[self._at(c, s, stage) for s in self.tuning_seeds] for c in self.candidates]

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

    def parts(self, known: Known) -> Iterator[Part]:
        """What it consists of, stage by stage."""
        method, seeds = self.base.method, len(self.seeds)
        tuning = [trial for trials in self.tuning for trial in trials]
        yield Part(tuning[0].stage, method, tuning, len(tuning))
        chosen = self.chosen(known)
        finals = [self._at(chosen, s, "final") for s in self.seeds] if chosen else []
        never = seeds if not finals and all(trial.key in known for trial in tuning) else 0
        yield Part("final", method, finals, seeds, never)
        if self.frozen:
            ends = [(trial, known[trial.key]) for trial in finals if trial.key in known]
            controls = [
                replace(trial, method=f"frozen:{method}", multipliers=end.multipliers)
                for trial, end in ends
                if not (end.failed or end.diverged)
            ]
            never += len(ends) - len(controls)
            yield Part("frozen", f"frozen:{method}", controls, seeds, never)

    def _at(self, candidate: Candidate, seed: int, stage: str) -> Trial:
        return replace(
            self.base,
            learning_rate=candidate.learning_rate,
            weight_decay=candidate.weight_decay,
            multipliers=candidate.multipliers,
            seed=seed,
            stage=stage,
        )


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
        """How many trainings are still to run."""
        return self.total - self.lost - self.done


@final
@dataclass
class Plan:
    """Every unit of a configuration, and what is finished of it.

    ``known`` grows as results come in; :meth:`ready` says what can run then.
    """

    units: list[Unit]
    known: dict[str, Outcome] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Plan:
        """All of ``config``, nothing of it done.

        Raises:
            ValueError: a problem cannot be loaded, or two have one name.

        Example:
            >>> config = Config(("conflict-toy",), ("uniform",), ("adam",), frozen=False)
            >>> plan = Plan.of(config)
            >>> [unit.base.method for unit in plan.units]
            ['uniform', 'single:f1', 'single:f2']
            >>> [(part.stage, part.total) for part in plan.units[0].parts({})]
            [('tune', 3), ('final', 5)]
            >>> [len(plan.shard(index, of=2).units) for index in range(2)], len(plan.ready())
            ([2, 1], 9)
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

    def shard(self, index: int, of: int) -> Plan:
        """The ``index``-th (from 0) of ``of`` parts, each with whole units of its own."""
        return Plan(self.units[index::of], self.known)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """The parts of all units, each with its problem."""
        for unit in self.units:
            for part in unit.parts(self.known):
                yield unit.base.problem, part

    def ready(self) -> list[Trial]:
        """What is not finished and waits for nothing, each once."""
        trials = (trial for _, part in self.parts() for trial in part.trials)
        return list({t.key: t for t in trials if t.key not in self.known}.values())

    def left(self) -> Counter[tuple[str, str]]:
        """How many trainings of each problem and method are still to run."""
        found = Counter[tuple[str, str]]()
        for problem, part in self.parts():
            done = sum(trial.key in self.known for trial in part.trials)
            found[problem, part.method] += part.total - part.lost - done
        return +found

    def errors(self) -> Counter[str]:
        """What the failed trainings said, with problem and method, and how often."""
        return Counter(
            f"{problem}, {part.method}: {outcome.error}"
            for problem, part in self.parts()
            for outcome in self._done(part)
            if outcome.failed
        )

    def stages(self) -> list[Stage]:
        """How far each stage is, those that there are."""
        found: list[Stage] = []
        parts = [part for _, part in self.parts()]
        for name in STAGES:
            own = [part for part in parts if part.stage == name]
            done = [outcome for part in own for outcome in self._done(part)]
            if total := sum(part.total for part in own):
                failed, diverged = sum(o.failed for o in done), sum(o.diverged for o in done)
                lost = sum(part.lost for part in own)
                found.append(Stage(name, len(done), total, failed, diverged, lost))
        return found

    def _done(self, part: Part) -> list[Outcome]:
        return [self.known[trial.key] for trial in part.trials if trial.key in self.known]


def _methods(config: Config, spec: str, problem: Problem) -> Iterator[str]:
    """The methods that ``problem`` runs with."""
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
    candidates, n_tasks = every[: config.trials], len(problem.tasks)
    if method == TUNED:
        label = f"{problem.name} {optimizer}"
        candidates = _points.joint(label, len(candidates), n_tasks, config.span, every)
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
    frozen = config.frozen and adapts(method)
    return Unit(base, tuple(candidates), config.seeds, config.tuning_seeds, frozen)


def adapts(method: str) -> bool:
    """Whether the multipliers of ``method`` may change, so that holding them says something.

    >>> adapts("gaba"), adapts("uniform"), adapts("fixed:1,2"), adapts("fixed-sweep")
    (True, False, False, False)
    """
    return method not in (SWEEP, TUNED) and methods.find(method)[0].group != "control"
