"""The ``han`` shadows of gateways, read and written as ``system``."""

import asyncio
from collections.abc import Collection
from typing import Final

import msgspec

from infra.settings.model import ShadowLimits
from provisioning.han import NO_HAN, SHADOW, Han, read
from security.policy import Role
from shadow.commands import Channel, Origin, Update, update
from shadow.decisions import Rejected
from shadow.document import ShadowId, Tree
from shadow.errors import NoShadowError
from shadow.service import ShadowService

ORIGIN: Final = Origin("provisioning", Role.SYSTEM, Channel.SYSTEM)


class HanRefusedError(Exception):
    """A gateway's shadow did not take it: busy, full, or the store is silent. It is wanted again later."""


class Hans:
    """What gateways say of their HANs, and what is asked of them."""

    def __init__(self, shadows: ShadowService, limits: ShadowLimits) -> None:
        self._shadows = shadows
        self._limits = limits

    async def of(self, gateway: str) -> Han:
        """Return what a gateway says and is asked for."""
        try:
            shadow = await self._shadows.view(ShadowId(gateway, SHADOW))
        except NoShadowError:
            return NO_HAN
        return read(shadow.desired.state, shadow.reported.state)

    async def of_all(self, gateways: Collection[str]) -> dict[str, Han]:
        """Return the same of several gateways."""
        names = sorted(set(gateways))
        return dict(zip(names, await asyncio.gather(*map(self.of, names)), strict=True))

    async def patch(self, gateway: str, patch: Tree) -> None:
        """Write into a gateway's shadow, durably.

        Raises:
            HanRefusedError: nothing was written.
        """
        (outcome,) = await self._shadows.submit([self._command(gateway, patch)])
        if isinstance(outcome, Rejected):
            raise HanRefusedError(outcome.error.message)

    def _command(self, gateway: str, patch: Tree) -> Update:
        payload = msgspec.json.encode(patch)
        # Through JSON, so that nothing but JSON gets into a shadow: a name of ours is more than a text.
        state = msgspec.json.decode(payload)
        return update(ShadowId(gateway, SHADOW), ORIGIN, state, self._limits, None, payload)
