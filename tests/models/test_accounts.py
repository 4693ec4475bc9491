"""Accounts, roles and keys are checked at construction."""

from __future__ import annotations

import copy
import pickle
import traceback
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from asyncauth._errors import ConfigurationError, PartitionMismatch
from asyncauth._models import SELF, Account, Credentials, Keys, Profile, Role, SsoRole, as_account
from asyncauth._models.aws_limits import parse_role_arn

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HUB = "arn:aws:iam::111111111111:role/hub"
#: Names of roles: accepted ones, and any text, most of which is refused.
NAMES = st.from_regex(r"[A-Za-z0-9_+=,.@-]{1,64}", fullmatch=True) | st.text(max_size=70)


class TestAccount:
    @pytest.mark.parametrize(
        "bad",
        [
            "12345678901",
            "1234567890123",
            "12345678901\uff12",  # a full-width digit: \d matches it, AWS does not accept it
            "123456789012\n",
            " 123456789012",
            "123456789012:role/evil",
            "",
            "arn:aws:iam::123456789012:user/x",
            None,
            b"123456789012",
            True,
        ],
    )
    def test_a_bad_id_is_refused(self, bad: object) -> None:
        """Only a string of exactly 12 ASCII digits, or a role's ARN, is an account."""
        with pytest.raises(ConfigurationError):
            as_account(bad)  # type: ignore[arg-type]

    def test_an_integer_is_refused_with_the_right_string(self) -> None:
        """The message has the id with the leading zeros that an integer loses."""
        with pytest.raises(ConfigurationError, match="as a string that is '001234567890', or '011145401322'"):
            as_account(1234567890)  # type: ignore[arg-type]

    def test_an_arn_sets_partition_role_and_path(self) -> None:
        """A role's ARN becomes an account of its partition, with that role."""
        account = as_account("arn:aws-cn:iam::210987654321:role/team/ops/deploy")

        assert account == Account("210987654321", partition="aws-cn", role="team/ops/deploy")
        assert account.effective_role(Role()).arn(account) == "arn:aws-cn:iam::210987654321:role/team/ops/deploy"

    def test_the_arn_of_a_session_is_refused_with_a_hint(self) -> None:
        """An assumed-role ARN is a common mistake; the message has the right form."""
        with pytest.raises(ConfigurationError, match="this is the ARN of a role's session"):
            as_account("arn:aws:sts::123456789012:assumed-role/deploy/session")

    def test_its_own_role_and_external_id_replace_the_pools(self) -> None:
        """A string replaces name and path, a Role everything; the account's external id replaces the role's."""
        default = Role("manage-role", path="/team/", external_id="of-the-pool", role_session_name="audit")

        named = Account("123456789012", role="deploy").effective_role(default)
        own = Account("123456789012", role=Role("own"), external_id="of-the-account").effective_role(default)

        assert (named.name, named.path, named.role_session_name) == ("deploy", "/", "audit")
        assert named.external_id == "of-the-pool"
        assert (own.name, own.external_id, own.role_session_name) == ("own", "of-the-account", "asyncauth")

    def test_its_regions_must_be_of_its_partition(self) -> None:
        """A region of another partition is refused at construction; patterns are accepted."""
        assert Account("123456789012", regions=["us-*", "eu-west-1"]).regions == ("us-*", "eu-west-1")
        with pytest.raises(PartitionMismatch, match="'us-east-1' belongs to partition 'aws'"):
            Account("123456789012", partition="aws-cn", regions=["us-east-1"])
        with pytest.raises(ConfigurationError, match=r"write \('us-east-1',\)"):
            Account("123456789012", regions="us-east-1")

    @pytest.mark.parametrize(
        "options", [{"role": 7}, {"role": "a/b:c"}, {"role": ""}, {"external_id": "x"}, {"partition": "aws-mars"}]
    )
    def test_what_aws_would_not_accept_is_refused(self, options: dict[str, object]) -> None:
        """Role, external id and partition are checked, too."""
        with pytest.raises(ConfigurationError):
            Account("123456789012", **options)  # type: ignore[arg-type]

    def test_it_is_a_frozen_value(self) -> None:
        """Accounts hash, compare, can be pickled, and do not change; the repr has no external id."""
        account = Account("123456789012", tags={"team": "ops"}, external_id="confidential", regions=["eu-west-1"])

        assert pickle.loads(pickle.dumps(account)) == account
        assert (
            len(
                {
                    account,
                    Account("123456789012", tags={"team": "ops"}, external_id="confidential", regions=("eu-west-1",)),
                }
            )
            == 1
        )
        assert "confidential" not in repr(account)
        with pytest.raises(FrozenInstanceError):
            account.id = "210987654321"  # type: ignore[misc]


