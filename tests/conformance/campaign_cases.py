"""What the jobs client of the AWS IoT Device SDK must find when a campaign reaches it (spec: ota, 3 to 9).

Nothing stands in for anything: two operators make the campaign over REST; the device speaks through the
unmodified SDK, checks both signatures, loads the image, asks for leave and says what runs on it; and the
campaign has to see that it succeeded.
"""

import asyncio
import hashlib
import random
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from awsiot import iotjobs

from fleet.boot import config_digest
from fleet.makes import MAKES
from gnomon.demo_people import ACCOUNT
from gnomon.rollout import Rollout
from gnomon.services import open_services
from infra.clock import MS_PER_S, SystemClock
from infra.ids import RandomIds
from infra.settings import load
from ota.manifest import Manifest, version_text
from ota.verification import DeviceFacts, Keys, Offer, Verified, verify
from security.policy import Role
from tests import upgradable
from tests.conformance.cases import WAIT_S, MissedError, Verdict, Way, expect, judge
from tests.conformance.job_cases import CLIENTS, WAYS
from tests.conformance.sdk import V1, Connection, Identity, connected, identity, state
from tests.system.child import Gnomon
from tests.system.mqtt import until

TITLE: Final = "a campaign reaches a device which installs it and says so"
HOME: Final = "campaign-home"
MAKE: Final = MAKES[upgradable.MODEL]
FACTORY: Final = MAKE.factory_image()[0]
CONFIG: Final = MAKE.factory_defaults(FACTORY.schema)
IMAGE: Final = random.Random(0).randbytes(100_000)


class _Said(msgspec.Struct):
    """What of a job document a device has to read, as the specification names it."""

    manifest: bytes
    order: bytes
    proof: bytes
    http: str


@dataclass(frozen=True, slots=True)
class CampaignBench:
    """A running service with a campaign that waits for a device of each way."""

    gnomon: Gnomon
    operator: Rollout
    keys: Keys
    campaign: str
    job: str


def lines() -> list[str]:
    """Return what the table says of each case."""
    return [_line(way) for way in WAYS]


@contextmanager
def running(directory: Path) -> Iterator[CampaignBench]:
    """Run a service with a campaign for the length of the block."""
    with Gnomon(directory) as gnomon:
        gnomon.stop()
        release, keys = asyncio.run(_prepare(gnomon.var))
        gnomon.start()
        for way in WAYS:
            with _device(gnomon, way) as device:
                device.reports(FACTORY.sha256, version_text(FACTORY.version), FACTORY.counter, boot=1)
        author, second = (Rollout(gnomon.accounts.access(Role.OPERATOR, number)) for number in (1, 2))
        made = author.create({"release": release, "waves": [{"percent": 100}], "soak_s": 0})
        author.submit(made["id"])
        second.approve(made["id"])
        yield CampaignBench(gnomon, second, keys, made["id"], made["job"])


def run(bench: CampaignBench, wanted: str = "") -> Iterator[Verdict]:
    """Run the cases whose line holds the text, one after another."""
    for way in WAYS:
        if wanted in _line(way):
            yield judge(_line(way), partial(check, bench, way))


def check(bench: CampaignBench, way: Way) -> None:
    """Take a device through the campaign."""
    with _device(bench.gnomon, way) as device:
        device.upgrades(bench.job, bench.keys)
        until(
            lambda: bench.operator.execution(bench.campaign, device.thing)["state"] == "SUCCEEDED",
            "the campaign sees that it succeeded",
        )


@contextmanager
def _device(gnomon: Gnomon, way: Way) -> Iterator["_Device"]:
    thing = _thing(way)
    own = identity(gnomon, thing)
    with connected(gnomon, own, thing, way.protocol) as connection:
        yield _Device(gnomon, thing, own, connection, way.client)


