"""Devices that are offered firmware, in a process of their own so that a hole can be planted for them alone.

``python -m tests.attack.devices ROW quick|full [--hole=NAME …]`` prints the score of one row. The service
that they face is the Bad Actor's own: it says and sends whatever it likes, with the signatures that it has.
What counts is read from the flash of a device: the image that would start if it were switched off and on.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from random import Random
from typing import Any, Final

import cbor2
import msgspec

from fleet.firmware import Download
from ota import key_list
from ota import order as orders
from ota.envelope import Typ
from ota.verification import Offer
from tests import key_lists
from tests import ota_base as base
from tests import ota_faults as faults
from tests.attack import holes
from tests.attack.attacks import Score
from tests.firmware_bench import MAKE, THING, Bench, Release, job, release
from tests.offering import SOUND, always, device, offered, once, starts
from tests.ota_base import IMAGE, MANIFEST, NOW_S, OFFER, UTILITY_KEY, VENDOR_KEY
from tests.ota_faults import Fault, manifest_with, order_with, paired, raw
from tests.system.child import ROOT

HOLE: Final = "--hole="
PATIENCE_S: Final = 240
NEW: Final = release("2.0.0.0", 9_000, 1_024, counter=5)
COUNTER_MAX: Final = 2**32 - 1
WRITES: Final = 48
"""Of a flash, in one upgrade to a small image."""
OLD: Final = starts(device())
FACTORY: Final = MAKE.factory_image()[1]
"""What runs at first: on devices of the base pair, and of the bench."""


def in_a_process(row: str, quick: bool, planted: Iterable[str]) -> Score:
    """Return how a row of the table went at devices with these holes."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.attack.devices",
            row,
            "quick" if quick else "full",
            *(f"{HOLE}{name}" for name in planted),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not done.returncode, done.stderr.decode()[-1_000:]
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Score)


# ---------------------------------------------------------------------------- B9


def downgrades(score: Score, quick: bool) -> None:
    """Offer what is older, or for other hardware, with both signatures right."""
    for fault in faults.OFFERS:
        if fault.step in {"V7", "V10", "V11"}:
            _refused(score, fault)
    for running in (5, COUNTER_MAX):
        _no_way_back(score, running)
    for cut_at in range(1, WRITES, 6 if quick else 1):
        _after_a_power_cut(score, cut_at)


def _no_way_back(score: Score, running: int) -> None:
    """Upgrade as one should, then offer what was signed well once, or wraps around."""
    newest = release("2.0.0.0", 9_000, 1_024, counter=running)
    for name, older in {
        "the version before": release("1.9.65535.65535", 9_000, 1_024, counter=running),
        "the factory's version": release("1.0.0.0", 9_000, 1_024, counter=running),
        "a version around the end": release("0.0.0.1", 9_000, 1_024, counter=running),
        "a newer version, an older counter": release("9.0.0.0", 9_000, 1_024, counter=running - 1),
        "the largest version, counter 0": release("65535.65535.65535.65535", 9_000, 1_024, counter=0),
        "a counter around the end": release("2.0.0.1", 9_000, 1_024, counter=(running + 1) % running),
    }.items():
        bench = _upgraded(score, newest)
        bench.offer(job(of=older, number=2)).run()
        _judge(score, f"{name}, over counter {running}", bench, newest.image, "downgrade")


def _after_a_power_cut(score: Score, cut_at: int) -> None:
    """Cut the power amid an upgrade, then offer what is older than both images."""
    bench = Bench(cut_at).run()
    bench.flash.fuse.cut_at = bench.flash.fuse.writes + cut_at
    bench.offer(job(of=NEW)).run()
    runs = starts(bench)
    bench.offer(job(of=release("0.9.0.0", 9_000, 1_024, counter=0), number=2)).run()
    _judge(score, f"older, after a power cut at write {cut_at}", bench, runs, "downgrade")


# ---------------------------------------------------------------------------- B10


def tampering(score: Score, quick: bool) -> None:
    """Send other bytes than those that were signed: some of them, all of them, more, in another order."""
    bad = [one for one in faults.bad_blocks() if one[0] != "F24"]
    bad += islice((one for one in faults.bad_blocks() if one[0] == "F24"), 0, None, 10 if quick else 1)
    for name, index, block in bad:
        _one_bad_block(score, name, index, block)
    _always_bad(score)
    for name, leaves in faults.LEAF_LISTS.items():
        bench = device().run()
        bench.offer(offered(OFFER, leaves)).run()
        _judge(score, name, bench, OLD)
    for name, image in _other_images().items():
        bench = device().run()
        bench.offer(offered(OFFER, image=image)).run()
        _judge(score, f"{name}, by blocks", bench, OLD)
        _over_http(score, name, image)
    for write in range(1, WRITES, 6 if quick else 1):
        _worn_flash(score, write)
    _junk(score, 200 if quick else 2_000)


