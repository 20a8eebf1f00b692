"""``gaba web``: the explorer and the live page."""

from __future__ import annotations

from pathlib import Path

from gaba.web.server import Server

RUNS = Path("runs")


def serve(path: Path | None, host: str, port: int, token: str | None) -> None:
    """Serve the pages until Ctrl-C.

    Raises:
        FileNotFoundError: There is no such run or folder.
        ValueError: Other machines can reach the server and there is no good token.
        OSError: The port cannot be had.
    """
    path = path or (RUNS if RUNS.is_dir() else None)
    server = Server(path, host, port, token)
    query = f"?token={server.token}" if server.token else ""
    print(f"explorer   {server.address}{query}")
    print(f"live runs  {server.address}live{query}")
    print(f"following  {path if path else 'no folder: give a run, or a folder of runs'}")
    print("Ctrl-C ends it.", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        print("ended")
