"""The job service: what devices ask, carried out and answered in bytes."""

import asyncio
from typing import Any

import msgspec
import pytest

from infra.documents.port import StoreBrokenError, StoreUnavailableError
from ota import job_requests, job_service
from ota.executions import Tell
from ota.job_ports import Hold, Never
from ota.job_requests import Code, JobOperation
from ota.job_service import RETRY_AFTER_S, Answered, Asked, Told
from ota.states import ExecutionState, ExecutionTrigger
from tests.bridge_rig import settled
from tests.covers import covers
from tests.faulty_store import Crash
from tests.jobs_rig import CAMPAIGN, DOCUMENT, IMAGE, JOB, running_jobs

Op, S, X = JobOperation, ExecutionState, ExecutionTrigger
OTHER = "00000000-0000-4000-8000-000000000001"
GATE = {"fs": "5", "gate": "ask"}


def body(answered: Answered) -> Any:
    return msgspec.json.decode(answered.body)


@covers("I3FR6.1")
async def test_a_job_from_the_queue_to_its_claim():
    async with running_jobs() as rig:
        await rig.offer("hall")
        begun = await rig.ask("hall", Op.START_NEXT, clientToken="a")
        assert begun.accepted
        assert body(begun)["execution"]["jobDocument"] == DOCUMENT | {"job": JOB}
        assert body(begun)["clientToken"] == "a"
        assert (await rig.update("hall", "IN_PROGRESS", statusDetails={"fs": "3"})).accepted
        gone = body(await rig.update("hall", "IN_PROGRESS", statusDetails=GATE, expectedVersion=3))
        assert gone["executionState"] == {
            "status": "IN_PROGRESS",
            "statusDetails": {"fs": "5", "gate": "go"},
            "versionNumber": 4,
        }
        assert (await rig.execution("hall")).snapshot == "snap-1"
        assert (await rig.update("hall", "SUCCEEDED", statusDetails={"fs": "8"})).accepted
        done = await rig.execution("hall")
        assert (done.state, done.version, done.boot) == (S.CONFIRMING, 5, 3)
        refused = body(await rig.update("hall", "SUCCEEDED", statusDetails={"fs": "8"}))
        assert (refused["code"], refused["executionState"]["status"]) == (
            "InvalidStateTransition",
            "SUCCEEDED",
        )


async def test_the_document_comes_with_an_update_that_asks_for_it_and_again_with_the_same_one():
    async with running_jobs() as rig:
        await rig.offer("hall")
        first = await rig.update("hall", "IN_PROGRESS", includeJobDocument=True, clientToken="t")
        assert body(first)["jobDocument"] == DOCUMENT | {"job": JOB}
        rig.clock.advance(20)
        again = await rig.update("hall", "IN_PROGRESS", includeJobDocument=True, clientToken="t")
        assert again.body == first.body
        assert (await rig.execution("hall")).version == 2


async def test_each_of_a_batch_has_its_own_answer_in_its_place():
    async with running_jobs() as rig:
        await rig.offer("hall")
        answers = await rig.jobs.handle(
            [
                Asked(Op.LIST, "hall", "", b"?"),
                Asked(Op.START_NEXT, "hall", "", b""),
                Asked(Op.GET, "hall", "a.b", b'{"clientToken":"t"}'),
                Asked(Op.LIST, "hall", "", b'{"clientToken":"u"}'),
            ]
        )
        assert [one.code for one in answers] == [Code.INVALID_JSON, None, Code.INVALID_TOPIC, None]
        assert body(answers[2])["clientToken"] == "t"
        assert [job["jobId"] for job in body(answers[3])["inProgressJobs"]] == [JOB]


async def test_nothing_is_pending_for_a_stranger():
    async with running_jobs() as rig:
        assert body(await rig.ask("nobody", Op.START_NEXT)).keys() == {"timestamp"}
        assert body(await rig.ask("nobody", Op.LIST)) == {
            "inProgressJobs": [],
            "queuedJobs": [],
            "timestamp": rig.clock.now_ms() // 1_000,
        }


async def test_a_held_device_is_told_when_to_ask_again():
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.ask("hall", Op.START_NEXT)
        rig.gate.permit = Hold("dr_event", 300)
        held = body(await rig.update("hall", "IN_PROGRESS", statusDetails=GATE, clientToken="g"))
        assert (held["code"], held["message"], held["retryAfter"], held["clientToken"]) == (
            "RequestThrottled",
            "hold: dr_event",
            300,
            "g",
        )
        waiting = await rig.execution("hall")
        assert (waiting.state, waiting.reason, waiting.version) == (S.STAGED, "hold: dr_event", 2)
        rig.clock.advance(300)
        rig.gate.permit = Hold("window", 60)
        await rig.update("hall", "IN_PROGRESS", statusDetails=GATE)
        later = await rig.execution("hall")
        assert (later.reason, later.held_at_ms) == ("hold: window", waiting.held_at_ms), "held from the first"


