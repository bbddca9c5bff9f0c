"""The shadow vectors through the service: answers, delta, documents and what is stored, to the letter."""

import pytest

from infra.clock import MS_PER_S
from security.policy import Role
from shadow import wire
from shadow.commands import (
    Channel,
    Command,
    Origin,
    RefusedError,
    parse_delete,
    parse_get,
    parse_id,
    parse_update,
)
from shadow.decisions import Accepted
from shadow.document import ShadowId
from shadow.errors import InvalidRequestError
from tests.fakes import FakeClock
from tests.shadow_rig import LIMITS, Rig, put, rejected, rig, shadow_from, shown
from tests.vectors.cases import HALL, Case, Step, canonical, cases, read, told

CASES = list(cases())


def command(step: Step, id: ShadowId, origin: Origin) -> Command:
    match step.operation:
        case "get":
            return parse_get(step.payload, id, origin, LIMITS)
        case "delete":
            return parse_delete(step.payload, id, origin, LIMITS)
        case _:
            return parse_update(step.payload, id, origin, LIMITS)


async def take(rig: Rig, step: Step, id: ShadowId, origin: Origin, before: object) -> None:
    """Send one request and compare all that comes of it."""
    try:
        asked = command(step, id, origin)
    except RefusedError as refused:
        body = wire.rejected(refused.error, step.now, refused.token)
        assert canonical(told(body)) == canonical(step.rejected)
    else:
        outcome = await rig.one(asked)
        if step.accepted is None:
            assert canonical(told(rejected(outcome).body)) == canonical(step.rejected)
        else:
            assert isinstance(outcome, Accepted), outcome.error
            assert canonical(read(outcome.body)) == canonical(step.accepted)
            delta, documents = said(outcome)
            assert canonical(read(delta)) == canonical(step.delta)
            assert canonical(read(documents)) == canonical(step.documents(before))
    assert canonical(shown(await rig.stored(id))) == canonical(step.document)


def said(outcome: Accepted) -> tuple[bytes | None, bytes | None]:
    """Return the bodies of ``update/delta`` and ``update/documents``."""
    change = outcome.change
    return (None, None) if change is None else (change.delta, change.documents)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_vector(case: Case) -> None:
    if case.name == "bad_shadow_name_dollar":
        with pytest.raises(InvalidRequestError) as refused:
            parse_id(HALL, case.shadow)
        assert {"code": refused.value.code, "message": refused.value.message} == case.steps[0].rejected
        return
    id = parse_id(HALL, case.shadow)
    origin = Origin(HALL, Role(case.role), Channel.MQTT)
    async with rig(clock=FakeClock(0)) as service:
        if case.given is not None:
            await put(service.store, id, shadow_from(case.given))
        before = case.given
        for step in case.steps:
            service.clock.jump(step.now - service.clock.now_ms() / MS_PER_S)
            await take(service, step, id, origin, before)
            before = step.document


def test_every_case_of_the_specification_has_its_file() -> None:
    assert len(CASES) == len({case.name for case in CASES}) > 100
