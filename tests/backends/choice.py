"""Which server a run uses for each need: the first step of the chain that applies.

1. explicit: an environment variable names it
2. container: a Docker engine answers within 2 s (asked once)
3. process: our own child; for MongoDB that is an *emulator*, and is called so wherever it appears
4. none: a skip that names the missing package, or a failure with ``--strict-backends``
"""

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

DOCKER_ANSWERS_S_MAX = 2
BROKER_VARIABLE = "GNOMON_TEST_BROKER_URL"
MONGODB_VARIABLE = "GNOMON_TEST_MONGODB_URL"
EMULATOR = "nx-27017"


class Step(StrEnum):
    """Where a server comes from."""

    EXPLICIT = "explicit"
    CONTAINER = "container"
    PROCESS = "process"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run uses for one need, and how the header names it."""

    step: Step
    name: str

    @property
    def is_emulator(self) -> bool:
        return self.name.startswith("EMULATOR")


def broker(wanted: str) -> Choice:
    """Choose the MQTT broker. ``wanted`` is the value of ``--backends``."""
    if wanted in {"auto", "explicit"} and BROKER_VARIABLE in os.environ:
        return Choice(Step.EXPLICIT, f"explicit, {BROKER_VARIABLE}")
    if wanted in {"auto", "container"} and docker_answers():
        return Choice(Step.CONTAINER, "container mosquitto")
    path = mosquitto()
    if wanted in {"auto", "process"} and path:
        return Choice(Step.PROCESS, f"process mosquitto {_mosquitto_version(path)}")
    return Choice(Step.NONE, "NOT RUN: install the Debian package mosquitto")


def mongodb(wanted: str) -> Choice:
    """Choose what speaks MongoDB's protocol."""
    if wanted in {"auto", "explicit"} and MONGODB_VARIABLE in os.environ:
        return Choice(Step.EXPLICIT, f"explicit, {MONGODB_VARIABLE}")
    if wanted in {"auto", "container"} and docker_answers():
        return Choice(Step.CONTAINER, "container mongodb")
    if wanted in {"auto", "process"} and importlib.util.find_spec("nx_27017"):
        return Choice(Step.PROCESS, f"EMULATOR {EMULATOR} {importlib.metadata.version(EMULATOR)}")
    return Choice(
        Step.NONE,
        f"NOT RUN: Debian has no package; install {EMULATOR} (the group dev), or set {MONGODB_VARIABLE}",
    )


def mosquitto() -> str | None:
    """Return where the broker's program is; Debian keeps it where only root's PATH looks."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@functools.cache
def docker_answers() -> bool:
    """Tell whether there is a Docker engine. Asked once a run."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    try:
        import docker  # type: ignore[import-untyped] # noqa: PLC0415 - no stubs; slow, needed on few machines

        docker.from_env(timeout=DOCKER_ANSWERS_S_MAX).ping()
    except Exception:  # noqa: BLE001 - whatever is wrong with it, there is no engine for us
        return False
    return True


def _mosquitto_version(path: str) -> str:
    told = subprocess.run([path, "-h"], capture_output=True, text=True, check=False, timeout=5)
    return told.stdout.split("\n", 1)[0].rpartition(" ")[2]