def _one_bad_block(score: Score, name: str, index: int, block: bytes) -> None:
    bench = device().run()
    served = bench.service.wire = once(index, block)
    bench.offer(offered(OFFER)).run()
    runs = starts(bench)
    score.attempt(f"{name} in block {index}", succeeded=runs not in {IMAGE, OLD})
    score.must(f"{name} in block {index}: the image comes in spite of it", held=runs == IMAGE)
    if 0 <= index < MANIFEST.blocks:
        score.must(f"{name} in block {index}: asked for twice, not {served.asked}", held=served.asked == 2)


def _always_bad(score: Score) -> None:
    """Never send the good one: a device gives up, and keeps what it has."""
    for index, good in enumerate(faults.blocks()):
        bench = device().run()
        bench.service.wire = always(index, faults.flipped(good, 9))
        bench.offer(offered(OFFER)).run()
        _judge(score, f"block {index} always bad", bench, OLD, "block_hash")


def _other_images() -> Mapping[str, bytes]:
    return {
        "cut": IMAGE[:-1],
        "longer": IMAGE + b"\x00" * 5_000,
        "empty": b"",
        "all zero": bytes(len(IMAGE)),
        "of another release": Random(1).randbytes(len(IMAGE)),
        "blocks turned round": b"".join(reversed(faults.blocks())),
        "compressed": b"\x1f\x8b\x08" + bytes(len(IMAGE) - 3),
    }


def _over_http(score: Score, name: str, image: bytes) -> None:
    """Hand over an image as it was fetched whole."""
    bench = Bench(by_http=True).run().offer(job(of=NEW, http="https://localhost/2")).run(5)
    wanted = bench.computer.firmware.download
    assert isinstance(wanted, Download), "it waits for the image"
    bench.computer.feed(bench.now, wanted, image)
    bench.run()
    _judge(score, f"{name}, over HTTP", bench, FACTORY, "block_hash")


def _worn_flash(score: Score, write: int) -> None:
    """Flip a bit in flash after a write: what is read back is not what was written."""
    bench = Bench(write).run()
    bench.flash.fuse.flip_at = bench.flash.fuse.writes + write
    bench.offer(job(of=NEW)).run()
    runs = starts(bench)
    sound = runs in {NEW.image, FACTORY}
    score.attempt(f"a bit flips in flash after write {write}", succeeded=not sound)


def _junk(score: Score, count: int) -> None:
    """Send what is no answer while an image comes: a device that ends of it is worth no more than a brick."""
    bench, chance = Bench().run(), Random(9)
    bench.service.wire = lambda file, _index, data: [data] if file else []
    bench.offer(job(of=NEW)).run(5)
    deep = b"[" * 50_000 + b"]" * 50_000
    endings = ("jobs/notify-next", "jobs/$next/get/accepted", f"streams/{NEW.stream}/data/cbor",
               f"streams/{NEW.stream}/rejected/cbor", "shadow/name/firmware/update/accepted")  # fmt: skip
    for number in range(count):
        payload = chance.choice(
            (b"", b"{", b'{"x": %b}' % deep, b"\x81" * 50_000, chance.randbytes(40), cbor2.dumps([1]),
             cbor2.dumps({"f": 0, "i": 2**70, "p": b"x"}), cbor2.dumps({"f": 0, "i": -1, "p": bytes(1_024)}),
             cbor2.dumps({"f": 0, "i": 0, "p": bytes(200_000)}), bytes.fromhex("d81e820100"))
        )  # fmt: skip
        bench.deliver([(f"$aws/things/{THING}/{chance.choice(endings)}", payload)])
        if not number % 50:
            score.attempt("junk was installed", succeeded=starts(bench) != FACTORY)
    bench.service.wire = lambda _file, _index, data: [data]
    bench.deliver(bench.service.retry(THING))  # three bad copies of a block may have ended the first attempt
    score.must("after all that junk the image comes", held=starts(bench.run()) == NEW.image)


# ---------------------------------------------------------------------------- B11


def freezing(score: Score, quick: bool) -> None:
    """Offer what was right once, or is right for others, or in other words."""
    for fault in faults.OFFERS:
        if fault.step in {"V5", "V8", "V9", "V12", "V13"} and fault.device.ready:
            _refused(score, fault)
    for back_s in (0, 3_600, 86_400, 40_000_000) if quick else range(0, 40_000_000, 500_000):
        _clock_set_back(score, back_s)
    _replays(score)
    _expires_at_the_gate(score)
    _mixed(score)


def _clock_set_back(score: Score, back_s: int) -> None:
    """Set the clock back after an upgrade: what has ended meanwhile stays ended."""
    ended = order_with({8: NOW_S - 7_200, 9: NOW_S - 3_600})
    bench = device(replace(SOUND, floor_s=NOW_S)).run()
    bench.now = float(NOW_S - back_s)
    bench.offer(offered(ended)).run()
    _judge(score, f"an order that ended, the clock {back_s} s back", bench, OLD, "expired")


