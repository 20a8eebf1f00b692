"""A Balancer of a method of the catalogue, with settings of the method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

import gaba


def made(name: str, tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
    """The Balancer of the method ``name`` with these settings."""
    if isinstance(shared, Iterable) and not isinstance(shared, str | nn.Module):
        shared = list[Any](shared)
    own = {key: settings.pop(key) for key in ("accumulate", "optimizer") if key in settings}
    method = gaba.methods.get(name, tasks, shared, **settings)
    spec: Any = shared
    return gaba.Balancer(tasks, spec, method, **own)
