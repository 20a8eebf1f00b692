"""What a problem of the benchmark is, and how one is found by its name or in a user's own file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from gaba.bench.problems import PROBLEMS

Split = Literal["validation", "test"]
Rates: TypeAlias = "Mapping[str, tuple[float, ...]]"
"""The grid of learning rates of each optimizer, by its name."""


@final
@dataclass(frozen=True)
class Metric:
    """One figure by which a trained model is judged.

    Attributes:
        name: its key in what :meth:`Session.evaluate` returns.
        task: the task that it judges.
        higher_is_better: whether a larger value is a better one; then it must lie in [0, 1].
        reference: what a trivial (constant) predictor gets: it makes metrics comparable.
        decides: False for a helper's figure, which is shown and takes part in no choice.

    Raises:
        ValueError: ``reference`` is not positive and finite, or with ``higher_is_better`` not
            below 1.

    Example:
        >>> Metric("rmse_rul", task="rul", reference=40.0).quality(20.0)
        0.5
    """

    name: str
    task: str
    higher_is_better: bool = False
    reference: float = 1.0
    decides: bool = True

    def __post_init__(self) -> None:
        most = 1.0 if self.higher_is_better else math.inf
        if not 0 < self.reference < most:
            rule = "lie between 0 and 1" if self.higher_is_better else "be positive and finite"
            raise ValueError(f"reference: of {self.name!r} must {rule}, found {self.reference}")

    def quality(self, value: float) -> float:
        """``value`` on the scale on which 0 is perfect and 1 is what the trivial predictor gets.

        With v the value and r the reference: v/r, or (1 − v)/(1 − r) where higher is better.

        >>> Metric("accuracy", task="digit", higher_is_better=True, reference=0.5).quality(0.75)
        0.5
        """
        if self.higher_is_better:
            return (1 - value) / (1 - self.reference)
        return value / self.reference


class Session(ABC):
    """One training: a freshly initialised model, and its batches in order.

    The seed and the device decide everything, the method nothing: two sessions of one seed start
    from the same parameters and draw the same batches.

    Attributes:
        model: every trainable parameter, on the device; in training mode between calls.
        shared: the part that the tasks share, as :class:`gaba.Balancer` takes it.
        grad_clip: the largest norm of the gradient of all parameters; None for no limit.
    """

    model: nn.Module
    shared: nn.Module | Iterable[nn.Parameter]
    grad_clip: float | None = 1.0

    @property
    def features(self) -> Tensor | None:
        """The tensor that the shared part gave for the last losses; None if it is not one tensor.

        >>> session = load("synthetic-40").start(0, torch.device("cpu"))
        >>> losses = session.losses()
        >>> session.features.shape
        torch.Size([64, 8])
        """
        return None

    @property
    def last_layer(self) -> nn.Module | None:
        """The last layer of the shared part, for methods that look at it alone; None if unknown.

        >>> load("synthetic-40").start(0, torch.device("cpu")).last_layer
        Linear(in_features=32, out_features=8, bias=False)
        """
        return None

    @abstractmethod
    def losses(self) -> dict[str, Tensor]:
        """The loss of each task on the next training batch, each a scalar with its graph."""

    def losses_of_halves(self) -> dict[str, Tensor]:
        """The same on the next batch, each of shape (2,): the means over its two halves.

        Only :class:`gaba.measurement.HalfBatch` asks for it.

        Raises:
            NotImplementedError: the losses of this problem are not means over examples.

        >>> load("synthetic-40").start(0, torch.device("cpu")).losses_of_halves()["t00"].shape
        torch.Size([2])
        """
        raise NotImplementedError(
            f"no losses by halves of the batch from {type(self).__module__}: choose a method that "
            "needs none, or give its session losses_of_halves()"
        )

    @abstractmethod
    def evaluate(self, split: Split) -> dict[str, float]:
        """The figures of the model as it is now, by name, on validation or on test data.

        It draws nothing from the generators that training uses, and leaves the model in training
        mode. Figures that are not among ``Problem.metrics`` are shown, not judged.
        """


class Problem(ABC):
    """Several tasks, one model, its data, and how a trained model is judged.

    A problem of your own is this class and a :class:`Session` with four names each; see
    ``examples/own_problem.py``.

    Attributes:
        name: as in the tables.
        tasks: names of the losses, in order.
        metrics: what is judged, at least one a task.
        steps: optimizer steps of a whole training.
        learning_rates: the grid of each optimizer, the same for every method.
        weight_decays: the grid of weight decays.
        needs_data: the folder of data that must be there, such as ``"mnist"``; None for none.
    """

    name: str
    tasks: tuple[str, ...]
    metrics: tuple[Metric, ...]
    steps: int = 1000
    learning_rates: Rates = MappingProxyType({"adam": (3e-4, 1e-3, 3e-3), "sgd": (1e-2, 3e-2, 0.1)})
    weight_decays: tuple[float, ...] = (0.0,)
    needs_data: ClassVar[str | None] = None

    @abstractmethod
    def start(self, seed: int, device: torch.device) -> Session:
        """A new training, decided by ``seed`` alone."""

    def quality(self, figures: Mapping[str, float]) -> float:
        """What chooses between models: the mean of :meth:`Metric.quality` over those that decide.

        0 is perfect, 1 is what trivial predictors get; infinite if a figure is not finite.

        >>> problem = load("synthetic-40")
        >>> problem.quality({metric.name: metric.reference for metric in problem.metrics})
        1.0
        """
        return mean_quality(self.metrics, figures)


def mean_quality(metrics: Sequence[Metric], figures: Mapping[str, float]) -> float:
    """The mean of :meth:`Metric.quality` over ``metrics`` that decide, or over all if none does.

    Infinite if one of these figures is not finite.
    """
    deciding = [metric for metric in metrics if metric.decides] or metrics
    found = [metric.quality(figures[metric.name]) for metric in deciding]
    return math.fsum(found) / len(found) if all(map(math.isfinite, found)) else math.inf


def load(spec: str, data_dir: str | Path | None = None) -> Problem:
    """The problem of that name, or of your own file or module.

    Args:
        spec: a name of :data:`PROBLEMS`, ``"path/to/file.py:NAME"``, or ``"package.module:NAME"``.
            NAME is a :class:`Problem`, a class of one, or a function that returns one.
        data_dir: where the data are, for those that read data.

    Raises:
        ValueError: there is no such name, file or module, or what is there is no sound problem.

    Example:
        >>> load("conflict-toy").tasks
        ('f1', 'f2')
        >>> load("titanic")
        Traceback (most recent call last):
            ...
        ValueError: problem: must be one of conflict-toy, ..., or FILE.py:NAME, found 'titanic'
    """
    where, colon, attribute = PROBLEMS.get(spec, spec).rpartition(":")
    if not (where and colon and attribute):
        known = ", ".join(sorted(PROBLEMS))
        raise ValueError(f"problem: must be one of {known}, or FILE.py:NAME, found {spec!r}")
    module = _from_file(Path(where)) if where.endswith(".py") else _from_package(where, spec)
    try:
        found: Any = getattr(module, attribute)
    except AttributeError:
        raise ValueError(f"problem: {where} has no {attribute!r}, found {spec!r}") from None
    if not isinstance(found, Problem) and callable(found):
        takes = "data_dir" in inspect.signature(found).parameters
        found = found(data_dir=data_dir) if takes else found()
    if not isinstance(found, Problem):
        raise ValueError(
            f"problem: {spec!r} must give a gaba.bench.Problem, found {type(found).__name__}"
        )
    _check(found)
    return found


def _from_package(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks another
        raise ValueError(f"problem: no module {name}, found {spec!r}") from None


def _from_file(path: Path) -> ModuleType:
    """The file as a module, known to pickle and dataclasses under a name that its path decides."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"problem: there is no file {path}")
    name = f"_gaba_bench_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check(problem: Problem) -> None:
    name = type(problem).__name__
    for attribute in ("name", "tasks", "metrics"):
        if not getattr(problem, attribute, None):
            raise ValueError(f"{attribute}: {name} must have it, and not empty")
    if len(set(problem.tasks)) != len(problem.tasks):
        raise ValueError(f"tasks: of {name} must differ, found {', '.join(problem.tasks)}")
    judged = [metric.task for metric in problem.metrics]
    if missing := set(problem.tasks) - set(judged):
        raise ValueError(f"metrics: {name} needs one for each task; none for {min(missing)!r}")
    if strange := set(judged) - set(problem.tasks):
        raise ValueError(f"metrics: of {name} must judge its tasks, found {min(strange)!r}")
    if problem.steps < 1:
        raise ValueError(f"steps: of {name} must be at least 1, found {problem.steps}")