class _Device:
    """A device whose maker uses the SDK for its jobs and its shadows."""

    def __init__(
        self, gnomon: Gnomon, thing: str, own: Identity, connection: Connection, client: str
    ) -> None:
        self.thing = thing
        self._gnomon = gnomon
        self._own = own
        self._jobs = CLIENTS[client](connection, thing)
        self._shadows = {name: V1(connection, thing, name) for name in ("firmware", "config")}
        for shadow in self._shadows.values():
            shadow.subscribe("update_accepted", "update_rejected")

    def reports(self, sha256: str, version: str, counter: int, boot: int) -> None:
        """Say what runs on it, in good health, and how it is configured."""
        running = {"sha256": sha256, "version": version, "counter": counter, "confirmed": True}
        firmware = {"fw": running, "hw": MAKE.hw, "schema": FACTORY.schema, "boot": boot, "healthy": True}
        for name, reported in (("firmware", firmware), ("config", CONFIG)):
            shadow = self._shadows[name]
            shadow.publish("update", state=state(reported=reported))
            shadow.heard.expect("update_accepted")

    def upgrades(self, job: str, keys: Keys) -> None:
        """Take the next job, install what it is about, and say so."""
        self._jobs.subscribe(job)
        until(lambda: self._jobs.call("list").queued_jobs, "a job is queued")
        begun = self._jobs.call("start").execution
        expect(begun.job_id, job, "the job")
        said = msgspec.convert(begun.job_document["gnomon"], _Said)
        manifest = self._verified(said, keys)
        expect(hashlib.sha256(self._loaded(said.http)).hexdigest(), manifest.sha256, "the image")
        leave = self._jobs.call(
            "update",
            job_id=job,
            status=iotjobs.JobStatus.IN_PROGRESS,
            status_details={"fs": "5", "gate": "ask"},
            expected_version=begun.version_number,
            include_job_execution_state=True,
        )
        expect(leave.execution_state.status_details["gate"], "go", "leave to activate")
        self.reports(manifest.sha256, version_text(manifest.version), manifest.counter, boot=2)
        self._jobs.call(
            "update",
            job_id=job,
            status=iotjobs.JobStatus.SUCCEEDED,
            status_details={"fs": "8", "data": "preserve", "config": config_digest(CONFIG)},
        )
        until(lambda: self._jobs.next("notify-next").execution is None, "no job is left")
        self._jobs.close()

    def _verified(self, said: _Said, keys: Keys) -> Manifest:
        """Check what was said as a device does before it loads anything."""
        facts = DeviceFacts(
            thing=self.thing,
            vendor=MAKE.vendor,
            model=MAKE.model,
            hw=MAKE.hw,
            sha256=FACTORY.sha256,
            confirmed=True,
            version=FACTORY.version,
            counter=FACTORY.counter,
            counter_confirmed=FACTORY.counter,
            config_schema=FACTORY.schema,
            slot_bytes=MAKE.slot_bytes,
        )
        offer = Offer(said.manifest, said.order, said.proof)
        now_s = SystemClock().now_ms() // MS_PER_S
        found = verify(offer, facts, keys, now_s, now_s)
        if not isinstance(found, Verified):
            raise MissedError("the image is said to be the one that runs")
        return found.manifest

    def _loaded(self, url: str) -> bytes:
        """Load the image as a Linux gateway does: over HTTPS, with the certificate of the thing."""
        context = ssl.create_default_context(cafile=self._gnomon.root_certificate)
        context.load_cert_chain(*self._own)
        with urllib.request.urlopen(url, timeout=WAIT_S, context=context) as answer:  # noqa: S310 - of our own
            data: bytes = answer.read()
        return data


async def _prepare(var: Path) -> tuple[str, Keys]:
    """Fill the directory of a service that does not run yet; return the release, and whom devices believe."""
    settings = load(environ={}, overrides={"directory": str(var), "people.demo": "true"})
    async with open_services(settings, SystemClock(), RandomIds()) as services:
        await services.models.seed()
        await services.registry.hand_over(HOME, ACCOUNT, upgradable.AUTHOR)
        await upgradable.register(services, [(_thing(way), HOME) for way in WAYS])
        keys = await upgradable.trust(services)
        return (await upgradable.release(services, IMAGE)).id, keys


def _thing(way: Way) -> str:
    return f"campaign-{WAYS.index(way)}"


def _line(way: Way) -> str:
    return f"{way} {TITLE}"
