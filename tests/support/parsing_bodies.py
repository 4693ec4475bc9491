"""Generator of response bodies from a model's output shapes, well-formed or malformed."""

from __future__ import annotations

import base64
import json
import random
from typing import Any
from xml.sax.saxutils import escape

_TEXTS = [
    "",
    "plain",
    "i-0123456789abcdef0",
    "two  words ",
    " a\n\tb ",
    "a & b < c > d \"e\" 'f'",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN} \N{GRINNING FACE}",
    "%7B%22Version%22%3A%222012-10-17%22%7D",
    "\x7f\x85\ufffd",
    "true",
    "12",
]
_STAMPS = [
    "2026-01-31T08:00:00.000Z",
    "2026-01-31T08:00:00Z",
    "2026-01-31T09:00:00+01:00",
    "1769846400",
    "1769846400.5",
]
_NUMBERS = [0, 1, -1, 80, 2**31, 2**40]
_FLOATS = [0.0, 1.5, -2.25, 1e100, 100.0]


class Maker:
    """Generates a body for a shape. `trouble` is the probability of a fault at each place."""

    def __init__(self, seed: int, *, trouble: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.trouble = trouble

    def odd(self) -> bool:
        return self.random.random() < self.trouble

    def pick(self, choices: Any) -> Any:
        return self.random.choice(choices)

    def some(self, depth: int) -> int:
        return self.pick([0, 1, 2, 3]) if depth < 4 else self.pick([0, 1])

    def has(self, depth: int) -> bool:
        return self.random.random() < (0.7 if depth < 3 else 0.4 if depth < 6 else 0.15)

    def scalar(self, shape: Any) -> Any:
        kind = shape.type_name
        if kind == "boolean":
            return self.pick([True, False])
        if kind in ("integer", "long"):
            return self.pick(_NUMBERS)
        if kind in ("float", "double"):
            return self.pick(_FLOATS)
        if kind == "timestamp":
            return self.pick(_STAMPS)
        if kind == "blob":
            return self.pick([b"", b"\x00\xff", b"blob"])
        return self.pick(_TEXTS)


class XMLMaker(Maker):
    """Generates XML of the query, ec2 and rest-xml protocols."""

    def document(self, protocol: str, shape: Any) -> bytes:
        text = self._document(protocol, shape)
        body = text.encode()
        return self._bend(body) if self.odd() else body

    def _document(self, protocol: str, shape: Any) -> str:
        self.gap = self.pick(["", "", "\n", "\n    "])
        inside = ""
        if shape is not None:
            payload = shape.serialization.get("payload")
            inside = self.members(shape.members[payload] if payload else shape, 0)
            if wrapper := shape.serialization.get("resultWrapper"):
                inside = self.element(wrapper, inside)
        request_id = self.pick(["", "59dbff89-35bd-4eac-99ed-be587EXAMPLE"])
        if protocol == "query":
            inside += self.pick(["", self.element("ResponseMetadata", self.element("RequestId", request_id))])
        elif protocol == "ec2":
            inside = self.pick([self.element("requestId", request_id), ""]) + inside
        declaration = self.pick(
            [
                "",
                '<?xml version="1.0" encoding="UTF-8"?>\n',
                "<?xml version='1.0'?>",
                '<?xml version="1.0" standalone="yes"?>',
            ]
        )
        attributes = self.pick(["", ' xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"', " xmlns='https://a.b/c'"])
        return f"{declaration}<Answer{attributes}>{inside}</Answer>{self.gap}"

    def element(self, tag: str, inside: str) -> str:
        attributes = self.pick([' a="b"', " xmlns:q='urn:q'", ' xmlns=""', " "]) if self.odd() else ""
        if self.odd():
            tag = self.pick([tag + "x", "q:" + tag, tag.upper(), "1" + tag, ""])
        if not inside.strip() and self.random.random() < 0.5:
            return f"<{tag}{attributes}{self.pick(['', ' '])}/>{self.gap}"
        if self.odd():
            inside = (
                self.pick(["", "stray text", "&amp;"])
                + self.pick(["<!-- no -->", "<![CDATA[x<y]]>", "<?p i?>", "", inside])
                + inside
            )
        end = self.pick([tag + " ", "other", ""]) if self.odd() else tag
        return f"<{tag}{attributes}>{inside}</{end}>{self.gap}"

    def members(self, shape: Any, depth: int) -> str:
        parts = []
        members = list(shape.members.items())
        if shape.is_tagged_union:
            members = [self.pick(members)] if not self.odd() else members[:2]
        for name, member in members:
            prefixed = ":" in member.serialization.get("name", "") and not self.odd()  # an attribute, not an element
            if (self.has(depth) or shape.is_tagged_union) and "location" not in member.serialization and not prefixed:
                parts.append(self.member(name, member, depth))
        if self.odd():
            parts.append(
                self.pick([self.element("unknownThing", "1"), "<unknown><deep><er/></deep><a>b</a></unknown>"])
            )
        if self.odd() and parts:
            parts.append(self.pick(parts))
        self.pick([parts.reverse, lambda: self.random.shuffle(parts), list, list])()
        return self.gap + "".join(parts) if parts else ""

    def member(self, name: str, shape: Any, depth: int) -> str:
        tag = shape.serialization.get("name", name)
        flattened = shape.serialization.get("flattened")
        if flattened and shape.type_name == "list":
            item = shape.member.serialization.get("name") or tag
            return "".join(self.element(item, self.value(shape.member, depth + 1)) for _ in range(self.some(depth)))
        if flattened and shape.type_name == "map":
            return "".join(self.element(tag, self.pair(shape, depth + 1)) for _ in range(self.some(depth)))
        return self.element(tag, self.value(shape, depth + 1))

    def value(self, shape: Any, depth: int) -> str:
        kind = shape.type_name
        if self.odd():
            return self.pick(
                ["", "12", "<nested>1</nested>", "text", "<a/>", "&quot;", "&#65;", "&#x0;", "&nope;", "]]>"]
            )
        if kind == "structure":
            return self.members(shape, depth)
        if kind == "list":
            item = "strange" if self.odd() else shape.member.serialization.get("name") or "member"
            return "".join(self.element(item, self.value(shape.member, depth + 1)) for _ in range(self.some(depth)))
        if kind == "map":
            return "".join(self.element("entry", self.pair(shape, depth + 1)) for _ in range(self.some(depth)))
        return self.text(self.scalar(shape))

    def pair(self, shape: Any, depth: int) -> str:
        key = self.element(shape.key.serialization.get("name") or "key", self.value(shape.key, depth))
        value = self.element(shape.value.serialization.get("name") or "value", self.value(shape.value, depth))
        if self.odd():
            return self.pick([key, value, "", key + value + "<more/>", key + key + value])
        return self.pick([key + value, value + key])

    def text(self, value: Any) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        style = self.pick([{}, {'"': "&quot;", "'": "&apos;"}, {'"': "&#34;", "\n": "&#xA;", "e": "&#x65;"}])
        return escape(str(value), style)

    def _bend(self, body: bytes) -> bytes:
        at = self.random.randrange(len(body) + 1)
        return self.pick(
            [
                body[:at],
                body[at:],
                body[:at]
                + self.pick([b"\x00", b"\x0b", b"\r\n", b"\xff", b"\xef\xbf\xbe", b"<", b">", b"&", b" ", b"]]>"])
                + body[at:],
                b"\xef\xbb\xbf" + body,
                b" " + body,
                body + self.pick([b"<!-- end -->", b"<again/>", b"text", b"\n\n", b"\r\n"]),
                b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + body,
                b"",
                b"<html></html>",
                b"not xml",
            ]
        )


class JSONMaker(Maker):
    """Generates JSON of the json and rest-json protocols."""

    def document(self, protocol: str, shape: Any) -> bytes:
        value: Any = {}
        if shape is not None:
            payload = shape.serialization.get("payload")
            value = self.members(shape.members[payload] if payload else shape, 0)
        body = json.dumps(value, ensure_ascii=self.pick([True, False])).encode()
        if self.odd():
            at = self.random.randrange(len(body) + 1)
            return self.pick(
                [b"", b"null", b"[]", b"3", b'"x"', body[:at], body[at:], body + b"x", b"\xff", b"\xef\xbb\xbf" + body]
            )
        return body

    def members(self, shape: Any, depth: int) -> Any:
        if getattr(shape, "is_document_type", False):
            return self.pick([{"any": [1, {"thing": None}]}, [1], "text", None, 3.5])
        members = list(shape.members.items())
        if shape.is_tagged_union:
            members = [self.pick(members)]
        value = {}
        for name, member in members:
            if (self.has(depth) or shape.is_tagged_union) and ("location" not in member.serialization or self.odd()):
                value[str(member.serialization.get("name", name))] = self.value(member, depth + 1)
        if self.odd():
            value[self.pick(["unknownThing", "__type"])] = self.pick([None, 1, {}, "x"])
        if self.odd():
            value = dict(reversed(value.items()))
        return value

    def value(self, shape: Any, depth: int) -> Any:
        if self.odd():
            return self.pick(
                [None, None, "", "text", 12, True, [], [None], {}, {"a": None}, ["x"], 1.5, "true", "2026"]
            )
        kind = shape.type_name
        if kind == "structure":
            return self.members(shape, depth)
        if kind == "list":
            return [self.value(shape.member, depth + 1) for _ in range(self.some(depth))]
        if kind == "map":
            return {f"k{index}": self.value(shape.value, depth + 1) for index in range(self.some(depth))}
        value = self.scalar(shape)
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value
