"""How a device joins, against a real `gnomon up`: the page by hand, and `gnomon enrol` as a device would."""

import hashlib
import os
import re
import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gnomon import joining
from gnomon.cli import main
from gnomon.joining import Files, ForeignServerError, JoinError
from security import private_files
from security.policy import Action, Role
from security.secret import Secret
from security.trust import certificates, keys
from tests.enrolling import enrol, root_of, voucher
from tests.system.child import ROOT, Gnomon
from tests.system.mqtt import Thing, until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
JOINING = PAGE.partition("\n## Joining\n")[2].partition("\n## ")[0]
SCRIPTS = re.findall(r"^```sh\n(.*?)^```", JOINING, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def gnomon(tmp_path_factory):
    with Gnomon(tmp_path_factory.mktemp("joining")) as gnomon:
        yield gnomon


def register(gnomon, name, kind="device"):
    thing = {"name": name, "kind": kind, "model": "acme-pct-2", "premises": f"pr-{name}"}
    gnomon.hand_over(thing["premises"])
    assert gnomon.http.post("/v1/things", json=thing).status_code == 201
    return name


def test_what_the_page_says_works_command_by_command(gnomon, tmp_path):
    *by_hand, agent = (typed(script, gnomon) for script in SCRIPTS)
    assert len(by_hand) == 3
    gnomon.hand_over("pr-0001")
    (tmp_path / "root.crt").write_bytes(root_of(gnomon))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", "set -eux -o pipefail\n" + "".join(by_hand)],
        cwd=tmp_path,
        env=environment | {"TOKEN": gnomon.accounts.token(Role.SECURITY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my-pct.crt: OK" in done.stdout
    said = [line for line in done.stdout.splitlines() if '"heat_c":20.5' in line.replace(" ", "")]
    assert len(said) == 2, "accepted over MQTT, and read over HTTPS"
    speaks(agent, tmp_path, environment)


def typed(script, gnomon):
    """What the page says, at the ports that this service has."""
    for written, port in (("8080", gnomon.api_port), ("8883", gnomon.device_port)):
        script = script.replace(written, str(port))
    return script.replace("https://localhost:8443", gnomon.join_url)


def speaks(script, folder, environment):
    """See the reference agent take the name over, until it is stopped as by Ctrl-C."""
    python = folder / "installed" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    with subprocess.Popen(
        ["bash", "-c", "exec " + script],
        cwd=folder,
        env=environment | {"GNOMON": str(folder / "installed"), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            assert agent.stderr is not None
            assert any("accepted:" in line for line in agent.stderr), "its first report"
            agent.send_signal(signal.SIGINT)
            assert agent.wait(timeout=20) == 0
        finally:
            agent.kill()


def test_a_device_enrols_and_speaks(gnomon):
    name = register(gnomon, "hall")
    certificate, key = enrol(gnomon, name)
    leaf, issuer = x509.load_pem_x509_certificates(certificate.read_bytes())
    leaf.verify_directly_issued_by(issuer)
    assert key.stat().st_mode & 0o777 == 0o600
    thing = Thing(gnomon, name).connect().listen()
    thing.report({"on": True})
    thing.disconnect()
    assert gnomon.http.get(f"/v1/things/{name}/shadows/@classic").json()["state"]["reported"] == {"on": True}


def sha256_of_root(gnomon):
    root = x509.load_pem_x509_certificate(root_of(gnomon))
    return hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()


def root_file(gnomon):
    return gnomon.var / "ca" / "root.crt"


def run(*arguments, input=None):
    return CliRunner().invoke(main, ["enrol", *map(str, arguments)], input=input)


def test_by_the_command_line_with_the_sha_256_of_the_root(gnomon, tmp_path):
    name, files = register(gnomon, "by-command"), Files(tmp_path, "by-command")
    code = voucher(gnomon, name).reveal()
    arguments = (name, "--url", gnomon.join_url, "--root-sha256", sha256_of_root(gnomon), "--into", tmp_path)
    done = run(*arguments, "--code-file", "-", input=code + "\n")
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(files.key), str(files.certificate), str(files.root)]
    assert files.root.read_bytes() == root_of(gnomon)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    private_files.create(code_file := tmp_path.parent / "code", code.encode())
    again = run(*arguments, "--code-file", code_file)
    assert again.exit_code == 1
    assert "exists" in again.output
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    early = run(name, "--url", gnomon.join_url, "--into", tmp_path, "--renew")
    assert early.exit_code == 1
    assert "last third of its life" in early.output
    assert "(wait 244 days)" in early.output
    assert not files.next_key.exists(), "it was refused, so no certificate can be for it"
    assert files.certificate.read_bytes() == before[files.certificate]
    assert files.key.read_bytes() == before[files.key]


def test_a_code_of_another_thing_gives_nothing_the_wrong_name_and_loses_nothing(gnomon, tmp_path):
    name, into = register(gnomon, "mine"), tmp_path / "new"
    code = voucher(gnomon, name)
    told = run("other", "--url", gnomon.join_url, "--root", root_file(gnomon), "--into", into,
               "--code-file", "-", input=code.reveal() + "\n")  # fmt: skip
    assert told.exit_code == 1
    assert "this code is not other's but mine's" in told.output
    assert str(into / "mine.crt") in told.output.replace("\n", "")
    files = Files(into, name)
    assert sorted(into.iterdir()) == sorted([files.key, files.certificate, files.root])
    leaf = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    assert leaf.subject.rfc4514_string().endswith("CN=mine")
    assert leaf.public_key() == keys.parse_key(files.key.read_bytes()).public_key()


def test_a_code_of_another_thing_replaces_nothing_of_that_one(gnomon, tmp_path):
    name = register(gnomon, "kept")
    files, wrong = Files(tmp_path, name), Files(tmp_path, "other")
    files.key.write_bytes(b"precious")
    code = voucher(gnomon, name)
    with pytest.raises(JoinError, match="which has files here already"):
        joining.join(gnomon.join_url, wrong, code, root_of(gnomon), None)
    assert files.key.read_bytes() == b"precious"
    elsewhere = Files(tmp_path / "elsewhere", name)
    elsewhere.folder.mkdir()
    wrong.key.rename(elsewhere.key)
    joining.join(gnomon.join_url, elsewhere, code, root_of(gnomon), None)
    assert elsewhere.certificate.exists()


@pytest.mark.parametrize("code", ["", ":", "vaaaaaaaaaaaaaaaa", "vaaaaaaaaaaaaaaaa:", ":AAAA"])
def test_half_a_code_is_not_even_sent(gnomon, tmp_path, code):
    told = run("hall", "--url", "https://localhost:1", "--root", root_file(gnomon), "--into", tmp_path,
               "--code-file", "-", input=code + "\n")  # fmt: skip
    assert (told.exit_code, "a part of it is missing" in told.output) == (1, True), told.output
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_no_certificate_is_told(tmp_path):
    (tmp_path / "voucher.json").write_text("{}")
    told = run("hall", "--url", "https://localhost:1", "--root", tmp_path / "voucher.json",
               "--into", tmp_path, "--code-file", "-", input="v:A\n")  # fmt: skip
    assert (told.exit_code, "no certificate in PEM" in told.output) == (1, True), told.output


def test_what_was_never_enrolled_is_not_renewed(tmp_path):
    told = run("hall", "--url", "https://localhost:1", "--into", tmp_path, "--renew")
    assert (told.exit_code, "enrol it first, or name its folder" in told.output) == (1, True), told.output
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_was_lost_leaves_the_key_and_says_so(gnomon, tmp_path, monkeypatch):
    name, files = register(gnomon, "unheard"), Files(tmp_path, "unheard")
    code = voucher(gnomon, name)

    def unheard(_server, _request, _code):
        raise JoinError("localhost port 1 does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(joining.Server, "enrol", unheard)
        with pytest.raises(JoinError, match=r"unheard\.key is kept: the same command goes on"):
            joining.join(gnomon.join_url, files, code, root_of(gnomon), None)
    key = files.key.read_bytes()
    joining.join(gnomon.join_url, files, code, root_of(gnomon), None)
    assert files.key.read_bytes() == key


def test_no_code_is_an_argument_and_a_file_of_one_is_its_owners_alone(tmp_path):
    (tmp_path / "code").write_text("vaaaa:AAAA")
    (tmp_path / "code").chmod(0o644)
    arguments = ("hall", "--url", "https://localhost:1", "--into", tmp_path)
    assert "No such option" in run(*arguments, "--code", "vaaaa:AAAA").output
    told = run(*arguments, "--code-file", tmp_path / "code")
    assert told.exit_code == 1
    assert "chmod" in told.output
    (tmp_path / "empty").touch(0o600)
    assert "holds no code" in run(*arguments, "--code-file", tmp_path / "empty").output


@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.SECURITY])
def test_a_voucher_by_the_command_line_lets_its_thing_in(gnomon, tmp_path, role):
    name = register(gnomon, f"by-voucher-{role}")
    made = CliRunner().invoke(main, ["voucher", name, "--as", str(gnomon.accounts.file(role))])
    assert made.exit_code == 0, made.output
    files = Files(tmp_path, name)
    joining.join(gnomon.join_url, files, Secret(made.stdout.strip()), root_of(gnomon), None)
    assert files.certificate.exists()


def test_a_run_whose_answer_was_lost_is_gone_on_with(gnomon, tmp_path):
    name, files = register(gnomon, "lost"), Files(tmp_path, "lost")
    code = voucher(gnomon, name)
    joining.join(gnomon.join_url, files, code, root_of(gnomon), None)
    first = files.certificate.read_bytes()
    files.certificate.unlink()
    joining.join(gnomon.join_url, files, code, root_of(gnomon), None)
    assert files.certificate.read_bytes() == first


def test_claim_code_reuse_409(gnomon, tmp_path):
    name = register(gnomon, "twice")
    code = voucher(gnomon, name)
    joining.join(gnomon.join_url, Files(tmp_path / "one", name), code, root_of(gnomon), None)
    with pytest.raises(JoinError, match=r"\(409\): .*used.*\n.*Ask for a new one"):
        joining.join(gnomon.join_url, Files(tmp_path / "two", name), code, root_of(gnomon), None)
    gateway = register(gnomon, "gw-twice", "gateway")
    with pytest.raises(JoinError, match="409"):
        joining.join(gnomon.join_url, Files(tmp_path / "three", gateway), code, root_of(gnomon), None)


def test_wrong_code_rejected_and_audited(gnomon, tmp_path):
    claim = "v" + "a" * 16
    wrong = Secret(f"{claim}:{'AAAA' * 6}AAA")
    with pytest.raises(JoinError, match="401"):
        joining.join(gnomon.join_url, Files(tmp_path, "nobody"), wrong, root_of(gnomon), None)
    assert list(tmp_path.iterdir()) == []

    def refused():
        rows = gnomon.http.get("/v1/audit").json()["items"]
        return any(
            (row["action"], row["target"], row["decision"]) == ("certificate.enrol", "claim", "refused")
            for row in rows
        )

    until(refused, "the refusal is in the audit", 20.0)


def test_revoked_certificate_refused(gnomon):
    name = register(gnomon, "stolen")
    certificate, key = enrol(gnomon, name)
    context = ssl.create_default_context(cadata=root_of(gnomon).decode())
    context.load_cert_chain(certificate, key)
    with httpx.Client(base_url=gnomon.join_url, verify=context) as device:
        reported = {"state": {"reported": {"on": True}}}
        assert device.post(f"/things/{name}/shadow", json=reported).status_code == 200
        assert gnomon.http.post(f"/v1/things/{name}/revoke").status_code == 200
        assert device.post(f"/things/{name}/shadow", json=reported).status_code == 401
    files = Files(certificate.parent, name)
    with pytest.raises(JoinError, match=r"not good any more\. It has ended, or its thing was revoked"):
        joining.renew(gnomon.join_url, files)
    assert not files.next_key.exists()


def test_a_device_tells_no_code_to_whom_it_was_not_told_of(gnomon, tmp_path):
    name = register(gnomon, "careful")
    code = voucher(gnomon, name)
    with pytest.raises(ForeignServerError, match="SHA-256"):
        joining.join(gnomon.join_url, Files(tmp_path, name), code, None, "00" * 32)
    other = certificates.make_root(datetime.now(UTC)).certificate.public_bytes(Encoding.PEM)
    with pytest.raises(ForeignServerError, match="does not belong to the root"):
        joining.join(gnomon.join_url, Files(tmp_path, name), code, other, None)
    assert list(tmp_path.iterdir()) == []
    joining.join(gnomon.join_url, Files(tmp_path, name), code, root_of(gnomon), None)


def test_wrong_pin_device_refuses_server(gnomon):
    name = register(gnomon, "pinned")
    enrol(gnomon, name)
    files = Files(gnomon.directory / "things", name)
    with pytest.raises(JoinError, match="404"):
        joining.prove_pin(gnomon.join_url, files, Secret("123455"))
    path, body = f"/v1/things/{name}/pin", b'{"pin":"123455"}'
    shown = gnomon.accounts.step_up(Role.SECURITY, Action.INSTALL_CODE_WRITE, "PUT", path, body)
    fields = {"Content-Type": "application/json", **shown}
    assert gnomon.http.put(path, content=body, headers=fields).status_code == 204
    with pytest.raises(ForeignServerError, match="does not know this device's PIN"):
        joining.prove_pin(gnomon.join_url, files, Secret("111115"))
    joining.prove_pin(gnomon.join_url, files, Secret("123455"))
    done = run(name, "--url", gnomon.join_url, "--into", files.folder, "--pin", input="123455\n")
    assert done.exit_code == 0, done.output
