"""What makers built in, and what the registry's catalogue says of it, are the same."""

from importlib import resources

import msgspec
import pytest

from fleet.makes import MAKES
from fleet.plan import city

CATALOGUE = {
    entry["id"]: entry["firmware"]
    for entry in msgspec.json.decode(resources.files("registry").joinpath("models.json").read_bytes())
    if "firmware" in entry
}


def test_every_model_that_takes_firmware_is_simulated():
    assert MAKES.keys() == CATALOGUE.keys()


@pytest.mark.parametrize("model", sorted(CATALOGUE))
def test_the_catalogue_and_the_device_agree(model):
    make, entry = MAKES[model], CATALOGUE[model]
    assert make.vendor == entry["vendor"]
    assert make.hw == entry["classes"]["1"]
    assert make.slot_bytes == entry["slot_bytes"]
    assert make.gate == entry["gate"]
    assert {str(number): dict(config) for number, config in make.schemas.items()} == entry["schemas"]


def test_every_device_of_the_city_can_take_firmware():
    homes = city(200, 7).homes
    models = {one.model for home in homes for one in home.gateways}
    models |= {one.model for home in homes for one in home.devices}
    assert models <= MAKES.keys()
