import tomllib
from pathlib import Path

import msgspec
import pytest

from infra.settings import Settings, SettingsError, load, mask, render_page, render_toml
from infra.settings.keys import KEYS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "my.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def no_file_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(*arguments, **options):
    with pytest.raises(SettingsError) as caught:
        load(*arguments, **options)
    return str(caught.value)


def test_without_any_source_the_defaults_hold_and_the_store_lies_in_the_directory():
    settings = load(None, {})
    assert settings.limits == Settings().limits
    assert settings.store.url == "sqlite:var/gnomon.db"


def test_the_later_source_wins_file_then_environment_then_command_line(file):
    path = file("[api]\nport = 1\nhost = '::1'\n[limits]\ndepth_max = 2\n")
    settings = load(path, {"GNOMON_API_PORT": "2", "GNOMON_LIMITS_DEPTH_MAX": "3"}, {"api.port": "4"})
    assert (settings.api.host, settings.api.port, settings.limits.depth_max) == ("::1", 4, 3)


def test_the_file_is_the_one_given_else_the_one_in_the_variable_else_the_one_in_the_working_directory(file):
    Path("gnomon.toml").write_text("[api]\nport = 1\n", encoding="utf-8")
    named = file("[api]\nport = 2\n")
    assert load(None, {}).api.port == 1
    assert load(None, {"GNOMON_CONFIG": str(named)}).api.port == 2
    assert load(named, {"GNOMON_CONFIG": "nowhere.toml"}).api.port == 2


def test_a_wrong_value_names_the_key_the_file_and_what_is_allowed(file):
    path = file("[limits]\ndepth_max = 0\n")
    said = refusal(path, {})
    assert said == f"limits.depth_max ({path}): '0' is not allowed; allowed: a whole number from 1 to 64"


def test_a_wrong_value_names_the_variable_it_came_from():
    said = refusal(None, {"GNOMON_LOGS_LEVEL": "loud"})
    assert "environment variable GNOMON_LOGS_LEVEL" in said
    assert "one of `debug`, `info`, `warning`, `error`" in said


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[limits]\ndept_max = 3\n", "did you mean limits.depth_max?"),
        ("[limit]\ndepth_max = 3\n", "did you mean limits?"),
        ("directroy = 'x'\n", "did you mean directory?"),
    ],
    ids=["key", "section", "top"],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(file, text, nearest):
    assert nearest in refusal(file(text), {})


def test_an_unknown_variable_is_refused_but_those_of_the_test_suite_are_left_alone():
    said = refusal(None, {"GNOMON_API_PROT": "1"})
    assert "did you mean GNOMON_API_PORT?" in said
    assert load(None, {"GNOMON_TEST_BROKER_URL": "x", "PATH": "y"}) == load(None, {})


def test_text_in_a_file_is_not_read_as_a_number(file):
    assert "limits.depth_max" in refusal(file("[limits]\ndepth_max = '6'\n"), {})


def test_a_section_and_a_setting_are_not_mixed_up(file):
    assert "is a section" in refusal(file("limits = 3\n"), {})
    assert "is a setting, not a section" in refusal(file("[directory]\nx = 1\n"), {})


@pytest.mark.parametrize(
    "content",
    [b"[limits\n", b"\xff\xfe", b"# " + b"x" * 1_048_576],
    ids=["not_toml", "not_text", "too_big"],
)
def test_a_file_that_cannot_be_read_as_settings_is_named(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    assert str(path) in refusal(path, {})


def test_a_file_that_was_named_must_exist():
    assert "nowhere.toml" in refusal(Path("nowhere.toml"), {})
    assert "nowhere.toml" in refusal(None, {"GNOMON_CONFIG": "nowhere.toml"})


def test_lists_are_separated_by_commas_outside_files(file):
    assert load(None, {"GNOMON_BROKER_HOSTS": "a, b,"}).broker.hosts == ("a", "b")
    assert load(file("[limits]\ndedup_tokens_ignored = []\n"), {}).limits.dedup_tokens_ignored == ()


@pytest.mark.parametrize("key", [key for key in KEYS.values() if "number from" in key.allowed], ids=str)
def test_every_number_is_taken_at_its_bounds_and_refused_one_beyond(key):
    low, high = (float(word.replace(",", "")) for word in key.allowed.split("from ")[1].split(" to "))
    kind = float if isinstance(key.default, float) else int
    for value in (kind(low), kind(high)):
        assert msgspec.convert(value, key.type) == value
    for value in (kind(low) - 1, kind(high) + 1):
        assert key.dotted in refusal(None, {}, {key.dotted: str(value)})


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        ({"api.compat_http": "true", "api.host": "192.0.2.1"}, "api.compat_http"),
        ({"api.compat_http": "true", "api.host": "example.org"}, "api.compat_http"),
        ({"ota.time_zone": "Mars/Base"}, "ota.time_zone"),
        ({"bridge.inbox_requests_max": "255"}, "bridge.inbox_requests_max"),
        ({"limits.dedup_records_max": "9"}, "limits.dedup_records_max"),
        ({"limits.history_full_every": "485"}, "limits.history_full_every"),
        ({"limits.outbox_entries_max": "115"}, "limits.outbox_entries_max"),
        ({"limits.packet_bytes_max": "261121"}, "limits.packet_bytes_max"),
        ({"broker.packet_bytes_max": "33791", "limits.packet_bytes_max": "1024"}, "limits.request_bytes_max"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_settings_that_contradict_each_other_are_refused_and_one_is_blamed(overrides, blamed):
    assert refusal(None, {}, overrides).startswith(f"{blamed} (")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_unchecked_callers_are_possible_on_loopback_only(host):
    assert load(None, {}, {"api.compat_http": "true", "api.host": host}).api.compat_http


def test_limits_differ_by_the_name_of_the_shadow():
    limits = load(None, {}).limits
    assert [limits.document_bytes_max_of(name) for name in ("", "cfg", "program", "han")] == [
        8_192, 8_192, 16_384, 32_768,
    ]  # fmt: skip


def test_what_is_printed_can_be_loaded_again(file):
    settings = load(None, {}, {"api.port": "9000", "limits.depth_max": "7", "directory": "else where"})
    assert load(file(render_toml(settings)), {}) == settings


def test_what_is_printed_marks_what_is_not_the_default():
    printed = render_toml(load(None, {}, {"limits.depth_max": "7"}))
    assert "depth_max = 7  # default 6" in printed
    assert tomllib.loads(printed)["limits"]["depth_max"] == 7


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://user:hunter2@h:27017/db?w=majority",
        "mongodb://h/db?tlsCertificateKeyFilePassword=hunter2&w=majority",
        "mongodb://h/db?w=majority&authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
        "mongodb+srv://us%40er:hunter2@h/db?w=majority",
    ],
)
def test_credentials_are_printed_nowhere(url):
    settings = load(None, {}, {"store.url": url})
    assert settings.store.url == url
    assert "hunter2" not in render_toml(settings)
    assert "w=majority" in mask(url)
    assert "hunter2" not in refusal(None, {}, {"store.url": "x" + url})


def test_the_page_is_current():
    page = ROOT / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == render_page(), "run `make vectors`"


def test_every_setting_says_what_it_means_and_what_is_allowed():
    assert len(KEYS) == len({key.variable for key in KEYS.values()})
    for key in KEYS.values():
        assert key.meaning.endswith(".")
        assert key.allowed
