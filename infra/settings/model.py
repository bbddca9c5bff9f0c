"""The definitions: every setting with its type, bounds, default and meaning, and what holds between them.

The only place to add or change a setting. ``Meta.description`` is its meaning; ``Meta.title`` says what is
allowed where type and bounds do not say it well enough.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from infra.documents.checks import BODY_BYTES_MAX
from infra.time_zones import is_time_zone

BROKER_PACKET_MARGIN_BYTES = 1_024
"""Room for a packet's topic and properties beside its payload."""
STAMPS_FACTOR = 14
"""A document with its metadata has at most so many times its bytes: `1,` has a stamp of 25."""

_Bytes = Annotated[int, Meta(ge=256, le=268_435_456)]
_Seconds = Annotated[int, Meta(ge=1, le=31_536_000)]


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where shadows, things and audit rows are kept."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^(sqlite:.+|mongodb(\+srv)?://.+|memory:)$",
            title="`sqlite:<file>`, `mongodb://…`, `mongodb+srv://…` or `memory:`",
            description="`{directory}` stands for the setting of that name. `memory:` keeps nothing: for "
            "simulations only.",
        ),
    ] = "sqlite:{directory}/gnomon.db"


class BrokerSettings(Struct, frozen=True, kw_only=True):
    """The Mosquitto child process and its listeners."""

    executable: Annotated[
        str, Meta(min_length=1, description="Mosquitto: a path, or a name to look up in PATH.")
    ] = "mosquitto"
    plugin: Annotated[
        str,
        Meta(
            title="a path; empty = where packages put it",
            description="Mosquitto's `mosquitto_dynamic_security.so`, by which live sessions are ended.",
        ),
    ] = ""
    listen: Annotated[
        str, Meta(min_length=1, description="Address the device listener binds; `0.0.0.0` = all networks.")
    ] = "127.0.0.1"
    hosts: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            min_length=1,
            max_length=32,
            description="Names and addresses that devices connect to; the server certificate carries them.",
        ),
    ] = ("localhost", "127.0.0.1")
    device_port: Annotated[int, Meta(ge=0, le=65_535, description="Mutual TLS. 0 = any free port.")] = 8883
    service_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Loopback only, for our own processes. 0 = any free port.")
    ] = 0
    connections_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Devices connected at once; each takes one descriptor.")
    ] = 10_000
    packet_bytes_max: Annotated[
        int, Meta(ge=4_096, le=268_435_455, description="Largest MQTT packet the broker takes or sends.")
    ] = 262_144


class ApiSettings(Struct, frozen=True, kw_only=True):
    """The REST API."""

    host: Annotated[str, Meta(min_length=1, description="Address to bind.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="0 = any free port.")] = 8080
    device_host: Annotated[
        str, Meta(min_length=1, description="Address the HTTPS listener of devices binds.")
    ] = "127.0.0.1"
    device_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="Enrolment, and shadows by certificate. Its server certificate carries "
            "`broker.hosts`. 0 = any free port.",
        ),
    ] = 8443
    tls: Annotated[
        bool,
        Meta(
            description="Speak TLS with people on a loopback address too. On any other it is always spoken, "
            "with a certificate for `broker.hosts`."
        ),
    ] = False
    compat_http: Annotated[
        bool,
        Meta(
            description="Take AWS SigV4 headers without checking them, so that suites made for the cloud "
            "run. Whoever reaches the port has full rights: refused unless `api.host` is a loopback address."
        ),
    ] = False


class TrustSettings(Struct, frozen=True, kw_only=True):
    """The Trust Center: certificates and who may have one."""

    production: Annotated[
        bool,
        Meta(
            description="No start while the root's key is within reach, and no authority is made by itself: "
            "`gnomon ca init`, `gnomon ca move-root`."
        ),
    ] = False
    wide_names: Annotated[
        bool,
        Meta(description="Also certify names with `:` and `_`, for a fleet that has such names already."),
    ] = False


