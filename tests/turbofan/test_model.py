from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gaba.turbofan.losses import Batch, losses
from gaba.turbofan.model import MEAN_RUL, LastStepAttention, Size, TurbofanNet


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def windows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 30, 17, generator=torch.Generator().manual_seed(seed))


def full_attention(module: LastStepAttention, steps: Tensor) -> Tensor:
    """As published: every step attends to every step, and all but the last are thrown away."""
    attended, _ = module.attention(steps, steps, steps, need_weights=False)
    return module.norm(steps + attended)[:, -1]


@pytest.mark.parametrize("seed", range(3))
def test_attention_of_the_last_step_equals_the_last_step_of_full_attention(seed: int) -> None:
    torch.manual_seed(seed)
    module = LastStepAttention(width=32).double()
    steps = torch.randn(5, 30, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(5, 32, dtype=torch.float64)
    inputs = (steps, *module.parameters())
    answers, gradients = [], []
    for answer in (module(steps), full_attention(module, steps)):
        answers.append(answer)
        gradients.append(torch.autograd.grad((answer * direction).sum(), inputs))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "count"), [("small", 300_000), ("paper", 3_500_000)], ids=["small", "paper"]
)
def test_sizes_are_those_of_the_design(size: Size, count: int) -> None:
    assert parameters(TurbofanNet(size)) == pytest.approx(count, rel=0.05)


def test_the_layers_are_those_of_the_design() -> None:
    model = TurbofanNet("small")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv1d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (17, 64, (3,)),
        (64, 128, (3,)),
        (128, 64, (3,)),
    ]
    lstm = model.backbone.lstm
    assert (lstm.hidden_size, lstm.num_layers, lstm.bidirectional) == (64, 2, True)
    assert model.backbone.attention.attention.num_heads == 8

    def widths(head: nn.Module) -> list[tuple[int, int]]:
        linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
        return [(m.in_features, m.out_features) for m in linear]

    assert widths(model.heads.rul) == [(32, 64), (64, 32), (32, 16), (16, 1)]
    assert widths(model.heads.health) == [(32, 32), (32, 16), (16, 3)]


def test_every_parameter_belongs_to_the_backbone_or_a_head_and_learns() -> None:
    torch.manual_seed(0)
    model = TurbofanNet("small")
    batch = Batch(windows(16), torch.linspace(0, 125, 16), torch.arange(16) % 3)
    sum(losses(model(batch.inputs), batch).values(), start=torch.zeros(())).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    assert parameters(model) == parameters(model.backbone) + parameters(model.heads)


def test_a_task_does_not_reach_the_head_of_the_other() -> None:
    model = TurbofanNet("small")
    output = model(windows(4))
    for task, other in (("rul", model.heads.health), ("health", model.heads.rul)):
        gradients = torch.autograd.grad(
            output[task].sum(), list(other.parameters()), retain_graph=True, allow_unused=True
        )
        assert all(g is None for g in gradients)


def test_in_evaluation_an_answer_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    model = TurbofanNet("small").eval()
    inputs = windows(12)
    together, alone = model(inputs), [model(row[None]) for row in inputs]
    for task in ("rul", "health"):
        torch.testing.assert_close(
            together[task], torch.cat([a[task] for a in alone]), rtol=1e-4, atol=1e-4
        )


def test_the_whole_window_matters() -> None:
    torch.manual_seed(0)
    model = TurbofanNet("small").double().eval()
    inputs = windows(4).double().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs)["rul"].sum(), inputs)
    assert bool(gradient.abs().amax(dim=2).gt(0).all())


def test_the_rul_starts_at_the_mean_label() -> None:
    torch.manual_seed(0)
    rul = TurbofanNet("small").eval()(windows(32))["rul"]
    assert (rul - MEAN_RUL).abs().max().item() < 5


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_out_of_range(dropout: float) -> None:
    with pytest.raises(ValueError, match=r"dropout .* found"):
        TurbofanNet("small", dropout=dropout)


def test_unknown_size() -> None:
    with pytest.raises(ValueError, match="small, paper, found 'huge'"):
        TurbofanNet("huge")  # pyright: ignore[reportArgumentType]
