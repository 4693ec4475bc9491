"""Fleet file: what is valid is read back equal, mistakes have their place, secrets and found files their rules."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import ConfigurationError, RateLimit, RunOptions
from asyncauth._models.account_records import AccountRecord, RoleRecord
from asyncauth._models.fleet_file import load_fleet_file
from asyncauth._models.fleet_tables import (
    DiscoveryTable,
    FileTable,
    FleetFile,
    OrganizationTable,
    PoolTable,
    PortalTable,
    ProfilesTable,
    RateLimitTable,
    RunTable,
    SourceTable,
)
from asyncauth._models.table_schema import SCHEMA_FILE, schema_text

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY_ID = "AKIA" + "A" * 16


def load(text: str) -> FleetFile:
    """Return the content of a fleet file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fleet.toml")
        path.write_text(text, encoding="utf-8")
        return load_fleet_file(path).content


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}[a-z]", fullmatch=True)
IDS = st.from_regex(r"[0-9]{12}", fullmatch=True)
COUNTS = st.integers(1, 10_000)
FILES = st.builds(
    FleetFile,
    role=NAMES | st.builds(RoleRecord, name=NAMES, duration_seconds=st.integers(900, 43_200)),
    roles=st.dictionaries(
        NAMES,
        st.builds(RoleRecord, name=NAMES, external_id=st.none() | NAMES)
        | st.just(("arn:aws:iam::111111111111:role/hub", "deploy")),
        max_size=2,
    ),
    cache=st.booleans() | NAMES,
    regions=st.none() | st.just(("us-*", "cn-north-1")),
    sources=st.dictionaries(
        st.sampled_from(["aws", "aws-cn"]),
        st.builds(SourceTable, profile=NAMES) | st.builds(SourceTable, function=st.just("team.keys:read")),
    ),
    pool=st.builds(
        PoolTable, max_at_once=COUNTS, allow_long_term=st.booleans(), proxy=st.none() | st.just("http://p:1")
    ),
    rate_limits=st.lists(st.builds(RateLimitTable, service=NAMES, rate=st.floats(0.1, 100)), max_size=2).map(tuple),
    run=st.builds(
        RunTable,
        max_at_once=st.none() | COUNTS,
        timeout=st.none() | st.floats(0.1, 1e6),
        failure_tolerance=st.none() | COUNTS | st.floats(0, 1),
        failure_mode=st.none() | st.sampled_from(["strict", "soft"]),
        progress=st.none() | st.booleans(),
    ),
    accounts=st.lists(
        IDS | st.builds(AccountRecord, id=IDS, name=st.none() | NAMES, tags=st.dictionaries(NAMES, NAMES)), max_size=3
    ).map(tuple),
    discovery=st.builds(
        DiscoveryTable,
        organizations=st.lists(
            st.builds(OrganizationTable, role=st.none() | NAMES, tags=st.none() | st.just({"a": "b"})), max_size=1
        ).map(tuple),
        profiles=st.lists(st.builds(ProfilesTable, match=NAMES), max_size=1).map(tuple),
        portals=st.lists(st.builds(PortalTable, sso_session=NAMES, role=NAMES | st.just("*")), max_size=1).map(tuple),
        files=st.lists(st.builds(FileTable, path=NAMES), max_size=2).map(tuple),
        exclude=st.lists(IDS, max_size=2).map(tuple),
    ),
)


