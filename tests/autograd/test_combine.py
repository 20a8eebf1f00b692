"""The ways into ``.grad``, each against one backward pass of the weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

import gaba
from gaba.autograd.combination import as_scalar, combine, someone_listens, usable
from gaba.autograd.graph import LossGraph
from gaba.autograd.passes import TaskGradients, task_passes
from gaba.autograd.shared import as_shared
from gaba.measurement import ExactNorms, Measurement, OutputNorms

C = torch.tensor([0.3, 2.0, 0.0], dtype=torch.float64)
WAYS = ["backward", "hand", "features"]


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

    def fill(self, way: str, multipliers: Tensor = C) -> None:
        """``.grad`` by the way that is named."""
        losses, features = self.run()
        shared = as_shared([*self.one.parameters(), *self.two.parameters()])
        graph = LossGraph(losses, shared, features)
        assert combine(graph, left_behind(way, graph), multipliers) == (
            "backward" if way == "backward" else "by-hand"
        )

    def expected(self, multipliers: Tensor = C) -> list[Tensor | None]:
        losses, _ = self.run()
        total = sum(c * loss for c, loss in zip(multipliers, losses, strict=True))
        assert isinstance(total, Tensor)
        return list(torch.autograd.grad(total, list(self.parameters()), allow_unused=True))


def left_behind(way: str, graph: LossGraph) -> TaskGradients | None:
    """What a measurement would have left for this way."""
    if way == "backward":
        return None
    if way == "hand":
        return TaskGradients(graph.leaves, tuple(task_passes(graph, graph.leaves, free=True)))
    assert graph.features is not None
    n, rows = len(graph.features), task_passes(graph, (*graph.features, *graph.heads), free=True)
    at, of = tuple(row[:n] for row in rows), tuple(row[n:] for row in rows)
    return TaskGradients(graph.heads, of, graph.features, at)


def by_hand(
    leaves: Sequence[Tensor], rows: Sequence[Sequence[Tensor | None]], multipliers: Tensor
) -> None:
    """Gradients that are there already, combined."""
    graph = LossGraph([leaf.sum() for leaf in leaves], as_shared(list[Any](leaves)))
    combine(graph, TaskGradients(tuple(leaves), tuple(rows)), multipliers)


every_way = pytest.mark.parametrize("way", WAYS)


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
def test_multipliers_beyond_the_dtype_stay_finite(way: str) -> None:
    """1e300 is infinite in float32, and 0 · inf would be NaN."""
    net = Net(torch.float32)
    losses, _ = net.run()
    assert all(float(loss.detach()) > 0 for loss in losses)
    net.fill(way, torch.full((3,), 1e300, dtype=torch.float64))
    for p in net.parameters():
        if p.grad is not None:
            assert not p.grad.isnan().any()


def test_a_multiplier_that_is_too_large_for_the_features_but_not_its_product() -> None:
    theta = nn.Parameter(torch.zeros(4, dtype=torch.float16))
    z = theta * 1
    graph = LossGraph([z.sum(), z.sum()], as_shared([theta]), z)
    at = ((torch.full((4,), 2.0**-20, dtype=torch.float16),),) * 2
    found = TaskGradients((), ((), ()), (get_gradient_edge(z),), at)
    combine(graph, found, torch.tensor([2.0**20, 2.0**21], dtype=torch.float64))
    assert theta.grad is not None
    assert theta.grad.tolist() == [3.0] * 4
    theta.grad = None
    by_hand([theta], [at[0], at[1]], torch.tensor([2.0**20, 2.0**21], dtype=torch.float64))
    assert theta.grad is not None
    assert theta.grad.tolist() == [3.0] * 4


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@every_way
def test_parameters_of_no_dimension(way: str, dtype: torch.dtype) -> None:
    """A temperature or a logit scale, beside a vector of the same dtype and a sparse table."""
    scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
    vector = nn.Parameter(torch.ones(3, dtype=dtype))
    table, alone = nn.Embedding(4, 3, sparse=True), nn.Parameter(torch.tensor(2.0, dtype=dtype))
    trunk = [scale, vector, table.weight]

    def losses() -> tuple[list[Tensor], Tensor]:
        z = (scale * vector).abs().float() * table(torch.tensor([1, 2])).sum(0)
        own = alone.abs().float()
        return [z.square().mean(), (z * own).sum()], z

    values, z = losses()
    graph = LossGraph(values, as_shared(trunk), z)
    m = torch.tensor([0.25, 3.0], dtype=torch.float64)
    combine(graph, left_behind(way, graph), m)
    again, _ = losses()
    leaves = [*trunk, alone]
    expected = torch.autograd.grad(m[0].float() * again[0] + m[1].float() * again[1], leaves)
    for leaf, gradient in zip(leaves, expected, strict=True):
        assert leaf.grad is not None
        assert (leaf.grad.dtype, leaf.grad.shape) == (leaf.dtype, leaf.shape)
        found, wanted = (g.to_dense() if g.is_sparse else g for g in (leaf.grad, gradient))
        rtol = 1e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-5
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=1e-6)


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
    by_hand([table.weight], grads, torch.tensor([2.0, 0.5]))
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
    by_hand([table.weight], grads, torch.tensor([2.0, 0.5]))
    expected = torch.full((6, 2), 0.5)
    expected[1] += 2
    assert table.weight.grad is not None
    torch.testing.assert_close(table.weight.grad, expected)


def test_the_gradient_of_no_gradient_is_kept() -> None:
    """What lands in ``.grad`` has no graph, even if the per-task gradients have one."""
    theta = nn.Parameter(torch.tensor([2.0]))
    (grad,) = torch.autograd.grad((theta**3).sum(), theta, create_graph=True)
    by_hand([theta], [(grad,)], torch.tensor([1.0]))
    assert theta.grad is not None
    assert not theta.grad.requires_grad


# ---- plain heads --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["hand", "backward"])
def test_plain_heads_leave_the_multiplier_out_where_one_task_alone_reaches(way: str) -> None:
    net = Net()
    losses, _ = net.run()
    leaves = list(net.parameters())
    rows = [
        torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True) for loss in losses
    ]
    shared = as_shared([*net.one.parameters(), *net.two.parameters()])
    graph = LossGraph(losses, shared)
    combine(graph, left_behind("hand", graph) if way == "hand" else None, C, heads="plain")
    for i, leaf in enumerate(leaves):
        column = [(row[i], c) for row, c in zip(rows, C, strict=True)]
        found = [(g, c) for g, c in column if g is not None]
        if not found:
            assert leaf.grad is None
        else:
            expected = found[0][0] if len(found) == 1 else sum(c * g for g, c in found)
            torch.testing.assert_close(leaf.grad, expected)


def test_what_is_shared_keeps_its_multiplier_where_one_task_is_there_alone() -> None:
    trunk, head = nn.Linear(3, 2), nn.Linear(2, 1)
    leaves = [*trunk.parameters(), *head.parameters()]
    loss = head(trunk(torch.ones(4, 3))).square().mean()
    row = torch.autograd.grad(loss, leaves, retain_graph=True)
    graph = LossGraph([loss], as_shared(trunk))
    combine(graph, None, torch.tensor([3.0]), heads="plain")
    for leaf, gradient, m in zip(leaves, row, (3.0, 3.0, 1.0, 1.0), strict=True):
        torch.testing.assert_close(leaf.grad, m * gradient)


# ---- nothing halfway, and the graph -------------------------------------------------------


class Fails(torch.autograd.Function):
    """The identity, whose backward pass raises from the n-th time on."""

    left = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        Fails.left -= 1
        if Fails.left < 0:
            raise MemoryError("out of memory")
        return grads[0]


@pytest.mark.parametrize("measure", [ExactNorms(), OutputNorms()])
def test_a_pass_that_fails_leaves_every_grad_as_it_was(measure: Measurement) -> None:
    trunk, heads = nn.Linear(3, 4), nn.ModuleList(nn.Linear(4, 1) for _ in "ab")
    parameters = [*trunk.parameters(), *heads.parameters()]
    balancer = gaba.Balancer(["a", "b"], trunk, gaba.methods.get("inverse", measure=measure))
    encoder = nn.Linear(3, 3)  # its pass is the last one
    before = [torch.full_like(p, 0.5) for p in parameters]
    for p, start in zip(parameters, before, strict=True):
        p.grad = start.clone()
    Fails.left = 1 if isinstance(measure, ExactNorms) else 0
    z = trunk(Fails.apply(encoder(torch.ones(5, 3))))
    with pytest.raises(MemoryError):
        balancer.backward({n: h(z).square().mean() for n, h in zip("ab", heads, strict=True)})
    for p, start in zip(parameters, before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, start)
    assert len(balancer.history) == 0


MEASURES = [ExactNorms(), ExactNorms("stream"), ExactNorms(layer="last"), OutputNorms()]


@pytest.mark.parametrize("engine", MEASURES, ids=str)
def test_the_graph_is_kept_if_asked_and_else_the_message_says_how(engine: Measurement) -> None:
    found = []
    for retain in (False, True):
        torch.manual_seed(0)
        trunk, heads = nn.Linear(3, 4), nn.ModuleList(nn.Linear(4, 1) for _ in "abc")
        balancer = gaba.Balancer(["a", "b"], trunk, gaba.methods.get("inverse", measure=engine))
        z = trunk(torch.ones(5, 3)).tanh()
        losses = [head(z).square().mean() for head in heads]
        pair = dict(zip("ab", losses[:2], strict=True))
        step = balancer.backward(pair, retain_graph=retain)
        before = [p.grad.clone() for p in trunk.parameters() if p.grad is not None]
        found.append(before)
        if retain:
            expected = torch.autograd.grad(losses[2], list(trunk.parameters()), retain_graph=True)
            losses[2].backward(retain_graph=True)
            for p, start, own in zip(trunk.parameters(), before, expected, strict=True):
                torch.testing.assert_close(p.grad, start + own)
            again = balancer.backward(pair)
            torch.testing.assert_close(again.losses, step.losses)
        else:
            with pytest.raises(RuntimeError, match="retain_graph=True"):
                balancer.backward(pair)
            for p, start in zip(trunk.parameters(), before, strict=True):
                assert p.grad is not None
                assert torch.equal(p.grad, start)
            assert len(balancer.history) == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


# ---- what can be used ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_usable_multipliers_fit_the_dtype_of_their_loss(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    losses = [torch.ones((), dtype=dtype)] * 2
    asked = torch.tensor([0.5, 1e300], dtype=torch.float64)
    assert usable(asked, losses).tolist() == [0.5, min(1e300, most)]
    mixed = [torch.ones((), dtype=dtype), torch.ones((), dtype=torch.float64)]
    assert usable(asked.flip(0), mixed).tolist() == [min(1e300, most), 0.5]
    assert usable(asked, losses).to(dtype).isfinite().all()


def test_the_scalar_gives_what_combine_adds_and_is_finite_where_its_parts_are_not() -> None:
    """Σ m L is beyond float16, its gradient is not."""
    m = torch.tensor([20.0, 60000.0], dtype=torch.float64)
    found = []
    for scalar in (True, False):
        w = nn.Parameter(torch.ones(2, dtype=torch.float16))
        losses = [6000 * w[0], w[1] * 0.5]
        if scalar:
            total = as_scalar(losses, m)
            assert total.dtype == torch.float32
            assert float(total.detach()) == 20 * 6000 + 60000 * 0.5
            total.backward()
        else:
            combine(LossGraph(losses, as_shared([w])), None, m)
        assert w.grad is not None
        found.append(w.grad)
    assert torch.equal(*found)
    assert float(found[0][1]) == 30000


@pytest.mark.parametrize("call", [True, False], ids=["balancer(losses)", "backward"])
def test_in_float16_the_record_says_what_was_used(call: bool) -> None:
    """A quiet task in float16: the multiplier that the method asks for does not fit the dtype."""
    method = gaba.Method(
        gaba.rules.InverseNorm(), believe=gaba.stabilisers.Identity(), limit=None, scale="max"
    )
    w = nn.Parameter(torch.ones(2, dtype=torch.float16))
    balancer = gaba.Balancer(["a", "b"], [w], method)
    for _ in range(2):
        w.grad = None
        losses: Any = {"a": 6000 * w[0], "b": w[1] * 2.0**-17}
        if call:
            total = balancer(losses)
            assert total.isfinite()
            total.backward()
        else:
            balancer.backward(losses)
        assert balancer.last_step is not None
        a, b = balancer.last_step.multipliers.tolist()
        assert b == 65504  # 8e8 was asked for
        assert w.grad is not None
        expected = torch.tensor([a * 6000, b * 2.0**-17])
        torch.testing.assert_close(w.grad.float(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["tensor", "post-accumulate", "none"])
def test_listeners_are_seen(kind: str) -> None:
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    if kind == "tensor":
        two.register_hook(lambda g: None)
    elif kind == "post-accumulate":
        two.register_post_accumulate_grad_hook(lambda p: None)
    assert someone_listens([one, two]) == (kind != "none")
    assert not someone_listens([one])
