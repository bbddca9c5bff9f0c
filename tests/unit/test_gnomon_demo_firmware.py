"""New firmware for the demo's city: it can be signed as it lies there, and the service takes it."""

import tomllib
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.makes import MAKES
from gnomon import demo_firmware
from gnomon.cli import main
from ota.keys import KeyState
from ota.releases import NewRelease
from ota.states import ReleaseState
from registry.catalogue import Signatures
from tests.release_rig import AUTHOR, OFFICER, OTHER, rig


class Works:
    """The demo's firmware over services that outlive a run."""

    def __init__(self, made, directory):
        self.made, self.directory = made, directory / "firmware"

    async def provide(self):
        services: Any = SimpleNamespace(
            models=self.made.models,
            clock=self.made.clock,
            ota=SimpleNamespace(keys=self.made.keys),
        )
        await demo_firmware.provide(services, self.directory, MAKES)

    def files(self):
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}

    def signed(self, model, monkeypatch):
        """Sign an image as its vendor does, at the time of the services; return image and manifest."""
        clock = self.made.clock
        monkeypatch.setattr("gnomon.commands.image.SystemClock", lambda: clock)
        about = tomllib.loads((self.directory / f"{model}.toml").read_text())
        place, vendor, out = self.directory / model, about["vendor"], self.directory / f"{model}.cose"
        words = [f"{place}.bin", "--about", f"{place}.toml", "--key", f"{self.directory / vendor}.key"]
        done = CliRunner().invoke(main, ["image", "sign", *words, "--out", str(out)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return (self.directory / f"{model}.bin").read_bytes(), out.read_bytes()


@pytest.fixture
async def works(tmp_path):
    made = await rig(tmp_path)
    await made.models.seed()
    works = Works(made, tmp_path)
    await works.provide()
    return works


async def of_two_signatures(made):
    return [one for one in (await made.models.models(MAKES)).values() if one.firmware.trust is Signatures.TWO]


async def test_an_image_of_each_model_that_takes_two_signatures_is_released_as_it_lies_there(
    works, monkeypatch
):
    made = works.made
    models = await of_two_signatures(made)
    assert len(models) == len(MAKES) - 1, "all but the display"
    for model in models:
        image, manifest = works.signed(model.id, monkeypatch)
        new = NewRelease(image=await made.send(image), envelope=manifest)
        release = await made.releases.create(new, AUTHOR, key=model.id)
        assert release.model == model.id
        assert (await made.releases.let_out(release.id, OTHER)).state is ReleaseState.RELEASED


async def test_a_later_run_leaves_all_as_it_is(works):
    files, ring = works.files(), await works.made.keys.ring()
    await works.provide()
    assert works.files() == files
    assert await works.made.keys.ring() == ring


async def test_a_lost_key_is_made_anew_and_counts(works):
    (works.directory / "norland.key").unlink()
    before = await works.made.keys.keys()
    await works.provide()
    (new,) = (await works.made.keys.keys()).items() - before.items()
    assert new[1].owner == "norland"


async def test_keys_are_readable_by_their_owner_alone(works):
    keys = list(works.directory.glob("*.key"))
    assert {path.stem for path in keys} == {"acme", "norland", "voltaire", "hearth"}
    assert {path.stat().st_mode & 0o077 for path in keys} == {0}


async def test_what_somebody_has_revoked_stays_so(works):
    keys = works.made.keys
    kid = next(one.kid for one in (await keys.ring()).keys if one.owner == "norland")
    assert (await keys.revoke(kid, OFFICER)).state is KeyState.REVOKED
    await works.provide()
    assert (await keys.keys())[bytes.fromhex(kid)].revoked
