"""JSON schema of the tables of a file, generated from their dataclasses for editors.

`python -m asyncauth._models.table_schema` writes the schema of the fleet file.
"""

from __future__ import annotations

import json
import re
import types
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from asyncauth._models.fleet_tables import FleetFile

SCHEMA_FILE: Final = Path(__file__).with_name("fleet_file.schema.json")

_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean"}
_ARGUMENT: Final = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)


def fleet_file_schema() -> dict[str, Any]:
    """Return the JSON schema of the fleet file."""
    definitions: dict[str, Any] = {}
    root = _table(FleetFile, definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "asyncauth.toml",
        **root,
        "definitions": dict(sorted(definitions.items())),
    }


def _table(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a dataclass; descriptions are those of its docstring."""
    hints = get_type_hints(kind)
    described = dict(_ARGUMENT.findall(kind.__doc__ or ""))
    required = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n")[0],
        "properties": {
            each.name: {**_value(hints[each.name], definitions), "description": " ".join(described[each.name].split())}
            for each in fields(kind)
        },
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _value(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if get_origin(hint) in (Union, types.UnionType):
        choices = [_value(each, definitions) for each in get_args(hint) if each is not type(None)]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _value(get_args(hint)[0], definitions)}
    if isinstance(hint, type) and is_dataclass(hint):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}
            definitions[hint.__name__] = _table(hint, definitions)
        # In a list: draft 7 ignores what is beside a reference, such as a description.
        return {"allOf": [{"$ref": f"#/definitions/{hint.__name__}"}]}
    if get_origin(hint) is not None:
        return {"type": "object", "additionalProperties": _value(get_args(hint)[1], definitions)}
    return {"type": _TYPES[hint]}


def schema_text() -> str:
    """Return the content of the schema's file."""
    return json.dumps(fleet_file_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
