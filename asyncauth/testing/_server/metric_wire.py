"""CloudWatch's wire formats: parameters and answers in JSON and in the query protocol.

moto's own take seconds for a call with 500 queries, and for a page of 100,800 points.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

from asyncauth.testing._server.http import Response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAMESPACE: Final = "http://monitoring.amazonaws.com/doc/2010-08-01/"
_BOOLEANS: Final = {"true": True, "false": False}


def read_json(body: bytes) -> dict[str, Any]:
    """Return the parameters of a call in JSON."""
    given: dict[str, Any] = json.loads(body or b"{}")
    return given


def read_form(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of a call in the query protocol, whose names are paths: `Dimensions.member.1.Name`."""
    root: dict[str, Any] = {}
    for path, text in form.items():
        *parents, name = path.split(".")
        here = root
        for parent in parents:
            here = here.setdefault(parent, {})
        here[name] = _BOOLEANS.get(text, text) if name in {"ReturnData", "IncludeLinkedAccounts"} else text
    return {name: _with_lists(value) for name, value in root.items() if name not in {"Action", "Version"}}


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {"member"}:
        return [_with_lists(value["member"][number]) for number in sorted(value["member"], key=int)]
    return {name: _with_lists(one) for name, one in value.items()}


def seconds(moment: float | str) -> int:
    """Return a time in Unix seconds: JSON has a number, the query protocol ISO 8601."""
    if isinstance(moment, str):
        parsed = datetime.fromisoformat(moment)
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    return int(moment)


def write(action: str, answer: Mapping[str, Any], *, is_json: bool) -> Response:
    """Return the answer of an operation; its `Timestamps` are Unix seconds."""
    if is_json:
        return Response(200, json.dumps(answer).encode(), [("Content-Type", "application/x-amz-json-1.0")])
    body = "".join(
        (
            f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>',
            *_members(answer),
            f"</{action}Result><ResponseMetadata><RequestId>simulated</RequestId></ResponseMetadata></{action}Response>",
        )
    )
    return Response(200, body.encode(), [("Content-Type", "text/xml")])


def _members(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield f"<{name}>"
        if name == "Timestamps":
            for one in value:
                yield f"<member>{datetime.fromtimestamp(one, UTC):%Y-%m-%dT%H:%M:%SZ}</member>"
        elif isinstance(value, list):
            for one in value:
                yield "<member>"
                yield from _members(one) if isinstance(one, dict) else (escape(str(one)),)
                yield "</member>"
        else:
            yield escape(str(value))
        yield f"</{name}>"
