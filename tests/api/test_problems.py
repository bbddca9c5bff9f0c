"""Refusals: one table, stable words, nothing of ours let out."""

import re
from pathlib import Path

import pytest

from api import problems
from api.limits import ApiLimits
from api.problems import AWS_TYPES, KINDS, describe
from infra.documents.port import StoreBrokenError, StoreUnavailableError
from programs import errors as programs
from registry import errors as registry
from security.people import errors as people
from security.policy import Role
from shadow import errors as shadow
from tests.api.rig import AWS, SHADOW, Rig, api, slug
from tests.vectors import make_api


def test_words_are_kebab_case_and_given_once():
    slugs = [kind.slug for kind in KINDS]
    assert len(set(slugs)) == len(slugs)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", one) for one in slugs)


def test_no_word_changes():
    """A published word is a promise. Add lines; never change or remove one."""
    assert make_api.words() == make_api.PROBLEMS.read_text()


@pytest.mark.parametrize("module", [shadow, registry, people, programs])
def test_every_error_of_a_domain_has_its_own_row(module: object):
    bases = {shadow.ShadowError, shadow.ConflictError, shadow.InternalError}
    bases |= {people.PeopleError, people.NotFoundError, people.ConflictError}
    bases |= {programs.ProgramError, programs.NotFoundError, programs.ConflictError}
    bases |= {registry.RegistryError, registry.NotFoundError, registry.ConflictError}
    errors = {
        error for error in vars(module).values() if isinstance(error, type) and issubclass(error, Exception)
    }
    for error in errors - bases:
        assert any(base in problems._BY_ERROR for base in error.__mro__), error


def test_a_status_is_the_same_in_the_domain_and_here():
    for error, kind in problems._BY_ERROR.items():
        if issubclass(error, shadow.ShadowError):
            assert error.code == kind.status, error


def test_every_status_of_the_aws_shaped_routes_has_its_type():
    assert {400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 503} <= AWS_TYPES.keys()


def test_a_refusal_of_programs_says_everything_that_is_wrong():
    reasons = ("CATEGORY", "EXCLUSIVE_WITH:rtp")
    ineligible = describe(programs.IneligibleError("th-1", "cpp-27", reasons))
    assert (ineligible.kind.status, ineligible.kind.slug) == (422, "ineligible")
    assert ineligible.members == {"reasons": reasons}
    invalid = describe(programs.InvalidEntryError("program", ["name: 1 to 64 characters", "zones: ids"]))
    assert invalid.members == {"problems": ("name: 1 to 64 characters", "zones: ids")}


def test_of_what_nobody_foresaw_nothing_is_told():
    problem = describe(ValueError("secret"))
    assert (problem.kind, problem.detail) == (problems.INTERNAL, None)
    assert "secret" not in problem.message


class _Failing:
    """A store of which every question fails in the same way."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def __call__(self, *_: object, **__: object) -> object:
        raise self.error


@pytest.mark.parametrize("error", [StoreUnavailableError("disk"), StoreBrokenError("disk")])
async def test_a_store_that_is_gone_is_503_with_retry_after(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    monkeypatch.setattr(rig.store, "get", _Failing(error), raising=False)
    own, aws = await rig.http.get("/v1/things/attic"), await rig.http.get("/things/attic/shadow")
    assert (own.status_code, slug(own), own.headers["retry-after"]) == (503, "service-unavailable", "1")
    assert (aws.status_code, aws.headers["x-amzn-errortype"]) == (503, "ServiceUnavailableException")
    assert aws.headers["retry-after"] == "1"
    assert bool(rig.broken) is isinstance(error, StoreBrokenError), "then the process must stop"


async def test_a_commit_that_fails_is_503_and_nothing_was_accepted(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as failing:
        failing.setattr(rig.store, "commit", _Failing(StoreUnavailableError("disk")), raising=False)
        assert slug(await rig.desire({"a": 1})) == "service-unavailable"
    assert (await rig.http.get(SHADOW)).status_code == 404
    assert (await rig.desire({"a": 1})).headers["etag"] == '"1"'


async def test_a_failure_nobody_foresaw_is_500_with_the_requests_id_and_no_reason(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rig.store, "get", _Failing(RuntimeError("secret")), raising=False)
    answer = await rig.http.get("/v1/things/attic")
    assert (answer.status_code, slug(answer)) == (500, "internal-failure")
    assert answer.json()["requestId"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    aws = await rig.http.get("/things/attic/shadow")
    assert (aws.status_code, aws.headers["x-amzn-errortype"]) == (500, "InternalFailureException")


async def test_every_answer_has_an_id_of_its_own(rig: Rig):
    paths = [SHADOW, AWS, "/", "/no/such/path", "/v1/things?x=1", "/healthz"]
    ids = [(await rig.http.get(path)).headers["x-request-id"] for path in paths]
    assert len(set(ids)) == len(paths)


async def test_where_no_route_is_each_side_answers_in_its_own_spelling(rig: Rig):
    assert slug(await rig.http.get("/v2/things")) == "route-not-found"
    assert (await rig.http.get("/things/a/b/c")).headers["x-amzn-errortype"] == "ResourceNotFoundException"
    wrong = await rig.http.put("/v1/things/hall")
    assert (wrong.status_code, slug(wrong)) == (405, "method-not-allowed")
    assert "GET" in wrong.headers["allow"]


async def test_more_requests_at_once_than_the_bound_are_503(tmp_path: Path):
    async with api(tmp_path, limits=ApiLimits(requests_max=0)) as rig:
        own, aws = await rig.http.get(SHADOW), await rig.http.get(AWS)
        assert (own.status_code, slug(own), own.headers["retry-after"]) == (503, "overloaded", "1")
        assert (aws.status_code, aws.headers["x-amzn-errortype"]) == (503, "ServiceUnavailableException")
    async with api(tmp_path / "more", limits=ApiLimits(requests_max=1)) as rig:
        assert (await rig.by[Role.OPERATOR].get("/v1/status")).status_code == 200
