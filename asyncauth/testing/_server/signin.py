"""Sign-in of the fleet: the federation endpoint, which exchanges the keys of a role for a sign-in token."""

from __future__ import annotations

import hmac
import json
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from asyncauth.testing._server.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.testing._server.call_recorder import CallRecorder
    from asyncauth.testing._server.clock import FleetClock
    from asyncauth.testing._server.sts import Principal

FEDERATION_PATH: Final = "/federation"


def answer_sign_in(
    request: Request, principals: Mapping[str, Principal], clock: FleetClock, recorder: CallRecorder
) -> Response:
    """Answer getSigninToken: a token for valid keys of a role, HTTP 400 for all others, as AWS does."""
    form = parse_qs(request.query or request.body.decode("utf-8", "replace"))
    principal = _principal(form.get("Session", [""])[0], principals, clock)
    is_refused = principal is None or form.get("Action") != ["getSigninToken"]
    account = principal.account if principal else None
    number = recorder.begin("signin", "GetSigninToken", account, "")
    recorder.end(number, "InvalidRequest" if is_refused else "", throttled=False)
    if is_refused:
        return Response(400, b"Bad Request", code="InvalidRequest")
    body = json.dumps({"SigninToken": secrets.token_urlsafe(48)}).encode()
    return Response(200, body, [("Content-Type", "application/json")])


def _principal(session: str, principals: Mapping[str, Principal], clock: FleetClock) -> Principal | None:
    """Return the owner of a session's keys; None if they are unknown, wrong, long-term or expired."""
    try:
        fields = json.loads(session)
        key_id, secret, token = (str(fields[name]) for name in ("sessionId", "sessionKey", "sessionToken"))
    except (ValueError, KeyError, TypeError):
        return None
    principal = principals.get(key_id)
    if principal is None or principal.token is None or principal.is_expired(clock.monotonic()):
        return None
    is_right = hmac.compare_digest(principal.secret.encode(), secret.encode())
    is_right &= hmac.compare_digest(principal.token.encode(), token.encode())
    return principal if is_right else None
