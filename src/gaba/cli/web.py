"""``gaba web``: the explorer and the live page, or the explorer as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gaba.cli.commands import Web

RUNS = Path("runs")
TOKEN = "GABA_WEB_TOKEN"


def web(asked: Web, environment: dict[str, str]) -> None:
    """Serve the pages until Ctrl-C, or write the explorer as one file.

    Raises:
        ImportError: the extra is not installed.
        FileNotFoundError: there is no such run or folder.
        ValueError: other machines could reach the server and there is no good token.
        OSError: the port cannot be had.
    """
    if asked.export is not None:
        from gaba.web.export import export

        export(asked.export)
        print(f"the explorer is in {asked.export}: open it in a browser")
        return
    from gaba.web.server import Server

    path = asked.path or (RUNS if RUNS.is_dir() else None)
    server = Server(path, asked.host, asked.port, asked.token or environment.get(TOKEN) or None)
    query = f"?token={server.token}" if server.token else ""
    print(f"explorer   {server.address}{query}")
    print(f"live runs  {server.address}live{query}")
    print(f"following  {path if path else 'no folder: give a run, or a folder of runs'}")
    print("Ctrl-C ends it.", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        print("ended")
