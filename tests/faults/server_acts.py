"""What a server does to one request, or what is between it and the agent: each a function."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

from tests.faults.misbehaving import Act, Misbehaving


def _whole(h: Misbehaving, **changes: str | None) -> dict[str, str]:
    """Headers of a good answer with the whole package, some of them changed or left out."""
    given = {"ETag": h.etag, "Content_Length": str(len(h.data)), **changes}
    return {name: value for name, value in given.items() if value is not None}


def _part(h: Misbehaving, start: int, stop: int, size: int, **changes: str | None) -> None:
    """A 206 that says what it is told to, with the bytes of that part."""
    body = h.data[max(0, start) : stop]
    given = {"ETag": h.etag, "Content_Length": str(len(body)), **changes}
    given["Content_Range"] = f"bytes {start}-{stop - 1}/{size}"
    h.head("206 Partial Content", **{n: v for n, v in given.items() if v is not None})
    h.send(body)


# Cuts.


def cut_at(count: int) -> Act:
    def act(h: Misbehaving) -> None:
        h.package(h.data, count)

    return act


def cut_before_the_last_byte(h: Misbehaving) -> None:
    h.package(h.data, len(h.data) - h.start - 1)


def reset_at(count: int) -> Act:
    def act(h: Misbehaving) -> None:
        if count:
            h.head("200 OK", **_whole(h))
            h.send(h.data[:count])
        h.reset()

    return act


def hang_up_without_an_answer(h: Misbehaving) -> None:
    h.hang_up()


def close_between_requests(h: Misbehaving) -> None:
    h.package(h.data)
    h.hang_up()


# Ranges.


def after_a_first_part(act: Act) -> Act:
    """Cut the first answer, so that the agent goes on from somewhere."""

    def both(h: Misbehaving) -> None:
        if "Range" in h.headers:
            act(h)
        else:
            h.package(h.data, 700)

    return both


def whole_for_a_part(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.send(h.data)


def whole_for_a_part_and_cut(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.send(h.data[:500])
    h.hang_up()


def part_for_no_range(h: Misbehaving) -> None:
    _part(h, 0, len(h.data), len(h.data))


def shorter_parts(h: Misbehaving) -> None:
    _part(h, h.start, min(h.start + 1500, len(h.data)), len(h.data))


def part_from(offset: int) -> Act:
    return lambda h: _part(h, h.start + offset, len(h.data), len(h.data))


def part_beyond_the_end(h: Misbehaving) -> None:
    _part(h, h.start, len(h.data) + 10, len(h.data))


def part_of_another_size(h: Misbehaving) -> None:
    _part(h, h.start, len(h.data), len(h.data) + 1)


def part_with_range(value: str | None) -> Act:
    def act(h: Misbehaving) -> None:
        given = {} if value is None else {"Content_Range": value}
        length = str(len(h.data) - h.start)
        h.head("206 Partial Content", ETag=h.etag, Content_Length=length, **given)
        h.send(h.data[h.start :])

    return act


def several_parts(h: Misbehaving) -> None:
    h.head(
        "206 Partial Content",
        ETag=h.etag,
        Content_Type="multipart/byteranges; boundary=b",
        Content_Length="30",
    )
    h.send(b"--b\r\nContent-Range: bytes 0-9/")


def with_etag(etag: str | None) -> Act:
    def act(h: Misbehaving) -> None:
        _part(h, h.start, len(h.data), len(h.data), ETag=etag)

    return act


# Lengths.


def announce(difference: int) -> Act:
    """Announce another length than the package's, and keep to it."""

    def act(h: Misbehaving) -> None:
        length = len(h.data) + difference
        h.head("200 OK", **_whole(h, Content_Length=str(length)))
        h.send((h.data + bytes(max(0, difference)))[:length])

    return act


def announce_as(*values: str) -> Act:
    def act(h: Misbehaving) -> None:
        lines = "".join(f"Content-Length: {value}\r\n" for value in values)
        h.send(f"HTTP/1.1 200 OK\r\nETag: {h.etag}\r\n{lines}\r\n", h.data)
        h.hang_up()

    return act


def more_than_announced(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.send(h.data + bytes(5000))
    h.hang_up()


def no_length(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h, Content_Length=None), Connection="close")
    h.send(h.data)
    h.hang_up()


def no_length_and_cut(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h, Content_Length=None), Connection="close")
    h.send(h.data[:500])
    h.hang_up()


def body_without_end(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h, Content_Length=None), Connection="close")
    h.for_ever(bytes(4096))


# Framing.


def _chunked(h: Misbehaving, *parts: bytes) -> None:
    h.head("200 OK", **_whole(h, Content_Length=None), Transfer_Encoding="chunked")
    h.send(*parts)


