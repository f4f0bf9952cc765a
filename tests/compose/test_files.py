"""docker-compose.yml and Dockerfile say only what the programs, and each other, understand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from edge_agent.config import load_config
from server.cli import run
from server.cli.commands import app
from server.jobs.settings import JobSettings
from server.settings import Settings, load_settings
from tests.compose.conftest import SECRETS
from tests.compose.files import NotSet, Stage, load_compose

WEFT = ("server", "worker")
AGENTS = ("agent-1", "agent-2")
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+[\w.-]*")


def test_the_schema_of_the_specification_holds(checkout: Path) -> None:
    # The schema is the Compose Specification's own (Apache License 2.0).
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    document = yaml.safe_load((checkout / "docker-compose.yml").read_text())
    found = list(jsonschema_rs.validator_for(schema).iter_errors(document))
    assert [(error.instance_path, error.message) for error in found] == []


def test_the_services_are_all_there(compose: Any) -> None:
    assert set(compose["services"]) == {"postgres", "s3", *WEFT, "root", *AGENTS}


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_is_asked_for(checkout: Path, name: str) -> None:
    without = {key: value for key, value in SECRETS.items() if key != name}
    with pytest.raises(NotSet, match=name):
        load_compose(checkout / "docker-compose.yml", without)
    assert f"\n{name}=\n" in (checkout / ".env.example").read_text()


def test_images_are_pinned(compose: Any, stages: dict[str, Stage]) -> None:
    images = [s["image"] for s in compose["services"].values() if "image" in s]
    images += [stage.base for stage in stages.values()]
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_what_is_built_is_a_stage(compose: Any, stages: dict[str, Stage]) -> None:
    built = {n: s["build"]["target"] for n, s in compose["services"].items() if "build" in s}
    assert built == {
        "server": "server", "worker": "server", "root": "server",
        "agent-1": "agent", "agent-2": "agent",
    }  # fmt: skip
    assert set(built.values()) <= set(stages)


def test_services_wait_for_what_can_become_healthy(compose: Any, stages: Any) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, name
            if other == "root":  # which ends
                assert how == {"condition": "service_completed_successfully"}
                assert "restart" not in services[other]
                continue
            assert how == {"condition": "service_healthy"}
            checked = services[other].get("healthcheck", {})
            built = services[other].get("build", {}).get("target")
            assert "test" in checked or stages[built].last("HEALTHCHECK"), other


def test_volumes_are_declared_and_nobody_shares_a_state(compose: Any) -> None:
    mounts = [m for s in compose["services"].values() for m in s.get("volumes", [])]
    named = [mount.split(":") for mount in mounts if not mount.startswith((".", "/"))]
    written = [name for name, _, *options in named if "ro" not in options]
    assert sorted(written) == sorted(compose["volumes"])
    assert {name for name, *_ in named} == set(written)
    assert all(mount.endswith(":ro") for mount in mounts if mount.startswith((".", "/")))


def test_agents_get_the_public_root_and_no_key(compose: Any, stages: dict[str, Stage]) -> None:
    services = compose["services"]
    words, mounts = services["root"]["command"], services["root"]["volumes"]
    assert words == ["cp", "/data/keys/1.root.json", "/root-of-trust/"]
    assert mounts == ["server:/data:ro", "root-of-trust:/root-of-trust"]
    assert services["root"]["network_mode"] == "none"
    for name in AGENTS:
        mounted = [mount.split(":") for mount in services[name]["volumes"]]
        assert mounted == [[name, "/data"], ["root-of-trust", "/root-of-trust", "ro"]]
        assert _environment(compose, stages, name)["WEFT_AGENT_ROOT"].startswith("/root-of-trust/")
    made = [text for instruction, text in stages["server"].lines if instruction == "RUN"]
    assert any("-o weft -m 0755 /root-of-trust" in text for text in made), "else root's own"


def test_ports_are_open_to_this_machine_only(compose: Any) -> None:
    ports = [port for s in compose["services"].values() for port in s.get("ports", [])]
    assert ports == ["127.0.0.1:8300:8300"]


def _environment(compose: Any, stages: dict[str, Stage], name: str) -> dict[str, str]:
    service = compose["services"][name]
    given = stages[service["build"]["target"]].environment() | service["environment"]
    assert all(isinstance(value, str) for value in given.values())
    return {key: value for key, value in given.items() if key.startswith("WEFT_")}


@pytest.mark.parametrize("name", WEFT)
def test_the_servers_settings_are_known_and_hold(
    compose: Any, stages: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _environment(compose, stages, name)
    known = {f"WEFT_{field.upper()}" for field in Settings.model_fields}
    known |= {f"WEFT_JOBS_{field.upper()}" for field in JobSettings.model_fields}
    assert set(given) <= known
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    assert (settings.is_sqlite, settings.blobs) == (False, "s3://weft/blobs")
    assert JobSettings().at_once == (1 if name == "worker" else 0)


@pytest.mark.parametrize("name", AGENTS)
def test_the_agents_settings_are_known_and_hold(compose: Any, stages: Any, name: str) -> None:
    given = _environment(compose, stages, name)
    config = load_config(environment=given)  # which refuses what it does not know
    assert (config.name, set(config.models)) == (name, {"demo"})
    assert config.state_dir == Path("/data")


def _commands(compose: Any, stages: dict[str, Stage]) -> list[list[str]]:
    found = [stage.command("CMD") for n, stage in stages.items() if n in ("server", "agent")]
    found += [stages["agent"].command("HEALTHCHECK")]
    services = compose["services"]
    return found + [services[n]["command"] for n in WEFT if "command" in services[n]]


def test_commands_are_ones_that_the_programs_know(
    compose: Any, stages: dict[str, Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    import edge_agent.cli

    commands = _commands(compose, stages)
    assert {shlex.join(words[:2]) for words in commands} == {
        "weft serve", "weft worker", "edge-agent run", "edge-agent status",
    }  # fmt: skip
    for program, *words in commands:
        arguments = [*words, "--help"]
        status = run(app, arguments) if program == "weft" else edge_agent.cli.main(arguments)
        assert status == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["server", "agent"])
def test_images_run_as_nobody_special_and_say_how_they_are(
    stages: dict[str, Stage], name: str
) -> None:
    stage = stages[name]
    assert int(stage.last("USER") or 0) > 1000
    assert stage.last("VOLUME") == "/data"
    assert stage.command("HEALTHCHECK")
    runs = [text for instruction, text in stage.lines if instruction == "RUN"]
    assert not any("pip" in text for text in runs), "built in another stage"


def test_the_agents_image_has_no_torch(stages: dict[str, Stage]) -> None:
    runs = [text for instruction, text in stages["agent-build"].lines if instruction == "RUN"]
    assert runs[-1].endswith("install ${PIP_ARGS} .")


def test_what_is_copied_is_there_and_not_ignored(checkout: Path, stages: Any) -> None:
    lines = (checkout / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    for instruction, text in stages["source"].lines:
        if instruction == "COPY":
            for name in text.split()[:-1]:
                assert (checkout / name).exists()
                assert f"!{name}" in lines
