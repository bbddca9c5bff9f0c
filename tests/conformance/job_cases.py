"""What the jobs clients of the AWS IoT Device SDK must find (spec: ota, 4).

Expected values are those of the specification; none is taken from a run.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from awsiot import iotjobs

from ota.models import job_id
from ota.states import ExecutionTrigger
from tests.conformance.cases import Verdict, Way, expect, judge
from tests.conformance.job_host import JobHost
from tests.conformance.job_sdk import JobsClient, JobsV1, JobsV2
from tests.conformance.sdk import MQTT_5, MQTT_311, connected
from tests.fakes import NOW_MS
from tests.jobs_rig import DOCUMENT, JOB

WAYS: Final = tuple(
    Way(client, protocol, "jobs") for client in ("V1", "V2") for protocol in (MQTT_311, MQTT_5)
)
OTHER: Final = "00000000-0000-4000-8000-000000000001"
IN_PROGRESS: Final = iotjobs.JobStatus.IN_PROGRESS
SUCCEEDED: Final = iotjobs.JobStatus.SUCCEEDED
FAILED: Final = iotjobs.JobStatus.FAILED
CLIENTS: Final[Mapping[str, type[JobsV1] | type[JobsV2]]] = {"V1": JobsV1, "V2": JobsV2}

_numbers = itertools.count(1)
CASES: Final[list[Callable[["JobBench"], None]]] = []


@dataclass(frozen=True, slots=True)
class JobBench:
    """A host of jobs, and the client by which a case is run."""

    host: JobHost
    way: Way

    @contextmanager
    def client(self) -> Iterator[tuple[JobsClient, str]]:
        """Connect a fresh thing with a client that hears all it can; yield it and the thing."""
        thing = f"job-{next(_numbers)}"
        self.host.register(thing)
        with connected(self.host, self.host.identity(thing), thing, self.way.protocol) as opened:
            client = CLIENTS[self.way.client](opened, thing)
            client.subscribe(JOB)
            try:
                yield client, thing
            finally:
                client.close()


def case(check: Callable[[JobBench], None]) -> Callable[[JobBench], None]:
    """Register a case, to be run by each way."""
    CASES.append(check)
    return check


def lines() -> list[str]:
    """Return what the table says of each case."""
    return [_line(way, check) for way, check in itertools.product(WAYS, CASES)]


def run(host: JobHost, wanted: str = "") -> Iterator[Verdict]:
    """Run the cases whose line holds the text, one after another."""
    for way, check in itertools.product(WAYS, CASES):
        if wanted in _line(way, check):
            yield judge(_line(way, check), partial(check, JobBench(host, way)))


def _line(way: Way, check: Callable[[JobBench], None]) -> str:
    return f"{way} {check.__name__.replace('_', ' ')}"


# ---------------------------------------------------------------------- the cases


@case
def a_job_goes_from_the_queue_to_its_success(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        following = client.next("notify-next").execution
        expect((following.job_id, following.status), (JOB, "QUEUED"), "the next job")
        begun = client.call("start", client_token="constant").execution
        expect((begun.status, begun.version_number, begun.execution_number), (IN_PROGRESS, 2, 1), "begun")
        expect(begun.job_document, DOCUMENT | {"job": JOB}, "the document")
        client.call(
            "update", job_id=JOB, status=IN_PROGRESS, client_token="constant", status_details={"fs": "3"}
        )
        client.call("update", job_id=JOB, status=SUCCEEDED, client_token="constant", expected_version=3)
        expect(client.next("notify-next").execution, None, "the next job after it")
        expect(bench.host.state(thing), "CONFIRMING", "the state")


@case
def the_lists_hold_summaries_of_what_waits_and_of_what_is_begun(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        expect(client.call("list").queued_jobs, [], "queued jobs")
        bench.host.offer(thing)
        (queued,) = client.call("list").queued_jobs
        expect((queued.job_id, queued.version_number, queued.execution_number), (JOB, 1, 1), "queued")
        client.call("start")
        lists = client.call("list")
        expect(lists.queued_jobs, [], "queued jobs")
        (begun,) = lists.in_progress_jobs
        expect((begun.job_id, begun.version_number), (JOB, 2), "in progress")


@case
def times_are_seconds(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        answer = client.call("list")
        now = datetime.fromtimestamp(NOW_MS // 1_000, UTC)
        expect(answer.timestamp.astimezone(UTC), now, "the timestamp")
        expect(answer.queued_jobs[0].queued_at.astimezone(UTC), now, "queuedAt")


@case
def a_push_of_lists_is_read(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        jobs = client.next("notify").jobs
        expect([one.job_id for one in jobs["QUEUED"]], [JOB], "the list")
        bench.host.move(thing, ExecutionTrigger.CANCEL)
        while jobs:
            jobs = client.next("notify").jobs


@case
def a_job_is_described_with_its_document_or_without(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        whole = client.call("describe", job_id=JOB).execution
        expect((whole.thing_name, whole.job_document), (thing, DOCUMENT | {"job": JOB}), "described")
        bare = client.call("describe", job_id=JOB, include_job_document=False).execution
        expect(bare.job_document, None, "the document")


@case
def nothing_is_begun_where_nothing_waits(bench: JobBench) -> None:
    with bench.client() as (client, _):
        expect(client.call("start").execution, None, "the execution")


@case
def what_is_begun_is_returned_when_it_is_begun_again(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        first = client.call("start", client_token="one").execution
        again = client.call("start", client_token="two").execution
        expect((again.job_id, again.version_number), (first.job_id, first.version_number), "the execution")


@case
def a_constant_token_goes_through_a_job_and_begins_the_next(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        client.call("start", client_token="constant")
        client.call("update", job_id=JOB, status=FAILED, client_token="constant")
        bench.host.offer(thing, OTHER)
        begun = client.call("start", client_token="constant").execution
        expect(begun.job_id, job_id(OTHER), "the next job")


@case
def an_update_returns_state_and_document_when_asked(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        answer = client.call(
            "update",
            job_id=JOB,
            status=IN_PROGRESS,
            status_details={"self_test": "active"},
            include_job_execution_state=True,
            include_job_document=True,
        )
        state = answer.execution_state
        expect((state.status, state.version_number), (IN_PROGRESS, 2), "the state")
        expect(state.status_details, {"self_test": "active"}, "the details")
        expect(answer.job_document, DOCUMENT | {"job": JOB}, "the document")


@case
def another_version_is_refused_with_the_state(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        error = client.refusal("update", job_id=JOB, status=IN_PROGRESS, expected_version=7)
        expect(error.code, iotjobs.RejectedErrorCode.VERSION_MISMATCH, "the code")
        expect(error.execution_state.version_number, 1, "the version")


@case
def a_job_that_is_over_is_refused_with_the_state(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        bench.host.move(thing, ExecutionTrigger.CANCEL)
        error = client.refusal("update", job_id=JOB, status=SUCCEEDED)
        expect(error.code, iotjobs.RejectedErrorCode.INVALID_STATE_TRANSITION, "the code")
        expect(error.execution_state.status, iotjobs.JobStatus.CANCELED, "the status")
        error = client.refusal("describe", job_id=JOB)
        expect(error.code, iotjobs.RejectedErrorCode.TERMINAL_STATE_REACHED, "the code")


@case
def an_unknown_job_and_a_bad_request_are_refused(bench: JobBench) -> None:
    with bench.client() as (client, _):
        error = client.refusal("describe", job_id=JOB)
        expect(error.code, iotjobs.RejectedErrorCode.RESOURCE_NOT_FOUND, "the code")
        error = client.refusal("update", job_id=JOB, status=IN_PROGRESS, status_details={"a b": "c"})
        expect(error.code, iotjobs.RejectedErrorCode.INVALID_REQUEST, "the code")


@case
def leave_to_activate_is_told_in_the_state(bench: JobBench) -> None:
    with bench.client() as (client, thing):
        bench.host.offer(thing)
        client.call("start")
        gate = {"fs": "5", "gate": "ask"}
        answer = client.call(
            "update", job_id=JOB, status=IN_PROGRESS, status_details=gate, expected_version=2
        )
        expect(answer.execution_state.status_details, {"fs": "5", "gate": "go"}, "the details")
        expect(bench.host.state(thing), "ACTIVATING", "the state")
