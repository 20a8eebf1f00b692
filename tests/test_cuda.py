"""On a GPU: the same numbers as in float64 on the CPU, and no wait for the device in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gaba
from _made import made as made_on
from _models import TwoStage, batch, grads
from gaba.measurement import ExactNorms

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SCALES = [1.0, 300.0, 0.02]
RULES = ("gaba", "inverse", "paper", "equal-share", "equal-projection", "sqrt-inverse")
LEARNT = ("gradnorm", "uncertainty", "dwa", "rlw", "famo", "geometric-mean", "smooth-tchebycheff")


def pair(method: str, **settings: Any) -> tuple[Any, Any, Any, Any]:
    """The same model and method twice: in float64 on the CPU, in float32 on the GPU."""
    truth, model = TwoStage(SCALES, dtype=torch.float64), TwoStage(SCALES).cuda()
    made = [made_on(method, m.names, m.trunk, **settings) for m in (truth, model)]
    return truth, made[0], model, made[1]


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("engine", [ExactNorms(), ExactNorms(layer="last")], ids=str)
def test_norms_weights_and_gradients_are_those_of_float64_on_the_cpu(
    method: str, engine: ExactNorms
) -> None:
    truth, on_cpu, model, on_gpu = pair(method, measure=engine)
    for seed in range(3):
        truth.zero_grad()
        model.zero_grad()
        expected = on_cpu.backward(truth.losses(batch(seed, dtype=torch.float64)))
        found = on_gpu.backward(model.losses(batch(seed).cuda()))
        for name in ("norms", "multipliers", "losses"):
            a, b = getattr(found, name), getattr(expected, name)
            assert a.is_cuda
            torch.testing.assert_close(a.cpu().double(), b, rtol=2e-4, atol=1e-7)
        for name, gradient in grads(truth).items():
            scale = gradient.abs().max()
            torch.testing.assert_close(
                grads(model)[name].cpu().double(), gradient, rtol=1e-3, atol=1e-4 * float(scale)
            )


@pytest.mark.parametrize("method", [*RULES, *LEARNT])
def test_no_step_waits_for_the_device(method: str) -> None:
    model = TwoStage(SCALES).cuda()
    balancer = made_on(method, model.names, model.trunk)
    x = batch().cuda()
    for _ in range(3):  # allocations, handles and the first move of the state
        balancer.backward(model.losses(x))
    losses = [model.losses(x) for _ in range(2)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for each in losses:
            balancer.backward(each)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_float16_under_a_scaler_has_the_norms_of_float64() -> None:
    truth, model = TwoStage(SCALES, dtype=torch.float64), TwoStage(SCALES).cuda()
    balancer = gaba.Balancer(model.names, model.trunk)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**12)
    with torch.autocast("cuda", torch.float16):
        losses = {
            name: loss.float()
            for name, loss in model.losses(batch(n=64).cuda()).items()
            if loss is not None
        }
    step = balancer.backward(losses, scaler=scaler)
    expected = gaba.Balancer(truth.names, truth.trunk).backward(
        truth.losses(batch(n=64, dtype=torch.float64))
    )
    assert bool(step.finite)
    torch.testing.assert_close(step.norms.cpu().double(), expected.norms, rtol=0.03, atol=0)


def test_bfloat16_keeps_the_state_in_float64() -> None:
    model = TwoStage(SCALES).cuda().to(torch.bfloat16)
    balancer = gaba.Balancer(model.names, model.trunk).to(torch.bfloat16)
    step = balancer.backward(model.losses(batch().cuda().bfloat16()))
    assert bool(step.finite)
    kept = [v for v in balancer.state_dict().values() if torch.is_tensor(v)]
    assert {v.dtype for v in kept if v.is_floating_point()} == {torch.float64}


def test_a_state_saved_on_the_cpu_goes_on_on_the_gpu(tmp_path: Path) -> None:
    truth, on_cpu, model, on_gpu = pair("inverse")
    on_cpu.backward(truth.losses(batch(dtype=torch.float64)))
    torch.save(on_cpu.state_dict(), tmp_path / "state.pt")
    on_gpu.cuda().load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    a = on_cpu.backward(truth.losses(batch(1, dtype=torch.float64)))
    b = on_gpu.backward(model.losses(batch(1).cuda()))
    torch.testing.assert_close(b.multipliers.cpu(), a.multipliers, rtol=1e-4, atol=0)


def test_the_optimizers_metric_on_the_gpu() -> None:
    model = TwoStage(SCALES).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    balancer = made_on("inverse-optimizer", model.names, model.trunk, optimizer=optimizer)
    for seed in range(3):
        balancer.backward(model.losses(batch(seed).cuda()))
        optimizer.step()
        optimizer.zero_grad()
    assert balancer.history.finite.all()
    assert balancer.history.imbalance[-1] < 3


def test_a_compiled_trunk_has_the_same_gradients() -> None:
    plain, model = TwoStage(SCALES).cuda(), TwoStage(SCALES).cuda()
    trunk = model.trunk
    model.trunk = torch.compile(trunk)  # pyright: ignore[reportAttributeAccessIssue]
    for m, shared in ((plain, plain.trunk), (model, trunk)):
        gaba.Balancer(m.names, shared).backward(m.losses(batch().cuda()))
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_nccl_with_one_rank_has_the_gradients_of_one_process(how: str, tmp_path: Path) -> None:
    import torch.distributed as dist

    plain, model = TwoStage(SCALES).cuda(), TwoStage(SCALES).cuda()
    gaba.Balancer(plain.names, plain.trunk).backward(plain.losses(batch().cuda()))
    dist.init_process_group(
        "nccl", init_method=f"file://{tmp_path / 'store'}", world_size=1, rank=0
    )
    try:
        if how == "ddp":
            wrapped: Any = torch.nn.parallel.DistributedDataParallel(model.trunk, device_ids=[0])
            model.trunk = wrapped
        else:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            fully_shard(model.trunk, mesh=init_device_mesh("cuda", (1,)))
        gaba.Balancer(model.names, model.trunk).backward(model.losses(batch().cuda()))
        grads_of: list[Any] = [p.grad for p in model.parameters()]
        found = [g.to_local() if hasattr(g, "to_local") else g for g in grads_of]
    finally:
        dist.destroy_process_group()
    for p, gradient in zip(plain.parameters(), found, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-5)


def test_the_turbofan_model_trains_on_the_gpu(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    from _turbofan_runs import tiny_config, tiny_fleet
    from gaba.turbofan.train import train

    done = train(tiny_config(tmp_path, device="cuda"), fleet=tiny_fleet())
    assert done.steps > 0
    assert all(torch.isfinite(torch.tensor(v)) for v in done.metrics["test"]["capped"].values())
