"""A session does not outlive the last certificate of its thing for long."""

import pytest

from broker_bridge.janitor import BrokerSilentError
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from security.trust import expiry
from security.trust.expiry import Expiry
from tests.fakes import FakeClock
from tests.trust import SECURITY, Center, open_store, request

YEAR_S = 366 * 86_400


class Broker:
    """Notes whose sessions were ended; silent when told so."""

    def __init__(self) -> None:
        self.kicked: list[str] = []
        self.silent = False

    async def kick(self, thing: str) -> None:
        if self.silent:
            raise BrokerSilentError(thing)
        self.kicked.append(thing)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def center(tmp_path, clock):
    center = Center(tmp_path, clock, open_store())
    yield center
    center.hashing.close()


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def sweeping(center, clock, broker):
    return Expiry(center.issued, clock, broker.kick)


async def enrol(center):
    await center.enrol(*await center.voucher(), request())


async def test_a_session_ends_when_the_last_certificate_of_its_thing_has_run_out(
    center, clock, broker, sweeping
):
    await enrol(center)
    await sweeping.sweep()
    assert broker.kicked == []
    clock.advance(YEAR_S)
    for _ in range(2):
        await sweeping.sweep()
    assert broker.kicked == ["hall"]


async def test_who_has_another_certificate_keeps_the_session(center, clock, broker, sweeping):
    await enrol(center)
    clock.advance(YEAR_S / 2)
    await enrol(center)
    clock.advance(YEAR_S / 2)
    await sweeping.sweep()
    assert broker.kicked == []
    clock.advance(YEAR_S / 2)
    await sweeping.sweep()
    assert broker.kicked == ["hall"]


async def test_what_was_revoked_is_not_looked_for(center, clock, broker, sweeping):
    await enrol(center)
    (record,) = await center.issued.of_thing("hall")
    await center.issued.revoke([record.serial], "stolen", SECURITY)
    clock.advance(YEAR_S)
    await sweeping.sweep()
    assert broker.kicked == []


async def test_a_silent_broker_is_asked_again_next_time(center, clock, broker, sweeping):
    await enrol(center)
    clock.advance(YEAR_S)
    broker.silent = True
    await sweeping.sweep()
    broker.silent = False
    await sweeping.sweep()
    assert broker.kicked == ["hall"]


@pytest.mark.parametrize(
    ("error", "ends"), [(StoreUnavailableError("down"), False), (StoreBrokenError(), True)]
)
async def test_sweeping_goes_on_after_anything_but_a_broken_store(sweeping, monkeypatch, error, ends):
    monkeypatch.setattr(expiry, "SWEEP_S", 0.0)
    raised = [StoreBrokenError("the end of the test"), error]
    sweeps = 0

    async def fail() -> None:
        nonlocal sweeps
        sweeps += 1
        raise raised.pop()

    monkeypatch.setattr(sweeping, "sweep", fail)
    with pytest.raises(StoreBrokenError):
        await sweeping.run()
    assert sweeps == (1 if ends else 2)
