"""Judges a run: values in, findings out. Pure, and shares no code with ``shadow``.

    I1  each accepted update stands in the history, at the version that was answered
    I2  versions are 1, 2, 3 …; the document is the fold of what was accepted, by a merge of our own
    I3  equal requests (token and body) have one version and one answer, byte for byte; *maybe* is 0 or 1
    I4  reports that carry a sequence stand in rising order of it
    I5  in the end desired is reported, nothing is left to be said, nobody good was buried

A request is *accepted* when at least one answer said so. (spec: reliability, 1 and 4)
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tests.chaos.evidence import Document, Evidence, Key, Line, Row, document_of
from tests.reference import Shadow

MS_PER_S = 1_000
RULE_OF_THREE = 3
"""No failure in n tries leaves at most 3/n at 95 %."""
SHOWN_MAX = 20

LOST = "lost"
DOUBLED = "doubled"
GAP = "gap"
FOLD = "fold"
ANSWER = "answer"
UNASKED = "unasked"
REFUSED = "refused yet applied"
STALE = "stale report applied"
UNSENT = "unsent"
APART = "not converged"
BURIED = "dead letter"

BodyOf = Callable[[Line], bytes]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be."""

    kind: str
    key: Key
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {'/'.join(self.key)}: {self.text}"


@dataclass(slots=True)
class Request:
    """All that is known of one request: token and bytes."""

    line: Line
    versions: set[int] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    is_maybe: bool = False
    is_refused: bool = False

    @property
    def is_accepted(self) -> bool:
        return bool(self.versions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out."""

    accepted: int
    maybe: int
    refused: int
    versions: int
    shadows: int
    findings: tuple[Finding, ...]

    def count(self, kind: str) -> int:
        return sum(1 for finding in self.findings if finding.kind == kind)

    def summary(self) -> dict[str, object]:
        """Return the figures of a line of JSON."""
        kinds = Counter(finding.kind for finding in self.findings)
        named = {"lost": LOST, "doubled": DOUBLED, "gaps": GAP}
        others = {kind: number for kind, number in kinds.items() if kind not in named.values()}
        return {
            "accepted": self.accepted,
            **{name: kinds[kind] for name, kind in named.items()},
            "other_findings": others,
            "maybe": self.maybe,
            "refused": self.refused,
            "versions": self.versions,
            "shadows": self.shadows,
            "proves": proves(self.accepted, "accepted update"),
        }


def proves(n: int, what: str) -> str:
    """Say what no failure in n tries says."""
    if n < RULE_OF_THREE:
        return f"nothing: {n} of {what}"
    return f"none in {n}: at most {RULE_OF_THREE / n:.2g} for each {what}, at 95 %"


def judge(evidence: Evidence, body_of: BodyOf, converges: Callable[[Key], bool]) -> Verdict:
    """Judge all shadows; ``converges`` tells of which it is expected that desired gets reported."""
    requests = _requests(evidence.lines)
    by_key: dict[Key, list[Request]] = {}
    for request in requests:
        by_key.setdefault(_key(request.line), []).append(request)
    findings: list[Finding] = []
    for key in dict.fromkeys([*by_key, *evidence.rows]):
        asked, rows = by_key.get(key, []), evidence.rows.get(key, [])
        findings += _judge_requests(key, asked, rows, body_of)
        findings += _judge_sequence(key, asked, rows, body_of)
        findings += _judge_versions(key, rows, evidence, converges(key))
    if evidence.dead_letters:
        findings.append(Finding(BURIED, ("", ""), f"{evidence.dead_letters} requests"))
    return Verdict(
        accepted=sum(request.is_accepted for request in requests),
        maybe=sum(not request.is_accepted and request.is_maybe for request in requests),
        refused=sum(not request.is_accepted and request.is_refused for request in requests),
        versions=sum(map(len, evidence.rows.values())),
        shadows=len(evidence.rows),
        findings=tuple(findings),
    )


# ---------------------------------------------------------------------- requests


def _requests(lines: Sequence[Line]) -> list[Request]:
    found: dict[tuple[str, ...], Request] = {}
    for line in lines:
        if line.op == "get":
            continue
        identity = (line.thing, line.shadow, line.op, line.token, line.body_sha256)
        request = found.setdefault(identity, Request(line))
        match line.phase:
            case "ok":
                assert line.version is not None
                request.versions.add(line.version)
                request.answers.add(line.answer_sha256 or "")
            case "maybe":
                request.is_maybe = True
            case "fail":
                request.is_refused = True
            case _:
                assert line.phase == "invoke", f"unknown phase {line.phase}"
    return list(found.values())


def _judge_requests(
    key: Key, asked: Sequence[Request], rows: Sequence[Row], body_of: BodyOf
) -> Iterator[Finding]:
    by_version = {row.version: row for row in rows}
    by_token: dict[str | None, list[Row]] = {}
    for row in rows:
        by_token.setdefault(row.token, []).append(row)
    known = {request.line.token for request in asked}
    for row in rows:
        if row.token not in known:
            yield Finding(UNASKED, key, f"version {row.version} was asked for by nobody ({row.token})")
    for request in asked:
        its_rows = by_token.get(request.line.token, [])
        yield from _judge_request(key, request, its_rows, by_version, body_of)


def _judge_request(
    key: Key, request: Request, its_rows: Sequence[Row], by_version: Mapping[int, Row], body_of: BodyOf
) -> Iterator[Finding]:
    line = request.line
    named = f"{line.op} {line.token}"
    if len(request.versions) > 1:
        yield Finding(DOUBLED, key, f"{named} was answered with versions {sorted(request.versions)}")
    if len(request.answers) > 1:
        yield Finding(ANSWER, key, f"{named} had {len(request.answers)} different answers")
    if len(its_rows) > 1:
        versions = [row.version for row in its_rows]
        yield Finding(DOUBLED, key, f"{named} was applied at versions {versions}")
    if its_rows and not request.is_accepted and not request.is_maybe and request.is_refused:
        yield Finding(REFUSED, key, f"{named} is version {its_rows[0].version}")
    for version in sorted(request.versions):
        # A deletion answers the version that it deleted; it is itself the next one.
        row = by_version.get(version + 1 if line.op == "delete" else version)
        if row is None:
            yield Finding(LOST, key, f"{named} was accepted as version {version}, which is not there")
        elif row.token != line.token or row.operation != line.op:
            yield Finding(LOST, key, f"{named} was accepted as version {version}; there stands {row.token}")
        elif line.op == "update" and not same(_state(body_of(line)), row.state):
            yield Finding(LOST, key, f"{named} stands at version {version} with another state")


def _judge_sequence(
    key: Key, asked: Sequence[Request], rows: Sequence[Row], body_of: BodyOf
) -> Iterator[Finding]:
    by_token = {request.line.token: request for request in asked}
    highest: tuple[int, int] | None = None
    for row in rows:
        request = by_token.get(row.token or "")
        if request is None or row.operation != "update":
            continue
        pair = msgspec.json.decode(body_of(request.line)).get("sequence")
        if pair is None:
            continue
        sequence = (pair["epoch"], pair["number"])
        if highest is not None and sequence <= highest:
            yield Finding(STALE, key, f"version {row.version} has {sequence} after {highest}")
        highest = max(sequence, highest or sequence)


# ---------------------------------------------------------------------- documents


def _judge_versions(
    key: Key, rows: Sequence[Row], evidence: Evidence, should_converge: bool
) -> Iterator[Finding]:
    document = evidence.documents.get(key)
    last = 0 if document is None else document.version
    versions = [row.version for row in rows]
    if versions != list(range(1, last + 1)):
        missing = sorted(set(range(1, last + 1)) - set(versions))[:SHOWN_MAX]
        beyond = [version for version in versions if version > last][:SHOWN_MAX]
        yield Finding(GAP, key, f"of 1 to {last} are missing {missing}; beyond are {beyond}")
        return
    if document is None:
        return
    shadow = Shadow()
    yield from _judge_fold(key, rows, shadow)
    for name, shown in (("stored", document), ("shown", evidence.finals.get(key))):
        if shown is not None and not _is(shown, shadow):
            yield Finding(FOLD, key, f"the {name} document is not the fold of its {last} versions")
    if document.unsent:
        yield Finding(UNSENT, key, f"{document.unsent} versions were never told")
    delta = shadow.delta()
    if should_converge and delta is not None:
        yield Finding(APART, key, f"{delta['state']} is not reported")


def _judge_fold(key: Key, rows: Sequence[Row], shadow: Shadow) -> Iterator[Finding]:
    """Bring ``shadow`` through all versions; look at it wherever the history holds it whole."""
    for row in rows:
        if row.operation == "delete":
            shadow.delete(row.at_ms // MS_PER_S)
        else:
            shadow.update(row.state, row.at_ms // MS_PER_S)
        if row.full is not None and not _is(document_of(row), shadow):
            yield Finding(FOLD, key, f"the whole document of version {row.version} is not the fold")


def _is(shown: Document, shadow: Shadow) -> bool:
    wanted = shadow.show()
    if wanted is None or not shown.exists:
        return wanted is None and not shown.exists
    return shown.version == wanted["version"] and all(
        same(getattr(shown, name), wanted[name]) for name in ("state", "metadata")
    )


# ---------------------------------------------------------------------- details


def same(one: object, other: object) -> bool:
    """Tell whether two trees are equal, kinds too: 1, 1.0 and true all differ."""
    encode = msgspec.json.encode
    return encode(one, order="sorted") == encode(other, order="sorted")


def _state(body: bytes) -> object:
    return msgspec.json.decode(body)["state"]


def _key(line: Line) -> Key:
    return line.thing, line.shadow
