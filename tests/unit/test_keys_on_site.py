"""A device without a network learns whom to believe from a crew's tool, as far as a root vouches for it."""

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fleet.firmware import Setting
from fleet.flash_file import Kept
from fleet.hardware import new_hardware
from fleet.makes import BLOCK, MAKES
from gnomon.journal import Journal
from ota import local_jobs
from ota.bundle import Bundle, write
from ota.key_list import KeyList, read
from ota.key_list import write as write_list
from tests.covers import covers
from tests.fakes import FakeClock
from tests.firmware_bench import THING, TRUSTED, job, release
from tests.key_lists import CHAIN, LIST, LIST_KEY, OTHER, ROOT, certify
from tests.on_site import Bench, field_tool
from tests.ota_base import NOW_S

MODEL = "norland-t1-wifi"
MAKE = MAKES[MODEL]
NEW = release(size=60_000, block=BLOCK, schema=max(MAKE.schemas), make=MAKE)
GOOD = replace(LIST, keys=tuple(TRUSTED.values()))


REVOKED = replace(GOOD, keys=tuple(replace(key, revoked=True) for key in GOOD.keys))
REFUSED = ("FAILED", "key_unknown")


def listed(number: int, of: KeyList = GOOD, chain: Sequence[bytes] = CHAIN) -> bytes:
    return write_list(replace(of, number=number), LIST_KEY, chain)


def of_a_stranger(number: int) -> bytes:
    return listed(number, chain=[certify(OTHER)])


@dataclass
class Site:
    """One device of a model that is upgraded on site, its flash, and the crew's files."""

    directory: Path
    kept: Kept

    def holds(self, keys: bytes) -> "Site":
        self.kept.flash.keys.write(keys)
        return self

    @property
    def number(self) -> int:
        """Return that of the list in its flash; 0: there is none."""
        data = self.kept.flash.keys.read()
        return 0 if data is None else read(data).number

    def is_given(self, keys: bytes, *, installs: bool) -> None:
        """Connect the tool, with a bundle that carries these keys, and let the device do as it does."""
        clock, offer = FakeClock(NOW_S * 1_000), job(NEW).document["gnomon"]
        manifest, order, proof = (base64.b64decode(offer[part]) for part in ("manifest", "order", "proof"))
        bundle = Bundle(manifest, order, {THING: proof}, NEW.leaves, memoryview(NEW.image), keys)
        file = self.directory / "campaign.bundle"
        file.write_bytes(b"".join(bytes(piece) for piece in write(bundle)))
        with field_tool(file, self.directory / "day.jsonl", clock) as tool:
            device = Bench(THING, self.kept, [ROOT.certificate], tool, clock)
            if installs:
                device.install()
            else:
                device.refuse()

    @property
    def ended(self) -> tuple[str | None, str]:
        """Return what the tool was told."""
        (line,) = Journal(self.directory / "day.jsonl").last().values()
        return line.execution.status, line.execution.reason


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, Kept(MODEL, new_hardware(MAKE, Setting(), random.Random(1)).flash))


@covers("I3FR6.1")
def test_a_device_that_holds_no_list_takes_the_one_of_the_bundle_and_installs(site: Site):
    site.is_given(listed(7), installs=True)
    assert site.number == 7


def test_a_device_that_holds_an_older_list_takes_the_newer_one(site: Site):
    site.holds(listed(6, REVOKED)).is_given(listed(7), installs=True)
    assert site.number == 7


def test_a_device_that_holds_a_newer_list_judges_by_that(site: Site):
    site.holds(listed(8)).is_given(listed(7), installs=True)
    assert site.number == 8


def test_an_older_list_makes_no_key_good_that_a_newer_one_has_revoked(site: Site):
    site.holds(listed(8, REVOKED)).is_given(listed(7), installs=False)
    assert (site.ended, site.number) == (REFUSED, 8)


def test_an_older_list_is_not_taken_under_a_higher_number_either(site: Site, monkeypatch):
    honest = local_jobs.document

    def lying(*what: Any) -> dict[str, Any]:
        document = honest(*what)
        document["gnomon"]["keys"] = 9
        return document

    monkeypatch.setattr("ota.local_jobs.document", lying)
    site.holds(listed(8, REVOKED)).is_given(listed(7), installs=False)
    assert (site.ended, site.number) == (REFUSED, 8)


def test_a_list_of_a_stranger_is_not_taken_by_who_holds_none(site: Site):
    site.is_given(of_a_stranger(7), installs=False)
    assert (site.ended, site.number) == (REFUSED, 0)


def test_a_list_of_a_stranger_takes_the_place_of_none(site: Site):
    site.holds(listed(6)).is_given(of_a_stranger(7), installs=True)
    assert site.number == 6


def test_without_a_list_in_the_bundle_what_is_held_counts(site: Site):
    site.holds(listed(6)).is_given(b"", installs=True)
    assert site.number == 6
