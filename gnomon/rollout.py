"""An operator's side of campaigns, call by call: what the commands, the tests of faults and the benches use.

Nothing is decided here. (spec: ota, 14)
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from gnomon.access import Access
from gnomon.following import follow
from gnomon.pages import pages
from security.policy import Action

Document = dict[str, Any]

CAMPAIGNS: Final = "/v1/ota/campaigns"


class Rollout:
    """Calls the service as one person."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def campaigns(self, **query: str) -> Iterator[Document]:
        """Yield the campaigns."""
        return pages(self._access, CAMPAIGNS, **query)

    def create(self, body: Document) -> Document:
        """Make a draft."""
        return self._post(CAMPAIGNS, body)

    def edit(self, id: str, patch: Document) -> Document:
        """Change a draft as it is now; what the patch does not name stays."""
        changed: Document = self._access.change("PATCH", _path(id), patch, _path(id))
        return changed

    def delete(self, id: str) -> None:
        """Delete a draft."""
        self._access.request("DELETE", _path(id))

    def campaign(self, id: str) -> Document:
        """Return a campaign with its counts and clocks."""
        found: Document = self._access.request("GET", _path(id))
        return found

    def dry_run(self, id: str) -> Document:
        """Return who would get it, who would not and why, and how long it would take."""
        return self._post(_path(id, "dry-run"))

    def submit(self, id: str, note: str = "") -> Document:
        """Freeze the targets: what a second person approves is what is done."""
        return self._post(_path(id, "submit"), {"note": note})

    def approve(self, id: str, order: str = "", note: str = "", version: int | None = None) -> Document:
        """Approve, as a second person; ``order`` is one signed elsewhere, in base64.

        With a ``version`` only if it is that one still.
        """
        body, seen = {"order": order, "note": note}, {} if version is None else {"If-Match": f'"{version}"'}
        return self._post(_path(id, "approve"), body, Action.CAMPAIGN_APPROVE, seen)

    def pause(self, id: str, note: str) -> Document:
        """Hold back what was not begun, and everybody who waits to activate."""
        return self._post(_path(id, "pause"), {"note": note})

    def resume(self, id: str, note: str) -> Document:
        """Go on after a pause."""
        return self._post(_path(id, "resume"), {"note": note}, Action.CAMPAIGN_RESUME)

    def abort(self, id: str, note: str) -> Document:
        """End a campaign; who has not activated yet stays with what it runs."""
        return self._post(_path(id, "abort"), {"note": note})

    def progress(self, id: str) -> Iterator[Document]:
        """Yield how far it is, now and whenever that changes."""
        return follow(self._access, _path(id, "live"))

    def executions(self, id: str, **query: str) -> Iterator[Document]:
        """Yield the targets of a campaign."""
        return pages(self._access, _path(id, "executions"), **query)

    def execution(self, id: str, thing: str) -> Document:
        """Return one target with all its attempts."""
        found: Document = self._access.request("GET", _path(id, "executions", thing))
        return found

    def cancel(self, id: str, thing: str, note: str = "") -> Document:
        """Take one target out."""
        return self._post(_path(id, "executions", thing, "cancel"), {"note": note})

    def retry(self, id: str, thing: str, note: str = "") -> Document:
        """Give one target that failed another try."""
        return self._post(_path(id, "executions", thing, "retry"), {"note": note})

    def _post(
        self,
        path: str,
        body: Document | None = None,
        confirms: Action | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Document:
        answer: Document = self._access.request("POST", path, body, confirms=confirms, fields=fields)
        return answer


def _path(*parts: str) -> str:
    return "/".join((CAMPAIGNS, *(quote(part, safe="") for part in parts)))
