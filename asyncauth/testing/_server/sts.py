"""Simulated STS: issues all temporary credentials of the fleet, and records when they expire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

from asyncauth.testing._server.aws_errors import AwsError, not_implemented
from asyncauth.testing._server.http import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth.testing._server.clock import FleetClock

_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
_EXTERNAL_ID: Final = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")
_SERIAL: Final = re.compile(r"[A-Za-z0-9_+=/:,.@-]{9,256}")
_CODE: Final = re.compile(r"[0-9]{6}")
_ROLE_ARN: Final = re.compile(r"arn:(aws[a-z-]*):iam::([0-9]{12}):role/([!-~]+)")
_ASSUMED_KEPT: Final = 20_000
#: Number of codes of an MFA device.
MFA_CODES: Final = 1_000
_KEYS_KEPT: Final = 100_000
_NAMESPACE: Final = "https://sts.amazonaws.com/doc/2011-06-15/"


@dataclass(slots=True)
class Principal:
    """Owner of an access key.

    `expires_at` is on the monotonic clock; None: never. `is_revoked` is True after `expire` ended the key. `chained` is
    True for sessions of a role, whose own AssumeRole is limited to an hour.
    """

    account: str
    partition: str
    arn: str
    user_id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    is_revoked: bool = False
    chained: bool = False
    mfa: bool = False
    role_arn: str | None = None
    source_identity: str | None = None

    def is_expired(self, now: float) -> bool:
        """Return whether the key is expired at `now` (monotonic seconds)."""
        return self.is_revoked or self._is_past_end(now)

    def is_expired_early(self, now: float) -> bool:
        """Return whether the key is expired at `now` (monotonic seconds) before its own lifetime is over."""
        return self.is_revoked and not self._is_past_end(now)

    def ended_in_transit(self, signed_at: float | None, now: float) -> bool:
        """Return whether the key's own lifetime ended between a signature and its arrival at `now`.

        A signature has whole seconds, rounded down, so one of the last second is never counted.

        Args:
            signed_at: the signature's date, in monotonic seconds; None if unknown.
            now: when the call arrived, in monotonic seconds.
        """
        if signed_at is None or self.expires_at is None or not self._is_past_end(now):
            return False
        return signed_at + 1 <= self.expires_at

    def _is_past_end(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at


@dataclass(slots=True)
class Role:
    """Role, with the principals that may assume it.

    `trusted` is None for all principals of the partition's management account and of accounts with added identities,
    else a tuple of ARNs of users, roles or account roots.
    """

    arn: str
    account: str
    role_id: str
    external_id: str | None = None
    trusted: tuple[str, ...] | None = None
    mfa: bool = False
    max_session_duration: int = 43_200


@dataclass(slots=True)
class AccountState:
    """State of an account, as far as STS and the authentication depend on it.

    `region_states` has the `RegionOptStatus` of regions that differ from the usual one. `scp_denied` has the actions
    that a service control policy denies, as shell patterns.
    """

    id: str
    partition: str
    denied: bool = False
    suspended: bool = False
    disabled_regions: frozenset[str] = frozenset()
    region_states: dict[str, str] = field(default_factory=dict)
    scp_denied: tuple[str, ...] = ()

    def set_region_states(self, states: Mapping[str, str]) -> None:
        """Set the states of regions; only an enabled one accepts calls."""
        self.region_states = dict(states)
        enabled = {region for region, state in states.items() if state == "ENABLED"}
        self.disabled_regions = self.disabled_regions.union(states) - enabled


def _unique(prefix: str) -> str:
    """Return a unique id in the format of IAM: a prefix of four letters and 16 characters of base 32."""
    return prefix + base64.b32encode(secrets.token_bytes(10)).decode()


def _new_secret() -> str:
    """Return a secret access key of 40 characters. Its beginning marks it for a scan of logs and files."""
    return "SimulatedSecret//" + secrets.token_urlsafe(17)


def _principal_of(role: Role, partition: str, arn: str, session: str, source_identity: str | None = None) -> Principal:
    """Return a new principal of an assumed role."""
    return Principal(
        account=role.account,
        partition=partition,
        arn=f"arn:{partition}:sts::{role.account}:assumed-role/{arn.rpartition('/')[2]}/{session}",
        user_id=f"{role.role_id}:{session}",
        secret=_new_secret(),
        chained=True,
        mfa=False,
        role_arn=arn,
        source_identity=source_identity,
    )


class SecurityTokenService:
    """Simulated STS for the whole fleet.

    Args:
        token_lifetime: lifetime of every token in seconds, whatever `DurationSeconds` requested; None: as requested.
        clock: the fleet's clock.
        mfa_secret: the secret of MFA codes and web identity tokens.
    """

    def __init__(self, *, token_lifetime: float | None, clock: FleetClock, mfa_secret: str) -> None:
        self.token_lifetime = token_lifetime
        self.principals: dict[str, Principal] = {}
        self.accounts: dict[str, AccountState] = {}
        self.roles: dict[str, Role] = {}
        self.management_accounts: set[str] = set()
        self.trusted_accounts: set[str] = set()
        self.assumed: deque[dict[str, Any]] = deque(maxlen=_ASSUMED_KEPT)
        self._clock = clock
        self._mfa_secret = mfa_secret.encode()
        self._sweep_at = _KEYS_KEPT
        self._codes: Counter[str] | None = None
        self._actions: dict[str, Callable[[Principal, Mapping[str, str], str], str]] = {
            "AssumeRole": self._assume_role,
            "GetCallerIdentity": self._get_caller_identity,
            "GetSessionToken": self._get_session_token,
            "GetAccessKeyInfo": self._get_access_key_info,
            "GetFederationToken": self._get_federation_token,
            "GetWebIdentityToken": self._get_web_identity_token,
        }

    def answer(self, action: str, caller: Principal | None, form: Mapping[str, str], region: str) -> Response:
        """Return the answer to an action.

        Raises:
            AwsError: STS refuses the call.
        """
        if action == "AssumeRoleWithWebIdentity":
            result = self._assume_role_with_web_identity(form, region)
        elif caller is None:
            raise AwsError("MissingAuthenticationToken", 403, "Request is missing Authentication Token")
        elif action in self._actions:
            result = self._actions[action](caller, form, region)
        else:
            raise not_implemented("sts", action, "the action is not simulated")
        request_id = secrets.token_hex(16)
        body = (
            f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{result}</{action}Result>'
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
        )
        return Response(200, body.encode(), [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)])

    def expire(self, account: str | None = None) -> int:
        """Expire every token issued so far, of one account or of all (None); return their number."""
        now = self._clock.monotonic()
        valid = [
            principal
            for principal in self.principals.values()
            if account in {None, principal.account} and principal.expires_at is not None
            if not principal.is_expired(now)
        ]
        for principal in valid:
            principal.is_revoked = True
        return len(valid)

    def _assume_role(self, caller: Principal, form: Mapping[str, str], region: str) -> str:
        record = self._record(form, caller.arn, region)
        self.assumed.append(record)
        try:
            principal, access_key_id, seconds = self._session_of_role(caller, form, region)
        except AwsError as error:
            record["code"] = error.code
            raise
        record["access_key_id"] = access_key_id
        packed = "<PackedPolicySize>6</PackedPolicySize>" if "Policy" in form or "Tags.member.1.Key" in form else ""
        identity = form.get("SourceIdentity") or caller.source_identity
        source = f"<SourceIdentity>{escape(identity)}</SourceIdentity>" if identity else ""
        return self._credentials(access_key_id, principal, seconds) + _assumed_user(principal) + packed + source

    def _session_of_role(self, caller: Principal, form: Mapping[str, str], region: str) -> tuple[Principal, str, float]:
        arn, session, duration = self._check_assume_role(caller, form)
        refused = AwsError(
            "AccessDenied",
            403,
            f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {arn}",
        )
        role = self.roles.get(arn)
        if role is None:
            raise refused
        account = self.accounts.get(role.account)
        if account is None or account.denied or account.suspended or account.partition != caller.partition:
            raise refused
        if not self._trusts(role, caller):
            raise refused
        if role.external_id is not None and form.get("ExternalId") != role.external_id:
            raise refused
        with_mfa = caller.mfa
        if "SerialNumber" in form or "TokenCode" in form:
            with_mfa = self._check_mfa(caller, form)
        if role.mfa and not with_mfa:
            raise refused
        self.check_region(account, region)
        if duration > role.max_session_duration:
            raise _invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        identity = form.get("SourceIdentity")
        if caller.source_identity and identity and identity != caller.source_identity:
            raise refused
        identity = identity or caller.source_identity
        return self._issue(_principal_of(role, account.partition, arn, session, identity), duration)

    def _check_assume_role(self, caller: Principal, form: Mapping[str, str]) -> tuple[str, str, int]:
        arn = _required(form, "RoleArn", "roleArn")
        if not 20 <= len(arn) <= 2048:
            raise _constraint("roleArn", arn, "Member must have length between 20 and 2048")
        if not _ROLE_ARN.fullmatch(arn):
            raise _invalid(f"{arn} is invalid")
        session = _required(form, "RoleSessionName", "roleSessionName")
        if not _NAME.fullmatch(session):
            raise _constraint(
                "roleSessionName", session, "Member must satisfy regular expression pattern: [\\w+=,.@-]*"
            )
        duration = _duration(form, 3600, 900, 43_200)
        if caller.chained and duration > 3600:
            raise _invalid(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
            )
        _check_pattern(form, "ExternalId", "externalId", _EXTERNAL_ID, "[\\w+=,.@:\\/-]*")
        _check_pattern(form, "SourceIdentity", "sourceIdentity", _NAME, "[\\w+=,.@-]*")
        _check_pattern(form, "SerialNumber", "serialNumber", _SERIAL, "[\\w+=/:,.@-]*")
        _check_pattern(form, "TokenCode", "tokenCode", _CODE, "[\\d]*")
        _check_session_parameters(form)
        return arn, session, duration

    def _trusts(self, role: Role, caller: Principal) -> bool:
        if role.trusted is None:
            return caller.account in self.trusted_accounts
        root = f"arn:{caller.partition}:iam::{caller.account}:root"
        return any(trusted in {caller.arn, caller.role_arn, root, caller.account, "*"} for trusted in role.trusted)

    def _check_mfa(self, caller: Principal, form: Mapping[str, str]) -> bool:
        serial, code = form.get("SerialNumber", ""), form.get("TokenCode", "")
        if serial == f"arn:{caller.partition}:iam::{caller.account}:mfa/{caller.arn.rpartition('/')[2]}":
            if self._codes is None:
                self._codes = Counter(mfa_code(self._mfa_secret, number) for number in range(1, MFA_CODES + 1))
            if self._codes[code] > 0:
                # A code is accepted once (RFC 6238, section 5.2), in AWS as well.
                self._codes[code] -= 1
                return True
        raise AwsError("AccessDenied", 403, "MultiFactorAuthentication failed with invalid MFA one time pass code. ")

    def check_region(self, account: AccountState, region: str) -> None:
        """Refuse a region that is not enabled for the account.

        Raises:
            AwsError: RegionDisabledException.
        """
        if region in account.disabled_regions:
            raise AwsError(
                "RegionDisabledException",
                403,
                f"STS is not activated in this region for account:{account.id}. Your account administrator can "
                "activate STS in this region using the IAM Console.",
            )

    def _get_caller_identity(self, caller: Principal, form: Mapping[str, str], region: str) -> str:
        return (
            f"<Arn>{escape(caller.arn)}</Arn><UserId>{escape(caller.user_id)}</UserId>"
            f"<Account>{caller.account}</Account>"
        )

    def _get_session_token(self, caller: Principal, form: Mapping[str, str], region: str) -> str:
        if caller.token is not None:
            raise AwsError("AccessDenied", 403, "Cannot call GetSessionToken with session credentials")
        duration = _duration(form, 43_200, 900, 129_600)
        _check_pattern(form, "TokenCode", "tokenCode", _CODE, "[\\d]*")
        with_mfa = "SerialNumber" in form and self._check_mfa(caller, form)
        principal = Principal(caller.account, caller.partition, caller.arn, caller.user_id, _new_secret(), mfa=with_mfa)
        return self._credentials(*self._issue_values(principal, duration))

    def _get_federation_token(self, caller: Principal, form: Mapping[str, str], region: str) -> str:
        if caller.token is not None:
            raise AwsError("AccessDenied", 403, "Cannot call GetFederationToken with session credentials")
        name = _required(form, "Name", "name")
        duration = _duration(form, 43_200, 900, 129_600)
        arn = f"arn:{caller.partition}:sts::{caller.account}:federated-user/{name}"
        principal = Principal(caller.account, caller.partition, arn, f"{caller.account}:{name}", _new_secret())
        user = (
            f"<FederatedUser><Arn>{escape(arn)}</Arn>"
            f"<FederatedUserId>{escape(principal.user_id)}</FederatedUserId></FederatedUser>"
        )
        return self._credentials(*self._issue_values(principal, duration)) + user

    def _get_access_key_info(self, caller: Principal, form: Mapping[str, str], region: str) -> str:
        known = self.principals.get(_required(form, "AccessKeyId", "accessKeyId"))
        if known is None or known.partition != caller.partition:
            raise _invalid("Invalid access key")
        return f"<Account>{known.account}</Account>"

    def _get_web_identity_token(self, caller: Principal, form: Mapping[str, str], region: str) -> str:
        audience = _required(form, "Audience.member.1", "audience")
        seconds = int(form.get("DurationSeconds", "300"))
        expires_at = self._clock.time() + seconds
        token = self.web_identity_token(subject=caller.role_arn or caller.arn, audience=audience, expires_at=expires_at)
        return f"<WebIdentityToken>{token}</WebIdentityToken><Expiration>{_stamp(expires_at)}</Expiration>"

    def web_identity_token(self, *, subject: str, audience: str, expires_at: float) -> str:
        """Return a JWT (HS256) that AssumeRoleWithWebIdentity accepts in every partition until `expires_at` (Unix)."""
        claims = {"iss": "https://oidc.simulated", "sub": subject, "aud": audience, "exp": int(expires_at)}
        head = _b64url(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        payload = f"{head}.{_b64url(json.dumps(claims).encode())}"
        return f"{payload}.{_b64url(hmac.digest(self._mfa_secret, payload.encode(), 'sha256'))}"

    def _assume_role_with_web_identity(self, form: Mapping[str, str], region: str) -> str:
        record = self._record(form, "web identity", region)
        self.assumed.append(record)
        try:
            claims = self._read_web_identity(_required(form, "WebIdentityToken", "webIdentityToken"))
            record["caller"] = claims["sub"]
            arn = _required(form, "RoleArn", "roleArn")
            session = _required(form, "RoleSessionName", "roleSessionName")
            if not _NAME.fullmatch(session):
                raise _constraint("roleSessionName", session, "Member must satisfy regular expression pattern")
            role = self.roles.get(arn)
            account = self.accounts.get(role.account) if role else None
            if role is None or account is None or account.denied or account.suspended:
                raise AwsError("AccessDenied", 403, "Not authorized to perform sts:AssumeRoleWithWebIdentity")
            self.check_region(account, region)
            principal, access_key_id, seconds = self._issue(
                _principal_of(role, account.partition, arn, session), _duration(form, 3600, 900, 43_200)
            )
        except AwsError as error:
            record["code"] = error.code
            raise
        record["access_key_id"] = access_key_id
        return (
            f"<SubjectFromWebIdentityToken>{escape(claims['sub'])}</SubjectFromWebIdentityToken>"
            f"<Audience>{escape(claims['aud'])}</Audience><Provider>{escape(claims['iss'])}</Provider>"
            + self._credentials(access_key_id, principal, seconds)
            + _assumed_user(principal)
        )

    def _read_web_identity(self, token: str) -> dict[str, Any]:
        payload, _, signature = token.rpartition(".")
        expected = _b64url(hmac.digest(self._mfa_secret, payload.encode(), "sha256"))
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise AwsError("InvalidIdentityToken", 400, "The token included in the request was not issued here")
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload.split(".")[1] + "=="))
        if claims["exp"] <= self._clock.time():
            raise AwsError("ExpiredTokenException", 400, "Token expired: current date/time is past its end")
        return claims

    def _issue_values(self, principal: Principal, duration: int) -> tuple[str, Principal, float]:
        principal, access_key_id, seconds = self._issue(principal, duration)
        return access_key_id, principal, seconds

    def _issue(self, principal: Principal, duration: int) -> tuple[Principal, str, float]:
        seconds = duration if self.token_lifetime is None else self.token_lifetime
        access_key_id = _unique("ASIA")
        principal.token = "SimulatedSessionToken//" + secrets.token_urlsafe(150)
        principal.expires_at = self._clock.monotonic() + seconds
        if len(self.principals) >= self._sweep_at:
            self._remove_expired()
        self.principals[access_key_id] = principal
        return principal, access_key_id, seconds

    def _remove_expired(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, principal in self.principals.items() if principal.is_expired(now)]:
            del self.principals[key]
        # At least twice the keys in use: a sweep that finds few expired keys must not run at every call.
        self._sweep_at = max(_KEYS_KEPT, 2 * len(self.principals))

    def _credentials(self, access_key_id: str, principal: Principal, seconds: float) -> str:
        return (
            f"<Credentials><AccessKeyId>{access_key_id}</AccessKeyId>"
            f"<SecretAccessKey>{principal.secret}</SecretAccessKey>"
            f"<SessionToken>{principal.token}</SessionToken>"
            f"<Expiration>{_stamp(self._clock.time() + seconds)}</Expiration></Credentials>"
        )

    def _record(self, form: Mapping[str, str], caller: str, region: str) -> dict[str, Any]:
        return {"caller": caller, "region": region, "code": None, "access_key_id": None, "form": dict(form)}


def mfa_code(secret: bytes, counter: int) -> str:
    """Return the six-digit code number `counter` (from 1) of the fleet's MFA device."""
    return f"{int.from_bytes(hmac.digest(secret, str(counter).encode(), 'sha256')[:8], 'big') % 1_000_000:06d}"


