"""Offers with exactly one fault each, all else valid: whoever installs one of them has been fooled.

What is wrong inside a payload is sealed again by the right key, so that only the check that it is for can
find it. ``OFFERS`` are for devices, ``MANIFESTS`` and ``ORDERS`` for a server that is given one of both;
:func:`flips` is each single bit of both envelopes. Faults of the transfer (F23 to F26) follow at the end.
(spec: ota, 2.6)
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ota import manifest as manifests
from ota import order as orders
from ota.envelope import Typ, encode, kid_of, public_of
from ota.manifest import version_of
from ota.order import Proof, encode_proof
from ota.trees import HASH_BYTES, name_tree
from ota.verification import DeviceFacts, Keys, Offer, TrustedKey
from tests import ota_base as base
from tests.ota_base import DEVICE, KEYS, NOW_S, OFFER, UTILITY_KEY, VENDOR_KEY

DAY_S = 86_400
THIEF = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MANIFEST = manifests.write(base.MANIFEST)
ORDER = orders.write(base.ORDER)
MANIFEST_CODES = ("manifest_encoding", "key_unknown", "key_role", "manifest_signature")
ORDER_CODES = ("order_encoding", "key_unknown", "key_role", "order_signature")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One offer that must be refused: by which check, and by which name."""

    name: str
    step: str
    code: str
    offer: Offer = OFFER
    device: DeviceFacts = DEVICE
    keys: Keys = field(default_factory=lambda: base.KEYS)
    now_s: int = NOW_S
    floor_s: int = 0

    @property
    def of_manifest(self) -> bool:
        """Whether the fault is in the manifest alone: then a server given that manifest refuses it."""
        return self.offer.manifest != OFFER.manifest


# ---------------------------------------------------------------------------- making them


def raw(
    payload: Mapping[int, Any] | bytes,
    typ: str,
    key: Ed25519PrivateKey,
    *,
    header: Mapping[Any, Any] | None = None,
    unprotected: Mapping[Any, Any] | None = None,
    kid: bytes | None = None,
) -> bytes:
    """Return a signed envelope that may be as wrong as it likes."""
    protected = {1: -8, 4: kid or kid_of(public_of(key)), 16: typ} if header is None else header
    head, body = encode(protected), payload if isinstance(payload, bytes) else encode(payload)
    signature = key.sign(encode(["Signature1", head, b"", body]))
    return encode(cbor2.CBORTag(18, [head, dict(unprotected or {}), body, signature]))


def manifest_with(changes: Mapping[int, Any], without: int | None = None) -> Offer:
    """Return an offer whose manifest says something else, and whose order is for that manifest."""
    payload = {key: value for key, value in {**MANIFEST, **changes}.items() if key != without}
    return paired(raw(payload, Typ.MANIFEST, VENDOR_KEY))


def order_with(
    changes: Mapping[int, Any], without: int | None = None, manifest: bytes = OFFER.manifest
) -> Offer:
    """Return an offer whose order says something else."""
    payload = {key: value for key, value in {**ORDER, **changes}.items() if key != without}
    return Offer(manifest, raw(payload, Typ.ORDER, UTILITY_KEY), OFFER.proof)


def paired(manifest: bytes) -> Offer:
    """Return an offer of a manifest with an order for it."""
    return order_with({4: hashlib.sha256(manifest).digest()}, manifest=manifest)


def with_order(order: bytes) -> Offer:
    return replace(OFFER, order=order)


# ---------------------------------------------------------------------------- F1 to F5, F7, F8


