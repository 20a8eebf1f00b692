"""Where FSDP2 runs on CPUs."""

from __future__ import annotations

import pytest
import torch

needs_fsdp2 = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"),
    reason="this torch has no FSDP2 on CPUs: its streams there lack record_event",
)
