"""Which blocks of which file a thing gets, and what it is told otherwise."""

import random
from pathlib import Path
from typing import Any

import cbor2
import pytest

from infra.documents.port import StoreUnavailableError
from ota import stream_service
from ota.streams import Code, Format
from tests.covers import covers
from tests.stream_rig import FW, IMAGE, KEYS, Loader, make_files, numbered, read

FORMATS = pytest.mark.parametrize("format", [one.value for one in Format])


@pytest.fixture
def files():
    made = make_files()
    made.allow("hall")
    return made


async def get(files, fields, *, thing="hall", stream=FW, format="cbor"):
    return await files.service.get(thing, stream, format, spell(fields, format))


def spell(fields, format):
    loader = Loader(0, 4096, format=format)
    return loader.spell(fields)


def said(answer, format="cbor"):
    return [read(answer.head + tail, format) for tail in answer.tails]


# ---------------------------------------------------------------------- what is given


@FORMATS
async def test_a_request_for_blocks_is_answered_by_one_message_each(files, format):
    answer = await get(files, {"o": 0, "n": 3}, format=format)
    assert answer.word == "data"
    assert [(one["c"], one["f"], one["l"], one["i"]) for one in said(answer, format)] == [
        ("t-1", 0, 4096, 0),
        ("t-1", 0, 4096, 1),
        ("t-1", 0, 1808, 2),
    ]


@FORMATS
@pytest.mark.parametrize("window", [1, 2, 8, 32])
@pytest.mark.parametrize("block", [256, 1_000, 4_096, 131_072])
@covers("I3FR6.1")
async def test_a_device_that_asks_in_windows_has_the_file_in_the_end(files, format, window, block):
    files.add("fw-big", f0=(image := numbered(150_001)))
    files.allow("hall", "fw-big")
    loader = Loader(len(image), block, window, format)
    while loader.holes:
        answer = await files.service.get("hall", "fw-big", format, loader.ask())
        for tail in answer.tails:
            loader.hear(answer.head + tail)
    assert loader.content == image