class TestRole:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": ""}, r"role name must have 1 to 64 characters, got 0"),
            ({"name": "a" * 65}, r"role name must have 1 to 64 characters, got 65"),
            ({"name": "a b"}, r"role name may hold"),
            ({"name": "a:b"}, r"role name may hold"),
            ({"name": "rolé"}, r"role name may hold ASCII"),
            ({"path": "team"}, r"role path may hold"),
            ({"path": "/team"}, r"role path may hold"),
            ({"path": "/a b/"}, r"role path may hold"),
            ({"path": "/" + "a" * 511 + "/"}, r"role path must have 1 to 512"),
            ({"role_session_name": "x"}, r"role_session_name must have 2 to 64 characters, got 1"),
            ({"role_session_name": "x" * 200}, r"role_session_name must have 2 to 64 characters, got 200"),
            ({"role_session_name": "line\nend"}, r"role_session_name may hold"),
            ({"duration_seconds": 899}, r"duration_seconds must be from 900 to 43,200 s, got 899"),
            ({"duration_seconds": 43_201}, r"duration_seconds must be from 900 to 43,200 s, got 43,201"),
            ({"duration_seconds": 3600.0}, r"duration_seconds must be an integer"),
            ({"duration_seconds": True}, r"duration_seconds must be an integer"),
            ({"external_id": "x"}, r"external_id must have 2 to 1224"),
            ({"external_id": "a b"}, r"external_id may hold"),
            ({"policy": ""}, r"policy must have 1 to 2048"),
            ({"policy": "x" * 2049}, r"policy must have 1 to 2048"),
            ({"policy": "\u20ac"}, r"policy may hold"),
            ({"policy_arns": ["arn:aws:iam::aws:policy/ReadOnly"] * 11}, r"policy_arns may have at most 10"),
            ({"policy_arns": ["nonsense-that-is-long-enough"]}, r"policy_arns may hold an IAM policy's ARN"),
            ({"policy_arns": "arn:aws:iam::aws:policy/ReadOnly"}, r"policy_arns must be a sequence"),
            ({"tags": {"": "x"}}, r"a tag's key must be a string of 1 to 128"),
            ({"tags": {"k": "v" * 257}}, r"the value of tag 'k' must be a string of 0 to 256"),
            ({"tags": {"k": "a;b"}}, r"the value of tag 'k' may hold"),
            ({"tags": {"Team": "a", "team": "b"}}, r"'Team' and 'team' differ in case alone"),
            ({"tags": {str(n): "" for n in range(51)}}, r"tags may have at most 50 entries, got 51"),
            ({"transitive_tag_keys": [str(n) for n in range(51)]}, r"transitive_tag_keys may have at most 50"),
            ({"source_identity": "x"}, r"source_identity|must have 2 to 64"),
            ({"mfa_serial": "short", "mfa_token": lambda: "123456"}, r"mfa_serial must have 9 to 256"),
            ({"mfa_serial": "arn:aws:iam::1:mfa/me"}, r"mfa_serial was given without mfa_token"),
            ({"mfa_token": lambda: "123456"}, r"mfa_token was given without mfa_serial"),
            ({"mfa_serial": "arn:aws:iam::1:mfa/me", "mfa_token": "123456"}, r"mfa_token must be a callable"),
            ({"provided_contexts": [("arn:aws:iam::aws:contextProvider/x", "abcd")] * 6}, r"at most 5"),
            ({"provided_contexts": [("arn:aws:iam::aws:contextProvider/x",)]}, r"must be pairs"),
            ({"via": HUB}, r"via must be a sequence"),
            ({"via": ["123456789012"]}, r"via: account 123456789012 has no role"),
            ({"via": [HUB], "duration_seconds": 3601}, r"at most 3,600 s when roles are chained"),
            ({"via": [HUB, "arn:aws-cn:iam::111111111111:role/hub"]}, r"goes from partition 'aws' to 'aws-cn'"),
            ({"via": [Account("111111111111", role=Role("a", via=(HUB,)))]}, r"write all hops in one via"),
        ],
    )
    def test_the_documented_limits_of_sts_are_checked(self, options: dict[str, object], message: str) -> None:
        """Each message has the parameter, the value or its size, and the limit."""
        with pytest.raises(ConfigurationError, match=message):
            Role(**options)  # type: ignore[arg-type]

    def test_a_policy_can_be_a_mapping(self) -> None:
        """It is converted to JSON without spaces, because its length is limited."""
        assert (
            Role(policy={"Version": "2012-10-17", "Statement": []}).policy == '{"Version":"2012-10-17","Statement":[]}'
        )

    def test_the_largest_values_are_accepted(self) -> None:
        """The limits are inclusive."""
        role = Role(
            "a" * 64,
            path="/" + "b" * 510 + "/",
            role_session_name="s" * 64,
            duration_seconds=43_200,
            external_id="e" * 1224,
            policy="p" * 2048,
            policy_arns=["arn:aws:iam::aws:policy/ReadOnly"] * 10,
            tags={f"k{n}": "v" * 256 for n in range(50)},
            source_identity="i" * 64,
            provided_contexts=[("arn:aws:iam::aws:contextProvider/x", "a" * 2048)] * 5,
        )

        assert hash(role) == hash(pickle.loads(pickle.dumps(role)))

    def test_the_repr_has_nothing_confidential(self) -> None:
        """External ids and context assertions are not in the repr."""
        shown = repr(
            Role(external_id="the-external-id", provided_contexts=[("arn:aws:iam::aws:contextProvider/x", "assertion")])
        )

        assert "the-external-id" not in shown
        assert "assertion" not in shown

    @given(NAMES)
    @settings(max_examples=200)
    def test_no_name_changes_the_form_of_an_arn(self, text: str) -> None:
        """A name is refused, or the ARN that has it is parsed into the same parts."""
        account = Account("123456789012")
        try:
            role = Role(text)
        except ConfigurationError:
            reject()
        parts = parse_role_arn(role.arn(account))
        assert (parts.account_id, parts.path, parts.name) == ("123456789012", "/", text)

    @given(NAMES)
    @settings(max_examples=200)
    def test_no_role_of_an_account_changes_the_form_of_an_arn(self, text: str) -> None:
        """The same is true of an account's own role with its path."""
        try:
            account = Account("123456789012", role=text)
        except ConfigurationError:
            reject()
        assert parse_role_arn(account.effective_role(Role()).arn(account)).account_id == "123456789012"


