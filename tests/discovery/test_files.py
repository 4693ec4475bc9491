"""Files of accounts: what is valid is read back equal, what is not gives one error with its place."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import SELF, Account, ConfigurationError, Profile, Role
from asyncauth.discovery import file_accounts

ROOT = Path(__file__).parents[2]

IDS = st.from_regex(r"[0-9]{12}", fullmatch=True)
PARTITIONS = st.sampled_from(["aws", "aws-cn", "aws-us-gov"])
REGIONS = {"aws": ["us-east-1", "eu-*"], "aws-cn": ["cn-north-1"], "aws-us-gov": ["us-gov-*", "us-gov-west-1"]}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_ .-]{0,8}[a-z]", fullmatch=True)
NAMES = st.from_regex(r"(team/)?[A-Za-z0-9+=,.@_-]{1,20}", fullmatch=True)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    partition = draw(PARTITIONS)
    record: dict[str, Any] = {
        "id": draw(IDS),
        "partition": draw(st.sampled_from([partition] if partition != "aws" else ["aws", None])),
        "name": draw(st.none() | TEXT),
        "role": draw(st.none() | NAMES),
        "external_id": draw(st.none() | st.from_regex(r"[A-Za-z0-9_+=,.@:/-]{2,20}", fullmatch=True)),
        "profile": draw(st.none() | KEYS),
        "regions": draw(st.lists(st.sampled_from(REGIONS[partition]), unique=True)),
        "tags": draw(st.dictionaries(KEYS, TEXT, max_size=3)),
        "facts": draw(st.dictionaries(KEYS, TEXT, max_size=3)),
        "unavailable": draw(st.none() | TEXT),
    }
    if record["profile"] is not None and record["role"] is None:
        record["external_id"] = None  # nothing is assumed, so an external id is refused
    return {name: value for name, value in record.items() if value not in (None, [], {})}


FILES = st.lists(records(), max_size=6, unique_by=lambda record: record["id"])


def write(content: str, suffix: str) -> list[Account]:
    """Return the accounts of a file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"accounts{suffix}")
        path.write_bytes(content.encode())

        async def read() -> list[Account]:
            return [account async for account in file_accounts(path)]

        return anyio.run(read)


def as_account(record: dict[str, Any]) -> Account:
    """Return the account that a record means, written without the reader's own code."""
    fields = {name: value for name, value in record.items() if name != "profile"}
    if "profile" in record:
        fields = {"role": SELF} | fields | {"source": Profile(record["profile"])}
    return Account(**fields)


def to_toml(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        lines.append("[[accounts]]")
        for name, value in row.items():
            if isinstance(value, dict):
                pairs = ", ".join(
                    f"{json.dumps(key)} = {json.dumps(text, ensure_ascii=False)}" for key, text in value.items()
                )
                lines.append(f"{name} = {{ {pairs} }}")
            else:
                lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)


