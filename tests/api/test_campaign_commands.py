"""``gnomon campaign`` against a service that runs: two operators, a fleet, and progress as it happens."""

import asyncio
import re
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from rich.console import Console

from api import campaigns as served_campaigns
from gnomon import following
from gnomon.access import Access
from gnomon.cli import main
from gnomon.commands import campaign_view
from gnomon.refusals import unreachable
from ota.states import ExecutionTrigger as Do
from tests import ota_base as base
from tests.api.campaigns import Fleet, fleet
from tests.api.rig import HALL, Rig
from tests.api.served import Run, Served, served
from tests.covers import covers
from tests.fakes import FakeClock

NAMES = [f"han-{number}" for number in range(4)]
PATIENCE_S = 20


class Inside:
    """The service from within: devices that do something while commands run."""

    def __init__(self) -> None:
        self.fleet: Fleet
        self._loop: asyncio.AbstractEventLoop

    async def prepare(self, rig: Rig) -> None:
        self._loop = asyncio.get_running_loop()
        self.fleet = await fleet(rig)
        await self.fleet.add(NAMES)

    def does(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def step(self, id: str, things: list[str], *triggers: Do, **changes: Any) -> None:
        self.does(self.fleet.step(id, things, *triggers, **changes))


@pytest.fixture
def inside() -> Inside:
    return Inside()


@pytest.fixture
def where(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(served_campaigns, "TELL_S", 0.02)
    clock = FakeClock(base.NOW_S * 1_000)
    with served(tmp_path, demo=True, things=(HALL,), clock=clock, prepare=inside.prepare) as where:
        yield where


@pytest.fixture
def first(files: Path) -> tuple[str, str]:
    return "--as", str(files / "operator.toml")


@pytest.fixture
def second(files: Path) -> tuple[str, str]:
    return "--as", str(files / "operator-2.toml")


def id_in(told: str) -> str:
    return told.split(maxsplit=1)[0]


def lines_of(result: Result) -> list[str]:
    """Return what a command told, without what the service in this process logs meanwhile."""
    return [line for line in result.stdout.splitlines() if "[info " not in line]


@pytest.fixture
def running(run: Run, inside: Inside, first: tuple[str, str], second: tuple[str, str]) -> str:
    """Return a campaign whose devices were offered their image."""
    id = id_in(
        run("campaign", "create", inside.fleet.release, "--wave", "100%", "--soak", "0", *first).stdout
    )
    run("campaign", "submit", id, *first)
    run("campaign", "approve", id, *second)
    for _ in range(3):
        inside.does(inside.fleet.tick())
    return id


class Watching:
    """``gnomon campaign watch`` at work; ``lines`` grow as it tells."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
        self.lines = list[str]()
        self.exit_code: int | None = None
        self._told = threading.Condition()
        monkeypatch.setattr(click, "echo", self._put)
        self._arguments = arguments
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def until(self, word: str) -> str:
        """Return the first line that holds a word."""
        with self._told:
            assert self._told.wait_for(lambda: any(word in line for line in self.lines), PATIENCE_S), (
                self.lines
            )
        return next(line for line in self.lines if word in line)

    def ended(self) -> int | None:
        self._thread.join(PATIENCE_S)
        return self.exit_code

    def _put(self, text: object = "", **_: Any) -> None:
        with self._told:
            self.lines.append(str(text))
            self._told.notify_all()

    def _watch(self) -> None:
        result = CliRunner().invoke(main, ["campaign", "watch", *self._arguments])
        self.exit_code = result.exit_code


# From the draft to the end


@covers("S3.1-s", "I3FR7")
def test_one_operator_prepares_a_campaign_and_another_lets_it_begin(
    run: Run, inside: Inside, first: tuple[str, str], second: tuple[str, str]
):
    made = run("campaign", "create", inside.fleet.release, "--notes", "the spring one", *first)
    id = id_in(made.stdout)
    assert made.stdout.split() == [id, "DRAFT"]
    looked = lines_of(run("campaign", "dry-run", id, *first))
    assert looked[0].split() == ["4", "get", "it"]
    assert looked[-2] == "wave 4: 4 devices, those before it included"
    assert looked[-1].startswith("done by 2026-")
    frozen = run("campaign", "submit", id, "--note", "as agreed", *first)
    assert frozen.stdout.split() == [id, "FROZEN", "4", "devices", "revision", "1"]
    assert f"waits for a second person: gnomon campaign approve {id}" in frozen.output
    own = run("campaign", "approve", id, *first, ok=False).output
    assert "Let somebody do it who wrote none of it." in own
    stale = run("campaign", "approve", id, "--revision", "2", *second, ok=False).output
    assert "what was submitted last is revision 1" in stale
    begun = run("campaign", "approve", id, "--revision", "1", "--note", "tried at home", *second).stdout
    assert "devices   4, by path remote, data: preserve" in begun
    assert "waves     10, 1 %, 10 %, 50 %, 100 % (each watched for 900 s)" in begun
    assert "notes     the spring one" in begun
    for _ in range(3):
        inside.does(inside.fleet.tick())
    (line,) = lines_of(run("campaign", "list", "--state", "RUNNING", *first))
    assert line.split() == [id, "RUNNING", "0/4", inside.fleet.release, "the", "spring", "one"]
    shown = run("campaign", "show", id, *second).stdout
    assert "approved by p-" in shown
    assert "RUNNING  0 of 4 done, wave 0" in shown
    assert "waiting  4" in shown


@covers("I3NFR4", "I3NFR5")
def test_progress_is_shown_as_it_happens_until_all_is_done(
    running: str, inside: Inside, first: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    watching = Watching(monkeypatch, running, *first)
    assert watching.until("4 waiting").split()[:4] == ["RUNNING", "wave", "0", "0/4"]
    inside.step(running, NAMES[:2], Do.START)
    watching.until("2 active")
    inside.step(running, NAMES[:2], Do.CONFIRM, Do.SUCCEED)
    watching.until("2/4")
    inside.step(running, NAMES[2:], Do.START, Do.CONFIRM, Do.SUCCEED)
    inside.does(inside.fleet.tick())
    assert watching.until("COMPLETED").split()[3:] == ["4/4", "4", "SUCCEEDED"]
    assert watching.ended() == 0


def test_a_watch_outlives_a_service_that_is_away_for_a_while(
    running: str, inside: Inside, first: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    stream, cuts = Access.stream, [httpx.ConnectError("no"), httpx.ReadError("cut")]

    def cut(self: Access, path: str, fields: Any, **more: Any) -> Any:
        if "Last-Event-ID" in fields and cuts:
            raise unreachable("http://gnomon", cuts.pop())
        return stream(self, path, fields, **more)

    monkeypatch.setattr(Access, "stream", cut)
    broken = following.events

    def short(lines: Any) -> Any:
        yield next(broken(lines))

    monkeypatch.setattr(following, "events", short)
    watching = Watching(monkeypatch, running, *first)
    watching.until("4 waiting")
    for thing in NAMES:
        inside.step(running, [thing], Do.START)
        inside.step(running, [thing], Do.CONFIRM, Do.SUCCEED)
    inside.does(inside.fleet.tick())
    watching.until("COMPLETED")
    assert watching.ended() == 0
    assert cuts == []
    assert len(set(watching.lines)) == len(watching.lines)


def test_a_watch_ends_where_people_have_to_look_and_says_why(
    running: str, inside: Inside, first: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    inside.fleet.rig.clock.advance(1)
    inside.step(running, NAMES[:1], Do.START, Do.FAIL, reason="self_test")
    inside.does(inside.fleet.tick())
    watching = Watching(monkeypatch, running, *first)
    assert watching.until("PAUSED").endswith("1 FAILED  canary_bad")
    assert watching.ended() == 3


def test_stopping_takes_a_reason_and_one_person(
    run: Run, running: str, inside: Inside, first: tuple[str, str]
):
    assert "--note" in run("campaign", "abort", running, *first, ok=False).output
    assert "PAUSED" in run("campaign", "pause", running, "--note", "a look", *first).stdout
    assert "RUNNING" in run("campaign", "resume", running, "--note", "looked", *first).stdout
    assert "ABORTED" in run("campaign", "abort", running, "--note", "it beeps", *first).stdout
    inside.does(inside.fleet.tick())
    over = run("campaign", "watch", running, *first, ok=False)
    assert over.exit_code == 1
    assert lines_of(over)[-1].split() == [
        "ABORTED", "wave", "0", "4/4", "4", "CANCELED", "it", "beeps"
    ]  # fmt: skip
    assert "4 CANCELED" in run("campaign", "watch", running, *first, ok=False).stdout


def test_what_others_wrote_does_nothing_to_the_terminal_that_shows_it(
    run: Run, running: str, first: tuple[str, str], second: tuple[str, str]
):
    run("campaign", "pause", running, "--note", "\x1b]0;mine\x07\x1b[2Jlook\nRUNNING \x9b31m", *second)
    shown = run("campaign", "show", running, *first).stdout
    assert "look" in shown
    assert not set("\x1b\x07\x9b") & set(shown)
    assert not any(line.startswith("RUNNING") for line in shown.splitlines())


def test_an_approver_signs_the_order_with_a_key_of_their_own(
    run: Run, inside: Inside, first: tuple[str, str], second: tuple[str, str], tmp_path: Path
):
    key = tmp_path / "mine.key"
    key.write_bytes(
        base.UTILITY_KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
    unknown = tmp_path / "unknown.key"
    run("image", "keygen", str(unknown))
    id = id_in(run("campaign", "create", inside.fleet.release, *first).stdout)
    early = run("campaign", "approve", id, "--key", str(key), *second, ok=False).output
    assert "there is no order here that waits for a signature" in early
    run("campaign", "submit", id, *first)
    refused = run("campaign", "approve", id, "--key", str(unknown), *second, ok=False).output
    assert "V2 key_unknown" in refused
    assert "APPROVED" in run("campaign", "approve", id, "--key", str(key), *second).stdout


# Drafts and targets


def test_what_a_file_says_and_what_options_say_is_one_draft(
    run: Run, inside: Inside, first: tuple[str, str], tmp_path: Path
):
    terms = tmp_path / "night.toml"
    terms.write_text(
        'data = "reset"\nretries = 0\nstart_at = 2026-09-22T20:00:00Z\n'
        'windows = [{ start = "22:00", end = "05:30" }]\n[thresholds]\nleast = 40\n'
    )
    options = (
        "--terms",
        str(terms),
        "--wave",
        "5",
        "--wave",
        "50%",
        "--thing",
        NAMES[0],
        "--data",
        "preserve",
    )
    id = id_in(run("campaign", "create", inside.fleet.release, *options, *first).stdout)
    shown = run("campaign", "show", id, *first).stdout
    assert "data: preserve" in shown
    assert "waves     5, 50 % " in shown
    assert "windows   22:00-05:30" in shown
    assert "starts    2026-09-22T20:00:00.000Z" in shown
    assert "1  get it" in run("campaign", "dry-run", id, *first).stdout
    run("campaign", "edit", id, "--window", "01:00-02:00", "--per-hour", "720", *first)
    edited = run("campaign", "show", id, *first).stdout
    assert "windows   01:00-02:00" in edited
    assert "pace      720 an hour" in edited
    assert "waves     5, 50 % " in edited
    run("campaign", "delete", id, *first)
    assert run("campaign", "list", *first).stdout == ""


def test_an_edit_that_changes_nothing_leaves_what_was_submitted_alone(
    run: Run, inside: Inside, first: tuple[str, str]
):
    id = id_in(run("campaign", "create", inside.fleet.release, "--submit", *first).stdout)
    assert "say what is to change" in run("campaign", "edit", id, *first, ok=False).output
    assert "FROZEN" in run("campaign", "list", *first).stdout


def test_what_a_file_pins_stays_pinned_beside_options_that_say_which_devices(
    run: Run, inside: Inside, first: tuple[str, str], tmp_path: Path
):
    terms = tmp_path / "pinned.toml"
    terms.write_text(f'[selector]\npinned = ["{NAMES[0]}"]\n')
    named = ("--thing", NAMES[0], "--thing", NAMES[1])
    id = id_in(run("campaign", "create", inside.fleet.release, "--terms", str(terms), *named, *first).stdout)
    told = run("campaign", "dry-run", id, *first).stdout
    assert "1  get it" in told
    assert "1  not: PINNED" in told


def test_hours_are_shown_with_their_days_and_with_when_devices_activate(
    run: Run, inside: Inside, first: tuple[str, str], tmp_path: Path
):
    terms = tmp_path / "ahead.toml"
    terms.write_text(
        "prestage = true\nactivate_at = 2026-09-22T20:00:00Z\n"
        'windows = [{ start = "22:00", end = "05:30", days = ["fri", "mon"] }]\n'
        'activation_windows = [{ start = "01:00", end = "02:00" }]\n'
    )
    id = id_in(run("campaign", "create", inside.fleet.release, "--terms", str(terms), *first).stdout)
    shown = run("campaign", "show", id, *first).stdout
    assert "windows   22:00-05:30 mon fri" in shown
    assert "activates 2026-09-22T20:00:00.000Z 01:00-02:00" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--wave", "many"), "a number of devices"),
        (("--window", "22:00"), "two times of the day"),
        (("--window", "22:00-25:00"), "refused (400)"),
        (("--wave", "0"), "waves: each a number of devices"),
    ],
)
def test_what_cannot_be_is_told(
    run: Run, inside: Inside, first: tuple[str, str], options: tuple[str, ...], said: str
):
    told = run("campaign", "create", inside.fleet.release, *options, *first, ok=False).output
    assert said in told


def test_a_time_without_an_offset_is_asked_for_again(
    run: Run, inside: Inside, first: tuple[str, str], tmp_path: Path
):
    terms = tmp_path / "night.toml"
    for text, said in (("start_at = 2026-09-22T20:00:00", "say the offset too"), ("retries =", "night.toml")):
        terms.write_text(text)
        create = ("campaign", "create", inside.fleet.release, "--terms", str(terms))
        assert said in run(*create, *first, ok=False).output


def test_what_does_not_fit_is_told_in_full(run: Run, inside: Inside, first: tuple[str, str]):
    id = id_in(run("campaign", "create", inside.fleet.release, "--thing", "nobody", *first).stdout)
    told = run("campaign", "submit", id, *first, ok=False).output
    assert "targets: nobody needs it" in told


def test_each_target_is_found_with_its_tries_and_can_be_taken_out_or_tried_again(
    run: Run, running: str, inside: Inside, first: tuple[str, str]
):
    inside.step(running, NAMES[:1], Do.START)
    inside.fleet.rig.clock.advance(7)
    inside.step(running, NAMES[:1], Do.FAIL, reason="block_hash")
    (line,) = lines_of(run("campaign", "targets", running, "--state", "FAILED", *first))
    assert line.split() == [NAMES[0], "FAILED", "0", "7.0", "s", "block_hash"]
    assert lines_of(run("campaign", "targets", running, "--reason", "image_hash", *first)) == []
    assert len(lines_of(run("campaign", "targets", running, "--wave", "0", *first))) == 4
    (again,) = lines_of(run("campaign", "retry", running, NAMES[0], "--note", "its link was bad", *first))
    assert again.split() == [NAMES[0], "PLANNED"]
    told = lines_of(run("campaign", "target", running, NAMES[0], *first))
    assert told[1].split()[:3] == ["try", "1:", "FAILED"]
    assert told[1].endswith("block_hash")
    assert told[2].split() == ["try", "2:", "PLANNED"]
    assert "CANCELED" in run("campaign", "cancel", running, NAMES[1], *first).stdout
    gone = run("campaign", "target", running, "nobody", *first, ok=False).output
    assert "refused (404)" in gone


def test_a_terminal_shows_a_bar_and_whoever_was_over_time_in_red():
    counts = {"waiting": 0, "active": 1, "SUCCEEDED": 2, "TIMED_OUT": 1}
    clocks = {
        "p50_s": 41.2, "p95_s": 60.5, "p99_s": 74.0, "max_s": 312.3, "limit_s": 300.0, "over": 1,
        "per_hour": 2, "per_hour_aim": 10_000, "in_flight": 1,
    }  # fmt: skip
    one = {"state": "RUNNING", "wave": 1, "targets": 4, "counts": counts, "clocks": clocks}
    console = Console(force_terminal=True, width=80, color_system="standard")
    with console.capture() as shown:
        console.print(campaign_view._progress(one))
    text = shown.get()
    assert "\x1b[31m1 over 300 s" in text
    assert "3 of 4 done, wave 1" in text
    assert "longest 312.3" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    first_words = [line.split()[0] for line in plain.splitlines()]
    assert first_words[2:5] == ["active", "SUCCEEDED", "TIMED_OUT"], "the bar has a line of its own"