def to_toml(value: Any) -> str:
    """Return a value as TOML in one line; fields that are None are left out."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {to_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value)
    names = [each.name for each in fields(value) if getattr(value, each.name) is not None]
    return to_toml({name: getattr(value, name) for name in names})


@given(FILES)
def test_a_valid_file_is_read_back_equal(file: FleetFile) -> None:
    """Every table and key, in any combination."""
    names = [each.name for each in fields(file) if getattr(file, each.name) is not None]

    assert load("\n".join(f"{name} = {to_toml(getattr(file, name))}" for name in names)) == file


def as_document(value: Any) -> Any:
    """Return a fleet file as the tables, arrays and values that a parser returns."""
    if is_dataclass(value):
        names = [each.name for each in fields(value) if getattr(value, each.name) is not None]
        return {name: as_document(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: as_document(each) for key, each in value.items()}
    return [as_document(each) for each in value] if isinstance(value, tuple | list) else value


def places(document: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Return every value below a table or array: its path, and the container and key by which it is replaced."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        below = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else key
        yield below, document, key
        if isinstance(value, dict | list):
            yield from places(value, below)


@settings(max_examples=60)
@given(file=FILES, data=st.data())
def test_a_value_of_another_type_has_its_path(file: FleetFile, data: st.DataObject) -> None:
    """Any one value of a valid file, of a table, an array or a setting: one error with the path."""
    document = as_document(file)
    path, container, key = data.draw(st.sampled_from(list(places(document))))
    container[key] = [1] if isinstance(container[key], bool | int | float) else 7

    with pytest.raises(ConfigurationError) as caught:
        load("\n".join(f"{name} = {to_toml(value)}" for name, value in document.items()))

    assert f"fleet.toml: {path}" in str(caught.value)


@settings(max_examples=60)
@given(file=FILES, name=NAMES, data=st.data())
def test_an_unknown_key_has_its_path(file: FleetFile, name: str, data: st.DataObject) -> None:
    """In any table with fixed keys; the tables by partition, name or tag have none."""
    document = as_document(file)
    free = re.compile(r"(^|\.)(roles|sources|tags|facts)$")
    tables = [("", document)] + [
        (path, container[key])
        for path, container, key in places(document)
        if isinstance(container[key], dict) and not free.search(path)
    ]
    path, table = data.draw(st.sampled_from(tables))
    table[f"zz_{name}"] = 1

    with pytest.raises(ConfigurationError) as caught:
        load("\n".join(f"{key} = {to_toml(value)}" for key, value in document.items()))

    below = f"{path}." if path else ""
    assert f"fleet.toml: {below}zz_{name}: unknown key" in str(caught.value)


def test_an_empty_file_has_the_defaults() -> None:
    """The role is that of a pool without arguments."""
    assert load("") == FleetFile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rol = 'a'", "fleet.toml: rol: unknown key; did you mean role?"),
        ("[pool]\nmax_at_onc = 1", "pool.max_at_onc: unknown key; did you mean max_at_once?"),
        ("[pool]\nmax_at_once = true", "pool.max_at_once: must be a whole number, got true"),
        ("[run]\nfailure_mode = 'hard'", "run.failure_mode: must be 'strict' or 'soft', got a string"),
        ("[[rate_limits]]\nrate = 3", r"rate_limits\[0\]: service is missing"),
        ("[[rate_limits]]\nservice = 'ec2'\nper = ['vpc']", r"rate_limits\[0\].per\[0\]: must be 'account' or"),
        ("regions = 'us-*'", "regions: must be an array, got a string; put it in brackets"),
        ("accounts = [12345678901]", r"accounts\[0\]: must be a string or a table, got the number .* no leading zeros"),
        ("accounts = ['12345678901']", r"accounts\[0\].id: an account id must be exactly 12"),
        ("[[accounts]]\nid = '111111111111'\nregions = ['mars-1']", r"accounts\[0\].regions: unknown region"),
        ("[sources.aws]", "sources.aws: a source has one of profile, environment and function, got none"),
        ("[sources.aws]\nprofile = 'a'\nenvironment = ''", "got profile and environment"),
        ("[sources.aws]\nfunction = 'a.b'", "function must be module:function"),
        ("role = 'a'\nrole = 'b'", "not valid TOML: .*line 2"),
        (f"a = {'[' * 100_000}", "too many levels"),
        ("role = 3", "role: must be a string or a table, got the number 3"),
        ("[roles.a]\nduration_seconds = 1", "fleet.toml: roles.a: duration_seconds must be"),
        ("[roles.'a b']", "fleet.toml: roles.a b: "),
        ("roles.a = []", "roles.a: an empty array"),
        ("roles.a = ['hub', 'arn:aws:iam::111111111111:role/b']", "roles.a: the last role of a chain is a name"),
        ("roles.a = ['arn:aws:iam::1:role/hub', 'b']", "fleet.toml: roles.a: an account id must be"),
        ("roles.a = 3", "roles.a: must be a table or an array, got the number 3"),
        ("[[accounts]]\nid = 'arn:aws:iam::111111111111:role/x'\nrole = 'a'", r"accounts\[0\].role: contradicts"),
        ("cache = 3", "cache: must be true or false or a string, got the number 3"),
    ],
)
def test_a_mistake_has_its_path(text: str, message: str) -> None:
    """One error, with the path of the value."""
    with pytest.raises(ConfigurationError, match=message):
        load(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[sources.aws]\naws_secret_access_key = 'hidden-value'", "sources.aws.aws_secret_access_key"),
        ("[sources.aws]\naccess_key_id = 'hidden-value'", "sources.aws.access_key_id"),
        ("password = 'hidden-value'", "password"),
        (f"role = 'a'\n# hidden-value {KEY_ID}", "line 2"),
        ("[pool]\nproxy = 'http://user:hidden-value@proxy:1'", "pool.proxy"),
        ("[pool]\nendpoint_url = 'http://user:hidden-value@[1'", "pool.endpoint_url"),
        ("[[accounts]]\nid = '111111111111'\nsession_token = 'hidden-value'", "accounts[0].session_token"),
    ],
)
def test_a_secret_is_refused_with_what_to_use_instead(text: str, place: str) -> None:
    """By the name of the key, a key id anywhere, or a password in a URL; the value is not repeated."""
    with pytest.raises(ConfigurationError) as caught:
        load(text)

    assert place in str(caught.value)
    assert "use a profile, variables (environment), or a function" in str(caught.value)
    assert "hidden-value" not in str(caught.value)
    assert KEY_ID not in str(caught.value)


def test_tags_may_be_called_anything() -> None:
    """A tag's key is no setting, whatever its name is."""
    (account,) = load("[[accounts]]\nid = '111111111111'\ntags = { password_policy = 'strict' }").accounts

    assert isinstance(account, AccountRecord)
    assert account.tags == {"password_policy": "strict"}


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a fleet file in a folder above the current one."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    path = tmp_path / "asyncauth.toml"
    path.write_text("[pool]\nmax_at_once = 7\n[run]\njournal = 'runs/journal'\n", encoding="utf-8")
    path.chmod(0o644)
    return path


