"""Reading the broker's log; the lines are as Mosquitto 2.0.11 writes them."""

from collections import Counter
from pathlib import Path

import pytest

from broker_bridge.presence import Presence, Sign, concerns_delta, parse_line
from broker_bridge.topics import LOG_OF_SUBSCRIPTIONS

NOTICE = "$SYS/broker/log/N"
CONNECTED = "1790000000: New client connected from 127.0.0.1:40000 as th-1 (p5, c{}, k60, u'th-1')."


@pytest.mark.parametrize(("clean", "fresh"), [("1", True), ("0", False)], ids=["clean", "kept"])
def test_a_connect_line_tells_whether_the_session_is_fresh(clean, fresh):
    assert parse_line(CONNECTED.format(clean)) == Presence(
        Sign.CONNECTED, "th-1", fresh=fresh, address="127.0.0.1:40000"
    )


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
        "1790000000: Client th-1 been disconnected by administrative action.",
    ],
    ids=["disconnected", "closed", "timeout", "kicked"],
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


def recorded():
    """Topic and text of lines that Mosquitto 2.0.11 wrote."""
    path = Path(__file__).parents[1] / "vectors" / "broker_log_lines.txt"
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_of_what_the_broker_really_writes_each_sign_is_understood():
    signs = Counter(presence.sign for topic, line in recorded() if (presence := parse_line(line, topic)))
    said = [line for _, line in recorded()]
    ends = ("disconnect", "closed its connection", "has exceeded timeout")
    assert signs == {
        Sign.CONNECTED: sum("New client connected" in line and "svc." not in line for line in said),
        Sign.SUBSCRIBED: sum("log/M/subscribe" in topic and "svc." not in line for topic, line in recorded()),
        Sign.TAKEN_OVER: sum("already connected" in line for line in said),
        Sign.DISCONNECTED: sum(any(end in line for end in ends) and "<" not in line for line in said),
    }


def test_a_filter_that_looks_like_another_things_line_speaks_for_who_subscribed():
    filter = "x th-9 1 $aws/things/th-9/shadow/update/delta"
    presence = parse_line(f"1790000000: th-1 1 {filter}")
    assert presence == Presence(Sign.SUBSCRIBED, "th-1", filter=filter)
    assert not concerns_delta(filter, "th-1")
    assert parse_line(f"1790000000: svc.other 1 {filter}") is None


AMBIGUOUS = ["0", "1", "2", "Client", "disconnected", "New"]


@pytest.mark.parametrize("topic", [NOTICE, None], ids=["said", "in the file"])
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_said_of_a_thing_with_an_awkward_name_is_said_of_no_other(name, topic):
    connected = f"1790000000: New client connected from 127.0.0.1:4 as {name} (p5, c0, k60, u'{name}')."
    taken_over = f"1790000000: Client {name} already connected, closing old connection."
    assert parse_line(connected, topic) == Presence(Sign.CONNECTED, name, address="127.0.0.1:4")
    assert parse_line(f"1790000000: Client {name} disconnected.", topic) == Presence(Sign.DISCONNECTED, name)
    assert parse_line(taken_over, topic) == Presence(Sign.TAKEN_OVER, name)
    filter = f"$aws/things/{name}/shadow/update/delta"
    subscribed = Presence(Sign.SUBSCRIBED, name, filter=filter)
    assert parse_line(f"1790000000: {name} 1 {filter}", topic and LOG_OF_SUBSCRIPTIONS) == subscribed


@pytest.mark.parametrize(
    "filter",
    ["disconnected.", "already connected, closing old connection.", "closed its connection."],
)
def test_a_filter_that_looks_like_a_notice_is_one_only_to_who_reads_the_file(filter):
    line = f"1790000000: Client 1 {filter}"
    assert parse_line(line, LOG_OF_SUBSCRIPTIONS) == Presence(Sign.SUBSCRIBED, "Client", filter=filter)
    read = parse_line(line)
    assert read is not None
    assert (read.thing, read.filter) == ("1", None)


def test_a_notice_is_never_taken_for_a_subscription():
    assert parse_line("1790000000: th-1 1 #", NOTICE) is None
