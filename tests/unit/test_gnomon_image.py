"""``gnomon image``: a key, a manifest signed with it, checked, and shown; every refusal in a sentence."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gnomon.cli import main
from tests import ota_base as base
from tests import ota_faults as faults

CODES = {fault.code for fault in faults.OFFERS} | {"leaves", "block_hash", "image_hash", "already_current"}
ABOUT = f"""
vendor = "acme"
model = "T1"
hw = ["{base.MANIFEST.hw[0]}"]
label = "2.4.0"
version = "2.4.0.0"
counter = 3
config_schema = 5
min_from = "2.0.0.0"
requires = {{ bootloader = 3 }}
"""


@pytest.fixture
def run():
    def run(*arguments, said=None):
        answer = CliRunner().invoke(main, ["image", *map(str, arguments)])
        assert (answer.exit_code == 0) is (said is None), answer.output
        assert said is None or said in answer.output, answer.output
        assert answer.exception is None or isinstance(answer.exception, SystemExit)
        return answer.output

    return run


@pytest.fixture
def desk(tmp_path, run):
    (tmp_path / "fw.bin").write_bytes(base.IMAGE)
    (tmp_path / "about.toml").write_text(ABOUT)
    run("keygen", tmp_path / "acme.key")
    return tmp_path


def sign(run, desk, said=None, key="acme.key", **options):
    more = [part for name, value in options.items() for part in (f"--{name}", value)]
    out = desk / "fw.cose"
    about = desk / "about.toml"
    return run("sign", desk / "fw.bin", "--about", about, "--key", desk / key, "--out", out, *more, said=said)


def test_description_and_manifest_lie_beside_the_image_unless_it_is_said_where(run, desk):
    run("sign", desk / "fw.bin", "--key", desk / "acme.key", said="fw.toml: No such file")
    (desk / "fw.toml").write_text(ABOUT)
    run("sign", desk / "fw.bin", "--key", desk / "acme.key")
    run("verify", desk / "fw.cose", "--vendor", "acme", "--public", desk / "acme.key.pub")


def test_what_one_signs_the_other_verifies(run, desk):
    sign(run, desk)
    told = run(
        "verify",
        desk / "fw.cose",
        "--vendor",
        "acme",
        "--public",
        desk / "acme.key.pub",
        "--image",
        desk / "fw.bin",
    )
    assert "signed by acme, of this image" in told
    for field in (base.MANIFEST.sha256, base.MANIFEST.root.hex(), "2.4.0.0", "bootloader≥3", "chosen"):
        assert field in told


def test_the_private_key_is_for_its_owner_alone_and_never_replaced(run, desk):
    key = desk / "acme.key"
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    run("keygen", key, said="never replaced")
    assert key.read_bytes() == before
    key.chmod(0o644)
    sign(run, desk, said="mode 0644")
    assert not (desk / "fw.cose").exists()


def test_a_key_under_a_passphrase_opens_with_it_only(run, desk):
    right, wrong = desk / "right", desk / "wrong"
    for file, text in ((right, "correct horse battery"), (wrong, "incorrect horse battery")):
        file.touch(mode=0o600)
        file.write_text(text)
    run("keygen", desk / "locked.key", "--passphrase-file", right)
    assert b"ENCRYPTED" in (desk / "locked.key").read_bytes()
    sign(run, desk, key="locked.key", said="another passphrase", **{"passphrase-file": wrong})
    sign(run, desk, key="locked.key", **{"passphrase-file": right})


def test_a_manifest_of_somebody_else_of_another_vendor_or_image_is_refused(run, desk):
    sign(run, desk)
    run("keygen", desk / "other.key")
    (desk / "other.bin").write_bytes(base.IMAGE[:-1] + b"\0")
    fw, pub = desk / "fw.cose", desk / "acme.key.pub"
    run("verify", fw, "--vendor", "acme", "--public", desk / "other.key.pub", said="V2 key_unknown")
    run("verify", fw, "--vendor", "zenith", "--public", pub, said="not this vendor's")
    run(
        "verify", fw, "--vendor", "acme", "--public", pub, "--image", desk / "other.bin", said="another image"
    )
    fw.write_bytes(faults.flipped(fw.read_bytes(), 2_000))
    run("verify", fw, "--vendor", "acme", "--public", pub, said="manifest_")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('version = "2.4.0.0"', 'version = "2.4"', "no version"),
        ("counter = 3", "counter = -1", "key 8"),
        ("counter = 3", 'counter = "3"', "counter"),
        ('label = "2.4.0"', 'label = ""', "key 6"),
        (base.MANIFEST.hw[0], "T1/2", "no UUID"),
        ("counter = 3", "counter = 3\nblock = 0", "key 11"),
        ("counter = 3", "counter = 3\nblock = 3000", "key 11"),
        ("counter = 3", "counter = 3\nlife_days = 0", "life_days"),
        ("counter = 3", 'counter = 3\ndata = "erase"', "data"),
        ("counter = 3", "counter = 3\ncolour = 1", "colour"),
        ("counter = 3", "counter = ", "about.toml"),
    ],
)
def test_a_description_that_cannot_be_signed_is_told_so(run, desk, old, new, said):
    (desk / "about.toml").write_text(ABOUT.replace(old, new))
    sign(run, desk, said=said)
    assert not (desk / "fw.cose").exists()


def test_a_manifest_and_an_order_are_shown_without_a_key(run, desk):
    (desk / "m.cose").write_bytes(base.MANIFEST_COSE)
    (desk / "o.cose").write_bytes(base.ORDER_COSE)
    assert "2026-09-21" in run("inspect", desk / "m.cose")
    order = run("inspect", desk / "o.cose")
    assert base.ORDER.campaign in order
    assert "39f713d0a644253f   not verified" in order
    run("inspect", desk / "fw.bin", said="neither manifest nor order")


def test_what_is_no_key_is_told_so(run, desk):
    junk = desk / "junk.key"
    junk.touch(mode=0o600)
    junk.write_text("no key")
    sign(run, desk, key="junk.key", said="does not open")
    sign(run, desk)
    run("verify", desk / "fw.cose", "--vendor", "acme", "--public", junk, said="no public key")


def test_an_empty_image_is_none(run, desk):
    (desk / "fw.bin").write_bytes(b"")
    sign(run, desk, said="an image has 1 to")


def test_the_page_describes_an_image_as_it_can_be_signed(run, desk):
    page = (Path(__file__).resolve().parents[2] / "docs" / "firmware.md").read_text(encoding="utf-8")
    (desk / "about.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    sign(run, desk)
    for code in CODES:
        assert f"`{code}`" in page
