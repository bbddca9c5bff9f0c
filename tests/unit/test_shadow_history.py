"""What the past of a shadow says: pages, single versions, times, what was pruned, and conflicts."""

from collections.abc import Sequence
from typing import Any

import pytest

from infra.settings.model import ShadowLimits
from shadow.archive import CONFLICT_ROWS_MAX, Archive
from shadow.decisions import is_full, oldest_after
from shadow.document import ShadowId
from shadow.errors import NoShadowError, VersionConflictError, VersionPrunedError
from shadow.history import LEAVES_MAX, POINTERS_CHARS_MAX
from shadow.records import history_log
from shadow.store import ShadowStore
from tests.fakes import NOW_MS
from tests.shadow_rig import ANNA, HALL, Rig, accepted, delete, rejected, rig, update

EVERY = 4
LIMITS = ShadowLimits(history_full_every=EVERY, history_versions_max=10, outbox_entries_max=3)


async def write(service: Rig, versions: int, *, id: ShadowId = HALL, seconds: float = 1) -> None:
    """Add some versions, a second apart, all delivered at once."""
    for _ in range(versions):
        service.clock.advance(seconds)
        outcome = accepted(await service.report({"n": service.clock.elapsed_s()}, id))
        service.service.settle(id, outcome.version)


async def numbers(service: Rig, **options: Any) -> list[int]:
    rows = await service.service.archive.history(HALL, **({"limit": 100} | options))
    return [row.version for row in rows]


async def test_a_page_has_the_newest_first_and_the_next_one_goes_on_below():
    async with rig() as service:
        await write(service, 7)
        assert await numbers(service, limit=3) == [7, 6, 5]
        assert await numbers(service, limit=3, before=5) == [4, 3, 2]
        assert await numbers(service, limit=3, before=2) == [1]
        assert await numbers(service, limit=3, before=1) == []
        assert await numbers(service, before=100) == [7, 6, 5, 4, 3, 2, 1]


async def test_a_page_keeps_within_two_times_both_included():
    async with rig() as service:
        await write(service, 7)
        at = [0, *(NOW_MS + 1_000 * n for n in range(1, 8))]
        assert await numbers(service, from_ms=at[3], to_ms=at[5]) == [5, 4, 3]
        assert await numbers(service, from_ms=at[3] + 1, to_ms=at[5] - 1) == [4]
        assert await numbers(service, to_ms=at[1] - 1) == []
        assert await numbers(service, from_ms=at[7] + 1) == []
        assert await numbers(service, from_ms=at[2], to_ms=at[6], before=5, limit=2) == [4, 3]


async def test_a_row_says_who_did_what_when_and_how():
    async with rig() as service:
        await service.one(update({"desired": {"a": [1, None][:1]}}, origin=ANNA, clientToken="t"))
        await service.one(delete(clientToken="d"))
        gone, made = await service.service.archive.history(HALL, limit=2)
        assert (made.version, made.at_ms, made.operation) == (1, NOW_MS, "update")
        assert (made.actor, made.role, made.channel, made.gateway) == ("anna", "stand_in", "http", None)
        assert (made.token, made.state) == ("t", {"desired": {"a": [1]}})
        assert (gone.version, gone.operation, gone.token, gone.state) == (2, "delete", "d", None)


@pytest.mark.parametrize("limits", [LIMITS, ShadowLimits()], ids=["short history", "long history"])
async def test_every_version_that_is_kept_can_be_read_as_it_was(limits: ShadowLimits):
    async with rig(limits=limits) as service:
        seen: dict[int, Any] = {}
        for number in range(1, 40):
            outcome = accepted(
                await service.report({"n": number, f"f{number % 5}": [number] if number % 3 else None})
            )
            service.service.settle(HALL, number)
            shadow = await service.service.view(HALL)
            seen[outcome.version] = (shadow.desired, shadow.reported, shadow.at_ms)
        oldest = (await service.service.view(HALL)).oldest_version
        for number in range(oldest, 40):
            snapshot = await service.service.archive.at_version(HALL, number)
            assert (snapshot.desired, snapshot.reported, snapshot.at_ms) == seen[number]


async def test_a_fold_may_be_longer_than_a_page_of_the_store():
    async with rig(limits=ShadowLimits(history_full_every=5_000, outbox_entries_max=1_000)) as service:
        for _ in range(3):
            await service.submit(*(update({"reported": {"n": n}}) for n in range(700)))
            service.settle_all()
        assert (await service.service.archive.at_version(HALL, 2_099)).reported.state == {"n": 698}


