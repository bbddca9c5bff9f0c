"""A device takes the key list that its job names before it checks the job, and never an older one."""

from dataclasses import replace

import pytest

from fleet.boot import FileStatus
from fleet.keyring import TRIES_MAX
from ota.key_list import KeyList, write
from tests.covers import covers
from tests.firmware_bench import THING, Bench, job, release
from tests.key_lists import CHAIN, LIST, LIST_KEY, OTHER, ROOT, certify
from tests.ota_stand_in import OtaStandIn

SMALL = release(size=10_000, block=1_024)
NEWER = release("3.0.0.0", 9_000, 1_024, 3)


def listed(found: KeyList = LIST, chain=CHAIN) -> bytes:
    return write(found, LIST_KEY, chain)


def bench(*lists: KeyList, roots=(ROOT.certificate,), **more) -> Bench:
    """Return a device that trusts a root and has no list yet, before a service with these."""
    service = OtaStandIn()
    service.key_lists = {f"keys-{one.number}": listed(one) for one in lists}
    return Bench(service=service, keys={}, roots=roots, **more)


def asked(one: Bench) -> list[str]:
    return [what for _, what in one.service.requests if what.startswith("keys-")]


def ended(one: Bench) -> tuple[str, str]:
    return one.job.status, one.job.details.get("reason", "")


@covers("I3FR6.1")
def test_a_device_without_a_list_takes_the_one_that_its_job_names():
    one = bench(LIST).run().offer(job(SMALL, keys=7)).run()
    assert ended(one) == ("SUCCEEDED", "")
    assert asked(one) == ["keys-7"]
    one.offer(job(NEWER, number=2, keys=7)).run()
    assert ended(one) == ("SUCCEEDED", "")
    assert asked(one) == ["keys-7"], "it has it: also after two starts"


def test_a_key_that_a_newer_list_revokes_installs_nothing_more():
    revoked = replace(LIST, number=8, keys=tuple(replace(key, revoked=True) for key in LIST.keys))
    one = bench(LIST, revoked).run().offer(job(SMALL, keys=7)).run()
    one.offer(job(NEWER, number=2, keys=8)).run()
    assert ended(one) == ("FAILED", "key_unknown")
    assert one.running() == SMALL.image
    one.offer(job(NEWER, number=3, keys=7)).run()
    assert ended(one) == ("FAILED", "key_unknown"), "whatever an older number is named"


def test_where_there_is_no_such_list_what_is_held_counts():
    one = bench(LIST).run().offer(job(SMALL, keys=7)).run()
    one.offer(job(NEWER, number=2, keys=2**53)).run()
    assert ended(one) == ("SUCCEEDED", "")
    none = bench().run().offer(job(SMALL, keys=7)).run()
    assert ended(none) == ("FAILED", "key_unknown")
    assert asked(none) == ["keys-7"]


def test_a_list_with_a_lower_number_under_a_higher_name_is_not_taken():
    one = bench(LIST).run().offer(job(SMALL, keys=7)).run()
    older = replace(LIST, number=6, keys=LIST.keys[:1])
    one.service.key_lists["keys-9"] = listed(older)
    one.offer(job(NEWER, number=2, keys=9)).run()
    assert ended(one) == ("SUCCEEDED", ""), "by the keys of 7"
    assert asked(one) == ["keys-7", "keys-9", "keys-9", "keys-9"]


@pytest.mark.parametrize(
    ("roots", "chain"),
    [((OTHER.certificate,), CHAIN), ((ROOT.certificate,), (certify(OTHER),))],
    ids=["a root that it does not know", "a list key that no root of its own vouches for"],
)
def test_what_no_root_vouches_for_is_not_believed(roots, chain):
    one = bench(roots=roots)
    one.service.key_lists["keys-7"] = listed(chain=chain)
    one.run().offer(job(SMALL, keys=7)).run()
    assert ended(one) == ("FAILED", "key_unknown")
    assert one.states == [FileStatus.NONE, FileStatus.SIGNATURE_FAILED]


def test_a_list_that_is_damaged_on_the_way_is_asked_for_again():
    one = bench(LIST).run()
    copies = iter([listed()[:-1] + b"x", listed(), *[b""] * 9])
    one.service.wire = lambda file, _index, data: [next(copies) if file < 0 else data]
    one.offer(job(SMALL, keys=7)).run()
    assert ended(one) == ("SUCCEEDED", "")
    assert asked(one) == ["keys-7", "keys-7"]


def test_a_job_whose_list_never_comes_is_not_refused_but_looked_at_again():
    one = bench(LIST).run()
    one.service.wire = lambda file, _index, data: [] if file < 0 else [data]
    one.offer(job(SMALL, keys=7)).run(3_600)
    assert one.job.status == "QUEUED"
    assert TRIES_MAX < len(asked(one)) < 120, "and in no rush"
    one.service.wire = lambda _file, _index, data: [data]
    one.run()
    assert ended(one) == ("SUCCEEDED", "")


def test_a_list_that_never_comes_is_not_needed_by_who_knows_the_keys():
    one = bench(LIST, replace(LIST, number=8)).run().offer(job(SMALL, keys=7)).run()
    one.service.wire = lambda file, _index, data: [] if file < 0 else [data]
    one.offer(job(NEWER, number=2, keys=8)).run()
    assert ended(one) == ("SUCCEEDED", "")
    assert len(asked(one)) == 1 + TRIES_MAX


def test_a_list_that_has_ended_counts_for_nothing():
    short = replace(LIST, expires=LIST.issued + 1_000)
    one = bench(short).run().offer(job(SMALL, keys=7)).run()
    assert ended(one) == ("SUCCEEDED", "")
    one.now += 1_000
    one.offer(job(NEWER, number=2, keys=7)).run()
    assert ended(one) == ("FAILED", "key_unknown")
    one.service.key_lists["keys-8"] = listed(replace(LIST, number=8))
    one.offer(job(NEWER, number=3, keys=8)).run()
    assert ended(one) == ("SUCCEEDED", "")


def test_a_job_that_is_stopped_while_its_list_is_awaited_is_not_looked_at():
    one = bench(LIST).run()
    one.service.wire = lambda file, _index, data: [] if file < 0 else [data]
    one.offer(job(SMALL, keys=7)).run(1)
    one.deliver(one.service.cancel(THING))
    one.run()
    assert one.states == [FileStatus.NONE]
    assert len(asked(one)) == 1
    assert one.computer.firmware.settled


def test_after_a_lost_connection_the_list_is_asked_for_at_once():
    one = bench(LIST).run()
    lost = iter([True])
    one.service.wire = lambda file, _index, data: [] if file < 0 and next(lost, False) else [data]
    one.offer(job(SMALL, keys=7)).run(1)
    one.cut_connection()
    one.run(1)
    assert asked(one) == ["keys-7", "keys-7"]
    one.run()
    assert ended(one) == ("SUCCEEDED", "")


@pytest.mark.parametrize("cut_at", range(1, 12))
def test_power_that_goes_at_any_write_leaves_a_list_or_none(cut_at):
    one = bench(LIST, cut_at=cut_at).run().offer(job(SMALL, keys=7)).run()
    assert ended(one) == ("SUCCEEDED", "")
    assert one.running() == SMALL.image


def test_a_device_that_was_told_its_keys_asks_for_no_list():
    one = Bench().run().offer(job(SMALL, keys=7)).run()
    assert ended(one) == ("SUCCEEDED", "")
    assert asked(one) == []
