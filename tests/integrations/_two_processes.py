"""A training by one framework, in as many processes as there are: ``_two_processes.py NAME FILE``.

The batches of all processes together are the same whatever their number; what the first of them
comes to, parameters and weights, goes to FILE.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler

import gaba

STEPS, BATCH, RATE = 4, 8, 0.05
SCALES = {"loud": 30.0, "quiet": 0.1}


class Net(nn.Module):
    """Two tasks on one trunk, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(5, 7), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(7, 1) for task in SCALES})
        self.double()

    def forward(self, x: Tensor, **_: Any) -> dict[str, Any]:
        z = self.trunk(x)
        losses = {
            task: scale * (self.heads[task](z)[:, 0] - x.sum(1)).square().mean()
            for task, scale in SCALES.items()
        }
        return {"loss": torch.stack(list(losses.values())).sum(), "losses": losses}


def inputs() -> Tensor:
    """(steps · batch, 5), those of all processes and steps."""
    torch.manual_seed(1)
    return torch.randn(STEPS * BATCH, 5, dtype=torch.float64)


class Rows(Dataset[dict[str, Tensor]]):
    """The same one by one."""

    def __init__(self) -> None:
        self.x = inputs()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index]}


def made() -> tuple[Net, gaba.Balancer]:
    net = Net()
    return net, gaba.Balancer(list(SCALES), shared=net.trunk)


def part(step: int, rank: int, world: int) -> Tensor:
    """What this process has of the batch of a step."""
    return inputs()[step * BATCH : (step + 1) * BATCH].chunk(world)[rank]


def loop(
    net: nn.Module,
    model: Callable[[Tensor], Mapping[str, Any]],
    optimizer: Any,
    backward: Callable[[Mapping[str, Tensor]], object],
    rank: int,
    world: int,
) -> None:
    for step in range(STEPS):
        backward(model(part(step, rank, world))["losses"])
        optimizer.step()
        optimizer.zero_grad()


def by_accelerate() -> tuple[Net, gaba.Balancer, bool]:
    from accelerate import Accelerator

    from gaba.integrations.accelerate import AcceleratedBalancer

    accelerator = Accelerator(cpu=True)
    net, balancer = made()
    balanced = AcceleratedBalancer(accelerator, balancer)
    model, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=RATE))
    of = accelerator.process_index, accelerator.num_processes
    loop(net, model, optimizer, balanced.backward, *of)
    return net, balancer, accelerator.is_main_process


def by_fabric() -> tuple[Net, gaba.Balancer, bool]:
    import os

    from lightning.fabric import Fabric

    from gaba.integrations.lightning import FabricBalancer

    world = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto")
    fabric.launch()
    net, balancer = made()
    balanced = FabricBalancer(fabric, balancer)
    model, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), lr=RATE))
    loop(net, model, optimizer, balanced.backward, fabric.global_rank, fabric.world_size)
    return net, balancer, fabric.is_global_zero


def by_transformers(how: str = "balanced") -> tuple[Net, gaba.Balancer, bool]:
    import os

    from transformers import TrainingArguments
    from transformers.trainer import Trainer

    from gaba.integrations.transformers import BalancedTrainer, ObserverCallback

    kind: Any = BalancedTrainer if how == "balanced" else Trainer

    class InOrder(kind):
        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(Rows())

    net, balancer = made()
    given: dict[str, Any] = {"balancer": balancer}
    if how != "balanced":
        balancer = gaba.Observer(list(SCALES), shared=net.trunk, every=1)
        given = {"callbacks": [ObserverCallback(balancer)] if how == "observed" else []}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH // int(os.environ.get("WORLD_SIZE", "1")),
            learning_rate=RATE,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            optim="sgd",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        run = InOrder(net, arguments, train_dataset=Rows(), **given)
        run.train()
        return net, balancer, run.is_world_process_zero()


WAYS = {
    "accelerate": by_accelerate,
    "fabric": by_fabric,
    "transformers": by_transformers,
    "observed": lambda: by_transformers("observed"),
    "plain": lambda: by_transformers("plain"),
}

if __name__ == "__main__":
    name, place = sys.argv[1:]
    torch.set_num_threads(1)
    net, balancer, first = WAYS[name]()
    if first:
        weights = torch.tensor([*balancer.weights.values()])
        norms = torch.from_numpy(balancer.history.norms)
        found = {"norms": norms} if balancer.method.observes else {"weights": weights}
        torch.save({**net.state_dict(), **found}, place)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
