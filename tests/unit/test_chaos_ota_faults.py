"""What strikes devices in a run: links, power, lies. Each does what its name says, and nothing else."""

import random
from collections import Counter

import cbor2
import pytest

from fleet.boot import FileStatus, Store
from fleet.firmware import Setting
from fleet.hardware import new_hardware
from ota import order as orders
from ota.envelope import Typ, seal
from ota.verification import Offer, Refused, verify
from tests import ota_base
from tests.chaos_ota.cast import (
    BITTER_POINTS,
    POINTS,
    REFUSED_WITH,
    Countdown,
    Cut,
    Group,
    How,
    Lie,
    Mangling,
    Part,
    State,
    new_cast,
)
from tests.chaos_ota.link import BadLink
from tests.chaos_ota.plants import lie_about
from tests.chaos_ota.watched import ChaosFuse
from tests.firmware_bench import MAKE, TRUSTED

TOPIC = "$aws/things/hall/streams/fw-1/data/cbor"


def link(
    *mangling: Mangling, loss: float = 0.0, seed: int = 1, mangled: float = 1.0
) -> tuple[BadLink, Counter[str]]:
    struck: Counter[str] = Counter()
    part = Part(thing="hall", group=Group.KEEP, night=12, loss=loss, mangling=mangling, mangled=mangled)
    return BadLink(part, random.Random(seed), struck), struck


def block(index: int, file: int = 0) -> bytes:
    return cbor2.dumps({"f": file, "l": 64, "i": index, "p": bytes([index]) * 64})


def arrived(bad: BadLink, count: int = 2) -> list[tuple[int, bytes]]:
    messages = [one for index in range(count) for one in bad.down(TOPIC, block(index))]
    return [(found["i"], found["p"]) for found in (cbor2.loads(payload) for _, payload in messages)]


ZERO, ONE = bytes(64), b"\1" * 64


def test_a_link_loses_a_fifth_of_all_messages_each_way_and_the_same_ones_by_the_same_seed():
    runs = []
    for _ in range(2):
        bad, struck = link(loss=0.2)
        ups = [bad.up() for _ in range(1_000)]
        downs = [bool(list(bad.down("any", b""))) for _ in range(1_000)]
        assert struck == {"lost.up": ups.count(False), "lost.down": downs.count(False)}
        runs.append(ups + downs)
    assert runs[0] == runs[1]
    assert 0.15 < runs[0].count(False) / 2_000 < 0.25


def test_blocks_are_duplicated():
    bad, struck = link(Mangling.DUPLICATED)
    assert arrived(bad) == [(0, ZERO), (0, ZERO), (1, ONE), (1, ONE)]
    assert struck["block.duplicated"] == 2


def test_blocks_are_reordered():
    bad, struck = link(Mangling.REORDERED)
    assert arrived(bad) == [(1, ONE), (0, ZERO)]
    assert struck["block.reordered"] == 1


def test_blocks_are_swapped_and_say_that_they_are_the_other():
    bad, struck = link(Mangling.SWAPPED)
    assert arrived(bad) == [(0, ONE), (1, ZERO)]
    assert struck["block.swapped"] == 1


def test_blocks_are_truncated_and_tampered_with():
    bad, _ = link(Mangling.TRUNCATED)
    assert all(len(data) < 64 for _, data in arrived(bad))
    bad, _ = link(Mangling.TAMPERED)
    for (index, data), whole in zip(arrived(bad), (ZERO, ONE), strict=True):
        flipped = int.from_bytes(data) ^ int.from_bytes(whole)
        assert (len(data), flipped.bit_count()) == (64, 1), index


@pytest.mark.parametrize("mangling", Mangling)
def test_a_link_that_mangles_does_so_to_the_first_blocks_of_an_image_and_then_by_chance(mangling):
    bad, struck = link(mangling, mangled=0.0)
    assert list(bad.down(TOPIC, block(0, file=1))) == [(TOPIC, block(0, file=1))]
    arrived(bad, 9)
    assert struck == Counter({f"block.{mangling}": 1})


def test_a_block_that_is_asked_for_again_is_no_other_to_be_taken_for():
    bad, struck = link(Mangling.SWAPPED)
    assert [*bad.down(TOPIC, block(0)), *bad.down(TOPIC, block(0))] == [(TOPIC, block(0))] * 2
    assert not struck.total()


def test_what_is_no_block_is_not_mangled():
    bad, struck = link(*Mangling)
    assert list(bad.down("$aws/things/hall/jobs/notify-next", b"{}")) == [
        ("$aws/things/hall/jobs/notify-next", b"{}")
    ]
    assert not struck.total()


def test_a_poisoned_link_lets_key_lists_pass():
    bad, struck = link(Mangling.TAMPERED)
    topic = TOPIC.replace("fw-1", "keys-3")
    assert list(bad.down(topic, block(1))) == [(topic, block(1))]
    assert not struck.total()


def test_a_countdown_tells_each_cut_once_in_its_state():
    cuts = (Cut(State.LOADING, How.WRITE, 2), Cut(State.LOADED, How.BETWEEN), Cut(State.LOADING, How.WRITE))
    countdown = Countdown(cuts, How.WRITE)
    came = [countdown.came(state) for state in (State.NONE, *[State.LOADING] * 4)]
    assert came == [None, None, cuts[0], cuts[2], None]
    assert not countdown


def test_a_fuse_blows_in_the_state_that_was_chosen():
    struck: list[Cut] = []
    cut = Cut(State.LOADED, How.WRITE, 2)
    fuse = ChaosFuse(random.Random(1), (cut,), struck.append)
    made = new_hardware(MAKE, Setting(keys=TRUSTED), random.Random(1))
    store, state = Store(made.flash), FileStatus.NONE
    fuse.arm(lambda: State(int(state)))
    assert not any(fuse.blows() for _ in range(5))
    state = FileStatus.LOADED
    assert [fuse.blows() for _ in range(4)] == [False, True, False, False]
    assert struck == [cut]
    assert store.record.state is FileStatus.NONE


@pytest.mark.parametrize("lie", Lie)
async def test_every_lie_is_refused_for_its_own_reason(lie):
    async def sign(order):
        return seal(orders.write(order), Typ.ORDER, ota_base.UTILITY_KEY)

    manifest, order, proof = await lie_about(
        lie, ota_base.MANIFEST_COSE, ota_base.ORDER_COSE, ota_base.proof_of(ota_base.DEVICE.thing), sign
    )
    offer = Offer(manifest, order, proof)
    with pytest.raises(Refused) as refused:
        verify(offer, ota_base.DEVICE, ota_base.KEYS, ota_base.NOW_S, 0)
    assert refused.value.code == REFUSED_WITH[lie]


def test_a_cast_has_everybody_and_is_the_same_by_the_same_seed():
    cast = new_cast(1_000, 7)
    assert cast == new_cast(1_000, 7) != new_cast(1_000, 8)
    assert len({part.thing for part in cast.parts}) == 1_000
    assert {part.lie for part in cast.of(Group.TRAP)} == set(Lie)
    cuts = {(cut.state, cut.how) for part in cast.parts for cut in part.cuts}
    assert cuts >= {*POINTS, *BITTER_POINTS}
    assert {one for part in cast.parts for one in part.mangling} == set(Mangling)


def test_too_few_devices_for_every_fault_are_refused():
    with pytest.raises(SystemExit, match="at least"):
        new_cast(40, 1)
