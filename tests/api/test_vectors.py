"""The shadow vectors over the AWS-shaped routes: the same answers as over MQTT, spelled for HTTP.

What HTTP leaves out: a GET has no body, so no token to echo; a refusal has its code in the status, and
neither time nor token. The reserved shadows are left out, because nobody may report them this way.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from security.policy import Role
from shadow.document import ShadowId
from shadow.errors import NoShadowError
from tests.api.rig import AWS, HALL, Rig, api
from tests.shadow_rig import put, shadow_from, shown
from tests.vectors.cases import Case, Step, canonical, cases, read

RESERVED = {"program", "han", "firmware", "config"}
CASES = [case for case in cases() if case.shadow not in RESERVED and case.role == "device"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """One without cost for the disk, since nothing here is about it."""
    async with api(tmp_path, url="memory:") as rig:
        yield rig


async def _send(rig: Rig, step: Step, name: dict[str, str]) -> httpx.Response:
    match step.operation:
        case "get":
            return await rig.by[Role.DEVICE].get(AWS, params=name)
        case "delete":
            return await rig.by[Role.DEVICE].request("DELETE", AWS, params=name, content=step.payload)
        case _:
            return await rig.by[Role.DEVICE].post(AWS, params=name, content=step.payload)


def _accepted(step: Step) -> Any:
    left_out = {"clientToken"} if step.operation == "get" else set()
    return {name: value for name, value in step.accepted.items() if name not in left_out}


def _refused(step: Step) -> Any:
    return {
        name: value
        for name, value in step.rejected.items()
        if name not in {"code", "timestamp", "clientToken"}
    }


async def _document(rig: Rig, name: str) -> Any:
    """Return what is stored now; None when there is nothing to show."""
    try:
        return shown(await rig.services.shadows.view(ShadowId(HALL, name)))
    except NoShadowError:
        return None


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_vector(rig: Rig, case: Case) -> None:
    name = {"name": case.shadow} if case.shadow else {}
    if case.given is not None:
        await put(rig.store, ShadowId(HALL, case.shadow), shadow_from(case.given))
    for step in case.steps:
        rig.clock.jump(step.now - rig.clock.now_ms() / 1_000)
        answer = await _send(rig, step, name)
        told = read(answer.content)
        if step.accepted is not None:
            assert answer.status_code == 200, told
            assert canonical(told) == canonical(_accepted(step))
        else:
            told.pop("detail", None)
            assert answer.status_code == step.rejected["code"]
            assert canonical(told) == canonical(_refused(step))
        assert canonical(await _document(rig, case.shadow)) == canonical(step.document)
