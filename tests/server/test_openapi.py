"""The document that describes the API: complete, and true to the tables of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from server import errors as server_errors
from server.app import create_app
from server.settings import load_settings
from shared import errors as shared_errors
from shared import wire
from shared.errors import WeftError

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(load_settings())


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, found in document["paths"].items()
        for method, operation in found.items()
    }


def problems(operation: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The answers of an operation that are no success: status and content."""
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            yield int(status), response["content"][PROBLEM]


def test_there_is_one_problem_and_it_is_the_wires(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert [name for name in schemas if "Problem" in name or "HTTPValidation" in name] == [
        "Problem"
    ]
    assert set(schemas["Problem"]["properties"]) == set(wire.Problem.model_fields)


def test_every_operation_says_what_it_does_and_how_it_refuses(
    operations: dict[str, dict[str, Any]],
) -> None:
    assert len(operations) > 25
    for where, operation in operations.items():
        assert operation.get("summary"), where
        assert operation.get("description"), where
        assert operation.get("tags"), where
        found = list(problems(operation))
        assert any(status < 500 for status, _ in found), where
        for status, content in found:
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, where
            assert content["examples"], where
            assert all(e["value"]["status"] == status for e in content["examples"].values()), where
        if " /api/v1" in where:
            assert operation.get("security"), where


def test_every_code_that_is_promised_exists(operations: dict[str, dict[str, Any]]) -> None:
    classes = [
        found
        for module in (shared_errors, server_errors)
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, WeftError)
    ]
    known = {f"{c.area}.{code}": todo for c in classes for code, todo in c.codes.items()}
    for where, operation in operations.items():
        for _, content in problems(operation):
            for code, example in content["examples"].items():
                assert known[code] == example["value"]["todo"], where


def test_every_body_has_an_example(
    document: dict[str, Any], operations: dict[str, dict[str, Any]]
) -> None:
    schemas = document["components"]["schemas"]
    bodies = {
        where: media
        for where, operation in operations.items()
        for media in operation.get("requestBody", {}).get("content", {}).values()
    }
    assert len(bodies) >= 8
    for where, media in bodies.items():
        name = media["schema"].get("$ref", "").rpartition("/")[2]
        for example in media.get("examples", {}).values():
            getattr(wire, name).model_validate(example["value"])
        assert {"example", "examples"} & media.keys() or schemas[name].get("examples"), where
    shown = [n for n in schemas if n.endswith(("In", "Out")) and n not in {"HeldOut", "TensorOut"}]
    assert [name for name in shown if "examples" not in schemas[name]] == []
