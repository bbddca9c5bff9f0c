"""Things that do not read what they are sent: found by what the kernel says of their connections."""

import socket

import pytest
import structlog

from broker_bridge.presence import Presence, Sign
from broker_bridge.unread import KICKS_MAX, LOOKS_MAX, Unread, probed, read_sockets
from broker_bridge.watch import Cause, Sentence, Verdict
from tests.fakes import FakeClock

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
PORT = 8883
LINE = "   1: {local} {remote} {state} 003FEAC0:00000000 {timer}:0000008B 00000000     0        0 1 2 3\n"
ANY_V4, ANY_V6 = "00000000:22B3", "00000000000000000000000000000000:22B3"


def line(remote="0100007F:9EDC", *, local=ANY_V4, state="01", timer="04"):
    return LINE.format(local=local, remote=remote, state=state, timer=timer)


class Bench:
    """The finder over a warden that notes, and a kernel that says what it is told to."""

    def __init__(self):
        self.clock = FakeClock()
        self.verdicts = []
        self.heard = []
        self.began = []
        self.unread = Unread(PORT, self, self.clock, lambda: "")

    def judge(self, verdict):
        self.verdicts.append(verdict)

    def read(self, presence):
        self.heard.append(presence)

    def begin(self, presences):
        self.began.append(presences)

    def connects(self, thing, address="127.0.0.1:40668"):
        self.unread.read(Presence(Sign.CONNECTED, thing, address=address))

    def looks(self, *lines, times=1):
        for _ in range(times):
            self.unread.look(HEADER + "".join(lines))


@pytest.fixture
def bench():
    return Bench()


# ---------------------------------------------------------------------- what the kernel says


@pytest.mark.parametrize(
    ("remote", "local", "address"),
    [
        ("0100007F:9EDC", ANY_V4, "127.0.0.1:40668"),
        ("0501A8C0:0001", "0100007F:22B3", "192.168.1.5:1"),
        ("0000000000000000FFFF00000100007F:9EDC", ANY_V6, "::ffff:127.0.0.1:40668"),
        ("000080FE00000000FF005450B6AD1DFE:9EDC", ANY_V6, "fe80::5054:ff:fe1d:adb6:40668"),
    ],
)
def test_a_connection_that_is_probed_is_named_as_the_broker_names_it(remote, local, address):
    assert list(probed(HEADER + line(remote, local=local), PORT)) == [address]


@pytest.mark.parametrize(
    "other",
    [
        line(timer="00"),
        line(timer="01"),
        line(timer="02"),
        line(state="0A"),
        line(state="04"),
        line(local="00000000:22B4"),
        HEADER,
    ],
    ids=["idle", "retransmitting", "kept alive", "listening", "ending", "another port", "the header"],
)
def test_any_other_connection_is_none(other):
    assert list(probed(other, PORT)) == []


def test_what_this_machine_says_can_be_read():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f":{port:04X} " in read_sockets()
        assert list(probed(read_sockets(), port)) == []


def test_where_the_kernel_says_nothing_nobody_is_found(tmp_path):
    assert read_sockets([tmp_path / "none"]) == ""
    assert read_sockets([tmp_path]) == "", "one that may not be read"


# ---------------------------------------------------------------------- what follows


def test_who_reads_nothing_at_look_after_look_is_sent_away(bench):
    bench.connects("deaf")
    bench.connects("hall", "127.0.0.1:40000")
    bench.looks(line(), times=LOOKS_MAX - 1)
    assert bench.verdicts == []
    with structlog.testing.capture_logs() as logs:
        bench.looks(line())
    assert bench.verdicts == [Verdict(Sentence.KICK, "deaf", Cause.UNREAD)]
    assert [(log["event"], log["thing"]) for log in logs] == [("thing_does_not_read", "deaf")]


def test_one_look_at_which_it_has_read_begins_the_count_anew(bench):
    bench.connects("busy")
    for _ in range(5):
        bench.looks(line(), times=LOOKS_MAX - 1)
        bench.looks(line(timer="00"))
    assert bench.verdicts == []


def test_a_thing_that_comes_back_and_does_it_again_is_put_into_quarantine(bench):
    for number in range(KICKS_MAX + 1):
        bench.connects("deaf", f"127.0.0.1:{40_000 + number}")
        bench.looks(line(f"0100007F:{40_000 + number:04X}"), times=LOOKS_MAX)
        bench.clock.advance(60)
    assert [verdict.sentence for verdict in bench.verdicts] == [Sentence.KICK] * KICKS_MAX + [
        Sentence.QUARANTINE
    ]


def test_a_connection_of_nobody_that_is_known_is_left_alone(bench):
    bench.connects("hall")
    bench.unread.read(Presence(Sign.DISCONNECTED, "hall"))
    bench.looks(line(), times=2 * LOOKS_MAX)
    assert bench.verdicts == []
    assert bench.unread._addresses == {}


def test_the_warden_hears_all_that_is_heard_here(bench):
    signs = [
        Presence(Sign.CONNECTED, "hall", address="127.0.0.1:40668"),
        Presence(Sign.DISCONNECTED, "attic"),
    ]
    bench.unread.read(signs[0])
    bench.unread.begin(signs)
    assert (bench.heard, bench.began) == (signs[:1], [signs])
    assert bench.unread._addresses == {"hall": "127.0.0.1:40668"}