def _encodings() -> Iterator[Fault]:
    kids = (base.VENDOR_KID, base.UTILITY_KID)
    sides = (
        (MANIFEST, Typ.MANIFEST, VENDOR_KEY, kids[0], paired, "manifest_encoding"),
        (ORDER, Typ.ORDER, UTILITY_KEY, kids[1], with_order, "order_encoding"),
    )
    for payload, typ, key, kid, offered, code in sides:
        good = encode(payload)
        right = {1: -8, 4: kid, 16: str(typ)}
        wrong_typ = Typ.ORDER if typ is Typ.MANIFEST else Typ.MANIFEST
        sealed = raw(payload, typ, key)
        forms = {
            "F1 keys unsorted": raw(cbor2.dumps(dict(reversed(payload.items()))), typ, key),
            "F1 one in two bytes": raw(good[:2] + b"\x18\x01" + good[3:], typ, key),
            "F1 a byte after the payload": raw(good + b"\x00", typ, key),
            "F1 a byte after the end": sealed + b"\x00",
            "F1 a key twice": raw(bytes([good[0] + 1]) + b"\x01\x01" + good[1:], typ, key),
            "F1 indefinite length": raw(b"\xbf" + good[1:] + b"\xff", typ, key),
            "F1 a float": raw({**payload, 33: 1.5}, typ, key),
            "F1 a tag": raw({**payload, 33: cbor2.CBORTag(99, 1)}, typ, key),
            "F1 a truth value": raw({**payload, 33: True}, typ, key),
            "F1 nothing": raw({**payload, 33: None}, typ, key),
            "F1 no map": raw(encode([payload]), typ, key),
            "F1 nested deep": raw({**payload, 33: [[[[[[1]]]]]]}, typ, key),
            "F1 too long": raw({**payload, 33: bytes(4_096)}, typ, key),
            "F1 no tag": sealed[1:],
            "F1 another tag": b"\xd1" + sealed[1:],
            "F1 five parts": b"\xd2\x85" + sealed[2:] + b"\x00",
            "F1 cut short": sealed[:-1],
            "F1 empty": b"",
            "F2 alg -7": raw(payload, typ, key, header={**right, 1: -7}),
            "F2 kid unprotected": raw(payload, typ, key, header={1: -8, 16: str(typ)}, unprotected={4: kid}),
            "F2 kid in both": raw(payload, typ, key, header=right, unprotected={4: kid}),
            "F2 an extra header": raw(payload, typ, key, header={**right, 2: [1]}),
            "F2 a certificate": raw(payload, typ, key, header={**right, 33: b"x"}),
            "F2 kid of seven bytes": raw(payload, typ, key, header={**right, 4: kid[:7]}),
            "F3 typ of the other": raw(payload, wrong_typ, key),
            "F3 typ in capitals": raw(payload, typ.upper(), key),
        }
        for name, sealed_wrong in forms.items():
            yield Fault(name=f"{name}, {code[:8]}", step="V1", code=code, offer=offered(sealed_wrong))


def _keys() -> Iterator[Fault]:
    def revoked(kid: bytes) -> dict[bytes, TrustedKey]:
        return {**KEYS, kid: replace(KEYS[kid], revoked=True)}

    vendors_order, thief_order = raw(ORDER, Typ.ORDER, VENDOR_KEY), raw(ORDER, Typ.ORDER, THIEF)
    utilitys, thiefs = raw(MANIFEST, Typ.MANIFEST, UTILITY_KEY), raw(MANIFEST, Typ.MANIFEST, THIEF)
    forged = raw(ORDER, Typ.ORDER, THIEF, kid=base.UTILITY_KID)
    forged_manifest = raw(MANIFEST, Typ.MANIFEST, THIEF, kid=base.VENDOR_KID)
    rows: tuple[tuple[str, str, str, Offer, Keys], ...] = (
        ("F4 vendor key signs the order", "V2", "key_role", with_order(vendors_order), KEYS),
        ("F4 utility key signs the manifest", "V2", "key_role", paired(utilitys), KEYS),
        ("F5 unknown kid on the order", "V2", "key_unknown", with_order(thief_order), KEYS),
        ("F5 unknown kid on the manifest", "V2", "key_unknown", paired(thiefs), KEYS),
        ("F5 revoked vendor key", "V2", "key_unknown", OFFER, revoked(base.VENDOR_KID)),
        ("F5 revoked campaign key", "V2", "key_unknown", OFFER, revoked(base.UTILITY_KID)),
        ("F5 no keys at all", "V2", "key_unknown", OFFER, {}),
        ("F7 order by another key under the right kid", "V4", "order_signature", with_order(forged), KEYS),
        ("F7 manifest by another key under the right kid", "V3", "manifest_signature",
         paired(forged_manifest), KEYS),
        ("F8 order for another manifest", "V5", "order_mismatch", order_with({4: bytes(32)}), KEYS),
        ("F8 another manifest under the order", "V5", "order_mismatch",
         replace(manifest_with({6: "2.4.1"}), order=OFFER.order), KEYS),
        ("F8 an order for none", "V5", "order_mismatch", order_with({}, without=4), KEYS),
    )  # fmt: skip
    for name, step, code, offer, keys in rows:
        yield Fault(name=name, step=step, code=code, offer=offer, keys=keys)


