"""FSDP2 on two ranks, against one process in float64; and what is refused."""

from __future__ import annotations

import pytest

import _fsdp_cases
from _fsdp2 import needs_fsdp2
from _ranks import came_of, launched, split

pytestmark = needs_fsdp2

FAST, SLOW = split(
    _fsdp_cases,
    slow=(
        "trunk_and_heads",
        "whole",
        "calibrated",
        "without_resharding_g",
        "without_resharding_by",
    ),
)

ALONE = [name for name in FAST if name.endswith("on_one_rank")]
FAST = [name for name in FAST if name not in ALONE]
ALONE += FAST[:3]

came = launched("_fsdp_cases", 2, FAST)
came_slowly = launched("_fsdp_cases", 2, SLOW)
came_alone = launched("_fsdp_cases", 1, ALONE)


@pytest.mark.parametrize("name", FAST)
def test_as_one_process(came: dict[str, str], name: str) -> None:
    assert came_of(came, name) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_as_one_process_slowly(came_slowly: dict[str, str], name: str) -> None:
    assert came_of(came_slowly, name) == ""


@pytest.mark.parametrize("name", ALONE)
def test_one_rank_alone(came_alone: dict[str, str], name: str) -> None:
    assert came_of(came_alone, name) == ""
