"""One run of one public code prints one line of JSON. `run.py` starts it as a process."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import sys
import traceback
from typing import Any

import torch
from torch import nn

import gaba
from arms import Arm


def digest(model: nn.Module) -> str:
    """A fingerprint of all parameters, to compare bit for bit."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        found.update(name.encode())
        found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def run(code: str, name: str, seed: int) -> dict[str, Any]:
    """Train, and tell how it ended."""
    module = importlib.import_module(f"codes.{code}")
    arm = Arm(name, module.ENTRY)
    row: dict[str, Any] = {"code": code, "arm": name, "seed": seed, "gaba": gaba.__version__}
    if not Arm.possible(name, module.ENTRY):
        return row | {"left_out": "fewer than two losses, or no regularizer to balance"}
    try:
        outcome = module.train(arm, seed)
    except Exception as error:
        traceback.print_exc()
        return row | {"error": f"{type(error).__name__}: {error}"[:500]}
    return row | {
        "figure": outcome.figure,
        "others": dict(outcome.others),
        "seconds": round(arm.seconds, 3),
        "megabytes": round(sum(p.nbytes for p in outcome.model.parameters()) / 2**20, 2),
        "digest": digest(outcome.model),
        "warned": arm.warned,
        **arm.seen(),
    }


def main() -> None:
    code, name, seed = sys.argv[1:]
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(json.dumps(run(code, name, int(seed))))


if __name__ == "__main__":
    main()