class PeopleSettings(Struct, frozen=True, kw_only=True):
    """Accounts of people and systems."""

    demo: Annotated[
        bool,
        Meta(
            description="Make an account for each role at the start, its credentials in files below "
            "`directory`: for demonstrations and tests. `gnomon demo` sets it."
        ),
    ] = False


class AuditSettings(Struct, frozen=True, kw_only=True):
    """The audit chain."""

    heads_file: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where signed heads of the audit chain are published, their public key beside them. "
            "`{directory}` stands for the setting of that name. Only what whoever writes the store cannot "
            "write shows a chain that was cut or made anew: put it on another mount.",
        ),
    ] = "{directory}/audit/heads.jsonl"


Precondition = Literal["METER_NOT_INSTALLED", "AMI_NOT_OPERATIONAL", "METER_NOT_COMMUNICATING"]


class ProvisioningSettings(Struct, frozen=True, kw_only=True):
    """How equipment gets in."""

    utility_install: Annotated[
        bool, Meta(description="The utility's installers bring equipment in, by work order.")
    ] = True
    customer_install: Annotated[
        bool,
        Meta(description="What customers have bought and installed is taken, by telephone or in the app."),
    ] = True
    join_mode: Annotated[
        Literal["grants", "open"],
        Meta(
            description="`grants`: while a join window is open, only equipment whose code was entered joins. "
            "`open`: any does; what has not proved itself still takes no part."
        ),
    ] = "grants"
    ami_operational: Annotated[
        bool, Meta(description="The metering network works; while it does not, no session opens by a meter.")
    ] = True
    preconditions_meter: Annotated[
        tuple[Precondition, ...],
        Meta(
            max_length=3,
            title="some of `METER_NOT_INSTALLED`, `AMI_NOT_OPERATIONAL`, `METER_NOT_COMMUNICATING`",
            description="What keeps a session from opening where a meter is the only way in.",
        ),
    ] = ("METER_NOT_INSTALLED", "AMI_NOT_OPERATIONAL", "METER_NOT_COMMUNICATING")
    preconditions_other: Annotated[
        tuple[Precondition, ...],
        Meta(
            max_length=3,
            title="some of the same",
            description="The same where there is a gateway of another kind.",
        ),
    ] = ()
    sessions_open_max: Annotated[
        int, Meta(ge=1, le=10_000, description="Sessions one person may have open at a time.")
    ] = 20
    searches_hour_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Customers one representative may search for in an hour; as many may be verified.",
        ),
    ] = 50


class CareSettings(Struct, frozen=True, kw_only=True):
    """The customer care system: who the customers are, and who is told what was provisioned."""

    adapter: Annotated[
        Literal["embedded", "http"],
        Meta(description="One of our own in the same store, or another system over HTTP."),
    ] = "embedded"
    url: Annotated[
        str,
        Meta(
            title="an address that begins with `https://`; empty for the embedded one",
            description="What `customer-searches`, `customers/{ref}` and `records` are appended to.",
        ),
    ] = ""
    authorities_file: Annotated[
        str,
        Meta(
            title="a path; empty = those of the operating system",
            description="Authorities (PEM) that its certificate is checked against.",
        ),
    ] = ""
    token_file: Annotated[
        str,
        Meta(
            title="a path; empty = no token",
            description="A file that only we can read, with the bearer token to show.",
        ),
    ] = ""
    certificate_file: Annotated[
        str,
        Meta(title="a path; empty = no certificate", description="The certificate (PEM) to show instead."),
    ] = ""
    key_file: Annotated[
        str, Meta(title="a path", description="Its key (PEM), in a file that only we can read.")
    ] = ""
    fields: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^[a-z]+(\.[a-z]+)?=[^=\s]{1,200}$")], ...],
        Meta(
            max_length=32,
            title="a list of up to 32 texts `ours=theirs`",
            description="What its answers call our fields, where it differs: `account.number=contract.no` "
            "reads `no` in `contract`, `account.address=site.street+site.town` joins two.",
        ),
    ] = ()


