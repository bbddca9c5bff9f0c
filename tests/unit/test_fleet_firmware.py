"""A device upgrades between a service that may hold, lose and tamper, and power that goes at any write."""

import json
import random
from dataclasses import replace

import cbor2
import msgspec
import pytest

from fleet.boot import TRIALS_MAX, FileStatus, Store, boot
from fleet.firmware import Faults
from fleet.topics import own_route
from tests.covers import covers
from tests.firmware_bench import MAKE, THING, Bench, job, release
from tests.ota_base import NOW_S
from tests.ota_stand_in import OtaStandIn

S = FileStatus
SMALL = release(size=40 * 1_024 + 17, block=1_024)


def upgraded(bench):
    """Whether the new image runs, is confirmed, and both sides know it."""
    record = Store(bench.flash).record
    fw = bench.reported["fw"]
    assert bench.running() == SMALL.image
    assert record.state is S.ACTIVATED
    assert bench.computer.firmware.slot == record.running
    assert bench.job.status == "SUCCEEDED"
    assert fw["confirmed"]
    assert fw["sha256"] == record.image.sha256
    return True


def rolled_back(bench, before, reason):
    """Whether the old image runs again, byte for byte, with its configuration, and both sides know it."""
    assert bench.old() == before
    assert not bench.computer.firmware.is_trial
    assert bench.reported["fw"]["version"] == "1.0.0.0"
    assert bench.reported["file"]["status"] == 6
    assert (bench.job.status, bench.job.details) == ("FAILED", {"fs": "6", "reason": reason})
    return True


# ---------------------------------------------------------------------------- the way of an upgrade


@covers("I3FR6.1")
def test_an_offered_image_is_loaded_tried_confirmed_and_reported():
    bench = Bench().run().offer(job(of=SMALL)).run()
    assert bench.states == [S.NONE, S.LOADING, S.VERIFIED, S.ACTIVATING, S.ACTIVATED]
    assert upgraded(bench)
    assert [details["fs"] for _, details in bench.job.history] == ["1", "5", "8"]
    assert bench.reported["boot"] == 2
    assert bench.reported["slot"] == "b"


def test_once_confirmed_there_is_no_way_back_for_counter_and_clock():
    bench = Bench()
    before = Store(bench.flash).record
    bench.run().offer(job(of=SMALL)).run()
    after = Store(bench.flash).record
    assert after.counter == after.image.counter == before.counter + 1
    assert after.floor >= NOW_S > before.floor


def test_a_device_that_was_away_finds_its_job_when_it_connects():
    bench = Bench()
    bench.service.offer(THING, job(of=SMALL))
    assert upgraded(bench.run())


def test_a_second_upgrade_goes_back_into_the_first_slot():
    bench = Bench().run().offer(job(of=SMALL)).run()
    newer = release("3.0.0.0", 9_000, 1_024, 3)
    bench.offer(job(of=newer, number=2)).run()
    assert bench.running() == newer.image
    assert bench.computer.firmware.slot == "a"


def test_the_same_job_offered_again_after_its_end_installs_nothing():
    bench = Bench().run().offer(job(of=SMALL)).run()
    before, slots = bench.old(), {name: dict(slot.blocks) for name, slot in bench.flash.slots.items()}
    again = job(of=SMALL)
    bench.offer(again).run()
    assert [(status, details["reason"]) for status, details in again.history] == [
        ("SUCCEEDED", "already_current")
    ]
    assert bench.old() == before
    assert {name: dict(slot.blocks) for name, slot in bench.flash.slots.items()} == slots


def test_a_refusal_that_met_an_offer_taken_back_is_told_again_with_the_next_one():
    bench = Bench().run()
    refused = job(of=release(counter=0))
    on_its_way = bench.service.offer(THING, refused)
    bench.service.is_recalled = True
    bench.deliver(on_its_way)
    bench.run(60)
    assert (THING, f"{refused.id}/update") in bench.service.requests
    assert refused.status == "QUEUED"
    bench.service.is_recalled = False
    bench.offer(refused).run(60)
    assert (refused.status, refused.details["reason"]) == ("REJECTED", "downgrade")


