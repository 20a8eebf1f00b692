"""Write the steps of a run for TensorBoard, and read one of the curves back."""

from __future__ import annotations

import tempfile

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gaba
from gaba.integrations.tensorboard import TensorBoardSink

torch.manual_seed(0)
trunk = torch.nn.Linear(4, 2)
balancer = gaba.Balancer(tasks=["loud", "quiet"], shared=trunk)

with tempfile.TemporaryDirectory() as folder:
    with TensorBoardSink(folder) as sink:  # then: tensorboard --logdir FOLDER
        for _ in range(20):
            outputs = trunk(torch.randn(16, 4)).square().mean(0)
            sink.write(balancer.backward({"loud": 100 * outputs[0], "quiet": outputs[1]}))
    curves = EventAccumulator(folder).Reload()
    print("curves:", *sorted(curves.Tags()["scalars"]))
    for event in curves.Scalars("gaba/weights/loud")[::5]:
        print(f"step {event.step:2}: weight of 'loud' {event.value:.4f}")