async def test_never_leaves_the_execution_where_it_was():
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.ask("hall", Op.START_NEXT)
        rig.gate.permit = Never()
        refused = body(await rig.update("hall", "IN_PROGRESS", statusDetails=GATE))
        assert refused["code"] == "InvalidStateTransition"
        assert (await rig.execution("hall")).state is S.LOADING


async def test_a_gate_that_fails_lets_nobody_through_and_stops_nobody_else():
    async with running_jobs() as rig:
        for thing in ("hall", "attic"):
            await rig.offer(thing)
            await rig.ask(thing, Op.START_NEXT)
        rig.gate.permit = ZeroDivisionError()
        ask = msgspec.json.encode({"status": "IN_PROGRESS", "statusDetails": GATE})
        failed, fine = await rig.jobs.handle(
            [Asked(Op.UPDATE, "hall", JOB, ask), Asked(Op.LIST, "attic", "", b"")]
        )
        assert (failed.code, type(failed.failure)) == (Code.INTERNAL_ERROR, ZeroDivisionError)
        assert "ZeroDivision" not in failed.body.decode()
        assert fine.accepted
        rig.gate.permit = StoreUnavailableError("down")
        throttled = await rig.update("hall", "IN_PROGRESS", statusDetails=GATE)
        assert body(throttled)["retryAfter"] == RETRY_AFTER_S
        assert (await rig.execution("hall")).state is S.LOADING


async def test_a_gate_that_takes_too_long_holds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_service, "GATE_S_MAX", 0.01)
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.ask("hall", Op.START_NEXT)
        rig.gate.slow = asyncio.Event()
        held = await rig.update("hall", "IN_PROGRESS", statusDetails=GATE)
        assert body(held)["message"] == "hold: service_health"


async def test_who_is_stopped_while_the_gate_thinks_does_not_go():
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.ask("hall", Op.START_NEXT)
        rig.gate.slow = asyncio.Event()
        asked = asyncio.create_task(rig.update("hall", "IN_PROGRESS", statusDetails=GATE))
        await settled(lambda: bool(rig.gate.asked))
        await rig.move("hall", X.CANCEL)
        rig.gate.slow.set()
        assert body(await asked)["code"] == "InvalidStateTransition"
        assert (await rig.execution("hall")).state is S.CANCELED


async def test_a_store_that_is_down_is_throttled_and_what_is_asked_again_is_done():
    async with running_jobs() as rig:
        await rig.offer("hall")
        rig.store.refuses = ("commit",)
        refused = await rig.ask("hall", Op.START_NEXT, clientToken="t")
        assert body(refused) == {
            "code": "RequestThrottled",
            "message": "not now: send again",
            "retryAfter": RETRY_AFTER_S,
            "clientToken": "t",
            "timestamp": rig.clock.now_ms() // 1_000,
        }
        assert refused.failure is None
        rig.store.refuses = ()
        assert (await rig.ask("hall", Op.START_NEXT)).accepted


async def test_a_reply_that_the_store_lost_is_made_good_by_asking_again():
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.ask("hall", Op.START_NEXT)
        rig.store.crash = Crash.AFTER_COMMIT
        update: dict[str, Any] = {"statusDetails": {"fs": "3"}, "expectedVersion": 2, "clientToken": "t"}
        assert not (await rig.update("hall", "IN_PROGRESS", **update)).accepted
        assert (await rig.update("hall", "IN_PROGRESS", **update)).accepted
        assert (await rig.execution("hall")).version == 3


async def test_a_broken_store_ends_the_process():
    async with running_jobs() as rig:
        await rig.offer("hall")
        rig.store.crash, rig.store.crash_with = Crash.BEFORE_COMMIT, StoreBrokenError("fsync")
        with pytest.raises(StoreBrokenError):
            await rig.ask("hall", Op.START_NEXT)


async def test_a_bug_in_one_request_is_answered_500_and_kept(monkeypatch: pytest.MonkeyPatch):
    def parse(operation: JobOperation, job: str, payload: bytes):
        if payload == b'{"clientToken":"t"}':
            raise ZeroDivisionError
        return real(operation, job, payload)

    real = job_requests.parse
    monkeypatch.setattr(job_service, "parse", parse)
    async with running_jobs() as rig:
        failed, fine = await rig.jobs.handle(
            [Asked(Op.LIST, "hall", "", b'{"clientToken":"t"}'), Asked(Op.LIST, "hall", "", b"")]
        )
        assert (body(failed)["code"], body(failed)["clientToken"]) == ("InternalError", "t")
        assert isinstance(failed.failure, ZeroDivisionError)
        assert fine.accepted