def test_a_push_that_comes_late_begins_nothing_anew():
    bench = Bench().run().offer(job(of=SMALL)).run()
    late = bench.service._push(THING)
    waiting = json.dumps({"timestamp": NOW_S, "execution": {**bench.job.execution(), "status": "QUEUED"}})
    record = Store(bench.flash).record
    bench.deliver([(late[0][0], waiting.encode())])
    bench.run(60)
    assert Store(bench.flash).record == record
    assert bench.service.requests[-1] == (THING, "$next/get")


def test_an_image_that_runs_already_is_a_success_without_a_write_to_a_slot():
    bench = Bench().run().offer(job(of=SMALL)).run()
    before = bench.old()
    bench.change(lang="fr")
    bench.offer(job(of=SMALL, data=1, number=2)).run()
    assert bench.job.status == "SUCCEEDED"
    assert bench.job.details["reason"] == "already_current"
    assert "data" not in bench.job.details  # it neither preserved nor reset anything
    assert bench.settings["lang"] == "fr"  # a replayed reset wipes nothing
    assert bench.old()[0] == before[0]


def test_a_job_without_sense_fails_and_says_so_once():
    bench = Bench().run()
    nonsense = job(of=SMALL)
    nonsense.document = {"steps": ["reboot"]}
    bench.offer(nonsense).run()
    assert (bench.job.status, bench.job.details["reason"]) == ("FAILED", "manifest_encoding")
    assert bench.states == [S.NONE, S.SIGNATURE_FAILED]


@pytest.mark.parametrize(
    "advice",
    [
        {"confirm_s": 2**70}, {"confirm_s": 86_401}, {"confirm_s": -1}, {"deadline_s": 10**400},
        {"activate_at": 2**70}, {"jitter_s": 1e300}, {"jitter_s": -1},
    ],
    ids=lambda one: str(one)[:24],
)  # fmt: skip
def test_advice_that_no_device_can_follow_is_a_job_without_sense(advice):
    bench = Bench().run().offer(job(of=SMALL, **advice)).run()
    assert (bench.job.status, bench.job.details["reason"]) == ("FAILED", "manifest_encoding")
    assert not bench.flash.slots["b"].blocks


@pytest.mark.parametrize("stream", ["fw-1/#", "fw\n", "f" * 45])
def test_a_stream_that_makes_no_topic_is_a_job_without_sense(stream):
    bench = Bench().run()
    offered = job(of=SMALL)
    offered.document["afr_ota"]["streamname"] = stream
    bench.offer(offered).run()
    assert (bench.job.status, bench.job.details["reason"]) == ("FAILED", "manifest_encoding")


@pytest.mark.parametrize(
    "wrong",
    [{"jobId": "c/#"}, {"jobId": ""}, {"executionNumber": 2**70}, {"versionNumber": -1}],
    ids=lambda one: str(one)[:24],
)
def test_an_execution_that_cannot_be_written_down_is_not_understood(wrong):
    bench = Bench().run()
    execution = {**job(of=SMALL).execution(), "jobDocument": {}, **wrong}
    writes = bench.flash.fuse.writes
    push = msgspec.json.encode({"timestamp": NOW_S, "execution": execution})
    bench.deliver([(f"$aws/things/{THING}/jobs/notify-next", push)])
    assert bench.run().states == [S.NONE]
    assert bench.flash.fuse.writes == writes


def test_a_device_waits_a_random_time_before_it_starts():
    bench = Bench(3).run().offer(job(of=SMALL, jitter_s=20)).run()
    assert upgraded(bench)
    assert 0.5 < bench.now - NOW_S < 25


# ---------------------------------------------------------------------------- the gate


def test_at_the_gate_a_hold_is_waited_for_and_nothing_is_activated_meanwhile():
    service = OtaStandIn()
    bench = Bench(service=service).run()
    service.gate = lambda _job: ("hold", 30) if bench.now < NOW_S + 100 else ("go", 0)
    bench.offer(job(of=SMALL)).run(90)
    assert bench.computer.firmware.state is S.VERIFIED
    assert upgraded(bench.run())
    assert bench.now >= NOW_S + 100


def test_at_the_gate_a_never_throws_the_image_away():
    service = OtaStandIn()
    service.gate = lambda _job: ("never", 0)
    bench = Bench(service=service).run()
    before = bench.old()
    bench.offer(job(of=SMALL)).run()
    assert bench.old() == before
    assert bench.computer.firmware.state is S.NONE
    assert bench.job.status == "FAILED"
    assert not bench.flash.slots["b"].blocks


