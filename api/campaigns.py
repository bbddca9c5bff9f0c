"""Campaigns of firmware: made by one person, approved by another, watched by all who are on duty.

(spec: ota, 9, 11, 14)
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from api import campaign_operations as declared
from api.campaign_schemas import (
    NAMES_SHOWN_MAX,
    ApproveBody,
    CampaignBody,
    CampaignDocument,
    CampaignList,
    CampaignSummary,
    ClocksDocument,
    DryRunDocument,
    ExecutionDocument,
    ExecutionList,
    NoteBody,
    ProgressDocument,
    RemarkBody,
    SelectorDocument,
)
from api.logins import read
from api.operations import Route
from api.patching import merge_patched
from api.problems import UNSUPPORTED_MEDIA_TYPE, ApiError
from api.reading import (
    HttpRequest,
    cursor_number,
    decode,
    expected_version,
    header,
    idempotency_key,
    invalid,
    media_type,
    number_cursor,
    one_of,
    page_limit,
    query,
    read_body,
    require_json,
    unpacked,
    via_of,
    whole,
)
from api.replies import MERGE_PATCH, Reply, etag, json_reply, no_content
from api.services import ApiServices
from api.streams import EventStream, GoneError, Places, event
from ota.campaign import WAVES_MAX, Campaign
from ota.errors import CampaignNotFoundError, TargetNotFoundError
from ota.models import Execution
from ota.opening import PROGRESS
from ota.states import CampaignState, ExecutionState
from security.audit import Via
from security.policy import Action, Principal, may, may_at_all

CAMPAIGN_BYTES_MAX: Final = 1_048_576
"""Of a body that may name some 20,000 things."""
TELL_S: Final = 1.0
"""Watchers of a campaign are told at most so often."""
ID_CHARS: Final = 16
OPEN: Final = frozenset({"waiting", "active"})
"""Targets that are counted there are not at their end."""
TARGET: Final = "target"
"""The part of a path that names a target of a campaign."""
Act = Callable[[str, str, Principal, Via], Awaitable[Campaign]]
ActOnTarget = Callable[[str, str, Principal, Via, str], Awaitable[Execution]]
_encode: Final = msgspec.json.Encoder().encode


class Campaigns:
    """Handlers of ``/v1/ota/campaigns``."""

    def __init__(self, services: ApiServices, places: Places) -> None:
        self._services = services
        self._places = places
        self._campaigns = services.ota.campaigns
        self._lane = services.ota.lane
        self._settings = services.settings.ota
        self._boards = _Boards(services)

    def routes(self) -> tuple[Route, ...]:
        every, one = "/v1/ota/campaigns", "/v1/ota/campaigns/{campaign:str}"
        target = f"{one}/executions/{{target:str}}"
        return (
            Route("GET", every, declared.LIST_CAMPAIGNS, self.list),
            Route("POST", every, declared.CREATE_CAMPAIGN, self.create),
            Route("GET", one, declared.GET_CAMPAIGN, self.read),
            Route("PATCH", one, declared.EDIT_CAMPAIGN, self.edit),
            Route("DELETE", one, declared.DELETE_CAMPAIGN, self.delete),
            Route("POST", f"{one}/dry-run", declared.DRY_RUN_CAMPAIGN, self.dry_run),
            Route("POST", f"{one}/submit", declared.SUBMIT_CAMPAIGN, self.submit),
            Route("POST", f"{one}/approve", declared.APPROVE_CAMPAIGN, self.approve),
            Route("POST", f"{one}/pause", declared.PAUSE_CAMPAIGN, self.pause),
            Route("POST", f"{one}/resume", declared.RESUME_CAMPAIGN, self.resume),
            Route("POST", f"{one}/abort", declared.ABORT_CAMPAIGN, self.abort),
            Route("GET", f"{one}/live", declared.WATCH_CAMPAIGN, self.watch),
            Route("GET", f"{one}/executions", declared.LIST_EXECUTIONS, self.executions),
            Route("GET", target, declared.GET_EXECUTION, self.execution),
            Route("POST", f"{target}/cancel", declared.CANCEL_EXECUTION, self.cancel),
            Route("POST", f"{target}/retry", declared.RETRY_EXECUTION, self.retry),
        )

    # Campaigns

    async def list(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor", "state"))
        state = one_of(fields, "state", CampaignState)
        page = await self._campaigns.page(
            page_limit(fields), fields.get("cursor"), None if state is None else CampaignState(state)
        )
        items = [CampaignSummary.of(one, await self._done(one)) for one in page.campaigns]
        return json_reply(CampaignList(items, page.next))

    async def create(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        key = idempotency_key(request.scope) or ""
        require_json(request.scope)
        body = decode(await self._body(request), CampaignBody)
        by, via = request.scope["user"], via_of(request.scope)
        made = await self._campaigns.create(body.terms(self._settings), by, via, key)
        location = (b"location", f"/v1/ota/campaigns/{made.id}".encode())
        return json_reply(
            await self._document(request, made), status=201, fields=(location, etag(made.version))
        )

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return await self._shown(request, await self._campaigns.campaign(_id(request)))

    async def edit(self, request: HttpRequest) -> Reply:
        """Change what the body names; the rest stays, and null is what the settings say."""
        query(request.scope, ())
        expected = expected_version(request.scope)
        if media_type(request.scope) != MERGE_PATCH.decode():
            raise ApiError(UNSUPPORTED_MEDIA_TYPE, f"send Content-Type: {MERGE_PATCH.decode()}")
        patch = decode(await self._body(request), dict[str, Any])
        before = await self._campaigns.campaign(_id(request))
        terms = _changed(CampaignBody.of(before.terms), patch).terms(self._settings)
        by, via = request.scope["user"], via_of(request.scope)
        return await self._shown(
            request, await self._campaigns.edit(before.id, terms, by, via, if_match=expected)
        )

    async def delete(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        await self._campaigns.delete(_id(request), request.scope["user"], via_of(request.scope))
        return no_content()

    async def dry_run(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        found = await self._campaigns.dry_run(_id(request), request.scope["user"], via_of(request.scope))
        return json_reply(DryRunDocument.of(found))

    async def submit(self, request: HttpRequest) -> Reply:
        note, by, via = await self._remark(request), request.scope["user"], via_of(request.scope)
        return await self._shown(
            request,
            await self._campaigns.submit(_id(request), by, via, note=note, if_match=_seen(request)),
        )

    async def approve(self, request: HttpRequest) -> Reply:
        body = await read(request, self._services, ApproveBody)
        order, by, via = unpacked(body.order, "order") or None, request.scope["user"], via_of(request.scope)
        return await self._shown(
            request,
            await self._campaigns.approve(
                _id(request), by, via, reason=body.note, order=order, if_match=_seen(request)
            ),
        )

    async def pause(self, request: HttpRequest) -> Reply:
        return await self._act(request, self._campaigns.pause)

    async def resume(self, request: HttpRequest) -> Reply:
        return await self._act(request, self._campaigns.resume)

    async def abort(self, request: HttpRequest) -> Reply:
        return await self._act(request, self._campaigns.abort)

    async def watch(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        campaign = await self._campaigns.campaign(_id(request))
        seen = header(request.scope, b"last-event-id") or ""
        feed = _Live(self._boards.of(campaign.id), seen)
        return EventStream(self._places, self._services, PROGRESS, feed)

    # Targets

    async def executions(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("limit", "cursor", "state", "wave", "reason"))
        after = cursor_number(fields)
        campaign = await self._campaigns.campaign(_id(request))
        page = await self._campaigns.executions(
            campaign.id, page_limit(fields), -1 if after is None else after, _wish(fields)
        )
        in_sight = await self._in_sight(request, [one.thing for one in page.executions])
        now_ms, prestage = self._services.clock.now_ms(), campaign.terms.prestage
        items = [
            ExecutionDocument.of(one, now_ms, prestage=prestage)
            for one in page.executions
            if one.thing in in_sight
        ]
        return json_reply(ExecutionList(items, None if page.next is None else number_cursor(page.next)))

    async def execution(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        campaign, execution = await self._target(request)
        return self._told(campaign, execution)

    async def cancel(self, request: HttpRequest) -> Reply:
        return await self._act_on_target(request, self._campaigns.cancel)

    async def retry(self, request: HttpRequest) -> Reply:
        return await self._act_on_target(request, self._campaigns.retry)

    # Parts

    async def _act(self, request: HttpRequest, act: Act) -> Reply:
        body = await read(request, self._services, NoteBody)
        by, via = request.scope["user"], via_of(request.scope)
        return await self._shown(request, await act(_id(request), body.note, by, via))

    async def _act_on_target(self, request: HttpRequest, act: ActOnTarget) -> Reply:
        note = await self._remark(request)
        campaign, execution = await self._target(request)
        by, via = request.scope["user"], via_of(request.scope)
        return self._told(campaign, await act(campaign.id, execution.thing, by, via, note))

    async def _body(self, request: HttpRequest) -> bytes:
        return await read_body(request, CAMPAIGN_BYTES_MAX, self._services.limits.body_timeout_s)

    async def _remark(self, request: HttpRequest) -> str:
        """Return why something is done; that nothing is said is allowed."""
        query(request.scope, ())
        limits = self._services.limits
        if not (body := await read_body(request, limits.body_bytes_max, limits.body_timeout_s)):
            return ""
        require_json(request.scope)
        return decode(body, RemarkBody).note

    async def _target(self, request: HttpRequest) -> tuple[Campaign, Execution]:
        """Return the target in the path; one that is in the utility's sight no more is as if it were none."""
        campaign = await self._campaigns.campaign(_id(request))
        thing: str = request.scope["path_params"][TARGET]
        execution = await self._lane.load(campaign.id, thing)
        if execution is None or thing not in await self._in_sight(request, [thing]):
            raise TargetNotFoundError(thing)
        return campaign, execution

    async def _in_sight(self, request: HttpRequest, things: Collection[str]) -> frozenset[str]:
        """Return those of these things that take part, for somebody who may look through the fleet."""
        by: Principal = request.scope["user"]
        if not may_at_all(by.role, Action.FLEET_SEARCH):
            return frozenset()
        targets = await self._services.registry.targets(things)
        return frozenset(name for name, one in targets.items() if may(by, Action.FLEET_SEARCH, one))

    async def _done(self, campaign: Campaign) -> int:
        """Return how many targets are at their end. Of one that is over for good, nothing is looked up."""
        if campaign.frozen is None or not campaign.created:
            return 0
        if campaign.settled:
            return campaign.frozen.targets
        counts = await self._campaigns.counts(campaign.id)
        return sum(count for name, count in counts.items() if name not in OPEN)

    async def _document(self, request: HttpRequest, campaign: Campaign) -> CampaignDocument:
        selector = campaign.terms.selector
        named = {*selector.things[:NAMES_SHOWN_MAX], *selector.pinned[:NAMES_SHOWN_MAX]}
        shown = SelectorDocument.seen(
            selector,
            await self._in_sight(request, named),
            places=may_at_all(request.scope["user"].role, Action.FLEET_SEARCH),
        )
        return CampaignDocument.whole(campaign, await _progress(self._services, campaign), shown)

    async def _shown(self, request: HttpRequest, campaign: Campaign) -> Reply:
        return json_reply(await self._document(request, campaign), fields=(etag(campaign.version),))

    def _told(self, campaign: Campaign, execution: Execution) -> Reply:
        now_ms = self._services.clock.now_ms()
        return json_reply(ExecutionDocument.of(execution, now_ms, prestage=campaign.terms.prestage))


