"""Campaigns over HTTP: the base pair released, a fleet that needs it, and people who act on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec

from ota.envelope import public_of
from ota.executions import ThingJobs, moved
from ota.keys import UTILITY, parse_key
from ota.lane import Change, Decision
from ota.states import ExecutionTrigger
from ota.verification import KeyRole
from registry.lifecycle import Device
from registry.models import NewThing, Owner, ThingKind
from registry.states import DeviceTrigger
from security.policy import Action, Principal, Role
from tests import ota_base as base
from tests.api.released import release
from tests.api.rig import OPERATOR, Rig
from tests.release_rig import MODEL, OFFICER

CAMPAIGNS = "/v1/ota/campaigns"
OLD = {"sha256": "0123" * 16, "version": "2.3.0.0", "counter": 2}
SECOND = Principal("otto", Role.OPERATOR)
THIRD = Principal("eve", Role.OPERATOR)
ALL_AT_ONCE = {"waves": [{"percent": 100}], "soak_s": 0}
MERGE = {"Content-Type": "application/merge-patch+json"}


@dataclass
class Fleet:
    """A release that is let out, and who needs it."""

    rig: Rig
    release: str

    @property
    def http(self) -> httpx.AsyncClient:
        """Return the first operator."""
        return self.rig.by[Role.OPERATOR]

    async def add(self, names: Iterable[str], *, taking_part: bool = True, **changes: Any) -> None:
        """Register devices of customers that run the old firmware, and are connected."""
        services = self.rig.services
        for name in names:
            home = f"home-of-{name}"
            await services.registry.hand_over(home, f"account-of-{name}", OPERATOR)
            new = Device(
                **{
                    "id": name,
                    "model": MODEL.id,
                    "hw": 2,
                    "owner": Owner.CUSTOMER,
                    "account": f"account-of-{name}",
                    "premises": home,
                    "premises_epoch": 1,
                    **changes,
                }
            )
            for trigger in (DeviceTrigger.SEEN, DeviceTrigger.PROVED, DeviceTrigger.REGISTER):
                await services.devices.apply(name, trigger, OPERATOR, new=new)
            thing = NewThing(name, ThingKind.DEVICE, new.model, home, owner=new.owner)
            await services.registry.register(thing, OPERATOR)
            await services.registry.set_taking_part(name, taking_part, OPERATOR)
            self.rig.presence.came(name)
            await self.rig.report(name, {"fw": OLD, "healthy": True, "boot": 1, "schema": 5}, "firmware")
            await self.rig.report(name, {"lang": "en"}, "config")

    async def draft(self, **wishes: Any) -> dict[str, Any]:
        answer = await self.http.post(CAMPAIGNS, json={"release": self.release} | ALL_AT_ONCE | wishes)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def submitted(self, **wishes: Any) -> str:
        id: str = (await self.draft(**wishes))["id"]
        answer = await self.http.post(f"{CAMPAIGNS}/{id}/submit")
        assert answer.status_code == 200, answer.text
        return id

    async def running(self, **wishes: Any) -> str:
        id = await self.submitted(**wishes)
        answer = await self.act(SECOND, Action.CAMPAIGN_APPROVE, f"{CAMPAIGNS}/{id}/approve", {})
        assert answer.status_code == 200, answer.text
        for _ in range(3):
            await self.tick()
        return id

    async def tick(self) -> None:
        await self.rig.services.ota.executor.tick()

    async def act(
        self, who: Principal, action: Action, path: str, sent: Any = None, **headers: str
    ) -> httpx.Response:
        """Post as somebody who has confirmed it by a fresh second factor."""
        rig, data = self.rig, b"" if sent is None else msgspec.json.encode(sent)
        token = f"token-of-{who.name}"
        rig.tokens.holders[token] = who
        fields = {
            "Authorization": f"Bearer {token}",
            "Gnomon-Step-Up": rig.confirmations.confirm(who, action, f"POST {path}", data),
            **({} if sent is None else {"Content-Type": "application/json"}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await rig.stranger.post(path, content=data, headers=fields)

    async def seen(self, id: str) -> dict[str, Any]:
        answer = await self.http.get(f"{CAMPAIGNS}/{id}")
        assert answer.status_code == 200, answer.text
        seen: dict[str, Any] = answer.json()
        return seen

    async def targets(self, id: str, **query: Any) -> dict[str, str]:
        answer = await self.http.get(f"{CAMPAIGNS}/{id}/executions", params=query)
        assert answer.status_code == 200, answer.text
        return {one["thing"]: one["state"] for one in answer.json()["items"]}

    async def step(self, id: str, things: Sequence[str], *triggers: ExecutionTrigger, **changes: Any) -> None:
        """Move targets as their devices would."""

        def change(thing: str) -> Change[None]:
            def decide(jobs: ThingJobs, now_ms: int) -> Decision[None]:
                after = jobs.find(id)
                assert after is not None
                for trigger in triggers:
                    after = moved(after, trigger, now_ms)
                return Decision(None, (replace(after, **changes),))

            return Change(thing, decide, (id,))

        for answer in await self.rig.services.ota.lane.submit([change(thing) for thing in things]):
            assert answer is None, answer

    async def acts(self) -> list[tuple[str, str, str]]:
        """Return who did what to campaigns and their targets, and why."""
        rows = [row for row in await self.rig.audit() if row["action"].startswith("campaign.")]
        rows = [row for row in rows if row["decision"] == "allowed"]
        return [(row["actor"], row["action"], row.get("reason", "")) for row in rows]


async def fleet(rig: Rig) -> Fleet:
    """Let the base pair out, and know the key of a person who signs orders."""
    id = await release(rig)
    key = parse_key(public_of(base.UTILITY_KEY), KeyRole.CAMPAIGN, UTILITY, rig.clock.now_ms())
    await rig.services.ota.keys.add(key, OFFICER)
    return Fleet(rig, id)
