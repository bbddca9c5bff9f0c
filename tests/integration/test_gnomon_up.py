"""`gnomon up` that cannot start, or is stopped at the wrong moment: one sentence, and nothing is left."""

import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.system.child import ROOT, SLOW_VARIABLES, Gnomon, end_process, runs
from tests.system.mqtt import until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("broker_program")]

END_S_MAX = 20.0
START_MS_MAX = 15_000
FREE = ("--set", "api.port=0", "--set", "api.device_port=0", "--set", "broker.device_port=0")


def command(directory, *arguments, free=FREE):
    return [
        sys.executable,
        "-m",
        "tests.system.up",
        "up",
        "--set",
        f"directory={directory}",
        *free,
        *arguments,
    ]


def environment():
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GNOMON_") and name not in SLOW_VARIABLES
    }
    return kept | {"PYTHONPATH": str(ROOT)}


def up(directory, *arguments, free=FREE):
    """Run it until it ends by itself; return its exit code and what it said on both outputs."""
    done = subprocess.run(
        command(directory, *arguments, free=free),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=END_S_MAX,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def refused(directory, *arguments, free=FREE):
    """See that it ends with one sentence; return that."""
    code, out, err = up(directory, *arguments, free=free)
    assert code == 1, err
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, err
    assert broker_of(directory) is None
    return errors[0]


def broker_of(directory: Path):
    """Return the process id of the broker that runs in a directory, None when there is none."""
    configuration = directory.absolute() / "broker" / "mosquitto.conf"
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and runs(int(entry.name), configuration):
            return int(entry.name)
    return None


@pytest.fixture
def var(tmp_path):
    yield tmp_path / "var"
    left = broker_of(tmp_path / "var")
    if left is not None:
        end_process(left, (tmp_path / "var").absolute() / "broker" / "mosquitto.conf")


@pytest.mark.parametrize("key", ["broker.device_port", "broker.service_port", "api.port", "api.device_port"])
def test_a_port_in_use_is_named_and_so_is_the_setting(var, key):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"api.port": 0, "api.device_port": 0, "broker.device_port": 0} | {key: port}
        free = tuple(part for name, value in ports.items() for part in ("--set", f"{name}={value}"))
        sentence = refused(var, free=free)
    assert [int(number) for number in re.findall(r"\b\d{4,}\b", sentence)] == [port]
    assert key in sentence
    assert "((" not in sentence.replace(" ", "")


def test_a_lost_master_key_is_not_made_anew_beside_what_it_sealed(tmp_path):
    with Gnomon(tmp_path) as gnomon:
        gnomon.stop()
        key = gnomon.var / "secrets" / "master.key"
        kept = key.read_bytes()
        key.unlink()
        sentence = refused(gnomon.var)
        assert f"{key} is missing, which opens " in sentence
        assert "put back a copy" in sentence
        assert not key.exists()
        # With another key in its place the store does not open either, and is left as it is.
        key.write_bytes(b'{"kid":"aaaaaaaa","key":"' + b"a" * 52 + b'"}\n')
        key.chmod(0o600)
        assert "does not open with the master key: put back copies of both" in refused(gnomon.var)
        key.write_bytes(kept)
        gnomon.start()


def test_a_directory_that_another_gnomon_uses_is_refused_and_the_other_goes_on(tmp_path):
    with Gnomon(tmp_path / "one") as first:
        broker = first.broker_pid
        code, _, err = up(first.var)
        assert code == 1
        assert f"in use by process {first.pid}" in err
        assert "Traceback" not in err
        assert first.http.get("/v1/health").status_code == 200
        assert first.broker_pid == broker


def doctor(gnomon):
    return subprocess.run(
        [sys.executable, "-m", "tests.system.up", "doctor", *settings_of(gnomon)],
        cwd=gnomon.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=END_S_MAX,
        check=False,
    )


