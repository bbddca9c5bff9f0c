"""Whatever is asked, answered, withdrawn and lost in whatever order: what must always hold of enrolments.

A walk takes steps of customers, representatives, operators, devices and time, kills the process between any
two commits, and goes on with a new one over the same store. After each step the laws hold; at the end,
once faults have stopped and devices answer, everything comes to rest and nothing is left over.
"""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from infra.documents.port import StoreUnavailableError
from infra.machines import IllegalTransitionError
from programs.errors import ProgramError
from programs.states import LIVE, TOLD, EnrolmentState
from registry.states import DeviceTrigger
from shadow.document import delta
from shadow.errors import ShadowError
from tests.covers import covers
from tests.fakes import FakeClock
from tests.faulty_store import Crash, FaultyStore
from tests.programs_rig import ACCOUNT, ANNA, HALL, HOME, RITA, TOOL, FakePresence, Rig, memory, open_rig
from tests.shadow_rig import running

PROGRAMS = ("cpp-27", "tou-res", "rtp", "info-display")
programs = st.sampled_from(PROGRAMS)
crashes = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.integers(1, 6), st.sampled_from([Crash.BEFORE_COMMIT, Crash.AFTER_COMMIT])),
)
"""At which commit of a step the process dies, and on which side of it."""
ASKED = ("join", "join", "yes", "no", "enrol", "ask", "leave", "leave", "pause", "lift", "retry")
ANSWERED = ("well", "activated", "failed", "off", "nonsense")
LIVED = ("deregister", "register", "suspend", "unsuspend", "unplug", "plug")
acts = st.one_of(
    st.tuples(st.sampled_from(ASKED), programs),
    st.tuples(st.sampled_from(ANSWERED), programs),
    st.tuples(st.sampled_from(LIVED), st.just("")),
    st.tuples(st.sampled_from(["wait", "work", "work"]), st.sampled_from(["1", "70", "400", "90000"])),
)
steps = st.lists(st.tuples(acts, crashes), min_size=4, max_size=30)

AT_REST = {
    EnrolmentState.READY,
    EnrolmentState.SUSPENDED,
    EnrolmentState.ENDED,
    EnrolmentState.PENDING_CONSENT,
}
LET_GO = (ProgramError, IllegalTransitionError, StoreUnavailableError, ShadowError)
"""What a step may be refused with; anything else is a fault."""


