"""`docs/operations.md` lists every metric as the code declares it, and the limits as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import Metric
from sqlalchemy import create_engine

from server.api import bodies, gate
from server.db import migrate
from server.metrics import REGISTRY
from server.service.fleet import Fleet
from server.service.process import Process
from server.settings import load_settings

ROW = re.compile(r"^\| `weft_\w+` \|.*\|$", re.MULTILINE)
NAME = re.compile(r"\bweft_\w+")
#: What Prometheus adds to the names of histograms.
PARTS = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    url = f"sqlite:///{tmp_path_factory.mktemp('metrics') / 'weft.db'}"
    migrate(url)
    engine = create_engine(url)
    collectors = (REGISTRY, Process(engine, gate.Gate(load_settings())), Fleet(engine))
    found = [family for collector in collectors for family in collector.collect()]
    engine.dispose()
    return [family for family in found if family.name.startswith("weft_")]


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    return (checkout / "docs" / "operations.md").read_text(encoding="utf-8")


def exposed(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def test_page_lists_exactly_the_metrics(families: Iterable[Metric], page: str) -> None:
    expected = [f"| `{exposed(f)}` | {f.type} | {f.documentation} |" for f in families]
    assert ROW.findall(page) == expected, "\n".join(expected)


def test_names_follow_the_conventions(families: Iterable[Metric]) -> None:
    for family in families:
        assert re.fullmatch(r"weft(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_page_gives_the_limits_of_the_code(page: str) -> None:
    for limit in (
        f"{gate.MAX_HEAD_BYTES // 1024} KiB",
        f"{gate.MAX_QUERY_BYTES // 1024} KiB",
        f"{gate.MAX_PARAMETERS} parameters",
        f"{bodies.MAX_DEPTH} deep",
    ):
        assert limit in page, limit


def test_examples_use_metrics_that_exist(
    families: Iterable[Metric], page: str, checkout: Path
) -> None:
    known = {exposed(family) for family in families}
    dashboard = (checkout / "docs" / "grafana" / "weft.json").read_text(encoding="utf-8")
    asked = [t["expr"] for p in json.loads(dashboard)["panels"] for t in p.get("targets", [])]
    assert len(asked) >= 10
    for text in (page, *asked):
        assert {PARTS.sub("", name) for name in NAME.findall(text)} <= known, text[:200]