def _replays(score: Score) -> None:
    """Say again what a campaign said that is over: nothing is installed, and nothing wiped."""
    for data in (0, 1):
        bench = _upgraded(score, NEW)
        bench.change(lang="fr")
        bench.offer(job(of=NEW, data=data, number=2)).run()
        _judge(score, f"the same image again, mode {data}", bench, NEW.image, "already_current")
        score.attempt(
            f"a replay in mode {data} wiped the configuration", succeeded=bench.settings["lang"] != "fr"
        )
        bench.deliver(bench.service.retry(THING))
        bench.run()
        _judge(score, f"the same job again, mode {data}", bench, NEW.image, "already_current")


def _expires_at_the_gate(score: Score) -> None:
    """Hold a device at the gate until its order has ended."""
    ending = order_with({9: NOW_S + 600})
    bench = device().run()
    bench.service.gate = lambda _job: ("hold", 60) if bench.now < NOW_S + 900 else ("go", 0)
    bench.offer(offered(ending)).run()
    _judge(score, "an order that ended at the gate", bench, OLD, "expired")


def _mixed(score: Score) -> None:
    """Put together what is right by itself: parts of two offers, files of a third, a changing document."""
    older = paired(manifest_with({6: "2.3.9", 7: 0x0002_0003_0009_0001}).manifest)
    for name, offer in {
        "manifest of one, order of another": Offer(older.manifest, OFFER.order, OFFER.proof),
        "order of one, manifest of another": Offer(OFFER.manifest, older.order, OFFER.proof),
        "manifest in both places": Offer(OFFER.manifest, OFFER.manifest, OFFER.proof),
        "order in both places": Offer(OFFER.order, OFFER.order, OFFER.proof),
    }.items():
        bench = device().run()
        bench.offer(offered(offer)).run()
        _judge(score, name, bench, OLD)
    bench, swapped = Bench().run(), job(of=NEW)
    other = release("3.0.0.0", 9_000, 1_024, counter=6)
    swapped.files = {0: other.image, 1: other.leaves, 2: other.manifest}
    bench.offer(swapped).run()
    _judge(score, "the files of another release", bench, FACTORY, "leaves")
    _another_document(score, other)


def _another_document(score: Score, other: Release) -> None:
    """Offer a good one, and at the start hand out the document of one that was not checked."""
    bench = Bench().run()
    bad = job(of=other)
    bad.document["gnomon"]["proof"] = ""
    good = job(of=NEW)
    execution = good.execution

    def told() -> dict[str, Any]:
        return execution() | ({"jobDocument": bad.document} if good.status == "IN_PROGRESS" else {})

    good.execution = told  # type: ignore[method-assign]
    bench.offer(good).run()
    runs = starts(bench)
    score.attempt("a document that was swapped at the start", succeeded=runs == other.image)


# ---------------------------------------------------------------------------- B12


def stolen_keys(score: Score, quick: bool) -> None:
    """Sign with one of two keys, with both in the wrong places, with none; flip bits of both envelopes."""
    for fault in faults.OFFERS:
        if fault.step in {"V1", "V2", "V3", "V4", "V6"}:
            _refused(score, fault)
    for offer, codes in islice(faults.flips(), 0, None, 20 if quick else 1):
        bench = device().run()
        bench.offer(offered(offer)).run()
        _judge(score, "a flipped bit of an envelope", bench, OLD, *codes)
    _with_the_vendors_key(score)
    _with_the_utilitys_key(score)
    _forged_lists(score, quick)


def _with_the_vendors_key(score: Score) -> None:
    """Whoever has the vendor's key signs any image; no order is for it."""
    evil = manifest_with({6: "evil", 7: 0x0009_0000_0000_0000, 8: 9})
    for name, order in {
        "an order of the utility for something else": OFFER.order,
        "an order that the vendor signs itself": raw(_order_for(evil), Typ.ORDER, VENDOR_KEY),
        "the vendor's signature under the utility's kid": raw(
            _order_for(evil), Typ.ORDER, VENDOR_KEY, kid=base.UTILITY_KID
        ),
        "no order": b"",
    }.items():
        bench = device().run()
        bench.offer(offered(Offer(evil.manifest, order, OFFER.proof))).run()
        _judge(score, f"the vendor's key alone: {name}", bench, OLD)


