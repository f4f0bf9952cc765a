"""The ways in which a server, or what is between it and the agent, misbehaves: one table.

`codes` are those that the agent must come to while the fault lasts; none: it must succeed.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

from tests.faults.misbehaving import Act
from tests.faults.server_acts import (
    after_a_first_part,
    announce,
    announce_as,
    another_protocol,
    body_without_end,
    broken_header,
    chunks,
    chunks_cut,
    chunks_of_no_size,
    chunks_without_end,
    close_between_requests,
    compressed,
    cut_at,
    cut_before_the_last_byte,
    desired,
    drip,
    drip_of_headers,
    early_hints,
    garbage,
    half_a_message,
    hang_up_without_an_answer,
    headers_without_end,
    interim_answers_without_end,
    message,
    message_without_end,
    more_than_announced,
    no_length,
    no_length_and_cut,
    no_status_line,
    not_modified,
    old_http,
    one_chunk_line_without_end,
    one_header_without_end,
    part_beyond_the_end,
    part_for_no_range,
    part_from,
    part_of_another_size,
    part_with_range,
    problem,
    redirect_to_itself,
    reset_at,
    said_to_be_compressed,
    several_parts,
    shorter_parts,
    silence,
    silence_after_the_headers,
    silence_in_the_middle,
    status,
    status_of_no_number,
    switching_protocols,
    taken_but_not_answered,
    two_answers_at_once,
    whole_for_a_part,
    whole_for_a_part_and_cut,
    with_etag,
    wrong_bytes,
)

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
    _fault("200 for a part", PACKAGE, after_a_first_part(whole_for_a_part), AWAY),
    _fault("200 for a part, cut", PACKAGE, after_a_first_part(whole_for_a_part_and_cut), AWAY),
    _fault("206 for no range", PACKAGE, part_for_no_range),
    _fault("206 with less than was asked for", PACKAGE, shorter_parts),
    _fault("part from too late", PACKAGE, after_a_first_part(part_from(5)), AWAY, NONSENSE),
    _fault("part from too early", PACKAGE, after_a_first_part(part_from(-5)), AWAY, NONSENSE),
    _fault("part beyond the end", PACKAGE, part_beyond_the_end, NONSENSE),
    _fault("part of another size", PACKAGE, part_of_another_size, NONSENSE),
    _fault("part without a range", PACKAGE, part_with_range(None), NONSENSE),
    _fault("part with a nonsense range", PACKAGE, part_with_range("bytes soon"), NONSENSE),
    _fault("part with huge numbers", PACKAGE, part_with_range(f"bytes 0-1/{'9' * 99}"), NONSENSE),
    _fault("several parts", PACKAGE, several_parts, NONSENSE),
    _fault(
        "ETag changed on the way", PACKAGE, after_a_first_part(with_etag('"new"')), AWAY, STRANGER
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
    _fault("poll: wrong types", DESIRED, message(desired(version="two")), STRANGER),
    _fault("poll: path out of the folder", DESIRED, message(desired(model="../x")), STRANGER),
    _fault("poll: deep nesting", DESIRED, message(b"[" * 100_000), STRANGER, most_bytes=1 << 20),
    _fault(
        "poll: message without an end", DESIRED, message_without_end, STRANGER, most_bytes=8 << 20
    ),
    _fault(
        "poll: compressed",
        DESIRED,
        message(gzip.compress(desired()), Content_Encoding="gzip"),
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