class TestKeys:
    def test_the_repr_has_four_characters_of_the_key_id(self) -> None:
        """The last four characters of the key id distinguish keys; no other part is in the repr."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", SECRET, "the-token", datetime(2030, 1, 1, tzinfo=UTC))

        assert repr(keys) == "<Keys ...MPLE, temporary, until 2030-01-01T00:00:00Z>"
        assert repr(Credentials("AKIAIOSFODNN7EXAMPLE", SECRET)) == "<Credentials ...MPLE>"

    @pytest.mark.parametrize(
        "value", [Keys("AKIAIOSFODNN7EXAMPLE", SECRET), Credentials("AKIAIOSFODNN7EXAMPLE", SECRET)]
    )
    def test_they_cannot_be_pickled(self, value: object) -> None:
        """A pickle would hold the secret unencrypted."""
        with pytest.raises(TypeError, match="holds secrets and is not pickled"):
            pickle.dumps(value)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("short", SECRET),
            ("AKIA IOSFODNN7EXAMPL", SECRET),
            ("AKIAIOSFODNN7EXAMPLE", ""),
            ("AKIAIOSFODNN7EXAMPLE", None),
            ("AKIAIOSFODNN7EXAMPLE", SECRET, 7),
            ("AKIAIOSFODNN7EXAMPLE", SECRET, None, datetime(2030, 1, 1)),
            ("AKIAIOSFODNN7EXAMPLE", SECRET, None, "2030-01-01"),
        ],
    )
    def test_malformed_parts_are_refused_without_the_secret(self, arguments: tuple[object, ...]) -> None:
        """The message names the part, and the traceback has no secret in it."""
        with pytest.raises(ConfigurationError) as refused:
            Keys(*arguments)  # type: ignore[arg-type]

        assert SECRET not in "".join(traceback.format_exception(refused.value))

    def test_an_expiration_is_kept_in_utc(self) -> None:
        """An expiration in another time zone is converted to UTC."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", SECRET, None, datetime(2030, 1, 1, 8, tzinfo=timezone(timedelta(hours=8))))

        assert keys.expiration == datetime(2030, 1, 1, tzinfo=UTC)

    def test_a_profile_needs_a_name(self) -> None:
        """An empty name is refused."""
        with pytest.raises(ConfigurationError, match="non-empty"):
            Profile("")


