"""A whole device is offered everything that is wrong in one way: nothing of it is ever installed."""

from dataclasses import replace
from itertools import islice

import pytest

from fleet.boot import FileStatus
from tests import ota_base as base
from tests import ota_faults
from tests.covers import covers
from tests.offering import device, offered, once
from tests.ota_base import IMAGE, LEAVES, MANIFEST, OFFER, THINGS
from tests.ota_faults import Fault


def refused_with(bench, offer, leaves=LEAVES):
    """Offer it, and return how the job ended; nothing may have been installed."""
    bench.run()
    before = bench.old()
    bench.offer(offered(offer, leaves)).run()
    assert bench.old() == before
    assert bench.computer.firmware.slot == "a"
    assert not bench.flash.slots["b"].blocks
    return bench.job.status, bench.job.details["reason"], bench.job.details["fs"]


def test_the_pair_without_a_fault_is_installed():
    bench = device().run().offer(offered(OFFER)).run()
    assert bench.job.status == "SUCCEEDED"
    assert bench.running() == IMAGE


@covers("I3FR6.1")
def test_an_offer_with_one_fault_installs_nothing_and_says_which_it_was():
    faults = [fault for fault in ota_faults.OFFERS if fault.device.ready]
    assert len(faults) > 200
    for fault in faults:
        # V1 to V6: nobody who may has signed this. V7 to V13: signed well, but not for us, or not now.
        end, fs = ("FAILED", "4") if int(fault.step[1:]) <= 6 else ("REJECTED", "0")
        assert refused_with(device(fault), fault.offer) == (end, fault.code, fs), fault.name


def test_no_single_bit_of_an_envelope_can_be_changed():
    for offer, codes in islice(ota_faults.flips(), 0, None, 3):
        _, code, _ = refused_with(device(), offer)
        assert code in codes


@pytest.mark.parametrize("name", ota_faults.LEAF_LISTS)
def test_another_leaf_list_ends_the_load_before_the_first_block(name):
    leaves = ota_faults.LEAF_LISTS[name]
    reason = "leaves" if leaves else "deadline"  # of an empty one nothing comes at all
    assert refused_with(device(), OFFER, leaves) == ("FAILED", reason, "2")


@covers("I3FR6.1")
def test_a_bad_block_is_noticed_asked_for_once_more_and_the_image_is_right():
    bad = [one for one in ota_faults.bad_blocks() if 0 <= one[1] < MANIFEST.blocks]
    assert len(bad) > 1_000
    for name, index, block in bad:
        bench = device().run()
        served = bench.service.wire = once(index, block)
        bench.offer(offered(OFFER)).run()
        assert bench.job.status == "SUCCEEDED", name
        assert bench.running() == IMAGE
        assert served.asked == 2


def test_an_order_for_others_installs_nothing_on_any_other_thing():
    for thing in ("han-0006", "han-00031", "HAN-0003", "han-000"):
        bench = device(Fault(name="", step="V9", code="", device=replace(base.DEVICE, thing=thing)))
        assert refused_with(bench, OFFER) == ("REJECTED", "not_target", "0")
    assert base.DEVICE.thing in THINGS


def test_the_clock_may_be_set_back_and_an_old_order_still_installs_nothing():
    """The floor is the latest time that the device was ever told; it rises with each upgrade."""
    bench = device().run().offer(offered(OFFER)).run()
    assert bench.computer.firmware.state is FileStatus.ACTIVATED
    before = bench.old()
    last_month = next(fault for fault in ota_faults.OFFERS if fault.name.startswith("F12"))
    bench.now = float(last_month.now_s)
    bench.offer(replace(offered(last_month.offer), id="c-" + "1" * 32)).run()
    assert (bench.job.status, bench.job.details["reason"]) == ("REJECTED", "expired")
    assert bench.old() == before
