"""The city: deterministic, complete, and never a device that nobody can speak for."""

import re

import pytest

from fleet.plan import HOMES_MAX, Plan, city

NAME = re.compile(r"(th|ls|dp|gw)-\d{4,5}-[a-z]+")


def test_the_same_seed_gives_the_same_city_and_another_seed_another():
    assert city(60, 7) == city(60, 7)
    assert city(60, 7) != city(60, 8)


def test_a_home_does_not_change_when_the_city_grows():
    assert city(400, 7).homes[:60] == city(60, 7).homes


@pytest.mark.parametrize("seed", [0, 1, 7, 42])
def test_sixty_homes_have_about_two_hundred_devices(seed):
    devices = [device for home in city(60, seed).homes for device in home.devices]
    assert 170 <= len(devices) <= 230


def test_a_device_without_certificate_always_has_a_gateway_of_its_own_home():
    for home in city(200, 7).homes:
        gateways = {gateway.name for gateway in home.gateways}
        for device in home.devices:
            assert set(device.gateways) <= gateways
            assert device.has_certificate or device.gateways


def test_names_are_unique_and_valid():
    homes = city(200, 7).homes
    names = [gateway.name for home in homes for gateway in home.gateways]
    names += [device.name for home in homes for device in home.devices]
    assert len(set(names)) == len(names)
    assert all(NAME.fullmatch(name) for name in names)
    assert homes[11].premises == "pr-0012"


def test_a_demo_city_shows_every_kind_of_attachment():
    devices = [device for home in city(60, 7).homes for device in home.devices]
    kinds = {(device.has_certificate, len(device.gateways)) for device in devices}
    assert {(False, 1), (False, 2), (True, 0), (True, 1)} <= kinds
    assert {device.kind for device in devices} == {"thermostat", "load_switch", "display"}


def test_an_empty_city_is_allowed_and_one_home_too_many_is_not():
    assert city(0, 7) == Plan(())
    with pytest.raises(ValueError, match="fewer"):
        city(HOMES_MAX + 1, 7)