# -- sources, facts, and accounts that are unavailable ----------------------------------------------------------------


def test_self_is_one_object_everywhere() -> None:
    """A copy and a pickle are the same object, so that `is SELF` holds in another process."""
    assert pickle.loads(pickle.dumps(SELF)) is SELF
    assert copy.deepcopy(SELF) is SELF
    assert repr(SELF) == "SELF"


def test_an_accounts_source_is_not_part_of_its_equality() -> None:
    """The same account from two places is one, whatever the way to it."""
    account = Account("123456789012", source=Profile("a"))

    assert account == Account("123456789012") == account.without_source()
    assert hash(account) == hash(Account("123456789012"))
    assert account.without_source().source is None


def test_self_has_no_role_to_assume() -> None:
    """The pool's role is not used."""
    account = Account("123456789012", role=SELF)

    assert account.effective_role(Role()) is None
    assert account.role_arn(Role()) is None
    assert Account("123456789012").role_arn(Role("deploy")) == "arn:aws:iam::123456789012:role/deploy"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"role": object()}, "must be a Role, a string or SELF"),
        ({"role": SELF, "external_id": "7c1e"}, "external_id of account 123456789012 has no effect with role=SELF"),
        ({"facts": ["email"]}, "facts of account 123456789012 must be a mapping"),
        ({"unavailable": ""}, "unavailable of account 123456789012 must be the reason"),
        ({"unavailable": True}, "unavailable of account 123456789012 must be the reason"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    """The message has the field and the account."""
    with pytest.raises(ConfigurationError, match=message):
        Account("123456789012", **fields)


def test_facts_are_frozen() -> None:
    """A change of the given mapping has no effect, and the account can be pickled."""
    given = {"email": "a@example.com"}
    account = Account("123456789012", facts=given, unavailable="SUSPENDED")
    given.clear()

    assert account.facts == {"email": "a@example.com"}
    assert pickle.loads(pickle.dumps(account)) == account


def test_self_is_no_hop() -> None:
    """A chain consists of roles."""
    with pytest.raises(ConfigurationError, match="via: account 123456789012 has no role"):
        Role(via=[Account("123456789012", role=SELF)])


@pytest.mark.parametrize("arguments", [("", "1" * 12, "r"), ("s", "1" * 11, "r"), ("s", "1" * 12, None)])
def test_a_role_of_a_portal_is_checked(arguments: tuple[Any, ...]) -> None:
    """Session, account and role must be there."""
    with pytest.raises(ConfigurationError):
        SsoRole(*arguments)
