"""What may become a release, who lets it out, and what takes it back."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from infra.machines import IllegalTransitionError
from ota.envelope import kid_of
from ota.errors import (
    CounterError,
    ForeignVendorError,
    ImageNotFoundError,
    OtherRequestError,
    ReleaseNotFoundError,
    ReleaseRefusedError,
    SamePersonError,
    VersionUsedError,
)
from ota.keys import parse_key
from ota.manifest import version_of
from ota.releases import NewRelease
from ota.states import ReleaseState
from ota.verification import KeyRole
from registry.catalogue import Signatures
from tests import ota_base as base
from tests.covers import covers
from tests.ota_faults import MANIFESTS, flipped
from tests.release_rig import (
    AUTHOR,
    FIRMWARE,
    MANIFEST,
    MODEL,
    OFFICER,
    OTHER,
    STRANGER,
    VENDOR,
    new,
    of_image,
    rig,
    sealed,
)


@pytest.fixture
async def made(tmp_path):
    return await rig(tmp_path)


async def refused(made, wanted, by=AUTHOR):
    """Return the failed checks, having seen that nothing came of it."""
    with pytest.raises(ReleaseRefusedError) as caught:
        await made.releases.create(wanted, by, key="refused")
    assert (await made.releases.page(AUTHOR, None, 10)).records == ()
    return [(step, code) for step, code, _ in caught.value.checks]


@covers("I3FR7", "S3.1-s")
async def test_a_release_is_made_by_one_and_let_out_by_another_and_all_of_it_is_audited(made):
    release = await made.releases.create(new(), AUTHOR, key="k")
    assert (release.state, release.manifest, release.author) == (ReleaseState.VERIFIED, MANIFEST, "ann")
    assert release.stream == f"fw-{release.manifest_sha256[:20]}"
    assert await made.releases.released("acme-t1") == ()
    assert await made.releases.published(release.stream) is None
    out = await made.releases.let_out(release.id, OTHER)
    assert out.is_released
    assert await made.releases.released("acme-t1") == (out,)
    published = await made.releases.published(release.stream)
    assert published is not None
    assert (published.manifest, published.envelope) == (MANIFEST, sealed())
    acts = await made.acts_of_audit()
    assert ("ann", "release.create", f"release/{release.id}") in acts
    assert ("otto", "release.release", f"release/{release.id}") in acts


async def test_nobody_lets_out_what_they_brought_and_then_nothing_is_released(made):
    release = await made.releases.create(new(), AUTHOR, key="k")
    with pytest.raises(SamePersonError):
        await made.releases.let_out(release.id, AUTHOR)
    assert (await made.releases.release(release.id)).state is ReleaseState.VERIFIED


async def test_what_was_withdrawn_is_given_to_nobody_and_never_comes_back(made):
    release = await made.releases.create(new(), AUTHOR, key="k")
    await made.releases.let_out(release.id, OTHER)
    await made.releases.withdraw(release.id, AUTHOR, reason="it is bad")
    assert await made.releases.released("acme-t1") == ()
    assert await made.releases.published(release.stream) is None
    with pytest.raises(IllegalTransitionError):
        await made.releases.let_out(release.id, OTHER)


async def test_a_vendor_too_lists_releases_of_one_state(made):
    release = await made.releases.create(new(), AUTHOR, key="k")
    verified = await made.releases.page(VENDOR, ReleaseState.VERIFIED, 10)
    assert (verified.records, verified.ids) == ((release,), (release.id,))
    assert (await made.releases.page(VENDOR, ReleaseState.RELEASED, 10)).records == ()
    assert (await made.releases.page(VENDOR, None, 10)).records == (release,)


async def test_the_same_again_under_the_same_key_is_the_one_that_there_is(made):
    first = await made.releases.create(new(), AUTHOR, key="k")
    before = await made.acts_of_audit()
    assert await made.releases.create(new(), AUTHOR, key="k") == first
    with pytest.raises(OtherRequestError):
        await made.releases.create(new(replace(MANIFEST, label="other")), AUTHOR, key="k")
    assert await made.acts_of_audit() == before


async def test_all_that_is_wrong_is_told_at_once(made):
    manifest = replace(
        MANIFEST,
        model="acme-t1",
        hw=("00000000-0000-0000-0000-000000000001",),
        size=9_999,
        config_schema=9,
        issued=base.NOW_S + 601,
        expires=base.NOW_S + 86_399,
    )
    assert await refused(made, new(manifest, notes="not these")) == [
        ("U6", "notes"),
        ("U6", "size"),
        ("U7", "classes"),
        ("U7", "config_schema"),
        ("U8", "expires"),
        ("U8", "issued"),
    ]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"issued": base.NOW_S + 601}, ("U8", "issued")),
        ({"expires": base.NOW_S + 86_399}, ("U8", "expires")),
        ({"root": bytes(32)}, ("U6", "root")),
        ({"block": 8_192}, ("U6", "root")),
        ({"size": 10_001}, ("U6", "size")),
        ({"config_schema": 4}, ("U7", "config_schema")),
        ({"model": "acme-t9"}, ("U7", "model")),
    ],
)
async def test_each_check_finds_what_is_its_own(made, changes, check):
    assert await refused(made, new(replace(MANIFEST, **changes))) == [check]


@pytest.mark.parametrize(
    "changes", [{"issued": base.NOW_S + 600}, {"expires": base.NOW_S + 86_400}], ids=["issued", "expires"]
)
async def test_a_clock_may_be_so_far_ahead_and_a_life_so_short(made, changes):
    await made.releases.create(new(replace(MANIFEST, **changes)), AUTHOR, key="k")


@pytest.mark.parametrize("fault", MANIFESTS, ids=lambda fault: fault.name)
async def test_what_a_device_refuses_of_a_manifest_the_server_refuses_too(made, fault, monkeypatch):
    async def keys():
        return fault.keys

    monkeypatch.setattr(made.keys, "keys", keys)
    wanted = NewRelease(image=MANIFEST.sha256, envelope=fault.offer.manifest)
    assert await refused(made, wanted) == [("U5", fault.code)]


async def test_no_flipped_bit_of_an_envelope_is_taken(made):
    envelope = sealed()
    for bit in range(0, len(envelope) * 8, 7):
        with pytest.raises(ReleaseRefusedError) as caught:
            await made.releases.create(
                NewRelease(image=MANIFEST.sha256, envelope=flipped(envelope, bit)), AUTHOR, key="k"
            )
        assert caught.value.checks[0][0] == "U5"


async def test_a_revoked_key_releases_nothing_also_of_what_it_signed_before(made):
    release = await made.releases.create(new(), AUTHOR, key="k")
    await made.keys.revoke(base.VENDOR_KID.hex(), OFFICER)
    with pytest.raises(ReleaseRefusedError) as caught:
        await made.releases.let_out(release.id, OTHER)
    assert caught.value.checks[0][:2] == ("U5", "key_unknown")
    assert not (await made.releases.release(release.id)).is_released


@covers("A1")
async def test_the_key_of_another_vendor_is_worth_nothing_for_this_one(made):
    await made.models.put(replace(MODEL, firmware=replace(FIRMWARE, vendor="norland")), OTHER)
    assert await refused(made, new()) == [("U7", "vendor")]


async def test_an_image_that_is_not_there_or_not_the_one_of_the_manifest(made):
    other = await made.send(b"other")
    assert await refused(made, new(of_image(b"never sent"))) == [("U4", "image")]
    assert ("U6", "sha256") in await refused(made, new(image=other))


async def test_more_than_the_slot_takes_is_refused(made):
    data = bytes(16_385)
    await made.send(data)
    assert await refused(made, new(of_image(data))) == [("U2", "too_large")]
    fits = bytes(16_384)
    await made.send(fits)
    await made.releases.create(new(of_image(fits)), AUTHOR, key="k")


@covers("A1")
async def test_a_vendor_brings_only_what_is_its_own_and_sees_only_that(made):
    with pytest.raises(ForeignVendorError):
        await made.releases.create(new(), STRANGER, key="k")
    assert await refused(made, new(), VENDOR) == [("U4", "image")], "the utility sent it, not the vendor"
    await made.send(by=VENDOR)
    release = await made.releases.create(new(), AUTHOR, key="k")
    assert (await made.releases.page(VENDOR, None, 10)).records == (release,)
    assert (await made.releases.page(STRANGER, None, 10)).records == ()
    assert await made.releases.open_to(VENDOR, release.id) == release
    with pytest.raises(ReleaseNotFoundError):
        await made.releases.open_to(STRANGER, release.id)
    with pytest.raises(ImageNotFoundError):
        await made.images.image(MANIFEST.sha256, STRANGER)


async def test_a_version_of_a_model_is_one_image_for_ever(made):
    first = await made.releases.create(new(), AUTHOR, key="1")
    data = b"a" * 5_000
    await made.send(data)
    with pytest.raises(VersionUsedError):
        await made.releases.create(new(of_image(data)), AUTHOR, key="2")
    with pytest.raises(VersionUsedError):
        await made.releases.create(new(replace(MANIFEST, label="again")), AUTHOR, key="3")
    await made.releases.withdraw(first.id, AUTHOR)
    with pytest.raises(VersionUsedError):
        await made.releases.create(new(of_image(data)), AUTHOR, key="4")
    with pytest.raises(VersionUsedError):
        await made.releases.create(new(), AUTHOR, key="5")
    again = await made.releases.create(new(replace(MANIFEST, label="again")), AUTHOR, key="6")
    assert again.state is ReleaseState.VERIFIED


async def test_a_counter_never_falls_below_what_was_released_for_the_same_hardware(made):
    first = await made.releases.create(new(), AUTHOR, key="1")
    data = b"b" * 5_000
    await made.send(data)
    lower = of_image(data, version=version_of("2.5.0.0"), counter=2)
    second = await made.releases.create(new(lower), AUTHOR, key="2")
    await made.releases.let_out(first.id, OTHER)
    with pytest.raises(CounterError):
        await made.releases.let_out(second.id, OTHER)
    with pytest.raises(CounterError):
        await made.releases.create(new(replace(lower, version=version_of("2.6.0.0"))), AUTHOR, key="3")
    assert not (await made.releases.release(second.id)).is_released


def damage(made):
    path = made.blobs.stored(MANIFEST.sha256)
    path.chmod(0o600)
    path.write_bytes(base.IMAGE[:-1] + b"x")


async def test_an_image_that_the_disk_has_damaged_is_not_let_out(made):
    release = await made.releases.create(new(), AUTHOR, key="k")
    damage(made)
    with pytest.raises(ReleaseRefusedError) as caught:
        await made.releases.let_out(release.id, OTHER)
    assert [check[:2] for check in caught.value.checks] == [("U4", "image")]
    assert not (await made.releases.release(release.id)).is_released


async def test_an_image_found_damaged_when_it_is_loaded_withdraws_its_release(tmp_path):
    made = await rig(tmp_path)
    release = await made.releases.create(new(), AUTHOR, key="k")
    await made.releases.let_out(release.id, OTHER)
    damage(made)
    again = await rig(tmp_path, made.store, send=False)
    assert await again.releases.published(release.stream) is None
    assert (await again.releases.release(release.id)).state is ReleaseState.WITHDRAWN
    assert ("system", "release.withdraw", f"release/{release.id}") in await again.acts_of_audit()


async def test_devices_that_check_the_image_alone_need_a_signature_by_a_key_of_the_vendor(made):
    await made.models.put(replace(MODEL, firmware=replace(FIRMWARE, trust=Signatures.AFR)), OTHER)
    assert await refused(made, new()) == [("U7", "afr_signature")]
    key = ec.derive_private_key(7, ec.SECP256R1())
    signature = key.sign(base.IMAGE, ec.ECDSA(hashes.SHA256()))
    assert await refused(made, new(afr_signature=signature)) == [("U7", "afr_signature")]
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    number = (await made.keys.ring()).number
    await made.keys.add(parse_key(point, KeyRole.IMAGE, "acme", 0), OFFICER)
    assert (await made.keys.ring()).number == number + 1
    brought = await made.releases.create(new(afr_signature=signature), AUTHOR, key="k")
    await made.keys.revoke(kid_of(point).hex(), OFFICER)
    with pytest.raises(ReleaseRefusedError, match="U7 afr_signature"):
        await made.releases.let_out(brought.id, OTHER)