class BridgeSettings(Struct, frozen=True, kw_only=True):
    """The process part between broker and shadows."""

    cache_bytes_max: Annotated[
        int,
        Meta(ge=1_048_576, le=1_099_511_627_776, description="Memory for parsed shadow documents."),
    ] = 268_435_456
    batch_messages_max: Annotated[
        int, Meta(ge=1, le=10_000, description="Requests decided together and made durable by one commit.")
    ] = 1_024
    inbox_requests_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Requests that may wait; above it the answer is 429.")
    ] = 20_000


class OtaSettings(Struct, frozen=True, kw_only=True):
    """Firmware over the air: what a campaign does unless it says otherwise, and what none may go beyond."""

    deadline_s: Annotated[
        int,
        Meta(ge=30, le=3_600, description="A device has so long from its start to its new image, healthy."),
    ] = 300
    devices_per_hour: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Offers an hour of a campaign that names no pace.")
    ] = 10_000
    devices_per_hour_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="No campaign is faster: its order says so to devices.")
    ] = 200_000
    in_flight: Annotated[
        int,
        Meta(ge=1, le=20_000, description="Devices at work at once of a campaign that names no number."),
    ] = 833
    in_flight_max: Annotated[int, Meta(ge=1, le=20_000, description="No campaign has more at once.")] = 10_000
    start_grace_s: Annotated[
        int, Meta(ge=10, le=3_600, description="An offer that was not begun by then is taken back.")
    ] = 120
    confirm_s: Annotated[
        int, Meta(ge=10, le=3_600, description="So long a new image may take to show that it is well.")
    ] = 60
    health_s: Annotated[
        int,
        Meta(ge=10, le=3_600, description="So long the claim waits for the report, and the other way round."),
    ] = 60
    soak_s: Annotated[
        int, Meta(ge=0, le=604_800, description="So long a wave is watched before the next one opens.")
    ] = 900
    pause_ttl_s: Annotated[
        int, Meta(ge=60, le=2_592_000, description="A campaign that is paused for longer is aborted.")
    ] = 86_400
    retries: Annotated[int, Meta(ge=0, le=10, description="Tries more for a device that fails.")] = 2
    order_days: Annotated[
        int, Meta(ge=1, le=90, description="So long an order holds; devices refuse it afterwards.")
    ] = 30
    time_zone: Annotated[
        str,
        Meta(
            min_length=1,
            title="a name of the IANA time zone database",
            description="Local time of the premises that have none of their own: hours of the day are meant"
            " in it.",
        ),
    ] = "UTC"


class TelemetrySettings(Struct, frozen=True, kw_only=True):
    """Traces of an update's journey. Metrics are always on: `GET /v1/metrics`."""

    traces: Annotated[
        Literal["off", "console", "file"],
        Meta(description="Where spans go: nowhere, standard error, or `traces.jsonl` in `directory`."),
    ] = "off"
    sample_ratio: Annotated[
        float, Meta(ge=0.0, le=1.0, description="Share of the requests that are traced, 0 to 1.")
    ] = 0.01


