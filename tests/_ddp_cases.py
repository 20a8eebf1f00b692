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
    "stream": {"measurement": gaba.measurement.ExactNorms("stream")},
    "batched": {"measurement": gaba.measurement.ExactNorms("batched")},
    "sketch": {"measurement": gaba.measurement.SketchNorms(probes=2)},
    "features": {"measurement": "features"},
    "calibrated": {"measurement": gaba.measurement.FeatureNorms(calibrate_every=2)},
    "last_layer": {"measurement": "last-layer"},
    "outputs": {"measurement": gaba.measurement.OutputNorms()},
    "half_batch": {"measurement": "half-batch", "norm_stabiliser": None},
    "every": {"every": 2},
    "gramian": {"weighting": gaba.rules.EqualShare()},
    "gramian_of_features": {
        "weighting": gaba.rules.EqualShare(),
        "measurement": "features",
    },
    "anchor": {"anchor": "b", "norm_stabiliser": None},
    "small_buckets": {"sync": gaba.ranks.Sync(bucket=1024)},
}


def add(name: str, plan: Plan, rtol: float = 1e-8) -> None:
    globals()[f"case_{name}"] = lambda world: check(plan, world, rtol)


for wrapper, settings in WRAPPERS.items():
    late = "static" in wrapper
    add(f"ddp_{wrapper}", Plan(ddp(**settings), late=late))
    add(f"ddp_{wrapper}_by_the_caller", Plan(ddp(**settings), late=late, by_forward=True))
    if not late:
        add(f"ddp_{wrapper}_no_sync", Plan(ddp(**settings), micro=3, held_back=held_back))
for name, settings in MEASUREMENTS.items():
    rtol = 1e-5 if name == "sketch" else 1e-8
    # alone, where nobody listens to the backward pass, "stream" weighs with the weights of before
    truth = {"measurement": "exact"} if name == "stream" else {}
    add(f"measure_{name}", Plan(ddp(), settings, truth=truth), rtol)
    add(f"unbalanced_{name}", Plan(ddp(), settings, sizes=(4, 10), truth=truth), rtol)
