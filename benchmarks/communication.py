"""What the ranks of a distributed run send each other in a step, measured and predicted.

    unshare -rn bash -c "ip link set lo up; python benchmarks/communication.py"

Two and four processes take steps over gloo with a Balancer and no wrapper, so they send only what
the Balancer sends. The bytes are those on the loopback interface while the steps run. Nothing else
may use it, hence the network namespace above. The time is the median over the steps. The page
``docs/benchmarks/communication.md`` compares both with the cost model, and predicts larger models
and more ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from _cost import WAYS, WIDTH, Link, duration, human, messages, numbers, sent
from _report import table, write_page
from torch import Tensor, nn

import gaba

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "communication.md"
SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {"method": "inverse"},
    "sketch of gradients": {"method": "inverse", "sync": gaba.ranks.Sync("sketch", width=WIDTH)},
    "not measured": {"method": "uniform"},
}


class Net(nn.Module):
    """A trunk of about ``parameters`` parameters with K small heads."""

    def __init__(self, parameters: int, tasks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.side = side = max(8, round((parameters / 2) ** 0.5))
        self.trunk = nn.Sequential(nn.Linear(side, side), nn.Tanh(), nn.Linear(side, side))
        self.heads = nn.ModuleList(nn.Linear(side, 1) for _ in range(tasks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs of all heads."""
        z = self.trunk(x)
        return [head(z) for head in self.heads]


def carried() -> int:
    """Bytes that the loopback interface has carried so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise RuntimeError("no interface lo in /proc/net/dev: run this on Linux")


def measure(way: str | None, parameters: int, tasks: int, steps: int) -> dict[str, float]:
    """Bytes all ranks together send in a step, and its seconds; without a Balancer for ``None``."""
    net = Net(parameters, tasks)
    names = [f"task{k}" for k in range(tasks)]
    balancer = None if way is None else gaba.Balancer(names, net.trunk, **SETTINGS[way])
    x = torch.randn(4, net.side)
    taken: list[float] = []
    before = 0
    for step in range(steps + 2):  # two to warm up
        if step == 2:
            _quiet()
            before = carried()
        net.zero_grad()
        began = time.perf_counter()
        losses = {n: out.square().mean() for n, out in zip(names, net(x), strict=True)}
        if balancer is None:
            torch.stack(list(losses.values())).mean().backward()
        else:
            balancer.backward({**losses})
        if step >= 2:
            taken.append(time.perf_counter() - began)
    _quiet()
    return {"bytes": (carried() - before) / steps, "seconds": statistics.median(taken)}


def _quiet() -> None:
    dist.barrier()
    time.sleep(0.3)


def replay(way: str, parameters: int, tasks: int, times: int) -> float:
    """Seconds of the sums of a step by themselves, one after the other."""
    tensors = [torch.ones(max(1, round(b / 4))) for b in numbers(way, parameters, tasks)]
    taken = []
    for _ in range(times):
        dist.barrier()
        began = time.perf_counter()
        for tensor in tensors:
            dist.all_reduce(tensor)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def link() -> Link:
    """The latency and bandwidth of this machine's gloo, from sums of two sizes."""
    size = dist.get_world_size()
    found = []
    for count, times in ((8, 60), (4_000_000, 8)):
        tensor = torch.ones(count)
        dist.all_reduce(tensor)
        taken = []
        for _ in range(times):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            taken.append(time.perf_counter() - began)
        found.append(statistics.median(taken))
    latency = found[0] / (2 * (size - 1))
    bandwidth = sent([16e6], size) / max(1e-9, found[1] - found[0])
    return Link(latency, bandwidth)


