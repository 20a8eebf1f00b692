"""What the pictures show: the drawn data are the given data, and every label is inside the page."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

import gaba
from gaba.record import plots as record_plots
from gaba.turbofan import lives_plot, plots
from gaba.turbofan.lives import Life

CAPTION = plots.Caption("FD001", "gaba", 13.24)
CLASSES = ["normal", "degrading", "critical"]


def history(n: int, *, saturated: slice = slice(0, 0), norms: float | None = None) -> gaba.History:
    generator = np.random.default_rng(0)
    record = gaba.History(["rul", "health"])
    held = np.zeros(n, dtype=bool)
    held[saturated] = True
    for i in range(n):
        g = np.exp(generator.normal(0, 0.5, 2)) * (500, 1) if norms is None else np.full(2, norms)
        record.append(
            gaba.Step(
                tasks=record.tasks,
                step=i,
                measured=norms is None,
                combined="backward",
                losses=torch.ones(2, dtype=torch.float64),
                norms=torch.from_numpy(g),
                multipliers=torch.tensor([0.05, 0.95], dtype=torch.float64),
                saturated=torch.tensor([bool(held[i]), False]),
                finite=torch.tensor(True),
            )
        )
    return record


def engines(n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(n)
    true = generator.integers(1, 126, n).astype(float)
    return np.clip(true + generator.normal(0, 13, n), 0, 130), true


def walk(cycles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.arange(1, cycles + 1)
    true = np.minimum(125.0, cycles - x)
    return x, true + np.sin(x) * 9, true


def life(cycles: int, late: float = 0.0, name: str = "24", known: bool = True) -> Life:
    x, y, true = walk(cycles)
    y = true + late
    return Life(name, x, y, y - 15, y + 15, true if known else None)


def of_lives(*shown: Life, caption: plots.Caption = CAPTION) -> Figure:
    verdict = (
        "19 of 1,000 test engines predicted late: more than 10 cycles too many at the last cycle"
    )
    rule = "6 of 1,000 test engines, from the least to the most true remaining life"
    return lives_plot.lives(shown, verdict, rule, caption, cap=125.0, allowed=10.0)


SIX = [
    life(90 + 30 * i, 11.0 * (i - 3), name="a unit of a long name" * (i % 2) or "7")
    for i in range(6)
]

EVERY: dict[str, Callable[[plots.Caption], Figure]] = {
    "predictions": lambda c: plots.predictions(*engines(), c),
    "predictions of 1": lambda c: plots.predictions([3.0], [4.0], c),
    "predictions of 259": lambda c: plots.predictions(*engines(259), c),
    "trajectory": lambda c: plots.trajectory(*walk(192), c, unit=24),
    "trajectory of 1": lambda c: plots.trajectory(*walk(1), c, unit=24),
    "lives": lambda c: of_lives(*SIX, caption=c),
    "lives of 1": lambda c: of_lives(life(1, 40.0), caption=c),
    "lives of 4, unknown": lambda c: of_lives(
        *(life(30, name=f"${n}$", known=False) for n in range(4)), caption=c
    ),
    "lives of 7": lambda c: of_lives(*SIX, SIX[0], caption=c),
    "errors": lambda c: plots.error_histogram(*engines(), c),
    "errors of 0": lambda c: plots.error_histogram([5.0, 5.0], [5.0, 5.0], c),
    "huge errors": lambda c: plots.error_histogram([5e4, 1.0], [0.0, 0.0], c),
    "confusion": lambda c: plots.confusion([[50, 4, 0], [3, 20, 2], [0, 1, 20]], CLASSES, c),
    "empty classes": lambda c: plots.confusion(np.zeros((3, 3)), CLASSES, c),
    "balance": lambda c: plots.balance(history(40, saturated=slice(20, 40)), c),
    "balance of 1": lambda c: plots.balance(history(1), c),
    "long balance": lambda c: plots.balance(history(3000, saturated=slice(300, 3000)), c),
    "balance unmeasured": lambda c: plots.balance(history(30, norms=np.nan), c),
    "balance of zeros": lambda c: plots.balance(history(30, norms=0.0), c),
}


@pytest.fixture(scope="module", params=EVERY)
def figure(request: pytest.FixtureRequest) -> Figure:
    return EVERY[request.param](CAPTION)


def texts(figure: Figure) -> Iterator[Text]:
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip():
            yield text


def shown(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def test_a_picture_is_a_png_of_its_size(figure: Figure, tmp_path: Path) -> None:
    raw = plots.save(figure, tmp_path / "new" / "a.png").read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", raw[16:24])
    assert (width, height) == tuple(round(150 * inch) for inch in figure.get_size_inches())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_no_label_is_cut_at_the_edge(figure: Figure) -> None:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    width, height = canvas.get_width_height()
    for axes in figure.axes:
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts):
            box = text.get_window_extent(canvas.get_renderer())
            if text.get_text():
                assert box.x0 >= -1, text.get_text()
                assert box.y0 >= -1, text.get_text()
                assert box.x1 <= width + 1, text.get_text()
                assert box.y1 <= height + 1, text.get_text()


def test_every_title_says_subset_method_and_rmse(figure: Figure) -> None:
    assert "FD001 · gaba · test RMSE 13.2 cycles" in shown(figure)
    assert "simulated" not in shown(figure)


@pytest.mark.parametrize("name", EVERY)
def test_every_picture_of_a_simulation_says_so(name: str) -> None:
    simulated = plots.Caption("simulated", "gaba", 13.24, simulated=True)
    assert "simulated data" in shown(EVERY[name](simulated))


@pytest.mark.parametrize("name", ["predictions", "trajectory", "errors", "lives"])
def test_lives_are_labelled_in_cycles(name: str) -> None:
    axes = EVERY[name](CAPTION).axes[0]
    assert "cycles" in axes.get_xlabel() + axes.get_ylabel()


# --- several lives -------------------------------------------------------------------------------


def ticks_out_of_view(figure: Figure) -> Iterator[Text]:
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = axis.get_view_interval()
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                yield tick.label1


@pytest.mark.parametrize("name", ["lives", "lives of 1", "lives of 4, unknown", "lives of 7"])
def test_no_words_lie_on_others_and_every_panel_has_units(name: str) -> None:
    figure = EVERY[name](CAPTION)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    width, height = canvas.get_width_height()
    apart = {*figure.legends[0].get_texts(), *ticks_out_of_view(figure)}
    said = [text for text in texts(figure) if text not in apart]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in said]
    boxes.append(("the legend", figure.legends[0].get_window_extent(canvas.get_renderer())))
    for i, (what, box) in enumerate(boxes):
        assert box.x0 >= -1, what
        assert box.y0 >= -1, what
        assert box.x1 <= width + 1, what
        assert box.y1 <= height + 1, what
        for other, second in boxes[:i]:
            assert not box.padded(-1).overlaps(second), (what, other)
    assert {axes.get_xlabel() for axes in figure.axes} == {"time (cycles)"}
    assert {axes.get_ylabel() for axes in figure.axes} == {"remaining life (cycles)"}


def test_a_panel_shows_its_prediction_its_interval_and_the_truth() -> None:
    shown = life(150, 5.0)
    axes = of_lives(shown).axes[0]
    predicted, true = axes.lines
    np.testing.assert_array_equal(predicted.get_ydata(), shown.rul)
    np.testing.assert_array_equal(true.get_ydata(), shown.true)
    outline = np.asarray(axes.collections[0].get_paths()[0].vertices)
    for x, low, high in zip(shown.cycle, shown.low, shown.high, strict=True):
        at = outline[outline[:, 0] == x][:, 1]
        assert (at.min(), at.max()) == (low, high)
    assert len(axes.collections) == 1  # 5 cycles too many are within what is allowed
    assert axes.get_title("left") == "engine 24"
    assert axes.get_title("right") == "5 cycles late"


def test_marks_are_where_the_prediction_is_late_and_at_its_last_late_cycle() -> None:
    x, y, true = walk(150)
    y = np.where((x > 60) & (x <= 100), true + 10.5, true + 10.0)
    figure = of_lives(Life("A", x, y, y, y, true))
    marks = np.asarray(figure.axes[0].collections[1].get_offsets())
    assert set(marks[:, 0]) <= set(range(61, 101))
    assert marks[-1].tolist() == [100, y[99]]
    assert "late: more than 10 cycles too many" in shown(figure)


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (0.4, "on time"),
        (-1.0, "1 cycle early"),
        (10.0, "10 cycles late"),
        (14.2, "▲ 14 cycles late"),
    ],
)
def test_beside_the_name_stands_the_error_at_the_last_cycle(error: float, title: str) -> None:
    assert of_lives(life(40, error)).axes[0].get_title("right") == title


def test_a_picture_has_1_to_12_units() -> None:
    for count in (0, 13):
        with pytest.raises(ValueError, match=f"1 to 12 units, found {count}"):
            of_lives(*[life(3)] * count)


def test_panels_have_common_axes() -> None:
    drawn = of_lives(*SIX).axes
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in drawn}) == 1


def points(axes: Axes) -> np.ndarray:
    return np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections[2:]])


@pytest.mark.parametrize("n", [1, 2, 100])
def test_predictions_are_sorted_by_true_life(n: int) -> None:
    predicted, true = engines(n)
    axes = plots.predictions(predicted, true, CAPTION).axes[0]
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == sorted(true)
    drawn = points(axes)
    assert drawn.shape == (n, 2)
    by_place = drawn[np.argsort(drawn[:, 0])][:, 1]
    np.testing.assert_allclose(by_place, predicted[np.argsort(true, kind="stable")])
    low, high = axes.get_ylim()
    assert low < min(predicted.min(), 0) <= max(predicted.max(), true.max()) < high


def test_late_predictions_have_their_own_mark() -> None:
    predicted, true = engines(100)
    axes = plots.predictions(predicted, true, CAPTION).axes[0]
    early, late = axes.collections[2:]
    assert len(np.asarray(late.get_offsets())) == (predicted > true).sum()
    assert len(np.asarray(early.get_offsets())) == (predicted <= true).sum()
    assert [to_hex(np.asarray(c.get_facecolor())[0]) for c in (early, late)] == [
        "#56b4e9",
        "#d55e00",
    ]


def bars(axes: Axes) -> list[tuple[float, float, float]]:
    found = [p for c in axes.containers for p in c.get_children() if isinstance(p, Rectangle)]
    return sorted((p.get_x(), p.get_x() + p.get_width(), p.get_height()) for p in found)


@pytest.mark.parametrize(
    "errors",
    [[0.0], [0.0, 0.0, 1e-9], [-1.0, 1.0], [-30.0, 0.0, 30.0], list(np.linspace(-77, 41, 200))],
)
def test_the_histogram_counts_every_error_on_its_side(errors: list[float]) -> None:
    d = np.array(errors)
    true = np.zeros_like(d)
    figure = plots.error_histogram(d, true, CAPTION)
    axes = figure.axes[0]
    drawn = bars(axes)
    assert sum(count for *_, count in drawn) == d.size
    assert sum(count for left, _, count in drawn if left >= 0) == (d > 0).sum()
    end = max(right for _, right, _ in drawn)
    for left, right, count in drawn:  # both sides count from 0 outwards, the last bin is closed
        near, far = sorted((abs(left), abs(right)))
        side = d > 0 if left >= 0 else d <= 0
        inside = (np.abs(d) >= near) & ((np.abs(d) < far) | (far == end))
        assert count == (side & inside).sum()
    assert f"too late, d > 0: {(d > 0).sum()} of {d.size} engines" in shown(figure)


def test_the_late_side_is_marked() -> None:
    axes = plots.error_histogram(*engines(), CAPTION).axes[0]
    assert to_hex(axes.patches[0].get_facecolor()) == "#d55e00"
    span = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert span.x0 == pytest.approx(0, abs=1e-6)
    assert span.x1 == pytest.approx(axes.get_xlim()[1])


def test_the_confusion_matrix_has_true_classes_as_rows() -> None:
    axes = plots.confusion([[50, 4, 0], [3, 20, 2], [0, 1, 20]], CLASSES, CAPTION).axes[0]
    cells = {t.get_position(): t.get_text() for t in axes.texts if "\n" in t.get_text()}
    assert cells[(1, 0)] == "4\n7%"  # x is the predicted class
    assert cells[(0, 1)] == "3\n12%"
    assert axes.get_ylabel() == "true health"


def test_the_balance_is_the_overview_of_the_library_with_a_caption() -> None:
    record = history(40, saturated=slice(10, 20))
    ours, theirs = plots.balance(record, CAPTION), record_plots.overview(record)
    assert len(ours.axes) == len(theirs.axes) == 4
    for mine, other in zip(ours.axes, theirs.axes, strict=True):
        assert mine.get_ylabel() == other.get_ylabel()
        for line, same in zip(mine.lines, other.lines, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), same.get_ydata())
    assert CAPTION.text in shown(ours)


@pytest.mark.parametrize("draw", [plots.predictions, plots.error_histogram])
@pytest.mark.parametrize(("a", "b"), [([1, 2], [1]), ([], []), ([[1]], [[1]])])
def test_unequal_or_empty_data_are_refused(draw: Callable[..., Figure], a: Any, b: Any) -> None:
    with pytest.raises(ValueError, match="predicted and true must be"):
        draw(a, b, CAPTION)


def test_a_wrong_matrix_and_an_empty_history_are_refused() -> None:
    with pytest.raises(ValueError, match="one row and one column a class"):
        plots.confusion([[1, 2]], CLASSES, CAPTION)
    with pytest.raises(ValueError, match="at least 1 step, found 0"):
        plots.balance(gaba.History(["a", "b"]), CAPTION)


def test_a_failed_save_leaves_the_old_picture(tmp_path: Path) -> None:
    path = plots.save(plots.predictions([1.0], [2.0], CAPTION), tmp_path / "a.png")
    old = path.read_bytes()
    broken = plots.predictions([1.0], [2.0], CAPTION)
    broken.text(0.5, 0.5, "$\\nosuchsymbol$", parse_math=True)
    with pytest.raises(ValueError, match="nosuchsymbol"):
        plots.save(broken, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
