"""Tuning in share space: which part of the update each task should have, by Optuna."""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

from gaba.bench._share_trial import Objective, objective_of
from gaba.bench.tuned import Moment, Tried, Tuned, Watcher, shares_of
from gaba.extras import library

__all__ = ["Moment", "Tried", "Tuned", "Watcher", "tune"]

Tries: TypeAlias = "Callable[[dict[str, float]], float | Generator[float]]"
"""From targets to the validation figure, lower is better; a generator yields it as it trains."""

RATIO = 100.0
"""The largest ratio of two targets that is tried; pulls, their roots, differ tenfold at most."""
FIRST = 4
"""So many trials are equal targets and random ones; then TPE looks at what was found."""
FIRST_LOOK = 0.25
"""No trial ends early in this part of its training."""
WAIT = 60
"""Seconds for which another process may hold the file, and between two signs of life of a trial."""


def tune(
    problem: str | Tries,
    trials: int = 8,
    *,
    tasks: Sequence[str] | None = None,
    steps: int | None = None,
    method: str = "gaba",
    optimizer: str = "adam",
    learning_rate: float | None = None,
    seed: int = 100,
    storage: str | Path | None = None,
    study: str | None = None,
    data_dir: str | Path | None = None,
    quiet: bool = False,
    watcher: Watcher | None = None,
) -> Tuned:
    """Search the targets t_k, the part of the update that each task should have.

    The first trial has equal targets. Targets have no units, so one prior serves every problem: all
    tasks alike, no target more than 100 times another. Validation data alone decide.

    Args:
        problem: a problem of the benchmark by name (``FILE.py:NAME`` for your own), or a function
            of the targets {task: t}, which go to ``gaba.Balancer(share_targets=...)``. It returns
            the validation figure, lower is better. A generator that yields the figure as it trains
            may be ended early; the last one counts.
        trials: how many the study has in the end.
        tasks: names of the losses, for a function.
        steps: of each training of a problem; by default its own.
        method: what gets the targets; it has to make something equal.
        optimizer: ``"adam"`` or ``"sgd"``, of a problem.
        learning_rate: of a problem; by default the middle one of its grid.
        seed: of the search, and of each training of a problem.
        storage: a SQLite file, or a database URL, that keeps the study: the same call goes on where
            it was, and several machines may work on it.
        study: its name there; by default that of the problem or function.
        data_dir: the folder of the data of a problem.
        quiet: print nothing.
        watcher: is told of progress, in place of what is printed.

    Raises:
        ValueError, TypeError: an argument breaks its rule, or the study is of other settings.
        ImportError: Optuna is not installed.

    Example:
        >>> found = tune(lambda t: (t["a"] - 0.8) ** 2, trials=12, tasks=["a", "b"], quiet=True)
        >>> found.trials[0].targets, found.value < found.trials[0].value
        ({'a': 0.5, 'b': 0.5}, True)
    """
    if not isinstance(trials, int) or trials < 1:
        raise ValueError(f"trials must be a whole number of at least 1, found {trials!r}: 8 is few")
    optuna = library("optuna", "gaba.tune needs", "tune")
    if isinstance(problem, str):
        if tasks is not None:
            raise ValueError(f"tasks are those of the problem {problem!r}: leave tasks out")
        objective = objective_of(
            problem, steps, method, optimizer, learning_rate, seed=seed, data_dir=data_dir
        )
    else:
        objective = _of_function(problem, tasks)
    search = _Search(optuna, objective, trials, seed, watcher or _printed(quiet))
    with _silent(optuna):
        found = search.study(storage, study or objective.name)
        search.run(found)
    return search.result(found)


