"""Reading the broker's log; the lines are as Mosquitto 2.0.11 writes them."""

import pytest

from broker_bridge.presence import Presence, Sign, concerns_delta, parse_line

CONNECTED = "1790000000: New client connected from 127.0.0.1:40000 as th-1 (p5, c{}, k60, u'th-1')."


@pytest.mark.parametrize(("clean", "fresh"), [("1", True), ("0", False)], ids=["clean", "kept"])
def test_a_connect_line_tells_whether_the_session_is_fresh(clean, fresh):
    assert parse_line(CONNECTED.format(clean)) == Presence(Sign.CONNECTED, "th-1", fresh=fresh)


def test_a_subscribe_line_tells_thing_and_filter():
    line = "1790000000: th-1 1 $aws/things/th-1/shadow/update/delta"
    assert parse_line(line) == Presence(
        Sign.SUBSCRIBED, "th-1", filter="$aws/things/th-1/shadow/update/delta"
    )


@pytest.mark.parametrize(
    "line",
    [
        "1790000000: Client th-1 disconnected.",
        "1790000000: Client th-1 closed its connection.",
        "1790000000: Client th-1 has exceeded timeout, disconnecting.",
    ],
    ids=["disconnected", "closed", "timeout"],
)
def test_the_end_of_a_connection_is_seen(line):
    assert parse_line(line) == Presence(Sign.DISCONNECTED, "th-1")


@pytest.mark.parametrize(
    "line",
    ["", "1790000000: Saving in-memory database", "1790000000: mosquitto version 2.0.11 starting", "th-1"],
    ids=["empty", "saving", "starting", "name"],
)
def test_other_lines_concern_no_thing(line):
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("filter", "concerns"),
    [
        ("$aws/things/th-1/shadow/update/delta", True),
        ("$aws/things/th-1/shadow/update/+", True),
        ("$aws/things/th-1/shadow/name/+/update/delta", True),
        ("$aws/things/th-1/shadow/#", True),
        ("gnomon/gateways/th-1/down/#", True),
        ("$aws/things/+/shadow/update/delta", True),
        ("$aws/#", True),
        ("$aws/things/th-1/shadow/name/cfg/update/delta", True),
        ("gnomon/#", True),
        ("#", True),
        ("$aws/things/th-1/shadow/name/cfg/get/+", False),
        ("$aws/things/th-1/shadow/update", False),
        ("$aws/things/th-1/shadow/get/accepted", False),
        ("$aws/things/other/shadow/update/delta", False),
        ("gnomon/gateways/other/down/#", False),
        ("+/things/th-1/shadow/update/delta", False),
    ],
)
def test_only_what_a_thing_may_read_and_holds_deltas_counts_as_coming_back(filter, concerns):
    assert concerns_delta(filter, "th-1") is concerns
