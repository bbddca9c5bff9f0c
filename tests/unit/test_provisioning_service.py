"""Sessions over real services and the fleet's own gateway: scenarios 3.2 and 3.3, and what goes wrong."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fleet import provisioning as scenes
from infra.documents.port import StoreUnavailableError
from infra.settings.model import ProvisioningSettings
from programs.states import EnrolmentState
from provisioning.acts import Assignment, Choice
from provisioning.effects import AttachDevice
from provisioning.errors import (
    AuthNotOkError,
    ConsentMissingError,
    CredentialLockedError,
    GatewayCapacityError,
    IdempotencyMismatchError,
    IneligiblePairsError,
    InstallCodeCrcError,
    InvalidRequestError,
    PinChecksumError,
    PolicyOffError,
    PreconditionError,
    RemedyNotOfferedError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    TooManySessionsError,
    VerificationExpiredError,
    VerificationMissingError,
    WindowClosedError,
    WorkOrderMissingError,
)
from provisioning.executor import Outcome as ExecutorOutcome
from provisioning.reconciler import topic
from provisioning.service import Discovery, NewGrant, NewSession
from provisioning.session import KEYS_MAX, Cause, Consent, Proof
from provisioning.states import DeviceState, SessionState, WindowState
from provisioning.verifications import NewVerification, Outcome
from registry.devices import Device
from registry.errors import PremisesNotFoundError
from registry.gateways import GatewayKind
from registry.meters import Meter
from registry.models import Owner
from registry.states import DeviceTrigger, Lifecycle
from security.policy import Principal, Role
from security.secret import Secret
from tests.covers import covers
from tests.faulty_store import FaultyStore
from tests.provisioning_rig import (
    ACCOUNT,
    ADA,
    IVO,
    OPERATOR,
    PREMISES,
    ROSA,
    World,
)

RITA = Principal("rita", Role.REP)

GATEWAY = "gw-0007-meter"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def eui64(world, name):
    return world.scene.eui64s[name]


async def in_use(one, device):
    routes = await one.routes.of(device)
    assert routes is not None
    return routes.in_use, routes.epoch


def said_yes(device, program):
    return Consent(device, program, "p-1", "holder", "phone", "1", "", 0)


async def chosen(one, session, **programs):
    """Choose devices by name, with their programs, and record consent to all of it."""
    world = one.world
    devices = {name: eui64(world, name) for name in programs}
    choices = [
        Choice(device=device, take_part=True, name=name, location="hall") for name, device in devices.items()
    ]
    await one.service.select(session.id, choices, world.ask())
    pairs = [(devices[name], program) for name, some in programs.items() for program in some]
    await one.service.choose_programs(
        session.id, [Assignment(device=device, program=program) for device, program in pairs], world.ask()
    )
    if pairs:
        await one.service.consent(session.id, [said_yes(*pair) for pair in pairs], world.ask())
    return await one.service.session(session.id)


async def test_a_gateway_that_is_known_as_a_device_for_its_firmware_is_no_device_of_a_session(world):
    async with world.process() as one:
        await one.settle_in()
        known = Device(id=GATEWAY, model="acme-amg-4", owner=Owner.UTILITY, premises=PREMISES)
        await one.devices.apply(GATEWAY, DeviceTrigger.SEEN, OPERATOR, new=known)
        await one.devices.apply(GATEWAY, DeviceTrigger.PROVED, OPERATOR)
        session = await one.discovered("thermostat")
        assert GATEWAY not in session.devices
        await one.live_on(1)
        assert (await one.devices.device(GATEWAY)).lifecycle is Lifecycle.AUTHENTICATED


@covers("3.2/7", "3.2/12", "3.2/13", "3.2/14", "3.2/15", "A3", "A10", "3.2/8", "3.2/10")
async def test_scenario_3_2_from_the_call_to_the_confirmation(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat", "heater", "upstairs")
        states = {
            name: session.devices[eui64(world, name)].state
            for name in ("thermostat", "heater", "display", "upstairs")
        }
        assert states == {
            "thermostat": DeviceState.AUTH_OK,
            "heater": DeviceState.AUTH_OK,
            "display": DeviceState.RECOGNIZED,
            "upstairs": DeviceState.AUTH_FAILED,
        }
        assert (session.state, session.others) == (SessionState.DISCOVERED, 1)
        assert eui64(world, "door") not in session.devices
        await chosen(one, session, thermostat=["cpp-27"], heater=["dlc-ac"])
        await one.service.provision(session.id, world.ask())
        await one.live_on(2)
        session = await one.service.session(session.id)
        assert session.state is SessionState.RECORDED
        thermostat = await one.devices.device(eui64(world, "thermostat"))
        assert (thermostat.lifecycle, thermostat.account, thermostat.name) == (
            Lifecycle.REGISTERED,
            ACCOUNT,
            "thermostat",
        )
        confirmed = await one.service.confirm(session.id, "phone", "all well", world.ask())
        assert confirmed.state is SessionState.CONFIRMED
        await one.live_on(1)
        session = await one.service.session(session.id)
        assert session.released
        assert (await one.registry.premises(PREMISES)).open_session == ""
        desired, _ = await one.han(GATEWAY)
        assert sorted(desired) == ["attach"]
        assert sorted(world.outgoing.kinds()) == [
            "han.device.registered",
            "han.device.registered",
            "han.enrolment.changed",
            "han.enrolment.changed",
            "notify.customer",
        ]
        left_out = await one.devices.device(eui64(world, "display"))
        assert left_out.lifecycle is Lifecycle.COMMISSIONED
        assert sorted(await one.keys.of(world.scene.labels)) == sorted(
            eui64(world, name) for name in ("thermostat", "heater")
        )


async def test_nothing_secret_is_left_in_the_session_or_in_the_shadow(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat", "upstairs")
        assert [grant.sealed_key for grant in session.grants] == ["", ""]
        desired, _ = await one.han(GATEWAY)
        assert desired == {}


# ---------------------------------------------------------------------------- opening


@covers("3.2/6", "O10")
async def test_two_openers_have_one_session_and_the_loser_is_told_whose(world):
    async with world.process() as one:
        await one.settle_in()
        first = await one.opened()
        with pytest.raises(SessionExistsError) as refused:
            await one.opened(RITA)
        assert refused.value.id == first.id
        second = await one.opened(RITA, take_over=True)
        assert second.state is SessionState.OPEN
        first = await one.service.session(first.id)
        assert (first.state, first.transitions[-1].actor) == (SessionState.ABORTED, "rita")


async def test_a_session_that_was_never_open_is_seen_by_nobody_and_its_key_may_be_used_again(world):
    async with world.process() as one:
        await one.settle_in()
        held = await one.opened()
        ask = world.ask(RITA)
        new = NewSession(premises=PREMISES, account=ACCOUNT, verification=await one.verified(RITA))
        with pytest.raises(SessionExistsError):
            await one.service.open(new, ask)
        with pytest.raises(SessionNotFoundError):
            await one.service.session(ask.id("ps-"))
        await one.service.abort(held.id, "wrong number", world.ask())
        assert (await one.service.open(new, ask)).state is SessionState.OPEN


async def test_a_repeat_under_the_same_key_has_its_effect_once_also_in_another_process(world):
    async with world.process() as one:
        await one.settle_in()
        ask = world.ask()
        new = NewSession(premises=PREMISES, account=ACCOUNT, verification=await one.verified())
        session = await one.service.open(new, ask)
        discover = world.ask()
        await one.service.discover(session.id, Discovery(), discover)
    async with world.process() as other:
        assert (await other.service.open(new, ask)).id == session.id
        again = await other.service.discover(session.id, Discovery(), discover)
        assert [step.trigger for step in again.transitions] == ["premises_taken", "discovery_started"]
        with pytest.raises(IdempotencyMismatchError):
            await other.service.discover(session.id, Discovery(), replace(discover, digest="other"))
        with pytest.raises(IdempotencyMismatchError):
            await other.service.open(new, replace(ask, digest="other"))


async def test_a_session_is_found_by_the_key_it_was_opened_under_however_much_was_done_in_it(world):
    async with world.process() as one:
        await one.settle_in()
        ask = world.ask()
        new = NewSession(premises=PREMISES, account=ACCOUNT, verification=await one.verified())
        session = await one.service.open(new, ask)
        for _ in range(KEYS_MAX):
            await one.service.verify(session.id, session.verification, world.ask())
        assert (await one.service.open(new, ask)).id == session.id


async def test_an_act_on_what_has_changed_since_is_refused_and_changes_nothing(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        after = await one.service.discover(session.id, Discovery(), world.ask(if_match=session.revision))
        with pytest.raises(RevisionConflictError) as refused:
            await one.service.stop_discovery(session.id, world.ask(if_match=session.revision))
        assert refused.value.revision == after.revision
        assert (await one.service.session(session.id)).revision == after.revision


@covers("A12", "3.2/5")
async def test_a_representative_opens_nothing_without_a_live_verification_of_their_own(world):
    async with world.process() as one:
        await one.settle_in()
        with pytest.raises(VerificationMissingError):
            await one.opened(verification="")
        of_another = await one.verified(RITA)
        with pytest.raises(VerificationMissingError):
            await one.opened(verification=of_another)
        mine = await one.verified()
        assert await one.verifications.reach_of(ROSA) == {ACCOUNT}
        world.clock.advance(1_800)
        with pytest.raises(VerificationExpiredError):
            await one.opened(verification=mine)
        assert await one.verifications.reach_of(ROSA) == frozenset()
        failed = NewVerification(
            customer="cu-7", accounts=(ACCOUNT,), method="pin", outcome=Outcome.FAILED, case="c-1"
        )
        with pytest.raises(VerificationMissingError):
            await one.opened(verification=(await one.verifications.record(failed, world.ask())).id)


@covers("A2", "A14b", "A14")
async def test_an_installer_works_by_an_open_work_order_and_records_no_consent(world):
    async with world.process() as one:
        await one.settle_in()
        with pytest.raises(WorkOrderMissingError):
            await one.opened(IVO, verification="")
        order = await one.work_orders.open(PREMISES, "ivo", world.ask(OPERATOR))
        assert await one.work_orders.reach_of(IVO) == {PREMISES}
        session = await one.opened(IVO, verification="", work_order=order.id)
        with pytest.raises(VerificationMissingError):
            await one.service.consent(session.id, [said_yes("x", "cpp-27")], world.ask(IVO))
        await one.work_orders.close(order.id, world.ask(OPERATOR))
        assert await one.work_orders.reach_of(IVO) == frozenset()


@covers("A13")
async def test_a_customer_opens_a_session_for_their_own_premises_only(world):
    async with world.process() as one:
        await one.settle_in()
        with pytest.raises(PremisesNotFoundError):
            await one.opened(replace(ADA, account="ac-0008"), verification="")
        assert (await one.opened(ADA, verification="")).state is SessionState.OPEN


@covers("S3.2-pre", "A14c", "A14")
async def test_each_precondition_is_told_and_only_where_a_meter_is_the_only_way(world):
    async with world.process() as one:
        await one.settle_in()
        world.clock.advance(86_401)
        with pytest.raises(PreconditionError) as refused:
            await one.opened()
        assert refused.value.codes == ("METER_NOT_COMMUNICATING",)
        await one.meters.put(Meter(id="m-7", model="acme-meter", premises=PREMISES), OPERATOR)
        with pytest.raises(PreconditionError) as refused:
            await one.opened()
        assert refused.value.codes == ("METER_NOT_COMMUNICATING", "METER_NOT_INSTALLED")
        await one.bring("gw-0007-home", GatewayKind.CUSTOMER_BROADBAND)
        assert (await one.opened()).state is SessionState.OPEN


@covers("S1.4a")
async def test_a_way_that_is_off_is_refused_with_its_name(world):
    async with world.process(ProvisioningSettings(customer_install=False)) as one:
        await one.settle_in()
        with pytest.raises(PolicyOffError) as refused:
            await one.opened()
        assert refused.value.policy == "customer_install"


async def test_one_person_has_so_many_sessions_open_and_not_one_more(world):
    async with world.process(ProvisioningSettings(sessions_open_max=2)) as one:
        await one.settle_in()
        for number in range(3):
            await one.registry.hand_over(f"pr-100{number}", ACCOUNT, OPERATOR)
        verification = await one.verified()
        news = [
            NewSession(premises=f"pr-100{number}", account=ACCOUNT, verification=verification)
            for number in range(3)
        ]
        first = await one.service.open(news[0], world.ask())
        await one.service.open(news[1], world.ask())
        with pytest.raises(TooManySessionsError):
            await one.service.open(news[2], world.ask())
        await one.service.abort(first.id, "done", world.ask())
        assert (await one.service.open(news[2], world.ask())).state is SessionState.OPEN


# ---------------------------------------------------------------------------- discovery


async def test_a_typing_error_costs_no_try_and_too_many_codes_lock_the_device(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        await one.service.discover(session.id, Discovery(), world.ask())
        await one.live_on(1)
        label = one.label("thermostat")
        mistyped = replace(label, value=Secret(label.value.reveal()[:-1] + "F"))
        for _ in range(9):
            with pytest.raises(InstallCodeCrcError):
                await one.service.grant(session.id, mistyped, world.ask())
        for _ in range(5):
            await one.service.grant(session.id, label, world.ask())
        with pytest.raises(CredentialLockedError) as refused:
            await one.service.grant(session.id, label, world.ask())
        assert refused.value.retry_s == 3_600


async def test_a_new_session_gives_no_new_tries(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        how = Discovery(grants=(one.label("thermostat"),))
        await one.service.discover(session.id, how, world.ask())
        for _ in range(4):
            await one.service.grant(session.id, one.label("thermostat"), world.ask())
        await one.service.abort(session.id, "again", world.ask())
        await one.live_on(2)
        session = await one.opened()
        with pytest.raises(CredentialLockedError):
            await one.service.discover(session.id, how, world.ask())
        assert await one.service.session(session.id) == session
        other = Discovery(grants=(one.label("heater"),))
        await one.service.discover(session.id, other, world.ask())
        world.clock.advance(3_600)
        await one.service.grant(session.id, one.label("thermostat"), world.ask())


class PinsKept:
    """Notes the PINs it is given, and knows of one device with a certificate."""

    def __init__(self, thing, sfdi):
        self.known = {sfdi: (SimpleNamespace(thing=thing),)}
        self.kept = []

    async def by_sfdi(self, sfdi):
        return self.known.get(sfdi, ())

    async def keep(self, thing, pin, by, via, sfdi=""):
        self.kept.append((thing, pin.reveal(), by, via, sfdi))


async def test_a_pin_that_is_refused_takes_no_other_ones_place(world, monkeypatch):
    async with world.process() as one:
        await one.settle_in()
        thing = world.scene.eui64s["thermostat"]
        pins = PinsKept(thing, "167261211391")
        monkeypatch.setattr(one.service, "_pins", pins)
        monkeypatch.setattr(one.service, "_issued", pins)
        session = await one.opened()
        right, other, mistyped = (
            NewGrant(device="167-261-211-391", proof=Proof.PIN, value=Secret(pin))
            for pin in ("123455", "111115", "123456")
        )
        with pytest.raises(WindowClosedError):
            await one.service.grant(session.id, right, world.ask())
        assert pins.kept == []
        await one.service.discover(session.id, Discovery(), world.ask())
        await one.live_on(1)
        with pytest.raises(PinChecksumError):
            await one.service.grant(session.id, mistyped, world.ask())
        asks = [world.ask() for _ in range(5)]
        for ask in asks:
            await one.service.grant(session.id, right, ask)
        assert pins.kept == [(thing, "123455", ask.by, ask.via, "167261211391") for ask in asks]
        with pytest.raises(CredentialLockedError):
            await one.service.grant(session.id, other, world.ask())
        assert len(pins.kept) == 5


async def test_what_is_refused_as_the_session_stands_costs_no_try(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        label = one.label("thermostat")
        for _ in range(9):
            with pytest.raises(WindowClosedError):
                await one.service.grant(session.id, label, world.ask())
        await one.service.discover(session.id, Discovery(grants=(label,)), world.ask())


async def test_of_one_device_there_is_one_grant_in_a_window(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        twice = Discovery(grants=(one.label("thermostat"), one.label("thermostat")))
        with pytest.raises(InvalidRequestError, match="one grant"):
            await one.service.discover(session.id, twice, world.ask())
        assert await one.service.session(session.id) == session


async def test_a_second_code_for_a_device_counts_after_a_wrong_one(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        how = Discovery(grants=(one.label("upstairs"),))
        await one.service.discover(session.id, how, world.ask())
        for _ in range(4):
            await one.live_on(2)
        device = eui64(world, "upstairs")
        session = await one.service.session(session.id)
        assert session.devices[device].state is DeviceState.AUTH_FAILED
        right = next(boxed.code for boxed in world.scene.home.boxed if boxed.eui64 == device)
        again = replace(one.label("upstairs"), value=Secret(right))
        await one.service.grant(session.id, again, world.ask())
        for _ in range(4):
            await one.live_on(2)
        session = await one.service.session(session.id)
        assert session.devices[device].state is DeviceState.AUTH_OK


@covers("O9")
async def test_more_grants_than_the_gateway_takes_are_refused_with_both_numbers(world):
    async with world.process() as one:
        await one.settle_in()
        known = await one.gateways.gateway(GATEWAY)
        await one.gateways.put(replace(known, devices_max=1, load_control_max=1), OPERATOR)
        session = await one.opened()
        two = tuple(one.label(name) for name in ("thermostat", "heater"))
        with pytest.raises(GatewayCapacityError, match=r"1 devices.*number 2"):
            await one.service.discover(session.id, Discovery(grants=two), world.ask())
        assert (await one.service.session(session.id)).state is SessionState.OPEN


@covers("O10")
async def test_a_window_that_is_over_is_taken_out_of_the_shadow(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        await one.service.discover(session.id, Discovery(), world.ask())
        await one.live_on(2)
        await one.live_on(2)
        await one.live_on(600)
        session = await one.service.session(session.id)
        assert session.window is not None
        assert (session.state, session.window.settled) == (SessionState.DISCOVERED, True)
        assert await one.han(GATEWAY) == ({}, (await one.han(GATEWAY))[1])


async def test_a_gateway_that_was_away_all_the_time_opened_nothing(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        one.lose(GATEWAY)
        await one.service.discover(session.id, Discovery(), world.ask())
        await one.live_on(601)
        session = await one.service.session(session.id)
        assert (session.state, session.cause) == (SessionState.NOT_RECOGNIZED, Cause.HAN_NOT_READY)
        one.find(GATEWAY)
        await one.live_on(1)
        assert (await one.han(GATEWAY))[0] == {}


@covers("3.2/7", "X11")
async def test_whoever_follows_a_session_is_told_when_something_appears(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        with one.live.watch(topic(session.id)) as watcher:
            await one.service.discover(session.id, Discovery(), world.ask())
            await asyncio.wait_for(watcher.wait(), 1)
            for _ in range(3):
                await one.live_on(2)
            await asyncio.wait_for(watcher.wait(), 1)
        devices = await one.service.devices(session.id)
        assert [device.state for device in devices] == [DeviceState.RECOGNIZED] * 4
        assert all(device.changed_at_ms for device in devices)
        assert {device.model_name for device in devices} >= {"Acme thermostat"}


async def test_a_session_that_cannot_be_looked_at_is_left_alone_longer_each_time(world, monkeypatch):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        await one.service.discover(session.id, Discovery(), world.ask())
        await one.live_on(2)
        look, tried = one.observing.look, []

        async def broken(*_look):
            tried.append(world.clock.elapsed_s())
            raise ValueError("unreadable")

        monkeypatch.setattr(one.observing, "look", broken)
        began_s = world.clock.elapsed_s()
        for _ in range(70):
            await one.reconciler.pass_once()
            world.clock.advance(1)
        assert [at_s - began_s for at_s in tried] == [0, 1, 3, 7, 15, 31, 63]
        monkeypatch.setattr(one.observing, "look", look)
        world.clock.advance(60)
        await one.live_on()
        assert (await one.service.session(session.id)).devices


async def test_a_store_that_does_not_answer_is_no_fault_of_the_session(world, monkeypatch):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        await one.service.discover(session.id, Discovery(), world.ask())
        tried = []

        async def silent(session, *_results):
            tried.append(session.id)
            raise StoreUnavailableError("down")

        monkeypatch.setattr(one.observing, "look", silent)
        for _ in range(3):
            await one.reconciler.pass_once()
        assert tried == [session.id] * 3


async def test_a_session_that_waits_for_a_far_window_is_looked_at_when_that_is_due(world, monkeypatch):
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        far_ms = world.clock.now_ms() + 7_200_000
        await one.service.discover(session.id, Discovery(not_before_ms=far_ms), world.ask())
        await one.reconciler.pass_once()
        look, looked = one.observing.look, []

        async def counted(session, *args):
            looked.append(session.id)
            return await look(session, *args)

        monkeypatch.setattr(one.observing, "look", counted)
        for _ in range(59):
            world.clock.advance(1)
            await one.reconciler.pass_once()
        assert looked == []
        world.clock.advance(60)
        await one.reconciler.pass_once()
        assert looked == [session.id], "it is not forgotten: a device with a WAN of its own may come"
        world.clock.advance((far_ms - world.clock.now_ms()) / 1_000)
        for _ in range(4):
            await one.live_on(2)
        session = await one.service.session(session.id)
        assert session.window is not None
        assert session.window.state is WindowState.OPEN
        assert session.devices


async def test_a_device_that_another_process_has_just_made_a_thing_is_attached(world):
    world.store = FaultyStore(world.store, exclusive=False)
    async with world.process() as one, world.process() as other:
        await one.settle_in()
        session = await one.discovered("thermostat")
        device = (await one.service.session(session.id)).devices[eui64(world, "thermostat")]
        assert await one.registry.standings([device.thing]) == {}
        await other.executor.make_thing(device.thing, device.model_id, PREMISES)
        outcome = ExecutorOutcome()
        await one.executor.carry_out(session, [AttachDevice(device, GATEWAY)], outcome)
        assert outcome.refused == {}
        assert [pair.gateway for pair in await other.registry.gateways_of(device.thing)] == [GATEWAY]


async def test_a_device_that_was_taken_away_while_it_was_attached_is_attached_at_the_next_look(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat")
        device = (await one.service.session(session.id)).devices[eui64(world, "thermostat")]
        make_thing = one.executor.make_thing

        async def made_and_gone(thing, model, premises):
            await make_thing(thing, model, premises)
            await one.registry.remove(thing, OPERATOR)

        one.executor.make_thing = made_and_gone
        outcome = ExecutorOutcome()
        await one.executor.carry_out(session, [AttachDevice(device, GATEWAY)], outcome)
        assert outcome.refused == {}, "put off, not refused"
        one.executor.make_thing = make_thing
        await one.executor.carry_out(session, [AttachDevice(device, GATEWAY)], outcome)
        assert [pair.gateway for pair in await one.registry.gateways_of(device.thing)] == [GATEWAY]


async def test_a_gateway_that_goes_during_a_look_is_no_route(world, monkeypatch):
    async with world.process() as one:
        await one.settle_in()
        at = one.gateways.at

        async def there_and_gone(premises):
            found = await at(premises)
            await one.registry.remove(GATEWAY, OPERATOR)
            return found

        monkeypatch.setattr(one.gateways, "at", there_and_gone)
        assert await one.observing.routes(PREMISES) == ()


async def test_a_device_that_two_gateways_see_is_brought_in_by_the_one_that_has_room(tmp_path):
    world = World(tmp_path, scenes.reachable_twice(7))
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat")
        await one.service.discover(session.id, Discovery(gateway="gw-0007-home"), world.ask())
        for _ in range(3):
            await one.live_on(2)
        await one.service.stop_discovery(session.id, world.ask())
        known = await one.gateways.gateway(GATEWAY)
        await one.gateways.put(replace(known, devices_max=0, load_control_max=0), OPERATOR)
        await chosen(one, session, thermostat=["cpp-27"])
        await one.service.provision(session.id, world.ask())
        await one.live_on(2)
        assert (await one.service.session(session.id)).state is SessionState.RECORDED
        (pair,) = await one.registry.gateways_of(eui64(world, "thermostat"))
        assert pair.gateway == "gw-0007-home"


# ---------------------------------------------------------------------------- choosing and sending


@covers("3.2/9", "3.2/11")
async def test_what_does_not_fit_or_was_not_said_yes_to_is_not_sent(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat", "upstairs")
        device = eui64(world, "thermostat")
        with pytest.raises(AuthNotOkError) as unproved:
            await one.service.select(
                session.id, [Choice(device=eui64(world, "upstairs"), take_part=True)], world.ask()
            )
        assert unproved.value.devices == {eui64(world, "upstairs"): "AUTH_FAILED"}
        await one.service.select(session.id, [Choice(device=device, take_part=True)], world.ask())
        world.programs.unfit[device, "dlc-ac"] = ("CATEGORY", "CAPABILITY:load.duty")
        with pytest.raises(IneligiblePairsError) as unfit:
            await one.service.choose_programs(
                session.id,
                [Assignment(device=device, program=program) for program in ("cpp-27", "dlc-ac")],
                world.ask(),
            )
        assert unfit.value.pairs == {(device, "dlc-ac"): ("CATEGORY", "CAPABILITY:load.duty")}
        await one.service.choose_programs(
            session.id, [Assignment(device=device, program="cpp-27")], world.ask()
        )
        with pytest.raises(ConsentMissingError) as missing:
            await one.service.provision(session.id, world.ask())
        assert missing.value.pairs == ((device, "cpp-27"),)
        assert (await one.service.session(session.id)).state is SessionState.PROGRAMS_CHOSEN


@covers("3.2/13")
async def test_a_late_device_makes_the_session_partial_and_it_can_be_resumed_or_accepted(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat", "heater")
        await chosen(one, session, thermostat=["cpp-27"], heater=["dlc-ac"])
        world.programs.answer = EnrolmentState.PROVISIONING
        await one.service.provision(session.id, world.ask())
        await one.live_on(2)
        thermostat, heater = (eui64(world, name) for name in ("thermostat", "heater"))
        world.programs.become(thermostat, "cpp-27", EnrolmentState.READY)
        await one.live_on(600)
        session = await one.service.session(session.id)
        assert (session.state, session.devices[heater].state) == (SessionState.PARTIAL, DeviceState.LATE)
        world.programs.become(heater, "dlc-ac", EnrolmentState.PROVISION_FAILED, "NO_LOAD")
        await one.live_on(61)
        world.programs.answer = EnrolmentState.ACTIVATED
        again = await one.service.retry(session.id, [], world.ask())
        assert (again.state, again.devices[heater].state) == (
            SessionState.PROVISIONING,
            DeviceState.ACTIVATED,
        )
        await one.live_on(600)
        session = await one.service.accept_partial(session.id, world.ask())
        assert session.state is SessionState.RECORDED
        await one.live_on(1)
        assert "han.session.partial" in world.outgoing.kinds()
        assert not [call for call in world.programs.calls if call[0] == "end"]


async def test_an_aborted_session_leaves_nothing_behind_but_what_is_ready(world):
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat", "heater")
        await chosen(one, session, thermostat=["cpp-27"], heater=["dlc-ac"])
        world.programs.answer = EnrolmentState.PROVISIONING
        await one.service.provision(session.id, world.ask())
        await one.live_on(2)
        world.programs.become(eui64(world, "thermostat"), "cpp-27", EnrolmentState.READY)
        await one.live_on(2)
        await one.service.abort(session.id, "the customer hung up", world.ask())
        await one.live_on(2)
        session = await one.service.session(session.id)
        assert (session.state, session.released) == (SessionState.ABORTED, True)
        assert ("end", f"enr-{eui64(world, 'heater')}-dlc-ac") in world.programs.calls
        assert world.outgoing.kinds() == ["han.device.registered", "han.enrolment.changed"]


@covers("S1.4d")
async def test_a_route_that_fails_mid_session_is_changed_and_the_session_goes_on(tmp_path):
    world = World(tmp_path, scenes.reachable_twice(7))
    async with world.process() as one:
        await one.settle_in()
        session = await one.discovered("thermostat")
        await one.service.discover(session.id, Discovery(gateway="gw-0007-home"), world.ask())
        await one.live_on(2)
        await one.live_on(2)
        await one.service.stop_discovery(session.id, world.ask())
        await one.live_on(2)
        device = eui64(world, "thermostat")
        session = await one.service.session(session.id)
        assert session.devices[device].gateways == ("gw-0007-home", GATEWAY)
        await chosen(one, session, thermostat=["cpp-27"])
        world.programs.answer = EnrolmentState.PROVISIONING
        await one.service.provision(session.id, world.ask())
        await one.live_on(2)
        assert (await in_use(one, device))[0] == GATEWAY
        one.lose(GATEWAY)
        await one.live_on(2)
        assert (await in_use(one, device))[0] == GATEWAY
        await one.live_on(120)
        gateway, epoch = await in_use(one, device)
        assert gateway == "gw-0007-home"
        entry = (await one.han("gw-0007-home"))[0]["attach"][device]
        assert (entry["active"], entry["epoch"]) == (True, epoch)
        assert not (await one.han(GATEWAY))[0]["attach"][device]["active"]
        world.programs.become(device, "cpp-27", EnrolmentState.READY)
        await one.live_on(2)
        assert (await one.service.session(session.id)).state is SessionState.RECORDED


# ---------------------------------------------------------------------------- scenario 3.3


@covers("3.3/6.1", "3.3/6.2", "3.3/6.3", "3.3/1-15")
@pytest.mark.parametrize("remedy", ["new-meter", "bridge-zigbee"])
async def test_scenario_3_3_is_resumed_days_later_by_another_representative(tmp_path, remedy):
    world = World(tmp_path, scenes.without_gateway(7))
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        session = await one.service.discover(session.id, Discovery(), world.ask())
        assert (session.state, session.cause) == (SessionState.NOT_RECOGNIZED, Cause.NO_HAN_ROUTE)
        offered = {one.remedy.id: one.remedy for one in await one.service.remedies(session.id)}
        assert {"new-meter", "bridge-zigbee", "broadband-gateway"} <= offered.keys()
        with pytest.raises(RemedyNotOfferedError):
            await one.service.tell(session.id, ["replace-device"], "accepted", "replace-device", world.ask())
        undecided = await one.service.tell(session.id, [*offered], "undecided", "", world.ask())
        assert undecided.state is SessionState.NOT_RECOGNIZED
        told = await one.service.tell(session.id, [*offered], "accepted", remedy, world.ask())
        assert told.state is SessionState.AWAITING_REMEDY
        assert {kept.price_minor for kept in told.remedies} == {kept.price_minor for kept in offered.values()}
        assert world.outgoing.kinds() == ["han.remedy.ordered"]
    world.clock.advance(9 * 86_400)
    async with world.process() as later:
        kind = GatewayKind.METER if remedy == "new-meter" else GatewayKind.BRIDGE
        await later.bring(f"gw-0007-{kind}", kind)
        await later.live_on(61)
        session = await later.service.session(session.id)
        assert session.state is SessionState.OPEN
        with pytest.raises(VerificationExpiredError):
            await later.service.verify(session.id, session.verification, world.ask())
        await later.service.verify(session.id, await later.verified(RITA), world.ask(RITA))
        how = Discovery(grants=(later.label("thermostat"),))
        await later.service.discover(session.id, how, world.ask(RITA))
        for _ in range(4):
            await later.live_on(2)
        await later.service.stop_discovery(session.id, world.ask(RITA))
        await later.live_on(1)
        session = await later.service.session(session.id)
        assert session.devices[eui64(world, "thermostat")].state is DeviceState.AUTH_OK


async def test_a_session_that_waits_for_a_gateway_goes_on_when_it_comes_and_not_a_minute_later(tmp_path):
    world = World(tmp_path, scenes.without_gateway(7))
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        await one.service.discover(session.id, Discovery(), world.ask())
        offered = [each.remedy.id for each in await one.service.remedies(session.id)]
        await one.service.tell(session.id, offered, "accepted", "new-meter", world.ask())
        await one.live_on(61)
        await one.bring("gw-0007-meter", GatewayKind.METER)
        await one.live_on(3)
        assert (await one.service.session(session.id)).state is SessionState.OPEN


async def test_a_remedy_that_is_declined_ends_the_session(tmp_path):
    world = World(tmp_path, scenes.without_gateway(7))
    async with world.process() as one:
        await one.settle_in()
        session = await one.opened()
        await one.service.discover(session.id, Discovery(), world.ask())
        session = await one.service.tell(session.id, ["new-meter"], "declined", "", world.ask())
        assert (session.state, session.remedies[0].state) == (SessionState.ABORTED, "DECLINED")
        assert (await one.registry.premises(PREMISES)).open_session == ""