def role_id(arn: str) -> str:
    """Return the unique id of a role; the same ARN always gives the same id."""
    return "AROA" + base64.b32encode(hashlib.sha256(arn.encode()).digest()[:10]).decode()


def _assumed_user(principal: Principal) -> str:
    return (
        f"<AssumedRoleUser><AssumedRoleId>{escape(principal.user_id)}</AssumedRoleId>"
        f"<Arn>{escape(principal.arn)}</Arn></AssumedRoleUser>"
    )


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationError", 400, message)


def _constraint(parameter: str, value: str, rule: str) -> AwsError:
    shown = value if len(value) <= 200 else value[:200] + "..."
    return _invalid(
        f"1 validation error detected: Value '{shown}' at '{parameter}' failed to satisfy constraint: {rule}"
    )


def _required(form: Mapping[str, str], name: str, parameter: str) -> str:
    value = form.get(name)
    if value is None:
        raise _invalid(
            f"1 validation error detected: Value null at '{parameter}' failed to satisfy constraint: "
            "Member must not be null"
        )
    return value


def _check_pattern(form: Mapping[str, str], name: str, parameter: str, pattern: re.Pattern[str], shown: str) -> None:
    value = form.get(name)
    if value is not None and not pattern.fullmatch(value):
        raise _constraint(parameter, value, f"Member must satisfy regular expression pattern: {shown}")


