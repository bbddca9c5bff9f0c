"""The topic table, read in every direction."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_bridge import topics
from broker_bridge.topics import (
    BRIDGE_ACL,
    CACHED_TOPICS_MAX,
    DEVICE_ACL,
    SHADOW_CHARS_MAX,
    SUBSCRIPTIONS,
    THING_CHARS_MAX,
    TOPIC_CHARS_MAX,
    TREES,
    Operation,
    Request,
    _parse,
    answer_base,
    parse,
)
from security.policy import Action
from shadow.document import ShadowId

ALPHABET = "abcxyzABCXYZ0189:_-"
things = st.text(ALPHABET, min_size=1, max_size=THING_CHARS_MAX)
shadows = st.text(ALPHABET, max_size=SHADOW_CHARS_MAX)


def request_topic(request: Request) -> str:
    """Spell a request the way the specification does, without looking at the table."""
    tree = f"gnomon/gateways/{request.gateway}/up" if request.gateway else "$aws"
    name = f"/name/{request.id.name}" if request.id.name else ""
    return f"{tree}/things/{request.id.thing}/shadow{name}/{request.operation.value}"


@given(st.sampled_from(Operation), things, shadows, st.none() | things)
def test_every_request_is_understood(operation, thing, name, gateway):
    request = Request(operation, ShadowId(thing, name), gateway)
    assert parse(request_topic(request)) == request


@given(things, shadows, st.none() | things)
def test_the_answer_base_is_a_row_of_the_table(thing, name, gateway):
    tree = TREES[1 if gateway else 0]
    named = f"/name/{name}" if name else ""
    expected = tree.answers.format(thing=thing, gateway=gateway) + "/shadow" + named
    assert answer_base(ShadowId(thing, name), gateway) == expected


@given(
    st.sampled_from(Operation),
    things,
    shadows,
    st.sampled_from(("accepted", "rejected", "delta", "documents")),
)
def test_no_answer_is_ever_taken_for_a_request(operation, thing, name, suffix):
    for gateway in (None, "g"):
        assert parse(f"{answer_base(ShadowId(thing, name), gateway)}/{operation.value}/{suffix}") is None


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "$aws",
        "$aws/things/lamp/shadow",
        "$aws/things/lamp/shadow/",
        "$aws/things/lamp/shadow/patch",
        "$aws/things/lamp/shadow/GET",
        "$aws/things/lamp/shadow/get/",
        "$aws/things/lamp/shadow/get\n",
        "\n$aws/things/lamp/shadow/get",
        "/$aws/things/lamp/shadow/get",
        "aws/things/lamp/shadow/get",
        "$aws/things//shadow/get",
        "$aws/things/lamp/shadow/name/get",
        "$aws/things/lamp/shadow/name//get",
        "$aws/things/lamp/shadow/name/a/b/get",
        "$aws/things/lamp/shadow/names/a/get",
        "$aws/things/la mp/shadow/get",
        "$aws/things/la.mp/shadow/get",
        "$aws/things/la/mp/shadow/get",
        "$aws/things/la+mp/shadow/get",
        "$aws/things/#/shadow/get",
        "$aws/things/+/shadow/get",
        "$aws/things/lämp/shadow/get",
        "$aws/things/l\u0661mp/shadow/get",
        "$aws/things/$lamp/shadow/get",
        "$aws/things/lamp/jobs/get",
        "gnomon/gateways/g/up",
        "gnomon/gateways/g/up/batch",
        "gnomon/gateways/g/up/things/lamp",
        "gnomon/gateways/g/down/things/lamp/shadow/get",
        "gnomon/gateways//up/things/lamp/shadow/get",
        "gnomon/gateways/g.1/up/things/lamp/shadow/get",
        "gnomon/gateways/g/up/things/la.mp/shadow/get",
        "gnomon/gateways/g/up/things/lamp/shadow/name/$x/get",
        "$SYS/broker/log/N",
    ],
)
def test_what_is_no_request_is_none(topic):
    assert parse(topic) is None


def test_a_dollar_sign_in_a_shadow_name_is_refused():
    assert parse("$aws/things/lamp/shadow/name/$package/update") is None
    assert parse("$aws/things/lamp/shadow/name/package/update") is not None


@pytest.mark.parametrize("prefix", ["$aws/things/{}/shadow/get", "gnomon/gateways/{}/up/things/a/shadow/get"])
def test_a_name_of_128_characters_is_a_thing_and_one_of_129_is_not(prefix):
    assert parse(prefix.format("t" * 128)) is not None
    assert parse(prefix.format("t" * 129)) is None


def test_a_name_of_64_characters_is_a_shadow_and_one_of_65_is_not():
    assert parse(f"$aws/things/lamp/shadow/name/{'s' * 64}/get") is not None
    assert parse(f"$aws/things/lamp/shadow/name/{'s' * 65}/get") is None


def test_the_longest_request_is_understood():
    longest = Request(Operation.UPDATE, ShadowId("t" * 128, "s" * 64), "g" * 128)
    topic = request_topic(longest)
    assert len(topic) == TOPIC_CHARS_MAX
    assert parse(topic) == longest


def test_a_topic_too_long_for_a_request_is_not_remembered():
    before = _parse.cache_info().currsize
    assert parse("gnomon/gateways/g/up/" + "x" * TOPIC_CHARS_MAX) is None
    assert _parse.cache_info().currsize == before


def test_what_is_remembered_is_bounded():
    assert _parse.cache_info().maxsize == CACHED_TOPICS_MAX


def test_the_bridge_subscribes_to_what_the_specification_lists():
    assert set(SUBSCRIPTIONS) == {
        "$aws/things/+/shadow/get",
        "$aws/things/+/shadow/update",
        "$aws/things/+/shadow/delete",
        "$aws/things/+/shadow/name/+/get",
        "$aws/things/+/shadow/name/+/update",
        "$aws/things/+/shadow/name/+/delete",
        "gnomon/gateways/+/up/#",
    }


def test_a_device_may_use_exactly_the_topics_the_specification_lists():
    # Jobs and streams (spec shadow 13) come with the service that answers them.
    assert set(DEVICE_ACL) == {
        "pattern write $aws/things/%u/shadow/get",
        "pattern write $aws/things/%u/shadow/update",
        "pattern write $aws/things/%u/shadow/delete",
        "pattern read $aws/things/%u/shadow/get/+",
        "pattern read $aws/things/%u/shadow/update/+",
        "pattern read $aws/things/%u/shadow/delete/+",
        "pattern write $aws/things/%u/shadow/name/+/get",
        "pattern write $aws/things/%u/shadow/name/+/update",
        "pattern write $aws/things/%u/shadow/name/+/delete",
        "pattern read $aws/things/%u/shadow/name/+/get/+",
        "pattern read $aws/things/%u/shadow/name/+/update/+",
        "pattern read $aws/things/%u/shadow/name/+/delete/+",
        "pattern write gnomon/gateways/%u/up/#",
        "pattern read gnomon/gateways/%u/down/#",
    }


def test_nobody_may_both_read_and_write_a_topic():
    for lines in (DEVICE_ACL, BRIDGE_ACL):
        assert not any("readwrite" in line for line in lines)
        topics = [line.split(" ")[2] for line in lines]
        assert len(set(topics)) == len(topics)


def test_what_a_device_writes_the_bridge_reads_and_the_reverse():
    turned = {"read": "write", "write": "read"}
    for device, bridge in zip(DEVICE_ACL, BRIDGE_ACL, strict=True):
        _, access, topic = device.split(" ")
        assert bridge == f"topic {turned[access]} {topic.replace('%u', '+')}"


def test_every_request_names_an_action_that_somebody_is_granted():
    topics.refuse_unguarded()
    for gateway in (None, "gw"):
        actions = [topics.action_of(Request(one, ShadowId("hall"), gateway)) for one in Operation]
        assert actions == [Action.SHADOW_READ, Action.SHADOW_REPORT, Action.SHADOW_DELETE]


@pytest.mark.parametrize(
    "actions", [{}, {Operation.GET: Action.SHADOW_READ}, dict.fromkeys(Operation, Action.OPEN)]
)
def test_a_row_without_such_an_action_stops_the_start(actions):
    with pytest.raises(topics.UnguardedTopicError, match="name an action"):
        topics.refuse_unguarded([*topics.TREES, replace(topics.OWN, actions=actions)])
