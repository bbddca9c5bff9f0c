"""Writes docs/exchange.md: the information exchange of the use case, with what the code's types hold."""

from pathlib import Path
from typing import Final

from scripts.exchanges import ROOT, Exchange, exchanges

PAGE: Final[Path] = ROOT / "docs" / "exchange.md"
HEAD: Final = """\
# Information exchange

Section 5 of the use case, filled in. Made by `make vectors` from the API's document, from the code that reads
and writes shadows, and from the records for the customer care system: what is named here exists.
*Planned*: nothing carries it yet.

`a → b` is what is sent and what comes back; brackets hold the fields of an object or of each item of a list.
Times are RFC 3339 in REST and seconds since 1970 in shadows; names in `_ms` are milliseconds since then.
`price_minor` counts the smallest unit of `currency` (ISO 4217); `rssi` is in dBm; `cat` and `categories` are
bits of IEEE 2030.5. A shadow's deltas and answers follow from [the protocol](protocol.md); a gateway speaks
for an attached thing in its own tree.

| ID | step | message | from → to | carried by | holds |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return HEAD + "".join(_row(one) for one in exchanges())


def _row(one: Exchange) -> str:
    """Return the lines of an exchange: one for each way, and what they have in common only once."""
    common = f"| {one.id} | {one.step} | {one.message} | {one.ends} |"
    if not one.ways:
        return f"{common} *planned* | |\n"
    firsts = (common, *["| | | | |"] * (len(one.ways) - 1))
    return "".join(f"{first} {way.by} | {way.holds} |\n" for first, way in zip(firsts, one.ways, strict=True))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
