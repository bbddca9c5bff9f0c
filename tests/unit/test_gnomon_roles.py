"""Starting and stopping: signals, errors named once, the limit of descriptors."""

import asyncio
import os
import resource
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from gnomon import roles
from gnomon.roles import (
    StartError,
    interruptible,
    raise_descriptor_limit,
    renew_certificate,
    renew_shown,
    stop_signal,
    tasks,
    watch_authorities,
    welcome,
)
from infra.clock import SystemClock
from infra.documents.port import StoreBrokenError
from infra.settings import Settings
from infra.settings.model import BrokerSettings, CareSettings, PeopleSettings, TrustSettings
from provisioning.care_embedded import EmbeddedCare
from provisioning.care_http import HttpCare
from security.audit import INSIDE
from security.policy import Principal, Role
from security.secret import Secret
from security.trust import crl, keys
from security.trust.authority import AuthorityExpiredError, Credentials, DamagedFileError, ExposedFileError
from tests.certificates import open_authority
from tests.fakes import FakeClock

OFFICER = Principal("ada", Role.SECURITY)


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def fails(error):
    await asyncio.sleep(0)
    raise error


# ---------------------------------------------------------------------- errors


async def test_the_one_error_of_what_runs_beside_is_raised_as_itself():
    with pytest.raises(ZeroDivisionError):
        async with tasks(for_ever(), fails(ZeroDivisionError())):
            await for_ever()


async def test_an_error_deep_inside_is_still_the_one():
    async def role():
        async with tasks(for_ever()), asyncio.TaskGroup() as group:
            group.create_task(fails(ZeroDivisionError()))

    with pytest.raises(ZeroDivisionError):
        async with tasks(role()):
            await for_ever()


async def test_a_broken_disk_that_several_notice_is_one_error():
    with pytest.raises(StoreBrokenError, match="an fsync failed"):
        async with tasks(*(fails(StoreBrokenError("an fsync failed")) for _ in range(3))):
            await for_ever()


async def test_different_errors_are_all_told():
    with pytest.raises(ExceptionGroup) as told:
        async with tasks(fails(ZeroDivisionError()), fails(KeyError("x"))):
            await for_ever()
    assert told.group_contains(ZeroDivisionError)
    assert told.group_contains(KeyError)


async def test_what_runs_beside_ends_with_the_block():
    ended = []

    async def role():
        try:
            await for_ever()
        finally:
            ended.append(True)

    async with tasks(role()):
        await asyncio.sleep(0)
    assert ended == [True]


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_we_start_ends_the_start_in_order_and_is_no_error(number):
    undone = []
    with interruptible():
        try:
            os.kill(os.getpid(), number)
            await for_ever()
        finally:
            await asyncio.sleep(0)  # tidying up may wait
            undone.append(True)
    assert undone == [True]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_that_is_no_signal_is_passed_on():
    async def start():
        with interruptible():
            await for_ever()

    starting = asyncio.ensure_future(start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_once_somebody_waits_for_it_a_signal_cancels_nothing():
    with interruptible():
        waiting = asyncio.ensure_future(stop_signal())
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        await waiting
        await asyncio.sleep(0)  # would raise
    assert waiting.done()


async def test_an_echo_of_the_signal_is_ignored_and_a_second_one_later_ends_the_process(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    waiting = asyncio.ensure_future(stop_signal())
    await asyncio.sleep(0)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.01)
    await waiting
    assert ended == []
    monkeypatch.setattr(roles, "IMPATIENCE_S", 0.0)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.01)
    assert ended == [roles.EXIT_INTERRUPTED]


# ---------------------------------------------------------------------- descriptors


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((100, 5_000), (1_256, 5_000)),
        ((100, 600), (600, 600)),
        ((100, resource.RLIM_INFINITY), (1_256, resource.RLIM_INFINITY)),
        ((2_000, 5_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
        ((600, 600), None),
    ],
    ids=[
        "as far as wanted",
        "as far as allowed",
        "without hard limit",
        "enough",
        "no limit",
        "no more allowed",
    ],
)
def test_the_limit_of_descriptors_is_raised_as_far_as_wanted_and_allowed_and_never_lowered(
    monkeypatch, before, after
):
    made = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: made.append(limits))
    raise_descriptor_limit(Settings(broker=BrokerSettings(connections_max=1_000)))
    assert made == ([after] if after else [])