def to_csv(rows: list[dict[str, Any]]) -> str:
    flat = []
    for row in rows:
        cells = {name: value for name, value in row.items() if isinstance(value, str)}
        cells["regions"] = " ".join(row.get("regions", []))
        cells |= {f"tag:{key}": value for key, value in row.get("tags", {}).items()}
        cells |= {f"fact:{key}": value for key, value in row.get("facts", {}).items()}
        flat.append(cells)
    columns = list(dict.fromkeys(["id", *(name for row in flat for name in row)]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


WRITERS = {
    ".toml": to_toml,
    ".json": json.dumps,
    ".jsonl": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    ".csv": to_csv,
}


@pytest.mark.parametrize("suffix", WRITERS)
@given(rows=FILES)
def test_a_valid_file_is_read_back_equal(suffix: str, rows: list[dict[str, Any]]) -> None:
    """Each format holds every field of an account, in any script, and ids with leading zeros."""
    assert write(WRITERS[suffix](rows), suffix) == [as_account(row) for row in rows]


#: A change of one value that makes a record invalid: the key, and its value.
MISTAKES = st.sampled_from(
    [
        ("id", "12345678901"),
        ("id", "1234567890123"),
        ("id", "\u0661" * 12),
        ("partition", "aws-mars"),
        ("role", "a/b c"),
        ("external_id", "x"),
        ("regions", ["mars-east-1"]),
        ("rolle", "deploy"),
    ]
)
TYPES = st.sampled_from([("id", 123456789012), ("name", 7), ("regions", "us-east-1"), ("tags", ["a"]), ("facts", 1)])


@pytest.mark.parametrize("suffix", [".toml", ".json", ".jsonl"])
@given(rows=FILES.filter(bool), mistake=MISTAKES | TYPES, data=st.data())
def test_an_invalid_value_is_named_with_its_place(
    suffix: str, rows: list[dict[str, Any]], mistake: tuple[str, Any], data: st.DataObject
) -> None:
    """One error, with the file and the path, or in JSON lines the line."""
    index = data.draw(st.integers(0, len(rows) - 1))
    rows[index] = {"id": rows[index]["id"], mistake[0]: mistake[1]}

    with pytest.raises(ConfigurationError) as caught:
        write(WRITERS[suffix](rows), suffix)

    item = {".toml": f": accounts[{index}]", ".json": f": [{index}]", ".jsonl": f", line {index + 1}: "}[suffix]
    key = mistake[0] if suffix == ".jsonl" else f".{mistake[0]}"
    assert f"accounts{suffix}{item}{key}" in str(caught.value)


@given(rows=FILES.filter(bool), mistake=MISTAKES, data=st.data())
def test_an_invalid_cell_is_named_with_its_line(
    rows: list[dict[str, Any]], mistake: tuple[str, Any], data: st.DataObject
) -> None:
    """In CSV the place is the line, and the column; an unknown column is in the first line."""
    index = data.draw(st.integers(0, len(rows) - 1))
    rows[index] = {"id": rows[index]["id"], mistake[0]: mistake[1]}

    with pytest.raises(ConfigurationError) as caught:
        write(to_csv(rows), ".csv")

    line, name = (1, "unknown column 'rolle'") if mistake[0] == "rolle" else (index + 2, mistake[0])
    assert f"accounts.csv, line {line}: {name}" in str(caught.value)


C7N = st.fixed_dictionaries(
    {"account_id": IDS, "name": TEXT},
    optional={
        "role": NAMES,
        "external_id": st.just("7c1e"),
        "regions": st.just(["us-east-1", "eu-west-1"]),
        "email": st.just("a@example.com"),
        "tags": st.lists(st.sampled_from(["team:blue", "url:http://x:1", "flag"]), unique=True, min_size=1),
        "vars": st.just({"charge": "0123"}),
    },
)


@given(st.lists(C7N, max_size=5, unique_by=lambda account: account["account_id"]), st.booleans())
def test_c7n_orgs_file_is_read_back_equal(rows: list[dict[str, Any]], quoted: bool) -> None:
    """Ids stay as written, in quotation marks or not; tags are split at the first colon, the rest are facts."""
    rows = [row if "role" in row else row | {"role": "custodian"} for row in rows]
    text = yaml.safe_dump({"accounts": rows, "vars": {"shared": "yes"}}, allow_unicode=True)
    if not quoted:
        text = re.sub(r"account_id: '([0-9]+)'", r"account_id: \1", text)

    accounts = write(text, ".yml")

    expected = [
        Account(
            row["account_id"],
            name=row["name"],
            role=row["role"],
            external_id=row.get("external_id"),
            regions=row.get("regions", ()),
            tags={key: value for key, _, value in (tag.partition(":") for tag in row.get("tags", ()))},
            facts={name: row[name] for name in ["email"] if name in row}
            | {"vars.shared": "yes"}
            | {f"vars.{name}": value for name, value in row.get("vars", {}).items()},
        )
        for row in rows
    ]
    assert accounts == expected


def test_c7n_roles_and_profiles() -> None:
    """A list of roles is a chain, an ARN brings its partition, a merged mapping its values."""
    accounts = write(
        """
defaults: &defaults
  external_id: 7c1e
accounts:
- account_id: 012345670123
  name: chained
  role: [arn:aws-cn:iam::111111111111:role/hub, "arn:aws-cn:iam::012345670123:role/team/deploy"]
- <<: *defaults
  account_id: "222222222222"
  name: plain
  role: deploy
""",
        ".yaml",
    )

    hub = "arn:aws-cn:iam::111111111111:role/hub"
    assert accounts == [
        Account("012345670123", partition="aws-cn", name="chained", role=Role("deploy", path="/team/", via=(hub,))),
        Account("222222222222", name="plain", role="deploy", external_id="7c1e"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accounts:\n- name: a\n  role: b", r"line 2: accounts\[0\]: account_id is missing"),
        ("accounts:\n- account_id: '1'\n  role: b", r"line 2: accounts\[0\].id: an account id must be"),
        ("accounts:\n- account_id: '111111111111'", r"line 2: accounts\[0\]: role or profile is missing"),
        ("accounts:\n- role: a\n  role: b", r"line 3: accounts\[0\].role: the key is given twice"),
        ("accounts:\n- role: a\n  account_id: 111111111111\n  tags: {a: b}", r"line 4: accounts\[0\].tags: must be"),
        ("accounts:\n- &a [*a]", "line 2: not valid here"),
        ("accounts: {a: b}", "line 1: accounts: must be a list"),
        ("accounts: [\n", "line 2: not valid YAML"),
        ("a: \x00", "line 1: not valid YAML"),
        ("subscriptions: []", "line 1: subscriptions: these are Azure's"),
        ("- a", "must be a mapping"),
        ("accounts:\n- ? [a]\n  : b", "line 2: a key must be a string"),
        ("<<: b", "line 1: the key << merges a mapping"),
        ("accounts:\n- account_id: 111111111111\n  role: arn:aws:iam::222222222222:role/a", "is in account 222"),
    ],
)
def test_a_mistake_in_c7n_orgs_file_has_its_line(text: str, message: str) -> None:
    """Line and path, for syntax and for values."""
    with pytest.raises(ConfigurationError, match=message):
        write(text, ".yml")


#: A change of one value that makes an account of c7n-org invalid: the key, and its value.
C7N_MISTAKES = st.sampled_from(
    [
        ("account_id", "12345678901"),
        ("account_id", "\u0661" * 12),
        ("account_id", ["111111111111"]),
        ("role", "a/b c"),
        ("role", ["hub", "a b"]),
        ("role", {"name": "a b"}),
        ("external_id", "x"),
        ("regions", ["mars-east-1"]),
        ("regions", "us-east-1"),
        ("tags", {"team": "blue"}),
        ("tags", [["team"]]),
        ("vars", ["a"]),
        ("profile", ["a"]),
        ("name", ["a"]),
    ]
)


@settings(max_examples=60)
@given(ids=st.lists(IDS, min_size=1, max_size=5, unique=True), mistake=C7N_MISTAKES, data=st.data())
def test_an_invalid_value_in_c7n_orgs_file_has_its_line(
    ids: list[str], mistake: tuple[str, Any], data: st.DataObject
) -> None:
    """One error, with the line of the account and the path of the value."""
    index = data.draw(st.integers(0, len(ids) - 1))
    rows: list[dict[str, Any]] = [{"account_id": one_id, "name": "n", "role": "custodian"} for one_id in ids]
    rows[index] |= {mistake[0]: mistake[1]}
    text = "accounts:\n" + "".join(f"- {json.dumps(row, ensure_ascii=False)}\n" for row in rows)

    with pytest.raises(ConfigurationError) as caught:
        write(text, ".yml")

    key = "id" if mistake[0] == "account_id" else mistake[0]
    assert re.search(rf"accounts\.yml, line {index + 2}: accounts\[{index}\]\.{key}\b", str(caught.value))


def dump_c7n(rows: list[dict[str, Any]]) -> str:
    """Return accounts as c7n-org has them."""
    accounts = [{"account_id": row["id"], "name": row.get("name", "n"), "role": row.get("role", "r")} for row in rows]
    return yaml.safe_dump({"accounts": accounts}, allow_unicode=True)


#: Characters with a meaning in one of the formats, and some without.
PIECES = st.sampled_from(
    [*"[]{}()\"',:;=#&*!|>%@-_\\.0129aé \t\r\n\x00\ufeff\u2028", "\n\n", "'''", '"""', "<<", "- ", "[[x]]\n", "1e5"]
)
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), PIECES), max_size=4)


