"""HTTP as Uvicorn speaks it with httptools, with an end to how long a head may be.

Uvicorn's other parser, h11, bounds what it keeps of an unfinished head; httptools does not, and
takes less than half of its time (ADR 0017).
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.settings import Settings

#: Request line and headers. `Gate` refuses less than that, with a problem; this is the last limit.
MOST_HEAD_BYTES = 64 * 1024

REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def forwarding(settings: Settings) -> dict[str, Any]:
    """Uvicorn's options: whose `X-Forwarded-*` headers count. By default it would trust loopback.

    Only a proxy that is named, since whoever connects may write them.
    """
    trusted = list(settings.trusted_proxies)
    return {"proxy_headers": bool(trusted), "forwarded_allow_ips": trusted}


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    _in_head = True
    _received = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came; cut the connection where a head does not come to its end."""
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins in a piece that is not counted: an earlier body may end in it."""
        self._in_head, self._received = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is there."""
        self._in_head = False
        super().on_headers_complete()
