"""A route without FastAPI's machinery between request and function, documented like any other.

What FastAPI does for a route (its dependencies, exit stacks, response model) takes more than twice
as long as all else of an idle poll together. A direct route's function takes the request and gives
the response, as in Starlette; its parameters and its security stand in `openapi_extra`. Errors of
ours become problems as everywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import request_response


class DirectRoute(APIRoute):
    """See the module's docstring."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        super().__init__(path, endpoint, **given)
        self.app = request_response(endpoint)


def add_direct(
    app: FastAPI, path: str, endpoint: Callable[[Request], Awaitable[Response]], **given: Any
) -> None:
    """Add a direct GET route; routes are tried in their order, so it is added before others.

    It belongs to the app itself: a route of an included router would be built anew by FastAPI.
    """
    app.router.add_api_route(
        path, endpoint, methods=["GET"], route_class_override=DirectRoute, **given
    )