@final
@dataclass(frozen=True)
class _Search:
    """One study: what is tried, how often, and who is told."""

    optuna: Any
    objective: Objective
    trials: int
    seed: int
    watcher: Watcher

    def study(self, storage: str | Path | None, name: str) -> Any:
        """The study of that name, made with equal targets first, or as it was left."""
        optuna = self.optuna
        study = optuna.create_study(
            study_name=name,
            storage=_storage(optuna, storage),
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=3, n_warmup_steps=round(FIRST_LOOK * (self.objective.steps or 4))
            ),
        )
        self._check(study, name)
        lost = (optuna.trial.TrialState.FAIL,)
        equal = dict.fromkeys(self._searched, 0.0)
        if not any(t.params == equal or _asked(t) == equal for t in _known(study, lost)):
            study.enqueue_trial(equal)
        return study

    def _check(self, study: Any, name: str) -> None:
        """Refuse a study of something else; note in a new one what it is of."""
        mine = json.dumps({"tasks": list(self.objective.tasks), **self.objective.about})
        theirs = study.user_attrs.get("gaba")
        if theirs is None and not study.trials:
            study.set_user_attr("gaba", mine)
        elif theirs != mine:
            raise ValueError(
                f"study {name!r} in that storage must be of the same settings, found {theirs}, "
                f"now {mine}: give another name, study=..., or another file"
            )

    def run(self, study: Any) -> None:
        """The trials that are missing."""
        states = self.optuna.trial.TrialState
        done = (states.COMPLETE, states.PRUNED)
        enough = self.optuna.study.MaxTrialsCallback(self.trials, states=done)
        if len(study.get_trials(deepcopy=False, states=done)) < self.trials:
            study.optimize(self._try, callbacks=[enough, self._tell])

    def _try(self, trial: Any) -> float:
        # by number, so that one that goes on draws as if it had not stopped, and no two alike
        trial.study.sampler = self.optuna.samplers.TPESampler(
            seed=self.seed + trial.number, constant_liar=True, n_startup_trials=FIRST
        )
        widest, whole, value = math.log(RATIO) / 2, self.objective.steps, math.nan
        logs = {task: trial.suggest_float(task, -widest, widest) for task in self._searched}
        with closing(self.objective.train(shares_of(self.objective.tasks, logs))) as figures:
            for step, value in figures:
                if math.isnan(value):
                    break
                trial.report(value, step)
                part = math.nan if whole is None else step / whole
                self.watcher(self._moment(trial.study, trial.number, part))
                if step != whole and trial.should_prune():
                    raise self.optuna.TrialPruned
        if math.isnan(value):
            raise ValueError(
                "the figure must be a number, found NaN or that the generator yields nothing: "
                "yield or return the validation figure, lower is better"
            )
        return value

    @property
    def _searched(self) -> tuple[str, ...]:
        """The names of the numbers that are searched: of two tasks, the first alone."""
        tasks = self.objective.tasks
        return tasks[:1] if len(tasks) == 2 else tasks

    def _tell(self, study: Any, trial: Any) -> None:
        self.watcher(self._moment(study, trial.number, 1.0, _tried(trial, self.objective.tasks)))

    def _moment(self, study: Any, number: int, part: float, tried: Tried | None = None) -> Moment:
        states = self.optuna.trial.TrialState
        known = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        values = [t.value for t in known if t.state == states.COMPLETE]
        return Moment(number, len(known), self.trials, part, min(values, default=math.nan), tried)

    def result(self, study: Any) -> Tuned:
        """What the study holds."""
        states = self.optuna.trial.TrialState
        known = study.get_trials(states=(states.COMPLETE, states.PRUNED, states.FAIL))
        method = str(self.objective.about.get("method", "gaba"))
        tried = tuple(_tried(trial, self.objective.tasks) for trial in known if trial.params)
        return Tuned(self.objective.tasks, tried, method, study.study_name)


def _known(study: Any, lost: tuple[Any, ...]) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state not in lost]


def _asked(trial: Any) -> Any:
    """The parameters of a trial that waits to be run."""
    return trial.system_attrs.get("fixed_params")


def _tried(trial: Any, tasks: Sequence[str]) -> Tried:
    targets = shares_of(tasks, trial.params)
    curve = tuple(sorted(trial.intermediate_values.items()))
    state = {"COMPLETE": "finished", "PRUNED": "stopped early"}.get(trial.state.name, "failed")
    last = curve[-1][1] if curve else math.nan
    value = float(trial.value) if state == "finished" else last
    return Tried(trial.number, targets, value, state, curve)


def _of_function(function: Any, tasks: Sequence[str] | None) -> Objective:
    if not callable(function):
        raise TypeError(
            f"problem must be a name of `gaba bench problems` or a function, found {function!r}: "
            "pass a function of the targets that returns the validation figure"
        )
    names = tuple(tasks or ())
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"tasks must name two or more different losses of your function, found {list(names)}: "
            "pass tasks=['a', 'b']"
        )

    def train(targets: dict[str, float]) -> Generator[tuple[int, float]]:
        found: Any = function(targets)
        if isinstance(found, Generator):
            for step, value in enumerate(found):
                figure: Any = value
                yield step, float(figure)
        else:
            yield 0, float(found)

    name = getattr(function, "__name__", type(function).__name__)
    return Objective(name, names, {"function": name}, None, train)


def _storage(optuna: Any, storage: str | Path | None) -> Any:
    """Where the study is kept: a SQLite file, a database, or the memory of this process."""
    if storage is None:
        return None
    url = str(storage)
    if "://" not in url:
        path = Path(storage).expanduser().resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{path}"
    again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=2)
    beat = {"heartbeat_interval": WAIT, "heartbeat_stale_trial_callback": again}
    engine = {"connect_args": {"timeout": WAIT}} if url.startswith("sqlite:") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=engine, **beat)


@contextmanager
def _silent(optuna: Any) -> Iterator[None]:
    """Without Optuna's own lines, and without its warnings about what is new in it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _printed(quiet: bool) -> Watcher:
    def tell(moment: Moment) -> None:
        if moment.tried is not None and not quiet:
            print(moment, file=sys.stderr, flush=True)

    return tell
