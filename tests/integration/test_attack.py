"""The quick part of the Bad Actor: each attack once, with less of each (`make attack` does all of it)."""

import io

import pytest

from tests.attack import __main__ as command
from tests.attack import holes, planted
from tests.attack.attacks import Attack, Score, Size, Status, run
from tests.attack.catalogue import ATTACKS, SETTINGS
from tests.attack.field import Field
from tests.covers import covers
from tests.system.child import Gnomon

pytestmark = pytest.mark.integration

QUICK = [one for one in ATTACKS if one.quick]


@pytest.fixture(scope="module")
def field(request, tmp_path_factory):
    request.getfixturevalue("broker_program")
    directory = tmp_path_factory.mktemp("attack")
    with Gnomon(directory / "gnomon", SETTINGS) as gnomon:
        yield Field(gnomon, directory / "scratch", quick=True)


@covers("A9", "S1.4e", "O14")
@pytest.mark.parametrize("attack", QUICK, ids=lambda one: one.id)
def test_it_is_repelled(field, attack):
    (outcome,) = run([attack], field)
    assert outcome.repelled, "\n".join([outcome.status, *outcome.told()])


def test_a_missing_defence_is_noticed(broker_program):  # noqa: ARG001 - a skip without Mosquitto
    out = io.StringIO()
    assert planted.prove(["attachment-not-asked"], 1, out) == 0, out.getvalue()


def test_every_hole_names_attacks_that_are_there():
    known = {one.id for one in ATTACKS}
    assert {hole.name: set(hole.noticed_by) - known for hole in holes.HOLES.values()} == {
        name: set() for name in holes.HOLES
    }


# ---------------------------------------------------------------------- the suite itself


def attack_that(carry_out, at_least=1):
    return Attack("B0", "test", carry_out, Size(at_least, at_least), quick=True)


def judged(carry_out, tmp_path, at_least=1):
    nowhere = Gnomon(tmp_path / "nowhere")
    (outcome,) = run([attack_that(carry_out, at_least)], Field(nowhere, tmp_path))
    return outcome


def test_an_attack_that_succeeds_once_is_not_repelled(tmp_path):
    def carry_out(_field: Field, score: Score) -> None:
        score.honest("works", works=True)
        score.attempts("opened", 1_000, 1)

    outcome = judged(carry_out, tmp_path)
    assert (outcome.status, outcome.noticed) == (Status.SUCCEEDED, True)
    assert list(outcome.told()) == ["succeeded: opened"]


@pytest.mark.parametrize(("honest", "tried"), [([], 5), ([False], 5), ([True], 4)])
def test_an_attack_without_an_honest_act_that_works_or_with_too_few_attempts_proves_nothing(
    tmp_path, honest, tried
):
    def carry_out(_field: Field, score: Score) -> None:
        score.attempts("", tried, 0)
        for works in honest:
            score.honest("the same, by its owner", works=works)

    outcome = judged(carry_out, tmp_path, at_least=5)
    assert (outcome.status, outcome.repelled, outcome.noticed) == (Status.PROVES_NOTHING, False, False)


def test_a_defence_that_refuses_and_tells_nobody_is_noticed(tmp_path):
    def carry_out(_field: Field, score: Score) -> None:
        score.honest("works", works=True)
        score.attempt("", succeeded=False)
        score.must("an alarm", held=False)

    outcome = judged(carry_out, tmp_path)
    assert (outcome.status, outcome.noticed) == (Status.UNNOTICED, True)


def test_an_attack_that_breaks_off_is_not_repelled_and_says_where(tmp_path):
    def carry_out(_field: Field, score: Score) -> None:
        score.honest("works", works=True)
        raise RuntimeError("no such thing")

    outcome = judged(carry_out, tmp_path)
    assert (outcome.status, outcome.repelled, outcome.noticed) == (Status.BROKE_OFF, False, False)
    assert "RuntimeError: no such thing (line " in outcome.problem


def test_nothing_tried_is_nothing_repelled(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(command, "carry_out", lambda *_args, **_named: [])
    assert command.main(["--only", "B0"], out) == 1
    assert out.getvalue().endswith("NOT REPELLED: nothing was tried\n")
