"""The default method under DistributedDataParallel and FSDP2, against one process in float64."""

from __future__ import annotations

import pytest

import _tracked_cases
from _fsdp2 import needs_fsdp2
from _ranks import ranked, split

FAST, SLOW = split(
    _tracked_cases,
    slow=(
        *("small_buckets", "view", "unused_products", "unused_by", "static_by", "static_products"),
        *(
            "fsdp_trunk",
            "fsdp_without_resharding_by",
            "fsdp_whole_by",
            "observe_small",
            "one_each",
            "gone_every",
        ),
    ),
)

SHARDED = [name for name in FAST if "fsdp" in name]
SHARDED_SLOW = [name for name in SLOW if "fsdp" in name]
FAST = [name for name in FAST if name not in SHARDED]
SLOW = [name for name in SLOW if name not in SHARDED_SLOW]

test_as_one_process = ranked("_tracked_cases", 2, FAST)
test_as_one_process_slowly = ranked("_tracked_cases", 2, SLOW, pytest.mark.slow)
test_sharded = ranked("_tracked_cases", 2, SHARDED, needs_fsdp2)
test_sharded_slowly = ranked("_tracked_cases", 2, SHARDED_SLOW, needs_fsdp2, pytest.mark.slow)
