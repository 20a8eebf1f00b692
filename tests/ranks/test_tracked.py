"""The default method under DistributedDataParallel and FSDP2, against one process in float64."""

from __future__ import annotations

import pytest

import _tracked_cases
from _ranks import came_of, launched, split

FAST, SLOW = split(
    _tracked_cases,
    slow=(
        *("small_buckets", "view", "unused_products", "unused_by", "static_by", "static_products"),
        *("fsdp_trunk", "fsdp_without_resharding_by", "fsdp_whole_by", "one_each", "gone_every"),
    ),
)

came = launched("_tracked_cases", 2, FAST)
came_slowly = launched("_tracked_cases", 2, SLOW)


@pytest.mark.parametrize("name", FAST)
def test_as_one_process(came: dict[str, str], name: str) -> None:
    assert came_of(came, name) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_as_one_process_slowly(came_slowly: dict[str, str], name: str) -> None:
    assert came_of(came_slowly, name) == ""