def chunks(h: Misbehaving) -> None:
    pieces = (h.data[at : at + 1000] for at in range(0, len(h.data), 1000))
    _chunked(h, *(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces), b"0\r\n\r\n")


def chunks_of_no_size(h: Misbehaving) -> None:
    _chunked(h, b"zz\r\n" + h.data)
    h.hang_up()


def chunks_cut(h: Misbehaving) -> None:
    _chunked(h, b"3e8\r\n" + h.data[:500])
    h.hang_up()


def chunks_without_end(h: Misbehaving) -> None:
    _chunked(h)
    h.for_ever(b"400\r\n" + bytes(1024) + b"\r\n")


def one_chunk_line_without_end(h: Misbehaving) -> None:
    _chunked(h, b"400;")
    h.for_ever(b"x" * 1024)


# Encodings.


def compressed(h: Misbehaving) -> None:
    body = gzip.compress(h.data)
    h.head("200 OK", **_whole(h, Content_Length=str(len(body))), Content_Encoding="gzip")
    h.send(body)


def said_to_be_compressed(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h), Content_Encoding="gzip")
    h.send(h.data)


def wrong_bytes(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.send(random.Random(3).randbytes(len(h.data)))


# Time.


def silence(h: Misbehaving) -> None:
    h.wait_until_over()


def silence_after_the_headers(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.wait_until_over()


def silence_in_the_middle(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.send(h.data[:100])
    h.wait_until_over()


def drip(h: Misbehaving) -> None:
    h.head("200 OK", **_whole(h))
    h.for_ever(b"x", pause=0.002)


def drip_of_headers(h: Misbehaving) -> None:
    h.send("HTTP/1.1 200 OK\r\n")
    h.for_ever(b"X-Slow: yes\r\n", pause=0.002)


# Not HTTP, or too much of it.


def garbage(h: Misbehaving) -> None:
    h.send(random.Random(5).randbytes(3000))
    h.hang_up()


def another_protocol(h: Misbehaving) -> None:
    h.send("SSH-2.0-OpenSSH_9.6\r\n")
    h.hang_up()


def no_status_line(h: Misbehaving) -> None:
    h.send("<html>It works!</html>")
    h.hang_up()


def status_of_no_number(h: Misbehaving) -> None:
    h.send("HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n")


def headers_without_end(h: Misbehaving) -> None:
    h.send("HTTP/1.1 200 OK\r\n")
    h.for_ever(b"X-More: of the same\r\n" * 40)


def one_header_without_end(h: Misbehaving) -> None:
    h.send("HTTP/1.1 200 OK\r\nX-Long: ")
    h.for_ever(b"x" * 1024)


def broken_header(h: Misbehaving) -> None:
    h.send("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\0\r\n\r\n")


def interim_answers_without_end(h: Misbehaving) -> None:
    h.for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 40)


def early_hints(h: Misbehaving) -> None:
    h.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3)
    h.package(h.data)


def switching_protocols(h: Misbehaving) -> None:
    h.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n")


def old_http(h: Misbehaving) -> None:
    h.send(f"HTTP/1.0 200 OK\r\nETag: {h.etag}\r\n\r\n", h.data)
    h.hang_up()


def two_answers_at_once(h: Misbehaving) -> None:
    h.package(h.data)
    h.package(b"and another")


# Statuses.


def status(line: str, body: bytes = b"", **headers: str) -> Act:
    def act(h: Misbehaving) -> None:
        h.head(line, Content_Length=str(len(body)), **headers)
        h.send(body)

    return act


def problem(line: str, code: str, **headers: str) -> Act:
    return status(line, json.dumps({"code": code, "detail": "no"}).encode(), **headers)


def redirect_to_itself(h: Misbehaving) -> None:
    h.head("307 Temporary Redirect", Location=h.plane.url + h.path, Content_Length="0")


# Messages.


def message(body: bytes, line: str = "200 OK", **headers: str) -> Act:
    return status(line, body, Content_Type="application/json", **headers)


def desired(**changes: Any) -> bytes:
    wanted = {
        "model": "digits",
        "version": 2,
        "weights_digest": "0" * 64,
        "assignment": 1,
        "package": None,
    }
    return json.dumps({"models": [{**wanted, **changes}]}).encode()


def half_a_message(h: Misbehaving) -> None:
    body = desired()
    h.head("200 OK", Content_Length=str(len(body) // 2))
    h.send(body[: len(body) // 2])


def message_without_end(h: Misbehaving) -> None:
    h.head("200 OK", Connection="close")
    h.for_ever(b" " * 4096)


def not_modified(h: Misbehaving) -> None:
    del h.headers["If-None-Match"]
    h.head("304 Not Modified")


def taken_but_not_answered(h: Misbehaving) -> None:
    h.hang_up()