def _with_the_utilitys_key(score: Score) -> None:
    """Whoever has the utility's key orders anything; no vendor has made it, or it is older."""
    payload = {**faults.MANIFEST, 6: "evil", 7: 0x0009_0000_0000_0000, 8: 9}
    for name, manifest in {
        "a manifest that the utility signs itself": raw(payload, Typ.MANIFEST, UTILITY_KEY),
        "its signature under the vendor's kid": raw(payload, Typ.MANIFEST, UTILITY_KEY, kid=base.VENDOR_KID),
        "an old manifest of the vendor": manifest_with({7: 1, 8: 1}).manifest,
        "a manifest for another model": manifest_with({3: "T2"}).manifest,
        "no manifest": b"",
    }.items():
        bench = device().run()
        bench.offer(offered(paired(manifest))).run()
        _judge(score, f"the utility's key alone: {name}", bench, OLD)


def _order_for(evil: Offer) -> dict[int, Any]:
    return orders.write(replace(base.ORDER, manifest=sha256(evil.manifest).hexdigest()))


def _forged_lists(score: Score, quick: bool) -> None:
    """Tell a device that revoked keys count: only a newer list that its root vouches for may say so."""
    active = replace(key_lists.LIST, number=8)
    _told(score, "a good list", key_list.write(active, key_lists.LIST_KEY, key_lists.CHAIN), works=True)
    lists = {
        **key_lists.forged(active),
        "an older one": key_list.write(replace(active, number=6), key_lists.LIST_KEY, key_lists.CHAIN),
        "one that is over": key_list.write(
            replace(active, expires=NOW_S), key_lists.LIST_KEY, key_lists.CHAIN
        ),
        "one that is not yet": key_list.write(
            replace(active, issued=NOW_S + 3_600), key_lists.LIST_KEY, key_lists.CHAIN
        ),
        "one that a signing key has signed": key_list.write(active, UTILITY_KEY, key_lists.CHAIN),
        "nothing": b"",
        "nested deep": b"\x81" * 50_000,
        "a manifest": OFFER.manifest,
    }
    for name, told in lists.items():
        _told(score, name, told)
    sealed = key_list.write(active, key_lists.LIST_KEY, key_lists.CHAIN)
    for bit in range(0, len(sealed) * 8, 211 if quick else 7):
        _told(score, "a flipped bit of a list", faults.flipped(sealed, bit))


def _told(score: Score, name: str, told: bytes, *, works: bool = False) -> None:
    """Have a device take a list in which all keys are revoked, then tell it another and offer it a job."""
    revoked = replace(key_lists.LIST, keys=tuple(replace(key, revoked=True) for key in key_lists.LIST.keys))
    bench = Bench(keys={}, roots=(key_lists.ROOT.certificate,))
    bench.service.key_lists = {
        "keys-7": key_list.write(revoked, key_lists.LIST_KEY, key_lists.CHAIN),
        "keys-8": told,
    }
    bench.run().offer(job(of=NEW, keys=7)).run()
    bench.offer(job(of=NEW, number=2, keys=8)).run()
    if works:
        score.honest(f"{name} is believed", works=starts(bench) == NEW.image)
    else:
        _judge(score, f"{name} lets revoked keys count", bench, FACTORY, "key_unknown")


# ---------------------------------------------------------------------------- judging


def _refused(score: Score, fault: Fault) -> None:
    """Offer what is wrong in one way."""
    if not fault.device.ready:
        return  # no device of the fleet can be in a bad moment
    before = starts(device(fault))
    bench = device(fault).run()
    bench.offer(offered(fault.offer)).run()
    _judge(score, fault.name, bench, before, fault.code)


def _judge(score: Score, name: str, bench: Bench, before: bytes, *codes: str) -> None:
    """See that the same image starts as before, and that the device says why, if it is known."""
    score.attempt(name, succeeded=starts(bench) != before)
    reason = bench.job.details.get("reason", "")
    if codes:
        score.must(f"{name}: refused as {' or '.join(codes)}, not {reason!r}", held=reason in codes)


def _upgraded(score: Score, to: Release) -> Bench:
    """Return a device that was upgraded as it should be."""
    bench = Bench().run().offer(job(of=to)).run()
    score.honest("what is right is installed", works=starts(bench) == to.image)
    return bench


def _honest(score: Score) -> None:
    """Offer the pair without a fault."""
    bench = device().run().offer(offered(OFFER)).run()
    score.honest("the pair without a fault is installed", works=starts(bench) == IMAGE)


ROWS: Final[Mapping[str, Callable[[Score, bool], None]]] = {
    "B9": downgrades,
    "B10": tampering,
    "B11": freezing,
    "B12": stolen_keys,
}


def _carried_out(row: str, quick: bool) -> Score:
    score = Score()
    _honest(score)
    ROWS[row](score, quick)
    return score


if __name__ == "__main__":
    for word in sys.argv[1:]:
        if word.startswith(HOLE):
            holes.plant(word.removeprefix(HOLE))
    print(msgspec.json.encode(_carried_out(sys.argv[1], sys.argv[2] == "quick")).decode())