def rank(number: int, ranks: int, place: str, sizes: Sequence[int], tasks: int, steps: int) -> None:
    """One of the processes; the first writes what was found."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/store", rank=number, world_size=ranks
    )
    network = link()
    rows = []
    for parameters in sizes:
        net = Net(parameters, tasks)
        shared = sum(p.numel() for p in net.trunk.parameters())
        base = measure(None, parameters, tasks, steps)
        for way in WAYS:
            found = measure(way, parameters, tasks, steps)
            if number == 0:
                print(f"{ranks} ranks, {shared:,} parameters, {way}", flush=True)
            rows.append(
                {
                    "way": way,
                    "ranks": ranks,
                    "parameters": shared,
                    "bytes": found["bytes"],
                    "seconds": found["seconds"] - base["seconds"],
                    "sums": replay(way, shared, tasks, steps),
                }
            )
    if number == 0:
        said = {"latency": network.latency, "bandwidth": network.bandwidth, "rows": rows}
        Path(place, "found.json").write_text(json.dumps(said))
    dist.barrier()


def run(ranks: int, sizes: Sequence[int], tasks: int, steps: int) -> dict[str, Any]:
    """What was found on that many ranks."""
    with tempfile.TemporaryDirectory() as place:
        children = []
        for number in range(ranks):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    rank(number, ranks, place, sizes, tasks, steps)
                    status = 0
                finally:
                    sys.stdout.flush()
                    os._exit(status)
            children.append(child)
        if any(os.waitpid(child, 0)[1] for child in children):
            raise RuntimeError(f"a rank of {ranks} failed: see its message above")
        return json.loads(Path(place, "found.json").read_text())


def measured_rows(found: Sequence[dict[str, Any]], tasks: int) -> list[list[str]]:
    """Measured bytes and seconds beside what the model says of them."""
    rows = []
    for run_ in found:
        network = Link(run_["latency"], run_["bandwidth"])
        for row in run_["rows"]:
            sums = numbers(row["way"], row["parameters"], tasks)
            each = sent(sums, row["ranks"])
            foretold = each * row["ranks"]
            rows.append(
                [
                    f"{row['ranks']}",
                    human(row["parameters"], ""),
                    row["way"],
                    human(row["bytes"]),
                    human(foretold),
                    f"{row['bytes'] / foretold:.2f}",
                    duration(max(0.0, row["seconds"])),
                    duration(row["sums"]),
                    duration(network.seconds(each, messages(sums, row["ranks"]))),
                ]
            )
    return rows


PLANS = ((1e8, 8), (1e9, 64), (1e10, 1024))
NETWORKS = {"25 GB/s, 10 µs": Link(1e-5, 25e9), "1.25 GB/s, 50 µs": Link(5e-5, 1.25e9)}


def planned_rows(tasks: int) -> list[list[str]]:
    """Bytes each rank sends, and seconds, of models that this machine has not got."""
    rows = []
    for parameters, ranks in PLANS:
        ddp = [4 * parameters]
        for way in ("(the wrapper itself)", *WAYS):
            sums = ddp if way not in WAYS else numbers(way, parameters, tasks)
            each = sent(sums, ranks)
            times = [
                duration(network.seconds(each, messages(sums, ranks)))
                for network in NETWORKS.values()
            ]
            rows.append([human(parameters, ""), f"{ranks:,}", way, human(each), *times])
    return rows


def page(found: Sequence[dict[str, Any]], tasks: int, steps: int) -> list[str]:
    """The paragraphs of the page."""
    links = "; ".join(
        f"{r['rows'][0]['ranks']} ranks: {duration(r['latency'])} a message, "
        f"{human(r['bandwidth'])}/s"
        for r in found
    )
    return [
        "# What the ranks send each other",
        "Beyond the gradients that the wrapper of the model reduces anyway, a step adds sums over "
        "the ranks. With P shared parameters, K tasks, R ranks and m = "
        f"{WIDTH:,} numbers of a sketch, in float32 gradients:",
        table(
            ["way", "bytes of the sums B_i in a measured step"],
            [
                ["every step, measured or not", "8 (2K + 3)"],
                ["`ExactNorms`", "K sums of 4 P, and 16 K"],
                ['`ExactNorms`, `sync="sketch"`', "8 m K, and 16 K"],
            ],
        ),
        "A ring sends 2 (R − 1)/R bytes for each byte of a sum, from every rank, in 2 (R − 1) "
        "messages one after the other. With latency a and bandwidth b of a rank's link,",
        "    bytes a rank = Σ_i 2 (R − 1)/R · B_i\n"
        "    seconds      = Σ_i [2 (R − 1) · a + 2 (R − 1)/R · B_i / b]",
        "if nothing overlaps. `ExactNorms` sends the gradient of one task while the next task's "
        "pass runs; the time below leaves that out. A step that is not measured (`every=n`, "
        "`accumulate=n`) has the first row alone, so divide the rest by n.",
        f"## Measured against the model (K = {tasks})",
        table(
            [
                *("ranks", "P", "way", "bytes, all ranks", "model", "measured/model"),
                *("time added", "of the sums", "model"),
            ],
            measured_rows(found, tasks),
        ),
        "Bytes: what the loopback interface carried in a step of a Balancer alone, without a "
        "wrapper, headers of TCP included. Small sums are mostly headers, and gloo does not send "
        "them round a ring, so there the ratio is large and the bytes few. Time added: the median "
        "step less the median step without a Balancer, which holds the passes for the norms too. "
        "Of the sums: the same sums by themselves, which is what the model is of. Latency and "
        f"bandwidth were measured beforehand ({links}).",
        "## Planned",
        table(
            ["P", "ranks", "way", "bytes a rank", *NETWORKS],
            planned_rows(tasks),
        ),
        f"K = {tasks} tasks, float32 gradients, links of the bandwidth and latency at the top. The "
        "latency term is that of a ring; libraries that send small sums along a tree need "
        "2 log₂ R messages instead of 2 (R − 1).",
        f"Measured by `python benchmarks/communication.py` with torch "
        f"{torch.__version__.split('+')[0]}, {steps} steps a row, on {os.cpu_count()} CPUs "
        f"(load {os.getloadavg()[0]:.1f}).",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000, 2_000_000])
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=PAGE.parent, help="folder of the page")
    asked = parser.parse_args()
    found = [run(r, asked.parameters, asked.tasks, asked.steps) for r in asked.ranks]
    asked.out.mkdir(parents=True, exist_ok=True)
    write_page(asked.out / PAGE.name, *page(found, asked.tasks, asked.steps))


if __name__ == "__main__":
    main()
