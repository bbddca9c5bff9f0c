"""The broker's configuration as text."""

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from broker_bridge.mosquitto_config import (
    BRIDGE_USER,
    JANITOR_USER,
    PASSWORD_ITERATIONS,
    PROBE_USER,
    BrokerConfig,
    NotForProductionError,
    UnfitForConfigurationError,
    configuration,
    password_file,
    plugin_state,
    service_acl,
)
from tests.vectors import make_mosquitto

CONFIG = make_mosquitto.CONFIG


def listeners(text):
    """Split a configuration into its general part and one part a listener."""
    return text.split("\nlistener ")


@pytest.mark.parametrize("name", make_mosquitto.files())
def test_what_the_broker_is_told_is_what_somebody_has_read(name):
    golden = (make_mosquitto.HERE / name).read_text()
    assert make_mosquitto.files()[name] == golden, (
        "run `python tests/vectors/make_mosquitto.py`, read the diff"
    )


def test_without_testing_there_is_no_listener_but_mutual_tls_and_loopback():
    _, *parts = listeners(configuration(CONFIG, "gnomon"))
    device, service = parts
    assert "require_certificate true" in device
    assert service.startswith(f"{CONFIG.service_port} 127.0.0.1\n")
    assert "allow_anonymous true" not in "".join(parts)


def test_a_listener_without_tls_is_refused_outside_a_test():
    with pytest.raises(NotForProductionError, match="leave it out"):
        replace(CONFIG, plain_port=1883)


def test_in_a_test_it_is_on_loopback_and_has_the_same_permissions():
    config = replace(CONFIG, plain_port=1883, testing=True, listen="0.0.0.0")  # noqa: S104 - that it is not used
    _, device, plain, _ = listeners(configuration(config, "gnomon"))
    assert plain.startswith("1883 127.0.0.1\n")
    rules = {line for line in device.splitlines() if line.startswith("acl_file")}
    assert rules == {line for line in plain.splitlines() if line.startswith("acl_file")}


@pytest.mark.parametrize(
    "change",
    [
        {"listen": "127.0.0.1\nallow_anonymous true"},
        {"directory": Path("/var/lib/gnomon\nallow_anonymous true")},
        {"authority_file": Path("/var/lib/root.crt ")},
        {"listen": "127.0.0.1\r"},
        {"plugin": Path("/plugin.so\nallow_anonymous true")},
        {"revocation_file": Path("/revoked.crl\nallow_anonymous true")},
    ],
    ids=["listen", "directory", "trailing-blank", "return", "plugin", "revocations"],
)
def test_no_value_can_bring_a_line_of_its_own(change):
    with pytest.raises(UnfitForConfigurationError):
        replace(CONFIG, **change)


def test_the_bridge_may_not_touch_the_brokers_controls_and_the_probe_may_do_nothing():
    rules = dict(part.split("\n", 1) for part in service_acl().split("user ")[1:])
    assert rules.keys() == {BRIDGE_USER, JANITOR_USER, PROBE_USER}
    assert "$CONTROL" not in rules[BRIDGE_USER]
    assert all("$CONTROL/" in line for line in rules[JANITOR_USER].splitlines() if line)
    said = [line.split(" ", 2) for line in rules[PROBE_USER].splitlines() if line]
    assert {access for _, access, _ in said} == {"write"}
    assert all("/gnomon-canary-2/" in topic and "+" not in topic for _, _, topic in said)
    assert "#\n" not in service_acl().replace("gnomon/gateways/+/up/#", "").replace(
        "gnomon/gateways/+/down/#", ""
    )


def test_the_plugin_stands_on_our_own_listener_only_and_allows_nothing():
    _, device, service = listeners(configuration(CONFIG, "gnomon"))
    assert "plugin" not in device
    assert f"plugin {CONFIG.plugin}" in service
    assert b"true" not in plugin_state()
    assert plugin_state().count(b"false") == 4


def test_the_revocation_list_stands_beside_the_root():
    _, device, _ = listeners(configuration(CONFIG, "gnomon"))
    assert f"crlfile {CONFIG.revocation_file}" in device


def test_passwords_are_kept_hashed_each_with_its_own_salt():
    text = password_file({BRIDGE_USER: "same", PROBE_USER: "same"}, salt="s")
    users, hashes = zip(*(line.split(":") for line in text.splitlines()), strict=True)
    assert users == (BRIDGE_USER, PROBE_USER)
    assert hashes[0] != hashes[1]
    assert "same" not in text
    _, kind, iterations, salt, digest = hashes[0].split("$")
    assert (kind, iterations) == ("7", str(PASSWORD_ITERATIONS))
    expected = hashlib.pbkdf2_hmac("sha512", b"same", base64.b64decode(salt), PASSWORD_ITERATIONS)
    assert base64.b64decode(digest) == expected


def test_the_defaults_are_bounds_and_not_none():
    assert BrokerConfig(directory=Path("/a"), authority_file=Path("/b")).connections_max == 10_000
    assert "-1" not in configuration(CONFIG, "gnomon")
