"""The three ways into ``.grad``, each against one backward pass of the weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gaba.autograd import combination as combine

C = torch.tensor([0.3, 2.0, 0.0], dtype=torch.float64)


class Net(nn.Module):
    """A trunk with two features, of which each task uses some, and one layer that nobody uses."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.unused = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.to(dtype)

    def run(self) -> tuple[list[Tensor], list[Tensor]]:
        x = torch.linspace(-1, 1, 15, dtype=self.one.weight.dtype).reshape(5, 3)
        one, two = self.one(x).tanh(), self.two(x).tanh()
        inputs = [one, one + two, two]
        losses = [h(z).square().mean() for h, z in zip(self.heads, inputs, strict=True)]
        return losses, [one, two]

    def fill(self, way: str, coefficients: Tensor = C) -> None:
        """``.grad`` by the way that is named."""
        losses, features = self.run()
        if way == "backward":
            combine.by_backward(losses, coefficients)
        elif way == "hand":
            leaves = list(self.parameters())
            combine.by_hand(leaves, rows(losses, leaves), coefficients)
        else:
            heads = list(self.heads.parameters())
            edges = [get_gradient_edge(z) for z in features]
            at, of = rows(losses, edges), rows(losses, heads)
            combine.by_hand(heads, of, coefficients)
            combine.by_features(edges, at, coefficients)

    def expected(self, coefficients: Tensor = C) -> list[Tensor | None]:
        losses, _ = self.run()
        total = sum(c * loss for c, loss in zip(coefficients, losses, strict=True))
        assert isinstance(total, Tensor)
        return list(torch.autograd.grad(total, list(self.parameters()), allow_unused=True))


def rows(
    losses: Sequence[Tensor], inputs: Sequence[Tensor] | Sequence[GradientEdge]
) -> list[tuple[Tensor | None, ...]]:
    return [
        torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True) for loss in losses
    ]


every_way = pytest.mark.parametrize("way", ["backward", "hand", "features"])


@every_way
def test_each_way_adds_the_gradient_of_the_weighted_sum(way: str) -> None:
    net = Net()
    net.fill(way)
    expected = net.expected()
    for p, g in zip(net.parameters(), expected, strict=True):
        assert (p.grad is None) == (g is None)  # what no task reaches is left alone
        if g is not None:
            torch.testing.assert_close(p.grad, g)
    before = {id(p): p.grad for p in net.parameters()}
    net.fill(way)
    for p, g in zip(net.parameters(), expected, strict=True):
        assert p.grad is before[id(p)]  # added to in place, as a backward pass does
        if g is not None:
            torch.testing.assert_close(p.grad, 2 * g)


@every_way
def test_low_precision(way: str) -> None:
    net, wide = Net(torch.bfloat16), Net()
    wide.load_state_dict(net.state_dict())
    net.fill(way)
    for p, g in zip(net.parameters(), wide.expected(), strict=True):
        if g is not None:
            assert p.grad is not None
            assert p.grad.dtype == torch.bfloat16
            torch.testing.assert_close(p.grad.double(), g, rtol=0.1, atol=0.02 * float(g.norm()))


@every_way
def test_coefficients_beyond_the_dtype_stay_finite(way: str) -> None:
    """1e300 is infinite in float32, and 0 · inf would be NaN."""
    net = Net(torch.float32)
    losses, _ = net.run()
    assert all(float(loss.detach()) > 0 for loss in losses)
    net.fill(way, torch.full((3,), 1e300, dtype=torch.float64))
    for p in net.parameters():
        if p.grad is not None:
            assert not p.grad.isnan().any()


def test_a_coefficient_that_is_too_large_for_the_features_but_not_its_product() -> None:
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    z = theta * 1
    edge = get_gradient_edge(z)
    at = [(torch.full((4,), 2.0**-20, dtype=torch.float16),)] * 2
    combine.by_features([edge], at, torch.tensor([2.0**20, 2.0**21], dtype=torch.float64))
    assert theta.grad is not None
    assert theta.grad.tolist() == [3.0] * 4


