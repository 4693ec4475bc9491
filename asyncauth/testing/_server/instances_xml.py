"""Answers about initial instances as XML, from templates; moto's serializer takes 20 times as long for each instance.

Only instances whose parts the templates name are rendered here. moto renders what was changed beyond that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

_RESERVATION: Final = """<item><reservationId>{0.id}</reservationId><ownerId>{0.owner_id}</ownerId><groupSet/>\
<instancesSet>{1}</instancesSet></item>"""
_ASSOCIATION: Final = """<association><ipOwnerId>{ipOwnerId}</ipOwnerId><publicDnsName>{publicDnsName}</publicDnsName>\
<publicIp>{publicIp}</publicIp></association>"""
_DEVICE: Final = """<item><deviceName>{name}</deviceName><ebs><attachTime>{attached_at}</attachTime>\
<deleteOnTermination>{deleted}</deleteOnTermination><status>{ebs.status}</status>\
<volumeId>{ebs.volume_id}</volumeId></ebs></item>"""
_NETWORK_INTERFACE: Final = """<item>{association}<attachment><attachTime>{attached_at}</attachTime>\
<attachmentId>{0.attachment_id}</attachmentId><deleteOnTermination>{deleted}</deleteOnTermination>\
<deviceIndex>{0.device_index}</deviceIndex><status>attached</status><networkCardIndex>0</networkCardIndex></attachment>\
<description>{0.description}</description><groupSet>{groups}</groupSet><ipv6AddressesSet/>\
<macAddress>{0.mac_address}</macAddress><networkInterfaceId>{0.id}</networkInterfaceId><ownerId>{0.owner_id}</ownerId>\
<privateDnsName>{0.private_dns_name}</privateDnsName><privateIpAddress>{0.private_ip_address}</privateIpAddress>\
<privateIpAddressesSet><item>{association}<primary>true</primary>\
<privateIpAddress>{0.private_ip_address}</privateIpAddress></item></privateIpAddressesSet>\
<sourceDestCheck>{checked}</sourceDestCheck><status>{0.status}</status><subnetId>{0.subnet_id}</subnetId>\
<vpcId>{0.vpc_id}</vpcId><interfaceType>{0.interface_type}</interfaceType></item>"""
_INSTANCE: Final = """<item><instanceId>{0.id}</instanceId><imageId>{0.image_id}</imageId>\
<instanceState><code>{0.state_code}</code><name>{0.state}</name></instanceState>\
<stateReason><code>{0.state_reason.code}</code><message>{0.state_reason.message}</message></stateReason>\
<reason>{0.state_transition_reason}</reason><architecture>{0.architecture}</architecture>{optional}\
<blockDeviceMapping>{devices}</blockDeviceMapping><ebsOptimized>{ebs_optimized}</ebsOptimized>\
<hypervisor>{0.hypervisor}</hypervisor><networkInterfaceSet>{interface}</networkInterfaceSet>\
<rootDeviceName>{0.root_device_name}</rootDeviceName><rootDeviceType>{0.root_device_type}</rootDeviceType><groupSet/>\
<sourceDestCheck>{checked}</sourceDestCheck><sriovNetSupport>{0.sriov_net_support}</sriovNetSupport>{tags}\
<virtualizationType>{0.virtualization_type}</virtualizationType><metadataOptions><state>{options.state}</state>\
<httpTokens>{options.http_tokens}</httpTokens>\
<httpPutResponseHopLimit>{options.http_put_response_hop_limit}</httpPutResponseHopLimit>\
<httpEndpoint>{options.http_endpoint}</httpEndpoint><httpProtocolIpv6>{options.http_protocol_ipv6}</httpProtocolIpv6>\
<instanceMetadataTags>{options.instance_metadata_tags}</instanceMetadataTags></metadataOptions>\
<privateDnsName>{0.private_dns_name}</privateDnsName><amiLaunchIndex>{0.ami_launch_index}</amiLaunchIndex>\
<productCodes/><instanceType>{0.instance_type}</instanceType><launchTime>{launched_at}</launchTime><placement>\
<groupName/><tenancy>{0.placement.tenancy}</tenancy><availabilityZone>{0.placement.zone}</availabilityZone></placement>\
<kernelId>{0.kernel_id}</kernelId><monitoring><state>{0.monitoring_state}</state></monitoring>\
<subnetId>{0.subnet_id}</subnetId><vpcId>{0.vpc_id}</vpcId>\
<privateIpAddress>{0.private_ip_address}</privateIpAddress></item>"""
_IMAGE_METADATA: Final = """<item><instanceId>{0.id}</instanceId><instanceType>{0.instance_type}</instanceType>\
<launchTime>{launched_at}</launchTime><availabilityZone>{0.placement.zone}</availabilityZone>\
<instanceState><code>{0.state_code}</code><name>{0.state}</name></instanceState>\
<instanceOwnerId>{0.owner_id}</instanceOwnerId>{tags}<imageMetadata>{image}</imageMetadata>{operator}</item>"""
_IMAGE_MEMBERS: Final = {
    "ImageId": "imageId",
    "Name": "name",
    "OwnerId": "imageOwnerId",
    "ImageOwnerAlias": "imageOwnerAlias",
    "State": "imageState",
    "CreationDate": "creationDate",
    "DeprecationTime": "deprecationTime",
    "ImageAllowed": "imageAllowed",
    "IsPublic": "isPublic",
}


def is_of_initial_form(instance: Any) -> bool:
    """Return whether the instance was seeded, and the templates name all of its parts.

    It has one network interface with one address, and what a caller can add to it later is not there.
    """
    if not getattr(instance, "is_initial", False) or set(instance.nics) != {0}:
        return False
    nic = instance.nics[0]
    return not (
        len(nic.private_ip_addresses) != 1
        or nic.attachment_id is None
        or nic.ipv6_addresses
        or instance.iam_instance_profile
        or instance.security_groups
        or instance.ec2_backend.addresses  # an elastic address can be associated
    )


def reservation_items(reservations: Iterable[Any], by_moto: Callable[[Any], str]) -> str:
    """Return the items of a `reservationSet`.

    Args:
        reservations: moto's reservations.
        by_moto: renders the item of a reservation that the templates cannot render.
    """
    return "".join(
        _RESERVATION.format(one, "".join(map(_instance, one.instances)))
        if all(map(is_of_initial_form, one.instances))
        else by_moto(one)
        for one in reservations
    )


def image_metadata_items(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the items of an `instanceImageMetadataSet`; each entry has an `instance` of moto and its `image`."""
    return "".join(
        _IMAGE_METADATA.format(
            entry["instance"],
            launched_at=_time(entry["instance"].launch_time),
            tags=_tags(entry["instance"]),
            image="".join(_optional(_IMAGE_MEMBERS[name], value) for name, value in entry["image"].items()),
            operator=_operator(entry["instance"]) or "<operator><managed>false</managed></operator>",
        )
        for entry in entries
    )


