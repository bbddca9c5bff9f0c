"""A claim is a lease on making one offer to a device."""

from infra.documents.memory import MemoryStore
from ota.claims import CLAIMS, LEASE_MS, OFFER_MS_MAX, Claims
from tests.fakes import NOW_MS
from tests.faulty_store import FaultyStore

ONE, TWO = "one", "two"


def claims(*, exclusive: bool = False) -> Claims:
    return Claims(FaultyStore(MemoryStore([CLAIMS], []), exclusive=exclusive))


async def test_one_campaign_at_a_time_may_offer_a_device_something():
    both = claims()
    assert await both.take(["a", "b"], ONE, NOW_MS) == {"a", "b"}
    assert await both.take(["b", "c"], TWO, NOW_MS + LEASE_MS - 1) == {"c"}
    assert await both.take(["b"], ONE, NOW_MS + 1) == {"b"}


async def test_a_claim_ends_by_itself_long_after_the_last_offer_on_it():
    assert OFFER_MS_MAX < LEASE_MS / 2
    both = claims()
    await both.take(["a"], ONE, NOW_MS)
    assert await both.take(["a"], TWO, NOW_MS + LEASE_MS) == {"a"}
    assert await both.take(["a"], ONE, NOW_MS + LEASE_MS) == frozenset()


async def test_of_two_that_take_a_claim_at_once_one_gets_it():
    both = claims()
    store = both._store
    assert isinstance(store, FaultyStore)

    async def other() -> None:
        assert await both.take(["a"], TWO, NOW_MS) == {"a"}

    store.before_commit.append(other)
    assert await both.take(["a"], ONE, NOW_MS) == frozenset()


async def test_where_one_process_alone_writes_nothing_is_claimed():
    alone = claims(exclusive=True)
    assert await alone.take(["a"], ONE, NOW_MS) == {"a"}
    assert await alone.take(["a"], TWO, NOW_MS) == {"a"}