def test_a_gate_that_was_asked_with_an_old_version_number_is_asked_with_the_new_one():
    bench = Bench().run()
    bench.on_state = lambda state: (
        setattr(bench.job, "version", bench.job.version + 1) if state is S.LOADING else None
    )
    assert upgraded(bench.offer(job(of=SMALL)).run())


@covers("I3FR8")
def test_nothing_is_activated_while_an_event_runs():
    bench = Bench().run()
    bench.is_quiet = False
    bench.offer(job(of=SMALL)).run(120)
    assert bench.computer.firmware.state is S.VERIFIED
    assert not any(details.get("gate") for _, details in bench.job.history)
    bench.is_quiet = True
    assert upgraded(bench.run())


def test_an_image_may_be_loaded_hours_before_it_is_activated():
    bench = Bench().run().offer(job(of=SMALL, prestage=True, activate_at=NOW_S + 7_200)).run(7_000)
    assert bench.computer.firmware.state is S.VERIFIED
    assert bench.job.details == {"fs": "5"}
    assert upgraded(bench.run(1_000))


def test_a_model_without_a_gate_activates_by_itself():
    bench = Bench(make=replace(MAKE, gate=False)).run().offer(job(of=SMALL)).run()
    assert upgraded(bench)
    assert [details["fs"] for _, details in bench.job.history] == ["1", "7", "8"]


def test_a_canceled_job_is_thrown_away_while_it_loads():
    bench = Bench().run()
    service = bench.service
    service.wire = lambda file, _index, data: [data] if file else []  # blocks do not come
    bench.offer(job(of=SMALL)).run(20)
    assert bench.computer.firmware.state is S.LOADING
    bench.deliver(service.cancel(THING))
    bench.run()
    assert bench.states[-2:] == [S.LOADING, S.NONE]
    assert bench.job.status == "CANCELED"


def test_a_device_that_may_not_ask_for_its_job_keeps_what_it_has_and_asks_again():
    bench = Bench().run()
    answer = bench.service._answer
    bench.service.wire = lambda file, index, data: [data] if file or index < 20 else []
    bench.offer(job(of=SMALL, deadline_s=600)).run(5)
    here = dict(bench.flash.slots["b"].blocks)
    bench.service.__dict__["_answer"] = lambda *_: ("rejected", {"code": "Forbidden", "message": ""})
    asked = len(bench.service.requests)
    bench.cut_connection()
    bench.run(200)
    assert bench.computer.firmware.state is S.LOADING
    assert here
    assert bench.flash.slots["b"].blocks == here
    assert len(bench.service.requests) - asked in range(2, 6)
    bench.service.__dict__["_answer"] = answer
    bench.service.wire = lambda _file, _index, data: [data]
    assert upgraded(bench.run())


def test_a_load_that_takes_too_long_fails():
    bench = Bench().run()
    bench.service.wire = lambda file, _index, data: [data] if file else []
    bench.offer(job(of=SMALL)).run()
    assert (bench.job.status, bench.job.details) == ("FAILED", {"fs": "2", "reason": "deadline"})
    assert bench.computer.firmware.fails > 5


# ---------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("seed", range(20))
def test_lost_doubled_and_swapped_blocks_still_make_the_image(seed):
    chance = random.Random(seed)
    bench = Bench(seed).run()
    bench.service.wire = lambda _file, _index, data: [data] * chance.choices((0, 1, 2), (20, 70, 10))[0]
    assert upgraded(bench.offer(job(of=SMALL)).run())


def test_a_service_that_denies_the_blocks_of_a_job_it_gives_is_not_asked_in_a_rush():
    bench = Bench().run()
    asked = []
    handle = bench.service._on_stream

    def deny(head, tail, payload):
        asked.append(tail)
        return handle(head, tail, payload)

    bench.service.__dict__["_on_stream"] = deny
    offered = job(of=SMALL, deadline_s=600)
    offered.files = {}
    bench.offer(offered).run(500)
    assert bench.computer.firmware.state is S.LOADING
    assert 8 < len(asked) < 60
    assert len(bench.service.requests) < 200


