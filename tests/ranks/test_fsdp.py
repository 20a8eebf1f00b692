"""FSDP2 on two ranks, against one process in float64; and what is refused."""

from __future__ import annotations

import pytest

import _fsdp_cases
from _fsdp2 import needs_fsdp2
from _ranks import ranked, split

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

test_as_one_process = ranked("_fsdp_cases", 2, FAST)
test_as_one_process_slowly = ranked("_fsdp_cases", 2, SLOW, pytest.mark.slow)
test_one_rank_alone = ranked("_fsdp_cases", 1, ALONE)
