"""Link keys: derived as the standard says, read by one gateway in one window, kept for nobody else."""

import base64

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from infra.documents.memory import MemoryStore
from provisioning.grants import LINK_KEYS, SEALED_BYTES, SUITE, BadSealKeyError, LinkKeys, info, seal_to
from security import audit
from security.secret import Secret
from security.secretbox import SealBrokenError, SecretBox
from security.trust.codes import InvalidCodeError, MistypedCodeError
from tests.fakes import FakeClock, SeededIds
from tests.provisioning_rig import OPERATOR

EUI64, OTHER = "00124B0014B5D2A1", "00124B0014B5D2A2"
LABEL, KEY = "83FED3407A939723A5C639B26916D505C3B5", "66B6900981E1EE3CA4206B6B861C02BB"


@pytest.fixture
def keys(tmp_path):
    store = MemoryStore([LINK_KEYS], [audit.LOG])
    return LinkKeys(store, FakeClock(), SecretBox.open(tmp_path / "master.key", SeededIds()))


def window():
    """Return a gateway's key for one window, and how it reports it."""
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return key, base64.urlsafe_b64encode(point).rstrip(b"=").decode()


def opened(sealed, key, bound_to):
    return SUITE.decrypt(base64.urlsafe_b64decode(sealed + "=="), key, info=bound_to)


def test_a_labels_key_is_that_of_the_standard_and_only_its_gateway_reads_it(keys):
    private, public = window()
    bound_to = info("g-81", EUI64, 1_790_000_600)
    sealed = keys.for_window(EUI64, keys.of_code(EUI64, Secret(LABEL)), public, bound_to)
    assert len(base64.urlsafe_b64decode(sealed + "==")) == SEALED_BYTES == 97
    assert opened(sealed, private, bound_to).hex().upper() == KEY
    with pytest.raises(InvalidTag):
        opened(sealed, window()[0], bound_to)


@pytest.mark.parametrize(
    "other", [info("g-82", EUI64, 1_790_000_600), info("g-81", OTHER, 1_790_000_600), info("g-81", EUI64, 1)]
)
def test_a_key_is_bound_to_its_grant_its_device_and_its_end(other):
    private, public = window()
    sealed = seal_to(public, bytes(16), info("g-81", EUI64, 1_790_000_600))
    with pytest.raises(InvalidTag):
        opened(sealed, private, other)


def test_no_two_seals_are_alike():
    _, public = window()
    assert seal_to(public, bytes(16), b"") != seal_to(public, bytes(16), b"")


@pytest.mark.parametrize("bad", ["", "BKx2", "!!", base64.urlsafe_b64encode(bytes(65)).decode()])
def test_what_is_no_point_of_the_curve_is_refused(bad):
    with pytest.raises(BadSealKeyError):
        seal_to(bad, bytes(16), b"")


def test_a_key_that_is_kept_for_one_device_opens_for_no_other(keys):
    sealed = keys.of_code(EUI64, Secret(LABEL))
    with pytest.raises(SealBrokenError):
        keys.for_window(OTHER, sealed, window()[1], b"")


def test_a_mistyped_code_is_told_from_one_that_is_none(keys):
    with pytest.raises(MistypedCodeError):
        keys.of_code(EUI64, Secret(LABEL[:-1] + "6"))
    with pytest.raises(InvalidCodeError):
        keys.of_code(EUI64, Secret("hello"))


async def test_a_key_is_kept_until_its_device_leaves(keys):
    sealed = keys.of_code(EUI64, Secret(LABEL))
    await keys.keep(EUI64, sealed, OPERATOR)
    assert await keys.of([EUI64, OTHER]) == {EUI64: sealed}
    await keys.destroy(EUI64, OPERATOR)
    await keys.destroy(OTHER, OPERATOR)
    assert await keys.of([EUI64, OTHER]) == {}