@pytest.mark.parametrize("suffix", [*WRITERS, ".yml"])
@settings(max_examples=60)
@given(rows=FILES.filter(bool), edits=DAMAGE)
def test_a_damaged_file_is_read_or_is_one_error_with_its_place(
    suffix: str, rows: list[dict[str, Any]], edits: list[tuple[float, int, str]]
) -> None:
    """Whatever is cut out of a valid file or put into it: accounts, or a ConfigurationError that names the place."""
    text = (WRITERS | {".yml": dump_c7n})[suffix](rows)
    for where, cut, piece in edits:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + cut :]

    message = ""
    try:
        accounts = write(text, suffix)
    except ConfigurationError as error:
        accounts, message = [], str(error)

    assert all(isinstance(account, Account) for account in accounts)
    # A value with a line break in it makes the message longer by a line, which has no place.
    places = [line for line in message.splitlines() if f"accounts{suffix}" in line]
    assert bool(places) == bool(message), message
    place = rf"accounts\{suffix}(, line \d+: |: (not valid TOML: .*\(at line \d+|\S+: |must be |\[\d+\]))"
    assert all(re.search(place, line) for line in places), message


def test_aliases_that_multiply_cost_no_time() -> None:
    """A value that refers to another ten times, nine levels deep, is built once for each level."""
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))

    assert write(f"l0: &l0 [x]\n{levels}\naccounts: []", ".yml") == []


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".toml", "[[accounts]]\nid = 012345678901", r"not valid TOML: .*line 2.*an id is a string in quotation marks"),
        (".toml", "[[sources]]", "sources: a file of accounts has the array `accounts` only.*fleet_accounts"),
        (".toml", "accounts = 3", "accounts: must be an array of accounts, got the number 3"),
        (".toml", f"a = {'[' * 100_000}", "not valid TOML: too many levels"),
        (".json", '[{"id": 012345678901}]', "line 1: not valid JSON: .*quotation marks"),
        (".json", '[{"id": 12345678901}]', r"\[0\].id: must be a string, got the number 12345678901; put it in"),
        (".json", '[{"id": "1", "id": "2"}]', r"\[0\].id: the key is given twice"),
        (".json", '{"acounts": []}', "acounts: a file of accounts has"),
        (".json", "7", "must be an array of accounts, got the number 7"),
        (".json", "[null]", r"\[0\]: must be a table, got null"),
        (".json", "[" * 100_000, "not valid JSON"),
        (".json", '["12345678901"]', r"\[0\].id: .*lost its leading zeros, 012345678901: write all 12"),
        (".json", '[{"name": "x"}]', r"\[0\]: id is missing"),
        (".jsonl", '{"id": "111111111111"}\n\n{"id": }', "line 3: not valid JSON"),
        (".csv", "", "must name the columns"),
        (".csv", "id;name\n", "separate the columns with commas"),
        (".csv", "id,name,name\n", "'name' is there twice"),
        (".csv", 'id,name\n"1', "line 2: not valid CSV"),
        (".csv", 'id,name\n111111111111,"a\nb"\n2,c', "line 4: id: "),
        (".csv", "id,name\n111111111111", "line 2: 1 cells, but the first line has 2 columns"),
        (".csv", "id\n1.23457E+11", "line 2: id: an account id must be"),
        (".txt", "", "suffix, which must be one of .toml, .json"),
        (
            ".json",
            '[{"id": "arn:aws-cn:iam::111111111111:role/a", "partition": "aws"}]',
            "partition: aws contradicts the ARN",
        ),
        (".json", '[{"id": "arn:aws:iam::111111111111:role/a", "role": "b"}]', "role: contradicts the ARN"),
        (".json", '[{"id": "111111111111", "role": []}]', "role: an empty array"),
        (".json", '[{"id": "111111111111", "role": {"duration_seconds": 1}}]', "role: duration_seconds must be from"),
        (".json", '[{"id": "111111111111", "role": {"nam": "a"}}]', "role.nam: unknown key; did you mean name?"),
        (
            ".json",
            '[{"id": "111111111111"}, {"id": "111111111111", "name": "b"}]',
            r"\[1\]: account 111111111111 is listed before, with other values: .*\[0\]",
        ),
    ],
)
def test_a_mistake_in_a_file_is_located(suffix: str, text: str, message: str) -> None:
    """The message has the place and what is wrong with it."""
    with pytest.raises(ConfigurationError, match=message):
        write(text, suffix)


