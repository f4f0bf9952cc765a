"""What an operator can set, and what is refused."""

from __future__ import annotations

import pytest

from server.settings import load_settings
from shared.errors import BadConfig


def test_defaults_are_local(monkeypatch):
    settings = load_settings()
    assert settings.is_loopback
    assert settings.is_sqlite
    assert settings.url.endswith("var/server/weft.db")


def test_the_environment_counts_and_lists_are_split(monkeypatch):
    monkeypatch.setenv("WEFT_PORT", "9000")
    monkeypatch.setenv("WEFT_DATASET_ROOTS", "/data, s3://bucket/images")
    monkeypatch.setenv("WEFT_ENROLMENT_MODELS", "digits,letters")
    settings = load_settings(poll_interval=5)
    assert settings.port == 9000
    assert settings.dataset_roots == ("/data", "s3://bucket/images")
    assert settings.enrolment_models == ("digits", "letters")
    assert settings.poll_interval == 5


def test_only_this_machine_is_served_without_keys():
    with pytest.raises(BadConfig, match="WEFT_REQUIRE_KEYS=false is not allowed"):
        load_settings(host="0.0.0.0", require_keys=False)
    assert load_settings(host="0.0.0.0").require_keys
    with pytest.raises(BadConfig, match="without a meaning"):
        load_settings(require_keys=False, admin_key="a-real-secret")


@pytest.mark.parametrize("name", ["admin_key", "enrolment_token"])
def test_a_placeholder_is_refused_on_a_public_address(name):
    secrets = {"admin_key": "good-enough", "enrolment_token": "good-enough"} | {name: "changeme"}
    with pytest.raises(BadConfig, match="placeholder"):
        load_settings(host="0.0.0.0", **secrets)
    assert load_settings(**secrets).is_loopback


@pytest.mark.parametrize("name", ["admin_key", "enrolment_token"])
@pytest.mark.parametrize("value", ["", "        ", "aaaaaaaaaaaaaaaa", "Change-Me", "12345678"])
def test_no_secret_that_anybody_guesses_opens_a_public_address(name, value):
    with pytest.raises(BadConfig, match=r"empty|placeholder|WEFT_ENROLMENT_TOKEN"):
        load_settings(host="0.0.0.0", **{name: value})


def test_a_placeholder_in_the_database_url_is_refused_on_a_public_address():
    with pytest.raises(BadConfig, match="WEFT_DATABASE_URL is a placeholder"):
        load_settings(host="0.0.0.0", database_url="postgresql://weft:postgres@db/weft")


def test_the_admin_key_may_lie_in_a_file(tmp_path):
    path = tmp_path / "key"
    with pytest.raises(BadConfig, match="WEFT_ADMIN_KEY_FILE"):
        load_settings(admin_key_file=path)
    path.write_text("a-real-secret\n")
    assert load_settings(admin_key_file=path).admin_key.get_secret_value() == "a-real-secret"
    with pytest.raises(BadConfig, match="not both"):
        load_settings(admin_key_file=path, admin_key="another")
    path.write_text("\n")
    with pytest.raises(BadConfig, match="is empty"):
        load_settings(admin_key_file=path)


def test_proxies_are_addresses_or_networks():
    assert load_settings(trusted_proxies="10.0.0.0/8, ::1").trusted_proxies == ("10.0.0.0/8", "::1")
    for value in ("*", "proxy.example"):
        with pytest.raises(BadConfig, match="WEFT_TRUSTED_PROXIES"):
            load_settings(trusted_proxies=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "high"),
        ("poll_interval", "0"),
        ("enrolment_token", "short"),
        ("enrolment_token", "with a space"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"WEFT_{name.upper()}", value)
    with pytest.raises(BadConfig, match=f"WEFT_{name.upper()}"):
        load_settings()
