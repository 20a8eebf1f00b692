"""Ranks that have not the same tasks, numbers or states, against one process; or refused."""

from __future__ import annotations

import pytest

import _uneven_cases
from _ranks import ranked, split

FAST, SLOW = split(
    _uneven_cases,
    slow=("by_turns", "one_each_h", "gone_everywhere_", "_sketch"),
)

test_as_one_process = ranked("_uneven_cases", 2, FAST)
test_as_one_process_slowly = ranked("_uneven_cases", 2, SLOW, pytest.mark.slow)
