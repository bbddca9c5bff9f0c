"""The command line as people meet it, against a service that runs: what it asks, tells and keeps."""

import os
import subprocess
import sys
from pathlib import Path

from gnomon.credentials import read_credentials, session_file
from security.people import totp
from tests.api.rig import HALL
from tests.api.served import Run, Served
from tests.api.typist import Sit

PASSWORD = "heather over granite wind"


def test_a_token_is_printed(run: Run, files: Path):
    printed = run("token", str(files / "auditor.toml")).stdout.strip()
    assert printed.count(".") == 2
    assert run("token", str(files / "auditor.toml")).stdout.strip() == printed
    assert run("token", str(files / "ccs.toml")).stdout.strip().count(".") == 2
    assert "is not there" in run("token", str(files / "nobody.toml"), ok=False).output


def test_an_officer_makes_another_who_accepts_and_approves(
    run: Run, where: Served, files: Path, tmp_path: Path
):
    me = ("--as", str(files / "security.toml"))
    made = run("person", "add", "bob", "security", *me).stdout
    assert "waits" not in made, "the second officer is made alone"
    invitation = made.split("invitation")[1].split()[0]
    password, into = "heather over granite wind", tmp_path / "bob.toml"
    typed = f"{invitation}\n{password}\n{password}\n000000\n000000\n000000\n"
    wrong = run("person", "accept", "bob", "--url", where.url, typed=typed, ok=False)
    assert "refused (401)" in wrong.output
    assert "A code counts once" in wrong.output
    typed = f"{invitation}\n{password}\n{password}\n"
    shown = run("person", "accept", "bob", "--url", where.url, typed=typed, ok=False).output
    seed = shown.split("secret=")[1].split("&")[0]
    into.write_text(f'url = "{where.url}"\nlogin = "bob"\npassword = "{password}"\ntotp_seed = "{seed}"\n')
    into.chmod(0o600)
    him = ("--as", str(into))
    asked = run("person", "add", "eve", "operator", *me).stdout
    approval = asked.split("gnomon person approve ")[1].split()[0]
    assert approval in run("person", "approvals", *him).stdout
    assert "forbidden" in run("person", "approve", approval, *me, ok=False).output.lower()
    assert "done" in run("person", "approve", approval, *him).stdout
    listed = run("person", "list", *me).stdout
    eve = next(line.split()[0] for line in listed.splitlines() if line.endswith(" eve"))
    assert "invited" in listed
    assert "waits" in run("person", "role", eve, "auditor", *me).stdout
    assert "invitation" in run("person", "reset", eve, *him).stdout
    assert "ended" in run("person", "revoke", eve, *me).stdout
    assert "disabled" in run("person", "disable", eve, *me).stdout
    assert "waits" in run("person", "revoke", "--everybody", *me).stdout
    run("person", "revoke", *me, ok=False)


def test_what_is_typed_is_not_shown_and_no_password_is_an_argument(run: Run, where: Served):
    password = "heather over granite wind"
    typed = f"gnomon_first_x\n{password}\n{password}\n"
    told = run("person", "first", "ann", "--url", where.url, typed=typed, ok=False).output
    assert password not in told
    assert "gnomon_first_x" not in told
    for name in ("first", "accept", "add"):
        assert "--password" not in run("person", name, "--help").output


def test_the_seed_that_is_shown_makes_the_codes_that_are_taken():
    assert totp.seed_text(totp.seed_bytes("JBSWY3DPEHPK3PXP")) == "JBSWY3DPEHPK3PXP"


def _invitation(run: Run, files: Path, login: str, role: str = "security") -> str:
    made = run("person", "add", login, role, "--as", str(files / "security.toml")).stdout
    return made.split("invitation")[1].split()[0]


def test_who_has_just_accepted_goes_on_with_that_session_and_types_one_code_an_act(
    run: Run, where: Served, files: Path, tmp_path: Path, sit: Sit
):
    typist = sit(invitation=_invitation(run, files, "bob"), password=PASSWORD)
    me = tmp_path / "me" / "bob.toml"
    shown = run("person", "accept", "bob", "--url", where.url, "--into", str(me)).output
    assert f"to type by hand {typist.seed[:4]} {typist.seed[4:8]} " in shown
    assert [question.split(" (")[0] for question in typist.questions] == [
        "invitation",
        "new password",
        "the same password again",
        "code of the second factor",
    ]
    typist.questions.clear()
    run("person", "list", "--as", str(me))
    assert typist.questions == []
    run("person", "add", "eve", "rep", "--as", str(me))
    run("person", "add", "joe", "rep", "--as", str(me))
    assert len(typist.questions) == 2
    assert all("counts once: the next one comes in" in question for question in typist.questions)


def test_without_a_session_the_password_is_asked_for_before_the_codes(
    run: Run, where: Served, files: Path, tmp_path: Path, sit: Sit
):
    typist = sit(invitation=_invitation(run, files, "bob"), password=PASSWORD)
    me = tmp_path / "bob.toml"
    run("person", "accept", "bob", "--url", where.url, "--into", str(me))
    session_file(me).unlink()
    where.clock.advance(totp.STEP_S)
    typist.questions.clear()
    run("person", "add", "eve", "rep", "--as", str(me))
    asked = [question.split(" (")[0] for question in typist.questions]
    assert asked == ["password", "code of the second factor", "code of the second factor"]
    assert "counts once" in typist.questions[2]