def test_a_crash_leaves_no_image_of_our_memory(monkeypatch):
    made = list[tuple[int, tuple[int, int]]]()
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: made.append(limit))
    roles.forbid_core_dumps()
    assert made == [(resource.RLIMIT_CORE, (0, 0))]


# ---------------------------------------------------------------------- the server certificate


class Shop:
    """An authority and a broker, as far as a renewal goes."""

    def __init__(self):
        self.kept = Credentials(b"first", b"key")
        self.broken: Exception | None = None
        self.shown: list[Credentials] = []

    def server_credentials(self, _hosts):
        if self.broken is not None:
            raise self.broken
        return self.kept

    def renew(self, credentials):
        self.shown.append(credentials)

    @asynccontextmanager
    async def running(self):
        services: Any = SimpleNamespace(settings=Settings(), authority=self)
        broker: Any = self
        async with tasks(renew_certificate(services, broker, self.kept)):
            yield


async def test_a_certificate_that_was_made_anew_is_shown_once_and_one_that_lasts_is_left_alone(monkeypatch):
    monkeypatch.setattr(roles, "RENEWAL_CHECK_S", 0.001)
    shop = Shop()
    async with shop.running():
        await asyncio.sleep(0.02)
        assert shop.shown == []
        shop.kept = Credentials(b"second", b"key")
        await asyncio.sleep(0.02)
        assert shop.shown == [shop.kept]


AILMENTS = [
    AuthorityExpiredError("the root is at its end"),
    DamagedFileError(Path("issuing-0001.pem"), "does not hold our authority", "put back a copy"),
    ExposedFileError(Path("issuing-0001.pem"), 0o644),
    PermissionError("no"),
]


@pytest.mark.parametrize("ailment", AILMENTS, ids=lambda one: type(one).__name__)
async def test_a_renewal_that_fails_is_told_and_tried_again(monkeypatch, ailment):
    monkeypatch.setattr(roles, "RENEWAL_CHECK_S", 0.001)
    shop = Shop()
    with structlog.testing.capture_logs() as logs:
        async with shop.running():
            shop.broken = ailment
            await asyncio.sleep(0.02)
            assert shop.shown == []
            shop.broken, shop.kept = None, Credentials(b"second", b"key")
            await asyncio.sleep(0.02)
            assert shop.shown == [shop.kept]
    assert {"server_certificate_not_renewed", "server_certificate_renewed"} == {one["event"] for one in logs}


@pytest.mark.parametrize("ailment", AILMENTS, ids=lambda one: type(one).__name__)
async def test_what_the_listeners_cannot_be_shown_anew_does_not_end_them(monkeypatch, ailment):
    monkeypatch.setattr(roles, "RENEWAL_CHECK_S", 0.001)
    shop = Shop()
    services: Any = SimpleNamespace(settings=Settings(), authority=shop)
    listener: Any = SimpleNamespace(load=shop.renew)
    async with tasks(renew_shown(services, [listener])):
        shop.broken = ailment
        await asyncio.sleep(0.02)
        shop.broken, shop.kept = None, Credentials(b"second", b"key")
        await asyncio.sleep(0.02)
    assert shop.shown[-1] == shop.kept


# ---------------------------------------------------------------------- words


def _system(tmp_path, secret, *, demo=False) -> Any:
    services = SimpleNamespace(
        settings=Settings(directory=tmp_path, people=PeopleSettings(demo=demo)),
        authority=SimpleNamespace(
            root_pem_path=tmp_path / "ca" / "root.crt", root_in_reach=secret is not None
        ),
        people=SimpleNamespace(first_secret=None if secret is None else Secret(secret)),
    )
    return SimpleNamespace(
        services=services,
        broker=SimpleNamespace(device_port=8883),
        api_url="http://127.0.0.1:8080",
        device_url="https://localhost:8443",
    )


def test_a_start_without_an_officer_shows_how_to_become_one_and_a_later_one_how_to_log_in(tmp_path):
    first = welcome(_system(tmp_path, "gnomon_first_x"))
    later = welcome(_system(tmp_path, None))
    assert "gnomon_first_x" in first
    assert first.endswith(": gnomon person first LOGIN"), "the address is the default"
    assert "gnomon token" in later
    assert "gnomon_first_" not in later