# ---------------------------------------------------------------------------- F9

_BAD_MANIFEST: dict[int, tuple[Any, ...]] = {
    1: (0, 2, "1"),
    2: ("", "a" * 65, b"acme", 7, "a\x1b[2J"),
    3: ("", "T" * 65, ["T1"]),
    4: ([], [bytes(15)], [bytes(17)], ["x"], [bytes(16)] * 33, bytes(16)),
    5: (1, 2, 3, -1, "0"),
    6: ("", "2" * 33, "2.4\n0", 2),
    7: (-1, "2.4.0.0", b"\x02"),
    8: (-1, 2**32, "3"),
    9: (-1, 0, 2**32, "10000"),
    10: (bytes(31), bytes(33), "6e"),
    11: (3_000, 512, 262_144, 0, -4_096),
    12: (bytes(31), bytes(33), 0),
    13: (-1, "now", 2**63),
    14: (1_790_000_000, 1_789_999_999, 1_790_000_000 + 1_828 * DAY_S, -1),
    15: (3, -1, "preserve"),
    16: (-1, "5", 2**32),
    17: (-1, "2.3.0.0"),
    18: ({}, {"": 1}, {"b" * 24: 1}, {"é" * 12: 1}, {"bootloader": -1}, {3: 3}, ["bootloader"]),
    19: ([], [bytes(31)], [bytes(32)] * 17),
    20: (bytes(31), "notes"),
}
_BAD_ORDER: dict[int, tuple[Any, ...]] = {
    1: (0, 2),
    2: (bytes(15), bytes(17), "6f1c"),
    3: (0, -1, 2**32),
    5: (bytes(31), "root"),
    6: (0, -1, "5"),
    7: (2, -1, "preserve"),
    8: (-1, "now"),
    9: (1_790_000_000, 1_790_000_000 + 90 * DAY_S + 1, -1),
    10: (0, -1, "10000"),
    11: (0, -1),
    12: ([], [1], [{}], [{1: bytes(32), 2: 1, 3: bytes(31), 4: 1}], {}),
}


def _fields() -> Iterator[Fault]:
    for key, values in _BAD_MANIFEST.items():
        for place, value in enumerate(values):
            offer = manifest_with({key: value})
            yield Fault(name=f"F9 manifest {key} no {place}", step="V6", code="manifest_field", offer=offer)
    for key, values in _BAD_ORDER.items():
        for place, value in enumerate(values):
            yield Fault(
                name=f"F9 order {key} no {place}",
                step="V6",
                code="order_field",
                offer=order_with({key: value}),
            )
    odd: tuple[Any, ...] = (0, -1, 21, 31, "x")
    for key in odd:
        offer = manifest_with({key: 1})
        yield Fault(name=f"F9 manifest unknown {key}", step="V6", code="manifest_field", offer=offer)
    for key in (0, 13, 31):
        yield Fault(name=f"F9 order unknown {key}", step="V6", code="order_field", offer=order_with({key: 1}))
    for key in range(1, 17):
        yield Fault(
            name=f"F9 manifest without {key}", step="V6", code="manifest_field", offer=manifest_with({}, key)
        )
    for key in (1, 2, 3, 5, 6, 7, 8, 9, 10, 11):
        yield Fault(name=f"F9 order without {key}", step="V6", code="order_field", offer=order_with({}, key))


