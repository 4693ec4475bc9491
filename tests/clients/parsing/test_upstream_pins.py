"""Pins of the upstream code whose results the fast parsers and the fast signature reproduce.

A failure means that an upgrade changed that code: compare the new source with the module named, run its tests of
equality with more examples than by default, and then add the new hash.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib import import_module
from typing import Any

import aiobotocore
import botocore
import pytest

pytestmark = pytest.mark.botocore

XML = "asyncauth/_clients/parsing/xml.py"
JSON = "asyncauth/_clients/parsing/json.py"
PARSING = "asyncauth/_clients/parsing/factory.py"
TIMESTAMPS = "asyncauth/_clients/parsing/timestamps.py"
SIGNING = "asyncauth/_clients/speedups/sigv4.py"
USER_AGENT = "asyncauth/_clients/speedups/user_agent_cache.py"

PINNED: list[tuple[str, str, set[str]]] = [
    ("botocore.parsers:ResponseParser", PARSING, {"282e92148f97fa73", "3c89b4fc05bacf56"}),
    ("botocore.parsers:BaseXMLResponseParser", XML, {"e38b22674f37f95d"}),
    ("botocore.parsers:QueryParser", XML, {"a1a6a5945c281325"}),
    ("botocore.parsers:EC2QueryParser", XML, {"7be1100e8a186dee"}),
    ("botocore.parsers:RestXMLParser", XML, {"077430a1f02f7aa4"}),
    ("botocore.parsers:BaseRestParser", PARSING, {"3d4dc9d67cce257f"}),
    ("botocore.parsers:BaseJSONParser", JSON, {"f10dc499a0170ce0"}),
    ("botocore.parsers:JSONParser", JSON, {"3f656ec27ea28f65"}),
    ("botocore.parsers:RestJSONParser", JSON, {"e0288cc792cec333"}),
    ("aiobotocore.parsers:AioResponseParser", PARSING, {"2a91d30281c30245"}),
    ("aiobotocore.parsers:AioJSONParser", PARSING, {"6fa8883cff4cb577"}),
    ("aiobotocore.parsers:AioResponseParserFactory", PARSING, {"5bb5fefc7a8e109f"}),
    ("aiobotocore.endpoint:AioEndpoint._do_get_response", PARSING, {"082b773ba52d7a7e"}),
    ("botocore.utils:parse_timestamp", TIMESTAMPS, {"9c99fa67c1d1302f"}),
    ("botocore.utils:_parse_timestamp_with_tzinfo", TIMESTAMPS, {"dc76511bfbc420a2"}),
    ("botocore.auth:SigV4Auth", SIGNING, {"733abf07a77f36ba"}),
    ("botocore.auth:_host_from_url", SIGNING, {"c7103a12a8f4bc2f"}),
    ("botocore.awsrequest:AWSRequest", SIGNING, {"4c3ae628b1eed4f0"}),
    ("aiobotocore.signers:AioRequestSigner.get_auth_instance", SIGNING, {"4b6f991818fc633d"}),
    ("botocore.useragent:UserAgentString", USER_AGENT, {"26483d9ecd45bd21", "acbcbef88c47d612"}),
]


def find(name: str) -> Any:
    """Return the object `module:qualified.name` of the installed botocore and aiobotocore."""
    module, _, qualified = name.partition(":")
    found: Any = import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("name", "ours", "hashes"), [pytest.param(*pinned, id=pinned[0]) for pinned in PINNED])
def test_upstream_code_is_a_known_version(name: str, ours: str, hashes: set[str]) -> None:
    """Each piece of upstream code that is reproduced here is a version that the tests of equality passed with."""
    try:
        source = inspect.getsource(find(name))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{name} no longer exists ({error}); its counterpart is in {ours}")
    found = hashlib.sha256(source.encode()).hexdigest()[:16]

    assert found in hashes, (
        f"{name} has changed (aiobotocore {aiobotocore.__version__}, botocore {botocore.__version__}, hash {found}); "
        f"its counterpart is in {ours}"
    )
