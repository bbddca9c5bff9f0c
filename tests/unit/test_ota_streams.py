"""The stream protocol without files: requests, refusals in their order, answers, in both formats."""

import base64
import json
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ota import streams
from ota.streams import (
    ANSWER_BYTES_MAX,
    BITMAP_BYTES_MAX,
    BLOCKS_MAX,
    REQUEST_BYTES_MAX,
    BlocksAsked,
    Code,
    Format,
    StreamError,
    block_ids,
    check_topic,
    data_head,
    data_tail,
    description,
    parse_describe,
    parse_get,
    peek_token,
    rejected,
)

FORMATS = pytest.mark.parametrize("format", list(Format))
ASK = {"f": 0, "l": 4096}


def spelled(fields, format):
    """Write a request as a device does; a bitmap is given as bytes."""
    if format is Format.CBOR:
        return cbor2.dumps(fields)
    return json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}).encode()


def read(answer, format):
    """Read an answer as a device does."""
    return cbor2.loads(answer) if format is Format.CBOR else json.loads(answer)


def ask(format=Format.JSON, **fields):
    return parse_get(spelled(ASK | fields, format), format)


def refused(payload, format):
    with pytest.raises(StreamError) as error:
        parse_get(payload, format)
    return error.value


def bits(*blocks, size=None):
    """Spell a bitmap as the specification does."""
    out = bytearray(size or max(blocks, default=0) // 8 + 1)
    for block in blocks:
        out[block // 8] |= 1 << block % 8
    return bytes(out)


# ---------------------------------------------------------------------- what is asked for


@FORMATS
def test_what_is_left_out_has_the_values_of_the_specification(format):
    assert ask(format) == BlocksAsked(None, None, 0, 4096, 0, 32, None)
    asked = ask(format, c="t-1", s=1, f=2, l=256, o=3, n=4, b=b"\x01")
    assert asked == BlocksAsked("t-1", 1, 2, 256, 3, 4, b"\x01")


@pytest.mark.parametrize(
    ("length", "count", "blocks"),
    [(32_768, 5, 4), (131_072, 8, 1), (131_072, None, 1), (4_096, 32, 32), (4_096, 33, 32), (256, None, 512)],
)
def test_at_most_131072_bytes_are_sent_for_a_request_and_the_rest_is_asked_again(length, count, blocks):
    asked = ask(l=length, **({} if count is None else {"n": count}))
    assert list(block_ids(asked, 100_000_000)) == list(range(blocks))
    assert blocks * length <= ANSWER_BYTES_MAX


def test_the_bitmap_of_the_specification_means_its_blocks():
    bitmap = bytes.fromhex("130080")
    assert list(block_ids(ask(Format.CBOR, o=20, b=bitmap), 10**7)) == [20, 21, 24, 43]
    for spelling in ("0x130080", "130080"):
        asked = parse_get(json.dumps({**ASK, "o": 20, "b": spelling}).encode(), Format.JSON)
        assert list(block_ids(asked, 10**7)) == [20, 21, 24, 43]
    assert bits(0, 1, 4, 23) == bitmap


@FORMATS
def test_with_a_bitmap_the_count_only_caps_the_answer(format):
    asked = ask(format, b=bits(1, 3, 5, 7, 9), n=3)
    assert list(block_ids(asked, 10**7)) == [1, 3, 5]


def test_bits_beyond_the_end_are_ignored():
    assert list(block_ids(ask(b=bits(0, 2, 3, 90)), 10_000)) == [0, 2]
    assert list(block_ids(ask(b=bits(3, 90)), 10_000)) == []
    assert list(block_ids(ask(o=2, n=8), 10_000)) == [2]
    assert list(block_ids(ask(o=3), 10_000)) == []
    assert list(block_ids(ask(b=b""), 10_000)) == []
    assert list(block_ids(ask(), 0)) == []


@given(
    st.sets(st.integers(0, 900), max_size=60), st.integers(0, 50), st.integers(1, 100), st.integers(0, 10**6)
)
def test_a_bitmap_gives_what_a_naive_reading_of_it_gives(wanted, offset, count, size):
    asked = BlocksAsked(None, None, 0, 1024, offset, count, bits(*wanted))
    naive = [offset + bit for bit in sorted(wanted)][:count]
    end = (size + 1023) // 1024
    assert list(block_ids(asked, size)) == [id for id in naive if id < end]


# ---------------------------------------------------------------------- the trap MQ==


@pytest.mark.parametrize(
    "payload",
    [cbor2.dumps({**ASK, "n": 8, "b": b"MQ=="}), cbor2.dumps({**ASK, "n": 8, "b": "MQ=="})],
    ids=["bytes", "text"],
)
def test_the_four_bytes_that_a_library_always_sends_are_no_bitmap(payload):
    asked = parse_get(payload, Format.CBOR)
    assert asked.bitmap is None
    assert list(block_ids(asked, 10**6)) == list(range(8))


def test_they_are_none_in_json_either_and_their_hex_is_one():
    assert parse_get(json.dumps({**ASK, "b": "MQ=="}).encode(), Format.JSON).bitmap is None
    assert ask(b=b"MQ==").bitmap == b"MQ=="


def test_a_library_that_asks_by_offset_gets_the_whole_file_with_it():
    size, got = 128 * 4096, set()
    for first in range(0, 128, 8):
        asked = parse_get(cbor2.dumps({**ASK, "s": 1, "o": first, "n": 8, "b": b"MQ=="}), Format.CBOR)
        got |= set(block_ids(asked, size))
    assert got == set(range(128))


def test_who_means_these_bytes_as_a_bitmap_still_gets_a_wanted_block():
    meant = {bit for byte, value in enumerate(b"MQ==") for bit in range(8 * byte, 8 * byte + 8)
             if value >> bit % 8 & 1}  # fmt: skip
    assert min(meant) == 0
    assert block_ids(parse_get(cbor2.dumps({**ASK, "b": b"MQ=="}), Format.CBOR), 10**6)[0] in meant


# ---------------------------------------------------------------------- refusals, and their order


@FORMATS
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"f": None}, Code.INVALID_REQUEST),
        ({"f": "0"}, Code.INVALID_REQUEST),
        ({"f": True}, Code.INVALID_REQUEST),
        ({"f": 0.0}, Code.INVALID_REQUEST),
        ({"f": -1}, Code.INVALID_REQUEST),
        ({"f": 256}, Code.INVALID_REQUEST),
        ({"l": "4096"}, Code.INVALID_REQUEST),
        ({"l": None}, Code.INVALID_REQUEST),
        ({"o": None}, Code.INVALID_REQUEST),
        ({"o": 1.5}, Code.INVALID_REQUEST),
        ({"n": "8"}, Code.INVALID_REQUEST),
        ({"n": False}, Code.INVALID_REQUEST),
        ({"s": "1"}, Code.INVALID_REQUEST),
        ({"b": 5}, Code.INVALID_REQUEST),
        ({"b": None}, Code.INVALID_REQUEST),
        ({"b": "xyz"}, Code.INVALID_REQUEST),
        ({"l": 255}, Code.BLOCK_SIZE),
        ({"l": 131_073}, Code.BLOCK_SIZE),
        ({"l": -4096}, Code.BLOCK_SIZE),
        ({"l": 0}, Code.BLOCK_SIZE),
        ({"o": -1}, Code.OFFSET),
        ({"o": BLOCKS_MAX + 1}, Code.OFFSET),
        ({"n": 0}, Code.BLOCK_COUNT),
        ({"n": -8}, Code.BLOCK_COUNT),
        ({"n": BLOCKS_MAX + 1}, Code.BLOCK_COUNT),
        ({"b": bytes(BITMAP_BYTES_MAX + 1)}, Code.BITMAP),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_one_thing_wrong_is_refused_with_its_code_and_the_token_comes_back(fields, code, format):
    error = refused(spelled(ASK | {"c": "t-1"} | fields, format), format)
    assert (error.code, error.token) == (code, "t-1")