class _Board:
    """How far one campaign is, for all who watch it: worked out once a second at most."""

    def __init__(self, services: ApiServices, id: str) -> None:
        self._services = services
        self._id = id
        self._lock = asyncio.Lock()
        self._begun_s = -TELL_S
        self._shown = b""

    async def shown(self) -> bytes:
        """Return how far it is now or later; raise :class:`GoneError` when it was deleted."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        async with self._lock:
            if self._begun_s < asked_s:
                await asyncio.sleep(self._begun_s + TELL_S - loop.time())
                begun_s = loop.time()
                self._shown = await self._looked()
                self._begun_s = begun_s  # if that fails, the next one looks too
            return self._shown

    async def _looked(self) -> bytes:
        try:
            campaign = await self._services.ota.campaigns.campaign(self._id)
        except CampaignNotFoundError as error:
            raise GoneError from error
        return _encode(await _progress(self._services, campaign))


class _Boards:
    """The boards that somebody watches."""

    def __init__(self, services: ApiServices) -> None:
        self._services = services
        self._boards: WeakValueDictionary[str, _Board] = WeakValueDictionary()

    def of(self, id: str) -> _Board:
        """Return the board of a campaign."""
        board = self._boards.get(id) or _Board(self._services, id)
        self._boards[id] = board
        return board


class _Live:
    """What is told of a campaign: how far it is, whenever that is another than its reader knows.

    An event's id is a digest of what it says, so that who comes back is told nothing twice.
    """

    def __init__(self, board: _Board, seen: str) -> None:
        self._board = board
        self._seen = seen

    async def opening(self) -> tuple[bytes, ...]:
        return ()

    async def news(self) -> AsyncIterator[bytes]:
        """Yield how far it is, unless the reader knows."""
        shown = await self._board.shown()
        id = hashlib.sha256(shown).hexdigest()[:ID_CHARS]
        if id != self._seen:
            self._seen = id
            yield event(b"progress", shown, id.encode())


async def _progress(services: ApiServices, campaign: Campaign) -> ProgressDocument:
    campaigns = services.ota.campaigns
    counts, figures = await campaigns.counts(campaign.id), await campaigns.figures(campaign)
    return ProgressDocument.of(campaign, counts, ClocksDocument.of(figures, services.settings.ota))


def _changed(body: CampaignBody, patch: Mapping[str, Any]) -> CampaignBody:
    """Return a body with a merge patch (RFC 7396) carried out on it."""
    try:
        return msgspec.convert(merge_patched(msgspec.to_builtins(body), patch), CampaignBody)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from error


def _wish(fields: Mapping[str, str]) -> Callable[[Execution], bool]:
    """Return what tells which targets are wanted."""
    state, wave = one_of(fields, "state", ExecutionState), fields.get("wave")
    reason = fields.get("reason")
    number = None if wave is None else whole(wave, "wave", 0, WAVES_MAX)

    def is_wanted(one: Execution) -> bool:
        return state in {None, one.state} and number in {None, one.wave} and reason in {None, one.reason}

    return is_wanted


def _id(request: HttpRequest) -> str:
    id: str = request.scope["path_params"]["campaign"]
    return id


def _seen(request: HttpRequest) -> int | None:
    """Return the version that the caller has seen, if they say so."""
    return None if header(request.scope, b"if-match") is None else expected_version(request.scope)
