"""DistributedDataParallel on two ranks, against one process in float64."""

from __future__ import annotations

import pytest

import _ddp_cases
from _ranks import came_of, launched, split

FAST, SLOW = split(
    _ddp_cases,
    slow=("small_buckets_by", "unused_view", "static_view", "unbalanced_gramian", "unbalanced_c"),
)

came = launched("_ddp_cases", 2, FAST)
came_slowly = launched("_ddp_cases", 2, SLOW)


@pytest.mark.parametrize("name", FAST)
def test_as_one_process(came: dict[str, str], name: str) -> None:
    assert came_of(came, name) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_as_one_process_slowly(came_slowly: dict[str, str], name: str) -> None:
    assert came_of(came_slowly, name) == ""