async def test_no_more_versions_are_kept_than_the_bound_says_and_the_oldest_is_whole():
    async with rig(limits=LIMITS) as service:
        for _ in range(50):
            await write(service, 1)
            rows = await service.service.archive.history(HALL, limit=100)
            assert len(rows) <= LIMITS.history_versions_max
            assert rows[-1].version == 1 or rows[-1].full is not None
            stored = await service.store.read(history_log(HALL), HALL.key, 0, 1_000, limit=100)
            assert [row.number for row in stored] == sorted(row.version for row in rows)


@pytest.mark.parametrize("every", [1, 2, 4, 64])
@pytest.mark.parametrize("versions_max", [1, 2, 63, 64, 65, 100])
def test_the_newest_version_is_always_kept_and_the_bound_holds(every: int, versions_max: int):
    limits = ShadowLimits(history_full_every=every, history_versions_max=max(every, versions_max))
    oldest = 1
    for version in range(1, 400):
        before, oldest = oldest, oldest_after(version, oldest, limits)
        assert before <= oldest <= version
        assert version - oldest + 1 <= limits.history_versions_max
        assert oldest == 1 or is_full(oldest, limits)


async def test_a_version_that_never_was_is_404_and_a_pruned_one_410():
    async with rig(limits=LIMITS) as service:
        archive = service.service.archive
        with pytest.raises(NoShadowError):
            await archive.at_version(HALL, 1)
        with pytest.raises(NoShadowError):
            await archive.history(HALL, limit=1)
        await write(service, 20)
        oldest = (await service.service.view(HALL)).oldest_version
        assert oldest > 1
        for number in (-1, 0, 21):
            with pytest.raises(NoShadowError):
                await archive.at_version(HALL, number)
        with pytest.raises(VersionPrunedError) as pruned:
            await archive.at_version(HALL, oldest - 1)
        assert pruned.value.code == 410
        assert str(oldest) in (pruned.value.detail or "")
        assert (await archive.at_version(HALL, oldest)).version == oldest


async def test_a_deletion_is_a_version_without_a_document():
    async with rig() as service:
        await write(service, 2)
        await service.one(delete())
        await write(service, 1)
        archive = service.service.archive
        with pytest.raises(NoShadowError):
            await archive.at_version(HALL, 3)
        assert (await archive.at_version(HALL, 2)).exists
        assert (await archive.at_version(HALL, 4)).reported.state == {"n": 3.0}
        assert await numbers(service) == [4, 3, 2, 1]


async def test_history_of_a_deleted_shadow_stays_readable():
    async with rig() as service:
        await write(service, 2)
        await service.one(delete())
        assert await numbers(service) == [3, 2, 1]
        assert (await service.service.archive.at_version(HALL, 2)).version == 2


@pytest.mark.parametrize("count", [1, 2, 3, 9])
async def test_a_time_finds_the_newest_version_that_is_not_later(count: int):
    async with rig(limits=LIMITS) as service:
        await write(service, count, seconds=10)
        archive = service.service.archive
        for number in range((await service.service.view(HALL)).oldest_version, count + 1):
            at_ms = NOW_MS + 10_000 * number
            assert (await archive.at_time(HALL, at_ms)).version == number
            assert (await archive.at_time(HALL, at_ms + 9_999)).version == number
        with pytest.raises(NoShadowError if count < 9 else VersionPrunedError):
            await archive.at_time(HALL, NOW_MS + 9_999)


async def test_of_several_versions_at_one_time_the_last_one_counts():
    async with rig() as service:
        await write(service, 5, seconds=0)
        assert (await service.service.archive.at_time(HALL, NOW_MS)).version == 5


async def test_a_time_before_what_is_kept_is_410():
    async with rig(limits=LIMITS) as service:
        await write(service, 20)
        with pytest.raises(VersionPrunedError):
            await service.service.archive.at_time(HALL, NOW_MS + 1_000)
        with pytest.raises(VersionPrunedError):
            await service.service.archive.at_time(HALL, 0)


