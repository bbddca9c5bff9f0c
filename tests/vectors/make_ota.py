"""Writes the firmware vectors: the base pair of the specification, and offers with one fault each.

`python tests/vectors/make_ota.py` writes ``ota/base.json`` and ``ota/faults.json`` beside this file, for
makers of devices as much as for us. Bytes are hex. ``base.json`` is a device that would install, all it is
offered and all it knows; a row of ``faults.json`` has what is otherwise in one offer (``offer``, ``device``,
``keys``, ``now_s``, ``floor_s``), and the check that refuses it (``step``, ``code``). Faults of single bits
are not written down: flip each. (spec: ota, 2.6)
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ota.verification import DeviceFacts, Keys, Offer
from tests import ota_base as base
from tests import ota_faults as faults

DIRECTORY = Path(__file__).with_name("ota")
BASE = faults.Fault(name="", step="", code="")


def offer(given: Offer) -> dict[str, str]:
    return {"manifest": given.manifest.hex(), "order": given.order.hex(), "proof": given.proof.hex()}


def keys(given: Keys) -> list[dict[str, Any]]:
    return [
        {
            "kid": kid.hex(),
            "public": key.public.hex(),
            "role": key.role.value,
            "owner": key.owner,
            "revoked": key.revoked,
        }
        for kid, key in given.items()
    ]


def device(given: DeviceFacts) -> dict[str, Any]:
    return asdict(given)


def parts(fault: faults.Fault) -> dict[str, Any]:
    return {
        "offer": offer(fault.offer),
        "device": device(fault.device),
        "keys": keys(fault.keys),
        "now_s": fault.now_s,
        "floor_s": fault.floor_s,
    }


def differing(given: Any, usual: Any) -> Any:
    """Return what is otherwise in a map; anything else as it is."""
    if not isinstance(given, dict):
        return given
    return {name: differing(value, usual[name]) for name, value in given.items() if value != usual[name]}


def base_vector() -> dict[str, Any]:
    return {
        **parts(BASE),
        "image": "byte i = (7 i + 3) mod 256, 10,000 bytes",
        "leaves": base.LEAVES.hex(),
        "root": base.MANIFEST.root.hex(),
        "things": list(base.THINGS),
        "targets": base.ORDER.targets.hex(),
        "proofs": {thing: base.proof_of(thing).hex() for thing in base.THINGS},
    }


def fault_vectors() -> list[dict[str, Any]]:
    usual = parts(BASE)
    return [
        {"name": fault.name, "step": fault.step, "code": fault.code, **differing(parts(fault), usual)}
        for fault in faults.OFFERS
    ]


def files() -> dict[str, str]:
    vectors = {"base.json": base_vector(), "faults.json": fault_vectors()}
    return {name: json.dumps(vector, indent=1, ensure_ascii=False) + "\n" for name, vector in vectors.items()}


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in files().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