@pytest.mark.parametrize("start", ["none", "sparse", "dense"])
def test_sparse_gradients_by_hand(start: str) -> None:
    table = nn.Embedding(6, 2, sparse=True)
    grads = [
        torch.autograd.grad(table(torch.tensor(rows_used)).sum(), table.weight)
        for rows_used in ([0, 0, 3], [3, 5])
    ]
    expected = torch.zeros(6, 2)
    expected[0], expected[3], expected[5] = 4.0, 2.0 + 0.5, 0.5
    if start == "sparse":
        table.weight.grad = torch.ones(6, 2).to_sparse(1)
    elif start == "dense":
        table.weight.grad = torch.ones(6, 2)
    combine.by_hand([table.weight], grads, torch.tensor([2.0, 0.5]))
    assert table.weight.grad is not None
    found = table.weight.grad
    assert found.is_sparse == (start != "dense")
    torch.testing.assert_close(
        found.to_dense() if found.is_sparse else found, expected + (start != "none")
    )


def test_sparse_and_dense_gradients_of_one_leaf() -> None:
    table = nn.Embedding(6, 2, sparse=True)
    grads = [
        torch.autograd.grad(table(torch.tensor([1])).sum(), table.weight),
        torch.autograd.grad(table.weight.sum(), table.weight),
    ]
    combine.by_hand([table.weight], grads, torch.tensor([2.0, 0.5]))
    expected = torch.full((6, 2), 0.5)
    expected[1] += 2
    assert table.weight.grad is not None
    torch.testing.assert_close(table.weight.grad, expected)


def test_plain_heads_leave_the_coefficient_out_where_one_task_alone_reaches() -> None:
    net = Net()
    losses, _ = net.run()
    leaves = list(net.parameters())
    of = rows(losses, leaves)
    combine.by_hand(leaves, of, C, plain_heads=True)
    for i, leaf in enumerate(leaves):
        column = [(row[i], c) for row, c in zip(of, C, strict=True)]
        found = [(g, c) for g, c in column if g is not None]
        if not found:
            assert leaf.grad is None
        else:
            expected = found[0][0] if len(found) == 1 else sum(c * g for g, c in found)
            torch.testing.assert_close(leaf.grad, expected)


def test_what_is_shared_keeps_its_coefficient_where_one_task_is_there_alone() -> None:
    trunk, head = nn.Linear(3, 2), nn.Linear(2, 1)
    leaves = [*trunk.parameters(), *head.parameters()]
    (row,) = of = rows([head(trunk(torch.ones(4, 3))).square().mean()], leaves)
    shared = trunk.parameters()
    combine.by_hand(leaves, of, torch.tensor([3.0]), plain_heads=True, shared=shared)
    for leaf, gradient, c in zip(leaves, row, (3.0, 3.0, 1.0, 1.0), strict=True):
        assert gradient is not None
        torch.testing.assert_close(leaf.grad, c * gradient)


def test_a_feature_that_no_task_uses_is_left_out() -> None:
    net = Net()
    _, (one, two) = net.run()
    edges = [get_gradient_edge(one), get_gradient_edge(two)]
    combine.by_features(edges, [(torch.ones_like(one), None)] * 2, torch.tensor([1.0, 2.0]))
    assert net.one.weight.grad is not None
    assert net.two.weight.grad is None


def test_gradients_that_are_already_weighted_are_added_as_they_are() -> None:
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    two.grad = torch.full((2,), 5.0)
    kept = two.grad
    combine.add([one, two, nn.Parameter(torch.ones(1))], [torch.ones(2), torch.ones(2), None])
    assert one.grad is not None
    assert one.grad.tolist() == [1.0, 1.0]
    assert two.grad is kept
    assert kept.tolist() == [6.0, 6.0]


def test_the_gradient_of_no_gradient_is_kept() -> None:
    """What lands in ``.grad`` has no graph, even if the per-task gradients have one."""
    theta = nn.Parameter(torch.tensor([2.0]))
    (grad,) = torch.autograd.grad((theta**3).sum(), theta, create_graph=True)
    combine.by_hand([theta], [(grad,)], torch.tensor([1.0]))
    assert theta.grad is not None
    assert not theta.grad.requires_grad


@pytest.mark.parametrize("kind", ["tensor", "post-accumulate", "none"])
def test_listeners_are_seen(kind: str) -> None:
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    if kind == "tensor":
        two.register_hook(lambda g: None)
    elif kind == "post-accumulate":
        two.register_post_accumulate_grad_hook(lambda p: None)
    assert combine.someone_listens([one, two]) == (kind != "none")
    assert not combine.someone_listens([one])