def test_all_mistakes_of_a_file_are_in_one_error() -> None:
    """The first ten with their places, and the number of the rest."""
    with pytest.raises(ConfigurationError) as caught:
        write("id\n" + "1\n" * 12, ".csv")

    lines = str(caught.value).splitlines()
    assert lines[0] == "12 accounts are invalid:"
    assert re.fullmatch(r"  .*accounts\.csv, line 11: id: .*", lines[10])
    assert lines[11:] == ["  and 2 more"]


def test_a_chain_of_roles_and_a_table_make_a_role() -> None:
    """An array of roles is a chain whose last role is the account's own; names before it are roles of the account."""
    accounts = write(
        json.dumps(
            [
                {"id": "111111111111", "role": ["arn:aws:iam::222222222222:role/hub", "hop", "team/deploy"]},
                {"id": "333333333333", "role": {"name": "team/deploy", "duration_seconds": 900}},
                {"id": "333333333333", "role": {"name": "team/deploy", "duration_seconds": 900}},
            ]
        ),
        ".json",
    )

    via = ("arn:aws:iam::222222222222:role/hub", "arn:aws:iam::111111111111:role/hop")
    assert accounts == [
        Account("111111111111", role=Role("deploy", path="/team/", via=via)),
        Account("333333333333", role=Role("deploy", path="/team/", duration_seconds=900)),
    ]


def test_bytes_that_are_not_utf8_have_their_line(tmp_path: Path) -> None:
    """Excel's other encodings are found, not guessed."""
    path = tmp_path / "accounts.csv"
    path.write_bytes("id,name\n111111111111,a\n222222222222,Köln".encode("latin-1"))

    async def read() -> list[Account]:
        return [account async for account in file_accounts(path)]

    with pytest.raises(ConfigurationError, match="line 3: the file is not UTF-8"):
        anyio.run(read)
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        anyio.run(read)


def test_the_import_needs_neither_yaml_nor_botocore() -> None:
    """Both are imported when a file or an account needs them."""
    code = "import sys, asyncauth.discovery; print({'yaml', 'botocore', 'aiobotocore'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
