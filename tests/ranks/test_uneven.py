"""Ranks that have not the same tasks, numbers or states, against one process; or refused."""

from __future__ import annotations

import pytest

import _uneven_cases
from _ranks import came_of, launched, split

FAST, SLOW = split(
    _uneven_cases,
    slow=("by_turns", "one_each_h", "gone_everywhere_", "_sketch"),
)

came = launched("_uneven_cases", 2, FAST)
came_slowly = launched("_uneven_cases", 2, SLOW)


@pytest.mark.parametrize("name", FAST)
def test_as_one_process(came: dict[str, str], name: str) -> None:
    assert came_of(came, name) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_as_one_process_slowly(came_slowly: dict[str, str], name: str) -> None:
    assert came_of(came_slowly, name) == ""
