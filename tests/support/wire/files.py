"""Files of boto's sources: config, credentials, and the caches of SSO and of `aws login`."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from tests.support.wire.stubs import SECRET
from tests.support.wire.world import stamp

if TYPE_CHECKING:
    from asyncauth import Keys


def keys_in(section: str, keys: Keys) -> str:
    """Return a section of a config or credentials file that holds keys."""
    token = "" if keys.session_token is None else f"aws_session_token = {keys.session_token}\n"
    return (
        f"[{section}]\naws_access_key_id = {keys.access_key_id}\n"
        f"aws_secret_access_key = {keys.secret_access_key}\n{token}"
    )


def env_of(keys: Keys) -> dict[str, str]:
    """Return the environment variables that hold keys."""
    token = {} if keys.session_token is None else {"AWS_SESSION_TOKEN": keys.session_token}
    return {"AWS_ACCESS_KEY_ID": keys.access_key_id, "AWS_SECRET_ACCESS_KEY": keys.secret_access_key, **token}


def sso_files(session: str, account: str, *, refresh_token: str) -> dict[str, str]:
    """Return a profile `p` of an SSO session whose cached access token has expired and can be renewed."""
    token = {
        "startUrl": "https://example.awsapps.com/start",
        "region": "eu-west-1",
        "accessToken": f"{SECRET}-sso-access-token-that-has-expired",
        "expiresAt": stamp(-60),
        "clientId": "client",
        "clientSecret": f"{SECRET}-client",
        "registrationExpiresAt": stamp(86_400),
        "refreshToken": f"{SECRET}-refresh-token-of-{refresh_token}",
    }
    return {
        f".aws/sso/cache/{hashlib.sha1(session.encode()).hexdigest()}.json": json.dumps(token),
        ".aws/config": f"[sso-session {session}]\nsso_start_url = https://example.awsapps.com/start\n"
        f"sso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n"
        f"[profile p]\nregion = eu-west-1\nsso_session = {session}\nsso_account_id = {account}\nsso_role_name = ops\n",
    }


def login_files(session: str, *, refresh_token: str) -> dict[str, str]:
    """Return a profile `p` of `aws login` whose cached credentials have expired and can be renewed."""
    from awscrt.crypto import EC, ECExportFormat, ECType

    der = EC.new_generate(ECType.P_256).export_key(ECExportFormat.SEC1)
    pem = base64.encodebytes(der).decode()
    token = {
        "accessToken": {
            "accessKeyId": "ASIAIOSFODNN7ENDED00",
            "secretAccessKey": SECRET,
            "sessionToken": f"{SECRET}-token",
            "accountId": "555555555555",
            "expiresAt": stamp(-60),
        },
        "tokenType": "aws_sigv4",
        "clientId": "arn:aws:signin:::devtools/same-device",
        "refreshToken": f"{SECRET}-refresh-token-of-{refresh_token}",
        "idToken": f"{SECRET}-id-token",
        "dpopKey": f"-----BEGIN EC PRIVATE KEY-----\n{pem}-----END EC PRIVATE KEY-----\n",
    }
    return {
        f".aws/login/cache/{hashlib.sha256(session.encode()).hexdigest()}.json": json.dumps(token),
        ".aws/config": f"[profile p]\nregion = us-east-1\nlogin_session = {session}\n",
    }
