"""What the keys of a benchmark's TOML file may hold."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any


def settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`gaba.bench.Config` in the tables of the file.

    Raises:
        ValueError: a table or key is unknown or absent, or holds something else than it may.
    """
    given: dict[str, Any] = {}
    for table, content in found.items():
        if table in _BY_PROBLEM and isinstance(content, dict):
            field, check = _BY_PROBLEM[table]
            checked = {name: check(f"{table}.{name}", value) for name, value in content.items()}
            given[field] = MappingProxyType(checked)
            continue
        if table not in _KEYS or not isinstance(content, dict):
            raise ValueError(
                f"{table}: must be one of the tables {', '.join(f'[{t}]' for t in _TABLES)}, "
                f"found {table!r}: {_hint(table, _TABLES)}"
            )
        for key, value in content.items():
            known = _KEYS[table]
            if key not in known:
                raise ValueError(
                    f"{table}.{key}: must be one of {', '.join(known)}, found {key!r}: "
                    f"{_hint(key, known)}"
                )
            given[key] = known[key](f"{table}.{key}", value)
    for key in ("problems", "methods"):
        if key not in given:
            raise ValueError(
                f"bench.{key}: must be given, found none: write {key} = [...] below [bench]; "
                f"gaba {'bench problems' if key == 'problems' else 'methods'} lists them"
            )
    return given


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "drop it"


def _wrong(key: str, rule: str, value: object, example: str) -> ValueError:
    return ValueError(f"{key}: must be {rule}, found {value!r}: write {example}")


def _words(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise _wrong(key, "a list of names", value, f'{key.rpartition(".")[2]} = ["name", "name"]')
    return tuple(value)


def _word(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(key, "a text", value, f'{key.rpartition(".")[2]} = "..."')
    return value


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _seeds(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(_whole(seed, 0) for seed in value):
        example = f"{key.rpartition('.')[2]} = [0, 1, 2]"
        raise _wrong(key, "a list of whole numbers of at least 0", value, example)
    return tuple(value)


def _count(key: str, value: object) -> int:
    if not _whole(value, 1):
        example = f"{key.rpartition('.')[2]} = 6"
        raise _wrong(key, "a whole number of at least 1", value, example)
    assert isinstance(value, int)
    return value


def _ratio(key: str, value: object) -> float:
    if isinstance(value, (int, float)) and 1 < value < math.inf:
        return float(value)
    raise _wrong(key, "a number above 1", value, "span = 1000.0")


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value, f"{key.rpartition('.')[2]} = true")
    return value


_KEYS: Mapping[str, Mapping[str, Callable[[str, object], Any]]] = {
    "bench": {
        "problems": _words,
        "methods": _words,
        "optimizers": _words,
        "seeds": _seeds,
        "tuning_seeds": _seeds,
        "steps": _count,
        "data_dir": _word,
        "store": _word,
        "device": _word,
    },
    "budget": {"trials": _count},
    "fixed": {"points": _count, "settings": _count, "span": _ratio},
    "controls": {"frozen": _flag, "single_task": _flag},
}
_BY_PROBLEM: Mapping[str, tuple[str, Callable[[str, object], Any]]] = {
    "steps": ("steps_of", _count),
    "skip": ("skip", _words),
}
_TABLES = (*_KEYS, *_BY_PROBLEM)
