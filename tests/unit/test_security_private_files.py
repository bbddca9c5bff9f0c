"""Files with secrets in them: whole or absent, and for their owner alone."""

import os
import stat
from pathlib import Path

import pytest

from infra.ids import RandomIds
from security import private_files
from security.private_files import FILE_BYTES_MAX, DamagedFileError, ExposedFileError
from security.secretbox import SecretBox


def test_a_missing_file_is_none(tmp_path: Path):
    assert private_files.read(tmp_path / "none") is None


def test_a_created_file_holds_what_was_written_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "key"
    assert private_files.create(path, b"secret")
    assert private_files.read(path) == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_create_never_replaces(tmp_path: Path):
    path = tmp_path / "key"
    private_files.create(path, b"first")
    assert not private_files.create(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_replaces_and_leaves_nothing_behind(tmp_path: Path):
    path = tmp_path / "key"
    private_files.replace(path, b"first")
    private_files.replace(path, b"second", 0o644)
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [private_files.create, private_files.replace])
def test_a_failed_write_leaves_the_old_file_and_no_draft(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "key"
    path.write_bytes(b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_a_directory_fails_and_leaves_no_draft(tmp_path: Path):
    path = tmp_path / "key"
    path.mkdir()
    with pytest.raises(OSError, match=r"(?i)directory"):
        private_files.replace(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_at_the_bound_is_read_and_one_beyond_is_not(tmp_path: Path):
    private_files.create(tmp_path / "most", b"x" * FILE_BYTES_MAX)
    private_files.create(tmp_path / "more", b"x" * (FILE_BYTES_MAX + 1))
    assert len(private_files.read(tmp_path / "most") or b"") == FILE_BYTES_MAX
    with pytest.raises(DamagedFileError, match="larger"):
        private_files.read(tmp_path / "more")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "keys"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(ExposedFileError, match=f"{mode:04o}"):
        private_files.make_directory(path)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_a_directory_that_others_may_only_look_into_is_used_as_it_is(tmp_path: Path, mode: int):
    path = tmp_path / "keys"
    path.mkdir()
    path.chmod(mode)
    private_files.make_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_is_not_followed_unless_a_person_named_it(tmp_path: Path):
    private_files.create(tmp_path / "file", b"x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(DamagedFileError, match="symbolic link"):
        private_files.read(tmp_path / "link")
    assert private_files.read(tmp_path / "link", links=True) == b"x"
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "other").symlink_to("folder")
    with pytest.raises(DamagedFileError, match="symbolic link"):
        private_files.make_directory(tmp_path / "other")


def test_what_belongs_to_somebody_else_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "keys").mkdir(mode=0o700)
    private_files.create(tmp_path / "keys" / "file", b"x")
    owner = os.geteuid()
    os.chown(tmp_path / "keys", 1_234, -1) if owner == 0 else monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(DamagedFileError, match="belongs to user"):
        private_files.make_directory(tmp_path / "keys")
    os.chown(tmp_path / "keys" / "file", 1_234, -1) if owner == 0 else None
    with pytest.raises(DamagedFileError, match="belongs to user"):
        private_files.read(tmp_path / "keys" / "file")


def test_nobody_is_told_to_delete_what_cannot_be_made_anew(tmp_path: Path):
    private_files.create(tmp_path / "file", b"x")
    (tmp_path / "file").chmod(0o644)
    with pytest.raises(ExposedFileError) as exposed:
        private_files.read(tmp_path / "file")
    assert "delete it" not in str(exposed.value)
    with pytest.raises(ExposedFileError, match="never delete it"):
        SecretBox.open(tmp_path / "file", RandomIds())
