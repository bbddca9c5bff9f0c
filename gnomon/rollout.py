"""An operator's side of the firmware API, call by call: what the commands, the demo and the benches use.

Nothing is decided here. (spec: ota, 14)
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode

from gnomon.access import Access
from security.policy import Action

Document = dict[str, Any]

CAMPAIGNS: Final = "/v1/ota/campaigns"
RELEASES: Final = "/v1/ota/releases"


class Rollout:
    """Calls the service as one operator."""

    def __init__(self, access: Access) -> None:
        self._access = access

    # Releases

    def releases(self, **query: str) -> Iterator[Document]:
        """Yield the releases, newest first."""
        return self._items(RELEASES, query)

    def create_release(self, body: Document) -> Document:
        """Have what a vendor says of a stored image verified."""
        return self._call("POST", RELEASES, body, Action.IMAGE_UPLOAD)

    def release(self, id: str) -> Document:
        """Release, as a second person, what was verified."""
        return self._call("POST", f"{RELEASES}/{quote(id, safe='')}/release", None, Action.IMAGE_RELEASE)

    def withdraw(self, id: str) -> Document:
        """Withdraw a release; its campaigns pause."""
        return self._call("POST", f"{RELEASES}/{quote(id, safe='')}/withdraw", None, Action.IMAGE_RELEASE)

    # Campaigns

    def campaigns(self, **query: str) -> Iterator[Document]:
        """Yield the campaigns."""
        return self._items(CAMPAIGNS, query)

    def create(self, body: Document) -> Document:
        """Make a draft."""
        return self._call("POST", CAMPAIGNS, body, Action.CAMPAIGN_CREATE)

    def campaign(self, id: str) -> Document:
        """Return a campaign with its counts and clocks."""
        return self._call("GET", _path(id))

    def dry_run(self, id: str) -> Document:
        """Return who would get it, who would not and why, and how long it would take."""
        return self._call("POST", _path(id, "dry-run"), None, Action.CAMPAIGN_CREATE)

    def submit(self, id: str) -> Document:
        """Freeze the targets: what a second person approves is what is done."""
        return self._call("POST", _path(id, "submit"), None, Action.CAMPAIGN_CREATE)

    def approve(self, id: str, order: str = "") -> Document:
        """Approve, as a second person; ``order`` is an order signed elsewhere, in base64."""
        return self._call(
            "POST", _path(id, "approve"), {"order": order} if order else {}, Action.CAMPAIGN_APPROVE
        )

    def pause(self, id: str, note: str) -> Document:
        """Hold back what was not begun, and everybody who waits to activate."""
        return self._call("POST", _path(id, "pause"), {"note": note}, Action.CAMPAIGN_PAUSE)

    def resume(self, id: str, note: str) -> Document:
        """Go on after a pause."""
        return self._call("POST", _path(id, "resume"), {"note": note}, Action.CAMPAIGN_RESUME)

    def abort(self, id: str, note: str) -> Document:
        """End a campaign; who has not activated yet stays with what it runs."""
        return self._call("POST", _path(id, "abort"), {"note": note}, Action.CAMPAIGN_ABORT)

    def executions(self, id: str, **query: str) -> Iterator[Document]:
        """Yield the targets of a campaign."""
        return self._items(_path(id, "executions"), query)

    def execution(self, id: str, thing: str) -> Document:
        """Return one target with all its attempts."""
        return self._call("GET", _path(id, "executions", thing))

    def cancel(self, id: str, thing: str) -> Document:
        """Take one target out."""
        return self._call("POST", _path(id, "executions", thing, "cancel"), None, Action.CAMPAIGN_ABORT)

    def retry(self, id: str, thing: str) -> Document:
        """Give one target that failed another try."""
        return self._call("POST", _path(id, "executions", thing, "retry"), None, Action.CAMPAIGN_CREATE)

    def _call(self, method: str, path: str, body: Any = None, confirms: Action | None = None) -> Document:  # noqa: ANN401 - JSON
        answer: Document = self._access.request(method, path, body, confirms=confirms)
        return answer

    def _items(self, path: str, query: dict[str, str]) -> Iterator[Document]:
        while True:
            asked = urlencode({name: value for name, value in query.items() if value})
            page = self._access.request("GET", f"{path}?{asked}" if asked else path)
            yield from page["items"]
            query["cursor"] = page.get("next", "")
            if not query["cursor"]:
                return


def _path(*parts: str) -> str:
    return "/".join((CAMPAIGNS, *(quote(part, safe="") for part in parts)))
