"""``gnomon image`` against a service that runs: an image sent in spite of cuts, and two operators."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gnomon import access, uploads
from gnomon.access import Access
from gnomon.commands.login import opened
from registry.models import NewThing, Owner, ThingKind
from tests import ota_base as base
from tests.api.released import provide
from tests.api.rig import HALL, HOME, OPERATOR, Rig
from tests.api.served import Run, Served, served
from tests.covers import covers
from tests.fakes import FakeClock
from tests.release_rig import MANIFEST, sealed

OLD = {"sha256": "0123" * 16, "version": "2.3.0.0", "counter": 2}
NEW = {"sha256": MANIFEST.sha256, "version": "2.4.0.0", "counter": 3}
PIECE = 1_000
CUT_AFTER = 3_000

Upload = Callable[..., str]


async def prepare(rig: Rig) -> None:
    """Let there be a gateway and a switch of the utility's, and a switch that is a customer's own."""
    await provide(rig)
    for name, kind, owner, fw in (
        ("gw:1", ThingKind.GATEWAY, Owner.UTILITY, OLD),
        ("switch:1", ThingKind.DEVICE, Owner.UTILITY, NEW),
        ("theirs", ThingKind.DEVICE, Owner.CUSTOMER, OLD),
    ):
        await rig.services.registry.register(NewThing(name, kind, "acme-t1", HOME, owner=owner), OPERATOR)
        await rig.report(name, {"fw": fw, "hw": MANIFEST.hw[0], "schema": 5}, "firmware")


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Served]:
    clock = FakeClock(base.NOW_S * 1_000)
    with served(tmp_path, demo=True, things=(HALL,), clock=clock, prepare=prepare) as where:
        yield where


@pytest.fixture
def first(files: Path) -> tuple[str, str]:
    return "--as", str(files / "operator.toml")


@pytest.fixture
def second(files: Path) -> tuple[str, str]:
    return "--as", str(files / "operator-2.toml")


@pytest.fixture
def upload(run: Run, tmp_path: Path, first: tuple[str, str]) -> Upload:
    """Send the base image, with its manifest or another one."""

    def upload(manifest: bytes = sealed(), by: tuple[str, str] = first, *, ok: bool = True) -> str:
        (tmp_path / "fw.bin").write_bytes(base.IMAGE)
        (tmp_path / "fw.cose").write_bytes(manifest)
        files = (str(tmp_path / "fw.bin"), "--manifest", str(tmp_path / "fw.cose"))
        return run("image", "upload", *files, *by, ok=ok).output

    return upload


class Link:
    """A line that is cut after some bytes, some times; remembers from where each try began."""

    def __init__(self, cuts: int, after: int = CUT_AFTER) -> None:
        self.begun = list[int]()
        self._cuts = cuts
        self._after = after

    def install(self, where: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        put = Access.put

        def cut(
            access: Access, path: str, content: Iterable[bytes], fields: dict[str, str]
        ) -> httpx.Response:
            self.begun.append(base.MANIFEST.size - int(fields["Content-Length"]))
            return put(access, path, self._through(content), fields)

        def pause(seconds: float) -> None:
            where.clock.advance(seconds)
            time.sleep(0.1)  # until the service has seen the cut

        monkeypatch.setattr(uploads, "PIECE_BYTES", PIECE)
        monkeypatch.setattr(Access, "put", cut)
        monkeypatch.setattr(access, "_sleep", pause)

    def _through(self, content: Iterable[bytes]) -> Iterator[bytes]:
        left = self._after if self._cuts else len(base.IMAGE)
        for piece in content:
            if left <= 0:
                self._cuts -= 1
                time.sleep(0.1)  # what was sent arrives
                raise httpx.WriteError("cut")
            left -= len(piece)
            yield piece


def id_in(told: str) -> str:
    (line,) = (line for line in told.splitlines() if " counter " in line)
    return line.split()[0]


@covers("S3.1-s")
def test_one_operator_brings_an_image_and_another_lets_it_out(
    run: Run, upload: Upload, first: tuple[str, str], second: tuple[str, str]
):
    told = upload()
    assert "10000 bytes, sent" in told
    id = id_in(told)
    assert f"waits for a second operator: gnomon image release {id}" in told
    own = run("image", "release", id, *first, ok=False).output
    assert "Let somebody do it who wrote none of it." in own
    assert run("image", "list", "--state", "released", *first).stdout == ""
    assert "released" in run("image", "release", id, *second).stdout
    (line,) = run("image", "list", *first).stdout.splitlines()
    assert line.split()[:6] == [id, "released", "acme-t1", "2.4.0.0", "counter", "3"]
    assert "withdrawn" in run("image", "withdraw", id, "--reason", "the display stays dark", *first).stdout
    gone = run("image", "release", id, *second, ok=False).output
    assert "refused (409)" in gone


@covers("I3FR7")
def test_operators_read_who_needs_it_and_what_all_equipment_runs(
    run: Run, upload: Upload, first: tuple[str, str], second: tuple[str, str], files: Path
):
    id = id_in(upload())
    needs = run("image", "needs", id, *first).stdout.splitlines()
    assert [line.split() for line in needs] == [
        ["needed", "1"],
        ["not", "ALREADY_CURRENT", "1"],
        ["no", "part", "1"],
        ["gw:1", "gateway", "2.3.0.0", "counter", "2"],
    ]
    others = run("image", "needs", id, "--reason", "ALREADY_CURRENT", *first).stdout.splitlines()
    assert others[3].split() == ["switch:1", "device", "2.4.0.0", "counter", "3"]
    run("image", "release", id, *second)
    report = run("image", "report", *first).stdout
    assert [line.split() for line in report.splitlines()] == [
        ["acme-t1", "device", "2.4.0.0", "counter", "3", "1", "up", "to", "date"],
        ["acme-t1", "gateway", "2.3.0.0", "counter", "2", "1", id],
        ["needed", "1"],
        ["no", "part", "1"],
    ]
    assert run("image", "report", "--model", "acme-t1", *first).stdout == report
    missing = run("image", "report", "--model", "acme-t0", *first, ok=False).output
    assert "refused (404)" in missing
    assert (
        "Your role may not do this"
        in run("image", "report", "--as", str(files / "rep.toml"), ok=False).output
    )


def test_again_it_is_the_same_release_and_nothing_is_sent(upload: Upload, second: tuple[str, str], run: Run):
    id = id_in(upload())
    again = upload()
    assert "10000 bytes, was there" in again
    assert id_in(again) == id
    run("image", "release", id, *second)
    assert "waits" not in upload()


def test_a_reason_is_asked_for_before_anything_is_taken_back(
    run: Run, upload: Upload, first: tuple[str, str]
):
    id = id_in(upload())
    assert "--reason" in run("image", "withdraw", id, *first, ok=False).output
    assert "verified" in run("image", "list", *first).stdout


def test_after_a_cut_it_goes_on_where_it_broke_off(
    where: Served, upload: Upload, monkeypatch: pytest.MonkeyPatch
):
    link = Link(cuts=3)
    link.install(where, monkeypatch)
    assert "10000 bytes, sent" in upload()
    assert link.begun == [0, 3_000, 6_000, 9_000]


@pytest.mark.usefixtures("run")
def test_how_much_is_there_is_shown_also_when_it_goes_back(
    where: Served, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
):
    Link(cuts=1, after=CUT_AFTER + PIECE).install(where, monkeypatch)
    file, shown = tmp_path / "fw.bin", list[int]()
    file.write_bytes(base.IMAGE)
    with opened(files / "operator.toml") as access:
        assert uploads.send(access, file, shown.append)
        assert shown[-1] == len(base.IMAGE)
        shown.clear()
        assert not uploads.send(access, file, shown.append)
        assert shown == [len(base.IMAGE)]


def test_the_next_run_goes_on_where_the_last_one_gave_up(
    where: Served, upload: Upload, monkeypatch: pytest.MonkeyPatch
):
    link = Link(cuts=1)
    link.install(where, monkeypatch)
    monkeypatch.setattr(uploads, "TRIES_MAX", 1)
    assert "does not answer" in upload(ok=False)
    time.sleep(0.1)
    assert "10000 bytes, sent" in upload()
    assert link.begun == [0, 3_000]


def test_a_line_that_nothing_comes_through_is_given_up(
    where: Served, upload: Upload, monkeypatch: pytest.MonkeyPatch
):
    link = Link(cuts=99, after=0)
    link.install(where, monkeypatch)
    assert "does not answer" in upload(ok=False)
    assert link.begun == [0] * uploads.TRIES_MAX


def test_a_copy_that_the_disk_has_damaged_is_noticed_and_sent_anew(
    run: Run, upload: Upload, second: tuple[str, str], tmp_path: Path
):
    id = id_in(upload())
    stored = tmp_path / "images" / MANIFEST.sha256
    stored.chmod(0o600)
    stored.write_bytes(base.IMAGE[:-1] + b"x")
    refused = run("image", "release", id, *second, ok=False).output
    assert "U4 image: the stored image is damaged: send it again" in refused
    again = upload()
    assert "10000 bytes, sent" in again
    assert id_in(again) == id
    assert "released" in run("image", "release", id, *second).stdout


def test_everything_that_is_wrong_with_it_is_told(upload: Upload):
    told = upload(sealed(replace(MANIFEST, config_schema=9, issued=base.NOW_S + 1_000)), ok=False)
    assert "refused (422): This can not be released" in told
    assert "U7 config_schema: the catalogue has no config schema 9" in told
    assert "U8 issued: it was issued in the future" in told


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (sealed(replace(MANIFEST, sha256="ab" * 32)), "is no manifest of"),
        (base.ORDER_COSE, "is no manifest of"),
        (b"nothing", "neither manifest nor order"),
    ],
)
def test_what_is_no_manifest_of_the_image_is_refused_before_anything_is_sent(
    upload: Upload, manifest: bytes, said: str, monkeypatch: pytest.MonkeyPatch
):
    def sends(*_: Any) -> httpx.Response:
        raise AssertionError("it was sent")

    monkeypatch.setattr(Access, "_ask_service", sends)
    assert said in upload(manifest, ok=False)


def test_who_may_not_is_told_so_and_nothing_is_kept(upload: Upload, files: Path, tmp_path: Path):
    told = upload(by=("--as", str(files / "rep.toml")), ok=False)
    assert "Your role may not do this; ask for one that may." in told
    assert (
        not list((tmp_path / "images").glob("**/*")) or not (tmp_path / "images" / MANIFEST.sha256).exists()
    )
