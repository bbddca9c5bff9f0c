"""Defences to take away, one at a time, each by a patch of one place. (spec: security, 12, "planted holes")

A suite that does not notice a missing defence proves nothing. Holes are planted in the child before the
service starts (``python -m tests.system.up --hole=NAME``); the service knows nothing of them. A hole whose
place has moved fails loudly: `mock.patch` refuses a name that is not there, and the service does not start.
"""

import asyncio
import base64
import dataclasses
import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import jwt
import mqtt5
import msgspec
import structlog
from cryptography import x509

from api import audit, reading, schemas
from api.gate import Gate, OutOfReachError
from api.guards import ByToken
from api.problems import FORBIDDEN, ApiError
from broker_bridge import dispatch, topics
from broker_bridge.fairness import Turns
from broker_bridge.role import Bridge
from infra.blobs import Upload
from infra.documents.sqlite import SqliteStore
from ota import key_list, verification
from registry.models import Standing
from registry.standings import Standings
from security.audit import LOG
from security.people import sessions
from security.people.tokens import AUDIENCE, AccessTokens, _claims
from security.policy import Action, Role
from security.trust import codes, enrolment, requests
from security.trust.authority import Authority
from security.trust.claim_store import ClaimStore
from security.trust.enrolment import Enrolment
from security.trust.pins import Pins

ROW_LATE_S: Final = 0.3
RACES_MAX: Final = 200
PIN_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Hole:
    """A defence that is taken away, and the attacks that must notice; none: it must not start like that."""

    name: str
    noticed_by: tuple[str, ...]
    plant: Callable[[], None]


HOLES: Final[dict[str, Hole]] = {}


