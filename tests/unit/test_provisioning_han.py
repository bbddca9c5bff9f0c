"""The `han` shadow: whatever a gateway reports is read, and nothing of it is believed to be well formed."""

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from provisioning import han

EUI64 = "00124B0014B5D2A1"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def example() -> dict[str, Any]:
    """Return the document that the page for device makers shows."""
    text = PAGE.read_text(encoding="utf-8").partition("home area network\n")[2]
    found: dict[str, Any] = msgspec.json.decode(text.partition("```json\n")[2].partition("```")[0])
    return found


DOCUMENT = example()

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80)
trees = st.dictionaries(
    st.sampled_from(["net", "capacity", "permitJoin", "grants", "seen", "attach", EUI64, "state", "seq"]),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([EUI64, "dev-7f3", "state", "seq", "auth", "caps", "at", "epoch", "eui64"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
)


def read(document=DOCUMENT):
    return han.read(document["desired"], document["reported"])


def test_the_example_for_device_makers_is_read_whole():
    report = read()
    assert report.net == han.Net("NORMAL", "zigbee-se1")
    assert report.room == han.Room(10, 4, 8, 2)
    assert report.window == han.Join(12, 1790000600, "grants", open=True, seal_key="BKx2")
    assert report.wanted_window == han.Join(12, 1790000600, "grants")
    assert report.wanted_grants == {EUI64: "g-81"}
    assert report.seen[EUI64].caps == ("price", "load.offset")
    assert report.attached["dev-7f3"].online
    assert report.seq == 12


@given(trees, trees)
def test_whatever_is_reported_is_read_without_an_error(desired, reported):
    report = han.read(desired, reported)
    assert all(han.is_eui64(eui64) for eui64 in report.seen)
    assert len(report.seen) <= han.SEEN_MAX
    assert report.seq >= 0


def test_what_is_no_eui64_or_has_no_sensible_words_is_not_seen_as_such():
    reported = {
        "seen": {"00124b0014b5d2a1": {}, "x": {}, EUI64: {"maker": 7, "model": "a" * 65, "fw": "\x00b"}}
    }
    (seen,) = han.read({}, reported).seen.values()
    assert (seen.eui64, seen.maker, seen.model, seen.fw) == (EUI64, "", "", "b")


def test_a_closed_window_takes_its_grants_along_and_leaves_the_attachments():
    desired = DOCUMENT["desired"]
    after = {**desired, **han.close_window()["desired"]}
    assert {name for name, value in after.items() if value is not None} == {"attach"}


def test_a_new_grant_forgets_what_was_said_of_the_last_one():
    patch = han.grant(EUI64, "g-82", "install_code", "sealed", 1790000600)
    assert patch["reported"] == {"seen": {EUI64: {"auth": None}}}
    assert patch["desired"]["grants"][EUI64]["id"] == "g-82"


def test_an_attachment_goes_in_two_steps_and_leaves_both_sections():
    gone = {
        "desired": {
            "attach": {"dev-7f3": {"state": "gone"}, "dev-8": {"state": "gone"}, "dev-9": {"state": "on"}}
        },
        "reported": {"attach": {"dev-7f3": {"state": "on"}}},
    }
    assert han.finished(read(gone)) == ("dev-8",)
    gone["reported"]["attach"]["dev-7f3"]["state"] = "gone"
    assert han.finished(read(gone)) == ("dev-7f3", "dev-8")
    assert han.clear("dev-7f3") == {
        "desired": {"attach": {"dev-7f3": None}},
        "reported": {"attach": {"dev-7f3": None}},
    }
