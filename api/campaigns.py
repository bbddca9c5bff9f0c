"""Campaigns of firmware: made by one person, approved by another, watched by all who are on duty.

(spec: ota, 9, 11, 14)
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Final

import msgspec

from api import campaign_operations as declared
from api.campaign_schemas import (
    ApproveBody,
    CampaignBody,
    CampaignDocument,
    CampaignList,
    ClocksDocument,
    DryRunDocument,
    ExecutionDocument,
    ExecutionList,
    NoteBody,
    ProgressDocument,
)
from api.logins import read
from api.operations import Route
from api.reading import (
    HttpRequest,
    expected_version,
    idempotency_key,
    invalid,
    one_of,
    page_limit,
    query,
    via_of,
    whole,
)
from api.replies import Reply, etag, json_reply, no_content
from api.services import ApiServices
from api.streams import EventStream, GoneError, Places, event
from ota.campaign import WAVES_MAX, Campaign
from ota.errors import CampaignNotFoundError, TargetNotFoundError
from ota.models import Execution
from ota.opening import PROGRESS
from ota.states import CampaignState, ExecutionState
from security.audit import Via
from security.policy import Action, Principal, may

TELL_S: Final = 1.0
"""Watchers of a campaign are told at most so often."""
TARGET: Final = "target"
"""The part of a path that names a target of a campaign."""
Act = Callable[[str, str, Principal, Via], Awaitable[Campaign]]
ActOnTarget = Callable[[str, str, Principal, Via], Awaitable[Execution]]
_encode: Final = msgspec.json.Encoder().encode


class Campaigns:
    """Handlers of ``/v1/ota/campaigns``."""

    def __init__(self, services: ApiServices, places: Places) -> None:
        self._services = services
        self._places = places
        self._campaigns = services.ota.campaigns
        self._lane = services.ota.lane
        self._settings = services.settings.ota

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
        items = [await self._document(one) for one in page.campaigns]
        return json_reply(CampaignList(items, page.next))

    async def create(self, request: HttpRequest) -> Reply:
        key = idempotency_key(request.scope) or ""
        body = await read(request, self._services, CampaignBody)
        by, via = request.scope["user"], via_of(request.scope)
        made = await self._campaigns.create(body.terms(self._settings), by, via, key)
        location = (b"location", f"/v1/ota/campaigns/{made.id}".encode())
        return json_reply(await self._document(made), status=201, fields=(location, etag(made.version)))

    async def read(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return await self._shown(await self._campaigns.campaign(_id(request)))

    async def edit(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        expected = expected_version(request.scope)
        body = await read(request, self._services, CampaignBody)
        terms, by, via = body.terms(self._settings), request.scope["user"], via_of(request.scope)
        return await self._shown(await self._campaigns.edit(_id(request), terms, by, via, if_match=expected))

    async def delete(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        await self._campaigns.delete(_id(request), request.scope["user"], via_of(request.scope))
        return no_content()

    async def dry_run(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        return json_reply(DryRunDocument.of(await self._campaigns.dry_run(_id(request))))

    async def submit(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        by, via = request.scope["user"], via_of(request.scope)
        return await self._shown(await self._campaigns.submit(_id(request), by, via))

    async def approve(self, request: HttpRequest) -> Reply:
        query(request.scope, ())
        body = await read(request, self._services, ApproveBody)
        by, via = request.scope["user"], via_of(request.scope)
        return await self._shown(
            await self._campaigns.approve(_id(request), by, via, order=_bytes(body.order) or None)
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
        return EventStream(self._places, self._services, PROGRESS, _Live(self._services, campaign.id))

    # Targets

    async def executions(self, request: HttpRequest) -> Reply:
        fields = query(request.scope, ("cursor", "state", "wave", "reason"))
        campaign = await self._campaigns.campaign(_id(request))
        page = await self._campaigns.executions(campaign.id, fields.get("cursor"), _wish(fields))
        seen = await self._in_scope(request, [one.thing for one in page.executions])
        now_ms, prestage = self._services.clock.now_ms(), campaign.terms.prestage
        items = [
            ExecutionDocument.of(one, now_ms, prestage=prestage)
            for one in page.executions
            if one.thing in seen
        ]
        return json_reply(ExecutionList(items, page.next))

    async def execution(self, request: HttpRequest) -> Reply:
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
        return await self._shown(await act(_id(request), body.note, by, via))

    async def _act_on_target(self, request: HttpRequest, act: ActOnTarget) -> Reply:
        campaign, execution = await self._target(request)
        by, via = request.scope["user"], via_of(request.scope)
        return self._told(campaign, await act(campaign.id, execution.thing, by, via))

    async def _target(self, request: HttpRequest) -> tuple[Campaign, Execution]:
        """Return the target in the path; one that is in the utility's sight no more is as if it were none."""
        query(request.scope, ())
        campaign = await self._campaigns.campaign(_id(request))
        thing: str = request.scope["path_params"][TARGET]
        execution = await self._lane.load(campaign.id, thing)
        if execution is None or thing not in await self._in_scope(request, [thing]):
            raise TargetNotFoundError(thing)
        return campaign, execution

    async def _in_scope(self, request: HttpRequest, things: Collection[str]) -> frozenset[str]:
        by: Principal = request.scope["user"]
        targets = await self._services.registry.targets(things)
        return frozenset(name for name, one in targets.items() if may(by, Action.FLEET_SEARCH, one))

    async def _document(self, campaign: Campaign) -> CampaignDocument:
        return CampaignDocument.whole(campaign, await _progress(self._services, campaign))

    async def _shown(self, campaign: Campaign) -> Reply:
        return json_reply(await self._document(campaign), fields=(etag(campaign.version),))

    def _told(self, campaign: Campaign, execution: Execution) -> Reply:
        now_ms = self._services.clock.now_ms()
        return json_reply(ExecutionDocument.of(execution, now_ms, prestage=campaign.terms.prestage))


class _Live:
    """What is told of a campaign: how far it is, whenever that is another than it was."""

    def __init__(self, services: ApiServices, id: str) -> None:
        self._services = services
        self._id = id
        self._told = b""

    async def opening(self) -> tuple[bytes, ...]:
        return ()

    async def news(self) -> AsyncIterator[bytes]:
        """Yield the progress, unless it was told; then rest, so that it is told once a second at most."""
        try:
            campaign = await self._services.ota.campaigns.campaign(self._id)
        except CampaignNotFoundError as error:
            raise GoneError from error
        now = _encode(await _progress(self._services, campaign))
        if now != self._told:
            self._told = now
            yield event(b"progress", now)
            await asyncio.sleep(TELL_S)


async def _progress(services: ApiServices, campaign: Campaign) -> ProgressDocument:
    campaigns = services.ota.campaigns
    counts, figures = await campaigns.counts(campaign.id), await campaigns.figures(campaign)
    return ProgressDocument.of(campaign, counts, ClocksDocument.of(figures, services.settings.ota))


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


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("order must be base64") from error
