"""The registration PIN (IEEE 2030.5): how a device that has its certificate sees that we are its utility.

A PIN has 100,000 values, so it is no secret to anyone who can try it. It proves nothing towards us that a
certificate could be given for; it lets the *device* refuse a server that does not know it::

    device -> server   nonce d (16 bytes)
    server -> device   HMAC(PIN + LFDI, d), nonce s        the server proves first
    device -> server   HMAC(PIN + LFDI, s + d)             only if the server was right

The LFDI is that of the certificate in this TLS session. A server that does not know the PIN has one guess a
nonce and nothing to compute with. The two messages differ in length, so neither
can be sent back as the other.
"""

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec

from infra.clock import Clock
from infra.documents.port import Collection, DocumentStore, Write
from security import audit
from security.audit import Refusals, Via
from security.policy import Action, Principal
from security.secret import Secret
from security.secretbox import SecretBox
from security.trust.identifiers import pin_is_valid
from security.trust.issued import IssuedRecord, IssuedStore
from security.trust.proofs import Proofs

PINS: Final = Collection("pins")
NONCE_BYTES: Final = 16
PROOF_BYTES: Final = 32
WRONG_MAX: Final = 3
"""Wrong answers after which an exchange with this thing waits for :data:`STOP_S`; devices count alike."""
STOP_S: Final = 3_600.0
OPEN_S: Final = 60.0
"""How long an exchange may take."""
THINGS_MAX: Final = 16_384
"""Exchanges that are remembered; then the oldest is forgotten."""
KEEP_ATTEMPTS_MAX: Final = 5


class PinError(Exception):
    """Nothing was proved."""


class InvalidPinError(PinError):
    """This can be no PIN."""

    def __init__(self) -> None:
        super().__init__("a PIN has six digits, the last of which makes their sum a multiple of ten")


class NoPinError(PinError):
    """No PIN is known for whoever asks, or not for this certificate."""

    def __init__(self) -> None:
        super().__init__("no PIN is known for this device: enter the one on its label first")


class WrongPinError(PinError):
    """The answer does not come from who knows the PIN, or to no question of ours."""

    def __init__(self) -> None:
        super().__init__("this is not the answer to our question")


class PinStoppedError(PinError):
    """Too many wrong answers."""

    def __init__(self, retry_s: float) -> None:
        super().__init__(f"{WRONG_MAX} wrong answers: wait, and compare the PIN with the label")
        self.retry_s = retry_s


class PinBusyError(PinError):
    """Others changed it at the same time: the caller may try again."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Our proof, and the question that the device must answer."""

    proof: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    sealed: str
    sfdi: str = ""
    registration: int = 1
    """Of the thing: the next one of its name has another label."""


@dataclass(slots=True)
class _Exchange:
    """Where the exchange with one thing stands."""

    serial: str = ""
    theirs: bytes = b""
    ours: bytes = b""
    until_s: float = 0.0
    wrong: int = 0
    stopped_until_s: float = 0.0


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Kept).decode


def server_proof(pin: Secret, lfdi: str, theirs: bytes) -> bytes:
    """Return what only a server that knows the PIN can say to this nonce in this session."""
    return _mac(pin, lfdi, theirs)


def device_answer(pin: Secret, lfdi: str, theirs: bytes, ours: bytes) -> bytes:
    """Return what only a device that knows the PIN can say to our nonce and its own, ``ours``."""
    return _mac(pin, lfdi, theirs + ours)


def _mac(pin: Secret, lfdi: str, message: bytes) -> bytes:
    return hmac.digest(pin.reveal().encode() + bytes.fromhex(lfdi), message, hashlib.sha256)


