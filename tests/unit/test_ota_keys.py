"""Which keys may sign what: the ring, the list that devices get, and the two persons behind each change."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from infra.clock import MS_PER_S
from infra.documents.memory import MemoryStore
from ota import key_list, keys
from ota.collections import COLLECTIONS as OTA
from ota.envelope import Typ, open_envelope, public_of
from ota.errors import InvalidKeyError, KeyKnownError, KeyNotFoundError, KeysFullError
from ota.keys import LIST_LIFE_S, LIST_RENEWAL_S, UTILITY, KeyState, add_key, parse_key, revoke_key
from ota.verification import KeyRole, signed_order
from registry.collections import COLLECTIONS
from security import audit
from security.people.approvals import Approvals, Decision
from security.people.errors import ActOutdatedError, OwnApprovalError
from security.people.records import COLLECTIONS as PEOPLE
from security.policy import Principal, Role
from tests import ota_base as base
from tests.covers import covers
from tests.fakes import SeededIds
from tests.release_rig import OFFICER, rig

SECOND = Principal("sven", Role.SECURITY)
NEW = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
async def made(tmp_path):
    return await rig(tmp_path, MemoryStore([*COLLECTIONS, *OTA, *PEOPLE], [audit.LOG]))


def a_key(private=NEW, role=KeyRole.IMAGE, owner="norland"):
    return parse_key(public_of(private), role, owner, base.NOW_S * MS_PER_S)


async def the_list(made, held=0):
    ring = await made.keys.ring()
    return key_list.verify(ring.list, made.authority.roots(), made.clock.now_ms() // MS_PER_S, held)


@covers("X39")
async def test_the_list_tells_devices_of_every_key_and_its_number_rises_with_each_change(made):
    before = await the_list(made)
    assert before.by_kid() == await made.keys.keys() == base.KEYS
    await made.keys.add(a_key(), OFFICER)
    after = await the_list(made, before.number)
    assert after.number == before.number + 1
    assert len(after.keys) == 3
    assert await made.keys.key_list(after.number) == (await made.keys.ring()).list
    assert await made.keys.key_list(before.number) is None


async def test_a_revoked_key_stays_on_the_list_as_that(made):
    before = await the_list(made)
    await made.keys.revoke(base.VENDOR_KID.hex(), OFFICER)
    after = await the_list(made, before.number)
    assert after.by_kid()[base.VENDOR_KID].revoked
    ring = await made.keys.ring()
    await made.keys.revoke(base.VENDOR_KID.hex(), OFFICER)
    assert await made.keys.ring() == ring, "once more changes nothing"


async def test_what_is_there_is_not_added_again_nor_for_something_else(made):
    ring = await made.keys.ring()
    await made.keys.add(a_key(base.VENDOR_KEY, owner="acme"), OFFICER)
    with pytest.raises(KeyKnownError):
        await made.keys.add(a_key(base.VENDOR_KEY, owner="norland"), OFFICER)
    with pytest.raises(KeyKnownError):
        await made.keys.add(a_key(base.VENDOR_KEY, KeyRole.CAMPAIGN, UTILITY), OFFICER)
    assert await made.keys.ring() == ring
    await made.keys.revoke(base.VENDOR_KID.hex(), OFFICER)
    with pytest.raises(KeyKnownError):
        await made.keys.add(a_key(base.VENDOR_KEY, owner="acme"), OFFICER)


@pytest.mark.parametrize(
    ("public", "role", "owner"),
    [
        (public_of(NEW)[:31], KeyRole.IMAGE, "acme"),
        (b"\x04" + bytes(64), KeyRole.IMAGE, "acme"),
        (public_of(NEW), KeyRole.IMAGE, UTILITY),
        (public_of(NEW), KeyRole.IMAGE, "Acme"),
        (public_of(NEW), KeyRole.IMAGE, ""),
        (public_of(NEW), KeyRole.IMAGE, "a" * 65),
        (public_of(NEW), KeyRole.CAMPAIGN, "acme"),
        (public_of(NEW), KeyRole.EVENT, UTILITY),
    ],
)
def test_what_can_be_no_key_is_none(public, role, owner):
    with pytest.raises(InvalidKeyError):
        parse_key(public, role, owner, 0)


async def test_the_ring_has_its_bound(made, monkeypatch):
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    with pytest.raises(KeysFullError):
        await made.keys.add(a_key(), OFFICER)
    with pytest.raises(KeyNotFoundError):
        await made.keys.revoke("00" * 8, OFFICER)


async def test_the_list_is_made_anew_before_it_ends_and_not_without_need(made):
    number = (await made.keys.ring()).number
    await made.keys.renew()
    assert (await made.keys.ring()).number == number
    made.clock.advance(LIST_LIFE_S - LIST_RENEWAL_S + 1)
    await made.keys.renew()
    assert (await the_list(made, number)).number > number


async def test_after_a_restore_no_number_is_given_out_that_devices_hold_for_another_list(made):
    records = made.keys._records
    backup = await made.keys.ring()
    made.clock.advance(60)
    await made.keys.add(a_key(), OFFICER)
    held = (await made.keys.ring()).number
    kept = await records.load(keys.RING)
    assert kept is not None
    await records.put(keys.RING, backup, kept.revision)
    made.clock.advance(60)
    await made.keys.revoke(base.VENDOR_KID.hex(), OFFICER)
    assert (await the_list(made, held)).by_kid()[base.VENDOR_KID].revoked


async def test_the_list_key_may_sign_lists_and_nothing_else(made):
    ring = await made.keys.ring()
    leaf = x509.load_der_x509_certificate(open_envelope(ring.list, Typ.KEYS).certificates[0])
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CODE_SIGNING]


async def test_orders_are_signed_by_a_key_of_our_own_that_is_on_the_list(made):
    envelope = await made.keys.sign(base.ORDER)
    found = await made.keys.keys()
    assert signed_order(envelope, base.MANIFEST_COSE, found) == base.ORDER
    number = (await made.keys.ring()).number
    await made.keys.sign(base.ORDER)
    assert (await made.keys.ring()).number == number, "the key is made once"


async def test_when_our_key_is_revoked_the_next_one_signs(made):
    await made.keys.sign(base.ORDER)
    (ours,) = [one for one in (await made.keys.ring()).keys if one.kid not in {k.hex() for k in base.KEYS}]
    await made.keys.revoke(ours.kid, OFFICER)
    envelope = await made.keys.sign(base.ORDER)
    assert signed_order(envelope, base.MANIFEST_COSE, await made.keys.keys()) == base.ORDER


async def approvals(made):
    return Approvals(made.store, made.clock, SeededIds(), made.acts.table())


async def test_a_key_counts_when_a_second_officer_has_approved_it_and_not_before(made):
    desk, asked = await approvals(made), add_key(a_key())
    await made.acts.check(asked)
    held = await desk.ask(asked.act, asked.target, asked.facts, OFFICER)
    assert a_key().kid not in {one.kid for one in (await made.keys.ring()).keys}
    with pytest.raises(OwnApprovalError):
        await desk.approve(held.id, OFFICER, audit.INSIDE)
    done = await desk.approve(held.id, SECOND, audit.INSIDE)
    assert done.decision is Decision.DONE
    key = (await made.keys.ring()).key(a_key().kid)
    assert key is not None
    assert (key.owner, key.role, key.state) == ("norland", KeyRole.IMAGE, KeyState.ACTIVE)
    assert ("olga", "signing_key.add", "signing_keys/ring") in await made.acts_of_audit()


async def test_so_it_is_with_revoking_and_what_has_changed_meanwhile_fails(made):
    desk, asked = await approvals(made), revoke_key(base.VENDOR_KID.hex(), "lost")
    held = await desk.ask(asked.act, asked.target, asked.facts, OFFICER)
    adding = add_key(a_key(base.VENDOR_KEY, owner="acme"))
    outdated = await desk.ask(adding.act, adding.target, adding.facts, OFFICER)
    await desk.approve(held.id, SECOND, audit.INSIDE)
    key = (await made.keys.ring()).key(base.VENDOR_KID.hex())
    assert key is not None
    assert key.state is KeyState.REVOKED
    with pytest.raises(ActOutdatedError):
        await desk.approve(outdated.id, SECOND, audit.INSIDE)


async def test_what_cannot_be_done_is_refused_when_it_is_asked_for(made):
    with pytest.raises(KeyNotFoundError):
        await made.acts.check(revoke_key("00" * 8, ""))
    with pytest.raises(KeyKnownError):
        await made.acts.check(add_key(a_key(base.VENDOR_KEY)))
