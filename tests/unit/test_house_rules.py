"""House rules that no linter knows. Each one is cheap, and each one has been broken once somewhere."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from security.trust import keys

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PYPROJECT["tool"]["importlinter"]["root_packages"]
RECORDS = ROOT / "docs" / "adr"
FILE_BYTES_MAX = 524_288

# The dots and slashes are spelled so that this file keeps its own rules.
MACHINE_PATHS = re.compile(r"(?:^|[^\w./-])[/](?:work|root|home[/][a-z]+|Users)[/]")
REGISTRY_HOSTS = re.compile(r"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|debian[.]org[/]debian")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{32}")
LOCK_FILES = {
    "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "yarn.lock", "pnpm-lock.yaml", "package-lock.json",
}  # fmt: skip


def committed():
    listed = output(shutil.which("git") or "git", "ls-files", "-z")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def output(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def texts():
    for path in committed():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT), content.decode("utf-8", errors="replace")


def lines_with(pattern):
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_committed_file_names_a_path_of_one_machine():
    assert lines_with(MACHINE_PATHS) == []


def test_no_committed_file_names_the_host_of_a_package_registry():
    assert lines_with(REGISTRY_HOSTS) == []


def test_no_committed_file_holds_a_private_key():
    assert [str(path) for path, text in texts() if PRIVATE_KEY.search(text)] == []


def test_a_private_key_would_be_noticed():
    assert PRIVATE_KEY.search(keys.key_pem(keys.make_key()).decode())


def test_no_lock_file_records_where_packages_were_fetched_from():
    assert [path.name for path in committed() if path.name in LOCK_FILES] == []


def test_pins_hold_versions_and_hashes_and_nothing_else():
    allowed = re.compile(r"[a-z0-9.-]+(\[[a-z,]+\])?==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        strange = [
            line for line in path.read_text(encoding="utf-8").splitlines() if not allowed.fullmatch(line)
        ]
        assert strange == [], path.name


def test_what_runs_and_what_is_tested_are_the_same_versions():
    runtime, dev = (pinned(name) for name in ("runtime.txt", "dev.txt"))
    assert {name: dev.get(name) for name in runtime} == runtime


def test_every_dependency_is_pinned():
    wanted = [re.split(r"[\[<>=~ ]", one)[0] for one in PYPROJECT["project"]["dependencies"]]
    assert set(wanted) <= pinned("runtime.txt").keys()
    wanted = [re.split(r"[\[<>=~ ]", one)[0] for one in PYPROJECT["dependency-groups"]["dev"]]
    assert set(wanted) <= pinned("dev.txt").keys()


def pinned(name):
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_what_lives_there(package):
    for init in (ROOT / package).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init.relative_to(ROOT)


def test_every_package_is_installed_and_has_a_place_in_the_import_contracts():
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench", "scripts", "build"}
    installed = {name.rstrip("*") for name in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    layers, _, drivers = PYPROJECT["tool"]["importlinter"]["contracts"]
    placed = set(re.findall("[a-z_]+", " ".join(layers["layers"])))
    assert found == set(PACKAGES) == installed
    assert found <= placed
    assert found - {"infra"} == set(drivers["source_modules"])


def test_imports_go_down_only_and_rules_do_no_io():
    output(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")


def test_the_index_of_decisions_lists_every_record_and_nothing_else():
    index = (RECORDS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index)
    assert listed == sorted(path.name for path in RECORDS.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in listed] == list(range(1, len(listed) + 1))


@pytest.mark.parametrize("record", sorted(RECORDS.glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_every_decision_names_its_price_and_what_would_change_our_mind(record):
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {record.name[:4]}. ")
    headings = re.findall("^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "What would change our mind"]
    assert re.search(r"^\* Bad: ", text, re.MULTILINE)
    assert re.search(r"^State: (proposed|accepted|replaced by \d{4}) · \d{4}-\d\d-\d\d$", text, re.MULTILINE)


def test_links_between_pages_lead_somewhere():
    broken = [
        f"{path} -> {target}"
        for path, text in texts()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text)
        if not (ROOT / path.parent / target).exists()
    ]
    assert broken == []


def test_every_make_target_is_phony_and_says_what_it_does():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = r"^([a-z][a-z0-9. -]*):"
    targets = set(" ".join(re.findall(named, text, re.MULTILINE)).split())
    described = set(" ".join(re.findall(named + ".*## ", text, re.MULTILINE)).split())
    phony = set(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)[0].split())
    assert targets == phony == described


def test_no_committed_file_is_large():
    large = [str(path.relative_to(ROOT)) for path in committed() if path.stat().st_size > FILE_BYTES_MAX]
    assert large == []