def _duration(form: Mapping[str, str], default: int, lowest: int, highest: int) -> int:
    text = form.get("DurationSeconds", str(default))
    if not (text.isascii() and text.isdigit()) or int(text) < lowest:
        raise _constraint("durationSeconds", text, f"Member must have value greater than or equal to {lowest}")
    if int(text) > highest:
        raise _constraint("durationSeconds", text, f"Member must have value less than or equal to {highest}")
    return int(text)


def _members(form: Mapping[str, str], name: str, suffix: str = "") -> list[str]:
    values: list[str] = []
    while (value := form.get(f"{name}.member.{len(values) + 1}{suffix}")) is not None:
        values.append(value)
    return values


def _check_session_parameters(form: Mapping[str, str]) -> None:
    policy = form.get("Policy")
    if policy is not None:
        if not 1 <= len(policy) <= 2048:
            raise _constraint("policy", policy, "Member must have length less than or equal to 2048")
        try:
            json.loads(policy)
        except ValueError:
            raise AwsError("MalformedPolicyDocument", 400, "The policy is not in the valid JSON format.") from None
    if len(_members(form, "PolicyArns", ".arn")) > 10:
        raise _invalid("1 validation error detected: Value at 'policyArns' failed to satisfy constraint: at most 10")
    keys = _members(form, "Tags", ".Key")
    if len(keys) > 50:
        raise _invalid(
            "1 validation error detected: Value at 'tags' failed to satisfy constraint: "
            "Member must have length less than or equal to 50"
        )
    if len({key.lower() for key in keys}) != len(keys):
        raise _invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    for key in keys:
        if not 1 <= len(key) <= 128:
            raise _constraint("tags.member.key", key, "Member must have length less than or equal to 128")
    for value in _members(form, "Tags", ".Value"):
        if len(value) > 256:
            raise _constraint("tags.member.value", value, "Member must have length less than or equal to 256")
    if not set(_members(form, "TransitiveTagKeys")) <= set(keys):
        raise _invalid("The specified transitive tag key must be included in the requested tags.")
    contexts = _members(form, "ProvidedContexts", ".ProviderArn")
    if len(contexts) > 5:
        raise _invalid(
            "1 validation error detected: Value at 'providedContexts' failed to satisfy constraint: at most 5"
        )