def _instance(instance: Any) -> str:
    optional = {
        "platform": instance.platform,
        "instanceLifecycle": instance.lifecycle,
        "keyName": instance.key_name,
        "dnsName": instance.public_dns_name,
        "ipAddress": instance.public_ip,
    }
    return _INSTANCE.format(
        instance,
        optional="".join(_optional(name, value) for name, value in optional.items()) + _operator(instance),
        devices="".join(_device(**one) for one in instance.block_device_mappings),
        ebs_optimized=_text(instance.ebs_optimized),
        interface=_network_interface(instance.nics[0]),
        checked=_text(instance.source_dest_check),
        tags=_tags(instance),
        options=instance.metadata_options,
        launched_at=_time(instance.launch_time),
    )


def _network_interface(nic: Any) -> str:
    return _NETWORK_INTERFACE.format(
        nic,
        association=_ASSOCIATION.format_map(nic.association) if nic.public_ip else "",
        attached_at=_time(nic.attach_time),
        deleted=_text(nic.delete_on_termination),
        groups="".join(
            f"<item><groupId>{group.id}</groupId><groupName>{_text(group.name)}</groupName></item>"
            for group in nic.group_set
        ),
        checked=_text(nic.source_dest_check),
    )


def _device(DeviceName: str, Ebs: Any) -> str:  # noqa: N803 - names of EC2's answer
    return _DEVICE.format(
        name=DeviceName, ebs=Ebs, attached_at=_time(Ebs.attach_time), deleted=_text(Ebs.delete_on_termination)
    )


def _tags(instance: Any) -> str:
    items = "".join(
        f"<item><key>{_text(tag['key'])}</key><value>{_text(tag['value'])}</value></item>" for tag in instance.tag_list
    )
    return f"<tagSet>{items}</tagSet>" if items else ""


def _operator(instance: Any) -> str:
    operator = getattr(instance, "operator", None)
    if operator is None:
        return ""
    members = "".join(
        f"<{name[0].lower()}{name[1:]}>{_text(value)}</{name[0].lower()}{name[1:]}>" for name, value in operator.items()
    )
    return f"<operator>{members}</operator>"


def _optional(name: str, value: Any) -> str:
    return "" if value is None else f"<{name}>{_text(value)}</{name}>"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%S.000Z}"
