"""The catalogue: programs, shapes and tariffs as data, and what is refused of them."""

import asyncio
from dataclasses import replace

import msgspec
import pytest

from infra.documents.memory import MemoryStore
from infra.machines import IllegalTransitionError
from programs.catalogue import CATALOGUE, ENTRIES_MAX, ProgramCatalogue, builtin
from programs.errors import (
    CatalogueFullError,
    InvalidEntryError,
    ProgramNotFoundError,
    ShapeFixedError,
    ShapeNotFoundError,
    TariffNotFoundError,
)
from programs.models import Capacity, Program, ProgramType, Shape, ShapeKind, Window
from programs.shapes import BODY_BYTES_MAX, SCHEMA_BYTES_MAX
from programs.states import ProgramState
from security import audit
from security.policy import Principal, Role
from tests.covers import covers
from tests.fakes import NOW_MS, FakeClock

OTTO = Principal("otto", Role.OPERATOR)
T7 = {
    "currency": "EUR",
    "unit": "KWH",
    "tz": "Europe/Madrid",
    "periods": [["1-5", 54_000, 75_600, "0.31", "peak"]],
    "otherwise": "0.12",
}
SUMMER = Program(id="summer", name="Summer", type=ProgramType.DLC)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore([CATALOGUE], [audit.LOG])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def catalogue(store, clock) -> ProgramCatalogue:
    made = ProgramCatalogue(store, clock)
    await made.seed()
    return made


async def audited(store):
    return [(row.action, row.target) for row in (await audit.read(store, 0, NOW_MS * 2, 100)).entries]


# What comes with it


@covers("3.2/3")
async def test_what_comes_with_it_is_offered_and_holds_by_its_own_rules(catalogue, clock):
    bare = ProgramCatalogue(MemoryStore([CATALOGUE], [audit.LOG]), clock)
    for shape in builtin().shapes:
        await bare.put_shape(shape, OTTO)
    for tariff in builtin().tariffs:
        await bare.put_tariff(tariff.id, tariff.shape, tariff.body, OTTO)
    for program in builtin().programs:
        await bare.put(program, OTTO)
        assert await bare.publish(program.id, OTTO) == replace(program, version=2)
    offered = {program.id: program for program in await catalogue.programs(ProgramState.PUBLISHED)}
    assert {"cpp-27", "tou-res", "dlc-ac", "pct-comfort", "info-display", "rtp"} <= offered.keys()
    assert offered["tou-res"].excludes(offered["rtp"])
    assert offered["rtp"].excludes(offered["tou-res"]), "only one of the two says so"
    assert not offered["rtp"].excludes(offered["dlc-ac"])
    for program in offered.values():
        assert set(program.exclusive_with) <= offered.keys()


async def test_seeding_again_leaves_alone_what_somebody_has_changed(catalogue):
    await catalogue.put_tariff("t7", "tou/1", T7 | {"otherwise": "0.13"}, OTTO)
    await catalogue.close("rtp", OTTO)
    await catalogue.seed()
    assert (await catalogue.tariff("t7")).body["otherwise"] == "0.13"
    assert (await catalogue.program("rtp")).state is ProgramState.CLOSED


# Programs


async def test_a_program_is_drafted_published_changed_and_closed_each_with_one_audit_row(catalogue, store):
    draft = await catalogue.put(SUMMER, OTTO)
    assert (draft.state, draft.version) == (ProgramState.DRAFT, 1)
    assert await catalogue.put(SUMMER, OTTO) == draft, "what stays the same is no new version"
    published = await catalogue.publish("summer", OTTO)
    assert await catalogue.publish("summer", OTTO) == published
    changed = await catalogue.put(replace(SUMMER, name="Summer days"), OTTO)
    assert (changed.state, changed.version) == (ProgramState.PUBLISHED, 3)
    closed = await catalogue.close("summer", OTTO)
    assert await catalogue.close("summer", OTTO) == closed
    assert await audited(store) == [("program.write", "program/summer")] * 4


async def test_nobody_gives_a_program_its_state_or_version_by_writing_it(catalogue):
    written = await catalogue.put(replace(SUMMER, state=ProgramState.PUBLISHED, version=99), OTTO)
    assert (written.state, written.version) == (ProgramState.DRAFT, 1)


async def test_what_is_closed_is_never_opened_again(catalogue, store):
    await catalogue.close("rtp", OTTO)
    before = await store.get(CATALOGUE.name, ["program/rtp"])
    with pytest.raises(IllegalTransitionError):
        await catalogue.publish("rtp", OTTO)
    with pytest.raises(IllegalTransitionError):
        await catalogue.put(replace(await catalogue.program("rtp"), name="Again"), OTTO)
    assert await store.get(CATALOGUE.name, ["program/rtp"]) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "Summer"},
        {"id": ""},
        {"id": "ota"},
        {"name": ""},
        {"name": "n" * 65},
        {"requires": ((),)},
        {"requires": (("load off",),)},
        {"categories": (21,)},
        {"exclusive_with": ("summer",)},
        {"exclusive_with": ("no/id",)},
        {"zones": ("north east",)},
        {"window": Window("8")},
        {"window": Window("1-5", 7_200, 3_600)},
        {"capacity": Capacity(devices=-1)},
        {"fw_min": "one point two"},
        {"lockout_days": 3_661},
        {"primacy": 256},
        {"max_event_s": 86_400 * 367},
        {"consent_text_version": ""},
    ],
    ids=str,
)
async def test_a_program_that_cannot_be_so_is_refused_and_not_kept(catalogue, fields):
    with pytest.raises(InvalidEntryError) as refused:
        await catalogue.put(replace(SUMMER, **fields), OTTO)
    assert len(refused.value.problems) == 1
    assert next(iter(fields)) in refused.value.problems[0]
    with pytest.raises(ProgramNotFoundError):
        await catalogue.program("summer")


