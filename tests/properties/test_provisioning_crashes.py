"""Whatever people do in a session, and wherever the process dies: it ends legal, and can be gone on with."""

import asyncio
import random
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet import provisioning as scenes
from infra.machines import IllegalTransitionError
from programs.states import EnrolmentState
from provisioning.acts import Assignment, Choice
from provisioning.asking import Ask
from provisioning.errors import ProvisioningError
from provisioning.moves import MoveState
from provisioning.service import Discovery
from provisioning.session import Consent, pair
from provisioning.states import DEVICE_IN_SESSION, SESSION, DeviceState, SessionState, SessionTrigger
from registry.gateways import GatewayKind
from registry.meters import Meter
from registry.states import Lifecycle
from tests.covers import covers
from tests.fakes import NOW_MS
from tests.faulty_store import Crash, FaultyStore
from tests.provisioning_rig import ACCOUNT, OPERATOR, PREMISES, Process, World

SCENES = {"meter": scenes.recognised, "twice": scenes.reachable_twice}
ACTS = [
    "discover", "grant", "stop", "select", "leave_out", "programs", "consent", "provision", "retry",
    "accept_partial", "confirm", "abort", "answer", "fail", "time", "wait", "crash",
]  # fmt: skip
JOURNEY = [
    "discover",
    "time",
    "time",
    "stop",
    "select",
    "programs",
    "consent",
    "provision",
    "time",
    "confirm",
]
PLANS = {"thermostat": "cpp-27", "heater": "dlc-ac"}


class Died(BaseException):
    """The process is gone."""


