"""Exchanges, replacements, moving out, clearing: over real services and the fleet's own gateway."""

from dataclasses import replace

import pytest

from fleet import provisioning as scenes
from programs.states import EnrolmentState
from provisioning.acts import Assignment, Choice
from provisioning.errors import GatewayCapacityError, IdempotencyMismatchError, InvalidRequestError
from provisioning.moves import THINGS_MAX, ConfirmationNeededError, MoveState, NotReplaceableError
from provisioning.service import NewSession
from provisioning.session import Consent, Session, pair
from provisioning.states import SessionState
from registry.devices import Device
from registry.errors import ThingNotFoundError
from registry.gateways import GatewayKind
from registry.meters import Meter
from registry.models import NewThing, Owner, ThingKind
from registry.states import DeviceTrigger, Lifecycle
from security.policy import Principal, Role
from shadow.commands import Channel, Origin, update
from shadow.decisions import Accepted
from shadow.document import ShadowId, Tree
from shadow.errors import TooLargeError, UnavailableError
from tests.covers import covers
from tests.provisioning_rig import ACCOUNT, LIMITS, OPERATOR, PREMISES, Process, World

GATEWAY, NEW = "gw-0007-meter", "gw-0007-new"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def provisioned(one: Process, *, confirmed: bool = True, **programs: str) -> Session:
    """Bring devices in, each with a program."""
    world = one.world
    await one.settle_in()
    session = await one.discovered(*programs)
    devices = {world.scene.eui64s[name]: program for name, program in programs.items()}
    choices = [
        Choice(device=world.scene.eui64s[name], take_part=True, name=name, location="hall")
        for name in programs
    ]
    await one.service.select(session.id, choices, world.ask())
    some = [Assignment(device=device, program=program) for device, program in devices.items()]
    await one.service.choose_programs(session.id, some, world.ask())
    yes = [
        Consent(device, program, "p-1", "holder", "phone", "1", "", 0) for device, program in devices.items()
    ]
    await one.service.consent(session.id, yes, world.ask())
    await one.service.provision(session.id, world.ask())
    await one.live_on(2)
    if not confirmed:
        return await one.service.session(session.id)
    after = await one.service.confirm(session.id, "phone", "gate code 4711", world.ask())
    assert after.state is SessionState.CONFIRMED
    await one.live_on(2)
    return after


def new_meter(gateway: str = NEW) -> Meter:
    return Meter(id="m-8", model="acme-meter", premises=PREMISES, gateway=gateway)


async def old_meter(one: Process) -> None:
    known = await one.meters.meter("m-7")
    await one.meters.put(replace(known, gateway=GATEWAY), OPERATOR)


