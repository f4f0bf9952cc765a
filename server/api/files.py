"""Blobs over HTTP: ETag, Range and If-Range, never content-encoded.

The ETag is the SHA-256 of the file, so a download resumes on any replica, after any restart.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from server.errors import BadRequest
from server.storage.base import BlobStore

MEDIA_TYPE = "application/octet-stream"

#: What OpenAPI says of a route that answers with `blob_response`.
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file; the ETag is its SHA-256.", "content": {MEDIA_TYPE: {}}},
    206: {"description": "The range asked for.", "content": {MEDIA_TYPE: {}}},
    304: {"description": "The copy that the client has is the same."},
}

ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class UnsatisfiableRange(BadRequest):
    """A range that begins behind the end; the answer tells the size."""

    def __init__(self, size: int) -> None:
        super().__init__("bad_range", f"the file has {size} bytes")
        self.headers = {"Content-Range": f"bytes */{size}"}


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """`(start, stop)` of a Range header; None: send everything.

    Several ranges or another unit are ignored, as RFC 9110 allows. Raises UnsatisfiableRange.
    """
    match = ONE_RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise UnsatisfiableRange(size)
    return start, stop


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has the version `etag` already; a proxy may have made it weak."""
    known = (part.strip().removeprefix("W/") for part in (if_none_match or "").split(","))
    return etag in known


#: Of a blob for a browser, which may keep it; a device keeps what it needs anyhow.
_KEPT, _NOT_KEPT = "private, no-transform, max-age=31536000, immutable", "private, no-transform"


def blob_response(
    request: Request, blobs: BlobStore, sha256: str, filename: str | None
) -> Response:
    """The answer that streams the blob `sha256`, or the part of it that is asked for.

    `filename`: how a browser names it; None for a device, to which each byte of a header counts.
    """
    size, etag = blobs.size(sha256), f'"{sha256}"'
    headers = {"ETag": etag, "Cache-Control": _KEPT if filename else _NOT_KEPT}
    if filename:
        headers["Accept-Ranges"] = "bytes"
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range")
    if request.headers.get("if-range", etag) != etag:
        asked = None
    span = range_of(asked, size)
    start, stop = span or (0, size)
    headers["Content-Length"] = str(stop - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return StreamingResponse(
        blobs.chunks(sha256, start, stop),
        status_code=200 if span is None else 206,
        headers=headers,
        media_type=MEDIA_TYPE,
    )
