"""What on the broker is not honest, by counting."""

import pytest

from broker_bridge.presence import Presence, Sign
from broker_bridge.watch import (
    CONNECTIONS_MAX,
    FOREIGN_MAX,
    TAKEOVERS_MAX,
    WINDOW_S,
    Cause,
    Rate,
    Sentence,
    Verdict,
    Watch,
    is_own,
)

KICK, QUARANTINE = Sentence.KICK, Sentence.QUARANTINE


def subscribes(filter, thing="hall"):
    return Presence(Sign.SUBSCRIBED, thing, filter=filter)


def connects(thing="hall", *, fresh=True):
    return Presence(Sign.CONNECTED, thing, fresh=fresh)


def leaves(thing="hall"):
    return Presence(Sign.DISCONNECTED, thing)


TAKEN_OVER = Presence(Sign.TAKEN_OVER, "hall")


@pytest.mark.parametrize(
    ("filter", "own"),
    [
        ("$aws/things/hall/shadow/update/delta", True),
        ("$aws/things/hall/shadow/name/+/update/+", True),
        ("$aws/things/hall/#", True),
        ("$aws/things/hall/jobs/notify", True),
        ("gnomon/gateways/hall/down/#", True),
        ("#", False),
        ("+/#", False),
        ("$aws/#", False),
        ("$aws/things/+/shadow/update/+", False),
        ("$aws/things/#", False),
        ("$aws/things/other/shadow/update/delta", False),
        ("$aws/things/hall-2/shadow/update/delta", False),
        ("$aws/things/hall", False),
        ("$share/group/$aws/things/hall/#", False),
        ("$SYS/broker/log/N", False),
        ("$CONTROL/#", False),
        ("gnomon/gateways/+/down/#", False),
        ("gnomon/gateways/other/down/#", False),
        ("somewhere/else", False),
        ("x hall 1 $aws/things/hall/#", False),
    ],
)
def test_only_what_lies_below_its_own_name_is_a_things_own(filter, own):
    assert is_own(filter, "hall") is own
    verdict = Watch().read(subscribes(filter), 0)
    assert verdict == (None if own else Verdict(KICK, "hall", Cause.FOREIGN, filter))


def test_many_foreign_filters_on_one_connection_are_one_offence():
    watch = Watch()
    watch.read(connects(), 0)
    verdicts = [watch.read(subscribes(f"#{number}"), 0) for number in range(20)]
    assert [verdict for verdict in verdicts if verdict] == [Verdict(KICK, "hall", Cause.FOREIGN, "#0")]


def test_who_does_it_again_and_again_comes_into_quarantine():
    watch, sentences = Watch(), []
    for number in range(FOREIGN_MAX + 1):
        watch.read(connects(), number)
        verdict = watch.read(subscribes("#"), number)
        assert verdict is not None
        sentences.append(verdict.sentence)
        watch.read(leaves(), number)
    assert sentences == [KICK] * FOREIGN_MAX + [QUARANTINE]


def test_now_and_then_is_no_quarantine():
    watch = Watch()
    for number in range(4 * FOREIGN_MAX):
        watch.read(connects(), number * WINDOW_S / FOREIGN_MAX)
        verdict = watch.read(subscribes("#"), number * WINDOW_S / FOREIGN_MAX)
        assert verdict is not None
        assert verdict.sentence is KICK


def test_a_session_that_is_kept_keeps_its_foreign_subscription_and_is_ended_again():
    watch = Watch()
    watch.read(connects(fresh=False), 0)
    watch.read(subscribes("#"), 0)
    watch.read(leaves(), 1)
    assert watch.read(connects(fresh=False), 2) == Verdict(KICK, "hall", Cause.FOREIGN, "#")
    watch.read(leaves(), 3)
    assert watch.read(connects(fresh=True), 4) is None
    watch.read(leaves(), 5)
    assert watch.read(connects(fresh=False), 6) is None


def test_two_who_throw_each_other_off_come_into_quarantine():
    watch = Watch()
    verdicts = [watch.read(TAKEN_OVER, number) for number in range(TAKEOVERS_MAX + 1)]
    assert verdicts == [None] * TAKEOVERS_MAX + [Verdict(QUARANTINE, "hall", Cause.CLONED)]


def test_a_bad_line_takes_over_its_own_session_now_and_then():
    watch = Watch()
    assert not any(watch.read(TAKEN_OVER, number * WINDOW_S / TAKEOVERS_MAX) for number in range(20))


def test_who_connects_again_and_again_comes_into_quarantine():
    watch = Watch()
    verdicts = [watch.read(connects(), number) for number in range(CONNECTIONS_MAX + 1)]
    assert verdicts == [None] * CONNECTIONS_MAX + [Verdict(QUARANTINE, "hall", Cause.FLAPPING)]


def test_others_are_counted_apart():
    watch = Watch()
    for number in range(CONNECTIONS_MAX):
        assert watch.read(connects("a"), number) is None
        assert watch.read(connects("b"), number) is None


def test_our_own_canaries_may_sing():
    watch = Watch()
    for number in range(100):
        watch.read(connects("gnomon-canary-1"), number)
        assert watch.read(subscribes("#", "gnomon-canary-1"), number) is None


# ---------------------------------------------------------------------- after the broker was lost


def test_what_the_log_says_again_counts_once():
    watch = Watch()
    for number in range(TAKEOVERS_MAX):
        watch.read(TAKEN_OVER, number)
    assert watch.begin([TAKEN_OVER] * 50 + [connects()] * 50, 5) == []
    assert watch.read(TAKEN_OVER, 6) is None


def test_who_holds_a_foreign_subscription_now_is_found_and_who_left_is_not():
    watch = Watch()
    signs = [
        connects("gone"), subscribes("#", "gone"), leaves("gone"),
        connects("back"), subscribes("#", "back"), leaves("back"), connects("back", fresh=True),
        connects("kept"), subscribes("#", "kept"), leaves("kept"), connects("kept", fresh=False),
        connects("there"), subscribes("$SYS/#", "there"),
        connects("honest"), subscribes("$aws/things/honest/#", "honest"),
    ]  # fmt: skip
    found = watch.begin(signs, 0)
    assert [(verdict.sentence, verdict.thing) for verdict in found] == [(KICK, "kept"), (KICK, "there")]


# ---------------------------------------------------------------------- bounds


def test_a_counter_forgets_who_was_quiet_longest():
    rate = Rate(1, names_max=2)
    for name in ("a", "b", "a", "c"):
        rate.exceeded(name, 0)
    assert len(rate) == 2
    assert not rate.exceeded("b", 0)
    assert rate.exceeded("c", 0)


def test_after_a_verdict_it_is_counted_anew():
    rate = Rate(1)
    assert [rate.exceeded("a", 0) for _ in range(4)] == [False, True, False, True]