async def test_a_document_that_cannot_be_had_is_no_accepted_answer():
    async with running_jobs() as rig:
        await rig.offer("hall")
        rig.documents.fails = StoreUnavailableError("down")
        assert body(await rig.ask("hall", Op.START_NEXT))["code"] == "RequestThrottled"
        rig.documents.fails = ZeroDivisionError()
        assert body(await rig.ask("hall", Op.GET, "$next"))["code"] == "InternalError"
        rig.documents.fails = None
        begun = body(await rig.ask("hall", Op.START_NEXT))
        assert begun["execution"]["versionNumber"] == 2


# ---------------------------------------------------------------------------- pushes


async def test_a_thing_hears_its_lists_and_its_next_job_with_the_document():
    async with running_jobs() as rig:
        await rig.offer("hall")
        notify, notify_next = await rig.jobs.pushes("hall")
        lists, following = msgspec.json.decode(notify), msgspec.json.decode(notify_next)
        assert [job["jobId"] for job in lists["jobs"]["QUEUED"]] == [JOB]
        assert following["execution"]["jobDocument"] == DOCUMENT | {"job": JOB}
        assert following["execution"]["status"] == "QUEUED"


async def test_a_thing_without_jobs_hears_empty_lists_and_no_execution():
    async with running_jobs() as rig:
        notify, notify_next = await rig.jobs.pushes("hall")
        now_s = rig.clock.now_ms() // 1_000
        assert msgspec.json.decode(notify) == {"jobs": {}, "timestamp": now_s}
        assert msgspec.json.decode(notify_next) == {"timestamp": now_s}


async def test_what_was_told_is_no_longer_pending_and_the_offer_is_notified():
    async with running_jobs() as rig:
        await rig.offer("hall")
        offered = await rig.execution("hall")
        assert offered.untold == Tell.NOTIFY | Tell.NEXT
        await rig.jobs.told([Told("hall", {CAMPAIGN: offered.news})])
        told = await rig.execution("hall")
        assert (told.untold, told.state, told.version) == (0, S.NOTIFIED, 1)


async def test_a_word_that_comes_late_does_not_hide_newer_news():
    async with running_jobs() as rig:
        await rig.offer("hall")
        first = (await rig.execution("hall")).news
        await rig.move("hall", X.RECALL)
        await rig.jobs.told([Told("hall", {CAMPAIGN: first})])
        assert (await rig.execution("hall")).untold == Tell.NOTIFY | Tell.NEXT


async def test_what_was_begun_meanwhile_is_told_all_the_same():
    async with running_jobs() as rig:
        await rig.offer("hall")
        first = (await rig.execution("hall")).news
        await rig.ask("hall", Op.START_NEXT)
        await rig.jobs.told([Told("hall", {CAMPAIGN: first})])
        begun = await rig.execution("hall")
        assert (begun.untold, begun.state) == (0, S.LOADING)


async def test_what_is_over_is_told_too():
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.move("hall", X.CANCEL)
        news = (await rig.execution("hall")).news
        await rig.jobs.told([Told("hall", {CAMPAIGN: news})])
        assert (await rig.execution("hall")).untold == 0


# ---------------------------------------------------------------------------- what may be fetched


async def test_a_thing_may_fetch_what_it_is_at_work_on_and_only_then():
    async with running_jobs() as rig:
        await rig.offer("hall")
        assert not await rig.jobs.uses("hall", IMAGE)
        await rig.ask("hall", Op.START_NEXT)
        assert await rig.jobs.uses("hall", IMAGE)
        assert not await rig.jobs.uses("hall", "00" * 32)
        assert await rig.jobs.streams_of("hall") == {"fw-6f1c7a52"}
        assert await rig.jobs.streams_of("attic") == frozenset()
        await rig.move("hall", X.CANCEL)
        assert not await rig.jobs.uses("hall", IMAGE)
        assert await rig.jobs.streams_of("hall") == frozenset()


async def test_what_a_campaign_uses_is_asked_once_and_no_fetch_asks_the_store():
    async with running_jobs() as rig:
        await rig.offer("hall")
        await rig.ask("hall", Op.START_NEXT)
        rig.store.refuses = ("get", "find", "commit")
        for _ in range(100):
            assert await rig.jobs.uses("hall", IMAGE)
        assert rig.documents.uses_asked == 1


async def test_the_streams_of_two_jobs_are_both_served():
    async with running_jobs() as rig:
        for campaign in (CAMPAIGN, OTHER):
            await rig.offer("hall", campaign)
            await rig.move("hall", X.START, campaign)
        assert await rig.jobs.streams_of("hall") == {"fw-6f1c7a52", "fw-00000000"}
