"""The configuration of a benchmark, and the TOML file that holds it."""

from __future__ import annotations

import difflib
import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from gaba import methods
from gaba.bench.trial import Optimizer
from gaba.extras import library

__all__ = ["SWEEP", "TUNED", "Config"]

SWEEP, TUNED = "fixed-sweep", "fixed-tuned"
"""The methods of constant weights that are searched: on a dense grid, or in as many trials."""

_TABLES: Mapping[str, tuple[str, ...]] = {
    "bench": (
        *("problems", "methods", "optimizers", "seeds", "tuning_seeds", "steps"),
        *("data_dir", "store", "device"),
    ),
    "budget": ("trials",),
    "fixed": ("points", "settings", "span"),
    "controls": ("frozen", "single_task"),
}
_BY_PROBLEM = {"steps": "steps_of", "skip": "skip"}
_PLACES = {
    **{key: f"{table}.{key}" for table, keys in _TABLES.items() for key in keys},
    **{key: table for table, key in _BY_PROBLEM.items()},
}
"""Where each field of :class:`Config` is in the file."""


@final
@dataclass(frozen=True)
class Config:
    """What a benchmark runs; :meth:`read` takes it from a TOML file.

    .. code-block:: toml

        [bench]
        problems = ["gas-turbine-time"]        # gaba bench problems; or "file.py:NAME"
        methods = ["uniform", "gaba", "inverse", "fixed-tuned", "fixed-sweep"]  # gaba methods
        optimizers = ["adam", "sgd"]
        seeds = [0, 1, 2, 3, 4]                # reported
        tuning_seeds = [100]                   # these choose; none of the above
        store = "runs/bench.sqlite"
        # steps = 500, data_dir = "data", device = "cpu"

        [budget]
        trials = 6                             # settings that each method may try

        [fixed]                                # of fixed-sweep and fixed-tuned
        points = 21                            # weights on the grid
        settings = 6                           # learning rates × decays at each; else all
        span = 1000.0                          # largest ratio of two weights

        [controls]
        frozen = true                          # each adaptive method's own multipliers, held
        single_task = true                     # each task alone, for Δm

        [steps]
        turbofan-fd001 = 600                   # of one problem

        [skip]
        pinn-burgers = ["inverse-half"]        # methods that a problem cannot feed

    Every method gets the same number of trials per problem and optimizer: the first ``trials`` of
    the problem's learning rates × weight decays, from the middle rate outwards, at each tuning
    seed. ``fixed-tuned`` draws as many points over weights × rates × decays. ``fixed-sweep`` is the
    strong bound: it tries each point of its grid with each setting.

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
                raise ValueError(f"bench.{name}: must not be empty, found []: name at least one")
            if len(set(values)) != len(values):
                twice = next(v for v in values if values.count(v) > 1)
                raise ValueError(f"bench.{name}: must differ, found {twice!r} twice: drop one")
        for name in ("seeds", "tuning_seeds"):
            _at_least(0, _PLACES[name], *getattr(self, name))
        for name in ("steps", "trials", "points", "settings"):
            _at_least(1, _PLACES[name], getattr(self, name))
        for problem, steps in self.steps_of.items():
            _at_least(1, f"steps.{problem}", steps)
        if not 1 < self.span < math.inf:
            raise ValueError(f"fixed.span: must be above 1 and finite, found {self.span}: try 1000")
        for optimizer in self.optimizers:
            if optimizer not in ("adam", "sgd"):
                raise ValueError(
                    f"bench.optimizers: must be among adam and sgd, found {optimizer!r}: "
                    "adam is AdamW, sgd has momentum 0.9"
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
            ImportError: pydantic is not installed: ``pip install "gaba[bench]"``.
            ValueError: it is not TOML, or a key or value is wrong; the message begins with the
                file.

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
            raise ValueError(f"{file}: is not TOML: {error}") from error
        pydantic = library("pydantic", "the benchmark needs", "bench")
        try:
            # As JSON, in which a strict reader takes an array for a tuple and true for no number.
            given = json.dumps(_flat(found), default=str)
            return pydantic.TypeAdapter(cls).validate_json(given, strict=True)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{file}: {_said(first)}") from None
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None


def _flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`Config` in the tables of a file."""
    given: dict[str, Any] = {}
    for table, content in found.items():
        if table in _BY_PROBLEM:
            given[_BY_PROBLEM[table]] = content
            continue
        if table not in _TABLES or not isinstance(content, dict):
            known = (*_TABLES, *_BY_PROBLEM)
            raise ValueError(
                f"{table}: must be one of the tables {', '.join(f'[{t}]' for t in known)}, "
                f"found {table!r}: {_hint(table, known)}"
            )
        for key, value in content.items():
            if key not in _TABLES[table]:
                raise ValueError(
                    f"{table}.{key}: must be one of {', '.join(_TABLES[table])}, found {key!r}: "
                    f"{_hint(key, _TABLES[table])}"
                )
            given[key] = value
    return given


def _said(error: Mapping[str, Any]) -> str:
    """A finding of pydantic in our words."""
    if cause := error.get("ctx", {}).get("error"):
        return str(cause)
    name, *inside = error["loc"]
    place = _PLACES[name]
    if error["type"] == "missing":
        command = "gaba bench problems" if name == "problems" else "gaba methods"
        return f"{place}: must be given, found none: {command} lists them"
    if name in _BY_PROBLEM.values() and inside:
        place = f"{place}.{inside[0]}"
    rule = error["msg"].removeprefix("Input should be ")
    rule = rule.replace("valid array", "list").replace("an object", "a table")
    return f"{place}: must be {rule}, found {error['input']!r}"


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "drop it"


def _at_least(least: int, place: str, *values: int | None) -> None:
    for value in values:
        if value is not None and value < least:
            raise ValueError(f"{place}: must be at least {least}, found {value}")


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