@FORMATS
@pytest.mark.parametrize(
    "fields",
    [{"l": 256}, {"l": 131_072}, {"o": BLOCKS_MAX}, {"n": 1}, {"n": BLOCKS_MAX}, {"f": 255},
     {"b": bytes(BITMAP_BYTES_MAX)}, {"s": 7}, {"c": ""}, {"c": "t" * 64}, {"other": [1, {"a": None}]}],
    ids=lambda fields: repr(fields)[:30],
)  # fmt: skip
def test_what_is_just_within_bounds_is_taken(fields, format):
    ask(format, **fields)


@FORMATS
def test_the_first_code_that_fits_is_told(format):
    faults: list[tuple[dict[str, Any], Code]] = [
        ({"s": "x"}, Code.INVALID_REQUEST),
        ({"l": 1}, Code.BLOCK_SIZE),
        ({"o": -1}, Code.OFFSET),
        ({"n": 0}, Code.BLOCK_COUNT),
        ({"b": bytes(BITMAP_BYTES_MAX + 1)}, Code.BITMAP),
    ]
    for first in range(len(faults)):
        fields: dict[str, object] = {**ASK}
        for fault, _ in faults[first:]:
            fields |= fault
        assert refused(spelled(fields, format), format).code is faults[first][1]


@FORMATS
@pytest.mark.parametrize("token", [7, None, "t" * 65, "ü" * 33, ["t"], True])
def test_a_malformed_token_is_refused_and_not_given_back(token, format):
    error = refused(spelled(ASK | {"c": token}, format), format)
    assert (error.code, error.token) == (Code.INVALID_REQUEST, None)
    assert "c" not in read(rejected(error, format), format)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b"7", b'"f"', b"\xff\xfe", b'{"f":0,"l":4096}x', b'{"f":NaN}',
     b'{"c":"\xff","f":0,"l":4096}', b"[" * 20_000],
)  # fmt: skip
def test_what_is_no_json_object_is_invalid_json(payload):
    assert refused(payload, Format.JSON).code is Code.INVALID_JSON
    with pytest.raises(StreamError, match="not"):
        parse_describe(payload, Format.JSON)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xa1",
        b"\x80",
        b"\xf6",
        b"\x07",
        b"\xff",
        b'{"f":0,"l":4096}',
        cbor2.dumps(ASK) + b"\0",
        b"\xa1\x00\x00",
        b"\xa1\x61c\x61\xff",
        b"\xbf\x61f",
        b"\x9f" * 20_000,
        b"\xbb" + b"\xff" * 8,
        b"\xa1\x61f\xd8\x23\x67(a|a)*b",  # a pattern to compile
        b"\xa1\x61f\xc4\x82\x1b" + b"\x7f" * 8 + b"\x01",  # 1 with very many zeros
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
    ],
)
def test_what_is_no_cbor_map_is_invalid_cbor(payload):
    assert refused(payload, Format.CBOR).code is Code.INVALID_CBOR