def test_three_bad_copies_of_one_block_end_the_load():
    bench = Bench().run()
    before = bench.old()
    bench.service.wire = lambda file, index, data: [bytes(len(data))] if (file, index) == (0, 7) else [data]
    bench.offer(job(of=SMALL)).run()
    assert (bench.job.status, bench.job.details) == ("FAILED", {"fs": "2", "reason": "block_hash"})
    assert bench.old() == before
    assert not bench.flash.slots["b"].blocks


@pytest.mark.parametrize(
    "damage",
    [lambda leaves: leaves[:-32], lambda leaves: b"\0" * 32 + leaves[32:]],
    ids=["one short", "one changed"],
)
def test_a_wrong_leaf_list_ends_the_load_before_the_first_block(damage):
    bench = Bench().run()
    wrong = job(of=SMALL)
    wrong.files[1] = damage(wrong.files[1])
    bench.offer(wrong).run()
    assert bench.job.status == "FAILED"
    assert bench.job.details == {"fs": "2", "reason": "leaves"}
    assert not bench.flash.slots["b"].blocks


@pytest.mark.parametrize("write", [4, 9, 14, 24, 29])
def test_a_bit_that_flips_in_flash_after_the_write_is_found_when_it_is_read_back(write):
    bench = Bench().run()
    before = bench.old()
    bench.flash.fuse.flip_at = bench.flash.fuse.writes + write
    bench.offer(job(of=SMALL)).run()
    assert (bench.job.status, bench.job.details) == ("FAILED", {"fs": "4", "reason": "image_hash"})
    assert bench.old() == before


def test_a_load_goes_on_where_the_connection_was_cut():
    bench = Bench().run()
    seen = []

    def wire(file, index, data):
        if not file:
            seen.append(index)
        return [data]

    bench.service.wire = lambda file, index, data: wire(file, index, data) if file or index < 20 else []
    bench.offer(job(of=SMALL)).run(5)
    bench.cut_connection()
    bench.service.wire = wire
    assert upgraded(bench.run())
    assert sorted(set(seen)) == list(range(41))
    assert len(seen) < 41 + 8


# ---------------------------------------------------------------------------- over HTTP


def download(bench):
    wanted = bench.computer.firmware.download
    assert wanted is not None
    return wanted


def test_an_image_that_was_fetched_whole_is_installed():
    bench = Bench(by_http=True).run().offer(job(of=SMALL, http="https://localhost/2")).run(5)
    bench.computer.feed(bench.now, download(bench), SMALL.image)
    assert upgraded(bench.run())


def test_an_image_that_was_fetched_for_a_job_that_is_over_is_thrown_away():
    bench = Bench(by_http=True).run().offer(job(of=SMALL, http="https://localhost/2")).run(5)
    over = download(bench)
    newer = release("3.0.0.0", 9_000, 1_024, 3)
    bench.service.wire = lambda file, _index, data: [] if file else [data]
    bench.offer(job(of=newer, number=2, http="https://localhost/3")).run(5)
    bench.computer.feed(bench.now, over, SMALL.image)  # its leaf list is not there yet
    bench.service.wire = lambda _file, _index, data: [data]
    bench.run(30)
    bench.computer.feed(bench.now, over, SMALL.image)
    assert not bench.flash.slots["b"].blocks
    bench.computer.feed(bench.now, download(bench), newer.image)
    assert bench.run().running() == newer.image
    assert bench.job.status == "SUCCEEDED"


# ---------------------------------------------------------------------------- the trial


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (Faults(boot_loop=True), "boot_loop"),
        (Faults(self_test=True), "self_test"),
        (Faults(deaf=True), "health_timeout"),
        (Faults(config_damage=True), "preserve_failed"),
    ],
    ids=["boot loop", "self-test", "deaf", "config damage"],
)
def test_a_bad_image_falls_back_to_the_old_one_byte_for_byte(faults, reason):
    bench = Bench(faults=faults).run()
    bench.change(lang="fr")
    before = bench.old()
    bench.offer(job(of=SMALL)).run()
    assert rolled_back(bench, before, reason)
    assert bench.settings == {"report_s": 300, "lang": "fr"}


def test_an_image_whose_slot_went_bad_after_the_check_is_never_started():
    bench = Bench().run()
    before = bench.old()
    slot = bench.flash.slots["b"]
    bench.service.gate = lambda _job: (slot.blocks.update({3: b"x"}) or "go", 0)
    bench.offer(job(of=SMALL)).run()
    assert rolled_back(bench, before, "boot_verify")