def settings_of(gnomon):
    return [part for key, value in gnomon.settings.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("tls", ["false", "true"])
def test_the_doctor_finds_nothing_wrong_beside_a_service_that_runs(tmp_path, tls):
    with Gnomon(tmp_path, {"api.tls": tls}) as gnomon:
        found = doctor(gnomon)
        assert (found.returncode, "FAULT" in found.stdout) == (0, False), found.stdout + found.stderr
        assert found.stdout.count(f"running as process {gnomon.pid} ") == 4, found.stdout
        gnomon.kill()
        with socket.create_server(("127.0.0.1", gnomon.api_port)):
            assert "FAULT api port" in doctor(gnomon).stdout


def test_without_mosquitto_it_says_how_to_get_it(var):
    assert "apt-get install mosquitto" in refused(var, "--set", "broker.executable=no-such-broker")


def test_a_broker_that_does_not_work_is_quoted(var):
    assert "ended at once" in refused(var, "--set", "broker.executable=/bin/true")


def test_a_damaged_authority_is_refused_and_left_as_it_is(var):
    file = var / "ca" / "root.pem"
    file.parent.mkdir(parents=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_bytes(b"garbage")
    assert str(file) in refused(var)
    assert file.read_bytes() == b"garbage"


def test_a_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = up(tmp_path / "file" / "var", free=FREE)
    assert code == 1
    said = err.strip().splitlines()[-1]
    assert said.startswith(f"Error: the folder {tmp_path / 'file' / 'var'} cannot be made (Not a directory)")
    assert "set `directory`" in said


STAGES = (
    "gnomon.db",
    "ca/issuing-0001.pem",
    "broker/mosquitto.conf",
    "broker/mosquitto.pid",
    "bridge/running",
)
"""Files that appear one after the other while it starts."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_at_any_moment_of_the_start_ends_it_in_order_and_leaves_nothing_running(var, stage, number):
    with subprocess.Popen(
        command(var),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until((var / stage).exists, f"it comes as far as {stage}", END_S_MAX)
        process.send_signal(number)
        out, err = process.communicate(timeout=END_S_MAX)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == f"stopped      all is kept in {var}; the same command goes on with it"
    assert "Traceback" not in err
    assert broker_of(var) is None


def test_the_broker_may_open_as_many_connections_as_the_settings_say(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gnomon = Gnomon(tmp_path, {"broker.connections_max": 900})
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        gnomon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        assert gnomon.broker_pid is not None
        allowed, _ = resource.prlimit(gnomon.broker_pid, resource.RLIMIT_NOFILE)
        assert allowed >= 900
    finally:
        gnomon.close()


def of_the_runbook(title):
    """The commands of a section of the runbook, block by block."""
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def typed(script, folder):
    subprocess.run(["bash", "-c", f"umask 022; {script}"], cwd=folder, check=True, timeout=END_S_MAX)


def test_a_backup_and_its_restore_work_as_the_runbook_types_them_and_stay_private(tmp_path):
    backup, restore = of_the_runbook("Backup and restore")
    with Gnomon(tmp_path) as gnomon:
        gnomon.register("kept", certify=False)
        images = gnomon.var / "images"
        images.mkdir(0o700)
        (images / "6e97").write_bytes(b"an image")
        (images / "6e97").chmod(0o400)
        typed(backup, tmp_path)
        gnomon.register("later", certify=False)
        gnomon.stop()
        (gnomon.var / "gnomon.db").unlink()
        (images / "6e97").unlink()
        typed(restore, tmp_path)
        assert (images / "6e97").read_bytes() == b"an image"
        written = [
            gnomon.var / "gnomon.db",
            *(gnomon.var / "secrets").iterdir(),
            *tmp_path.glob("**/6e97"),
            *tmp_path.glob("backup/*.db"),
        ]
        assert [path for path in written if path.stat().st_mode & 0o077] == []
        before = len(gnomon.log_text())
        gnomon.start()
        assert gnomon.http.get("/v1/things/kept").status_code == 200
        assert gnomon.http.get("/v1/things/later").status_code == 404
        gnomon.stop()
        assert "audit_chain" not in gnomon.log_text()[before:]


def test_people_are_served_with_tls_where_that_is_asked_for(tmp_path):
    with Gnomon(tmp_path, {"api.tls": "true"}) as gnomon:
        credentials = gnomon.var / "demo" / "credentials" / "customer.toml"
        done = subprocess.run(
            [sys.executable, "-m", "tests.system.up", "token", str(credentials)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=END_S_MAX,
        )
        trusted = ssl.create_default_context(cafile=gnomon.root_certificate)
        bearer = {"Authorization": f"Bearer {done.stdout.strip()}"}
        url = f"https://localhost:{gnomon.api_port}"
        assert httpx.get(f"{url}/v1/me", headers=bearer, verify=trusted).status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{gnomon.api_port}/healthz")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")  # nobody trusts our root by itself