@FORMATS
def test_a_request_that_is_too_long_is_not_even_read(format, monkeypatch):
    monkeypatch.setattr(streams, "_from_cbor", None)
    monkeypatch.setattr("msgspec.json.decode", None)
    assert refused(bytes(REQUEST_BYTES_MAX + 1), format).code is Code.INVALID_REQUEST


def test_a_bitmap_of_the_largest_size_fits_into_a_request_of_either_format():
    for format in Format:
        fields = {"c": "t" * 64, "s": 1, "f": 255, "l": 131_072, "o": BLOCKS_MAX, "n": BLOCKS_MAX}
        assert len(spelled(fields | {"b": bytes(BITMAP_BYTES_MAX)}, format)) <= REQUEST_BYTES_MAX


@pytest.mark.parametrize("bitmap", ["1", "0x1", "0x", "zz", "13 00", "0X13", "١٢", "13\n"])
def test_a_bitmap_in_json_is_hexadecimal_and_even(bitmap):
    payload = json.dumps({**ASK, "b": bitmap}).encode()
    if bitmap == "0x":
        assert parse_get(payload, Format.JSON).bitmap == b""
    else:
        assert refused(payload, Format.JSON).code is Code.INVALID_REQUEST


@pytest.mark.parametrize("stream", ["", "s" * 45, "fw.1", "fw 1", "fw:1", "fẅ", "fw-1\n"])
def test_a_name_that_no_stream_can_have_is_an_invalid_topic(stream):
    with pytest.raises(StreamError) as error:
        check_topic(stream, "json")
    assert error.value.code is Code.INVALID_TOPIC
    assert check_topic("s" * 44, "cbor") is Format.CBOR


