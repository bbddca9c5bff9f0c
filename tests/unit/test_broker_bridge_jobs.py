"""Jobs over the bridge: who is answered, where, and what a thing hears unasked."""

import asyncio
from typing import Any

import mqtt5
import msgspec
import pytest

from broker_bridge import dispatch, job_speaker
from broker_bridge.inbox import Message
from broker_bridge.poison import Suspects
from broker_bridge.topics import JobRequest
from ota import job_service
from ota.job_requests import JobOperation
from ota.states import ExecutionState, ExecutionTrigger
from registry.models import ThingKind
from tests.bridge_rig import ANNA, LIMITS, Acked, BridgeRig, make_rig, running, settled, turns
from tests.covers import covers
from tests.faulty_store import EVERYTHING, FaultyStore
from tests.jobs_rig import CAMPAIGN, DOCUMENT, JOB

S, X = ExecutionState, ExecutionTrigger
OTHER = "00000000-0000-4000-8000-000000000001"
P = "$aws/things/hall/jobs"
UP = "gnomon/gateways/meter/up/things/hall/jobs"
DOWN = "gnomon/gateways/meter/down/things/hall/jobs"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a second in life does not here."""
    monkeypatch.setattr(job_speaker, "NOTED_S", 0.001)
    monkeypatch.setattr(job_speaker, "LOOK_S", 0.01)


@pytest.fixture
def rig(tmp_path) -> BridgeRig:
    return make_rig(tmp_path)


def ask(rig: BridgeRig, topic: str, body: Any = b"", **options: Any) -> int:
    payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return rig.deliver(topic, payload, **options)


async def answer(rig: BridgeRig, topic: str, body: Any = b"", base: str | None = None) -> Any:
    """Return what is said to a request, which is acknowledged after it."""
    number, before = ask(rig, topic, body), len(rig.session.said)
    await settled(lambda: number in rig.session.acked, f"request {number} is acknowledged")
    own = [one for one in rig.session.said[before:] if one.topic.startswith(f"{base or topic}/")]
    assert len(own) == 1, own
    place = rig.session.log.index(own[0])
    assert place < rig.session.log.index(Acked(number)), "an answer is queued before its acknowledgement"
    return own[0]


def pushed(rig: BridgeRig, word: str, base: str = P) -> list[Any]:
    return rig.session.on(f"{base}/{word}")


async def noted(rig: BridgeRig, campaign: str = CAMPAIGN) -> None:
    """Wait until all that there was to tell is written down as told."""
    for _ in range(400):
        if not (await rig.jobs.execution("hall", campaign)).untold:
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it stays pending")


# ---------------------------------------------------------------------------- requests


@covers("I3FR6.1", "X38")
async def test_a_thing_works_through_its_job_on_its_own_topics(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        listed = await answer(rig, f"{P}/get", {"clientToken": "t"})
        assert listed.topic == f"{P}/get/accepted"
        assert [job["jobId"] for job in listed.body["queuedJobs"]] == [JOB]
        begun = await answer(rig, f"{P}/start-next")
        assert begun.topic == f"{P}/start-next/accepted"
        assert begun.body["execution"]["jobDocument"] == DOCUMENT | {"job": JOB}
        again = await answer(rig, f"{P}/$next/get")
        assert again.topic == f"{P}/$next/get/accepted"
        assert again.body["execution"]["status"] == "IN_PROGRESS"
        done = await answer(rig, f"{P}/{JOB}/update", {"status": "SUCCEEDED", "expectedVersion": "2"})
        assert done.topic == f"{P}/{JOB}/update/accepted"
        assert (await rig.jobs.execution("hall")).state is S.CONFIRMING


REFUSALS = {
    "InvalidTopic": (f"{P}/a.b/get", b""),
    "InvalidJson": (f"{P}/get", b"?"),
    "InvalidRequest": (f"{P}/{JOB}/update", b"{}"),
    "ResourceNotFound": (f"{P}/c-1/get", b""),
    "TerminalStateReached": (f"{P}/{JOB}/get", b""),
    "InvalidStateTransition": (f"{P}/{JOB}/update", b'{"status":"IN_PROGRESS"}'),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_each_refusal_has_its_code(rig, code):
    topic, body = REFUSALS[code]
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        await rig.jobs.move("hall", X.CANCEL)
        refused = await answer(rig, topic, body)
        assert (refused.topic, refused.body["code"]) == (f"{topic}/rejected", code)
        assert isinstance(refused.body["timestamp"], int)
        assert rig.metrics.rejections.values == {code: 1}


async def test_a_version_that_is_another_is_told_with_the_state(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        body = {"status": "IN_PROGRESS", "expectedVersion": 7}
        refused = await answer(rig, f"{P}/{JOB}/update", body)
        assert (refused.body["code"], refused.body["executionState"]["versionNumber"]) == (
            "VersionMismatch",
            1,
        )


async def test_the_eleventh_unanswered_request_is_throttled_and_others_are_not(rig):
    for thing in ("hall", "attic"):
        await rig.register(thing)
    async with running(rig, connect=False):
        rig.session.begin()  # nothing is served yet
        numbers = [ask(rig, f"{P}/get", {"clientToken": f"t{number}"}) for number in range(11)]
        (refused,) = rig.session.said
        assert refused.topic == f"{P}/get/rejected"
        assert (refused.body["code"], refused.body["clientToken"]) == ("RequestThrottled", "t10")
        assert refused.body["retryAfter"] == job_service.RETRY_AFTER_S
        assert rig.session.acked == numbers[10:]
        ask(rig, "$aws/things/attic/jobs/get")
        assert len(rig.session.said) == 1


async def test_many_requests_share_a_commit(rig):
    for number in range(50):
        await rig.register(f"th-{number}")
    async with running(rig):
        for number in range(50):
            await rig.jobs.offer(f"th-{number}")
        await turns()
        rig.store.commits.clear()
        for number in range(50):
            ask(rig, f"$aws/things/th-{number}/jobs/start-next")
        await settled(lambda: len(rig.session.acked) == 50)
        starts = [writes for writes in rig.store.commits if any(b"LOADING" in one.body for one in writes)]
        assert len(starts) <= 3


async def test_a_thing_that_is_not_registered_has_no_jobs(rig):
    async with running(rig):
        refused = await answer(rig, f"{P}/get", {"clientToken": "t"})
        assert (refused.body["code"], refused.body["clientToken"]) == ("ResourceNotFound", "t")


async def test_who_is_suspended_hears_nothing_and_is_acknowledged(rig):
    await rig.register("hall")
    await rig.registry.suspend("hall", ANNA)
    async with running(rig):
        await rig.jobs.offer("hall")
        number = ask(rig, f"{P}/start-next")
        await settled(lambda: number in rig.session.acked)
        await noted(rig)
        assert rig.session.said == []
        assert rig.dropped("suspended") == 1


async def test_what_is_retained_is_no_request(rig):
    await rig.register("hall")
    async with running(rig):
        number = ask(rig, f"{P}/get", retain=True)
        await settled(lambda: number in rig.session.acked)
        assert rig.session.said == []
        assert rig.dropped("retained") == 1


async def test_no_answer_is_published_on_a_topic_that_somebody_made_up(rig):
    await rig.register("hall")
    async with running(rig):
        number = ask(rig, f"{P}/ü\u2028/get")
        await settled(lambda: number in rig.session.acked)
        assert rig.session.said == []
        assert rig.dropped("unknown_topic") == 1


async def test_a_request_with_qos_0_is_answered_and_not_acknowledged(rig):
    await rig.register("hall")
    async with running(rig):
        ask(rig, f"{P}/get", qos=0)
        await settled(lambda: bool(rig.session.said))
        assert rig.session.acked == []


# ---------------------------------------------------------------------------- a gateway


async def home(rig: BridgeRig) -> None:
    await rig.register("meter", ThingKind.GATEWAY)
    await rig.register("hall", has_certificate=False, gateways=("meter",))


@covers("I3FR6.1")
async def test_a_gateway_speaks_for_what_is_attached_to_it_in_its_tree_only(rig):
    await home(rig)
    async with running(rig):
        await rig.jobs.offer("hall")
        begun = await answer(rig, f"{UP}/start-next", base=f"{DOWN}/start-next")
        assert begun.topic == f"{DOWN}/start-next/accepted"
        assert begun.body["execution"]["jobId"] == JOB
        done = await answer(rig, f"{UP}/{JOB}/update", {"status": "IN_PROGRESS"}, base=f"{DOWN}/{JOB}/update")
        assert done.topic == f"{DOWN}/{JOB}/update/accepted"


async def test_what_is_not_attached_is_forbidden_whether_it_exists_or_not(rig):
    await home(rig)
    await rig.register("attic")
    async with running(rig):
        await rig.jobs.offer("attic")
        bodies = []
        for thing in ("attic", "nobody"):
            up, down = (
                f"gnomon/gateways/meter/{way}/things/{thing}/jobs/start-next" for way in ("up", "down")
            )
            refused = await answer(rig, up, {"clientToken": "t"}, base=down)
            assert refused.topic == f"{down}/rejected"
            bodies.append(refused.body)
        assert bodies[0] == bodies[1]
        assert bodies[0]["code"] == "Forbidden"
        assert (await rig.jobs.execution("attic")).state in {S.QUEUED, S.NOTIFIED}
        await rig.refusals.flush()


async def test_a_thing_without_a_certificate_of_its_own_is_not_heard_on_its_own_topics(rig):
    await home(rig)
    async with running(rig):
        await rig.jobs.offer("hall")
        number = ask(rig, f"{P}/start-next")
        await settled(lambda: number in rig.session.acked)
        assert rig.session.topics == [topic for topic in rig.session.topics if topic.startswith(DOWN)]
        assert rig.dropped("no_certificate") == 1


# ---------------------------------------------------------------------------- pushes


@covers("I3FR6.1")
async def test_an_offer_is_pushed_and_noted_once_the_broker_has_it(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        await settled(lambda: bool(pushed(rig, "notify-next")))
        (lists,), (following,) = pushed(rig, "notify"), pushed(rig, "notify-next")
        assert [job["jobId"] for job in lists["jobs"]["QUEUED"]] == [JOB]
        assert following["execution"]["jobDocument"] == DOCUMENT | {"job": JOB}
        assert (await rig.jobs.execution("hall")).state is S.QUEUED
        rig.session.settle()
        await noted(rig)
        assert (await rig.jobs.execution("hall")).state is S.NOTIFIED
        await turns(200)
        assert len(pushed(rig, "notify")) == 1


async def test_a_begun_job_is_no_news_and_an_ended_one_is(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        await settled(lambda: bool(pushed(rig, "notify-next")))
        await answer(rig, f"{P}/start-next")
        await answer(rig, f"{P}/{JOB}/update", {"status": "FAILED"})
        await settled(lambda: len(pushed(rig, "notify-next")) == 2)
        assert pushed(rig, "notify")[1]["jobs"] == {}
        assert "execution" not in pushed(rig, "notify-next")[1]


async def test_another_job_in_the_queue_is_only_a_list(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        await settled(lambda: len(pushed(rig, "notify")) == 1)
        rig.clock.advance(1)
        await rig.jobs.offer("hall", OTHER)
        await settled(lambda: len(pushed(rig, "notify")) == 2)
        assert len(pushed(rig, "notify-next")) == 1
        rig.session.settle()
        await noted(rig, campaign=OTHER)
        # The vector: of J1 and J2 in the queue J2 is begun, so it is the next one.
        await rig.jobs.move("hall", X.START, OTHER)
        await settled(lambda: len(pushed(rig, "notify-next")) == 2)
        assert pushed(rig, "notify-next")[1]["execution"]["jobId"] != JOB
        assert len(pushed(rig, "notify")) == 2


async def test_a_thing_and_all_its_gateways_hear_of_its_jobs(rig):
    await rig.register("meter", ThingKind.GATEWAY)
    await rig.register("hall", gateways=("meter",))
    async with running(rig):
        await rig.jobs.offer("hall")
        await settled(lambda: bool(pushed(rig, "notify-next", DOWN)))
        assert len(pushed(rig, "notify", P)) == len(pushed(rig, "notify", DOWN)) == 1


async def test_what_the_broker_did_not_take_is_said_again_at_the_next_connection(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        await settled(lambda: bool(pushed(rig, "notify-next")))
        rig.session.disconnect()
        await rig.session.connect()
        await settled(lambda: len(pushed(rig, "notify-next")) == 2)
        rig.session.settle()
        await noted(rig)


async def test_what_became_news_while_the_broker_was_away_is_said_when_it_is_back(rig):
    await rig.register("hall")
    async with running(rig):
        rig.session.disconnect()
        await rig.jobs.offer("hall")
        await turns()
        assert rig.session.said == []
        await rig.session.connect()
        await settled(lambda: bool(pushed(rig, "notify-next")))


async def test_what_another_process_offered_is_found_by_looking(tmp_path):
    store = FaultyStore(make_rig(tmp_path / "a").store.inner, exclusive=False)
    rig, other = make_rig(tmp_path / "b", store=store), make_rig(tmp_path / "c", store=store)
    await rig.register("hall")
    async with running(rig), running(other, connect=False):
        assert (await rig.jobs.lane.view("hall")).open == ()
        await other.jobs.offer("hall")
        await settled(lambda: bool(pushed(rig, "notify-next")))
        assert pushed(rig, "notify-next")[-1]["execution"]["jobId"] == JOB


async def test_what_finds_no_room_is_said_later(rig):
    await rig.register("hall")
    async with running(rig):
        rig.session.room = 1
        await rig.jobs.offer("hall")
        await settled(lambda: bool(pushed(rig, "notify")))
        await turns()
        assert pushed(rig, "notify-next") == []
        rig.session.make_room()
        await settled(lambda: bool(pushed(rig, "notify-next")))


async def test_one_thing_whose_document_cannot_be_had_keeps_no_other_waiting(rig):
    for thing in ("hall", "attic"):
        await rig.register(thing)
    async with running(rig):
        real = rig.jobs.documents.document

        async def document(execution):
            if execution.thing == "hall":
                raise ZeroDivisionError
            return await real(execution)

        rig.jobs.documents.document = document
        await rig.jobs.offer("hall")
        await rig.jobs.offer("attic")
        await settled(lambda: bool(pushed(rig, "notify-next", "$aws/things/attic/jobs")))
        assert pushed(rig, "notify") == []
        rig.jobs.documents.document = real
        await settled(lambda: bool(pushed(rig, "notify-next")))


async def test_nobody_is_told_of_what_nobody_hears(rig):
    async with running(rig):
        await rig.jobs.offer("hall")
        await noted(rig)
        assert rig.session.said == []


# ---------------------------------------------------------------------------- when something fails


async def test_a_store_that_is_down_is_answered_and_acknowledged(rig):
    await rig.register("hall")
    async with running(rig):
        await rig.jobs.offer("hall")
        rig.store.refuses = ("commit",)
        refused = await answer(rig, f"{P}/start-next", {"clientToken": "t"})
        assert refused.topic == f"{P}/start-next/rejected"
        assert (refused.body["code"], refused.body["clientToken"]) == ("RequestThrottled", "t")
        assert await rig.dead_letters() == []
        rig.store.refuses = ()
        assert (await answer(rig, f"{P}/start-next")).topic.endswith("accepted")


async def test_a_registry_that_cannot_be_asked_is_answered_and_acknowledged(rig):
    await rig.register("hall")
    async with running(rig):
        rig.store.refuses = EVERYTHING
        refused = await answer(rig, "$aws/things/cellar/jobs/start-next")
        assert refused.body["code"] == "RequestThrottled"


async def test_a_record_of_the_registry_that_cannot_be_read_fails_alone(rig):
    honest = rig.registry.standings

    async def failing(names):
        if "attic" in names:
            raise ValueError("planted")
        return await honest(names)

    rig.registry.standings = failing
    async with running(rig):
        await rig.register("hall")
        packets = [ask(rig, topic) for topic in (f"{P}/get", "$aws/things/attic/jobs/get", f"{P}/get")]
        await settled(lambda: len(rig.session.acked) == len(packets), "all are acknowledged")
        assert len(rig.session.on(f"{P}/get/accepted")) == 2
        assert [one["code"] for one in rig.session.on("$aws/things/attic/jobs/get/rejected")] == [
            "InternalError"
        ]
        assert [letter["thing"] for letter in await rig.dead_letters()] == ["attic"]


async def test_what_nobody_foresaw_is_a_500_and_a_dead_letter(rig, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("our bug")

    monkeypatch.setattr(job_service, "answer", fail)
    await rig.register("hall")
    async with running(rig):
        refused = await answer(rig, f"{P}/start-next", {"clientToken": "t"})
        assert (refused.body["code"], refused.body["clientToken"]) == ("InternalError", "t")
        assert "bug" not in str(refused.body)
        (letter,) = await rig.dead_letters()
        assert (letter["operation"], letter["reason"]) == (
            "JobRequest.start-next",
            "ZeroDivisionError: our bug",
        )


async def test_what_fails_before_it_is_asked_fails_alone(rig, monkeypatch):
    real = dispatch.admit

    def admit(request, thing, gateway):
        if request.thing == "hall":
            raise ZeroDivisionError
        return real(request, thing, gateway)

    monkeypatch.setattr(dispatch, "admit", admit)
    for thing in ("hall", "attic"):
        await rig.register(thing)
    async with running(rig):
        ask(rig, "$aws/things/attic/jobs/get")
        assert (await answer(rig, f"{P}/get")).body["code"] == "InternalError"
        assert len(rig.session.on("$aws/things/attic/jobs/get/accepted")) == 1


async def test_what_killed_the_process_again_and_again_is_a_dead_letter(tmp_path):
    body = b'{"clientToken":"killer"}'
    packet = mqtt5.PublishPacket(f"{P}/get", body, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=7, duplicate=True)
    for _ in range(LIMITS.poison_tries_max):
        suspects = Suspects(tmp_path / "jobs", LIMITS.poison_tries_max)
        suspects.begin()
        request = JobRequest(JobOperation.LIST, "hall")
        suspects.take([Message(request, body, 7, 1, duplicate=True)])
    rig = make_rig(tmp_path)
    await rig.register("hall")
    async with running(rig):
        rig.bridge.received(packet, rig.session.connection)
        await settled(lambda: 7 in rig.session.acked)
        (refused,) = rig.session.said
        assert refused.body["code"] == "InternalError"
        assert "clientToken" not in refused.body
        assert len(await rig.dead_letters()) == 1
        # Clients send the same bytes for everything: another request of them is not the killer.
        assert (await answer(rig, f"{P}/start-next", body)).topic == f"{P}/start-next/accepted"


async def test_a_request_that_waits_when_the_connection_breaks_is_not_served_twice(rig):
    await rig.register("hall")
    async with running(rig, connect=False):
        rig.session.begin()
        ask(rig, f"{P}/get")
        rig.session.disconnect()
        await rig.session.connect()
        await turns()
        assert rig.session.said == []
        assert len(rig.bridge._jobs) == 0
