"""Figures of a device in the text format of Prometheus, for node_exporter's textfile collector.

Pure. Counters begin at zero with the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from edge_agent.agent.live import Live

Samples: TypeAlias = Sequence[tuple[Mapping[str, Any], float | None]]
#: Name, type, what it is, and the values by their labels.
Family: TypeAlias = tuple[str, str, str, Samples]


def rendered(status: Mapping[str, Any], live: Live) -> str:
    """The figures; a sample without a value is left out."""
    families: list[Family] = [
        ("info", "gauge", "The agent; always 1.", [(_who(status), 1)]),
        ("start_time_seconds", "gauge", "Unix time of its start.", [({}, live.started_at)]),
        ("last_poll_time_seconds", "gauge", "Unix time of its last poll.", [({}, live.polled_at)]),
        (
            "last_answer_time_seconds",
            "gauge",
            "Unix time of the last poll that the server answered.",
            [({}, live.answered_at)],
        ),
        ("polls_total", "counter", "Polls.", [({}, live.polls)]),
        ("answers_total", "counter", "Polls that the server answered.", [({}, live.answers)]),
        ("held", "gauge", "Whether the server offers nothing.", [({}, int(bool(live.held)))]),
        (
            "traffic_bytes_total",
            "counter",
            "Bytes sent and received, headers included, TLS not.",
            [({}, live.traffic_bytes)],
        ),
        (
            "pending_reports",
            "gauge",
            "Reports that the server has not answered.",
            [({}, status["pending_reports"])],
        ),
        *_of_models(status["models"], live),
    ]
    return "".join(_family(*family) for family in families)


def _who(status: Mapping[str, Any]) -> dict[str, Any]:
    told = {"version": status["agent"]["version"], "device_id": status["device_id"] or ""}
    return told | {"link": status["link"]["name"] if status["link"] else ""}


def _of_models(models: Mapping[str, Mapping[str, Any]], live: Live) -> list[Family]:
    def each(field: str) -> Samples:
        return [({"model": name}, model[field]) for name, model in models.items()]

    states = [({"model": name, "state": m["state"]}, 1) for name, m in models.items()]
    ended = [
        ({"model": name, "state": state}, count)
        for name, model in live.models.items()
        for state, count in sorted(model.ended.items())
    ]
    held = [({"model": name}, int(bool(model.held))) for name, model in live.models.items()]
    return [
        (
            "model_version",
            "gauge",
            "The version in use, once the server named it.",
            each("version"),
        ),
        ("model_target_version", "gauge", "The version under way.", each("target_version")),
        ("model_state", "gauge", "The state of the update; always 1.", states),
        ("model_attempts", "gauge", "Starts of the update without progress.", each("attempts")),
        ("model_package_bytes", "gauge", "Bytes of the packages.", each("package_bytes")),
        ("model_received_bytes", "gauge", "Bytes of them that are here.", each("received_bytes")),
        (
            "model_metadata_expiry_time_seconds",
            "gauge",
            "Unix time from which on nothing new is installed, unless metadata are renewed.",
            [({"model": name}, _time(m["metadata_expire_at"])) for name, m in models.items()],
        ),
        ("model_held", "gauge", "Whether the server lets the update wait.", held),
        ("updates_total", "counter", "Updates by the state that was reported.", ended),
    ]


def _time(moment: str | None) -> float | None:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() if moment else None


def _family(name: str, kind: str, text: str, samples: Samples) -> str:
    lines = [
        f"weft_agent_{name}{_labels(labels)} {float(value):.17g}\n"
        for labels, value in samples
        if value is not None
    ]
    head = f"# HELP weft_agent_{name} {text}\n# TYPE weft_agent_{name} {kind}\n"
    return head + "".join(lines) if lines else ""


def _labels(labels: Mapping[str, Any]) -> str:
    told = ",".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
