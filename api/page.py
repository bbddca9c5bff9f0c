"""The API page and the page of problems as HTML. Pure: the OpenAPI document in, bytes out.

No script, no font, no picture, nothing from another origin: it must be readable where there is no internet,
and it must not be a way in.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import msgspec

from api.openapi import resolve
from api.problems import Kind

STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#b4690e}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1.5rem}
h1{margin:0}h2{margin:2.5rem 0 .5rem;border-bottom:1px solid var(--line)}
a{color:var(--accent)}nav ul{columns:2;padding-left:1.1rem}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0}
details[open]{padding-bottom:.8rem}summary{cursor:pointer;padding:.45rem .7rem}
details>:not(summary){margin-left:.7rem;margin-right:.7rem}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.6rem;overflow-x:auto}
.m{display:inline-block;min-width:5rem;font-weight:700;color:var(--accent)}
.s{float:right;opacity:.75}table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0}
th{font-weight:600;opacity:.75}
"""
LINKS: Final = """
<p><a href="/docs/openapi.json">OpenAPI 3.1 document</a> ·
<a href="/docs/problems">what each refusal means</a></p>
"""
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")


def api_page(document: Mapping[str, Any]) -> bytes:
    """Return the page that tells what the API can do."""
    operations = [
        (method, path, _whole(document, operation))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    ]
    sections = [
        _section(tag["name"], [one for one in operations if one[2]["tags"] == [tag["name"]]])
        for tag in document["tags"]
    ]
    info = document["info"]
    head = f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
    return _html("Gnomon API", [head, _prose(info["description"]), LINKS, *sections])


def problem_page(kinds: Iterable[Kind]) -> bytes:
    """Return the page that the ``type`` of every problem points into."""
    rows = "".join(
        f'<tr id="{kind.slug}"><td>{kind.status}</td><td><code>{kind.slug}</code></td>'
        f"<td>{escape(kind.title)}</td><td>{_code(kind.remedy)}</td></tr>"
        for kind in kinds
    )
    head = "<tr><th>status</th><th>type ends in</th><th>means</th><th>what to do</th></tr>"
    return _html(
        "Gnomon problems",
        ['<h1>Problems</h1><p><a href="/docs">The API</a></p>', f"<table>{head}{rows}</table>"],
    )


def _html(title: str, parts: Iterable[str]) -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    ).encode()


def _whole(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an operation with everything in place that it leads to."""
    responses = operation["responses"].items()
    return {
        **operation,
        "parameters": [resolve(document, one) for one in operation.get("parameters", ())],
        "responses": {status: resolve(document, one) for status, one in responses},
    }


def _section(tag: str, operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    return f"<h2>{escape(tag)}</h2>" + "".join(_operation(*one) for one in operations)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<details id="{operation["operationId"]}">',
        f'<summary><span class="m">{method.upper()}</span><code>{escape(path)}</code> ',
        f'<span class="s">{escape(operation["summary"])}</span></summary>',
        _prose(operation.get("description", "")),
        _parameters(operation.get("parameters", ())),
        *(f"<pre>{escape(call)}</pre>" for call in _calls(method, path, operation)),
        _responses(operation["responses"]),
        "</details>",
    ]
    return "".join(parts)


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}"
        f"{', required' if one['required'] else ''}</td>"
        f"<td>{_code(one['description'])}</td></tr>"
        for one in parameters
    )
    return f"<table>{rows}</table>" if rows else ""


def _responses(responses: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><b>{status}</b></td><td>{_code(response['description'])}</td></tr>"
        for status, response in responses.items()
    )
    examples = "".join(
        f"<pre>{escape(_pretty(content['example']))}</pre>"
        for status, response in responses.items()
        if status.startswith("2")
        for content in response.get("content", {}).values()
        if "example" in content
    )
    return f"{examples}<table>{rows}</table>"


def _calls(method: str, path: str, operation: Mapping[str, Any]) -> Iterable[str]:
    """Yield one example call for each media type that the operation takes."""
    for one in operation.get("parameters", ()):
        if one["in"] == "path":
            path = path.replace("{" + one["name"] + "}", str(one["example"]))
    lines = [f"curl -X {method.upper()} $GNOMON{path}"]
    if operation.get("security") != []:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    bodies = operation.get("requestBody", {}).get("content", {})
    for media, content in bodies.items():
        # A merge patch is the one change that needs no precondition.
        conditional = "428" in operation["responses"] and "merge-patch" not in media
        match = ["-H 'If-Match: \"41\"'"] if conditional else []
        yield " \\\n  ".join([*lines, *match, f"-H 'Content-Type: {media}'", _data(content)])
    if not bodies:
        yield " \\\n  ".join(lines)


def _data(content: Mapping[str, Any]) -> str:
    if "example" not in content:  # bytes of any kind
        return "--data-binary @FILE"
    return f"-d '{msgspec.json.encode(content['example']).decode()}'"


def _pretty(example: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(example, str):
        return example
    return msgspec.json.format(msgspec.json.encode(example), indent=2).decode()


def _prose(text: str) -> str:
    """Return the little of Markdown that our descriptions use: lists, bold, code."""
    if not text:
        return ""
    blocks = [block.strip() for block in text.split("\n\n")]
    return "".join(_list(block) if block.startswith("* ") else f"<p>{_code(block)}</p>" for block in blocks)


def _list(block: str) -> str:
    items = re.split(r"^\* ", block, flags=re.MULTILINE)[1:]
    return "<ul>" + "".join(f"<li>{_code(item.strip())}</li>" for item in items) + "</ul>"


def _code(text: str) -> str:
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)
