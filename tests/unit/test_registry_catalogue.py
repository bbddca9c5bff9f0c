"""Which device models there are, who is recognised as one, and how a model changes."""

from dataclasses import replace

import pytest

from fleet.plan import city
from infra.documents.memory import MemoryStore
from registry.catalogue import (
    CATEGORY_MAX,
    HW_MAX,
    WORDS_MAX,
    Apply,
    DeviceModel,
    HealthSign,
    ModelCatalogue,
    ModelFirmware,
    Ota,
    Signatures,
    built_in,
    check,
    slug,
)
from registry.collections import COLLECTIONS
from registry.errors import InvalidDetailError, ModelNotFoundError
from security import audit
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock

OTTO = Principal("otto", Role.OPERATOR)
PLUG = DeviceModel(
    id="acme-plug-1",
    maker="Acme",
    model="Plug-1",
    name="Acme plug",
    hw_min=2,
    hw_max=4,
    categories=frozenset({10}),
    capabilities=frozenset({"metering", "load.duty"}),
    technologies=frozenset({"zwave"}),
    limits={"duty_percent_min": 30},
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(COLLECTIONS, [audit.LOG])


@pytest.fixture
def catalogue(store: MemoryStore) -> ModelCatalogue:
    return ModelCatalogue(store, FakeClock())


async def acts(store: MemoryStore) -> list[tuple[str, str, str, int | None]]:
    page = await audit.read(store, 0, NOW_MS * 2, 100)
    return [(row.actor, row.action, row.target, row.version_after) for row in page.entries]


@covers("A1", "3.2/1")
async def test_every_model_of_the_demo_is_there_with_what_it_can_do(catalogue):
    await catalogue.seed()
    names = {device.model for home in city(60, seed=1).homes for device in home.devices}
    models = await catalogue.models(names)
    assert set(models) == names
    assert all(model.capabilities and model.technologies and model.validated for model in models.values())
    assert "load.offset" in models["acme-pct-2"].capabilities


def test_what_is_built_in_could_have_been_put_there():
    models = built_in()
    assert len({model.id for model in models}) == len(models)
    for model in models:
        check(model)
        assert model.version == 1


@covers("I3FR7")
def test_every_built_in_model_that_takes_firmware_says_what_must_be_known_for_it():
    for model in built_in():
        assert (model.firmware is not None) is (model.ota is not Ota.NONE), model.id
        if model.firmware is not None:
            assert model.firmware.vendor == slug(model.maker)
            assert model.firmware.class_of(model.hw_min)
            assert model.firmware.class_of(HW_MAX) is None


FIRMWARE = ModelFirmware(
    vendor="acme",
    classes={"2": "d0ab0369-673c-5489-ad42-fb0f0fa83d2a"},
    slot_bytes=262_144,
    apply=Apply.AB,
    gate=True,
    trust=Signatures.TWO,
    health=HealthSign.REPORT,
    schemas={"5": {"lang": "en"}},
    link_bytes_s=8_192,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"vendor": "Acme"},
        {"vendor": ""},
        {"vendor": "a" * 65},
        {"classes": {"02": "d0ab0369-673c-5489-ad42-fb0f0fa83d2a"}},
        {"classes": {"2": "D0AB0369-673C-5489-AD42-FB0F0FA83D2A"}},
        {"classes": {str(hw): "d0ab0369-673c-5489-ad42-fb0f0fa83d2a" for hw in range(33)}},
        {"schemas": {"65536": {}}},
        {"schemas": {str(number): {} for number in range(17)}},
        {"slot_bytes": 0},
        {"slot_bytes": 2**31},
        {"link_bytes_s": 0},
    ],
)
async def test_what_cannot_be_said_of_firmware_is_refused(catalogue, wrong):
    kept = await catalogue.put(replace(PLUG, firmware=FIRMWARE), OTTO)
    with pytest.raises(InvalidDetailError):
        await catalogue.put(replace(PLUG, firmware=replace(FIRMWARE, **wrong)), OTTO)
    assert await catalogue.model(PLUG.id) == kept


