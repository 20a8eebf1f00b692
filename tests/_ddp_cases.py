"""What is trained under DistributedDataParallel on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gaba
from _ranked import Net, Plan, check


def ddp(**settings: Any) -> Callable[[Net], nn.Module]:
    return lambda net: DistributedDataParallel(net, **settings)


def held_back(model: nn.Module, last: bool) -> Any:
    alone = not isinstance(model, DistributedDataParallel)
    return nullcontext() if alone or last else model.no_sync()


WRAPPERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "view": {"gradient_as_bucket_view": True},
    "small_buckets": {"bucket_cap_mb": 0.0001},
    "unused": {"find_unused_parameters": True},
    "unused_view": {"find_unused_parameters": True, "gradient_as_bucket_view": True},
    "static": {"static_graph": True},
    "static_view": {"static_graph": True, "gradient_as_bucket_view": True},
}
MEASUREMENTS: dict[str, dict[str, Any]] = {
    "exact": {},
    "stream": {"measure": gaba.measurement.ExactNorms("stream")},
    "layer": {"measure": gaba.measurement.ExactNorms(layer="last")},
    "outputs": {"measure": gaba.measurement.OutputNorms()},
    "probe": {"measure": gaba.measurement.Tracked(every=1, engine="probe")},
    "products": {"measure": gaba.measurement.Tracked(every=1, engine="products")},
    "half_batch": {"measure": "half-batch"},
    "every": {"every": 2},
    "gramian": {"rule": gaba.rules.EqualShare()},
    "gramian_of_a_layer": {
        "rule": gaba.rules.EqualShare(),
        "measure": gaba.measurement.ExactNorms(layer="last"),
    },
    "anchor": {"anchor": "b"},
    "small_buckets": {"sync": gaba.ranks.Sync(bucket=1024)},
}


def add(name: str, plan: Plan) -> None:
    globals()[f"case_{name}"] = lambda world: check(plan, world)


for wrapper, settings in WRAPPERS.items():
    late = "static" in wrapper
    add(f"ddp_{wrapper}", Plan(ddp(**settings), late=late))
    add(f"ddp_{wrapper}_by_the_caller", Plan(ddp(**settings), late=late, by_forward=True))
    if not late:
        add(f"ddp_{wrapper}_no_sync", Plan(ddp(**settings), micro=3, held_back=held_back))
for name, settings in MEASUREMENTS.items():
    add(f"measure_{name}", Plan(ddp(), settings))
    add(f"unbalanced_{name}", Plan(ddp(), settings, sizes=(4, 10)))