class LogSettings(Struct, frozen=True, kw_only=True):
    """Structured events on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe event shown.")
    ] = "info"
    format: Annotated[
        Literal["console", "json"], Meta(description="For eyes, or one JSON object a line.")
    ] = "console"


class ShadowLimits(Struct, frozen=True, kw_only=True):
    """The bounds of the shadow service; every one is answered for when it is reached."""

    document_bytes_max: Annotated[
        _Bytes,
        Meta(description="`desired` + `reported` of one shadow after the merge: compact JSON, no metadata."),
    ] = 8_192
    document_bytes_max_program: Annotated[_Bytes, Meta(description="The same for the shadow `program`.")] = (
        16_384
    )
    document_bytes_max_han: Annotated[_Bytes, Meta(description="The same for the shadow `han`.")] = 32_768
    depth_max: Annotated[
        int, Meta(ge=1, le=64, description="Levels of nesting; `desired` or `reported` is level 1.")
    ] = 6
    token_bytes_max: Annotated[int, Meta(ge=1, le=1_024, description="Bytes of a client token.")] = 64
    request_bytes_max: Annotated[_Bytes, Meta(description="Bytes of a request as it arrives.")] = 32_768
    in_flight_max: Annotated[
        int, Meta(ge=1, le=10_000, description="Requests of one thing without answer; above it 429.")
    ] = 10
    named_shadows_max: Annotated[
        int, Meta(ge=0, le=1_000, description="Named shadows of one thing, deleted ones not counted.")
    ] = 20
    dedup_records_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000,
            description="Last tokens a shadow knows again.",
        ),
    ] = 32
    dedup_age_s: Annotated[_Seconds, Meta(description="How long a token is known again.")] = 86_400
    dedup_tokens_ignored: Annotated[
        tuple[Annotated[str, Meta(max_length=1_024)], ...],
        Meta(
            max_length=64,
            description="Tokens that count as none, because a client library sends them always.",
        ),
    ] = ("empty",)
    outbox_entries_max: Annotated[
        int,
        Meta(ge=1, le=1_000, description="Versions of one shadow that wait for the broker; above it 503."),
    ] = 32
    outbox_sweep_s: Annotated[
        int, Meta(ge=1, le=3_600, description="Sent entries leave after this many seconds at the latest.")
    ] = 5
    history_versions_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Versions of one shadow that are kept.")
    ] = 1_000
    history_age_d: Annotated[int, Meta(ge=1, le=36_500, description="Days that a version is kept.")] = 400
    history_age_d_han: Annotated[
        int,
        Meta(ge=1, le=36_500, description="The same for the shadow `han`, which tells what is in a home."),
    ] = 1
    history_full_every: Annotated[
        int,
        Meta(ge=1, le=10_000, description="Every n-th version is kept whole, those between as what changed."),
    ] = 64
    answer_expiry_s: Annotated[
        _Seconds, Meta(description="Seconds the broker keeps an answer for a thing that is away.")
    ] = 300
    delta_expiry_s: Annotated[_Seconds, Meta(description="The same for a delta.")] = 3_600
    catchup_interval_s: Annotated[
        int, Meta(ge=1, le=3_600, description="Seconds between two catch-up deltas of one shadow.")
    ] = 5
    catchup_rate_max: Annotated[
        int,
        Meta(
            ge=1, le=100_000, description="Catch-up deltas a second, so that a herd of reconnects is paced."
        ),
    ] = 500
    packet_bytes_max: Annotated[
        int,
        Meta(
            ge=1_024,
            le=268_435_455,
            description="A `documents` message above it is left out and counted.",
        ),
    ] = 261_120
    save_attempts_max: Annotated[
        int, Meta(ge=1, le=100, description="Tries to win against other writers; then 503.")
    ] = 5
    poison_tries_max: Annotated[
        int,
        Meta(ge=1, le=100, description="Tries of a request that was in hand when the process died."),
    ] = 3

    def document_bytes_max_of(self, shadow_name: str) -> int:
        """Return the bound for a shadow by its name; "" is the classic one."""
        match shadow_name:
            case "program":
                return self.document_bytes_max_program
            case "han":
                return self.document_bytes_max_han
            case _:
                return self.document_bytes_max


class Settings(Struct, frozen=True, kw_only=True):
    """All settings."""

    directory: Annotated[Path, Meta(description="Everything we write lies below this folder.")] = Path("var")
    store: StoreSettings = field(default_factory=StoreSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    people: PeopleSettings = field(default_factory=PeopleSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    care: CareSettings = field(default_factory=CareSettings)
    bridge: BridgeSettings = field(default_factory=BridgeSettings)
    provisioning: ProvisioningSettings = field(default_factory=ProvisioningSettings)
    ota: OtaSettings = field(default_factory=OtaSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    logs: LogSettings = field(default_factory=LogSettings)
    limits: ShadowLimits = field(default_factory=ShadowLimits)


@dataclass(frozen=True, slots=True)
class Relation:
    """What must hold between settings; ``key`` is the one to blame."""

    key: str
    allowed: str
    holds: Callable[[Settings], bool]


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _private(url: str) -> bool:
    """Whether nobody else hears what is said there."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _largest_body(limits: ShadowLimits) -> int:
    largest = max(map(limits.document_bytes_max_of, ("", "program", "han")))
    return STAMPS_FACTOR * largest + limits.outbox_entries_max * limits.request_bytes_max


