"""Lists of the service, read page by page."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from gnomon.access import Access
from gnomon.refusals import AccessError

PAGES_MAX: Final = 10_000


def pages(access: Access, path: str, **query: str) -> Iterator[Any]:
    """Yield the items of all pages of a list."""
    for page in whole_pages(access, path, **query):
        yield from page["items"]


def whole_pages(access: Access, path: str, **query: str) -> Iterator[dict[str, Any]]:
    """Yield all pages of a list, with what each says beside its items."""
    for _ in range(PAGES_MAX):
        asked = urlencode({name: value for name, value in query.items() if value})
        page = access.request("GET", f"{path}?{asked}" if asked else path)
        yield page
        query["cursor"] = page.get("next", "")
        if not query["cursor"]:
            return
    raise AccessError(f"{path} has more than {PAGES_MAX} pages: nobody reads that")
