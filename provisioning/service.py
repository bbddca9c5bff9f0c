"""The provisioning session as people work with it: one compare-and-set of one document an act.

What an act means for the document is in ``acts``; what follows from it is wanted by ``advance`` and carried
out by the reconciler, at once here and again by whatever process looks next. Who may call is the caller's
table of actions; what only this domain knows is asked here: a live verification, an open work order, the
policy. (spec: han, 5)
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from infra.clock import Clock
from infra.documents.port import Entry, StoreError
from infra.documents.records import SAVE_ATTEMPTS_MAX, Kept
from infra.ids import Ids
from infra.settings.model import ProvisioningSettings
from provisioning import acts, remedies
from provisioning.acts import Assignment, Choice
from provisioning.asking import Ask
from provisioning.errors import (
    GatewayCapacityError,
    IdempotencyMismatchError,
    IneligiblePairsError,
    InstallCodeCrcError,
    InvalidRequestError,
    PinChecksumError,
    PolicyOffError,
    PreconditionError,
    RevisionConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
    TooManySessionsError,
)
from provisioning.executor import Executor
from provisioning.grants import LinkKeys
from provisioning.observed import Route
from provisioning.observing import Observing
from provisioning.ports import Candidate, Programs, WillNotWorkError
from provisioning.preconditions import failing
from provisioning.reconciler import Reconciler
from provisioning.remedies import Fitting, Remedy
from provisioning.session import (
    GRANTS_MAX,
    KEYS_MAX,
    Cause,
    Consent,
    Expected,
    Grant,
    GrantState,
    Mode,
    Priority,
    Proof,
    Session,
    SessionDevice,
    UsedKey,
    touch,
)
from provisioning.states import DeviceState, SessionState
from provisioning.store import SessionPage, SessionStore
from provisioning.tries import ProofTries
from provisioning.verifications import Verifications
from provisioning.work_orders import WorkOrders
from registry.errors import PremisesNotFoundError
from registry.gateways import GatewayService
from registry.meters import MeterService
from registry.service import RegistryService
from registry.states import Lifecycle
from security import audit
from security.policy import Action, Role
from security.secret import Secret
from security.trust.codes import InvalidCodeError, MistypedCodeError
from security.trust.identifiers import pin_is_valid
from security.trust.issued import IssuedStore
from security.trust.pins import Pins

MS_PER_S: Final = 1_000

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """For whom a session is opened, and by what right."""

    premises: str
    account: str
    verification: str = ""
    work_order: str = ""
    case: str = ""
    take_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGrant:
    """A proof as it was entered: ``device`` is an EUI-64, or for a PIN the SFDI."""

    device: str
    proof: Proof
    value: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """How discovery is to be made."""

    priority: Priority = Priority.NORMAL
    gateway: str = ""
    not_before_ms: int = 0
    expected: tuple[Expected, ...] = ()
    grants: tuple[NewGrant, ...] = ()


class SessionService:
    """Carries out what people do in sessions."""

    def __init__(
        self,
        *,
        sessions: SessionStore,
        reconciler: Reconciler,
        observing: Observing,
        executor: Executor,
        registry: RegistryService,
        gateways: GatewayService,
        meters: MeterService,
        verifications: Verifications,
        tries: ProofTries,
        work_orders: WorkOrders,
        programs: Programs,
        keys: LinkKeys,
        pins: Pins,
        issued: IssuedStore,
        clock: Clock,
        ids: Ids,
        settings: ProvisioningSettings,
        offers: Sequence[Remedy] | None = None,
    ) -> None:
        self._sessions = sessions
        self._reconciler = reconciler
        self._observing = observing
        self._executor = executor
        self._registry = registry
        self._gateways = gateways
        self._meters = meters
        self._verifications = verifications
        self._tries = tries
        self._work_orders = work_orders
        self._programs = programs
        self._keys = keys
        self._pins = pins
        self._issued = issued
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._offers = tuple(remedies.built_in() if offers is None else offers)

    async def run(self) -> None:
        """Keep all sessions moving, until cancelled."""
        await self._reconciler.run()

    # Reading

    async def session(self, id: str) -> Session:
        """Return a session that was opened."""
        return (await self._kept(id)).record

    async def devices(self, id: str) -> tuple[SessionDevice, ...]:
        """Return the devices of a session, in a fixed order."""
        return tuple(one for _, one in sorted((await self.session(id)).devices.items()))

    async def at(self, premises: str, limit: int, cursor: str | None = None) -> SessionPage:
        """Return a page of the sessions that were opened for premises, those that are over too."""
        return await self._sessions.at(premises, limit, cursor)

    async def options(self, id: str) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Return for each device why it does not fit, by program: nothing where it does."""
        session = await self.session(id)
        able = [one for _, one in sorted(session.devices.items()) if one.state in acts.CHOSEN]
        return {one.eui64: await self._programs.weigh(_candidate(session, one)) for one in able}

    async def remedies(self, id: str) -> tuple[Fitting, ...]:
        """Return what would help where nothing is recognised; nothing where something is."""
        session = await self.session(id)
        if session.cause is None:
            return ()
        routes = await self._observing.routes(session.premises)
        wanted = await self._wanted(session, session.cause, routes)
        return remedies.fitting(session.cause, routes, wanted, self._offers)

    # Opening

    async def open(self, new: NewSession, ask: Ask) -> Session:
        """Open a session, or find the one that was opened under this key.

        Raises:
            PolicyOffError, VerificationMissingError, VerificationExpiredError, WorkOrderMissingError,
            PreconditionError, SessionExistsError, TooManySessionsError: as they say.
        """
        id = ask.id("ps-")
        kept = await self._sessions.load(id)
        if kept is not None and kept.record.is_visible:
            self._is_repeat(kept.record, ask)  # refuses what was opened for another request
            return kept.record
        self._check_policy(ask)
        await self._check_right(new, ask)
        await self._check_ready(new)
        opener = ask.by.name
        at_most = self._settings.sessions_open_max
        if kept is None and await self._sessions.open_of(opener, at_most) >= at_most:
            raise TooManySessionsError(at_most)
        if new.take_over:
            await self._take_over(new.premises, ask)
        if kept is None:
            await self._make(id, new, ask)
        await self._reconciler.reconcile(id)
        return await self._opened(id, new.premises)

    async def _make(self, id: str, new: NewSession, ask: Ask) -> None:
        now_ms = self._clock.now_ms()
        made = Session(
            id=id,
            premises=new.premises,
            account=new.account,
            state=SessionState.OPENING,
            opened_by=ask.by.name,
            opened_at_ms=now_ms,
            case=new.case,
            verification=new.verification,
            work_order=new.work_order,
            keys=(UsedKey(ask.key_hash, ask.digest),),
            due_ms=now_ms,
        )
        # A second one of the same key has lost here, and finds the first.
        await self._sessions.put(made, 0, self._entry(ask, Action.SESSION_WORK, made, 0, "open"))

    async def _opened(self, id: str, premises: str) -> Session:
        """Return the session if the premises are its own; what never was open says who holds them."""
        kept = await self._sessions.load(id)
        if kept is not None and (not kept.record.is_visible or kept.record.never_opened):
            holder = (await self._registry.premises(premises)).open_session
            await self._sessions.drop(id, kept.revision)
            if holder and holder != id:
                raise SessionExistsError(holder)
            raise SessionBusyError
        return await self.session(id)

    async def _take_over(self, premises: str, ask: Ask) -> None:
        holder = (await self._registry.premises(premises)).open_session
        if not holder or await self._executor.is_finished(holder):
            return
        over = replace(ask, if_match=None)
        now_ms = self._clock.now_ms()
        await self._act(
            holder,
            over,
            Action.SESSION_TAKE_OVER,
            lambda before: acts.abort(before, "taken over", now_ms, ask.by.name),
        )

    def _check_policy(self, ask: Ask) -> None:
        policy = "utility_install" if ask.by.role is Role.INSTALLER else "customer_install"
        if not getattr(self._settings, policy):
            raise PolicyOffError(policy)

    async def _check_right(self, new: NewSession, ask: Ask) -> None:
        """Make sure of the right that only this domain knows, and that the account has these premises."""
        if ask.by.role is Role.INSTALLER:
            await self._work_orders.require(new.work_order, new.premises, ask.by)
        elif ask.by.role is not Role.CUSTOMER:
            await self._verifications.require(new.verification, new.account, ask.by)
        place = await self._registry.premises(new.premises)
        own = ask.by.role is not Role.CUSTOMER or place.account == ask.by.account
        if place.account == "" or place.account != new.account or not own:
            raise PremisesNotFoundError(new.premises)

    async def _check_ready(self, new: NewSession) -> None:
        if new.work_order:
            return  # an installer may come before the meter
        gateways = await self._gateways.at(new.premises)
        meters = await self._meters.at(new.premises)
        codes = failing(gateways, meters, self._settings, self._clock.now_ms())
        if codes:
            raise PreconditionError(codes)

    # Discovery

    async def discover(self, id: str, how: Discovery, ask: Ask) -> Session:
        """Begin to look for equipment, in the best HAN of the premises or in the one that is named."""
        session = await self.session(id)
        if self._is_repeat(session, ask):
            return session
        gateway = await self._gateway(session, how.gateway)
        if len(how.grants) > GRANTS_MAX:
            raise InvalidRequestError(f"at most {GRANTS_MAX} grants of one window")
        grants = [await self._grant(one) for one in how.grants]
        await self._check_room(gateway, len(grants))
        now_ms = self._clock.now_ms()

        def decide(before: Session) -> Session:
            return acts.discover(
                before,
                gateway=gateway,
                priority=how.priority,
                mode=Mode(self._settings.join_mode),
                not_before_ms=how.not_before_ms,
                expected=how.expected,
                grants=grants,
                now_ms=now_ms,
                actor=ask.by.name,
            )

        await self._enter(session, decide, list(zip(how.grants, grants, strict=True)), ask)
        return await self._act(id, ask, Action.SESSION_WORK, decide, "discover")

    async def grant(self, id: str, new: NewGrant, ask: Ask) -> Session:
        """Let one more device in while the window is open."""
        session = await self.session(id)
        if self._is_repeat(session, ask):
            return session
        made = await self._grant(new)
        if session.window is not None:
            waiting = sum(one.state is GrantState.WAITING for one in session.grants)
            await self._check_room(session.window.gateway, waiting + 1)
        now_ms = self._clock.now_ms()

        def decide(before: Session) -> Session:
            return acts.grant(before, made, now_ms)

        await self._enter(session, decide, [(new, made)], ask)
        return await self._act(id, ask, Action.SESSION_WORK, decide, "grant")

    async def stop_discovery(self, id: str, ask: Ask) -> Session:
        """End the window now, with what was seen until now."""
        await self._reconciler.reconcile(id)
        now_ms = self._clock.now_ms()
        return await self._act(
            id, ask, Action.SESSION_WORK, lambda before: acts.stop_discovery(before, now_ms), "stop"
        )

    async def _gateway(self, session: Session, wanted: str) -> str:
        """Return the gateway whose window is opened; "" where there is none with a HAN."""
        able = [one for one in await self._observing.routes(session.premises) if one.has_han]
        if wanted:
            if wanted not in {one.gateway for one in able}:
                raise InvalidRequestError("gateway: none of these premises that has a HAN")
            return wanted
        best = min(able, key=lambda one: (not one.online, one.priority, one.gateway), default=None)
        return "" if best is None else best.gateway

    async def _grant(self, new: NewGrant) -> Grant:
        """Read a proof: a typing error is told at once and costs no try."""
        key = new.device if new.proof is Proof.PIN else _eui64(new.device)
        sealed = ""
        match new.proof:
            case Proof.INSTALL_CODE:
                sealed = self._link_key(key, new.value)
            case Proof.PIN:
                key = await self._of_pin(new)
            case Proof.CERTIFICATE:
                pass  # the device shows it to the Trust Center
        return Grant(id=f"g-{self._ids.token(60)}", eui64=key, proof=new.proof, sealed_key=sealed)

    async def _enter(
        self,
        session: Session,
        decide: Callable[[Session], Session],
        entered: Sequence[tuple[NewGrant, Grant]],
        ask: Ask,
    ) -> None:
        """Count the proofs and use them; what the session would refuse as it stands costs no try."""
        decide(session)
        await self._tries.take([made.eui64 for _, made in entered])
        for new, made in entered:
            if new.proof is Proof.PIN:
                # The device proves itself to the Trust Center.
                await self._pins.keep(made.eui64, new.value, ask.by, ask.via, _sfdi(new))

    def _link_key(self, eui64: str, code: Secret) -> str:
        try:
            return self._keys.of_code(eui64, code)
        except MistypedCodeError as error:
            raise InstallCodeCrcError(eui64) from error
        except InvalidCodeError as error:
            raise InvalidRequestError(str(error)) from error

    async def _of_pin(self, new: NewGrant) -> str:
        """Return the thing with this SFDI, if what was entered can be a PIN."""
        things = {one.thing for one in await self._issued.by_sfdi(_sfdi(new))}
        if len(things) != 1:
            raise InvalidRequestError("sfdi: no device with a certificate of this number is known")
        if not pin_is_valid(new.value.reveal()):
            raise PinChecksumError
        return things.pop()

    async def _check_room(self, gateway: str, grants: int) -> None:
        if gateway and grants:
            try:
                await self._executor.check_room(gateway, "", (), grants=grants)
            except WillNotWorkError as error:
                raise GatewayCapacityError(error.code.partition(": ")[2]) from error

    # Choosing

    async def select(self, id: str, choices: Sequence[Choice], ask: Ask) -> Session:
        """Note which devices take part."""
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.select(before, choices, now_ms, ask.by.name),
            "select",
        )

    async def consent(self, id: str, consents: Sequence[Consent], ask: Ask) -> Session:
        """Record what the customer says yes to; a representative needs a live verification for it."""
        session = await self.session(id)
        await self._require_verification(session, ask)
        offers = await self._programs.offers({one.program for one in consents})
        for one in consents:
            offer = offers.get(one.program)
            if offer is None or offer.text_version != one.text_version:
                raise InvalidRequestError(f"{one.program}: not the text that there is to say yes to")
        now_ms = self._clock.now_ms()
        stamped = [replace(one, recorded_by=ask.by.name, at_ms=now_ms) for one in consents]
        return await self._act(
            id, ask, Action.CONSENT_GIVE, lambda before: acts.consent(before, stamped, now_ms)
        )

    async def choose_programs(self, id: str, assignments: Sequence[Assignment], ask: Ask) -> Session:
        """Keep which program each device gets; every bad pair is told, and then nothing is kept."""
        session = await self.session(id)
        if self._is_repeat(session, ask):
            return session
        bad: dict[tuple[str, str], Sequence[str]] = {}
        for key, programs in acts.programs_of(session, assignments).items():
            reasons = await self._programs.weigh(_candidate(session, session.devices[key]), programs)
            bad |= {(key, program): reasons[program] for program in programs if reasons.get(program)}
        if bad:
            raise IneligiblePairsError(bad)
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.assign(before, assignments, now_ms, ask.by.name),
            "programs",
        )

    # Sending

    async def provision(self, id: str, ask: Ask) -> Session:
        """Send what was chosen and consented to."""
        session = await self.session(id)
        things = [one.thing for one in session.devices.values() if one.state is DeviceState.SELECTED]
        standing = await self._programs.consents(things, session.account)
        offers = await self._programs.offers({program for _, program in map(_parts, standing)})
        current = {
            one
            for one, version in standing.items()
            if (offer := offers.get(_parts(one)[1])) is not None and offer.text_version == version
        }
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.provision(before, current, now_ms, ask.by.name),
            "provision",
        )

    async def retry(self, id: str, devices: Collection[str], ask: Ask) -> Session:
        """Try again what failed or is late."""
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.retry(before, devices, now_ms, ask.by.name),
            "retry",
        )

    async def accept_partial(self, id: str, ask: Ask) -> Session:
        """Let what is ready be all there is."""
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.accept_partial(before, now_ms, ask.by.name),
            "accept_partial",
        )

    async def confirm(self, id: str, method: str, note: str, ask: Ask) -> Session:
        """Note that the customer was told, and have them notified."""
        session = await self.session(id)
        chosen = {program for one in session.devices.values() for program in one.programs}
        names = {one.id: one.name for one in (await self._programs.offers(chosen)).values()}
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_CONFIRM,
            lambda before: acts.confirm(before, method, note, names, now_ms, ask.by.name),
        )

    async def abort(self, id: str, reason: str, ask: Ask) -> Session:
        """End the session; what is ready stays."""
        now_ms = self._clock.now_ms()
        return await self._act(
            id, ask, Action.SESSION_ABORT, lambda before: acts.abort(before, reason, now_ms, ask.by.name)
        )

    async def verify(self, id: str, verification: str, ask: Ask) -> Session:
        """Go on with a session under another verification, days later, as any representative."""
        session = await self.session(id)
        await self._verifications.require(verification, session.account, ask.by)

        def decide(before: Session) -> Session:
            return touch(replace(before, verification=verification), self._clock.now_ms())

        return await self._act(id, ask, Action.SESSION_WORK, decide, "verification")

    # Remedies

    async def tell(self, id: str, told: Collection[str], answer: str, chosen: str, ask: Ask) -> Session:
        """Keep which remedies the customer was told of, and what they said."""
        session = await self.session(id)
        if self._is_repeat(session, ask):
            return session
        offered = await self.remedies(id)
        routes = [one.gateway for one in await self._observing.routes(session.premises)]
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.tell(before, offered, told, answer, chosen, routes, now_ms, ask.by.name),
            "remedy_notice",
        )

    async def remedy_done(self, id: str, remedy: str, evidence: str, ask: Ask) -> Session:
        """Go on after a remedy that nobody noticed by itself."""
        now_ms = self._clock.now_ms()
        return await self._act(
            id,
            ask,
            Action.SESSION_WORK,
            lambda before: acts.remedy_done(before, remedy, evidence, now_ms, ask.by.name),
            "remedy_done",
        )

    async def _wanted(self, session: Session, cause: Cause, routes: Sequence[Route]) -> frozenset[str]:
        """Return the technologies of equipment that is known, and that nothing here carries."""
        observed = await self._observing.look(session, {}, ())
        models = [
            observed.models.get(key)
            for key in (
                *((one.maker, one.model, 0) for one in session.expected),
                *((one.maker, one.model, one.hw) for one in session.devices.values()),
            )
        ]
        known = frozenset().union(*(one.technologies for one in models if one is not None))
        there = frozenset().union(*(one.technologies for one in routes))
        return known - there if cause is Cause.WRONG_TECHNOLOGY else known

    # Acting

    async def _act(
        self,
        id: str,
        ask: Ask,
        action: Action,
        decide: Callable[[Session], Session],
        what: str = "",
    ) -> Session:
        """Put what an act makes of a session in its place, with its key and audit row; then look at it."""
        for _ in range(SAVE_ATTEMPTS_MAX):
            kept = await self._kept(id)
            if self._is_repeat(kept.record, ask):
                return kept.record
            if ask.if_match is not None and ask.if_match != kept.record.revision:
                raise RevisionConflictError(kept.record.revision)
            decided = decide(kept.record)
            used = (*kept.record.keys, UsedKey(ask.key_hash, ask.digest))[-KEYS_MAX:]
            # Due at once: if this process dies now, another one goes on.
            after = replace(decided, keys=used, due_ms=self._clock.now_ms())
            if await self._sessions.put(
                after, kept.revision, self._entry(ask, action, after, kept.revision, what)
            ):
                self._reconciler.announce(id)
                return await self._looked_at(id)
        raise SessionBusyError

    async def _looked_at(self, id: str) -> Session:
        """Return a session after the first look at what was done; the act itself is durable already."""
        try:
            await self._reconciler.reconcile(id)
        except StoreError as error:
            _log.warning("session_not_looked_at", session=id, reason=repr(error))
        return await self.session(id)

    async def _kept(self, id: str) -> Kept[Session]:
        kept = await self._sessions.load(id)
        if kept is None or not kept.record.is_visible:
            raise SessionNotFoundError(id)
        return kept

    async def _require_verification(self, session: Session, ask: Ask) -> None:
        if ask.by.role is not Role.CUSTOMER:
            await self._verifications.require(session.verification, session.account, ask.by)

    def _is_repeat(self, session: Session, ask: Ask) -> bool:
        for used in session.keys:
            if used.key == ask.key_hash:
                if used.digest != ask.digest:
                    raise IdempotencyMismatchError
                return True
        return False

    def _entry(self, ask: Ask, action: Action, session: Session, before: int, what: str) -> Entry:
        row = audit.act(
            ask.by,
            ask.via,
            action,
            f"session/{session.id}",
            at_ms=self._clock.now_ms(),
            before=before,
            after=before + 1,
            reason=what,
        )
        # One that was never opened is deleted, and may be opened under the same key later.
        return audit.entry(row, before + 1, life=session.opened_at_ms)


def _candidate(session: Session, device: SessionDevice) -> Candidate:
    return Candidate(
        id=device.thing,
        model=device.model_id,
        fw=device.fw,
        lifecycle=Lifecycle.AUTHENTICATED,
        account=session.account,
        premises=session.premises,
    )


def _parts(key: str) -> tuple[str, str]:
    thing, _, program = key.partition("/")
    return thing, program


def _sfdi(new: NewGrant) -> str:
    return new.device.replace("-", "")


def _eui64(text: str) -> str:
    eui64 = text.replace(":", "").replace("-", "").replace(".", "").upper()
    if len(eui64) != 16 or not set(eui64) <= set("0123456789ABCDEF"):  # noqa: PLR2004 - an EUI-64
        raise InvalidRequestError("an EUI-64 is 16 hexadecimal digits")
    return eui64