def test_the_nearest_file_is_found(found: Path) -> None:
    """In the current folder or above it; without one, the folder is named."""
    loaded = load_fleet_file(None)

    assert loaded.path == found
    assert loaded.content.pool.max_at_once == 7
    assert loaded.resolve("runs/journal") == found.parent / "runs" / "journal"
    found.unlink()
    with pytest.raises(ConfigurationError, match=r"there is no asyncauth.toml in .*below or above it"):
        load_fleet_file(None)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_found_file_that_others_may_write_is_refused(found: Path, mode: int) -> None:
    """Named, it is read."""
    found.chmod(mode)

    with pytest.raises(ConfigurationError, match="other users may write to it: chmod go-w"):
        load_fleet_file(None)
    assert load_fleet_file(found).content.pool.max_at_once == 7


def test_a_found_file_of_another_user_is_refused(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of the file is compared with the user of the process."""
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)

    with pytest.raises(ConfigurationError, match="was found, and belongs to another user"):
        load_fleet_file(None)
    assert load_fleet_file(found).path == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sources.aws]\nfunction = 'os:getcwd'", "sources.aws.function: .* may not set a function"),
        ("[pool]\nendpoint_url = 'https://x'", "pool.endpoint_url: .* may not set an endpoint"),
        ("[pool]\nca_bundle = 'ca.pem'", "pool.ca_bundle: .* may not set a CA bundle"),
        ("[pool]\nproxy = 'http://x'", "pool.proxy: .* may not set a proxy"),
        ("[run]\njournal = '../journal'", "run.journal: .* may not set a path outside of its folder"),
        ("[run]\njournal = 'link/journal'", "run.journal: .* a path outside of its folder"),
        ("cache = '../tokens'", "cache: .* may not set a path outside of its folder"),
        ("[[discovery.files]]\npath = '/etc/passwd'", r"discovery.files\[0\].path: .* a path outside"),
        ("[[discovery.profiles]]\nconfig_file = '~/x'", r"discovery.profiles\[0\].config_file: .* a path outside"),
    ],
)
def test_a_found_file_may_not_run_code_or_redirect(found: Path, text: str, message: str) -> None:
    """A folder that was unpacked from anywhere must not decide where credentials go; named, the file may."""
    (found.parent / "link").symlink_to("/")
    found.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=message):
        load_fleet_file(None)
    load_fleet_file(found)


def test_the_schema_is_that_of_the_dataclasses() -> None:
    """After a change of them: python -m asyncauth._models.table_schema."""
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()


def test_the_tables_have_the_fields_of_what_they_become() -> None:
    """A rate limit and the options of a run have the same names and defaults in the file."""
    names = {each.name: each.default for each in fields(RateLimit)}
    assert {each.name: each.default for each in fields(RateLimitTable)} == names
    options = {each.name for each in fields(RunOptions)}
    assert {each.name for each in fields(RunTable)} == options - {"confirm", "dry_run", "engine"}