# ---------------------------------------------------------------------------- F10 to F22


def _devices() -> Iterator[Fault]:
    other_class = "ffffffff-673c-5489-ad42-fb0f0fa83d2a"
    month = 31 * DAY_S
    old = replace(base.ORDER, not_before=NOW_S - 2 * month, not_after=NOW_S - month)
    from_old = base.offer_of(replace(base.MANIFEST, issued=NOW_S - 2 * month), old)
    proofs = _proofs()
    rows: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("F10 other vendor", "V7", "class_mismatch", {"offer": manifest_with({2: "zenith"})}),
        ("F10 other model", "V7", "class_mismatch", {"offer": manifest_with({3: "T2"})}),
        ("F10 own class not listed", "V7", "class_mismatch", {"device": replace(DEVICE, hw=other_class)}),
        ("F10 a key of another vendor", "V7", "class_mismatch",
         {"keys": {**KEYS, base.VENDOR_KID: replace(KEYS[base.VENDOR_KID], owner="zenith")}}),
        ("F11 manifest expires now", "V8", "expired", {"offer": manifest_with({14: NOW_S})}),
        ("F11 order ends now", "V8", "expired", {"offer": order_with({9: NOW_S})}),
        ("F12 last month's order, clock set back below the floor", "V8", "expired",
         {"offer": from_old, "now_s": NOW_S - 2 * month + 5, "floor_s": NOW_S}),
        ("F13 not_before in the future", "V8", "not_yet", {"offer": order_with({8: NOW_S + 1})}),
        ("F13 issued more than a day ahead", "V8", "not_yet",
         {"offer": manifest_with({13: NOW_S + DAY_S + 1})}),
        *((f"F14 {name}", "V9", "not_target", {"offer": offer}) for name, offer in proofs.items()),
        ("F14 another thing", "V9", "not_target", {"device": replace(DEVICE, thing="han-0009")}),
        ("F15 counter 2, version higher", "V10", "downgrade", {"offer": manifest_with({8: 2})}),
        ("F16 the same counter and version", "V10", "downgrade",
         {"offer": manifest_with({7: version_of("2.3.9.0")})}),
        ("F17 version 0", "V10", "downgrade", {"offer": manifest_with({7: 0})}),
        ("F17 old release, validly signed", "V10", "downgrade",
         {"offer": manifest_with({7: version_of("2.3.8.65535")})}),
        ("F17 counter below the confirmed one only", "V10", "downgrade",
         {"device": replace(DEVICE, counter=2, counter_confirmed=4)}),
        ("F18 min_from above running", "V11", "from_too_old",
         {"offer": manifest_with({17: version_of("2.3.9.1")})}),
        ("F19 requires bootloader 4, have 3", "V11", "dependency",
         {"offer": manifest_with({18: {"bootloader": 4}})}),
        ("F19 requires what is not there", "V11", "dependency", {"offer": manifest_with({18: {"radio": 0}})}),
        ("F20 manifest preserve, order reset", "V12", "data_mode", {"offer": _modes(0, 1)}),
        ("F20 manifest reset, order preserve", "V12", "data_mode", {"offer": _modes(1, 0)}),
        ("F21 preserve, config_schema 4, device at 5", "V12", "schema_downgrade",
         {"offer": manifest_with({16: 4})}),
        ("F22 size = slot + 1", "V13", "too_large", {"device": replace(DEVICE, slot_bytes=9_999)}),
        ("F22 not a good moment", "V13", "precondition", {"device": replace(DEVICE, ready=False)}),
    )  # fmt: skip
    for name, step, code, given in rows:
        yield Fault(name=name, step=step, code=code, **given)


def _modes(manifest: int, order: int) -> Offer:
    sealed = manifest_with({15: manifest}).manifest
    return order_with({4: hashlib.sha256(sealed).digest(), 7: order}, manifest=sealed)


