"""Use each extra where it is installed alone: ``python _extra_uses.py NAME``.

`test_extras.py` runs this file there. It may import nothing but that extra.
"""

from __future__ import annotations

import asyncio
import doctest
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def doctests(*modules: str) -> None:
    """Run the doctests of these modules; each has at least one."""
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    for name in modules:
        found = doctest.testmod(importlib.import_module(name), optionflags=options)
        assert found.attempted > 0, f"{name} has no doctest"
        assert not found.failed, f"{found.failed} doctests of {name} failed"


def of(*modules: str) -> Callable[[], None]:
    return lambda: doctests(*modules)


def cli() -> None:
    from gaba.cli import main

    assert main(["demo"]) == main(["methods"]) == main(["domains"]) == 0


def turbofan() -> None:
    doctests("gaba.turbofan.losses", "gaba.turbofan.metrics", "gaba.turbofan.windows")
    from gaba.turbofan import TrainConfig, train

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(TrainConfig(subset="simulated", steps=2, steps_per_epoch=2, run_dir=str(run)))
        assert (run / "metrics.json").is_file()


def onnx() -> None:
    from gaba.turbofan import TrainConfig, open_run, train

    with tempfile.TemporaryDirectory() as folder:
        train(TrainConfig("simulated", steps=2, steps_per_epoch=2, run_dir=folder))
        assert open_run(folder).export(f"{folder}/model.onnx").is_file()


def sweep(**settings: Any) -> None:
    from gaba import bench

    with tempfile.TemporaryDirectory() as folder:
        config = bench.Config(
            problems=("conflict-toy",),
            methods=("uniform", "inverse", "upgrad"),
            optimizers=("sgd",),
            seeds=(0,),
            tuning_seeds=(50,),
            trials=1,
            points=1,
            settings=1,
            store=str(Path(folder) / "runs.sqlite"),
        )
        summary = bench.run(config, **settings)
        assert summary.ran > 3
        with bench.Store(config.store, read_only=True) as store:
            assert len(store.to_pandas()) == summary.ran


def benchmark() -> None:
    doctests("gaba.bench", "gaba.integrations.torchjd")
    sweep()


def tune() -> None:
    import gaba

    found = gaba.tune(lambda targets: targets["a"], 3, tasks=["a", "b"], quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        found.plot(f"{folder}/tried.png")
        again = gaba.tune("conflict-toy", 2, steps=5, storage=f"{folder}/study.sqlite", quiet=True)
    assert len(found.trials) == 3
    assert len(again.trials) == 2


def web() -> None:
    from gaba.web.server import application

    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8765")],
        "server": ("127.0.0.1", 8765),
        "client": ("127.0.0.1", 50000),
    }

    async def answer() -> None:
        await application()(scope, receive, send)

    asyncio.run(answer())
    assert said[0]["status"] == 200
    assert b"<html" in b"".join(message.get("body", b"") for message in said[1:])


def domains() -> None:
    from gaba.domains import DOMAINS

    for domain in DOMAINS:
        with tempfile.TemporaryDirectory() as folder:
            assert domain.run(Path(folder)).stat().st_size > 1000


def docs() -> None:
    from sphinx.cmd.build import main

    with tempfile.TemporaryDirectory() as folder:
        names = ["myst_nb", "sphinx_copybutton", "sphinx.ext.autodoc"]
        config = f"extensions = {names}\nhtml_theme = 'furo'\nnb_execution_mode = 'force'\n"
        page = "# A page\n\n```{autofunction} gaba.imbalance\n```\n\n```{code-cell}\n6 * 7\n```\n"
        page = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n" + page
        Path(folder, "conf.py").write_text(config, encoding="utf-8")
        Path(folder, "index.md").write_text(page, encoding="utf-8")
        assert main(["-W", "-q", folder, f"{folder}/html"]) == 0
        assert ">42" in Path(folder, "html", "index.html").read_text(encoding="utf-8")


USES: dict[str, Callable[[], None]] = {
    "cli": cli,
    "turbofan": turbofan,
    "bench": benchmark,
    "tune": tune,
    "onnx": onnx,
    "dask": lambda: sweep(backend="dask"),
    "ray": lambda: sweep(backend="ray"),
    "web": web,
    "plots": of("gaba.record.plots", "gaba.record.report"),
    "parquet": of("gaba.record.history"),
    "lightning": of("gaba.integrations.lightning"),
    "transformers": of("gaba.integrations.transformers"),
    "accelerate": of("gaba.integrations.accelerate"),
    "tensorboard": of("gaba.integrations.tensorboard"),
    "skfolio": of("gaba.domains.portfolio"),
    "mo-gymnasium": of("gaba.domains.rewards"),
    "pyloudnorm": of("gaba.domains.mixing"),
    "xarray": of("gaba.domains.ensembles"),
    "detection": of("gaba.domains.detection", "gaba.domains._average_precision"),
    "domains": domains,
    "docs": docs,
}
EXAMPLES = {
    "lightning": "lightning_module.py",
    "transformers": "transformers_trainer.py",
    "accelerate": "accelerate_loop.py",
    "tensorboard": "tensorboard_log.py",
    "bench": "torchjd_bridge.py",
}
"""The files of ``examples/`` that need the extra and nothing else."""

if __name__ == "__main__":
    USES[sys.argv[1]]()
    print(f"{sys.argv[1]}: works")