@pytest.mark.parametrize("seed", range(5))
async def test_blocks_lost_doubled_and_in_any_order_are_made_good_by_asking_for_the_holes(files, seed):
    rng = random.Random(seed)
    files.add("fw-big", f0=(image := numbered(512 * 1024, seed)))
    files.allow("hall", "fw-big")
    loader = Loader(len(image), 4_096)
    while loader.holes:
        answer = await files.service.get("hall", "fw-big", "cbor", loader.ask())
        arrived = [tail for tail in answer.tails if rng.random() > 0.2]
        arrived += rng.sample(arrived, len(arrived) // 3)
        rng.shuffle(arrived)
        for tail in arrived:
            loader.hear(answer.head + tail)
    assert loader.content == image
    assert loader.requests < 40


async def test_the_leaves_and_the_manifest_are_files_of_the_same_stream(files):
    for file, size in ((1, 96), (2, 268)):
        (block,) = said(await get(files, {"f": file, "l": 4096}))
        assert (block["f"], block["l"], block["i"]) == (file, size, 0)


@FORMATS
async def test_what_there_is_is_described(files, format):
    answer = await files.service.describe("hall", FW, format, spell({}, format))
    assert answer.word == "description"
    (description,) = said(answer, format)
    assert description == {
        "c": "t-1",
        "s": 1,
        "d": f"stream {FW}",
        "r": [{"f": 0, "z": 10_000}, {"f": 1, "z": 96}, {"f": 2, "z": 268}],
    }


async def test_a_list_of_keys_is_for_every_thing(files):
    (block,) = said(await get(files, {}, thing="anybody", stream=KEYS))
    assert block["p"] == b"keys"


async def test_two_that_ask_for_the_same_block_are_given_the_same_bytes(files):
    files.allow("attic")
    first, second = await get(files, {}), await get(files, {}, thing="attic")
    assert all(one is other for one, other in zip(first.tails, second.tails, strict=True))


async def test_the_library_is_asked_once_for_a_stream_and_for_the_blocks_never(files):
    for number in range(5):
        await get(files, {"o": number % 3})
    assert files.shelf.asked == [FW]


async def test_only_so_many_streams_are_kept_at_hand(files, monkeypatch):
    monkeypatch.setattr(stream_service, "STREAMS_OPEN_MAX", 2)
    names = [f"fw-{number}" for number in range(3)]
    for name in names:
        files.add(name, f0=IMAGE)
    files.allow("hall", *names)
    for name in (*names, names[2], names[0]):
        await get(files, {}, stream=name)
    assert files.shelf.asked == [*names, names[0]]
    assert len(files.service._open) == 2


# ---------------------------------------------------------------------- what is refused


@FORMATS
@pytest.mark.parametrize(
    ("fields", "rest", "code"),
    [
        ({}, {"stream": "fw.1"}, Code.INVALID_TOPIC),
        ({"f": "x"}, {}, Code.INVALID_REQUEST),
        ({"l": 1}, {}, Code.BLOCK_SIZE),
        ({"o": -1}, {}, Code.OFFSET),
        ({"n": 0}, {}, Code.BLOCK_COUNT),
        ({"b": bytes(12_288)}, {}, Code.BITMAP),
        ({}, {"stream": "fw-none"}, Code.NOT_FOUND),
        ({}, {"stream": "keys-8"}, Code.NOT_FOUND),
        ({}, {"thing": "attic"}, Code.NOT_FOUND),
        ({"f": 3}, {}, Code.NOT_FOUND),
        ({"s": 2}, {}, Code.VERSION),
        ({"o": 3}, {}, Code.OFFSET),
        ({"b": b"\x00\x80"}, {}, Code.OFFSET),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_each_code_has_its_request(files, fields, rest, code, format):
    answer = await get(files, fields, format=format, **rest)
    assert (answer.word, answer.code) == ("rejected", code)
    (refusal,) = said(answer, format)
    assert refusal["o"] == code.value
    assert refusal.get("c") == ("t-1" if code is not Code.INVALID_TOPIC else None)
    assert refusal["m"]


@FORMATS
async def test_of_several_faults_the_first_in_order_is_told(files, format):
    faults: list[tuple[dict[str, Any], dict[str, Any], Code]] = [
        ({}, {"stream": "fw.1"}, Code.INVALID_TOPIC),
        ({"f": "x"}, {}, Code.INVALID_REQUEST),
        ({"l": 1}, {}, Code.BLOCK_SIZE),
        ({"o": -1}, {}, Code.OFFSET),
        ({"n": 0}, {}, Code.BLOCK_COUNT),
        ({"b": bytes(12_288)}, {}, Code.BITMAP),
        ({}, {"thing": "attic"}, Code.NOT_FOUND),
        ({"s": 2}, {}, Code.VERSION),
        ({"o": 98_304}, {}, Code.OFFSET),
    ]
    for first in range(len(faults)):
        fields, rest = dict[str, Any](), dict[str, Any]()
        for more, where, _ in reversed(faults[first:]):
            fields |= more
            rest |= where
        assert (await get(files, fields, format=format, **rest)).code is faults[first][2]


@pytest.mark.parametrize(("format", "code"), [("json", Code.INVALID_JSON), ("cbor", Code.INVALID_CBOR)])
async def test_what_cannot_be_read_is_refused_in_the_format_of_the_topic(files, format, code):
    for ask in (files.service.get, files.service.describe):
        answer = await ask("hall", FW, format, b"?")
        assert [one["o"] for one in said(answer, format)] == [code]


async def test_a_format_that_is_none_is_refused_in_json(files):
    answer = await files.service.get("hall", FW, "xml", b"{}")
    assert said(answer, "json") == [{"o": "InvalidTopic", "m": "a topic ends with json or cbor"}]


@FORMATS
async def test_what_one_may_not_have_and_what_is_not_there_are_told_alike(files, format):
    files.allow("hall", FW, "fw-gone")
    answers = [
        await get(files, {}, format=format, thing="attic"),
        await get(files, {}, format=format, stream="fw-none"),
        await get(files, {}, format=format, stream="fw-gone"),
        await get(files, {}, format=format, stream="keys-8"),
        await get(files, {"f": 9}, format=format),
        await get(files, {"f": 9, "s": 4}, format=format, thing="attic"),
    ]
    assert {tuple(one.tails) for one in answers} == {tuple(answers[0].tails)}
    described = await files.service.describe("attic", FW, format, spell({}, format))
    assert described.tails == answers[0].tails


async def test_a_stream_of_others_is_not_even_looked_for(files):
    await get(files, {}, thing="attic")
    await get(files, {}, stream="fw-none")
    assert files.shelf.asked == []


async def test_a_job_that_ends_ends_the_download_with_the_next_request(files):
    assert (await get(files, {"n": 1})).code is None
    files.jobs.streams.clear()
    assert (await get(files, {"n": 1})).code is Code.NOT_FOUND
    assert (await files.service.describe("hall", FW, "cbor", b"\xa0")).code is Code.NOT_FOUND


async def test_a_stream_that_is_withdrawn_ends_within_seconds_also_for_who_loads_it(files):
    assert (await get(files, {"n": 1})).code is None
    withdrawn = files.shelf.streams.pop(FW)
    files.clock.advance(stream_service.LOOK_AGAIN_S - 1)
    assert (await get(files, {"n": 1})).code is None
    files.clock.advance(1)
    assert (await get(files, {"n": 1})).code is Code.NOT_FOUND
    assert (await get(files, {"n": 1})).code is Code.NOT_FOUND
    files.shelf.streams[FW] = withdrawn
    assert (await get(files, {"n": 1})).code is None


async def test_a_library_that_fails_for_a_while_stops_one_request_and_no_download(files):
    await get(files, {"n": 1})
    files.shelf.error = StoreUnavailableError("down")
    files.clock.advance(stream_service.LOOK_AGAIN_S)
    with pytest.raises(StoreUnavailableError):
        await get(files, {"n": 1})
    assert (await get(files, {"n": 1})).code is None


async def test_what_fails_is_raised_and_not_taken_for_a_missing_file(files):
    files.jobs.error = StoreUnavailableError("down")
    with pytest.raises(StoreUnavailableError):
        await get(files, {})


def test_neither_the_rules_nor_the_service_write_anything():
    source = (Path(stream_service.__file__)).read_text()
    assert "infra" not in source


async def test_512_kib_need_sixteen_requests_of_eight_blocks(files):
    files.add("fw-big", f0=(image := numbered(512 * 1024)))
    files.allow("hall", "fw-big")
    loader = Loader(len(image), 4_096, window=8)
    for first in range(0, 128, 8):
        answer = await files.service.get("hall", "fw-big", "cbor", loader.ask_from(first))
        for tail in answer.tails:
            loader.hear(answer.head + tail)
    assert (loader.content, loader.requests) == (image, 16)


async def test_the_library_that_always_sends_mq_gets_every_block_at_eight_a_request(files):
    files.add("fw-big", f0=(image := numbered(512 * 1024)))
    files.allow("hall", "fw-big")
    loader = Loader(len(image), 4_096, window=8)
    for first in range(0, 128, 8):
        ask = cbor2.dumps({"c": "rdy", "f": 0, "l": 4096, "o": first, "n": 8, "b": b"MQ=="})
        answer = await files.service.get("hall", "fw-big", "cbor", ask)
        for tail in answer.tails:
            loader.hear(answer.head + tail)
    assert loader.content == image