@pytest.mark.parametrize(
    ("url", "typed"),
    [
        ("http://127.0.0.1:9080", "gnomon person first LOGIN --url http://127.0.0.1:9080"),
        ("https://localhost:7080", "gnomon person first LOGIN --url https://localhost:7080 --root {}"),
    ],
)
def test_the_first_officer_is_told_the_command_as_it_has_to_be_typed(tmp_path, url, typed):
    system = _system(tmp_path, "gnomon_first_x")
    system.api_url = url
    assert welcome(system).endswith(": " + typed.format(tmp_path / "ca" / "root.crt"))


def test_the_demo_says_where_its_credentials_are_and_shows_no_secret(tmp_path):
    shown = welcome(_system(tmp_path, "gnomon_first_x", demo=True))
    assert str(tmp_path / "demo" / "credentials") in shown
    assert "gnomon_first_x" not in shown


# ---------------------------------------------------------------------- authorities


async def test_a_root_in_reach_stops_a_start_in_production_and_is_told_in_any_other(tmp_path):
    settings = Settings(directory=tmp_path)
    with structlog.testing.capture_logs() as logs:
        async with roles._services(settings) as services:
            assert services.authority.root_in_reach
    assert "root_in_reach" in {one["event"] for one in logs}
    production = Settings(directory=tmp_path, trust=TrustSettings(production=True))
    with pytest.raises(StartError, match="gnomon ca move-root"):
        async with roles._services(production):
            pass


async def test_a_start_makes_a_revocation_list_that_had_ended_anew(tmp_path):
    yesterday = FakeClock(SystemClock().now_ms() - 30 * 3_600_000)
    ended = open_authority(tmp_path, yesterday).crl_next_update
    async with roles._services(Settings(directory=tmp_path)) as services, roles._revocation_list(services):
        assert services.authority.crl_next_update > ended
        assert services.authority.alarms() == ()


async def test_a_start_makes_a_lost_revocation_list_from_what_is_recorded(tmp_path):
    settings = Settings(directory=tmp_path)
    async with roles._services(settings) as services, roles._revocation_list(services):
        issued = services.authority.sign_thing("t1", keys.make_key().public_key())
        await services.trust.issued.record(issued, "t1", OFFICER, INSIDE)
        await services.trust.issued.revoke([issued.serial], "key_compromise", OFFICER)
    open_authority(tmp_path).crl_path.unlink()
    async with roles._services(settings) as services:
        assert not services.authority.crl_path.exists()
        async with roles._revocation_list(services):
            listed = crl.rows(services.authority.crl_path.read_bytes())
    assert issued.serial in {row.serial for row in listed}


async def test_a_file_that_went_missing_is_told_and_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(roles, "AUTHORITY_CHECK_S", 0.001)
    authority = open_authority(tmp_path)
    authority.crl_path.unlink()
    with structlog.testing.capture_logs() as logs:
        async with tasks(watch_authorities(authority)):
            await asyncio.sleep(0.02)
    assert {one["event"] for one in logs} == {"authorities_unreadable"}


async def test_what_ends_too_soon_is_told_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(roles, "AUTHORITY_CHECK_S", 0.001)
    clock = FakeClock()
    authority = open_authority(tmp_path, clock)
    clock.advance(4.5 * 365 * 86_400)
    with structlog.testing.capture_logs() as logs:
        async with tasks(watch_authorities(authority)):
            await asyncio.sleep(0.02)
    told = [one["subject"] for one in logs if one["event"] == "authority_ends"]
    assert set(told) == {"issuing authority", "revocation list"}
    assert len(told) > 2


async def test_a_customer_care_system_that_cannot_be_reached_as_set_stops_a_start(tmp_path):
    care = CareSettings(adapter="http", url="https://care.example", token_file=str(tmp_path / "none"))
    with pytest.raises(StartError, match=r"care\.token_file"):
        async with roles._services(Settings(directory=tmp_path / "var", care=care)):
            pass


async def test_the_customer_care_system_is_the_one_that_is_set(tmp_path):
    async with roles._services(Settings(directory=tmp_path)) as services:
        assert isinstance(services.care, EmbeddedCare)
        assert await services.outbox.item("none") is None
    care = CareSettings(adapter="http", url="https://care.example")
    async with roles._services(Settings(directory=tmp_path, care=care)) as services:
        assert isinstance(services.care, HttpCare)
