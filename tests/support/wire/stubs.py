"""AWS's ways to hand out credentials, on loopback: instance metadata, container, STS, SSO with its OIDC, sign-in.

One server on 127.0.0.1; what differs between two tests is in the path (`/imds-v2/KEYID/`), so they share it and do not
mix. It is strict where boto could be wrong: a missing token header, a wrong bearer token or an unsigned AssumeRole is
refused, and what was asked is kept for the tests to look at.
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

#: Part of everything secret that is handed out, so a test can look for it wherever it must not be.
SECRET = "s3cr3t"

_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")


def key_id_for(name: str) -> str:
    """Return the temporary key id that the stub hands out for a role's ARN, an SSO role or a login."""
    return "ASIA" + hashlib.sha256(name.encode()).hexdigest()[:16].upper()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that the stub answered."""

    what: str
    name: str
    key_id: str | None = None
    region_name: str | None = None


@dataclass
class Wire:
    """The server, between `start` and `stop`.

    Args:
        asked: what it answered, in order.
        lifetime: seconds that the credentials it hands out live.
        gate: while it is cleared, STS does not answer.
        arrived: set once a request came to STS.
        kept: the keys to hand out, by the name in the path, the SSO role, or the login; others are made up.
    """

    asked: list[Asked] = field(default_factory=list)
    lifetime: float = 3600.0
    guard: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    kept: dict[str, Keys] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.guard.set()
        wire = self

        class Handler(_Handler):
            def note(self, asked: Asked) -> None:
                with wire._lock:
                    wire.asked.append(asked)

            def keys(self, name: str) -> dict[str, str]:
                kept = wire.kept.get(name)
                return {
                    "AccessKeyId": kept.access_key_id if kept else key_id_for(name),
                    "SecretAccessKey": kept.secret_access_key if kept else f"{SECRET}/of/{name}",
                    "Token": (kept and kept.session_token) or f"{SECRET}/session/of/{name}==",
                    "Expiration": _stamp(self.ends()),
                }

            def ends(self) -> datetime:
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
        """Where it listens; no slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, what: str, name: str | None = None) -> int:
        """Return how often something was asked."""
        with self._lock:
            return Counter(each.what for each in self.asked if name in (None, each.name))[what]

    def of(self, what: str, name: str) -> list[Asked]:
        """Return what was asked, in order."""
        with self._lock:
            return [each for each in self.asked if (each.what, each.name) == (what, name)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def note(self, asked: Asked) -> None:
        raise NotImplementedError

    def keys(self, name: str) -> dict[str, str]:
        raise NotImplementedError

    def ends(self) -> datetime:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError

    def do_PUT(self) -> None:
        kind, name, rest = self.parts()
        if kind == "imds-v2" and rest == "latest/api/token":
            self.note(Asked("imds token", name))
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
            self.note(Asked(kind, name))
            self.answer(200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **self.keys(name)}))
        else:
            self.answer(404, "")

    def container(self, name: str) -> None:
        if self.headers.get("Authorization") != f"Basic s3cr3t-{name}":
            self.answer(403, json.dumps(self.keys(name))[:-20])
            return
        self.note(Asked("container", name))
        self.answer(200, json.dumps(self.keys(name)))

    def sso(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        account, role = query["account_id"][0], query["role_name"][0]
        if self.headers.get("x-amz-sso_bearer_token") != f"s3cr3t-sso-access-token-of-{account}":
            self.answer(
                401, json.dumps({"message": "Session token not found or invalid"}), error="UnauthorizedException"
            )
            return
        name = f"{account}/{role}"
        self.note(Asked("sso", name))
        given = self.keys(name)
        keys = {
            "accessKeyId": given["AccessKeyId"],
            "secretAccessKey": given["SecretAccessKey"],
            "sessionToken": given["Token"],
            "expiration": int(self.ends().timestamp() * 1000),
        }
        self.answer(200, json.dumps({"roleCredentials": keys}))

    def oidc(self) -> None:
        asked = json.loads(self.body())
        account = str(asked["refreshToken"]).removeprefix("s3cr3t-refresh-token-of-")
        self.note(Asked("oidc", account))
        if asked["grantType"] != "refresh_token" or account == "nobody":
            self.answer(400, json.dumps({"error": "invalid_grant"}), error="InvalidGrantException")
            return
        token = {
            "accessToken": f"s3cr3t-sso-access-token-of-{account}",
            "tokenType": "Bearer",
            "expiresIn": 3600,
            "refreshToken": asked["refreshToken"],
        }
        self.answer(200, json.dumps(token))

    def signin(self) -> None:
        asked = json.loads(self.body())
        name = str(asked["refreshToken"]).removeprefix("s3cr3t-refresh-token-of-")
        self.note(Asked("signin", name))
        if self.headers.get("DPoP") is None or asked["grantType"] != "refresh_token":
            self.answer(400, "{}", error="ValidationException")
        elif name == "nobody":
            self.answer(
                400, json.dumps({"error": "TOKEN_EXPIRED", "message": "expired"}), error="AccessDeniedException"
            )
        else:
            given = self.keys(name)
            token = {
                "accessToken": {
                    "accessKeyId": given["AccessKeyId"],
                    "secretAccessKey": given["SecretAccessKey"],
                    "sessionToken": given["Token"],
                },
                "tokenType": "aws_sigv4",
                "expiresIn": 900,
                "refreshToken": asked["refreshToken"],
            }
            self.answer(200, json.dumps(token))

    def sts(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self.body()).items()}
        action = form["Action"]
        signed = _CREDENTIAL.search(self.headers.get("Authorization", ""))
        arn = form.get("RoleArn", "")
        self.wait()
        self.note(
            Asked(action, arn, signed["key"] if signed else None, signed["region"] if signed else None),
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
            f"<SessionToken>s3cr3t/assumed/session+token==</SessionToken><Expiration>{_stamp(self.ends())}</Expiration>"
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
        """Say nothing."""


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
