"""The random matrix by which gradients are brought down before they are averaged over ranks."""

from __future__ import annotations

import pytest
import torch

from gaba.measurement.averages import averages
from gaba.ranks import Sync
from gaba.ranks.processes import Ranks

SHAPES = [(7, 9), (9,), (40, 9), (1,)]


def theta(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.zeros(shape, dtype=dtype) for shape in SHAPES]


def rows(count: int) -> list[list[torch.Tensor]]:
    made = torch.Generator().manual_seed(0)
    return [
        [torch.randn(shape, generator=made, dtype=torch.float64) ** 3 for shape in SHAPES]
        for _ in range(count)
    ]


def sketched(sync: Sync, step: int, of: list[list[torch.Tensor]]) -> torch.Tensor:
    means = averages(Ranks(sync=sync), theta(), step)
    for row in of:
        means.add(row)
    return torch.stack([torch.cat(part) for part in means.parts()])


@pytest.mark.parametrize(("width", "bucket"), [(16, 25 * 2**20), (64, 1024), (1000, 2048)])
def test_inner_products_are_unbiased_and_scatter_as_promised(width: int, bucket: int) -> None:
    of, draws = rows(3), 400
    flat = torch.stack([torch.cat([g.flatten() for g in row]) for row in of])
    truth = flat @ flat.T
    length = truth.diagonal().sqrt()
    seen = []
    for step in range(draws):
        u = sketched(Sync("sketch", width=width, bucket=bucket), step, of)
        assert u.shape == (3, width)
        seen.append((u @ u.T) / (length[:, None] * length))
    found = torch.stack(seen)
    error = found.mean(0) - truth / (length[:, None] * length)
    assert error.abs().max() < 4 * (2 / width / draws) ** 0.5
    scatter = found.diagonal(dim1=1, dim2=2).var(0)
    assert (scatter < 1.4 * 2 / width).all()


def test_it_is_linear_and_so_the_mean_of_sketches_is_the_sketch_of_the_mean() -> None:
    a, b = rows(2)
    mean = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
    u = sketched(Sync("sketch", width=32), 3, [a, b, mean])
    torch.testing.assert_close((u[0] + u[1]) / 2, u[2])


def test_missing_gradients_count_as_zero_and_steps_differ() -> None:
    (a,) = rows(1)
    none = [None if i == 2 else g for i, g in enumerate(a)]
    zero = [torch.zeros_like(g) if i == 2 else g for i, g in enumerate(a)]
    sketch = Sync("sketch", width=32)
    parts = []
    for row in (none, zero):
        means = averages(Ranks(sync=sketch), theta(), 0)
        means.add(row)
        parts.append(torch.cat(means.parts()[0]))
    assert torch.equal(*parts)
    assert not torch.equal(sketched(sketch, 0, [a]), sketched(sketch, 1, [a]))


def test_complex_gradients_keep_their_length() -> None:
    """Each real number gets a sign of its own: ‖g‖² is unbiased for complex parameters too."""
    made = torch.Generator().manual_seed(0)
    like = [torch.zeros(5), torch.zeros(30, dtype=torch.complex128)]
    row = [torch.randn(p.shape, generator=made, dtype=p.dtype) for p in like]
    squares = []
    for step in range(300):
        means = averages(Ranks(sync=Sync("sketch", width=64)), like, step)
        means.add(row)
        squares.append(torch.cat(means.parts()[0]).square().sum())
    truth = sum(float(g.abs().square().sum()) for g in row)
    assert float(torch.stack(squares).mean()) / truth == pytest.approx(
        1, abs=4 * (2 / 64 / 300) ** 0.5
    )


@pytest.mark.parametrize("wrong", [{"how": "mean"}, {"width": 0}, {"bucket": 5}])
def test_settings_that_break_their_rule(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sync(**wrong)  # pyright: ignore[reportArgumentType]