@pytest.mark.parametrize("format", ["", "xml", "JSON", "json\n"])
def test_so_is_a_format_that_is_neither(format):
    with pytest.raises(StreamError, match="json or cbor"):
        check_topic("fw-1", format)


# ---------------------------------------------------------------------- describe, and what is said


@FORMATS
def test_asking_what_there_is_takes_a_token_and_nothing_else(format):
    assert parse_describe(spelled({}, format), format) is None
    assert parse_describe(spelled({"c": "t-1", "x": 1}, format), format) == "t-1"
    with pytest.raises(StreamError):
        parse_describe(spelled({"c": 1}, format), format)


@FORMATS
@pytest.mark.parametrize("token", [None, "", "t-1", 'a"\\\nü', "t" * 64])
def test_answers_say_what_the_specification_lists(format, token):
    given_back = {} if token is None else {"c": token}
    said = read(description(token, "acme T1 2.4.0", {0: 10_000, 2: 268, 1: 96}, format), format)
    files = [{"f": 0, "z": 10_000}, {"f": 1, "z": 96}, {"f": 2, "z": 268}]
    assert said == given_back | {"s": 1, "d": "acme T1 2.4.0", "r": files}
    error = StreamError(Code.NOT_FOUND, "none", token)
    assert read(rejected(error, format), format) == given_back | {"o": "ResourceNotFound", "m": "none"}


@FORMATS
@given(
    st.none() | st.text(max_size=16),
    st.integers(0, 255),
    st.integers(0, BLOCKS_MAX),
    st.binary(max_size=400),
)
@example(None, 23, 23, b"x" * 23)
@example(None, 24, 24, b"x" * 24)
@example("t", 255, 255, b"x" * 255)
@example("t", 0, 256, b"x" * 256)
@example("t", 0, 65_535, b"x" * 65_535)
@example("t", 0, 65_536, b"x" * 65_536)
@example("t", 0, BLOCKS_MAX, b"x" * 131_072)
def test_a_block_is_what_any_decoder_of_the_format_reads(format, token, file, id, block):
    said = data_head(token, format) + data_tail(file, id, memoryview(block), format)
    found = read(said, format)
    if format is Format.JSON:
        found["p"] = base64.b64decode(found["p"], validate=True)
    else:
        assert said == cbor2.dumps(found)  # in the shortest form, as small decoders want it
    assert found == ({} if token is None else {"c": token}) | {
        "f": file,
        "l": len(block),
        "i": id,
        "p": block,
    }


# ---------------------------------------------------------------------- anything at all


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(payload):
    for format in Format:
        for parse in (parse_get, parse_describe):
            with suppress(StreamError):
                parse(payload, format)
        peek_token(payload, format)


@given(st.dictionaries(st.sampled_from("csflonbx"), anything))
def test_no_fields_do_more_than_be_refused(fields):
    try:
        asked = parse_get(cbor2.dumps(fields), Format.CBOR)
    except StreamError:
        return
    ids = block_ids(asked, 10**6)
    assert list(ids) == sorted(set(ids))
    assert len(ids) * asked.length <= ANSWER_BYTES_MAX


def test_a_token_of_a_request_that_is_refused_unread_comes_back():
    assert peek_token(b'{"c":"t-1"}', "json") == "t-1"
    assert peek_token(cbor2.dumps({"c": "t-1", "f": "?"}), "cbor") == "t-1"
    assert peek_token(b'{"c":7}', "json") is None
    assert peek_token(b"{", "json") is None
    assert peek_token(b'{"c":"t-1"}', "xml") is None
