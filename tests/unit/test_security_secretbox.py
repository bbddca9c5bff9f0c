"""The secret box: what it seals opens for its place only, under every key it ever had."""

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.ids import RandomIds
from security import secretbox
from security.private_files import DamagedFileError, ExposedFileError
from security.secretbox import KEYS_MAX, OVERHEAD_BYTES, PLAIN_BYTES_MAX, SealBrokenError, SecretBox
from tests.fakes import SeededIds

PLACE = "claims/c1/pin"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "master.key"


@pytest.fixture
def box(path: Path) -> SecretBox:
    return SecretBox.open(path, RandomIds())


@given(plain=st.binary(max_size=200), place=st.text(st.characters(codec="utf-8"), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_sealed_opens_at_its_place(box, plain, place):
    sealed = box.seal(plain, place)
    assert box.open_sealed(sealed, place) == plain
    assert len(sealed) == len(plain) + OVERHEAD_BYTES


def test_equal_values_are_sealed_unalike(box):
    assert box.seal(b"123455", PLACE) != box.seal(b"123455", PLACE)


@pytest.mark.parametrize("place", ["claims/c2/pin", "claims/c1/key", "", "claims/c1/pin "])
def test_moved_to_another_place_it_does_not_open(box, place):
    sealed = box.seal(b"x", PLACE)
    with pytest.raises(SealBrokenError):
        box.open_sealed(sealed, place)


def test_with_any_byte_changed_it_does_not_open(box):
    sealed = box.seal(b"secret", PLACE)
    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises(SealBrokenError):
            box.open_sealed(changed, PLACE)


@pytest.mark.parametrize("length", [0, 1, 8, 9, 20, OVERHEAD_BYTES - 1])
def test_cut_short_it_does_not_open(box, length):
    with pytest.raises(SealBrokenError):
        box.open_sealed(box.seal(b"", PLACE)[:length], PLACE)


def test_another_box_does_not_open_it(box, tmp_path):
    other = SecretBox.open(tmp_path / "other", RandomIds())
    with pytest.raises(SealBrokenError):
        other.open_sealed(box.seal(b"x", PLACE), PLACE)


def test_a_value_may_be_as_long_as_allowed_and_no_longer(box):
    assert box.open_sealed(box.seal(b"x" * PLAIN_BYTES_MAX, PLACE), PLACE) == b"x" * PLAIN_BYTES_MAX
    with pytest.raises(ValueError, match="at most"):
        box.seal(b"x" * (PLAIN_BYTES_MAX + 1), PLACE)


# Keys


def test_the_key_is_made_once_and_for_its_owner_alone(box, path):
    kept = path.read_bytes()
    assert SecretBox.open(path, RandomIds()).open_sealed(box.seal(b"x", PLACE), PLACE) == b"x"
    assert path.read_bytes() == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_a_rotation_the_newest_key_seals_and_all_open(box, path):
    old = box.seal(b"old", PLACE)
    box.rotate()
    new = box.seal(b"new", PLACE)
    assert new[:9] != old[:9]
    for one in (box, SecretBox.open(path, RandomIds())):
        assert one.open_sealed(old, PLACE) == b"old"
        assert one.open_sealed(new, PLACE) == b"new"


def test_what_another_process_sealed_after_its_rotation_opens_here(box, path):
    other = SecretBox.open(path, SeededIds(7))
    other.rotate()
    assert box.open_sealed(other.seal(b"x", PLACE), PLACE) == b"x"


def test_rotations_are_bounded(box, path):
    for _ in range(KEYS_MAX - 1):
        box.rotate()
    kept = path.read_bytes()
    with pytest.raises(secretbox.KeysExhaustedError):
        box.rotate()
    assert path.read_bytes() == kept


LINE = b'{"kid":"aaaaaaaa","key":"' + b"a" * 52 + b'"}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense\n",
        b"{}\n",
        LINE[:-4],
        LINE + LINE,
        LINE.replace(b"aaaaaaaa", b"b", 1),
        LINE.replace(b'a"}', b'"}'),
        LINE.replace(b'a"}', b'1"}'),
        LINE + b"\n",
    ],
)
def test_a_damaged_file_stops_the_start_and_is_never_replaced(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DamagedFileError, match="put back a copy"):
        SecretBox.open(path, RandomIds())
    assert path.read_bytes() == content


def test_a_key_that_others_may_read_stops_the_start(box, path):
    assert box
    path.chmod(0o640)
    with pytest.raises(ExposedFileError):
        SecretBox.open(path, RandomIds())


def test_of_two_first_runs_at_once_one_makes_the_key(path):
    class Slow(SeededIds):
        """Asked for a key between our look and our write: the other process does all of its start then."""

        other: SecretBox | None = None

        def token(self, bits: int = 128) -> str:
            if self.other is None:
                self.other = SecretBox.open(path, RandomIds())
            return super().token(bits)

    ids = Slow()
    box = SecretBox.open(path, ids)
    assert ids.other is not None
    assert box.open_sealed(ids.other.seal(b"x", PLACE), PLACE) == b"x"


def test_it_shows_no_key(box, path):
    assert repr(box) == f"SecretBox({path})"


# A value in a file of its own


def test_a_sealed_file_is_made_once_and_opens_at_its_place(box, tmp_path):
    file = tmp_path / "value"
    assert box.read(file, PLACE) is None
    assert box.write(file, b"first", PLACE)
    assert not box.write(file, b"second", PLACE)
    assert box.read(file, PLACE) == b"first"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(SealBrokenError):
        box.read(file, "elsewhere")