class Walk:
    """A representative, a home, and processes that die now and then."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.faulty = FaultyStore(world.store)
        self.faulty.crash_with = Died()
        world.store = self.faulty  # stands in for it
        self.session = ""

    async def take(self, act: str, crash_in: int | None) -> None:
        """Do one act in a process of its own, which may die at some commit of it."""
        if crash_in is not None:
            self._plant(crash_in)
        try:
            async with self.world.process() as one:
                await self._act(one, act)
        except BaseExceptionGroup as group:
            if group.split(Died)[1] is not None:
                raise
        except Died:
            pass
        finally:
            self.faulty.crash = None
            self.faulty.before_commit.clear()

    def _plant(self, crash_in: int) -> None:
        when = self.random.choice(list(Crash))

        async def plant() -> None:
            self.faulty.crash = when

        async def nothing() -> None:
            pass

        self.faulty.before_commit[:] = [nothing] * crash_in + [plant]

    async def _act(self, one: Process, act: str) -> None:
        world, service = self.world, one.service
        ask = world.ask()
        devices = {name: world.scene.eui64s[name] for name in PLANS}
        try:
            match act:
                case "open":
                    self.session = (await one.opened(take_over=True)).id
                case "discover":
                    grants = tuple(one.label(name) for name in PLANS)
                    await service.discover(self.session, Discovery(grants=grants), ask)
                case "grant":
                    await service.grant(self.session, one.label("heater"), ask)
                case "stop":
                    await service.stop_discovery(self.session, ask)
                case "select":
                    choices = [Choice(device=one, take_part=True) for one in devices.values()]
                    await service.select(self.session, choices, ask)
                case "leave_out":
                    await service.select(
                        self.session, [Choice(device=devices["heater"], take_part=False)], ask
                    )
                case "programs":
                    kept = await service.session(self.session)
                    some = [Assignment(device=device, program=PLANS[name])
                            for name, device in devices.items()
                            if kept.devices[device].state is DeviceState.SELECTED]  # fmt: skip
                    await service.choose_programs(self.session, some, ask)
                case "consent":
                    yes = [Consent(device, PLANS[name], "p-1", "holder", "phone", "1", "", 0)
                           for name, device in devices.items()]  # fmt: skip
                    await service.consent(self.session, yes, ask)
                case "provision":
                    await service.provision(self.session, ask)
                case "retry":
                    await service.retry(self.session, [], ask)
                case "accept_partial":
                    await service.accept_partial(self.session, ask)
                case "confirm":
                    await service.confirm(self.session, "phone", "", ask)
                case "abort":
                    await service.abort(self.session, "why not", ask)
                case "answer" | "fail":
                    await self._answer(act)
                case "time":
                    await one.live_on(2)
                case "wait":
                    await one.live_on(650)
                case _:
                    assert act == "crash", act
        except (ProvisioningError, IllegalTransitionError, KeyError):
            pass  # refused: not the time for it
        await one.live_on(0, rounds=2)

    async def _answer(self, act: str) -> None:
        state = EnrolmentState.READY if act == "answer" else EnrolmentState.PROVISION_FAILED
        for key, made in self.world.programs.made.items():
            thing, _, program = key.partition("/")
            if made.state == EnrolmentState.PROVISIONING:
                self.world.programs.become(thing, program, state, "" if act == "answer" else "CLOCK")

    async def check(self) -> None:
        """The laws, on what the store holds."""
        async with self.world.process() as one:
            if not self.session:
                return
            kept = await one.sessions.load(self.session)
            assert kept is not None
            session = kept.record
            self._check_path(session)
            for key, made in self.world.programs.made.items():
                known = await one.devices.device(key.partition("/")[0])
                assert any(step.after == Lifecycle.REGISTERED for step in known.transitions), (key, made)
                assert key in self.world.programs.given
            for device in session.devices.values():
                assert device.state in DEVICE_IN_SESSION.states
                if device.state is DeviceState.READY:
                    assert all(
                        self.world.programs.made[pair(device.thing, program)].state == EnrolmentState.READY
                        for program in device.programs
                    )

    def _check_path(self, session) -> None:
        state: SessionState = SessionState.OPENING
        for step in session.transitions:
            assert step.before == state
            state = SESSION.after(state, SessionTrigger(step.trigger))
            assert step.after == state
        assert session.state is state


async def begin(directory: Path, seed: int, scene: str) -> Walk:
    world = World(directory, SCENES[scene](7))
    async with world.process() as one:
        await one.settle_in()
    walk = Walk(world, seed)
    world.programs.answer = EnrolmentState.PROVISIONING
    await walk.take("open", None)
    return walk


async def finish(walk: Walk) -> SessionState:
    """Let everything answer and the representative go to the end of what was begun."""
    walk.world.programs.answer = EnrolmentState.READY
    for act in (*JOURNEY[2:4], "answer", "time", "wait", "time", "retry", "answer", "wait", "time",
                "accept_partial", "time", "confirm", "time", "time"):  # fmt: skip
        await walk.take(act, None)
    async with walk.world.process() as one:
        kept = await one.sessions.load(walk.session)
        assert kept is not None
        return kept.record.state


steps = st.lists(st.tuples(st.sampled_from(ACTS), st.none() | st.integers(0, 4)), min_size=4, max_size=14)
slow = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(steps, st.integers(0, len(JOURNEY)), st.integers(0, 2**32), st.sampled_from(sorted(SCENES)))
def test_a_walk_with_crashes_stays_legal_and_never_enrols_what_is_not_registered(walked, far, seed, scene):
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            walk = await begin(Path(directory), seed, scene)
            chance = random.Random(seed)
            journey = [(act, chance.choice([None, 0, 1, 2])) for act in JOURNEY[:far] for _ in range(2)]
            for act, crash_in in (*journey, *walked):
                await walk.take(act, crash_in)
                await walk.check()
            await finish(walk)
            await walk.check()

    asyncio.run(run())


@covers("3.2/12")
@slow
@given(st.integers(0, len(JOURNEY) - 1), st.integers(0, 8), st.integers(0, 2**32))
def test_a_death_at_any_commit_of_scenario_3_2_leads_to_the_same_end(position, crash_in, seed):
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            walk = await begin(Path(directory), seed, "meter")
            walk.world.programs.answer = EnrolmentState.READY
            for number, act in enumerate(JOURNEY):
                await walk.take(act, crash_in if number == position else None)
                # Whoever heard no answer asks again.
                await walk.take(act, None)
                await walk.take("time", None)
            assert await finish(walk) is SessionState.CONFIRMED
            await walk.check()
            assert sorted(walk.world.outgoing.kinds()) == sorted(
                ["han.device.registered", "han.enrolment.changed"] * 2 + ["notify.customer"]
            )
            enrolled = [call for call in walk.world.programs.calls if call[0] == "enrol"]
            assert len(enrolled) == len(set(enrolled)) == 2

    asyncio.run(run())


class Change:
    """A home that is provisioned, in which something is changed."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.world = walk, walk.world
        self.move = ""

    async def begin(self, what: str) -> None:
        await finish(self.walk)
        async with self.world.process() as one:
            if what == "exchange":
                meter = await one.meters.meter("m-7")
                await one.meters.put(replace(meter, gateway="gw-0007-meter"), OPERATOR)
                await one.bring("gw-0007-new", GatewayKind.METER)

    async def ask(self, what: str, crash_in: int | None) -> None:
        """Ask for the change under one key, in a process that may die."""
        if crash_in is not None:
            self.walk._plant(crash_in)
        ask = Ask(by=OPERATOR, key=what, digest=what)
        now_ms = self.world.clock.now_ms()
        try:
            async with self.world.process() as one:
                if what == "exchange":
                    new = Meter(id="m-8", model="acme", premises=PREMISES, gateway="gw-0007-new")
                    self.move = (await one.moves.exchange("m-7", new, NOW_MS, "", ask)).id
                else:
                    self.move = (await one.moves.move_out(PREMISES, ACCOUNT, now_ms, ask)).id
                await one.live_on(6)
        except Died:
            pass
        finally:
            self.walk.faulty.crash = None
            self.walk.faulty.before_commit.clear()


@slow
@given(st.sampled_from(["exchange", "move_out"]), st.integers(0, 40), st.integers(0, 2**32))
def test_a_death_at_any_commit_of_a_change_leads_to_the_same_end(what, crash_in, seed):
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            walk = await begin(Path(directory), seed, "meter")
            walk.world.programs.answer = EnrolmentState.READY
            for act in JOURNEY:
                await walk.take(act, None)
            change = Change(walk)
            await change.begin(what)
            await change.ask(what, crash_in)
            await change.ask(what, None)
            async with walk.world.process() as one:
                for _ in range(8):
                    await one.live_on(6)
                move = await one.moves.move(change.move)
                assert (move.state, move.missing) == (MoveState.DONE, ())
                kinds = walk.world.outgoing.kinds()
                if what == "exchange":
                    assert kinds.count("han.meter.exchanged") == 1
                    for eui64 in (walk.world.scene.eui64s[name] for name in PLANS):
                        pairs = await one.registry.gateways_of(eui64)
                        assert [pair.gateway for pair in pairs] == ["gw-0007-new"]
                else:
                    assert kinds.count("han.device.removed") == len(PLANS)
                    assert (await one.registry.premises(PREMISES)).account == ""

    asyncio.run(run())
