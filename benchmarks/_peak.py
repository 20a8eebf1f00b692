"""The peak of the memory allocated on the CPU while something runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from itertools import accumulate

import torch

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler tells of each start and stop


def peak_bytes(work: Callable[[], object]) -> int:
    """The largest number of bytes held at once while ``work`` runs, above those held before.

    PyTorch's CPU allocator tells the profiler of each allocation and each release, those inside
    kernels and in the backward pass included (a dispatch mode would see the tensors that operators
    return, and no workspace in between). The peak is the largest running sum. Not seen: what oneDNN
    and the BLAS library allocate for themselves, which is the same in a plain step. That ``work``
    starts from nothing is the caller's concern: what it releases of earlier memory counts as less.
    """
    gc.collect()
    with torch.autograd.profiler.profile(use_cpu=True, profile_memory=True) as profile:
        work()
    assert profile is not None
    results = profile.kineto_results
    assert results is not None
    changes = [
        (event.start_ns(), event.nbytes())  # pyright: ignore[reportAttributeAccessIssue]
        for event in results.events()
        if event.name() == "[memory]"
    ]
    changes.sort(key=lambda change: change[0])
    return max(accumulate((size for _, size in changes), initial=0))
