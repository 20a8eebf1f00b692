"""A fit with Lightning in two processes, then the same by hand; run by `test_lightning.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import gaba
from gaba.integrations.lightning import BalanceMonitor

sys.path.insert(0, str(Path(__file__).parents[1]))
from _models import TwoStage, batch

DATA = list(batch(0, n=32))


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = TwoStage((100.0, 1.0))
        exact = gaba.methods.get("gaba", measure="exact")  # the same in no_sync as elsewhere
        self.balancer = gaba.Balancer(self.net.names, self.net.trunk, exact)

    def training_step(self, x: Tensor, index: int) -> Tensor:
        return self.balancer(self.net.losses(x))

    forward = training_step

    def train_dataloader(self) -> DataLoader[Tensor]:
        return loader(self.trainer.world_size, self.trainer.global_rank)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def loader(ranks: int, rank: int) -> DataLoader[Tensor]:
    sampler: Any = DistributedSampler(DATA, ranks, rank, shuffle=False)  # pyright: ignore[reportArgumentType]
    return DataLoader(DATA, batch_size=4, sampler=sampler)  # pyright: ignore[reportArgumentType]


def kept(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def main(folder: Path) -> None:
    fitted = Module()
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        callbacks=[BalanceMonitor(every=1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(fitted)

    looped = Module()
    wrapped = DistributedDataParallel(looped)
    optimizer = looped.configure_optimizers()
    batches = list(loader(2, trainer.global_rank))
    for i, x in enumerate(batches * 2):
        if i % 2 == 0:
            with wrapped.no_sync():
                (wrapped(x, i) / 2).backward()
        else:
            (wrapped(x, i) / 2).backward()
            nn.utils.clip_grad_norm_(looped.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    torch.save(
        {
            "fitted": kept(fitted),
            "by hand": kept(looped),
            "fitted norms": torch.tensor(fitted.balancer.history.norms),
            "norms by hand": torch.tensor(looped.balancer.history.norms),
            "logged": "gaba/imbalance" in trainer.callback_metrics,
        },
        folder / f"rank{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