class Pins:
    """Keeps PINs, sealed, and carries out the exchange."""

    def __init__(
        self,
        store: DocumentStore,
        *,
        issued: IssuedStore,
        proofs: Proofs,
        box: SecretBox,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self._store = store
        self._issued = issued
        self._proofs = proofs
        self._box = box
        self._refusals = refusals
        self._clock = clock
        self._exchanges: OrderedDict[tuple[str, int], _Exchange] = OrderedDict()

    async def keep(self, thing: str, pin: Secret, by: Principal, via: Via, sfdi: str = "") -> None:
        """Keep the PIN of a thing in place of an earlier one.

        ``sfdi``, if it was entered with the PIN, must be one the thing has or had: else nothing is proved.
        """
        if not pin_is_valid(pin.reveal()):
            raise InvalidPinError
        placing = await self._proofs.placing(thing, fresh=True)
        # Of a thing that has gone meanwhile: a registration that there never is.
        registration = 0 if placing is None else placing.registration
        sealed = base64.b64encode(self._box.seal(pin.reveal().encode(), _place(thing))).decode()
        kept = _Kept(sealed, sfdi, registration)
        for _ in range(KEEP_ATTEMPTS_MAX):
            document = (await self._store.get(PINS.name, [thing])).get(thing)
            revision = 0 if document is None else document.revision
            row = audit.act(
                by,
                via,
                Action.INSTALL_CODE_WRITE,
                f"pin/{thing}",
                at_ms=self._clock.now_ms(),
                before=revision,
                after=revision + 1,
            )
            entry = audit.entry(row, revision + 1, life=0)
            if not await self._store.commit(
                [Write(PINS.name, thing, revision, _encode(kept), entries=(entry,))]
            ):
                return
        raise PinBusyError("others change this PIN at the same time: try again")

    async def begin(self, session: IssuedRecord, nonce: bytes) -> Challenge:
        """Prove to a device that we know its PIN, and ask whether it does."""
        exchange = self._exchange(session)
        if len(nonce) != NONCE_BYTES:
            raise WrongPinError
        pin = await self._pin(session)
        exchange.serial, exchange.theirs = session.serial, nonce
        exchange.ours = secrets.token_bytes(NONCE_BYTES)
        exchange.until_s = self._clock.elapsed_s() + OPEN_S
        return Challenge(server_proof(pin, session.lfdi, nonce), exchange.ours)

    async def finish(self, session: IssuedRecord, answer: bytes, via: Via) -> None:
        """Take the device's answer; a right one is reported as a proof, and is never more than that."""
        exchange = self._exchange(session)
        pin = await self._pin(session)
        asked = exchange.serial == session.serial and self._clock.elapsed_s() < exchange.until_s
        expected = device_answer(pin, session.lfdi, exchange.ours, exchange.theirs)
        # Each question is answered once, rightly or not.
        exchange.until_s = 0.0
        if not hmac.compare_digest(answer, expected) or not asked:
            self._wrong(exchange, session, via)
        exchange.wrong = 0
        await self._proofs.proof_accepted(session.thing, "pin", session.serial)

    def _wrong(self, exchange: _Exchange, session: IssuedRecord, via: Via) -> None:
        exchange.wrong += 1
        if exchange.wrong >= WRONG_MAX:
            exchange.stopped_until_s = self._clock.elapsed_s() + STOP_S
            exchange.wrong = 0
        # The device is known by its certificate, and which role it has in the table does not matter here.
        self._refusals.note(audit.NOBODY, via, "pin.answer", f"pin/{session.thing}", "WrongPinError")
        raise WrongPinError

    def _exchange(self, session: IssuedRecord) -> _Exchange:
        one = session.thing, session.registration
        exchange = self._exchanges.setdefault(one, _Exchange())
        self._exchanges.move_to_end(one)
        if len(self._exchanges) > THINGS_MAX:
            self._exchanges.popitem(last=False)
        wait_s = exchange.stopped_until_s - self._clock.elapsed_s()
        if wait_s > 0:
            raise PinStoppedError(wait_s)
        return exchange

    async def _pin(self, session: IssuedRecord) -> Secret:
        document = (await self._store.get(PINS.name, [session.thing])).get(session.thing)
        if document is None:
            raise NoPinError
        kept = _decode(document.body)
        if kept.registration != session.registration:
            raise NoPinError
        if kept.sfdi and not await self._has_sfdi(session, kept.sfdi):
            raise NoPinError
        sealed = base64.b64decode(kept.sealed)
        return Secret(self._box.open_sealed(sealed, _place(session.thing)).decode())

    async def _has_sfdi(self, session: IssuedRecord, sfdi: str) -> bool:
        named = await self._issued.by_sfdi(sfdi)
        return any((one.thing, one.registration) == (session.thing, session.registration) for one in named)


def _place(thing: str) -> str:
    return f"pins/{thing}/pin"