async def test_a_reader_whose_versions_are_pruned_meanwhile_is_told_so():
    async with rig(limits=LIMITS) as service:
        await write(service, 11)
        old = await service.stored()
        await write(service, 20)

        class Outdated(ShadowStore):
            async def current(self, id: ShadowId):
                assert id == HALL
                return old

        archive = Archive(Outdated(service.store, LIMITS, 0), LIMITS)
        with pytest.raises(VersionPrunedError):
            await archive.at_version(HALL, old.oldest_version)
        with pytest.raises(VersionPrunedError):
            await archive.at_time(HALL, NOW_MS + 1_000 * old.version)


# --------------------------------------------------------------------------------- conflicts


async def conflicts(service: Rig, state: Any, version: int) -> Sequence[str] | None:
    outcome = rejected(await service.one(update(state, version=version)))
    assert isinstance(outcome.error, VersionConflictError)
    return outcome.error.conflicts


async def test_a_conflict_names_what_both_wrote():
    async with rig() as service:
        await service.one(update({"desired": {"a": {"b": 1, "c": 2}, "d": [1]}}))
        await service.one(update({"desired": {"a": {"b": 3}}, "reported": {"x": {}}}))
        wanted = {"desired": {"a": {"b": 1, "c": 1}, "d": 0}, "reported": {"x": {"y": 1}, "z": 1}}
        assert await conflicts(service, wanted, 1) == ("/desired/a/b", "/reported/x/y")
        assert await conflicts(service, {"desired": {"a": 1}}, 1) == ("/desired/a",)
        assert await conflicts(service, {"desired": {"a": {"c": 9}}}, 1) == ()
        assert await conflicts(service, {}, 1) == ()
        assert await conflicts(service, {"desired": {}}, 1) == ()
        assert await conflicts(service, None, 1) == ("/desired", "/reported")


async def test_a_deletion_conflicts_with_everything():
    async with rig() as service:
        await service.report({"a": 1})
        await service.one(delete())
        await service.report({"b": 1})
        assert await conflicts(service, {"reported": {"c": 1}}, 1) == ("/reported/c",)


async def test_who_wants_to_create_what_is_there_is_told_about_all_versions():
    async with rig() as service:
        await service.report({"a": 1})
        await service.report({"b": 1})
        assert await conflicts(service, {"reported": {"a": 1, "c": 1}}, 0) == ("/reported/a",)


async def test_a_version_ahead_or_too_far_back_is_not_explained():
    async with rig() as service:
        await write(service, CONFLICT_ROWS_MAX + 2)
        newest = CONFLICT_ROWS_MAX + 2
        assert await conflicts(service, {"reported": {"n": 1}}, newest + 1) is None
        assert await conflicts(service, {"reported": {"n": 1}}, 2) == ("/reported/n",)
        assert await conflicts(service, {"reported": {"n": 1}}, 1) is None


async def test_a_version_that_history_does_not_reach_is_not_explained():
    async with rig(limits=LIMITS) as service:
        await write(service, 20)
        oldest = (await service.service.view(HALL)).oldest_version
        assert await conflicts(service, {"reported": {"n": 1}}, oldest - 1) == ("/reported/n",)
        assert await conflicts(service, {"reported": {"n": 1}}, oldest - 2) is None


async def test_a_store_that_cannot_explain_takes_nothing_back():
    async with rig() as service:
        await write(service, 2)

        service.store.refuses = {"read"}
        good, stale = await service.submit(
            update({"reported": {"n": 1}}), update({"reported": {"n": 2}}, version=1)
        )
        assert accepted(good).version == 3
        assert isinstance(rejected(stale).error, VersionConflictError)
        assert b"conflicts" not in rejected(stale).body


async def test_explaining_a_conflict_is_bounded():
    async with rig() as service:
        await service.report({"a": 1})
        for first in range(0, LEAVES_MAX + 1, 1_024):
            await service.report({f"f{first + n}": None for n in range(1_024)})
            service.settle_all()
        assert await conflicts(service, {"reported": {"f1": 1}}, 1) is None
        assert await conflicts(service, {"reported": {"f1": 1}}, 2) == ()


async def test_the_pointers_of_a_conflict_are_bounded():
    async with rig() as service:
        long = "n" * (POINTERS_CHARS_MAX // 2)
        await service.report({"a": 1})
        await service.report({long: {"a": 1, "b": 1}})
        assert await conflicts(service, {"reported": {long: {"a": 2}}}, 1) == (f"/reported/{long}/a",)
        assert await conflicts(service, {"reported": {long: {"a": 2, "b": 2}}}, 1) is None