def test_a_boot_loop_uses_three_trials_and_no_more():
    bench = Bench(faults=Faults(boot_loop=True)).run().offer(job(of=SMALL)).run()
    assert Store(bench.flash).record.trials == TRIALS_MAX
    assert bench.reported["boot"] == 1 + TRIALS_MAX + 1


def test_a_device_that_fell_back_takes_the_next_attempt():
    bench = Bench(faults=Faults(self_test=True)).run().offer(job(of=SMALL)).run()
    bench.service.retry(THING)
    assert upgraded(bench.repair().run())
    assert bench.job.attempt == 2


def test_a_success_that_is_not_claimed_is_still_reported():
    bench = Bench(faults=Faults(claims_nothing=True)).run().offer(job(of=SMALL)).run(600)
    assert bench.job.status == "IN_PROGRESS"
    assert bench.reported["fw"]["confirmed"]


def test_a_success_that_is_not_reported_is_still_claimed():
    bench = Bench(faults=Faults(reports_nothing=True)).run().offer(job(of=SMALL)).run()
    assert bench.job.status == "SUCCEEDED"
    assert (THING, "firmware") not in bench.service.documents


# ---------------------------------------------------------------------------- configuration


@covers("I3FR3.1")
def test_preserve_keeps_what_was_set_and_adds_what_the_new_schema_knows():
    newer = release("2.0.0.0", 9_000, 1_024, 2, 6)
    bench = Bench().run()
    bench.change(lang="fr")
    bench.offer(job(of=newer)).run()
    assert bench.settings == {"report_s": 300, "lang": "fr", "night": False}
    assert bench.service.document(THING, "config").reported == bench.settings
    assert bench.job.details["data"] == "preserve"


@covers("I3FR3.1")
def test_reset_begins_with_the_factory_defaults():
    bench = Bench().run()
    bench.change(lang="fr", away=True)
    bench.offer(job(of=SMALL, data=1)).run()
    assert bench.settings == {"report_s": 300, "lang": "en"}
    assert bench.service.document(THING, "config").reported == bench.settings
    assert bench.job.details["data"] == "reset"


def test_a_device_may_do_the_wrong_of_the_two():
    bench = Bench(faults=Faults(wrong_mode=True)).run()
    bench.change(lang="fr")
    bench.offer(job(of=SMALL, data=1)).run()
    assert bench.settings["lang"] == "fr"


def test_what_was_changed_while_the_image_came_is_kept():
    bench = Bench().run()
    bench.on_state = lambda state: bench.change(lang="de") if state is S.LOADING else None
    assert upgraded(bench.offer(job(of=SMALL)).run())
    assert bench.settings["lang"] == "de"


# ---------------------------------------------------------------------------- power


def writes_of(faults=Faults()):  # noqa: B008 - frozen
    bench = Bench(faults=faults).run()
    before = bench.flash.fuse.writes
    bench.offer(job(of=SMALL)).run()
    return bench.flash.fuse.writes - before


def check_flash(bench):
    """One image runs, confirmed or on trial, whole; and the record says which."""
    store, slot = boot(bench.flash)
    image = store.record.images[slot]
    assert image is not None
    data = bench.flash.slots[slot].read(image.blocks)
    assert len(data) == image.size
    assert store.record.image is not None


def test_the_power_may_go_at_any_write_of_an_upgrade():
    writes = writes_of()
    assert writes > 40
    for write in range(1, writes + 1):
        for seed in range(25):
            bench = Bench(seed).run()
            bench.flash.fuse.cut_at = bench.flash.fuse.writes + write
            bench.offer(job(of=SMALL)).run()
            assert bench.computer.power_cuts == 1, f"write {write}, seed {seed}"
            assert upgraded(bench), f"write {write}, seed {seed}"


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (Faults(boot_loop=True), "boot_loop"),
        (Faults(self_test=True), "self_test"),
        (Faults(deaf=True), "health_timeout"),
        (Faults(config_damage=True), "preserve_failed"),
    ],
    ids=["boot loop", "self-test", "deaf", "config damage"],
)
def test_the_power_may_go_at_any_write_of_a_failed_upgrade(faults, reason):
    writes = writes_of(faults)
    for write in range(1, writes + 1):
        for seed in range(6):
            bench = Bench(seed, faults=faults).run()
            bench.change(lang="fr")
            before = bench.old()
            bench.flash.fuse.cut_at = bench.flash.fuse.writes + write
            bench.offer(job(of=SMALL)).run()
            assert bench.old() == before, f"write {write}, seed {seed}"
            assert bench.job.status == "FAILED"
            assert bench.job.details["reason"] == reason
            assert not bench.computer.firmware.is_trial


