"""The transcript of jobs in docs/protocol.md, run through the bridge and the job service."""

import re
from functools import partial
from pathlib import Path

import msgspec

from ota.job_requests import Code
from tests.bridge_rig import BridgeRig, make_rig, running, settled
from tests.unit.test_docs_protocol import PAGE, steps

SECTION = re.search(r"^## Jobs\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def section() -> str:
    assert SECTION is not None
    return SECTION.group(1)


def transcript() -> tuple[list[str], list[str]]:
    """Return what comes unasked at the beginning, and the exchanges."""
    found = re.search(r"^```job\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)
    assert found is not None
    lines = found.group(1).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith(">"))
    return lines[:first], lines[first:]


async def test_what_the_page_says_of_jobs_is_what_happens(tmp_path: Path):
    unasked, exchanges = transcript()
    rig = make_rig(tmp_path)
    await rig.register("th-1")
    async with running(rig):
        await rig.jobs.offer("th-1")
        await settled(lambda: len(rig.session.said) == len(unasked))
        assert [f"< {one.topic} {msgspec.json.encode(one.body).decode()}" for one in rig.session.said] == [
            _spelled(line) for line in unasked
        ]
        rig.session.settle()
        for topic, payload, expected in steps("\n".join(exchanges)):
            before = len(rig.session.said)
            rig.deliver(topic, payload.encode())
            await settled(partial(_has, rig, before + len(expected)))
            # A push and an answer may come in any order.
            assert sorted((one.topic, str(one.body)) for one in rig.session.said[before:]) == sorted(
                (topic, str(body)) for topic, body in expected
            )


def test_the_page_names_every_code():
    assert {code for code in Code if f"`{code}`" not in section()} == set()


def _has(rig: BridgeRig, number: int) -> bool:
    return len(rig.session.said) >= number


def _spelled(line: str) -> str:
    way, topic, payload = line.split(" ", 2)
    return f"{way} {topic} {msgspec.json.encode(msgspec.json.decode(payload)).decode()}"
