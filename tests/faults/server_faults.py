"""The ways in which a server, or what is between it and the agent, misbehaves: one table.

`codes` are those that the agent must come to while the fault lasts; none: it must succeed.
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from typing import Any

from tests.faults.misbehaving import Act, Misbehaving

PACKAGE, DESIRED, REPORTS, ENROL = "/packages/", "/desired", "/reports", "/enrol"
AWAY, STRANGER = "server.unreachable", "server.bad_answer"
NONSENSE, TOO_LONG = "download.bad_answer", "download.too_long"
ALWAYS = 1 << 30


@dataclass(frozen=True)
class Fault:
    """`times`: requests that it strikes. `most_bytes`: sent by the server while it lasts.

    `silent`: the agent is to notice by its time-out. `slow`: each of its readings takes 10 s by its
    clock. `pause`: bounds of the longest pause that it must make, in seconds.
    """

    name: str
    where: str
    act: Act
    codes: frozenset[str] = frozenset()
    times: int = ALWAYS
    most_bytes: int = 100_000
    silent: bool = False
    slow: bool = False
    pause: tuple[float, float] | None = None


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


def _after_a_first_part(act: Act) -> Act:
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


def _desired(**changes: Any) -> bytes:
    wanted = {
        "model": "digits",
        "version": 2,
        "weights_digest": "0" * 64,
        "assignment": 1,
        "package": None,
    }
    return json.dumps({"models": [{**wanted, **changes}]}).encode()


def half_a_message(h: Misbehaving) -> None:
    body = _desired()
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


DATE = "Sun, 01 Mar 2026 10:00:00 GMT"
LATER = "Sun, 01 Mar 2026 10:05:00 GMT"
ELSEWHERE = "https://packages.example/x"
HTML = b"<html>Welcome to our hotel. Please log in.</html>"


def _fault(name: str, where: str, act: Act, *codes: str, **more: Any) -> Fault:
    return Fault(name, where, act, frozenset(codes), **more)


PACKAGE_FAULTS = (
    _fault("cut before the first byte", PACKAGE, cut_at(0), AWAY),
    _fault("cut after one byte, each time", PACKAGE, cut_at(1), AWAY),
    _fault("cut at byte 700, twice", PACKAGE, cut_at(700), AWAY, times=2),
    _fault("cut before the last byte, twice", PACKAGE, cut_before_the_last_byte, AWAY, times=2),
    _fault("reset before an answer", PACKAGE, reset_at(0), AWAY),
    _fault("reset in the body", PACKAGE, reset_at(300), AWAY),
    _fault("hung up without an answer", PACKAGE, hang_up_without_an_answer, AWAY),
    _fault("closed between requests", PACKAGE, close_between_requests),
    _fault("200 for a part", PACKAGE, _after_a_first_part(whole_for_a_part), AWAY),
    _fault("200 for a part, cut", PACKAGE, _after_a_first_part(whole_for_a_part_and_cut), AWAY),
    _fault("206 for no range", PACKAGE, part_for_no_range),
    _fault("206 with less than was asked for", PACKAGE, shorter_parts),
    _fault("part from too late", PACKAGE, _after_a_first_part(part_from(5)), AWAY, NONSENSE),
    _fault("part from too early", PACKAGE, _after_a_first_part(part_from(-5)), AWAY, NONSENSE),
    _fault("part beyond the end", PACKAGE, part_beyond_the_end, NONSENSE),
    _fault("part of another size", PACKAGE, part_of_another_size, NONSENSE),
    _fault("part without a range", PACKAGE, part_with_range(None), NONSENSE),
    _fault("part with a nonsense range", PACKAGE, part_with_range("bytes soon"), NONSENSE),
    _fault("part with huge numbers", PACKAGE, part_with_range(f"bytes 0-1/{'9' * 99}"), NONSENSE),
    _fault("several parts", PACKAGE, several_parts, NONSENSE),
    _fault(
        "ETag changed on the way", PACKAGE, _after_a_first_part(with_etag('"new"')), AWAY, STRANGER
    ),
    _fault("weak ETag", PACKAGE, with_etag('W/"x"'), STRANGER),
    _fault("no ETag", PACKAGE, with_etag(None)),
    _fault("length announced too short", PACKAGE, announce(-10), NONSENSE),
    _fault("length announced too long", PACKAGE, announce(10), TOO_LONG),
    _fault("length of petabytes", PACKAGE, announce_as("1" + "0" * 15), TOO_LONG),
    _fault("two lengths", PACKAGE, announce_as("10", "20"), AWAY),
    _fault("negative length", PACKAGE, announce_as("-5"), AWAY),
    _fault("more bytes than announced", PACKAGE, more_than_announced),
    _fault("no length", PACKAGE, no_length),
    _fault("no length, and cut", PACKAGE, no_length_and_cut, AWAY),
    _fault("body without an end", PACKAGE, body_without_end, TOO_LONG, most_bytes=2 << 20),
    _fault("chunks", PACKAGE, chunks),
    _fault("chunks of no size", PACKAGE, chunks_of_no_size, AWAY),
    _fault("chunks that are cut", PACKAGE, chunks_cut, AWAY),
    _fault("chunks without an end", PACKAGE, chunks_without_end, TOO_LONG, most_bytes=2 << 20),
    _fault(
        *("chunk line without an end", PACKAGE, one_chunk_line_without_end, AWAY),
        most_bytes=2 << 20,
    ),
    _fault("compressed", PACKAGE, compressed, NONSENSE),
    _fault("said to be compressed", PACKAGE, said_to_be_compressed, NONSENSE),
    _fault("wrong bytes of the right length", PACKAGE, wrong_bytes, "trust.wrong_hash"),
    _fault("silence", PACKAGE, silence, AWAY, silent=True),
    _fault("silence after the headers", PACKAGE, silence_after_the_headers, AWAY, silent=True),
    _fault("silence in the middle", PACKAGE, silence_in_the_middle, AWAY, silent=True),
    _fault("drip", PACKAGE, drip, AWAY, slow=True),
    _fault("drip of headers", PACKAGE, drip_of_headers, AWAY, slow=True),
    _fault("garbage", PACKAGE, garbage, AWAY),
    _fault("another protocol", PACKAGE, another_protocol, AWAY),
    _fault("no status line", PACKAGE, no_status_line, AWAY),
    _fault("status of no number", PACKAGE, status_of_no_number, AWAY),
    _fault("headers without an end", PACKAGE, headers_without_end, AWAY, most_bytes=2 << 20),
    _fault("a header without an end", PACKAGE, one_header_without_end, AWAY, most_bytes=2 << 20),
    _fault("broken header", PACKAGE, broken_header, AWAY),
    _fault(
        *("interim answers without an end", PACKAGE, interim_answers_without_end, AWAY),
        most_bytes=2 << 20,
    ),
    _fault("early hints", PACKAGE, early_hints),
    _fault("switching protocols", PACKAGE, switching_protocols, AWAY),
    _fault("HTTP/1.0", PACKAGE, old_http),
    _fault("two answers at once", PACKAGE, two_answers_at_once),
    _fault("416", PACKAGE, problem("416 No", "request.bad_range"), "server.refused"),
    _fault("404", PACKAGE, problem("404 No", "device.package_not_found"), "server.refused"),
    _fault("404 of somebody else", PACKAGE, status("404 Not Found", HTML), STRANGER),
    _fault("401", PACKAGE, problem("401 No", "device.unauthorized"), "agent.token_refused"),
    _fault("403", PACKAGE, problem("403 No", "device.forbidden"), "server.refused"),
    _fault("portal with a login page", PACKAGE, status("200 OK", HTML), STRANGER),
    _fault("204", PACKAGE, status("204 No Content"), STRANGER),
    _fault("304 for a package", PACKAGE, status("304 Not Modified"), STRANGER),
    _fault("500 storm", PACKAGE, status("500 No"), AWAY, pause=(0.5, 601)),
    _fault("502 storm", PACKAGE, status("502 No", HTML), AWAY, pause=(0.5, 601)),
    _fault("503 in 120 s", PACKAGE, status("503 No", Retry_After="120"), AWAY, pause=(119, 601)),
    _fault(
        *("503 until a date", PACKAGE, status("503 No", Retry_After=LATER, Date=DATE), AWAY),
        pause=(299, 601),
    ),
    _fault(
        *("503 for ever", PACKAGE, status("503 No", Retry_After="9" * 400), AWAY),
        pause=(0.5, 86401),
    ),
    _fault("503 in the past", PACKAGE, status("503 No", Retry_After="-5"), AWAY, pause=(0.5, 601)),
    _fault("429", PACKAGE, status("429 No", Retry_After="60"), AWAY, pause=(59, 601)),
    _fault("redirect to itself", PACKAGE, redirect_to_itself, STRANGER),
    _fault("redirect elsewhere", PACKAGE, status("302 Found", Location=ELSEWHERE), STRANGER),
)

MESSAGE_FAULTS = (
    _fault("poll: cut", DESIRED, hang_up_without_an_answer, AWAY),
    _fault("poll: reset", DESIRED, reset_at(0), AWAY),
    _fault("poll: silence", DESIRED, silence, AWAY, silent=True),
    _fault("poll: drip", DESIRED, drip_of_headers, AWAY, slow=True),
    _fault("poll: 500 storm", DESIRED, status("500 No"), AWAY),
    _fault("poll: half a message", DESIRED, half_a_message, STRANGER),
    _fault("poll: nothing", DESIRED, message(b""), STRANGER),
    _fault("poll: a login page", DESIRED, message(HTML), STRANGER),
    _fault("poll: another shape", DESIRED, message(b'{"models": {"digits": 2}}'), STRANGER),
    _fault("poll: wrong types", DESIRED, message(_desired(version="two")), STRANGER),
    _fault("poll: path out of the folder", DESIRED, message(_desired(model="../x")), STRANGER),
    _fault("poll: deep nesting", DESIRED, message(b"[" * 100_000), STRANGER, most_bytes=1 << 20),
    _fault(
        "poll: message without an end", DESIRED, message_without_end, STRANGER, most_bytes=8 << 20
    ),
    _fault(
        "poll: compressed",
        DESIRED,
        message(gzip.compress(_desired()), Content_Encoding="gzip"),
        STRANGER,
    ),
    _fault("poll: 304 without a question", DESIRED, not_modified, STRANGER),
    _fault("poll: 301", DESIRED, status("301 Moved", Location=ELSEWHERE), STRANGER),
    _fault("poll: 401", DESIRED, problem("401 No", "device.unauthorized"), "agent.token_refused"),
    _fault(
        "poll: interim answers without an end",
        DESIRED,
        interim_answers_without_end,
        AWAY,
        most_bytes=2 << 20,
    ),
    _fault("report: taken, not answered", REPORTS, taken_but_not_answered, AWAY),
    _fault("report: 503", REPORTS, status("503 No", Retry_After="30"), AWAY),
    _fault("report: a login page", REPORTS, status("403 Forbidden", HTML), STRANGER),
    _fault("report: silence", REPORTS, silence, AWAY, silent=True),
    _fault(
        "enrolment: half a message", ENROL, message(b'{"device_id": "x"', "201 Created"), STRANGER
    ),
    _fault("enrolment: wrong types", ENROL, message(b'{"device_id": 5}', "201 Created"), STRANGER),
    _fault(
        "enrolment: refused",
        ENROL,
        problem("401 No", "device.bad_enrolment_token"),
        "server.refused",
    ),
    _fault("enrolment: reset", ENROL, reset_at(0), AWAY),
)