async def test_everything_wrong_with_a_program_is_said_at_once(catalogue):
    with pytest.raises(InvalidEntryError) as refused:
        await catalogue.put(replace(SUMMER, name="", primacy=-1, categories=(99,)), OTTO)
    assert len(refused.value.problems) == 3


async def test_a_program_names_only_what_there_is(catalogue):
    with pytest.raises(TariffNotFoundError):
        await catalogue.put(replace(SUMMER, tariff_ref="t-none"), OTTO)
    with pytest.raises(ShapeNotFoundError):
        await catalogue.put(replace(SUMMER, params_shape="none/1"), OTTO)
    with pytest.raises(InvalidEntryError, match="params_shape"):
        await catalogue.put(replace(SUMMER, params_shape="tou/1"), OTTO)


async def test_two_who_write_a_program_at_once_make_two_versions(catalogue):
    names = [f"Summer {number}" for number in range(4)]
    await asyncio.gather(*(catalogue.put(replace(SUMMER, name=name), OTTO) for name in names))
    assert (await catalogue.program("summer")).version == 4


async def test_a_catalogue_that_is_full_says_so(catalogue, monkeypatch):
    monkeypatch.setitem(ENTRIES_MAX, "program", len(await catalogue.programs()))
    with pytest.raises(CatalogueFullError):
        await catalogue.put(SUMMER, OTTO)
    await catalogue.put(replace(await catalogue.program("rtp"), name="Hourly"), OTTO)


# Shapes and tariffs


@covers("O16")
async def test_a_new_tariff_shape_needs_no_code(catalogue):
    flat = Shape(
        "flat/1",
        ShapeKind.TARIFF,
        {"type": "object", "required": ["price"], "properties": {"price": {"type": "string"}}},
    )
    assert await catalogue.put_shape(flat, OTTO) == flat
    made = await catalogue.put_tariff("t-flat", "flat/1", {"price": "0.20"}, OTTO)
    assert (made.rev, await catalogue.tariff("t-flat")) == (1, made)
    with pytest.raises(InvalidEntryError, match="price"):
        await catalogue.put_tariff("t-flat", "flat/1", {"price": 0.2}, OTTO)
    assert await catalogue.tariff("t-flat") == made


@covers("O16")
async def test_a_shape_never_changes_and_its_next_version_stands_beside_it(catalogue):
    shape = await catalogue.shape("comfort/1")
    assert await catalogue.put_shape(shape, OTTO) == shape
    wider = {"type": "object"}
    with pytest.raises(ShapeFixedError):
        await catalogue.put_shape(Shape("comfort/1", ShapeKind.PARAMS, wider), OTTO)
    await catalogue.put_shape(Shape("comfort/2", ShapeKind.PARAMS, wider), OTTO)
    assert await catalogue.shape("comfort/1") == shape


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": "object", "properties": {"price": {"type": "money"}}},
        {"type": "object", "properties": {"price": {"$ref": "http://127.0.0.1:9/price"}}},
        {"type": "object", "properties": {"price": {"$ref": "file:///dev/zero"}}},
        {"type": "object", "$ref": "#/nowhere"},
        {"type": "object", "properties": {"price": {"pattern": "(a+)+(?=b)"}}},
        {"type": "object", "description": "x" * SCHEMA_BYTES_MAX},
    ],
    ids=lambda schema: str(schema)[:60],
)
async def test_a_shape_that_could_reach_out_or_means_nothing_is_refused(catalogue, schema):
    with pytest.raises(InvalidEntryError, match="schema"):
        await catalogue.put_shape(Shape("odd/1", ShapeKind.TARIFF, schema), OTTO)
    with pytest.raises(ShapeNotFoundError):
        await catalogue.shape("odd/1")


