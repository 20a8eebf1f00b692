"""Connections that are too slow are closed."""

from __future__ import annotations

import asyncio
from typing import Any, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

TO_ASK = 10.0
"""Seconds in which a request must have come, from its first byte or from the connection on."""

TO_TAKE = 30.0
"""Seconds for which a client may leave what was sent to it unread."""


@final
class ImpatientProtocol(H11Protocol):
    """uvicorn's protocol for HTTP/1.1, with a limit for slow clients in both directions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Take what came; a request that is begun must be finished in time."""
        super().data_received(data)
        self._expect()

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(TO_TAKE, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._taking = _cancel(self._taking)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._asking, self._taking = _cancel(self._asking), _cancel(self._taking)
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._asking = _cancel(self._asking)
        elif self._asking is None:
            self._asking = self.loop.call_later(TO_ASK, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
