"""Run the tutorials from top to bottom and write their outputs into them, in place.

    .venv/bin/python docs/tutorials/execute.py [NOTEBOOK ...]

Without any, all are run. Each runs on one thread, so that its figures are the same the next time.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, which wants a package of its own
}


def executed(path: Path, timeout: int = 900) -> Any:
    """The notebook at ``path`` with the outputs of a fresh run; the file stays as it is."""
    os.environ |= ENVIRONMENT
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute()
    for output in (o for cell in notebook.cells for o in cell.get("outputs", ())):
        if "image/png" in output.get("data", {}):
            output["data"]["image/png"] = _smaller(output["data"]["image/png"])
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _smaller(picture: str) -> str:
    """A PNG, in base64, of 128 colours: enough for these pictures, and half the size."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main(paths: list[Path]) -> None:
    for path in paths or sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
