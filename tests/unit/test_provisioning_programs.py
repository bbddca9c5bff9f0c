"""Sessions with the real programs: what was said yes to, sent, answered twice, carried over and ended."""

import pytest

from fleet import provisioning as scenes
from fleet.program import Behaviour, Programs
from programs.errors import ProgramNotFoundError
from programs.states import EnrolmentState
from provisioning.acts import Assignment, Choice
from provisioning.errors import IneligiblePairsError, InvalidRequestError
from provisioning.moves import MoveState
from provisioning.session import Consent
from provisioning.states import DeviceState, SessionState
from registry.states import Lifecycle
from shadow.document import ShadowId, delta
from shadow.errors import NoShadowError
from tests.covers import covers
from tests.provisioning_rig import ACCOUNT, PREMISES, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, scenes.recognised(7), real=True)


def yes(device, program, version="1"):
    return Consent(device, program, "cu-7", "holder", "phone", version, "", 0)


async def chosen(one, programs):
    """Discover devices, choose them with their programs, and record consent."""
    world = one.world
    session = await one.discovered(*programs)
    devices = {world.scene.eui64s[name]: some for name, some in programs.items()}
    choices = [Choice(device=device, take_part=True, name="Hall", location="hall") for device in devices]
    await one.service.select(session.id, choices, world.ask())
    pairs = [(device, program) for device, some in devices.items() for program in some]
    await one.service.choose_programs(
        session.id, [Assignment(device=device, program=program) for device, program in pairs], world.ask()
    )
    await one.service.consent(session.id, [yes(*pair) for pair in pairs], world.ask())
    return session.id


async def settle(one, seconds=2, rounds=6):
    for _ in range(rounds):
        await one.live_on(seconds)
        for device in one.world.scene.labels:
            await one.enrolments.reconcile(device)


@covers("3.2/12", "3.2/13", "S3.2-post", "X14", "X16", "X17", "A4")
async def test_the_program_reaches_the_device_which_answers_twice_and_nothing_is_left_to_say(world):
    async with world.process() as one:
        await one.settle_in()
        id = await chosen(one, {"thermostat": ["tou-res", "pct-comfort"]})
        await one.service.provision(id, world.ask())
        await settle(one)
        session = await one.service.session(id)
        device = world.scene.eui64s["thermostat"]
        assert (session.state, session.devices[device].state) == (SessionState.RECORDED, DeviceState.READY)
        shadow = await one.shadows.view(ShadowId(device, "program"))
        assert delta(shadow.desired.state, shadow.reported.state) == {}
        assert sorted(shadow.reported.state["ack"]) == ["pct-comfort", "tou-res"]
        standing = await one.consents.standing(device)
        assert {record.recorded_by for record in standing.consents.values()} == {"rosa"}
        assert (await one.registry.thing(device)).taking_part


@covers("3.2/11")
async def test_every_bad_pair_is_told_and_nothing_is_kept(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat", "heater")
        heater, thermostat = (world.scene.eui64s[name] for name in ("heater", "thermostat"))
        options = await one.service.options(session.id)
        assert options[thermostat]["tou-res"] == ()
        choices = [Choice(device=device, take_part=True) for device in (heater, thermostat)]
        await one.service.select(session.id, choices, world.ask())
        with pytest.raises(IneligiblePairsError) as refused:
            await one.service.choose_programs(
                session.id,
                [Assignment(device=heater, program="pct-comfort"),
                 Assignment(device=thermostat, program="tou-res")],
                world.ask(),
            )  # fmt: skip
        assert list(refused.value.pairs) == [(heater, "pct-comfort")]
        assert (await one.service.session(session.id)).state is SessionState.SELECTED
        with pytest.raises(ProgramNotFoundError):
            await one.service.choose_programs(
                session.id, [Assignment(device=heater, program="nothing")], world.ask()
            )
        with pytest.raises(InvalidRequestError):
            await one.service.consent(session.id, [yes(heater, "dlc-ac", "0")], world.ask())


async def test_a_device_that_answers_with_a_failure_is_retried(world):
    async with world.process() as one:
        await one.settle_in()
        device = world.scene.eui64s["thermostat"]
        world.equipment[device] = Programs(Behaviour(fails="STORAGE", fails_times=1))
        id = await chosen(one, {"thermostat": ["tou-res"]})
        await one.service.provision(id, world.ask())
        await settle(one)
        session = await one.service.session(id)
        assert (session.state, session.devices[device].state, session.devices[device].code) == (
            SessionState.PARTIAL,
            DeviceState.FAILED,
            "STORAGE",
        )
        await one.service.retry(id, [device], world.ask())
        await settle(one)
        assert (await one.service.session(id)).state is SessionState.RECORDED


@covers("3.2/2", "A3", "O1")
async def test_what_was_not_chosen_hears_nothing(world):
    async with world.process() as one:
        await one.settle_in()
        id = await chosen(one, {"thermostat": ["tou-res"]})
        await one.service.provision(id, world.ask())
        await settle(one)
        for name in ("heater", "display", "door"):
            with pytest.raises(NoShadowError):
                await one.shadows.view(ShadowId(world.scene.eui64s[name], "program"))


@covers("S1.4f")
async def test_an_aborted_session_ends_what_did_not_become_ready(world):
    async with world.process() as one:
        await one.settle_in()
        device = world.scene.eui64s["thermostat"]
        world.equipment[device] = Programs(Behaviour(activate_s=10_000))
        id = await chosen(one, {"thermostat": ["tou-res"]})
        await one.service.provision(id, world.ask())
        await one.live_on(2)
        await one.service.abort(id, "hung up", world.ask())
        await settle(one)
        assert (await one.service.session(id)).released
        (enrolment,) = await one.enrolments.of_device(device)
        assert enrolment.state is EnrolmentState.ENDED


async def test_consent_is_carried_over_to_a_successor_that_can_do_as_much_and_asked_for_else(world):
    async with world.process() as one:
        await one.settle_in()
        id = await chosen(one, {"thermostat": ["tou-res"]})
        await one.service.provision(id, world.ask())
        await settle(one)
        await one.service.confirm(id, "phone", "", world.ask())
        await one.live_on(2)
        await one.discovered("display")
        old, new = (world.scene.eui64s[name] for name in ("thermostat", "display"))
        move = await one.moves.replace(old, new, world.ask())
        await settle(one)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        assert (await one.devices.device(old)).lifecycle is Lifecycle.REPLACED
        states = {one.program: one.state for one in await one.enrolments.of_device(new)}
        assert set(states.values()) <= {EnrolmentState.PENDING_CONSENT}
        (ended,) = await one.enrolments.of_device(old)
        assert ended.state is EnrolmentState.ENDED


@covers("O17")
async def test_move_out_ends_enrolments_and_consents_and_the_device_hears_that_they_are_over(world):
    async with world.process() as one:
        await one.settle_in()
        id = await chosen(one, {"thermostat": ["tou-res"]})
        await one.service.provision(id, world.ask())
        await settle(one)
        await one.service.confirm(id, "phone", "", world.ask())
        device = world.scene.eui64s["thermostat"]
        move = await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        await settle(one, seconds=6)
        move = await one.moves.move(move.id)
        assert (move.state, move.missing) == (MoveState.DONE, ())
        assert (await one.consents.standing(device)).consents == {}
        (ended,) = await one.enrolments.of_device(device)
        assert ended.state is EnrolmentState.ENDED
        assert (await one.devices.device(device)).lifecycle is Lifecycle.DEREGISTERED
