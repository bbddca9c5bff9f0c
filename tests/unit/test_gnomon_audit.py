"""``gnomon audit``: what an auditor is told, and with which exit code."""

import asyncio
import shutil

import msgspec
import pytest
from click.testing import CliRunner

from gnomon import cli
from infra import logs
from infra.documents.opening import open_store
from infra.documents.port import Write
from security import audit
from security.audit import Via
from security.blocks import BLOCKS, id_of
from security.heads import Heads
from security.policy import Principal, Role
from security.sealer import Sealer
from security.secretbox import SecretBox
from tests.fakes import FakeClock, SeededIds

ANNA = Principal("anna", Role.OPERATOR)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "configure", lambda _settings: None)  # else later tests log into its output
    monkeypatch.chdir(tmp_path)
    for variable in ("GNOMON_CONFIG", "GNOMON_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments):
        return CliRunner().invoke(cli.main, ["audit", *(str(one) for one in arguments)])

    return run


@pytest.fixture
def var(tmp_path):
    """A directory as a service leaves it: three blocks of two entries, and an entry that is not sealed."""
    var = tmp_path / "var"
    (var / "secrets").mkdir(parents=True)
    clock = FakeClock()
    box = SecretBox.open(var / "secrets" / "master.key", SeededIds())
    heads = Heads.open(var / "audit" / "heads.jsonl", var / "secrets" / "audit.key", box, clock)

    async def fill(store):
        sealer = Sealer(store, clock, heads)
        for number in range(1, 8):
            act = audit.act(
                ANNA,
                Via("http"),
                "thing.register",
                "thing/hall",
                at_ms=number,
                before=number - 1,
                after=number,
            )
            await store.append([audit.entry(act, number, life=0)])
            if number % 2 == 0:
                await sealer.seal_and_publish("refused/x")

    in_store(var, fill)
    return var


def in_store(var, work):
    async def run():
        store = await open_store(f"sqlite:{var}/gnomon.db", [BLOCKS], [audit.LOG], testing=True)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


def change(var, number, make):
    async def work(store):
        (document,) = (await store.get(BLOCKS.name, [id_of(number)])).values()
        body = make(document.body)
        assert body != document.body
        await store.commit([Write(BLOCKS.name, document.id, 1, body, document.index)])

    in_store(var, work)


@pytest.mark.usefixtures("var")
def test_a_chain_that_holds_is_said_to(run):
    answer = run("verify")
    assert answer.exit_code == 0, answer.output
    assert "6 entries in 3 blocks hold; 1 more are not sealed yet" in answer.output
    assert "3 published heads agree, the last one of block 3" in answer.output


def test_the_first_bad_position_is_named_with_exit_code_1(run, var):
    change(var, 2, lambda body: body.replace(b'"actor":"anna"', b'"actor":"anne"', 1))
    answer = run("verify")
    assert answer.exit_code == 1
    assert "block 2, entry 1 (thing/hall:3)" in answer.output


def test_a_cut_tail_is_found_by_a_copy_of_the_heads_that_others_could_not_write(run, var, tmp_path):
    shutil.copytree(var / "audit", tmp_path / "auditor")

    async def cut(store):
        await store.commit([Write(BLOCKS.name, id_of(3), 1, None)])

    in_store(var, cut)
    lines = (var / "audit" / "heads.jsonl").read_bytes().splitlines(keepends=True)
    (var / "audit" / "heads.jsonl").write_bytes(b"".join(lines[:-1]))
    assert run("verify").exit_code == 0
    answer = run("verify", "--heads", tmp_path / "auditor" / "heads.jsonl")
    assert answer.exit_code == 1
    assert "block 3" in answer.output


@pytest.mark.usefixtures("var")
def test_heads_signed_by_a_key_that_is_not_the_auditors_are_refused(run, tmp_path):
    box = SecretBox.open(tmp_path / "other" / "master.key", SeededIds(7))
    Heads.open(tmp_path / "other" / "heads.jsonl", tmp_path / "other" / "key", box, FakeClock())
    answer = run("verify", "--public-key", tmp_path / "other" / "heads.pub.pem")
    assert answer.exit_code == 1
    assert "not known" in answer.output


def test_without_heads_it_says_what_it_cannot_see(run, var):
    shutil.rmtree(var / "audit")
    answer = run("verify")
    assert answer.exit_code == 0
    assert "cut at its end, or made anew, would look the same" in answer.output


@pytest.mark.usefixtures("var")
def test_a_file_of_heads_that_was_named_must_be_there(run):
    assert run("verify", "--heads", "nowhere").exit_code == 2


def test_a_file_that_is_none_of_heads_is_told_in_a_sentence(run, var, tmp_path):
    (tmp_path / "README.md").write_text("# Read me\n")
    assert "is it a file of published heads?" in run("verify", "--heads", tmp_path / "README.md").output
    keys = var / "audit" / "heads.pub.pem"
    answer = run("verify", "--heads", tmp_path / "README.md", "--public-key", keys)
    assert (answer.exit_code, "line 1: cannot be read" in answer.output) == (1, True)


@pytest.mark.usefixtures("var")
def test_an_export_has_a_line_an_entry_with_its_place_and_link(run):
    answer = run("export")
    lines = [msgspec.json.decode(line) for line in answer.output.splitlines()]
    assert [(one.get("block"), one.get("position"), one["entry"]["id"]) for one in lines] == [
        *((1 + n // 2, 1 + n % 2, f"thing/hall:{n + 1}") for n in range(6)),
        (None, None, "thing/hall:7"),
    ]
    assert all(len(one["link"]) == 64 for one in lines[:6])


def test_an_export_of_what_cannot_be_read_says_where(run, var):
    change(var, 2, lambda body: body.replace(b"\n", b"\n\n", 1))
    answer = run("export")
    assert answer.exit_code == 1
    assert "block 2, entry 1" in answer.output


def test_without_a_store_there_is_nothing_to_verify(run):
    answer = run("verify")
    assert (answer.exit_code, "there is no store" in answer.output) == (1, True)
