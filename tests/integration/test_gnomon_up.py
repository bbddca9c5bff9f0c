"""`gnomon up` that cannot start, or is stopped at the wrong moment: one sentence, and nothing is left."""

import os
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
    assert str(port) in sentence
    assert key in sentence


def test_a_directory_that_another_gnomon_uses_is_refused_and_the_other_goes_on(tmp_path):
    with Gnomon(tmp_path / "one") as first:
        broker = first.broker_pid
        code, _, err = up(first.var)
        assert code == 1
        assert f"in use by process {first.pid}" in err
        assert "Traceback" not in err
        assert first.http.get("/v1/health").status_code == 200
        assert first.broker_pid == broker


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
    assert err.strip().splitlines()[-1] == f"Error: {tmp_path / 'file' / 'var'}: Not a directory"


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
        _, err = process.communicate(timeout=END_S_MAX)
    assert process.returncode == 0, err
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
