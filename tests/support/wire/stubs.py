"""Stubs of AWS's credential endpoints on loopback: instance metadata, container, STS, SSO with its OIDC, sign-in.

One server on 127.0.0.1 for all tests; the path of a request (`/imds-v2/NAME/`) separates them. It is strict where boto
could be wrong: it refuses a missing token header, a wrong bearer token and an unsigned AssumeRole. It records the
requests for the tests.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from asyncauth._models import Keys

#: Part of every secret that is issued, so a test can search for it.
SECRET = "s3cr3t"

_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")


def key_id_for(name: str) -> str:
    """Return the temporary key id that the stub issues for a role's ARN, an SSO role or a login."""
    return "ASIA" + hashlib.sha256(name.encode()).hexdigest()[:16].upper()


@dataclass(frozen=True, slots=True)
class StubRequest:
    """One request that the stub received."""

    kind: str
    name: str
    key_id: str | None = None
    region_name: str | None = None


@dataclass
class Wire:
    """The server, between `start` and `stop`.

    Args:
        requests: the requests that it received, in order.
        lifetime: seconds until the credentials that it issues expire.
        guard: while it is cleared, STS does not answer.
        arrived: set when STS received a request.
        keys: the keys to issue, by the name in the path, the SSO role, or the login; others are made up.
    """

    requests: list[StubRequest] = field(default_factory=list)
    lifetime: float = 3600.0
    guard: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    keys: dict[str, Keys] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.guard.set()
        wire = self

        class Handler(_Handler):
            def record(self, request: StubRequest) -> None:
                with wire._lock:
                    wire.requests.append(request)

            def issue(self, name: str) -> dict[str, str]:
                keys = wire.keys.get(name)
                return {
                    "AccessKeyId": keys.access_key_id if keys else key_id_for(name),
                    "SecretAccessKey": keys.secret_access_key if keys else f"{SECRET}/of/{name}",
                    "Token": (keys and keys.session_token) or f"{SECRET}/session/of/{name}==",
                    "Expiration": _stamp(self.expiration()),
                }

            def expiration(self) -> datetime:
                return datetime.now(UTC) + timedelta(seconds=wire.lifetime)

            def wait(self) -> None:
                wire.arrived.set()
                wire.guard.wait(10)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def start(self) -> Wire:
        """Serve in a thread."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving, and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        """Address of the server, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, kind: str, name: str | None = None) -> int:
        """Return the number of requests of a kind."""
        with self._lock:
            return Counter(each.kind for each in self.requests if name in (None, each.name))[kind]

    def of(self, kind: str, name: str) -> list[StubRequest]:
        """Return the requests of a kind and name, in order."""
        with self._lock:
            return [each for each in self.requests if (each.kind, each.name) == (kind, name)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def record(self, request: StubRequest) -> None:
        raise NotImplementedError

    def issue(self, name: str) -> dict[str, str]:
        raise NotImplementedError

    def expiration(self) -> datetime:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError

    def do_PUT(self) -> None:
        kind, name, rest = self.parts()
        if kind == "imds-v2" and rest == "latest/api/token":
            self.record(StubRequest("imds token", name))
            self.answer(200, f"s3cr3t-imds-token-of- {name}", content_type="text/plain")
        else:
            self.answer(404, "")

    def do_GET(self) -> None:
        kind, name, rest = self.parts()
        if kind in ("imds-v1", "imds-v2"):
            self.instance_metadata(kind, name, rest)
        elif kind == "container":
            self.container(name)
        elif kind == "sso" and name == "federation":
            self.sso()
        else:
            self.answer(404, "")

    def do_POST(self) -> None:
        kind, _, _ = self.parts()
        if kind == "oidc":
            self.oidc()
        elif kind == "signin":
            self.signin()
        else:
            self.sts()

    def instance_metadata(self, kind: str, name: str, rest: str) -> None:
        if kind == "imds-v2" and self.headers.get("x-aws-ec2-metadata-token") != f"s3cr3t-imds-token-of- {name}":
            self.answer(401, "")
        elif rest == "latest/meta-data/iam/security-credentials/":
            self.answer(200, "instance-role", content_type="text/plain")
        elif rest == "latest/meta-data/iam/security-credentials/instance-role":
            self.record(StubRequest(kind, name))
            self.answer(200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **self.issue(name)}))
        else:
            self.answer(404, "")

    def container(self, name: str) -> None:
        if self.headers.get("Authorization") != f"Basic s3cr3t-{name}":
            self.answer(403, json.dumps(self.issue(name))[:-20])
            return
        self.record(StubRequest("container", name))
        self.answer(200, json.dumps(self.issue(name)))

    def sso(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        account, role = query["account_id"][0], query["role_name"][0]
        if self.headers.get("x-amz-sso_bearer_token") != f"s3cr3t-sso-access-token-of-{account}":
            self.answer(
                401, json.dumps({"message": "Session token not found or invalid"}), error="UnauthorizedException"
            )
            return
        name = f"{account}/{role}"
        self.record(StubRequest("sso", name))
        issued = self.issue(name)
        keys = {
            "accessKeyId": issued["AccessKeyId"],
            "secretAccessKey": issued["SecretAccessKey"],
            "sessionToken": issued["Token"],
            "expiration": int(self.expiration().timestamp() * 1000),
        }
        self.answer(200, json.dumps({"roleCredentials": keys}))

    def oidc(self) -> None:
        request = json.loads(self.body())
        account = str(request["refreshToken"]).removeprefix("s3cr3t-refresh-token-of-")
        self.record(StubRequest("oidc", account))
        if request["grantType"] != "refresh_token" or account == "unknown":
            self.answer(400, json.dumps({"error": "invalid_grant"}), error="InvalidGrantException")
            return
        token = {
            "accessToken": f"s3cr3t-sso-access-token-of-{account}",
            "tokenType": "Bearer",
            "expiresIn": 3600,
            "refreshToken": request["refreshToken"],
        }
        self.answer(200, json.dumps(token))

    def signin(self) -> None:
        request = json.loads(self.body())
        name = str(request["refreshToken"]).removeprefix("s3cr3t-refresh-token-of-")
        self.record(StubRequest("signin", name))
        if self.headers.get("DPoP") is None or request["grantType"] != "refresh_token":
            self.answer(400, "{}", error="ValidationException")
        elif name == "unknown":
            self.answer(
                400, json.dumps({"error": "TOKEN_EXPIRED", "message": "expired"}), error="AccessDeniedException"
            )
        else:
            issued = self.issue(name)
            token = {
                "accessToken": {
                    "accessKeyId": issued["AccessKeyId"],
                    "secretAccessKey": issued["SecretAccessKey"],
                    "sessionToken": issued["Token"],
                },
                "tokenType": "aws_sigv4",
                "expiresIn": 900,
                "refreshToken": request["refreshToken"],
            }
            self.answer(200, json.dumps(token))

    def sts(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self.body()).items()}
        action = form["Action"]
        signed = _CREDENTIAL.search(self.headers.get("Authorization", ""))
        arn = form.get("RoleArn", "")
        self.wait()
        self.record(
            StubRequest(action, arn, signed["key"] if signed else None, signed["region"] if signed else None),
        )
        if action == "AssumeRoleWithWebIdentity" and form["WebIdentityToken"] != "s3cr3t-web-identity-token":
            self.refuse(400, action, "InvalidIdentityToken")
        elif action == "AssumeRole" and signed is None:
            self.refuse(403, action, "MissingAuthenticationToken")
        elif "expired-source" in arn:
            self.refuse(403, action, "ExpiredToken")
        elif "denied" in arn:
            self.refuse(403, action, "AccessDenied")
        else:
            self.answer(200, self.assumed(action, arn), content_type="text/xml")

    def assumed(self, action: str, arn: str) -> str:
        _, partition, _, _, account, role = arn.split(":", 5)
        return (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>'
            f"<AssumedRoleUser><Arn>arn:{partition}:sts::{account}:assumed-{role}/probe</Arn>"
            f"<AssumedRoleId>AROA:probe</AssumedRoleId></AssumedRoleUser><Credentials>"
            f"<AccessKeyId>{key_id_for(arn)}</AccessKeyId><SecretAccessKey>s3cr3t/assumed</SecretAccessKey>"
            f"<SessionToken>s3cr3t/assumed/session+token==</SessionToken><Expiration>{_stamp(self.expiration())}</Expiration>"
            f"</Credentials></{action}Result>"
            f"<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
        )

    def refuse(self, status: int, action: str, code: str) -> None:
        text = (
            '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
            f"<Code>{code}</Code><Message>{action} was refused</Message></Error><RequestId>1</RequestId>"
            "</ErrorResponse>"
        )
        self.answer(status, text, content_type="text/xml")

    def parts(self) -> tuple[str, str, str]:
        kind, _, rest = urlsplit(self.path).path.lstrip("/").partition("/")
        name, _, rest = rest.partition("/")
        return kind, name, rest

    def body(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()

    def answer(
        self, status: int, body: str, *, content_type: str = "application/json", error: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body.encode())))
        if error is not None:
            self.send_header("x-amzn-ErrorType", error)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