async def test_what_an_operator_has_changed_is_not_built_in_again(catalogue, store):
    await catalogue.seed()
    changed = await catalogue.put(replace(await catalogue.model("acme-pct-2"), validated=False), OTTO)
    before = await acts(store)
    await catalogue.seed()
    assert await catalogue.model("acme-pct-2") == changed
    assert await acts(store) == before


async def test_each_change_is_a_version_and_audited_once(catalogue, store):
    first = await catalogue.put(replace(PLUG, version=7), OTTO)
    assert first == replace(PLUG, version=1)
    assert await catalogue.put(replace(PLUG, version=7), OTTO) == first, "nothing differs"
    second = await catalogue.put(replace(PLUG, ota=Ota.LOCAL), OTTO)
    assert (second.version, second.ota) == (2, Ota.LOCAL)
    assert await catalogue.model(PLUG.id) == second
    assert await acts(store) == [
        ("otto", "device_model.write", "device_model/acme-plug-1", 1),
        ("otto", "device_model.write", "device_model/acme-plug-1", 2),
    ]


async def test_what_is_not_there_is_not_found(catalogue):
    with pytest.raises(ModelNotFoundError):
        await catalogue.model("acme-plug-1")
    assert await catalogue.models(["acme-plug-1"]) == {}


async def test_all_models_come_page_by_page_in_order(catalogue):
    await catalogue.seed()
    ids, cursor = list[str](), None
    while True:
        page = await catalogue.page(3, cursor)
        ids += [model.id for model in page.models]
        cursor = page.next
        if cursor is None:
            break
    assert ids == sorted(model.id for model in built_in())


@covers("3.2/1")
@pytest.mark.parametrize(
    ("maker", "model", "hw", "known"),
    [
        ("Acme", "Plug-1", 2, True),
        ("ACME", "plug 1", 4, True),
        ("Acme", "Plug-1", 1, False),
        ("Acme", "Plug-1", 5, False),
        ("Acme", "Plug-2", 3, False),
        ("Acme-Plug", "1", 3, False),
        ("", "", 0, False),
        ("ä", "ö", 3, False),
        ("x" * 5_000, "Plug-1", 3, False),
    ],
)
async def test_equipment_is_recognised_by_maker_model_and_hardware(catalogue, maker, model, hw, known):
    await catalogue.put(PLUG, OTTO)
    assert await catalogue.recognise(maker, model, hw) == (PLUG if known else None)


def test_an_id_is_made_of_letters_digits_and_hyphens():
    assert slug("Acme-PCT-2") == "acme-pct-2"
    assert slug("  Größe / 3! ") == "gr-e-3"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"maker": "", "model": "", "id": ""},
        {"maker": "x" * 129},
        {"name": "a\nb"},
        {"hw_min": 5},
        {"hw_min": -1},
        {"hw_max": HW_MAX + 1},
        {"categories": frozenset({CATEGORY_MAX + 1})},
        {"categories": frozenset({-1})},
        {"capabilities": frozenset({"Price"})},
        {"technologies": frozenset({""})},
        {"capabilities": frozenset(f"c{number}" for number in range(WORDS_MAX + 1))},
        {"limits": {"a b": 1}},
    ],
)
async def test_what_can_be_no_model_is_refused(catalogue, store, change):
    with pytest.raises(InvalidDetailError):
        await catalogue.put(replace(PLUG, **change), OTTO)
    assert await acts(store) == []


def test_as_many_words_as_may_be_are_taken():
    check(replace(PLUG, capabilities=frozenset(f"c{number}" for number in range(WORDS_MAX))))
    check(replace(PLUG, categories=frozenset(range(CATEGORY_MAX + 1)), hw_max=HW_MAX))