@covers("O9", "3.3/6.3", "X22")
async def test_a_meter_exchange_moves_devices_with_their_keys_and_leaves_enrolments_alone(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27", heater="dlc-ac")
        await old_meter(one)
        before = dict(world.programs.made)
        await one.bring(NEW, GatewayKind.METER)
        move = await one.moves.exchange("m-7", new_meter(), world.clock.now_ms(), "wo-1", world.ask())
        for _ in range(6):
            await one.live_on(6)
        move = await one.moves.move(move.id)
        assert (move.state, move.missing) == (MoveState.DONE, ())
        for name in ("thermostat", "heater"):
            device = world.scene.eui64s[name]
            assert [pair.gateway for pair in await one.registry.gateways_of(device)] == [NEW]
            known = await one.devices.device(device)
            assert known.lifecycle is Lifecycle.REGISTERED
        assert world.programs.made == before
        assert sorted((await one.han(NEW))[0]) == ["attach"]
        assert (await one.han(GATEWAY))[0].get("attach", {}) == {}
        assert (await one.registry.thing(GATEWAY)).barred
        assert (await one.meters.meter("m-7")).went is not None
        assert "han.meter.exchanged" in world.outgoing.kinds()


async def test_a_meter_that_keeps_its_gateway_is_exchanged_and_nobody_leaves_the_gateway(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27")
        await old_meter(one)
        move = await one.moves.exchange("m-7", new_meter(GATEWAY), world.clock.now_ms(), "", world.ask())
        for _ in range(6):
            await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        attached = await one.registry.gateways_of(world.scene.eui64s["thermostat"])
        assert [pair.gateway for pair in attached] == [GATEWAY]
        assert not (await one.registry.thing(GATEWAY)).barred
        assert (await one.meters.meter("m-7")).went is not None


async def test_the_gateway_of_a_meter_that_went_has_no_rights_also_if_it_had_no_devices(world):
    async with world.process() as one:
        await one.settle_in()
        await old_meter(one)
        await one.bring(NEW, GatewayKind.METER)
        await one.moves.exchange("m-7", new_meter(), world.clock.now_ms(), "", world.ask())
        await one.live_on(6)
        assert (await one.registry.thing(GATEWAY)).barred
        assert [gateway.id for gateway in await one.gateways.at(PREMISES)] == [NEW]


async def test_an_exchange_touches_no_gateway_of_another_home(world):
    async with world.process() as one:
        await one.settle_in()
        new = NewThing("gw-0008", ThingKind.GATEWAY, "acme-amg-4", "pr-0008", owner=Owner.UTILITY)
        await one.registry.register(new, OPERATOR)
        other = replace(await one.gateways.gateway(GATEWAY), id="gw-0008", premises="pr-0008")
        await one.gateways.put(other, OPERATOR)
        known = await one.meters.meter("m-7")
        await one.meters.put(replace(known, gateway="gw-0008"), OPERATOR)
        for gateway in ("", "gw-0008"):
            with pytest.raises(InvalidRequestError, match="gw-0008"):
                await one.moves.exchange("m-7", new_meter(gateway), world.clock.now_ms(), "", world.ask())
        assert not (await one.registry.thing("gw-0008")).barred
        assert (await one.meters.meter("m-7")).went is None


async def test_link_keys_reach_the_new_gateway_sealed_for_its_own_window(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27")
        await old_meter(one)
        await one.bring(NEW, GatewayKind.METER)
        await one.moves.exchange("m-7", new_meter(), world.clock.now_ms(), "wo-1", world.ask())
        await one.live_on(1, rounds=1)
        granted = []
        for _ in range(8):
            await one.live_on(6, rounds=1)
            granted += [*(await one.han(NEW))[0].get("grants", {})]
        assert world.scene.eui64s["thermostat"] in granted


async def test_an_exchange_for_a_meter_that_takes_fewer_devices_changes_nothing(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27", heater="dlc-ac")
        await old_meter(one)
        await one.bring(NEW, GatewayKind.METER)
        known = await one.gateways.gateway(NEW)
        await one.gateways.put(replace(known, devices_max=1, load_control_max=1), OPERATOR)
        with pytest.raises(GatewayCapacityError, match="1 devices"):
            await one.moves.exchange("m-7", new_meter(), world.clock.now_ms(), "", world.ask())
        with pytest.raises(GatewayCapacityError):
            await one.moves.exchange("m-7", new_meter(""), world.clock.now_ms(), "", world.ask())
        assert (await one.meters.meter("m-7")).went is None


async def test_an_exchange_goes_on_in_another_process_and_is_asked_for_once(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27")
        await old_meter(one)
        await one.bring(NEW, GatewayKind.METER)
        ask = world.ask()
        move = await one.moves.exchange("m-7", new_meter(), world.clock.now_ms(), "wo-1", ask)
        again = await one.moves.exchange("m-7", new_meter(), world.clock.now_ms(), "wo-1", ask)
        assert again.id == move.id
        with pytest.raises(IdempotencyMismatchError):
            await one.moves.exchange(
                "m-7", new_meter(), world.clock.now_ms(), "wo-1", replace(ask, digest="other")
            )
    async with world.process() as other:
        for _ in range(6):
            await other.live_on(6)
        assert (await other.moves.move(move.id)).state is MoveState.DONE


@covers("I3FR3.1-n")
async def test_a_successor_takes_the_place_of_a_device_with_its_name_and_programs(tmp_path):
    world = World(tmp_path, scenes.recognised(7))
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27")
        session = await one.discovered("heater")
        old, new = (world.scene.eui64s[name] for name in ("thermostat", "heater"))
        assert session.devices[new].state == "AUTH_OK"
        with pytest.raises(NotReplaceableError):
            await one.moves.replace(new, old, world.ask())
        move = await one.moves.replace(old, new, world.ask())
        for _ in range(3):
            await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        gone, came = await one.devices.device(old), await one.devices.device(new)
        assert (gone.lifecycle, gone.successor) == (Lifecycle.REPLACED, new)
        assert (came.lifecycle, came.predecessor, came.name) == (Lifecycle.REGISTERED, old, "thermostat")
        assert world.programs.made[pair(new, "cpp-27")].state is EnrolmentState.READY
        assert world.programs.made[pair(old, "cpp-27")].state is EnrolmentState.ENDED
        assert await one.keys.of([old]) == {}
        assert old not in (await one.han(GATEWAY))[0]["attach"]


@covers("I3FR3.1")
async def test_a_successor_is_given_the_configuration_of_the_device_whose_place_it_takes(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27")
        await one.discovered("heater")
        old, new = (world.scene.eui64s[name] for name in ("thermostat", "heater"))
        await reported(one, old, {"lang": "de", "old": True})
        await reported(one, new, {"lang": "en"})
        move = await one.moves.replace(old, new, world.ask())
        for _ in range(3):
            await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        assert (await one.shadows.view(ShadowId(new, "config"))).desired.state == {"lang": "de"}
        (kept,) = await one.snapshots.of_thing(old)
        assert kept.reported("config") == {"lang": "de", "old": True}


@pytest.mark.parametrize(
    ("error", "given"),
    [(UnavailableError("the store is down"), {"lang": "de"}), (TooLargeError("depth"), {})],
)
async def test_a_shadow_that_takes_nothing_just_now_is_asked_again_and_one_that_refuses_is_not(
    world, monkeypatch, error, given
):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27")
        await one.discovered("heater")
        old, new = (world.scene.eui64s[name] for name in ("thermostat", "heater"))
        await reported(one, old, {"lang": "de"})
        await reported(one, new, {"lang": "en"})
        restore, refusals = one.snapshots.restore, [error]

        async def refusing(*args, **options):
            if refusals:
                raise refusals.pop()
            return await restore(*args, **options)

        monkeypatch.setattr(one.snapshots, "restore", refusing)
        move = await one.moves.replace(old, new, world.ask())
        for _ in range(6):
            await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        assert (await one.shadows.view(ShadowId(new, "config"))).desired.state == given


@covers("I3FR3.1", "O17")
async def test_no_snapshot_outlives_the_customer_whose_data_it_holds(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27", heater="dlc-ac")
        mine, theirs = (world.scene.eui64s[name] for name in ("thermostat", "heater"))
        await one.devices.amend(theirs, lambda before: replace(before, owner=Owner.UTILITY), OPERATOR)
        for thing in (mine, theirs):
            await reported(one, thing, {"lang": "de"})
            await one.snapshots.take(thing, f"s-{thing}", OPERATOR)
        await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        for _ in range(3):
            await one.live_on(6)
        assert await one.snapshots.of_thing(mine) == await one.snapshots.of_thing(theirs) == ()


async def reported(one: Process, thing: str, config: Tree) -> None:
    """Let a device report its configuration."""
    state: Tree = {"reported": config}
    origin = Origin(thing, Role.DEVICE, Channel.MQTT)
    command = update(ShadowId(thing, "config"), origin, state, LIMITS, None, b"")
    (outcome,) = await one.shadows.submit([command])
    assert isinstance(outcome, Accepted), outcome


@covers("O17", "X23")
async def test_move_out_takes_the_customers_device_and_leaves_the_utilitys(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27", heater="dlc-ac")
        mine, theirs = (world.scene.eui64s[name] for name in ("thermostat", "heater"))
        await one.devices.amend(theirs, lambda before: replace(before, owner=Owner.UTILITY), OPERATOR)
        move = await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        for _ in range(3):
            await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        place = await one.registry.premises(PREMISES)
        assert (place.account, place.epoch) == ("", 2)
        with pytest.raises(ThingNotFoundError):
            await one.registry.thing(mine)
        assert (await one.registry.thing(theirs)).premises == PREMISES
        for device in (mine, theirs):
            known = await one.devices.device(device)
            assert (known.lifecycle, known.account, known.name) == (Lifecycle.DEREGISTERED, "", "")
        assert await one.keys.of([mine]) == {}
        assert {made.state for made in world.programs.made.values()} == {EnrolmentState.ENDED}
        assert world.outgoing.kinds().count("han.device.removed") == 2
        for session in (await one.service.at(PREMISES, 10)).sessions:
            assert session.note == ""
            assert {device.name for device in session.devices.values()} == {""}


async def test_move_out_waits_for_its_day_and_ends_a_session_under_way(world):
    async with world.process() as one:
        await one.settle_in()
        tomorrow_ms = world.clock.now_ms() + 86_400_000
        move = await one.moves.move_out(PREMISES, ACCOUNT, tomorrow_ms, world.ask())
        session = await one.opened()
        await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.WORKING
        await one.live_on(86_400)
        await one.live_on(6)
        assert (await one.moves.move(move.id)).state is MoveState.DONE
        assert (await one.service.session(session.id)).is_over
        assert (await one.registry.premises(PREMISES)).account == ""


async def test_a_move_that_always_fails_is_left_alone_longer_each_time(world, monkeypatch):
    async with world.process() as one:
        await one.settle_in()
        move = await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms() + 60_000, world.ask())
        work, tried = one.moves._work, []

        async def broken(_move):
            tried.append(round(world.clock.elapsed_s() - began_s))
            raise ValueError("unreadable")

        monkeypatch.setattr(one.moves, "_work", broken)
        world.clock.advance(60)
        began_s = world.clock.elapsed_s()
        for _ in range(200):
            await one.moves.pass_once()
            world.clock.advance(1)
        assert tried == [0, 5, 10, 15, 23, 39, 71, 131, 191]
        monkeypatch.setattr(one.moves, "_work", work)
        world.clock.advance(60)
        await one.live_on(0)
        assert (await one.moves.move(move.id)).state is MoveState.DONE


async def test_move_out_leaves_no_word_in_a_session_that_nobody_confirmed(world):
    async with world.process() as one:
        recorded = await provisioned(one, confirmed=False, thermostat="cpp-27")
        assert recorded.state is SessionState.RECORDED
        await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        await one.live_on(6)
        bare = await one.service.session(recorded.id)
        assert {device.name for device in bare.devices.values()} == {""}


async def test_who_moves_in_while_the_move_out_goes_on_keeps_the_session_and_its_words(world):
    async with world.process() as one:
        await one.settle_in()
        world.programs.end_all = never
        await registered(one, "EUI-0", ACCOUNT)
        move = await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        await one.registry.hand_over(PREMISES, "ac-0008", OPERATOR)
        bea = Principal("bea", Role.CUSTOMER, account="ac-0008")
        new = NewSession(premises=PREMISES, account="ac-0008")
        theirs = await one.service.open(new, world.ask(bea))
        world.clock.advance(6)
        await one.moves.pass_once()
        assert (await one.moves.move(move.id)).state is MoveState.WORKING
        assert (await one.service.session(theirs.id)).state is SessionState.OPEN


async def test_move_out_leaves_out_no_device_however_many_were_there_before(world):
    async with world.process() as one:
        await one.settle_in()
        for number in range(THINGS_MAX + 1):
            await registered(one, f"dev-{number:03d}", "ac-0001")
            await one.devices.apply(f"dev-{number:03d}", DeviceTrigger.DEREGISTER, OPERATOR)
        await registered(one, "dev-999", ACCOUNT)
        await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        await one.live_on(6)
        assert (await one.devices.device("dev-999")).lifecycle is Lifecycle.DEREGISTERED


async def test_a_customers_own_gateway_goes_with_them_and_serves_nobody_who_moves_in(world):
    async with world.process() as one:
        await one.settle_in()
        await one.bring("hub-of-ada", GatewayKind.CUSTOMER_BROADBAND, owner=Owner.CUSTOMER)
        world.programs.end_all = never
        await registered(one, "dev-1", ACCOUNT)
        await one.moves.move_out(PREMISES, ACCOUNT, world.clock.now_ms(), world.ask())
        world.clock.advance(60)
        await one.bring("hub-of-bea", GatewayKind.CUSTOMER_BROADBAND, owner=Owner.CUSTOMER)
        world.clock.advance(600)
        await one.moves.pass_once()
        assert [known.id for known in await one.gateways.at(PREMISES)] == [GATEWAY, "hub-of-bea"]


async def never(_thing, _reason):
    return False


async def registered(one: Process, id: str, account: str) -> None:
    """Let a device be registered, without all that comes before."""

    def bound(before: Device) -> Device:
        return replace(before, account=account, premises=PREMISES)

    await one.devices.apply(id, DeviceTrigger.SEEN, OPERATOR, new=Device(id=id))
    await one.devices.apply(id, DeviceTrigger.PROVED, OPERATOR)
    await one.devices.apply(id, DeviceTrigger.REGISTER, OPERATOR, change=bound)


async def test_a_gateway_is_cleared_of_one_or_after_a_second_word_of_all(world):
    async with world.process() as one:
        await provisioned(one, thermostat="cpp-27", heater="dlc-ac")
        first, second = (world.scene.eui64s[name] for name in ("thermostat", "heater"))
        await one.moves.clear(GATEWAY, [first], world.ask(OPERATOR))
        await one.live_on(2)
        assert [*(await one.han(GATEWAY))[0]["attach"]] == [second]
        with pytest.raises(ConfirmationNeededError):
            await one.moves.clear(GATEWAY, [], world.ask(OPERATOR))
        await one.moves.clear(GATEWAY, [], world.ask(OPERATOR), confirmed=True)
        await one.live_on(2)
        desired, reported = await one.han(GATEWAY)
        assert (desired.get("attach", {}), reported.get("attach", {})) == ({}, {})
        assert {made.state for made in world.programs.made.values()} == {EnrolmentState.READY}
