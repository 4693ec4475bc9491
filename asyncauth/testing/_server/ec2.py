"""Paging of EC2's DescribeInstances as AWS does it: 5 to 1,000 a page, and no pages without MaxResults.

moto accepts any page size, and returns pages of 100 if none is named.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asyncauth.testing._server.aws_errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.testing._server.http import Request

#: "MaxResults" of DescribeInstances in the EC2 API reference.
MIN_PAGE_SIZE: Final = 5
MAX_PAGE_SIZE: Final = 1_000
_NO_PAGES: Final = b"&MaxResults=1000000000"


def page_as_aws(request: Request, form: Mapping[str, str]) -> Request:
    """Return the DescribeInstances request for moto, so that it returns all instances if no page size is named.

    Raises:
        AwsError: the page size is out of range.
    """
    size = form.get("MaxResults")
    if size is None:
        # moto, as AWS, refuses a page size beside ids.
        return request if "InstanceId.1" in form else replace(request, body=request.body + _NO_PAGES)
    if not size.isascii() or not size.isdigit() or int(size) < MIN_PAGE_SIZE:
        message = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value greater than 5."
        raise AwsError("InvalidParameterValue", 400, message)
    if int(size) > MAX_PAGE_SIZE:
        message = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value less than 1000."
        raise AwsError("InvalidParameterValue", 400, message)
    return request
