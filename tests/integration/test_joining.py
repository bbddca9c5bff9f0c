"""How a device joins, against a real `gnomon up`: the page by hand, and `gnomon enrol` as a device would."""

import hashlib
import os
import re
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gnomon import joining
from gnomon.cli import main
from gnomon.joining import Files, ForeignServerError, JoinError
from security import private_files
from security.policy import Role
from security.secret import Secret
from security.trust import certificates
from tests.enrolling import enrol, root_of, voucher
from tests.system.child import Gnomon
from tests.system.mqtt import Thing, until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
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
    assert len(SCRIPTS) == 3
    script = "set -eux -o pipefail\n" + "".join(SCRIPTS)
    for written, port in (("8080", gnomon.api_port), ("8883", gnomon.device_port)):
        script = script.replace(written, str(port))
    script = script.replace("https://localhost:8443", gnomon.join_url)
    (tmp_path / "root.crt").write_bytes(root_of(gnomon))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TOKEN": gnomon.accounts.token(Role.SECURITY),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my-pct.crt: OK" in done.stdout
    said = [line for line in done.stdout.splitlines() if '"heat_c":20.5' in line.replace(" ", "")]
    assert len(said) == 2, "accepted over MQTT, and read over HTTPS"


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
    assert files.certificate.read_bytes() == before[files.certificate]
    assert files.key.read_bytes() == before[files.key]


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


def test_a_voucher_by_the_command_line_lets_its_thing_in(gnomon, tmp_path):
    name = register(gnomon, "by-voucher")
    arguments = ["voucher", name, "--url", gnomon.api_url, "--token"]
    made = CliRunner().invoke(main, [*arguments, "-"], input=gnomon.accounts.token(Role.CUSTOMER) + "\n")
    assert made.exit_code == 0, made.output
    files = Files(tmp_path, name)
    joining.join(gnomon.join_url, files, Secret(made.output.strip()), root_of(gnomon), None)
    assert files.certificate.exists()
    (tmp_path / "token").write_text("nonsense")
    refused = CliRunner().invoke(main, [*arguments, str(tmp_path / "token")])
    assert refused.exit_code == 1
    assert "refused with 401" in refused.output
    assert "nonsense" not in refused.output
    far = CliRunner().invoke(
        main, ["voucher", name, "--url", "http://192.0.2.1", "--token", "-"], input="x\n"
    )
    assert "does not travel in the open" in far.output


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
    with pytest.raises(JoinError, match=r"409: .*used"):
        joining.join(gnomon.join_url, Files(tmp_path / "two", name), code, root_of(gnomon), None)
    gateway = register(gnomon, "gw-twice", "gateway")
    with pytest.raises(JoinError, match="409"):
        joining.join(gnomon.join_url, Files(tmp_path / "three", gateway), code, root_of(gnomon), None)


def test_wrong_code_rejected_and_audited(gnomon, tmp_path):
    claim = "v" + "a" * 16
    wrong = Secret(f"{claim}:{'AAAA' * 6}AAA")
    with pytest.raises(JoinError, match="401"):
        joining.join(gnomon.join_url, Files(tmp_path, "nobody"), wrong, root_of(gnomon), None)
    assert not (tmp_path / "nobody.crt").exists()

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
    assert gnomon.http.put(f"/v1/things/{name}/pin", json={"pin": "123455"}).status_code == 204
    with pytest.raises(ForeignServerError, match="does not know this device's PIN"):
        joining.prove_pin(gnomon.join_url, files, Secret("111115"))
    joining.prove_pin(gnomon.join_url, files, Secret("123455"))
    done = run(name, "--url", gnomon.join_url, "--into", files.folder, "--pin", input="123455\n")
    assert done.exit_code == 0, done.output