def test_a_customer_without_a_second_factor_is_asked_for_none_at_the_first_login(
    run: Run, where: Served, files: Path, tmp_path: Path, sit: Sit
):
    officer = ("--as", str(files / "security.toml"))
    typist = sit(invitation=_invitation(run, files, "bob"), password=PASSWORD)
    run("person", "accept", "bob", "--url", where.url, "--into", str(tmp_path / "bob.toml"))
    made = run("person", "add", "ann", "customer", "--account", "account-7", *officer).stdout
    approval = made.split("gnomon person approve ")[1].split()[0]
    run("person", "approve", approval, "--as", str(tmp_path / "bob.toml"))
    typist = sit(invitation=made.split("invitation")[1].split()[0], password=PASSWORD)
    me = tmp_path / "ann.toml"
    told = run("person", "accept", "ann", "--url", where.url, "--into", str(me)).output
    assert "second factor" not in told
    assert not any("code" in question for question in typist.questions)
    assert run("token", str(me)).stdout.count(".") == 2


def test_a_weak_password_is_refused_before_anything_is_sent(run: Run, where: Served):
    weak = run(
        "person", "first", "ann", "--url", "http://127.0.0.1:1", typed="x\nshort\nshort\nshort\n", ok=False
    ).output
    assert "12 to 256 characters" in weak
    assert "does not answer" not in weak
    typed = f"x\n{PASSWORD}\nanother {PASSWORD}\n" + f"{PASSWORD}\n{PASSWORD}\n"
    differs = run("person", "first", "ann", "--url", where.url, typed=typed, ok=False).output
    assert "not the same" in differs
    assert "refused (401)" in differs


def test_a_wrong_secret_or_invitation_says_how_to_get_another(run: Run, where: Served):
    typed = f"gnomon_first_x\n{PASSWORD}\n{PASSWORD}\n"
    told = run("person", "first", "ann", "--url", where.url, typed=typed, ok=False).output
    assert "older than 15 minutes" in told
    assert "restart" in told
    told = run("person", "accept", "ann", "--url", where.url, typed=typed, ok=False).output
    assert "older than 7 days" in told
    assert "gnomon person reset" in told


def test_a_login_name_that_can_be_none_is_refused_before_anything_is_asked(run: Run, where: Served):
    told = run("person", "first", "Ann Lee", "--url", where.url, ok=False).output
    assert "a login name has" in told
    assert "secret" not in told


def test_a_refusal_is_told_with_its_detail_and_with_what_to_do(run: Run, files: Path):
    me = ("--as", str(files / "security.toml"))
    run("person", "add", "bob", "rep", *me)
    told = run("person", "add", "bob", "rep", *me, ok=False).output
    assert "refused (409)" in told
    assert "Choose another one." in told
    forbidden = run("person", "list", "--as", str(files / "auditor.toml"), ok=False).output
    assert "Your role may not do this; ask for one that may." in forbidden
    absent = run("person", "disable", "p-" + "a" * 16, *me, ok=False).output
    assert "Correct the id." in absent


def test_a_refused_login_says_that_a_code_counts_once(run: Run, where: Served, files: Path):
    file = files / "operator.toml"
    kept = read_credentials(file)
    file.write_text(f'url = "{where.url}"\nlogin = "{kept.login}"\npassword = "{PASSWORD}"\n')
    told = run("token", str(file), typed="000000\n", ok=False).output
    assert "A code counts once: wait for the next one, at most 30 s." in told
    assert told.count("code of the second factor") == 1, (
        "who may have typed a wrong password is not asked again"
    )


def test_a_system_whose_secret_is_wrong_is_told_so(run: Run, where: Served, files: Path):
    file = files / "ccs.toml"
    kept = read_credentials(file)
    file.write_text(f'url = "{where.url}"\nclient_id = "{kept.client_id}"\nclient_secret = "gnomon_cs_x"\n')
    assert "client_id or client_secret is wrong" in run("token", str(file), ok=False).output


def test_a_session_that_was_stolen_is_told_beside_the_token(
    run: Run, where: Served, files: Path, tmp_path: Path
):
    file = files / "operator.toml"
    run("token", str(file))
    stolen = session_file(file).read_bytes()
    where.clock.advance(600)
    run("token", str(file))
    where.clock.advance(60)
    (tmp_path / "thief.toml").write_bytes(file.read_bytes().replace(b"totp_seed", b"#"))
    (tmp_path / "thief.toml").chmod(0o600)
    session_file(tmp_path / "thief.toml").write_bytes(stolen)
    session_file(tmp_path / "thief.toml").chmod(0o600)
    run("token", str(tmp_path / "thief.toml"), typed="000000\n", ok=False)
    where.clock.advance(600)
    told = run("token", str(file))
    assert "NOTICE" in told.stderr
    assert "a copy of a session of yours" in told.stderr
    assert told.stdout.strip().count(".") == 2
    assert "NOTICE" not in run("token", str(file)).stderr


def test_a_voucher_is_made_by_who_may_let_a_thing_in_that_they_may_not_read(run: Run, files: Path):
    id, _, code = run("voucher", HALL, "--as", str(files / "security.toml")).stdout.strip().partition(":")
    assert id.startswith("v")
    assert len(code) > 20
    neighbour = run("voucher", HALL, "--as", str(files / "customer.toml"), ok=False).output
    assert "Register the thing, or correct its name." in neighbour


def test_without_a_terminal_it_says_which_key_to_set(where: Served, files: Path):
    kept = read_credentials(files / "operator.toml")
    for known, missing in (("", "password"), (f'password = "{PASSWORD}"', "totp_seed")):
        file = files / "cron.toml"
        file.write_text(f'url = "{where.url}"\nlogin = "{kept.login}"\n{known}\n')
        file.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", "from gnomon.cli import main; main()", "token", str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        assert done.returncode == 1
        assert f"no terminal to ask at: set {missing} in the credential file" in done.stderr
        assert "Warning" not in done.stderr
        assert "Aborted" not in done.stderr
