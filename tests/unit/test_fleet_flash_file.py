"""The flashes of a city as a file: a fleet that is started again goes on with what its devices ran."""

import msgspec

from fleet.boot import Store, boot
from fleet.connection import Endpoint, plain_identity
from fleet.flash_file import Kept, pack, unpack
from fleet.plan import city
from fleet.simulation import Simulation
from tests.fakes import FakeClock
from tests.firmware_bench import Bench, job

PLAN = city(3, seed=1)
WIFI = next(one.name for home in PLAN.homes for one in home.devices if one.model == "norland-t1-wifi")


def a_city(flashes=None, plan=PLAN):
    return Simulation(
        plan,
        endpoint=Endpoint("localhost", 1),
        identities=plain_identity,
        clock=FakeClock(),
        seed=1,
        flashes=flashes or {},
    )


def upgraded():
    """Return the flash of a device that has installed a new image."""
    return Bench().offer(job()).run().flash


def test_an_image_and_its_configuration_are_there_again():
    flash = upgraded()
    ((name, kept),) = unpack(pack({"han-0003": Kept("T1", flash)})).items()
    assert (name, kept.model) == ("han-0003", "T1")
    before, slot = boot(flash)
    after, same = boot(kept.flash)
    assert same == slot
    assert after.record == before.record
    assert after.config(slot) == before.config(slot)
    assert kept.flash.slots[slot].blocks == flash.slots[slot].blocks


def test_the_key_list_is_there_again():
    flash = upgraded()
    flash.keys.write(b"a list")
    ((_, kept),) = unpack(pack({"han-0003": Kept("T1", flash)})).items()
    assert kept.flash.keys.read() == b"a list"


def test_equal_blocks_are_held_once():
    one, flash = Kept("T1", upgraded()), upgraded()
    single = len(pack({"a": one}))
    assert len(pack({"a": one, "b": Kept("T1", flash)})) < single * 1.1


def test_what_is_no_such_file_holds_nothing():
    data = pack({"a": Kept("T1", upgraded())})
    lost = msgspec.msgpack.encode([[], msgspec.msgpack.decode(data)[1]])
    assert unpack(b"") == unpack(b"garbage") == unpack(data[:-1]) == unpack(lost) == {}


def test_a_city_goes_on_with_what_its_devices_ran():
    first = a_city()
    flash = first.flashes[WIFI].flash
    store = Store(flash)
    store.write(store.record.where(counter=7))
    second = a_city(unpack(pack(first.flashes)))
    assert Store(second.flashes[WIFI].flash).record.counter == 7
    assert second.flashes.keys() == first.flashes.keys()


def test_a_device_that_is_of_another_model_now_is_new_from_the_factory():
    first = a_city()
    store = Store(first.flashes[WIFI].flash)
    store.write(store.record.where(counter=7))
    second = a_city({WIFI: Kept("acme-pct-2", first.flashes[WIFI].flash)})
    assert Store(second.flashes[WIFI].flash).record.counter == 1
    assert second.flashes[WIFI].model == "norland-t1-wifi"