@dataclass
class Walk:
    """A store that outlives the processes over it."""

    store: FaultyStore
    clock: FakeClock
    presence: FakePresence
    rig: Rig
    lane: AsyncExitStack

    @classmethod
    async def begin(cls) -> "Walk":
        store, clock, presence = FaultyStore(memory()), FakeClock(), FakePresence()
        walk = cls(store, clock, presence, open_rig(store, clock, presence=presence), AsyncExitStack())
        await walk.lane.enter_async_context(running(walk.rig.shadows))
        await walk.rig.settle_in()
        return walk

    async def restart(self) -> None:
        """Lose everything that is in memory."""
        await self.lane.aclose()
        self.lane = AsyncExitStack()
        self.rig = open_rig(self.store, self.clock, presence=self.presence)
        await self.lane.enter_async_context(running(self.rig.shadows))

    async def take(self, what: str, of: str, crash: tuple[int, Crash] | None) -> None:
        died = False

        async def die() -> None:
            nonlocal died
            assert crash is not None
            died, self.store.crash = True, crash[1]

        if crash is not None:
            self.store.before_commit = [*[_live_on] * (crash[0] - 1), die]
        with suppress(*LET_GO):
            await self._do(what, of)
        self.store.before_commit, self.store.crash = [], None
        if died:
            await self.restart()

    async def _do(self, what: str, of: str) -> None:
        rig, id = self.rig, f"enr-{HALL}-{of}"
        match what:
            case "join":
                await rig.enrol(of)
            case "yes":
                await rig.say_yes(of)
            case "no":
                await rig.consents.withdraw(HALL, of, ANNA)
            case "enrol" | "ask":
                waiting = what == "ask"
                await rig.enrolments.enrol(HALL, of, ACCOUNT, HOME, RITA, waiting_for_consent=waiting)
            case "leave":
                await rig.enrolments.leave(id, ANNA)
            case "pause":
                await rig.enrolments.pause(id, ANNA)
            case "lift":
                await rig.enrolments.lift(id, ANNA)
            case "retry":
                await rig.enrolments.retry(id, RITA)
            case "wait":
                self.clock.advance(int(of))
            case "work":
                await rig.worker.round()
            case "unplug":
                self.presence.away.add(HALL)
            case "plug":
                self.presence.away.clear()
            case "deregister" | "register" | "suspend" | "unsuspend":
                await self._live(what)
            case _:
                await self._answer(what, of)

    async def _live(self, what: str) -> None:
        devices = self.rig.devices
        match what:
            case "deregister":
                await devices.apply(HALL, DeviceTrigger.DEREGISTER, TOOL)
            case "suspend":
                await devices.apply(HALL, DeviceTrigger.SUSPEND, TOOL)
            case "unsuspend":
                await devices.apply(HALL, DeviceTrigger.LIFT, TOOL)
            case _:
                await devices.apply(HALL, DeviceTrigger.SEEN, TOOL)
                await devices.apply(HALL, DeviceTrigger.PROVED, TOOL)
                await devices.apply(HALL, DeviceTrigger.REGISTER, TOOL, change=_bound)

    async def _answer(self, what: str, program: str) -> None:
        rig = self.rig
        desired, _ = await rig.sections()
        if program not in desired.get("enrolments", {}):
            return  # it was told nothing of it
        rev = desired["enrolments"][program]["rev"]
        match what:
            case "well":
                await rig.obey()
                await rig.ack(HALL, program, activated=rev, ready=rev)
            case "activated":
                await rig.ack(HALL, program, activated=rev)
            case "failed":
                await rig.ack(HALL, program, "STORAGE", failed=rev)
            case "off":
                await rig.obey()
            case _:
                said = {"state": "off", "rev": -1}
                await rig.report({"ack": {program: {"ready": rev}}, "enrolments": {program: said}})

    async def check(self) -> None:
        """Assert what holds after every step, whatever was lost in it."""
        enrolments = await self.rig.enrolments.of_device(HALL)
        live = [one for one in enrolments if one.state in LIVE]
        catalogue = await self.rig.catalogue.programs_of(PROGRAMS)
        pairs = [(one, other) for one in live for other in live if one.id < other.id]
        assert not [pair for pair in pairs if catalogue[pair[0].program].excludes(catalogue[pair[1].program])]
        for one in enrolments:
            assert one.transitions[-1].after == one.state
            assert one.state is EnrolmentState.ENDED or one.due_ms is not None, "somebody goes on with it"
        desired, _ = await self.rig.sections()
        told = {id for id, entry in desired.get("enrolments", {}).items() if entry["state"] == "on"}
        assert told <= {one.program for one in enrolments}, "nothing is told that nobody has enrolled"

    async def come_to_rest(self) -> None:
        """Let faults stop and the device answer; then everything is as it shall be."""
        self.presence.away.clear()
        await self.restart()
        for _ in range(12):
            await self.rig.worker.round()
            await self.rig.obey()
            desired, _ = await self.rig.sections()
            for program, entry in desired.get("enrolments", {}).items():
                if entry["state"] == "on":
                    await self.rig.report({"ack": {program: {"failed": None}}})
                    await self.rig.ack(HALL, program, activated=entry["rev"], ready=entry["rev"])
            self.clock.advance(900)
        enrolments = await self.rig.enrolments.of_device(HALL)
        assert {one.state for one in enrolments} <= AT_REST
        desired, reported = await self.rig.sections()
        told = {one.program for one in enrolments if one.state in TOLD}
        assert desired.get("enrolments", {}).keys() == told
        assert delta(desired, reported) == {}
        assert {one.tariff for one in enrolments if one.state in TOLD} - {""} == desired.get(
            "tariffs", {}
        ).keys()
        for section in ("enrolments", "tariffs", "ack"):
            names = told if section != "tariffs" else desired.get("tariffs", {}).keys()
            assert reported.get(section, {}).keys() <= names, "what is finished leaves both sections"
        standing = (await self.rig.consents.standing(HALL)).consents
        assert told <= standing.keys(), "nobody takes part without a yes"
        lifecycle = (await self.rig.devices.device(HALL)).lifecycle
        assert not told or lifecycle in {"REGISTERED", "SUSPENDED"}
        assert await self.rig.taking_part() is bool(told)
        assert await self.rig.consents.unsettled() == []


async def _live_on() -> None:
    """Let a commit go on."""


def _bound(device):
    return replace(device, account=ACCOUNT, premises=HOME)


@covers("O3", "3.2/12", "3.2/13")
@given(steps)
def test_no_enrolment_without_registration(walk):
    """No walk makes an enrolment of a device that is not registered, loses one, or leaves one over."""

    async def go():
        here = await Walk.begin()
        try:
            for (what, of), crash in walk:
                before = {one.id: one for one in await here.rig.enrolments.of_device(HALL)}
                lifecycle = (await here.rig.devices.device(HALL)).lifecycle
                await here.take(what, of, crash)
                await here.check()
                for one in await here.rig.enrolments.of_device(HALL):
                    begun = one.id not in before or one.period > before[one.id].period
                    assert not begun or lifecycle == "REGISTERED"
            await here.come_to_rest()
        finally:
            await here.lane.aclose()

    asyncio.run(go())
