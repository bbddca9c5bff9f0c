"""Attacks on what a device runs: what is older, changed, for others, or signed by one alone. (B9 to B12)

Each is tried twice: at devices, by a service that is the Bad Actor's (`devices`), and at the service, by
whoever may bring images and releases to it.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, Final

import httpx
import msgspec

from ota import order as orders
from ota.campaigns import order_of
from ota.envelope import Typ
from ota.manifest import Manifest
from security.policy import Action, Role
from tests import ota_base, ota_faults
from tests.attack import devices, firmware_house
from tests.attack.attacks import Score, Size, attack
from tests.attack.field import Field
from tests.attack.firmware_house import manifest_of, sealed
from tests.ota_faults import flipped

RELEASES: Final = "/v1/ota/releases"
IMAGES: Final = "/v1/ota/images"
BYTES: Final = {"Content-Type": "application/octet-stream"}
JSON: Final = {"Content-Type": "application/json"}
DAY_S: Final = 86_400
Faults = Mapping[str, Mapping[str, Any]]
"""Fields of a manifest that are not as they should be, by what that is called."""


@attack("B9", "firmware downgrade", at_least=Size(70, 35))
def downgrade(field: Field, score: Score) -> None:
    """Offer what was signed well once: older, a counter that wraps, for other hardware, after a power cut"""
    score.add(devices.in_a_process("B9", field.quick, field.holes))
    there = firmware_house.house(field)
    with firmware_house.operator(field) as http:
        image = _sent(http, Random(1).randbytes(20_000))
        fits = manifest_of(image, version=0x0002_0001_0000_0000)
        faults: Faults = {
            "counter": {"counter": there.manifest.counter - 1},
            "counter 0": {"counter": 0},
            "version-used": {"version": there.manifest.version},
            "classes": {"hw": ("ffffffff-673c-5489-ad42-fb0f0fa83d2a",)},
            "model": {"model": "acme-t9"},
        }
        for name, changes in faults.items():
            answer = _brought(http, image, replace(fits, **changes))
            score.attempt(f"the service takes it: {name}", succeeded=answer.status_code == 201)
            score.must(f"it says why: {name}, {answer.text[:200]}", held=name.split()[0] in answer.text)
        score.honest("what is newer is taken", works=_brought(http, image, fits).status_code == 201)


@attack("B10", "firmware that was tampered with", at_least=Size(1_100, 140))
def tampered(field: Field, score: Score) -> None:
    """Flip bits, swap, cut and lengthen blocks, leaves and images, on the way and in flash; send junk"""
    score.add(devices.in_a_process("B10", field.quick, field.holes))
    firmware_house.house(field)
    image = Random(2).randbytes(20_000)
    fits = manifest_of(image, version=0x0002_0002_0000_0000)
    with firmware_house.operator(field) as http:
        for name, other in {
            "a bit": flipped(image, 77_777),
            "cut": image[:-1],
            "longer": image + b"\x00",
            "nothing": b"",
        }.items():
            answer = http.put(f"{IMAGES}/{fits.sha256}", content=other, headers=BYTES)
            score.attempt(f"{name}: kept under the other name", succeeded=answer.is_success)
        score.attempt("it is there", succeeded=http.get(f"{IMAGES}/{fits.sha256}").status_code != 404)
        _sent(http, image)
        faults: Faults = {
            "size": {"size": fits.size - 1},
            "root": {"root": bytes(32)},
            "block": {"block": 8_192},
        }
        for name, changes in faults.items():
            answer = _brought(http, image, replace(fits, **changes))
            score.attempt(f"the service takes it: {name}", succeeded=answer.status_code == 201)
        score.honest("what is true is taken", works=_brought(http, image, fits).status_code == 201)
    _on_the_disk(field, score, fits)


def _on_the_disk(field: Field, score: Score, manifest: Manifest) -> None:
    """Change an image where it lies: nobody gets it, and who has a good copy can put it back."""
    gnomon, file = field.gnomon, field.gnomon.var / "images" / manifest.sha256
    good = file.read_bytes()
    gnomon.stop()
    file.chmod(0o600)
    file.write_bytes(flipped(good, 4_321))
    gnomon.start()
    with firmware_house.operator(field) as http:
        answer = http.get(f"{IMAGES}/{manifest.sha256}")
        score.attempt("a damaged image is given out", succeeded=answer.is_success)
        _sent(http, good)
        healed = http.get(f"{IMAGES}/{manifest.sha256}").content
        score.honest("a good copy takes its place", works=healed == good)


@attack("B11", "freeze, mix and match, replayed campaign", at_least=Size(120, 45))
def frozen(field: Field, score: Score) -> None:
    """Say again what was right once, or for others, with the clock set back; mix parts of two offers"""
    score.add(devices.in_a_process("B11", field.quick, field.holes))
    firmware_house.house(field)
    now_s = int(time.time())
    with firmware_house.operator(field) as http:
        image = _sent(http, Random(3).randbytes(20_000))
        fits = manifest_of(image, version=0x0002_0003_0000_0000)
        faults: Faults = {
            "over": {"issued": now_s - 20 * DAY_S, "expires": now_s - DAY_S},
            "over within a day": {"expires": now_s + 3_600},
            "not yet": {"issued": now_s + DAY_S},
        }
        for name, changes in faults.items():
            answer = _brought(http, image, replace(fits, **changes))
            score.attempt(f"the service takes it: {name}", succeeded=answer.status_code == 201)
        other = _sent(http, Random(4).randbytes(20_000))
        answer = _brought(http, other, fits)
        score.attempt("a manifest for another image", succeeded=answer.status_code == 201)
        score.honest("what is true today is taken", works=_brought(http, image, fits).status_code == 201)


@attack("B12", "one stolen signing key", at_least=Size(4_300, 520))
def stolen_key(field: Field, score: Score) -> None:
    """Sign with one of two keys, with both in each other's place, with none; flip bits of what is signed"""
    score.add(devices.in_a_process("B12", field.quick, field.holes))
    firmware_house.house(field)
    with firmware_house.operator(field) as http:
        for fault in ota_faults.MANIFESTS:
            if fault.keys != ota_base.KEYS:
                continue  # needs another list of keys than the service has
            answer = _asked(http, ota_base.MANIFEST.sha256, fault.offer.manifest)
            score.attempt(f"the service takes it: {fault.name}", succeeded=answer.status_code == 201)
            named = f'"{fault.code}"' in answer.text or "$.manifest" in answer.text
            score.must(f"it says {fault.code}: {answer.text[:200]}", held=named)
    _order_of_the_vendor(field, score)