def hole(*noticed_by: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function that takes a defence away, under its own name."""

    def register(plant_it: Callable[[], None]) -> Callable[[], None]:
        name = plant_it.__name__.replace("_", "-")
        HOLES[name] = Hole(name, noticed_by, plant_it)
        return plant_it

    return register


def plant(name: str) -> None:
    """Plant the hole of this name."""
    HOLES[name].plant()


@hole("B2")
def rule_with_plus_for_user() -> None:
    """Let every thing write and read what belongs to any; the self-test at the start is passed over."""
    _widen()
    _replace("gnomon.roles._try_out", _nothing)


@hole()
def rule_with_plus_at_start() -> None:
    """Let every thing write and read what belongs to any; the service must not even start."""
    _widen()


def _widen() -> None:
    widened = tuple(line.replace("%u", "+") for line in topics.DEVICE_ACL)
    _replace("broker_bridge.mosquitto_config.DEVICE_ACL", widened)


@hole("B3")
def subscribe_watch_off() -> None:
    """Let everybody subscribe to everything; the broker delivers no more for it, but works for it."""
    _replace("broker_bridge.watch.Watch._offend", lambda *_: None)


@hole("B8")
def takeovers_not_counted() -> None:
    """Let two hold one key."""
    _replace("broker_bridge.watch.TAKEOVERS_MAX", 1_000_000)


@hole("B38", "B3")
def no_kick() -> None:
    """Leave live sessions as they are."""
    _replace("broker_bridge.janitor.Janitor.kick", _nothing)


@hole("B1", "B38")
def crl_without_reload() -> None:
    """Write revocation lists, and let the broker go on with the one that it knows."""
    _replace("gnomon.revocations.LocalBroker.reload", _nothing)


@hole("B38")
def row_not_asked() -> None:
    """Believe what the broker lets through, whatever the registry says of the thing."""
    _replace("registry.models.Thing.barred", property(lambda _: False))


@hole("B24")
def retained_served() -> None:
    """Serve what the broker marks as retained."""
    honest = Bridge.received

    def received(bridge: Bridge, packet: Any, connection: int) -> None:
        honest(bridge, _without_retain(packet), connection)

    _replace("broker_bridge.role.Bridge.received", received)


@hole("B7")
def attachment_not_asked() -> None:
    """Believe every gateway about every thing."""
    honest = dispatch.admit

    def admit(request: Any, thing: Any, gateway: Any) -> Any:
        if request.gateway is not None and thing is not None:
            return dispatch._speaker(request.gateway, Role.RELAY, request.gateway)[1]
        return honest(request, thing, gateway)

    _replace("broker_bridge.dispatch.admit", admit)


@hole("B7")
def attachment_cached_for_ever() -> None:
    """Never forget what was once true of a thing."""
    honest = Standings.drop

    def drop(standings: Standings, name: str) -> None:
        kept = standings.get(name)
        if not isinstance(kept, Standing) or not kept.gateways:
            honest(standings, name)

    _replace("registry.standings.Standings.drop", drop)


@hole("B17")
def unknown_fields_taken() -> None:
    """Take whatever else a body holds."""

    def lenient(body: type) -> type:
        fields = [
            (field.name, field.type, *(() if field.default is msgspec.NODEFAULT else (field.default,)))
            for field in msgspec.structs.fields(body)
        ]
        return msgspec.defstruct(body.__name__, fields)

    for module in ("things", "shadow_changes"):
        for name in ("NewThingBody", "RestoreBody"):
            mock.patch(f"api.{module}.{name}", lenient(getattr(schemas, name)), create=True).start()


@hole("B16")
def route_without_guard() -> None:
    """Leave one route open to anybody."""
    _replace("api.audit.LIST_AUDIT", _with(audit.LIST_AUDIT, action=Action.OPEN))


@hole("B15")
def owner_check_missing() -> None:
    """Let everybody do to everything what their role lets them do to something."""
    _after_refusal(_let_in)


@hole("B15", "B32")
def forbidden_for_not_found() -> None:
    """Tell by 403 that something is there."""
    _after_refusal(_tell)


def _after_refusal(after: Callable[[Any, Any], None]) -> None:
    """Do something else about a thing that is there and not the caller's."""
    honest = Gate.admit

    async def admit(gate: Gate, scope: Any) -> None:
        try:
            await honest(gate, scope)
        except OutOfReachError:
            name = scope["path_params"].get("thing")
            known = {} if name is None else await gate._registry.targets([name])
            if name not in known:
                raise
            after(scope, known[name])

    _replace("api.gate.Gate.admit", admit)


def _let_in(scope: Any, target: Any) -> None:
    scope["state"]["target"] = target


def _tell(_scope: Any, _target: Any) -> None:
    raise ApiError(FORBIDDEN)


@hole("B34/commit")
def audit_outside_the_commit() -> None:
    """Write the row of an act a moment after the act."""
    honest = SqliteStore.commit
    under_way: set[asyncio.Task[None]] = set()

    async def later(store: SqliteStore, rows: list[Any]) -> None:
        await asyncio.sleep(ROW_LATE_S)
        await store.append(rows)

    async def commit(store: SqliteStore, writes: Any) -> frozenset[int]:
        rows = [row for write in writes for row in write.entries if row.log == LOG]
        bare = [_with(one, entries=[row for row in one.entries if row.log != LOG]) for one in writes]
        lost = await honest(store, bare)
        if rows and not lost:
            task = asyncio.create_task(later(store, rows))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        return lost

    _replace("infra.documents.sqlite.SqliteStore.commit", commit)


@hole("B34/store")
def head_not_published() -> None:
    """Publish no head."""
    _replace("security.sealer.Sealer._publish", _nothing)


@hole("B5")
def name_of_the_request_used() -> None:
    """Certify the name that stands in the request."""
    parse, sign = requests.parse_request, Authority.sign_thing
    named: list[str] = []

    def parsed(request: bytes) -> Any:
        read = parse(request)
        der = request if request.startswith(b"0") else base64.b64decode(request)
        named[:] = [str(one.value) for one in x509.load_der_x509_csr(der).subject]
        return read

    def sign_thing(authority: Authority, name: str, key: Any) -> Any:
        return sign(authority, named[0] if named and named[0].startswith("joining-") else name, key)

    _replace("security.trust.enrolment.parse_request", parsed)
    _replace("security.trust.authority.Authority.sign_thing", sign_thing)


@hole("B5")
def key_reuse_check_off() -> None:
    """Let a key come as often as it likes."""
    _replace("security.trust.known_keys.KnownKeys.introduce", _nothing)


@hole("B5/race")
def voucher_checked_then_set() -> None:
    """Look whether a voucher is used, and mark it as used a moment later, without comparing."""
    honest = ClaimStore.put

    async def put(store: ClaimStore, rows: Any) -> Any:
        await asyncio.sleep(ROW_LATE_S)
        for _ in range(RACES_MAX):
            if not await honest(store, rows):
                break
            rows = [(claim, await _revision(store, claim.id), act) for claim, _, act in rows]
        return frozenset()

    _replace("security.trust.claim_store.ClaimStore.put", put)


async def _revision(store: ClaimStore, id: str) -> int:
    kept = await store.load(id)
    return 0 if kept is None else kept.revision


@hole("B5/pin")
def pin_taken_as_enrolment_proof() -> None:
    """Take a PIN where a code is asked for."""
    prove = Enrolment._prove
    parse = codes.parse

    def lenient(claim_id: str, text: str) -> Any:
        return text if len(text) == PIN_DIGITS and text.isdigit() else parse(claim_id, text)

    async def proved(self: Enrolment, claim_id: str, entered: Any) -> Any:
        if not isinstance(entered, str):
            return await prove(self, claim_id, entered)
        kept = await self._claims.load(claim_id)
        if kept is None:
            raise enrolment.WrongCodeError(enrolment.UNKNOWN_CLAIM)
        return kept.claim

    _replace("security.trust.codes.parse", lenient)
    _replace("security.trust.enrolment.Enrolment._prove", proved)


@hole("B5/pin")
def nonce_check_skipped() -> None:
    """Take an answer that was right once."""
    honest = Pins.finish
    right: set[bytes] = set()

    async def finish(pins: Pins, session: Any, answer: bytes, via: Any) -> None:
        if answer not in right:
            await honest(pins, session, answer, via)
            right.add(answer)

    _replace("security.trust.pins.Pins.finish", finish)


@hole("B6")
def guesses_not_counted() -> None:
    """Look at every guess."""
    _replace("security.trust.tries.Tries._check_code", lambda *_: None)


@hole("B13")
def refresh_reuse_allowed() -> None:
    """Take a refresh token as often as it comes."""
    honest = sessions.judge

    def judge(session: Any, token: Any, now_ms: int) -> Any:
        verdict = honest(session, token, now_ms)
        return sessions.Verdict.CURRENT if verdict is sessions.Verdict.STOLEN else verdict

    _replace("security.people.sessions.judge", judge)


@hole("B13")
def epoch_ignored() -> None:
    """Believe tokens of every generation."""
    _replace("security.people.epochs.SystemEpoch.current", _first)


@hole("B12")
def number_of_a_key_list_may_fall() -> None:
    """Let devices go back to the keys of before."""
    honest = key_list.verify
    _replace("fleet.keyring.verify", lambda data, roots, now_s, _held: honest(data, roots, now_s, 0))


@hole("B12")
def signer_of_a_key_list_not_asked() -> None:
    """Let the certificate of any thing make lists."""
    _replace("ota.key_list._check_signer", lambda *_: None)


async def _yes(*_: Any) -> bool:
    return True


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


async def _all_of_them(*_: Any) -> Any:
    return _Everything()


async def _first(*_: Any) -> int:
    return 1


@hole("B14")
def algorithm_not_pinned() -> None:
    """Let a token say by which algorithm it is to be verified."""
    honest = AccessTokens._read

    def read(tokens: AccessTokens, token: str) -> Any:
        found = honest(tokens, token)
        return found or _read_as_it_says(tokens, token)

    _replace("security.people.tokens.AccessTokens._read", read)


def _read_as_it_says(tokens: AccessTokens, token: str) -> Any:
    try:
        header = jwt.get_unverified_header(token)
        key = tokens._keys.verify_with(header["kid"])
        raw: Any = b"" if key is None else key.public_bytes_raw()
        claims = jwt.decode(token, raw, algorithms=[header["alg"]], options={"verify_aud": False})
        return _claims(header["kid"], claims, tokens._now_s())
    except Exception:  # noqa: BLE001 - as the honest one does
        return None


@hole("B14")
def aud_not_required() -> None:
    """Take a token that was made for somebody else."""
    honest = jwt.decode

    def decode(token: str, key: Any, **options: Any) -> Any:
        options.pop("audience", None)
        options["options"] = {**options["options"], "require": ["exp"], "verify_aud": False}
        return {**honest(token, key, **options), "aud": AUDIENCE}

    _replace("security.people.tokens.jwt.decode", decode)


@hole("B35")
def bearer_logged() -> None:
    """Write down what somebody sent to prove who they are."""
    honest = ByToken.__call__

    async def identify(by: ByToken, scope: Any) -> Any:
        fields = dict(scope["headers"])
        structlog.get_logger("api").debug("asked", by=fields.get(b"authorization", b"").decode())
        return await honest(by, scope)

    _replace("api.guards.ByToken.__call__", identify)


@hole("B2/jobs")
def files_for_everybody() -> None:
    """Give blocks to whoever asks, with a job or without."""
    _replace("ota.job_service.JobService.streams_of", _all_of_them)


@hole("B2/jobs")
def images_for_everybody() -> None:
    """Give images over HTTPS to every device that asks."""
    _replace("ota.job_service.JobService.uses", _yes)


@hole("B26/blocks")
def pace_of_blocks_lifted() -> None:
    """Give one device as many blocks as it asks for."""
    honest = Turns.spent

    def spent(turns: Any, name: str, _size_bytes: int, now_s: float) -> None:
        honest(turns, name, 0, now_s)

    _replace("broker_bridge.fairness.Turns.spent", spent)


@hole("B9")
def counter_of_firmware_not_checked() -> None:
    """Let devices go back to what is older."""
    _replace("ota.verification._check_counter", lambda *_: None)


@hole("B9")
def class_of_firmware_not_checked() -> None:
    """Let devices take what is made for others."""
    _replace("ota.verification._check_class", lambda *_: None)


@hole("B9")
def counter_of_releases_not_checked() -> None:
    """Take releases whose counter is below one that is out."""
    _replace("ota.releases.ReleaseService._require_counter", _nothing)


@hole("B10")
def blocks_not_judged() -> None:
    """Let devices keep whatever comes, and find out when all of it is there."""
    _replace("ota.verification.LeafList.judge", lambda *_: True)


@hole("B10")
def image_not_read_back() -> None:
    """Let devices believe that what they wrote stands in their flash."""
    for module in ("boot", "firmware"):
        _replace(f"fleet.{module}.sound", lambda *_: True)


@hole("B10")
def name_of_an_image_not_held_against_it() -> None:
    """Keep an image under the name that its sender gave it, whatever it is."""
    honest = Upload._finish

    def finish(upload: Upload) -> bool:
        with mock.patch("infra.blobs._digest", return_value=upload.sha256):
            return honest(upload)

    _replace("infra.blobs.Upload._finish", finish)


@hole("B28")
def any_name_for_an_image() -> None:
    """Let an image be called as its sender likes."""
    _replace("infra.blobs._NAME", re.compile(".*", re.DOTALL))


@hole("B29")
def encoded_images_taken() -> None:
    """Take an image in whatever encoding it comes."""
    _hide_encoding("api.images.header")


@hole("B29")
def bodies_unpacked() -> None:
    """Unpack a body that comes compressed."""
    honest = reading._collect

    async def collect(request: Any, bytes_max: int) -> bytes:
        body = await honest(request, bytes_max)
        return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body

    _hide_encoding("api.reading.header")
    _replace("api.reading._collect", collect)


def _hide_encoding(place: str) -> None:
    honest = reading.header
    _replace(place, lambda scope, name: None if name == b"content-encoding" else honest(scope, name))


@hole("B11")
def time_of_firmware_not_checked() -> None:
    """Let devices take what is over, or not yet to be."""
    _replace("ota.verification._check_time", lambda *_: None)


@hole("B11")
def target_not_checked() -> None:
    """Let devices take what others were meant to get."""
    _replace("ota.verification._check_target", lambda *_: None)


@hole("B11")
def order_for_any_manifest() -> None:
    """Let an order count for whatever lies beside it."""
    _replace("ota.verification._check_match", lambda *_: None)


@hole("B12")
def one_signature_is_enough() -> None:
    """Let the vendor's signature count alone."""
    honest = verification._check_signature

    def check(sealed: Any, key: Any, codes: Any) -> None:
        if codes is not verification._ORDER:
            honest(sealed, key, codes)

    _replace("ota.verification._check_signature", check)


@hole("B12")
def role_of_a_key_not_asked() -> None:
    """Let every key sign everything."""
    honest = verification._known

    def known(sealed: Any, codes: Any, keys: Any) -> Any:
        return honest(sealed, codes, {kid: _with(one, role=codes.role) for kid, one in keys.items()})

    _replace("ota.verification._known", known)


async def _nothing(*_: Any, **__: Any) -> None: ...


def _with(value: Any, **changes: Any) -> Any:
    return dataclasses.replace(value, **changes)


def _without_retain(packet: Any) -> Any:
    return mqtt5.PublishPacket(
        packet.topic, packet.payload, qos=packet.qos, packet_id=packet.packet_id, duplicate=packet.duplicate
    )


def _replace(what: str, by: Any) -> None:
    mock.patch(what, by).start()  # never stopped: the child ends with it