def test_the_power_may_go_again_and_again():
    for seed in range(1_000):
        chance = random.Random(f"again {seed}")
        bench = Bench(seed, cut_at=chance.randint(1, 30))
        bench.service.offer(THING, job(of=SMALL))
        for _ in range(12):
            bench.run(400)
            bench.flash.fuse.cut_at = bench.flash.fuse.writes + chance.randint(1, 30)
        bench.flash.fuse.cut_at = None
        bench.run()
        record = Store(bench.flash).record
        assert bench.running() in {SMALL.image, MAKE.factory_image()[1]}, seed
        assert bench.computer.firmware.slot == record.running, seed
        assert bench.job.status in {"SUCCEEDED", "FAILED"}, seed
        check_flash(bench)


def test_power_that_goes_at_the_flash_of_the_gate_mark_counts_as_not_marked():
    bench = Bench().run()
    at = []
    bench.on_state = lambda state: at.append(bench.flash.fuse.writes) if state is S.VERIFIED else None
    bench.offer(job(of=SMALL)).run()
    assert upgraded(bench)
    for offset in (1, 2):  # the copy of the configuration, the mark itself
        again = Bench(offset).run()
        again.flash.fuse.cut_at = at[0] + offset
        assert upgraded(again.offer(job(of=SMALL)).run())
        assert again.computer.power_cuts == 1
        asked = [details for _, details in again.job.history if "gate" in details]
        assert asked == [{"fs": "5", "gate": "go"}] * 2  # the first go led to nothing


def test_a_service_that_answers_nothing_is_not_asked_without_end():
    computer = Bench().computer
    computer.switch_on(NOW_S)
    computer.connected(NOW_S, own_route(THING))
    assert 2 < sum(len(computer.due(NOW_S + second)) for second in range(600)) < 60


def test_a_connection_that_comes_up_while_the_device_is_dark_is_not_spoken_by():
    computer = Bench().computer
    computer.connected(NOW_S, own_route(THING))
    assert computer.is_dark
    assert computer.due(NOW_S) == []


def test_what_is_nested_as_deep_as_a_message_can_be_does_no_harm():
    deep = b"[" * 90_000 + b"]" * 90_000
    bench = Bench().run()
    bench.offer(job(of=SMALL)).run(5)
    for ending, payload in (
        ("jobs/notify-next", b'{"execution": {"jobId": "x", "jobDocument": {"gnomon": {"x": %b}}}}' % deep),
        ("jobs/$next/get/accepted", b'{"x": %b}' % deep),
        ("shadow/name/firmware/update/accepted", b'{"x": %b}' % deep),
        (f"streams/{SMALL.stream}/data/cbor", b"\x81" * 90_000),
    ):
        bench.deliver([(f"$aws/things/{THING}/{ending}", payload)])
    assert bench.run().job.status == "SUCCEEDED"


def test_messages_without_sense_do_no_harm():
    bench = Bench().run()
    chance = random.Random(9)
    endings = (
        "jobs/notify-next", "jobs/$next/get/accepted", "jobs/x/update/rejected",
        "streams/fw-1/data/cbor", "streams/fw-1/rejected/cbor", "shadow/name/firmware/update/accepted",
    )  # fmt: skip
    bench.service.wire = lambda file, _index, data: [data] if file else []
    bench.offer(job(of=SMALL)).run(5)
    for _ in range(2_000):
        ending = chance.choice((*endings, f"streams/{SMALL.stream}/data/cbor"))
        payload = chance.choice(
            (b"", b"{", b"[]", b"null", chance.randbytes(30), cbor2.dumps({"f": 0, "i": -1, "p": "x"}),
             cbor2.dumps({"f": 0, "i": 2**70, "p": b"x"}), cbor2.dumps([1]), b'{"execution":{"jobId":1}}')
        )  # fmt: skip
        bench.deliver([(f"$aws/things/{THING}/{ending}", payload)])
    assert bench.computer.firmware.state is S.LOADING
