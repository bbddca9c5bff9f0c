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
    JobRequest,
    Operation,
    Request,
    StreamOperation,
    StreamRequest,
    _parse,
    answer_base,
    answers_base,
    jobs_base,
    parse,
    parse_firmware,
)
from ota.job_requests import JobOperation
from security.policy import Action
from shadow.document import ShadowId

ALPHABET = "abcxyzABCXYZ0189:_-"
things = st.text(ALPHABET, min_size=1, max_size=THING_CHARS_MAX)
shadows = st.text(ALPHABET, max_size=SHADOW_CHARS_MAX)
levels = st.text(ALPHABET + "$. ü", min_size=1, max_size=44)


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


# ---------------------------------------------------------------------- jobs and streams


def below(thing: str, gateway: str | None) -> str:
    return f"gnomon/gateways/{gateway}/up/things/{thing}" if gateway else f"$aws/things/{thing}"


@given(things, st.none() | things, levels)
def test_every_request_about_jobs_is_understood_and_knows_where_it_is_answered(thing, gateway, job):
    answers = f"gnomon/gateways/{gateway}/down/things/{thing}" if gateway else f"$aws/things/{thing}"
    for rest, request in {
        "get": JobRequest(JobOperation.LIST, thing, gateway=gateway),
        "start-next": JobRequest(JobOperation.START_NEXT, thing, gateway=gateway),
        f"{job}/get": JobRequest(JobOperation.GET, thing, job, gateway),
        f"{job}/update": JobRequest(JobOperation.UPDATE, thing, job, gateway),
        "$next/get": JobRequest(JobOperation.GET, thing, "$next", gateway),
    }.items():
        assert parse_firmware(f"{below(thing, gateway)}/jobs/{rest}") == request
        assert request.answers == f"{answers}/jobs/{rest}"
        assert parse_firmware(f"{request.answers}/accepted") is None


@given(st.sampled_from(StreamOperation), things, st.none() | things, levels, levels)
def test_every_request_for_a_file_is_understood(operation, thing, gateway, stream, format):
    topic = f"{below(thing, gateway)}/streams/{stream}/{operation.value}/{format}"
    request = StreamRequest(operation, thing, stream, format, gateway)
    assert parse_firmware(topic) == request
    assert request.base == f"{answers_base(thing, gateway)}/streams/{stream}"
    assert parse_firmware(f"{request.base}/data/{format}") is None


@given(things, st.none() | things)
def test_what_is_below_answers_is_a_row_of_the_table(thing, gateway):
    tree = TREES[1 if gateway else 0]
    assert answers_base(thing, gateway) == tree.answers.format(thing=thing, gateway=gateway)
    assert jobs_base(thing, gateway) == answers_base(thing, gateway) + "/jobs"


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/things/lamp/jobs",
        "$aws/things/lamp/jobs/",
        "$aws/things/lamp/jobs/notify",
        "$aws/things/lamp/jobs//get",
        "$aws/things/lamp/jobs/a/b/get",
        "$aws/things/lamp/jobs/a/delete",
        "$aws/things/lamp/jobs/get/",
        "$aws/things/la.mp/jobs/get",
        "$aws/things//jobs/get",
        "$aws/things/lamp/streams/fw-0/get",
        "$aws/things/lamp/streams//get/cbor",
        "$aws/things/lamp/streams/fw-0/get/",
        "$aws/things/lamp/streams/fw-0/put/cbor",
        "$aws/things/lamp/streams/fw-0/get/cbor/x",
        "$aws/things/lamp/shadow/get",
        "gnomon/gateways/g/down/things/lamp/jobs/get",
        "gnomon/gateways/g/up/jobs/get",
        "gnomon/gateways//up/things/lamp/jobs/get",
        "$aws/things/lamp/jobs/" + "j" * TOPIC_CHARS_MAX + "/get",
        "$SYS/broker/log/N",
        "",
    ],
)
def test_what_is_no_request_about_firmware_is_none(topic):
    assert parse_firmware(topic) is None


def test_requests_for_blocks_push_no_shadow_out_of_what_is_remembered():
    before = _parse.cache_info()
    assert parse("$aws/things/lamp/streams/fw-0/get/cbor") is None
    assert _parse.cache_info() == before


def test_the_bridge_subscribes_to_what_the_specification_lists():
    assert set(SUBSCRIPTIONS) == {
        "$aws/things/+/shadow/get",
        "$aws/things/+/shadow/update",
        "$aws/things/+/shadow/delete",
        "$aws/things/+/shadow/name/+/get",
        "$aws/things/+/shadow/name/+/update",
        "$aws/things/+/shadow/name/+/delete",
        "$aws/things/+/jobs/get",
        "$aws/things/+/jobs/start-next",
        "$aws/things/+/jobs/+/get",
        "$aws/things/+/jobs/+/update",
        "$aws/things/+/streams/+/describe/+",
        "$aws/things/+/streams/+/get/+",
        "gnomon/gateways/+/up/#",
    }


def test_a_device_may_use_exactly_the_topics_the_specification_lists():
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
        "pattern write $aws/things/%u/jobs/get",
        "pattern write $aws/things/%u/jobs/start-next",
        "pattern write $aws/things/%u/jobs/+/get",
        "pattern write $aws/things/%u/jobs/+/update",
        "pattern read $aws/things/%u/jobs/get/+",
        "pattern read $aws/things/%u/jobs/start-next/+",
        "pattern read $aws/things/%u/jobs/+/get/+",
        "pattern read $aws/things/%u/jobs/+/update/+",
        "pattern read $aws/things/%u/jobs/notify",
        "pattern read $aws/things/%u/jobs/notify-next",
        "pattern write $aws/things/%u/streams/+/describe/+",
        "pattern write $aws/things/%u/streams/+/get/+",
        "pattern read $aws/things/%u/streams/+/description/+",
        "pattern read $aws/things/%u/streams/+/data/+",
        "pattern read $aws/things/%u/streams/+/rejected/+",
    }


def test_the_broker_finds_the_lines_of_shadows_first():
    places = [("/shadow" in line or "gateways" in line) for line in DEVICE_ACL]
    assert places == sorted(places, reverse=True)


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
        jobs = {one: topics.action_of(JobRequest(one, "hall", "j", gateway)) for one in JobOperation}
        assert jobs == {
            JobOperation.LIST: Action.JOB_READ,
            JobOperation.START_NEXT: Action.JOB_EXECUTE,
            JobOperation.GET: Action.JOB_READ,
            JobOperation.UPDATE: Action.JOB_EXECUTE,
        }
        files = {topics.action_of(StreamRequest(one, "hall", "s", "f", gateway)) for one in StreamOperation}
        assert files == {Action.IMAGE_READ}


@pytest.mark.parametrize(
    "actions",
    [
        {},
        {Operation.GET: Action.SHADOW_READ},
        dict.fromkeys(Operation, Action.OPEN),
        dict.fromkeys(Operation, Action.SHADOW_READ),
    ],
)
def test_a_row_without_such_an_action_stops_the_start(actions):
    with pytest.raises(topics.UnguardedTopicError, match="name an action"):
        topics.refuse_unguarded([*topics.TREES, replace(topics.OWN, actions=actions)])
