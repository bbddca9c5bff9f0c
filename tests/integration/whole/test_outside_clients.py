"""A short part of ``make conformance``: one case of each kind, so that a break shows before that is run."""

from collections.abc import Iterator

import pytest

from tests.conformance.__main__ import SETTINGS, all_cases
from tests.conformance.cases import Bench, Case
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
CASES = [case for case in all_cases() if case.title in SHORT]


@pytest.fixture(scope="module")
def compatible(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gnomon]:
    request.getfixturevalue("broker_program")
    with Gnomon(tmp_path_factory.mktemp("compatible"), SETTINGS) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.way}: {case.title}")
def test_an_unmodified_client_finds_that(compatible: Gnomon, case: Case):
    case.check(Bench(compatible, case.way))
