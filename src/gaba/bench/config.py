"""The configuration of a benchmark: a TOML file, checked key by key."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from gaba import methods
from gaba.bench._keys import settings
from gaba.bench.trial import Optimizer

__all__ = ["Config"]

SWEEP, TUNED = "fixed-sweep", "fixed-tuned"
"""The methods of constant weights that are looked for: on a dense grid, or in as many trials."""


@final
@dataclass(frozen=True)
class Config:
    """What a benchmark runs; :meth:`read` takes it from a TOML file.

    .. code-block:: toml

        [bench]
        problems = ["gas-turbine-time"]        # gaba bench problems; or "file.py:NAME"
        methods = ["uniform", "gaba", "inverse", "fixed-tuned", "fixed-sweep"]  # gaba methods
        optimizers = ["adam", "sgd"]
        seeds = [0, 1, 2, 3, 4]                # those that are reported
        tuning_seeds = [100]                   # those that choose; none of the above
        store = "runs/bench.sqlite"
        # steps = 500                          # else the problem's own
        # data_dir = "data"
        # device = "cpu"

        [budget]
        trials = 6                             # settings that each method may try

        [fixed]                                # of fixed-sweep and fixed-tuned
        points = 21                            # weights on the grid
        settings = 6                           # learning rates × decays at each; else all
        span = 1000.0                          # largest ratio of two weights

        [controls]
        frozen = true                          # each adaptive method's own mean weights, held
        single_task = true                     # each task alone, for Δm

        [steps]
        turbofan-fd001 = 600                   # of one problem

        [skip]
        pinn-burgers = ["inverse-half"]        # methods that a problem cannot feed

    Every method gets the same number of trials per problem and optimizer: the first ``trials`` of
    the problem's learning rates × weight decays, from the middle learning rate outwards, at each of
    the tuning seeds. ``fixed-tuned`` draws its as many points at random over weights × learning
    rates × weight decays; ``fixed-sweep``, the strong bound, tries each point of the grid with each
    setting. A method ``fixed:W,W`` is run on the problems with that number of tasks.

    Raises:
        ValueError: a setting breaks its rule; the message names it, the value and the remedy.

    Example:
        >>> Config(problems=("conflict-toy",), methods=("gaba",)).seeds
        (0, 1, 2, 3, 4)
        >>> Config(problems=("conflict-toy",), methods=("gabba",))
        Traceback (most recent call last):
            ...
        ValueError: bench.methods: must be names that gaba methods lists, found 'gabba': did you ...
    """

    problems: tuple[str, ...]
    methods: tuple[str, ...]
    optimizers: tuple[Optimizer, ...] = ("adam", "sgd")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    tuning_seeds: tuple[int, ...] = (100,)
    steps: int | None = None
    steps_of: Mapping[str, int] = field(default_factory=dict)
    data_dir: str | Path | None = None
    store: str | Path = "runs/bench.sqlite"
    device: str = "cpu"
    trials: int = 6
    points: int = 21
    settings: int | None = None
    span: float = 1000.0
    frozen: bool = True
    single_task: bool = True
    skip: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("data_dir", "store"):
            if isinstance(place := getattr(self, name), Path):
                object.__setattr__(self, name, str(place))
        for name in ("problems", "methods", "optimizers", "seeds", "tuning_seeds"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"bench.{name}: must not be empty, found []: name one at least")
            if len(set(values)) != len(values):
                twice = next(v for v in values if values.count(v) > 1)
                raise ValueError(f"bench.{name}: must differ, found {twice!r} twice: drop one")
        for optimizer in self.optimizers:
            if optimizer not in ("adam", "sgd"):
                raise ValueError(
                    f"bench.optimizers: must be among adam and sgd, found {optimizer!r}: "
                    "adam is AdamW, sgd has momentum .9"
                )
        if both := set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(
                f"bench.tuning_seeds: must not be among bench.seeds, found {min(both)} in both: "
                "what was tuned on a seed looks too good on it; take another, such as 100"
            )
        for method in (*self.methods, *(m for skipped in self.skip.values() for m in skipped)):
            _check_method(method)
        for table, content in (("skip", self.skip), ("steps", self.steps_of)):
            if unknown := set(content) - set(self.problems):
                raise ValueError(
                    f"{table}: must name problems of bench.problems, found {min(unknown)!r}: "
                    f"they are {', '.join(self.problems)}"
                )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Config:
        r"""The configuration in the TOML file ``path``.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no TOML, or a key or value of it is wrong; the message begins with
                the file.

        Example:
            >>> import tempfile
            >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            ...     _ = file.write('[bench]\nproblems = ["conflict-toy"]\nmethods = ["gaba"]')
            ...     file.flush()
            ...     Config.read(file.name).methods
            ('gaba',)
        """
        file = Path(path)
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: is no TOML: {error}") from error
        try:
            return cls(**settings(found))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error


def _check_method(name: str) -> None:
    if name in (SWEEP, TUNED):
        return
    try:
        methods.find(name)
    except ValueError as error:
        word = name.partition(":")[0]
        if word in methods.METHODS:
            raise ValueError(f"bench.methods: {error}") from error
        near = difflib.get_close_matches(word, [*methods.METHODS, SWEEP, TUNED], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are also {SWEEP} and {TUNED}"
        raise ValueError(
            f"bench.methods: must be names that gaba methods lists, found {name!r}: {hint}"
        ) from None