RELATIONS = (
    Relation(
        "people.demo",
        "false unless `api.host` is a loopback address, and in production: the credentials lie in files",
        lambda s: not s.people.demo or (is_loopback(s.api.host) and not s.trust.production),
    ),
    Relation(
        "api.compat_http",
        "false unless `api.host` is a loopback address: callers are not checked",
        lambda s: not s.api.compat_http or is_loopback(s.api.host),
    ),
    Relation(
        "care.url",
        "set with `care.adapter` `http`, and begin with `https://` unless its host is a loopback address: "
        "it carries names and addresses",
        lambda s: s.care.adapter == "embedded" or _private(s.care.url),
    ),
    Relation(
        "care.key_file",
        "set if and only if `care.certificate_file` is",
        lambda s: bool(s.care.key_file) == bool(s.care.certificate_file),
    ),
    Relation(
        "bridge.inbox_requests_max",
        "at least `bridge.batch_messages_max`",
        lambda s: s.bridge.inbox_requests_max >= s.bridge.batch_messages_max,
    ),
    Relation(
        "ota.devices_per_hour",
        "at most `ota.devices_per_hour_max`",
        lambda s: s.ota.devices_per_hour <= s.ota.devices_per_hour_max,
    ),
    Relation(
        "ota.in_flight",
        "at most `ota.in_flight_max`",
        lambda s: s.ota.in_flight <= s.ota.in_flight_max,
    ),
    Relation(
        "ota.time_zone",
        "a name that the IANA time zone database of this machine knows",
        lambda s: is_time_zone(s.ota.time_zone),
    ),
    Relation(
        "limits.dedup_records_max",
        "at least `limits.in_flight_max`, or a repeated request may be applied twice",
        lambda s: s.limits.dedup_records_max >= s.limits.in_flight_max,
    ),
    Relation(
        "limits.history_full_every",
        "at most half of what `limits.history_versions_max` leaves beside `limits.outbox_entries_max`, or "
        "what is undelivered could outlive the versions it is told from",
        lambda s: (
            2 * s.limits.history_full_every + s.limits.outbox_entries_max <= s.limits.history_versions_max
        ),
    ),
    Relation(
        "limits.outbox_entries_max",
        f"so that as many requests and {STAMPS_FACTOR} times the largest document fit into one stored body "
        f"({BODY_BYTES_MAX:,} bytes)",
        lambda s: _largest_body(s.limits) <= BODY_BYTES_MAX,
    ),
    Relation(
        "limits.request_bytes_max",
        f"at least {BROKER_PACKET_MARGIN_BYTES:,} below `broker.packet_bytes_max`",
        lambda s: s.limits.request_bytes_max <= s.broker.packet_bytes_max - BROKER_PACKET_MARGIN_BYTES,
    ),
    Relation(
        "limits.packet_bytes_max",
        f"at least {BROKER_PACKET_MARGIN_BYTES:,} below `broker.packet_bytes_max`",
        lambda s: s.limits.packet_bytes_max <= s.broker.packet_bytes_max - BROKER_PACKET_MARGIN_BYTES,
    ),
)
