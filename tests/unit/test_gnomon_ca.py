"""``gnomon ca``: the root made, moved and used from its medium, and every refusal said in a sentence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from gnomon import canaries
from gnomon.cli import main
from infra.clock import SystemClock
from infra.settings import Settings
from security.secret import Secret
from security.trust.authority import Revoked, read_root, write_root
from tests.certificates import open_authority

PASSPHRASE = "correct horse battery"


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    medium = tmp_path / "medium"
    medium.mkdir()
    return medium


@pytest.fixture
def run(var: Path):
    def run(*arguments, said=None, typed=None):
        command = ["ca", *map(str, arguments), "--set", f"directory={var}"]
        answer = CliRunner().invoke(main, command, input=typed)
        if said is not None:
            assert (answer.exit_code, said in answer.output) == (1, True), answer.output
            assert "Traceback" not in answer.output
        else:
            assert answer.exit_code == 0, answer.output
        return answer.output

    return run


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.touch(mode=0o600)
    file.write_text(PASSPHRASE + "\nsecond line\n")
    return file


def files_below(directory: Path):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_init_makes_a_root_elsewhere_that_this_machine_never_keeps(run, var, medium, passphrase):
    said = run("init", "--root", medium / "root.pem", "--passphrase-file", passphrase)
    assert str(medium / "root.pem") in said
    authority = open_authority(var, production=True)
    assert authority.roots() == (read_root(medium / "root.pem", Secret(PASSPHRASE)).certificate,)
    authority.server_credentials(["localhost"])
    assert PASSPHRASE not in said
    assert not any(PASSPHRASE.encode() in content for content in files_below(var).values())


def test_the_passphrase_is_asked_for_twice_and_not_shown(run, medium):
    typed = f"{PASSPHRASE}\n{PASSPHRASE}\n"
    assert PASSPHRASE not in run("init", "--root", medium / "root.pem", typed=typed)
    read_root(medium / "root.pem", Secret(PASSPHRASE))


@pytest.mark.parametrize("text", ["short", "x" * 11, "x" * 1_001, "\n", ""])
def test_a_poor_passphrase_is_refused_and_nothing_is_made(run, var, medium, passphrase, text):
    passphrase.write_text(text)
    run("init", "--root", medium / "root.pem", "--passphrase-file", passphrase, said="passphrase")
    assert files_below(medium) == {}
    assert files_below(var) == {}


def test_a_passphrase_that_others_can_read_is_refused(run, medium, passphrase):
    passphrase.chmod(0o644)
    run("init", "--root", medium / "root.pem", "--passphrase-file", passphrase, said="chmod")


def test_init_replaces_nothing(run, var, medium, passphrase):
    (medium / "taken.pem").write_bytes(b"mine")
    run("init", "--root", medium / "taken.pem", "--passphrase-file", passphrase, said="never replaced")
    open_authority(var)
    before = files_below(var)
    run("init", "--root", medium / "root.pem", "--passphrase-file", passphrase, said="already")
    assert files_below(var) == before
    assert files_below(medium) == {medium / "taken.pem": b"mine"}


@pytest.mark.parametrize("command", [("show",), ("renew",), ("crl",), ("move-root", ".")])
def test_without_an_authority_nothing_is_made(run, var, command):
    run(*command, said="no authority")
    assert files_below(var) == {}


def test_without_the_master_key_it_says_what_to_put_back(run, var):
    open_authority(var)
    (var / "secrets" / "master.key").unlink()
    run("show", said="master.key is missing")
    run("renew", said="put back a copy")
    assert not (var / "secrets" / "master.key").exists()


def test_show_tells_what_there_is_and_changes_nothing(run, var):
    authority = open_authority(var)
    before = files_below(var)
    said = run("show")
    assert files_below(var) == before
    assert said.count("root   ") == 1
    assert "signs" in said
    assert "0 on the list" in said
    assert "move-root" in said
    authority.renew(authority.root())
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert f"signs from {tomorrow:%Y-%m-%d}" in run("show")


def test_the_canary_is_not_counted_among_the_revoked(run, var):
    authority, settings = open_authority(var), Settings(directory=var)
    ours = canaries.make(settings, authority, SystemClock())
    theirs = Revoked("07" * 16, datetime.now(UTC), "", ours.issuer)
    authority.write_crl([ours, theirs])
    said = run("show")
    assert "1 on the list" in said
    assert "and our canary" in said


def test_the_root_is_moved_and_used_from_its_medium(run, var, medium, passphrase):
    before = open_authority(var)
    (said,) = [
        line
        for line in run("move-root", medium, "--passphrase-file", passphrase).splitlines()
        if "root  " in line
    ]
    (file,) = medium.iterdir()
    assert str(file) in said
    assert "reminder" not in run("show")
    run("renew", said="--root")
    run("renew", "--root", file, typed="wrong passphrase\n", said="does not open")
    assert file.stat().st_mode & 0o777 == 0o600
    again = run("move-root", medium, "--passphrase-file", passphrase, said="not on this machine")
    assert "--root" not in again
    said = run("renew", "--root", file, "--passphrase-file", passphrase)
    assert f"new, signs from {datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}" in said
    assert "nothing is to be restarted" in said
    after = open_authority(var, production=True)
    assert after.roots() == before.roots()
    assert len(after.issuing()) == 2


def test_with_all_issuing_authorities_lost_the_root_makes_one_that_the_things_know(
    run, var, medium, passphrase
):
    before = open_authority(var)
    run("move-root", medium, "--passphrase-file", passphrase)
    (file,) = medium.iterdir()
    for lost in [*(var / "ca").glob("issuing*"), var / "secrets" / "master.key"]:
        lost.unlink()
    run("renew", "--root", file, "--passphrase-file", passphrase)
    after = open_authority(var)
    assert after.roots() == before.roots()
    assert after.issuing() != before.issuing()


def test_production_can_be_mended_with_the_command_it_names(run, var, medium, passphrase):
    open_authority(var)
    run("move-root", medium, "--passphrase-file", passphrase, "--set", "trust.production=true")
    assert not open_authority(var, production=True).root_in_reach


def test_a_root_is_not_moved_to_where_the_service_writes(run, var, passphrase):
    authority = open_authority(var)
    (var / "medium").mkdir()
    run("move-root", var / "medium", "--passphrase-file", passphrase, said="removable")
    run("move-root", var / "ca", "--passphrase-file", passphrase, said="removable")
    assert authority.root_in_reach


def test_a_medium_on_the_same_disk_is_warned_of(run, var, medium, passphrase):
    open_authority(var)
    assert "warning" in run("move-root", medium, "--passphrase-file", passphrase)


def test_a_successor_is_published_first_and_used_later(run, var, medium, passphrase):
    old = open_authority(var).roots()
    file = medium / "next.pem"
    run("init", "--root", file, "--successor", "--passphrase-file", passphrase)
    authority = open_authority(var)
    assert len(authority.roots()) == 2
    assert len(authority.issuing()) == 1
    assert set(old) < set(authority.roots())
    run("renew", "--root", file, "--passphrase-file", passphrase)
    open_authority(var).issuing()[-1].verify_directly_issued_by(authority.roots()[-1])


def test_a_root_that_nobody_was_told_of_makes_no_authority(run, var, medium, tmp_path, passphrase):
    write_root(medium / "foreign.pem", open_authority(tmp_path / "other").root(), Secret(PASSPHRASE))
    open_authority(var)
    before = files_below(var)
    arguments = ("--root", medium / "foreign.pem", "--passphrase-file", passphrase)
    run("renew", *arguments, said="no root of this deployment")
    assert files_below(var) == before


def test_the_list_is_made_anew(run, var):
    before = open_authority(var).crl_path.read_bytes()
    assert "lasts until" in run("crl")
    assert open_authority(var).crl_path.read_bytes() != before


def test_each_act_is_noted_before_it_is_done(run, var, medium, passphrase):
    open_authority(var)
    run("crl")
    run("move-root", medium, "--passphrase-file", passphrase)
    (file,) = medium.iterdir()
    run("renew", "--root", file, "--passphrase-file", passphrase)
    lines = (var / "ca" / "acts.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["act"] for line in lines] == ["crl", "move-root", "renew"]
    assert (var / "ca" / "acts.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", ["init", "show", "renew", "move-root", "crl"])
def test_each_command_explains_itself(command):
    answer = CliRunner().invoke(main, ["ca", command, "--help"])
    assert answer.exit_code == 0
    assert len(answer.output.splitlines()) > 5


def test_a_missing_root_file_is_a_sentence(run, var, medium):
    open_authority(var)
    run("renew", "--root", medium / "none.pem", typed="x\n", said="No such file")
