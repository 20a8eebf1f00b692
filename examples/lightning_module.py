"""Lightning keeps its automatic optimization: training_step returns the balanced loss.

Accumulation and clipping stay as they are. A callback logs multipliers, contributions, shares and
imbalance. The balancer is a part of the module, so the checkpoint has its state.
"""

from __future__ import annotations

import logging
import warnings

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import gaba
from gaba.integrations.lightning import BalanceMonitor

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers")
warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)


class Prognosis(lightning.LightningModule):
    """Two tasks on one trunk; one pulls some forty times as hard as the other."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(14, 32), nn.ReLU())
        self.rul, self.health = nn.Linear(32, 1), nn.Linear(32, 3)
        self.balancer = gaba.Balancer(["rul", "health"], shared=self.trunk, accumulate=2)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The balanced loss; Lightning treats it as always."""
        inputs, rul, health = batch
        features = self.trunk(inputs)
        losses = {
            "rul": functional.mse_loss(self.rul(features).squeeze(-1), rul),
            "health": functional.cross_entropy(self.health(features), health),
        }
        return self.balancer(losses)  # before: sum(losses.values())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As without a balancer."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


torch.manual_seed(0)
inputs, rul = torch.randn(128, 14), torch.rand(128) * 30
data = TensorDataset(inputs, rul, torch.bucketize(rul, torch.tensor([7.0, 20.0])))
module = Prognosis()
trainer = lightning.Trainer(
    max_epochs=4,
    accelerator="cpu",
    accumulate_grad_batches=2,
    gradient_clip_val=1.0,
    callbacks=[BalanceMonitor(every=1)],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, DataLoader(data, batch_size=16))

print(f"{len(module.balancer.history)} batches in {trainer.global_step} optimizer steps")
for name, value in sorted(trainer.callback_metrics.items()):
    print(f"{name:28} {value:10.4f}")
