"""The canaries find every hole that is planted in the broker's configuration, and none that is not there."""

import socket
import time
from datetime import UTC, datetime

import pytest

from broker_bridge import mosquitto, selftest
from broker_bridge.mosquitto_config import PROBE_USER, configuration, device_acl
from broker_bridge.selftest import CONTROL, HolesError, NotTriedError, Voice, try_out
from broker_bridge.topics import CANARIES
from gnomon import canaries
from infra.clock import SystemClock
from infra.settings import Settings
from infra.settings.model import BrokerSettings
from tests.broker_rig import BrokerRig

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

TRIED_S_MAX = 1.0


class Nest(BrokerRig):
    """A broker with canaries, and maybe a hole."""

    def __init__(self, directory, **config):
        super().__init__(directory, **config)
        self.settings = Settings(directory=directory, broker=BrokerSettings(hosts=("localhost",)))
        self.authority.write_crl([canaries.make(self.settings, self.authority, SystemClock())])

    @property
    def place(self):
        voice = Voice(self.broker.service_port, PROBE_USER, self.broker.probe_password)
        return canaries.place(self.settings, self.authority.root_pem_path, self.broker.device_port, voice)

    def try_out(self):
        self.call(try_out(self.place))


@pytest.fixture
def nest(tmp_path):
    nest = Nest(tmp_path)
    yield nest
    nest.close()


def plant(monkeypatch, acl=device_acl, conf=configuration):
    monkeypatch.setattr(mosquitto, "device_acl", acl)
    monkeypatch.setattr(mosquitto, "configuration", conf)


def altered(this, that):
    """Return rules with a change."""
    return lambda: device_acl().replace(this, that)


def with_conf(change):
    """Return a configuration whose text is changed."""
    return lambda config, user: change(configuration(config, user))


def without(line):
    return with_conf(lambda text: "\n".join(one for one in text.splitlines() if line not in one) + "\n")


def open_to_anybody(text):
    """Ask nobody on the device listener for a certificate; whoever has none is nobody."""
    general, device, service = text.split("\nlistener ")
    for line in ("use_identity_as_username true", "use_username_as_clientid true"):
        device = device.replace(f"{line}\n", "")
    device = device.replace("require_certificate true", "require_certificate false")
    device = device.replace("allow_anonymous false", "allow_anonymous true")
    return f"{general}\nlistener {device}\nlistener {service}"


def test_what_we_generate_has_no_hole_and_is_tried_out_quickly(nest):
    nest.start()
    nest.try_out()
    began = time.monotonic()
    nest.try_out()
    took = time.monotonic() - began
    print(f"tried out in {took * 1e3:.0f} ms")
    assert took < TRIED_S_MAX


@pytest.mark.parametrize(
    ("hole", "line"),
    [
        ({"acl": lambda: device_acl().replace("%u", "+")}, "%u"),
        ({"acl": altered("read $aws/things/%u", "read $aws/things/+")}, "pattern read"),
        ({"acl": altered("write $aws/things/%u", "write $aws/things/+")}, "pattern write"),
        ({"acl": altered("gateways/%u/down", "gateways/+/down")}, "pattern read"),
        ({"acl": lambda: device_acl() + "pattern readwrite $aws/things/%u/#\n"}, "requests only"),
        ({"acl": lambda: device_acl() + "pattern write gnomon/gateways/%u/down/#\n"}, "requests only"),
        ({"acl": lambda: device_acl() + "pattern read $SYS/#\n"}, "pattern read"),
        ({"acl": lambda: device_acl() + "pattern readwrite #\n"}, "pattern"),
        ({"acl": lambda: device_acl() + "pattern write $CONTROL/#\n"}, CONTROL),
        ({"conf": without("/device.acl")}, "pattern"),
        ({"conf": without("use_username_as_clientid")}, "use_username_as_clientid"),
        ({"conf": without("crlfile")}, "crlfile"),
        ({"conf": with_conf(open_to_anybody)}, "require_certificate"),
    ],
    ids=[
        "+ for %u", "+ in reading", "+ in writing", "+ in down", "own tree read and written", "down written",
        "$SYS read", "everything", "$CONTROL written", "no rules", "client ids free", "no revocation list",
        "no certificate asked for",
    ],
)  # fmt: skip
def test_every_planted_hole_is_found_and_its_line_named(nest, monkeypatch, hole, line):
    plant(monkeypatch, **hole)
    nest.start()
    with pytest.raises(HolesError, match="missing: ") as found:
        nest.try_out()
    assert any(line in one.line for one in found.value.holes), found.value


def test_a_revoked_canary_that_is_not_on_the_list_is_a_hole(nest):
    nest.authority.write_crl([])
    nest.start()
    with pytest.raises(HolesError, match="crlfile"):
        nest.try_out()


def test_a_broker_that_takes_nobody_was_not_tried_and_that_is_no_yes(nest, monkeypatch):
    now = datetime.now(UTC)
    nest.start()
    monkeypatch.setattr(nest.authority, "_now", lambda: now)
    place = nest.place
    nest.call(nest.broker.stop())
    with pytest.raises(NotTriedError):
        nest.call(try_out(place))


def test_a_broker_that_is_silent_was_not_tried(nest, monkeypatch):
    monkeypatch.setattr(selftest, "SELF_TEST_S_MAX", 0.2)

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = canaries.place(nest.settings, nest.authority.root_pem_path, deaf.getsockname()[1])
        with pytest.raises(NotTriedError):
            nest.call(try_out(place))


def test_the_canaries_keys_are_for_us_alone(nest):
    folder = nest.directory / "broker" / "canaries"
    assert folder.stat().st_mode & 0o077 == 0
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert {file.stem for file in folder.iterdir()} > set(CANARIES)
