"""A short part of ``make conformance``: one case of each kind, so that a break shows before that is run."""

from collections.abc import Iterator

import pytest

from tests.conformance import campaign_cases, job_cases
from tests.conformance.__main__ import SETTINGS, all_cases
from tests.conformance.cases import Bench, Case, Way
from tests.conformance.job_host import JobHost
from tests.covers import covers
from tests.system.child import Gnomon

pytestmark = pytest.mark.integration

SHORT = (
    "the first update creates version 1 and is told as delta then documents then accepted",
    "a deleted shadow answers 404 and comes back with versions that go on",
    "update get and delete are answered",
    "the stream of deltas tells each wish and nothing else",
    "another version raises conflict and changes nothing",
    "a document above the limit raises request entity too large",
)
JOB_CASES = (
    job_cases.a_job_goes_from_the_queue_to_its_success,
    job_cases.a_job_that_is_over_is_refused_with_the_state,
    job_cases.times_are_seconds,
)
CASES = [case for case in all_cases() if case.title in SHORT]


@pytest.fixture(scope="module")
def compatible(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gnomon]:
    request.getfixturevalue("broker_program")
    with Gnomon(tmp_path_factory.mktemp("compatible"), SETTINGS) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.way}: {case.title}")
def test_an_unmodified_client_finds_that(compatible: Gnomon, case: Case):
    case.check(Bench(compatible, case.way))


@pytest.fixture(scope="module")
def jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobHost]:
    request.getfixturevalue("broker_program")
    with JobHost(tmp_path_factory.mktemp("jobs")).running() as host:
        yield host


@covers("I3FR6.1")
@pytest.mark.parametrize("way", job_cases.WAYS, ids=str)
def test_an_unmodified_jobs_client_finds_that(jobs: JobHost, way: Way):
    for check in JOB_CASES:
        check(job_cases.JobBench(jobs, way))


@pytest.fixture(scope="module")
def campaign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[campaign_cases.CampaignBench]:
    request.getfixturevalue("broker_program")
    with campaign_cases.running(tmp_path_factory.mktemp("campaign")) as bench:
        yield bench


@covers("I3FR6.1", "I3FR3.1")
@pytest.mark.parametrize("way", job_cases.WAYS, ids=str)
def test_a_campaign_reaches_a_device_that_speaks_by_an_unmodified_jobs_client(
    campaign: campaign_cases.CampaignBench, way: Way
):
    campaign_cases.check(campaign, way)
