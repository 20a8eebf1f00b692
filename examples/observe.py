"""Is one loss dominating? Four lines, marked `# +`, tell it. No other line of the program changes.

The program is as many have it: mixed precision with a GradScaler, clipping, a learning rate
schedule, labels that most samples lack, a checkpoint to resume from, evaluation. Without the four
lines it ends with the same parameters, bit for bit.

    python examples/observe.py [EPOCHS [CHECKPOINT]]
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import gaba  # +

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 4
checkpoint = Path(sys.argv[2]) if len(sys.argv) > 2 else None
device, half = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.bfloat16)


class Scene(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(16, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.GELU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(64, n) for n in (1, 3, 4, 1))

    def losses(self, x: Tensor, tagged: Tensor) -> dict[str, Tensor]:
        z = self.trunk(x)
        depth, normals, kind, tag = (head(z) for head in self.heads)
        losses = {
            "depth": functional.mse_loss(depth, 300 + 100 * x[:, :1]),  # in cm
            "normals": 2.0 * (1 - functional.cosine_similarity(normals, x[:, 1:4]).mean()),
            "kind": functional.cross_entropy(kind, x[:, 4:8].argmax(1)),
        }
        if tagged.any():
            found, truth = tag[tagged], (x[tagged, 8:9] > 0).float()
            losses["tag"] = functional.binary_cross_entropy_with_logits(found, truth)
        return losses


def batches(seed: int, n: int = 60) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    found = [(torch.randn(32, 16), torch.rand(32) < 0.03) for _ in range(n)]
    return [(x.to(device), tagged.to(device)) for x, tagged in found]


torch.manual_seed(0)
model = Scene().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
scaler = torch.amp.GradScaler(device)
parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
observer = gaba.Observer(["depth", "normals", "kind", "tag"], model.trunk)  # +
if checkpoint and checkpoint.exists():
    saved = torch.load(checkpoint)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
for epoch in range(scheduler.last_epoch, epochs):
    for x, tagged in batches(epoch):
        with torch.autocast(device, half):
            losses = model.losses(x, tagged)
        observer(losses, scaler=scaler)  # +
        scaler.scale(sum(losses.values())).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    scheduler.step()
    model.eval()
    with torch.no_grad():
        judged = [model.losses(x, tagged)["depth"].item() for x, tagged in batches(-1, 10)]
    model.train()
    print(f"epoch {epoch}: depth error {(sum(judged) / len(judged)) ** 0.5:.1f} cm")
    if checkpoint:
        torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint)
numbers = [p.detach().cpu().numpy().tobytes() for p in model.parameters()]
print("parameters:", hashlib.sha256(b"".join(numbers)).hexdigest())
print(observer.diagnose())  # +
