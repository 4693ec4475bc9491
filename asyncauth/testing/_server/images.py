"""Images of the fleet's initial instances, which belong to other accounts; moto does not have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Image:
    """Image with what DescribeInstanceImageMetadata returns of it."""

    id: str
    name: str
    owner_id: str
    owner_alias: str | None
    state: str
    created_at: str
    deprecated_at: str | None
    is_public: bool
    architecture: str = "x86_64"
    platform: str | None = None

    def metadata(self) -> dict[str, Any]:
        """Return the image's `ImageMetadata`."""
        return {
            "ImageId": self.id,
            "Name": self.name,
            "OwnerId": self.owner_id,
            "ImageOwnerAlias": self.owner_alias,
            "State": self.state,
            "CreationDate": self.created_at,
            "DeprecationTime": self.deprecated_at,
            "ImageAllowed": True,
            "IsPublic": self.is_public,
        }


_AMAZON: Final = "137112412989"

SEEDED: Final = (
    Image(
        "ami-12c6146b", "al2023-ami-2023.6.20250211.0-kernel-6.1-x86_64", _AMAZON, "amazon", "available",
        "2025-02-11T01:10:12.000Z", "2025-05-12T01:10:12.000Z", is_public=True,
    ),
    Image(
        "ami-0a7d80731ae1b2435", "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-arm64-server-20260930", "099720109477", None,
        "available", "2026-09-30T05:12:44.000Z", "2028-09-30T05:12:44.000Z", is_public=True, architecture="arm64",
    ),
    Image(
        "ami-0b0ea68c435eb488d", "Windows_Server-2022-English-Full-Base-2026.10.14", "801119661308", "amazon",
        "available", "2026-10-14T18:02:31.000Z", "2028-10-14T18:02:31.000Z", is_public=True, platform="windows",
    ),
    Image(
        "ami-06b21ccaeff8cd686", "golden-image-2024-01", "999999999990", None,
        "deregistered", "2024-01-15T09:30:00.000Z", None, is_public=False,
    ),
)  # fmt: skip

_BY_ID: Final = {image.id: image for image in SEEDED}


def metadata(image_id: str, registered: Any) -> dict[str, Any]:
    """Return an image's `ImageMetadata`.

    Args:
        image_id: the image of an instance.
        registered: moto's image of this id; None: it has none. An unknown image counts as deregistered.
    """
    if registered is not None:
        return {
            "ImageId": image_id,
            "Name": registered.name,
            "OwnerId": registered.owner_id,
            "State": registered.state,
            "CreationDate": f"{registered.creation_date:%Y-%m-%dT%H:%M:%S.000Z}",
            "ImageAllowed": True,
            "IsPublic": registered.is_public,
        }
    if image_id in _BY_ID:
        return _BY_ID[image_id].metadata()
    return {"ImageId": image_id, "State": "deregistered", "ImageAllowed": True, "IsPublic": False}
