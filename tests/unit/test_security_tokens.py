"""The operator token: made once, shown once, kept as a hash."""

import hashlib
import stat
from pathlib import Path

import pytest

from security.policy import Principal, Role
from security.private_files import DamagedFileError, ExposedFileError
from security.tokens import PREFIX, SECRET_CHARS_MAX, OperatorToken
from tests.fakes import SeededIds


def opened(directory: Path, seed: int = 1) -> tuple[OperatorToken, str]:
    token, secret = OperatorToken.open(directory / "operator.token", SeededIds(seed))
    assert secret is not None
    return token, secret


def test_the_secret_lets_its_holder_in_as_operator(tmp_path: Path):
    token, secret = opened(tmp_path)
    assert token.principal(secret) == Principal("operator", Role.INTERIM)


def test_the_secret_has_256_bits_and_says_what_it_is(tmp_path: Path):
    _, secret = opened(tmp_path)
    assert secret.startswith(PREFIX)
    assert len(secret) - len(PREFIX) == 52  # base32 of 32 bytes


def test_the_secret_is_told_once_and_works_after_a_restart(tmp_path: Path):
    _, secret = opened(tmp_path)
    again, told = OperatorToken.open(tmp_path / "operator.token", SeededIds(2))
    assert told is None
    assert again.principal(secret) is not None


def test_the_file_holds_a_hash_that_only_its_owner_can_read(tmp_path: Path):
    _, secret = opened(tmp_path)
    path = tmp_path / "operator.token"
    assert path.read_text().strip() == hashlib.sha256(secret.encode()).hexdigest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_deleted_file_makes_a_new_token_and_the_old_one_is_nothing(tmp_path: Path):
    _, old = opened(tmp_path, seed=1)
    (tmp_path / "operator.token").unlink()
    token, new = opened(tmp_path, seed=2)
    assert new != old
    assert token.principal(old) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        PREFIX,
        "operator",
        "\ud800",
        "\0",
        "ü" * 40,
        "x" * SECRET_CHARS_MAX,
        "x" * (SECRET_CHARS_MAX + 1),
        "x" * 10_000_000,
    ],
    ids=lambda text: f"{len(text)} of {text[:1]!r}",
)
def test_what_is_not_the_secret_lets_nobody_in(tmp_path: Path, wrong: str):
    token, _ = opened(tmp_path)
    assert token.principal(wrong) is None


def test_neither_a_part_nor_a_neighbour_of_the_secret_lets_anybody_in(tmp_path: Path):
    token, secret = opened(tmp_path)
    near = [secret[:-1], secret + "a", secret.upper(), " " + secret, secret + "\n", secret[len(PREFIX) :]]
    assert [token.principal(one) for one in near] == [None] * len(near)


def test_the_hash_itself_is_no_token(tmp_path: Path):
    token, _ = opened(tmp_path)
    assert token.principal((tmp_path / "operator.token").read_text().strip()) is None


@pytest.mark.parametrize("content", ["", "no hash", "ab" * 31, "AB" * 32, "ab" * 33, "\xff" * 64])
def test_a_damaged_file_stops_the_start_says_so_and_stays(tmp_path: Path, content: str):
    path = tmp_path / "operator.token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(DamagedFileError, match="delete it"):
        OperatorToken.open(path, SeededIds())
    assert path.read_text() == content


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o620, 0o666])
def test_a_file_that_others_may_use_stops_the_start(tmp_path: Path, mode: int):
    opened(tmp_path)
    path = tmp_path / "operator.token"
    path.chmod(mode)
    with pytest.raises(ExposedFileError, match="chmod"):
        OperatorToken.open(path, SeededIds())


def test_of_two_that_begin_at_once_one_makes_the_token(tmp_path: Path):
    """The other process wins between our look and our write: its token is the token."""
    path = tmp_path / "operator.token"
    first = list[str | None]()

    class Slow(SeededIds):
        def token(self, bits: int = 128) -> str:
            first.append(OperatorToken.open(path, SeededIds(7))[1])
            return super().token(bits)

    token, secret = OperatorToken.open(path, Slow(8))
    assert secret is None
    assert first[0] is not None
    assert token.principal(first[0]) is not None


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path):
    opened(tmp_path / "secrets")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
