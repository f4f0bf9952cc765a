"""Which role each route needs: the one table of it, which `docs/security.md` shows.

A route that is not in it answers nobody. Reading is a viewer's; changing models, fleets and
rollouts an operator's; keys, tokens, releases and webhooks, which reach beyond, an admin's.

A key that is held to models or groups is let through only where that limits what the route can do:
a key held to models alone cannot tag a device, which may run other models too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from server.auth.roles import Kind, Role


@dataclass(frozen=True)
class Need:
    """What a route asks for."""

    role: Role
    limited_by: frozenset[Kind]
    """A key that is held to something must be held to one of these; empty: to nothing."""


VIEW: Final = Need("viewer", frozenset({"models", "groups"}))
VIEW_ALL: Final = Need("viewer", frozenset())
CHANGE: Final = Need("operator", frozenset({"models", "groups"}))
CHANGE_MODEL: Final = Need("operator", frozenset({"models"}))
CHANGE_DEVICE: Final = Need("operator", frozenset({"groups"}))
CHANGE_FLEET: Final = Need("operator", frozenset())
ADMIN: Final = Need("admin", frozenset())

_API = "/api/v1"
_VERSION = f"{_API}/models/{{model}}/versions/{{number}}"
_ROLLOUT = f"{_API}/rollouts/{{rollout_id}}"
_DEVICE = f"{_API}/devices/{{device_id}}"
_WEBHOOK = f"{_API}/webhooks/{{webhook_id}}"

NEEDS: Final[dict[str, Need]] = {
    f"GET {_API}/models": VIEW,
    f"POST {_API}/models": CHANGE_MODEL,
    f"GET {_API}/models/{{model}}": VIEW,
    f"GET {_API}/models/{{model}}/events": VIEW,
    f"GET {_API}/models/{{model}}/versions": VIEW,
    f"POST {_API}/models/{{model}}/versions": CHANGE_MODEL,
    f"GET {_VERSION}": VIEW,
    f"GET {_VERSION}/weights": VIEW,
    f"GET {_VERSION}/lineage": VIEW,
    f"POST {_VERSION}/release": ADMIN,
    f"POST {_VERSION}/withdraw": ADMIN,
    f"GET {_API}/models/{{model}}/targets": VIEW,
    f"GET {_API}/trust": VIEW_ALL,
    f"GET {_API}/trust/roots": VIEW_ALL,
    f"POST {_API}/trust/publications": ADMIN,
    f"GET {_API}/datasets": VIEW,
    f"POST {_API}/datasets": CHANGE_MODEL,
    f"GET {_API}/datasets/{{dataset}}": VIEW,
    f"GET {_API}/refinements": VIEW,
    f"POST {_API}/refinements": CHANGE_MODEL,
    f"GET {_API}/refinements/{{id}}": VIEW,
    f"POST {_API}/refinements/{{id}}/cancel": CHANGE_MODEL,
    f"GET {_API}/refinements/{{id}}/events": VIEW,
    f"GET {_API}/refinements/{{id}}/curve": VIEW,
    f"GET {_API}/refinements/{{id}}/curve.svg": VIEW,
    f"GET {_API}/packages": VIEW,
    f"POST {_API}/packages": CHANGE_MODEL,
    f"GET {_API}/packages/{{id}}": VIEW,
    f"GET {_API}/packages/{{id}}/content": VIEW,
    f"POST {_API}/bundles": CHANGE,
    f"GET {_API}/rollouts": VIEW,
    f"POST {_API}/rollouts": CHANGE,
    f"GET {_ROLLOUT}": VIEW,
    f"GET {_ROLLOUT}/assignments": VIEW,
    f"POST {_ROLLOUT}/start": CHANGE,
    f"POST {_ROLLOUT}/pause": CHANGE,
    f"POST {_ROLLOUT}/resume": CHANGE,
    f"POST {_ROLLOUT}/abort": CHANGE,
    f"POST {_ROLLOUT}/retry": CHANGE,
    f"POST {_ROLLOUT}/roll_back": CHANGE,
    f"GET {_API}/devices": VIEW,
    f"POST {_API}/devices/tags": CHANGE_DEVICE,
    f"GET {_DEVICE}": VIEW,
    f"PATCH {_DEVICE}": CHANGE_DEVICE,
    f"GET {_DEVICE}/events": VIEW,
    f"PUT {_DEVICE}/tags/{{tag}}": CHANGE_DEVICE,
    f"DELETE {_DEVICE}/tags/{{tag}}": CHANGE_DEVICE,
    f"POST {_DEVICE}/accept": CHANGE_FLEET,
    f"PUT {_DEVICE}/allowed_models": CHANGE_FLEET,
    f"POST {_DEVICE}/decommission": CHANGE_FLEET,
    f"POST {_DEVICE}/reenrol": ADMIN,
    f"GET {_DEVICE}/reports": VIEW,
    f"GET {_API}/enrolment_tokens": ADMIN,
    f"POST {_API}/enrolment_tokens": ADMIN,
    f"GET {_API}/enrolment_tokens/{{token_id}}": ADMIN,
    f"POST {_API}/enrolment_tokens/{{token_id}}/revoke": ADMIN,
    f"GET {_API}/preauthorisations": VIEW_ALL,
    f"POST {_API}/preauthorisations": CHANGE_FLEET,
    f"DELETE {_API}/preauthorisations/{{row_id}}": CHANGE_FLEET,
    f"GET {_API}/groups": VIEW,
    f"POST {_API}/groups": CHANGE_FLEET,
    f"GET {_API}/groups/{{name}}": VIEW,
    f"PATCH {_API}/groups/{{name}}": CHANGE_FLEET,
    f"DELETE {_API}/groups/{{name}}": CHANGE_FLEET,
    f"GET {_API}/groups/{{name}}/devices": VIEW,
    f"GET {_API}/events": VIEW,
    f"GET {_API}/events/export": VIEW,
    f"GET {_API}/events/follow": VIEW,
    f"GET {_API}/lineage": VIEW,
    f"GET {_API}/webhooks": ADMIN,
    f"POST {_API}/webhooks": ADMIN,
    f"GET {_WEBHOOK}": ADMIN,
    f"PATCH {_WEBHOOK}": ADMIN,
    f"DELETE {_WEBHOOK}": ADMIN,
    f"POST {_WEBHOOK}/test": ADMIN,
    f"GET {_WEBHOOK}/deliveries": ADMIN,
    f"POST {_WEBHOOK}/deliveries/{{delivery_id}}/redeliver": ADMIN,
    f"GET {_API}/access/me": VIEW,
    f"GET {_API}/access/keys": ADMIN,
    f"POST {_API}/access/keys": ADMIN,
    f"GET {_API}/access/keys/{{name}}": ADMIN,
    f"POST {_API}/access/keys/{{name}}/revoke": ADMIN,
    "GET /metrics": VIEW_ALL,
}
