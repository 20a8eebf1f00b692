"""A history shows itself in a notebook, and goes to pandas and Parquet without losing anything."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import gaba
from _web_records import read, step_lines, write
from gaba.extras import install

VECTORS = ("losses", "norms", "multipliers", "weights", "contributions", "saturated", "shares")


@pytest.fixture(name="history")
def some_steps(tmp_path: Path) -> gaba.History:
    tasks = ("rul", "<b>health</b>")
    return read(write(tmp_path / "run.jsonl", step_lines(80, tasks, cosines=True), tasks))


def cells(html: str) -> list[str]:
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag in {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
            if tag in ("td", "th", "caption"):
                found.append("")

        def handle_data(self, data: str) -> None:
            if found:
                found[-1] += data

    Reader().feed(html)
    return found


def test_a_notebook_shows_the_last_step_of_each_task(history: gaba.History) -> None:
    shown = cells(history._repr_html_())
    assert shown[0].startswith("80 steps of rul, <b>health</b>; imbalance")
    assert "<b>health</b>" in shown
    at = shown.index("rul")
    assert shown[at + 3] == f"{history.multipliers[-1, 0]:.4g}"
    assert shown[at + 4] == f"{history.weights[-1, 0]:.4g}"
    assert shown[at + 6] == f"{history.saturated[:, 0].mean():.1%}"
    assert "0 steps of a" in gaba.History(["a"])._repr_html_()


def test_pandas_gets_every_column(history: gaba.History) -> None:
    frame = history.to_pandas()
    np.testing.assert_array_equal(frame.index, history.steps)
    for k, task in enumerate(history.tasks):
        for name in VECTORS:
            np.testing.assert_array_equal(frame[f"{name}/{task}"], getattr(history, name)[:, k])
    for name in ("combined", "imbalance", "times", "finite", "measured"):
        np.testing.assert_array_equal(frame[name], getattr(history, name))
    cosines = frame["cosines/rul/<b>health</b>"]
    np.testing.assert_array_equal(cosines, history.cosines[:, 0, 1])
    assert len(frame.columns) == 5 + 7 * 2 + 1


def test_parquet_keeps_every_value(history: gaba.History, tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(ImportError, match=f"pyarrow.*{re.escape(install('parquet'))}"):
            history.to_parquet(tmp_path / "run.parquet")
        assert not (tmp_path / "run.parquet").exists()
        return
    import pandas as pd

    history.to_parquet(tmp_path / "run.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run.parquet"), history.to_pandas())
    assert [path.name for path in tmp_path.glob("*.parquet*")] == ["run.parquet"]


def test_without_pandas_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import gaba\n"
        "try: gaba.History(['a', 'b']).to_pandas()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    remedy = f"to_pandas needs pandas, which is not installed: {install('parquet')}"
    assert done.stdout.strip() == remedy
