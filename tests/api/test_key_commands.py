"""``gnomon image trust``: whose signatures count is said by one officer and approved by another."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.api.served import Run, Served
from tests.api.typist import Sit
from tests.covers import covers

PASSWORD = "heather over granite wind"
Two = tuple[tuple[str, str], tuple[str, str]]


@pytest.fixture
def officers(run: Run, where: Served, files: Path, tmp_path: Path, sit: Sit) -> Two:
    """The demo's officer, and another one whom they have invited."""
    one, other = ("--as", str(files / "security.toml")), tmp_path / "bob.toml"
    made = run("person", "add", "bob", "security", *one).stdout
    sit(invitation=made.split("invitation")[1].split(maxsplit=1)[0], password=PASSWORD)
    run("person", "accept", "bob", "--url", where.url, "--into", str(other))
    return one, ("--as", str(other))


def waiting(told: str) -> str:
    return told.split("gnomon person approve ")[1].split(maxsplit=1)[0]


def made_key(run: Run, tmp_path: Path, name: str) -> tuple[str, str]:
    """Return the file of a public key, and its kid."""
    told = run("image", "keygen", str(tmp_path / name)).stdout
    return str(tmp_path / f"{name}.pub"), told.split("kid")[1].split(maxsplit=1)[0]


def listed(run: Run, by: tuple[str, str]) -> tuple[int, list[list[str]]]:
    """Return the number of the list, and the keys."""
    first, *rest = [line.split() for line in run("image", "keys", *by).stdout.splitlines()]
    return int(first[-1]), rest


@covers("S3.1-s")
def test_a_vendors_key_counts_when_a_second_officer_has_approved_it_and_until_two_revoke_it(
    run: Run, tmp_path: Path, officers: Two, files: Path
):
    one, other = officers
    public, kid = made_key(run, tmp_path, "acme.key")
    asked = run("image", "trust", public, "--vendor", "acme", *one).stdout
    assert f"kid         {kid}" in asked
    assert listed(run, one) == (0, []), "nothing counts yet"
    assert kid in run("person", "approvals", *other).stdout
    run("person", "approve", waiting(asked), *other)
    number, keys = listed(run, one)
    assert keys == [[kid, "image", "active", "acme"]]
    gone = run("image", "distrust", kid, "--reason", "lost", *other).stdout
    run("person", "approve", waiting(gone), *one)
    operator = ("--as", str(files / "operator.toml"))
    assert listed(run, operator)[1] == [[kid, "image", "revoked", "acme"]]
    assert listed(run, operator)[0] > number


def test_a_key_of_ours_signs_campaigns(run: Run, tmp_path: Path, officers: Two):
    one, other = officers
    public, kid = made_key(run, tmp_path, "ours.key")
    run("person", "approve", waiting(run("image", "trust", public, *one).stdout), *other)
    assert listed(run, one)[1][0] == [kid, "campaign", "active", "utility"]


def test_a_key_that_freertos_agents_check_with_is_one_of_p_256(run: Run, tmp_path: Path, officers: Two):
    one, other = officers
    public = tmp_path / "p256.pub"
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(encoding, form))
    told = run("image", "trust", str(public), "--vendor", "acme", *one).stdout
    run("person", "approve", waiting(told), *other)
    assert listed(run, one)[1][0][1:] == ["image", "active", "acme"]
    public.write_bytes(ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(encoding, form))
    other_curve = run("image", "trust", str(public), "--vendor", "acme", *one, ok=False).output
    assert "neither an Ed25519 key nor one of P-256" in other_curve


def test_what_is_no_public_key_or_whose_owner_can_be_none_is_refused(run: Run, tmp_path: Path, files: Path):
    me = ("--as", str(files / "security.toml"))
    public, _ = made_key(run, tmp_path, "acme.key")
    (tmp_path / "junk").write_text("junk")
    assert "is no public key" in run("image", "trust", str(tmp_path / "junk"), *me, ok=False).output
    assert "the id of a vendor" in run("image", "trust", public, "--vendor", "Acme Inc", *me, ok=False).output
    missing = run("image", "distrust", "0" * 16, "--reason", "lost", *me, ok=False).output
    assert "Correct its name, or list them." in missing


def test_an_operator_may_read_keys_and_change_none(run: Run, tmp_path: Path, files: Path):
    operator = ("--as", str(files / "operator.toml"))
    public, _ = made_key(run, tmp_path, "acme.key")
    refused = run("image", "trust", public, "--vendor", "acme", *operator, ok=False).output
    assert "Your role may not do this" in refused
    assert run("image", "keys", *operator).stdout == "list number 0\n"
