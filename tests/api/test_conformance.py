"""The API keeps the word of its OpenAPI document, whatever is sent: schemathesis over every route.

Seeded: each run sends the same requests. They go to a real server, with something in its lists.
"""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

#: All requests come from one address, and faster than anybody's should.
NO_LIMITS = {"rate_others": 0, "rate_devices": 0, "rate_enrolments": 0}

#: Requests of each kind (sound, unsound) that each operation gets.
EXAMPLES = 10

#: The parts of the API, so that a failure names one and several processes can share the work.
PARTS = (
    *("models", "datasets", "refinements", "packages", "rollouts", "devices", "groups"),
    *("webhooks", "events", "others"),
)


def part_of(path: str) -> str:
    name = path.removeprefix("/api/v1/").partition("/")[0]
    return name if name in PARTS else "others"


def streams(operation: Any) -> bool:
    """Whether the answer never ends: server-sent events."""
    answers = operation.definition.raw["responses"].values()
    return any("text/event-stream" in answer.get("content", {}) for answer in answers)


@pytest.mark.parametrize("part", PARTS)
def test_every_answer_is_one_that_is_documented(serve: Any, weights_file: Any, part: str) -> None:
    server = serve(**NO_LIMITS)
    server.client.post("/api/v1/models", json={"name": "m"}).raise_for_status()
    headers = {"Content-Type": "application/octet-stream"}
    content = weights_file(0).read_bytes()
    server.client.post("/api/v1/models/m/versions", content=content, headers=headers)
    schema = schemathesis.openapi.from_dict(server.app.openapi())
    schema.config.update(base_url=server.url)
    found = [result.ok() for result in schema.get_all_operations()]
    chosen = [o for o in found if part_of(o.path) == part and not streams(o)]
    assert chosen
    broken = dict[str, str]()
    with requests.Session() as session:
        for operation in chosen:
            for mode in GenerationMode:
                broken |= _try(operation, mode, session)
    assert not broken, "\n".join(f"{where}:\n{what}" for where, what in broken.items())


def _try(operation: Any, mode: GenerationMode, session: requests.Session) -> dict[str, str]:
    """Send requests made up from the document; what was answered wrongly."""

    @hypothesis.settings(max_examples=EXAMPLES, phases=[hypothesis.Phase.generate])
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.validate_response(case.call(session=session, timeout=30), checks=CHECKS)

    try:
        check()
    except hypothesis.errors.Unsatisfiable:
        return {}  # nothing unsound can be sent where nothing is taken
    except (Exception, FailureGroup) as error:
        parts = getattr(error, "exceptions", [error])
        return {f"{operation.label} ({mode.value})": "\n".join(map(str, parts))[:2000]}
    return {}
