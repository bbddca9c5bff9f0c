"""What a kill test leaves behind: nothing if all was well, and everything else for somebody to look at."""

from pathlib import Path

import pytest

from tests.chaos.keeping import run_and_judge

JUDGE = "compileall"
"""A module that takes a directory, and exits with 1 where it finds a file that is no Python."""
SOUND, BROKEN = "x = 1\n", "x = = 1\n"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return []


@pytest.mark.parametrize(("text", "code"), [(SOUND, 0), (BROKEN, 1)])
def test_what_was_well_is_gone_and_what_was_not_is_kept(seen: list[Path], text: str, code: int):
    def run(directory: Path) -> None:
        seen.append(directory)
        (directory / "found.py").write_text(text)

    assert run_and_judge(run, JUDGE, None, "gnomon-test-") == code
    assert seen[0].exists() is bool(code)


def test_what_broke_off_is_kept_and_its_error_is_told(seen: list[Path], capsys: pytest.CaptureFixture[str]):
    def run(directory: Path) -> None:
        seen.append(directory)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        run_and_judge(run, JUDGE, None, "gnomon-test-")
    assert seen[0].exists()
    assert str(seen[0]) in capsys.readouterr().err


def test_where_it_was_asked_for_everything_stays(tmp_path: Path):
    keep = tmp_path / "mine"
    assert run_and_judge(lambda _: None, JUDGE, keep, "gnomon-test-") == 0
    assert keep.exists()