@pytest.mark.parametrize("id", ["tou", "tou/0", "Tou/1", "tou/1/2", "", "tou/99999"])
async def test_a_shape_has_a_name_and_a_version(catalogue, id):
    with pytest.raises(InvalidEntryError, match="tou/1"):
        await catalogue.put_shape(Shape(id, ShapeKind.TARIFF, {"type": "object"}), OTTO)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (T7 | {"otherwise": 0.12}, "otherwise"),
        (T7 | {"currency": "Euro"}, "currency"),
        (T7 | {"periods": []}, "periods"),
        (T7 | {"periods": [["1-5", 54_000, 75_600, "0.31"]]}, "periods/0"),
        (T7 | {"colour": "red"}, "colour"),
        (T7 | {"rev": 4}, "rev"),
        (T7 | {"schema": "tou/2"}, "schema"),
        (T7 | {"tz": None}, "null"),
        ({name: value for name, value in T7.items() if name != "unit"}, "unit"),
        (T7 | {"tz": "x" * BODY_BYTES_MAX}, "bytes"),
        (T7 | {"periods": [[[["deep"]]]]}, "levels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_tariff_that_is_not_of_its_shape_is_refused_and_names_what_is_wrong(catalogue, body, problem):
    with pytest.raises(InvalidEntryError) as refused:
        await catalogue.put_tariff("t7", "tou/1", body, OTTO)
    assert problem in str(refused.value)
    assert "0.31" not in str(refused.value), "what is wrong is said without the values"
    assert (await catalogue.tariff("t7")).rev == 1


async def test_a_changed_tariff_gets_the_next_rev_and_has_to_go_round_the_same_one_does_not(catalogue):
    assert (await catalogue.put_tariff("t7", "tou/1", T7, OTTO)).rev == 1
    assert await catalogue.to_spread() == ()
    assert (await catalogue.put_tariff("t7", "tou/1", T7 | {"otherwise": "0.13"}, OTTO)).rev == 2
    (change,) = await catalogue.to_spread()
    assert (change.field, change.value, change.cursor) == ("tariff", "t7", None)
    await catalogue.spread(change, "half")
    (change,) = await catalogue.to_spread()
    assert change.cursor == "half"
    await catalogue.put_tariff("t7", "tou/1", T7 | {"otherwise": "0.14"}, OTTO)
    await catalogue.spread(change, None)
    (change,) = await catalogue.to_spread()
    assert change.cursor is None, "a newer change begins at the first device again"
    await catalogue.spread(change, None)
    assert await catalogue.to_spread() == ()
    assert (await catalogue.tariff("t7")).rev == 3


async def test_a_program_that_closes_has_to_go_round(catalogue):
    await catalogue.close("rtp", OTTO)
    (change,) = await catalogue.to_spread()
    assert (change.field, change.value) == ("program", "rtp")
    await catalogue.spread(change, None)
    assert (await catalogue.program("rtp")).state is ProgramState.CLOSED


async def test_parameters_are_those_of_the_program(catalogue):
    cpp, tou = await catalogue.program("cpp-27"), await catalogue.program("tou-res")
    await catalogue.check_params(cpp, {"maxOffset": 20})
    await catalogue.check_params(cpp, {})
    await catalogue.check_params(tou, {})
    for program, params in ((cpp, {"maxOffset": 51}), (cpp, {"other": 1}), (tou, {"maxOffset": 20})):
        with pytest.raises(InvalidEntryError):
            await catalogue.check_params(program, params)


@pytest.mark.parametrize(
    ("shape", "body", "holds"),
    [
        ("load/1", {"offset": {"cool": 20}, "start_jitter": [-300, 300]}, True),
        ("load/1", {"duty": 50, "cat": 1 << 15}, True),
        ("load/1", {}, False),
        ("load/1", {"offset": {}}, False),
        ("load/1", {"percent": 101}, False),
        ("load/1", {"duty": 50, "start_jitter": [-3_601, 0]}, False),
        ("price/1", {"currency": "EUR", "unit": "KWH", "intervals": [[0, 3_600, "0.42", 3]]}, True),
        ("price/1", {"currency": "EUR", "unit": "KWH", "intervals": [[0, 3_600, 0.42, 3]]}, False),
        ("capacity/1", {"import": [[0, 900, 4_000]], "subscription_w": 6_000}, True),
        ("capacity/1", {"subscription_w": 6_000}, False),
        ("text/1", {"priority": 2, "body": "Hot tomorrow"}, True),
        ("text/1", {"priority": 4, "body": "Hot tomorrow"}, False),
        ("text/1", {"priority": 2, "body": "x" * 1_025}, False),
    ],
    ids=str,
)
async def test_a_message_is_checked_against_its_shape(catalogue, shape, body, holds):
    whole = {"program": "cpp-27", "primacy": 60, "duration": 7_200, **body}
    if holds:
        await catalogue.check_message(shape, whole)
    else:
        with pytest.raises(InvalidEntryError):
            await catalogue.check_message(shape, whole)


async def test_a_shape_of_another_kind_fits_nothing(catalogue):
    with pytest.raises(InvalidEntryError, match="kind"):
        await catalogue.put_tariff("t8", "comfort/1", {}, OTTO)


async def test_what_is_kept_reads_back_as_it_was(catalogue, store, clock):
    program = replace(
        SUMMER, window=Window("1-5"), capacity=Capacity(10, 2), requires=(("price", "text"),), zones=("N3",)
    )
    written = await catalogue.put(program, OTTO)
    assert await ProgramCatalogue(store, clock).program("summer") == written
    assert msgspec.json.decode(msgspec.json.encode(written), type=Program) == written