def _order_of_the_vendor(field: Field, score: Score) -> None:
    """Approve a campaign with an order that the vendor has signed, not the utility."""
    thing = field.gnomon.new()
    draft = firmware_house.submitted(field, [thing])
    assert draft.frozen is not None
    order = order_of(draft, draft.frozen)
    for name, key, kid in (
        ("the vendor's key", ota_base.VENDOR_KEY, None),
        ("the utility's kid over it", ota_base.VENDOR_KEY, ota_base.UTILITY_KID),
    ):
        forged = ota_faults.raw(orders.write(order), Typ.ORDER, key, kid=kid)
        answer = _approved(field, draft.id, forged)
        score.attempt(f"a campaign begins with an order by {name}", succeeded=answer.is_success)
        if field.quick:
            break  # one code of the second factor a half minute
    if not field.quick:
        good = ota_faults.raw(orders.write(order), Typ.ORDER, ota_base.UTILITY_KEY)
        score.honest("with the utility's it begins", works=_approved(field, draft.id, good).is_success)


def _approved(field: Field, campaign: str, order: bytes) -> httpx.Response:
    """Approve a campaign with an order that was signed elsewhere, as the second operator."""
    path = f"/v1/ota/campaigns/{campaign}/approve"
    body = msgspec.json.encode({"order": base64.b64encode(order).decode()})
    access = field.gnomon.accounts.access(Role.OPERATOR, 2)
    confirmed = access.step_up(Action.CAMPAIGN_APPROVE, f"POST {path}", body)
    fields = {"Authorization": f"Bearer {access.token()}", "Gnomon-Step-Up": confirmed}
    return httpx.post(field.gnomon.api_url + path, content=body, headers=JSON | fields, timeout=30)


def _sent(http: httpx.Client, image: bytes) -> bytes:
    """Bring an image to the service; return it."""
    name = manifest_of(image).sha256
    answer = http.put(f"{IMAGES}/{name}", content=image, headers=BYTES)
    assert answer.is_success, answer.text
    return image


def _brought(http: httpx.Client, image: bytes, manifest: Manifest) -> httpx.Response:
    """Ask the service to take what a vendor says of an image."""
    return _asked(http, manifest_of(image).sha256, sealed(manifest))


def _asked(http: httpx.Client, image: str, envelope: bytes) -> httpx.Response:
    return http.post(RELEASES, json={"image": image, "manifest": base64.b64encode(envelope).decode()})
