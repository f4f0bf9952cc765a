"""The OpenAPI document as one HTML page: no script, nothing loaded from anywhere.

A device fleet's server often has no way to the internet, where FastAPI's own page gets its scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

Document = dict[str, Any]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
summary { cursor: pointer; padding: .25rem 0; } summary b { display: inline-block; width: 4.5rem; }
details > div { border-left: 3px solid #8888; padding-left: 1rem; margin-bottom: 1rem; }
pre, code { background: #8882; } pre { padding: .5rem; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0; }
"""


def reference_page(document: Document) -> str:
    """The page. `document` is what /openapi.json answers."""
    return "".join(_page(document))


def _page(document: Document) -> Iterator[str]:
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    yield "<!doctype html><html lang=en><meta charset=utf-8>"
    yield "<meta name=viewport content='width=device-width'>"
    yield f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    yield f"<p>{escape(info.get('summary', ''))}. {escape(info.get('description', ''))}</p>"
    yield "<p>For programs: <a href='openapi.json'>openapi.json</a></p>"
    for tag in document.get("tags", []):
        yield f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(document, method.upper(), path, operation)
    yield "</html>"


def _operation(document: Document, method: str, path: str, operation: Document) -> Iterator[str]:
    yield f"<details><summary><b>{method}</b> <code>{escape(path)}</code> "
    yield f"{escape(operation['summary'])}</summary><div>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        yield _table(("parameter", "in", "meaning"), (_parameter(p) for p in parameters))
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h4>Body: {escape(kind)}</h4>{_example(document, media)}"
    for status, answer in operation["responses"].items():
        if int(status) < 300:
            for media in answer.get("content", {}).values():
                yield f"<h4>Answer {escape(status)}</h4>{_example(document, media)}"
    yield _table(
        ("status", "meaning"),
        ((s, a.get("description", "")) for s, a in sorted(operation["responses"].items())),
    )
    yield "</div></details>"


def _parameter(parameter: Document) -> tuple[str, str, str]:
    needed = " (required)" if parameter.get("required") else ""
    return parameter["name"], parameter["in"] + needed, parameter.get("description", "")


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _example(document: Document, media: Document) -> str:
    """The first example of a body: its own, or that of its schema."""
    schema = media.get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"].get(name, schema)
    shown = [e["value"] for e in media.get("examples", {}).values()]
    shown += [media["example"]] if "example" in media else []
    shown += schema.get("examples", [])
    if not shown:
        return ""
    text = shown[0] if isinstance(shown[0], str) else json.dumps(shown[0], indent=2)
    return f"<pre>{escape(text)}</pre>"