def _proofs() -> dict[str, Offer]:
    path = base.NAMES.proof(2)
    others = name_tree(("han-0006", "han-0007", "han-0008"))
    wrong = {
        "proof of a neighbour": base.proof_of("han-0004"),
        "own path at another place": encode_proof(Proof(3, path)),
        "place beyond the end": encode_proof(Proof(5, path)),
        "a hash too many": encode_proof(Proof(2, (*path, bytes(32)))),
        "a hash too few": encode_proof(Proof(2, path[:-1])),
        "no path": encode_proof(Proof(2, ())),
        "short hashes": encode([2, [one[:31] for one in path]]),
        "place as a text": encode(["2", list(path)]),
        "place -1": encode([-1, list(path)]),
        "65 hashes": encode([2, [bytes(32)] * 65]),
        "a byte after the end": base.proof_of("han-0003") + b"\x00",
        "no CBOR": b"\xff",
        "empty": b"",
        "too long": bytes(4_097),
    }
    offers = {name: replace(OFFER, proof=proof) for name, proof in wrong.items()}
    return {
        **offers,
        "root over other names": order_with({5: others.root}),
        "count of one": order_with({6: 1}),
    }


OFFERS: tuple[Fault, ...] = (*_encodings(), *_keys(), *_fields(), *_devices())
"""F1 to F5 and F7 to F22."""
MANIFESTS = tuple(fault for fault in OFFERS if fault.of_manifest and fault.step in {"V1", "V2", "V3", "V6"})
"""What a server that is given a manifest refuses alike (U5)."""
ORDERS = tuple(
    fault
    for fault in OFFERS
    if not fault.of_manifest
    and fault.offer.order != OFFER.order
    and fault.step in {"V1", "V2", "V4", "V5", "V6"}
)
"""What a server that is given an order refuses alike (U11)."""
STOLEN = tuple(fault for fault in OFFERS if fault.name[:3] in {"F4 ", "F5 ", "F7 "})
"""One key stolen: 0 installs."""


# ---------------------------------------------------------------------------- F6


def flips() -> Iterator[tuple[Offer, tuple[str, ...]]]:
    """Yield an offer for each single bit of both envelopes, with the codes that may name it (F6).

    Which of V1 to V4 finds it depends on where the bit is.
    """
    for at in range(len(OFFER.manifest) * 8):
        yield replace(OFFER, manifest=flipped(OFFER.manifest, at)), MANIFEST_CODES
    for at in range(len(OFFER.order) * 8):
        yield replace(OFFER, order=flipped(OFFER.order, at)), ORDER_CODES


def flipped(data: bytes, bit: int) -> bytes:
    """Return bytes with one bit the other way round."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---------------------------------------------------------------------------- F23 to F26

LEAF_LISTS: dict[str, bytes] = {
    "F23 one entry short": base.LEAVES[:-HASH_BYTES],
    "F23 one entry more": base.LEAVES + bytes(HASH_BYTES),
    "F23 one leaf changed": flipped(base.LEAVES, 300),
    "F23 two leaves swapped": base.LEAVES[:32] + base.LEAVES[64:] + base.LEAVES[32:64],
    "F23 a byte short": base.LEAVES[:-1],
    "F23 empty": b"",
}


def blocks() -> tuple[bytes, ...]:
    """Return the hash blocks of the base image."""
    return tuple(base.IMAGE[at : at + base.BLOCK] for at in range(0, len(base.IMAGE), base.BLOCK))


def bad_blocks() -> Iterator[tuple[str, int, bytes]]:
    """Yield blocks that are not what they say: 1,000 single bits (F24), and those of F25."""
    good = blocks()
    bits = len(base.IMAGE) * 8
    for number in range(1_000):
        place = number * bits // 1_000
        index, bit = divmod(place, base.BLOCK * 8)
        yield "F24", index, flipped(good[index], bit)
    # The first two blocks of this image are the same: the third goes with another.
    yield "F25 swapped", 1, good[2]
    yield "F25 swapped", 2, good[1]
    yield "F25 truncated", 2, good[2][:-1]
    yield "F25 one byte longer", 2, good[2] + b"\x00"
    yield "F25 empty", 1, b""
    yield "F25 beyond the end", 3, good[2]
    yield "F25 before the beginning", -1, good[2]
