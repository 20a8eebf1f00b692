"""DistributedDataParallel on two ranks, against one process in float64."""

from __future__ import annotations

import pytest

import _ddp_cases
from _ranks import ranked, split

FAST, SLOW = split(
    _ddp_cases,
    slow=("small_buckets_by", "unused_view", "static_view", "unbalanced_gramian", "unbalanced_c"),
)

test_as_one_process = ranked("_ddp_cases", 2, FAST)
test_as_one_process_slowly = ranked("_ddp_cases", 2, SLOW, pytest.mark.slow)
