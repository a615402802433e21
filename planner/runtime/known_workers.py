"""Workers that an aggregator connects to, out of a deployment and addresses; TLS with pinned certificates."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, setting
from planner.runtime.deployment import Deployment
from planner.runtime.device.addresses import Endpoint, resolve
from planner.runtime.device.errors import DeviceError
from planner.schema import did_you_mean
from planner.schema.deployment import DeployedDevice


@dataclass(frozen=True)
class KnownWorker:
    """Worker to connect to, and what must be true of it."""

    name: str
    endpoint: Endpoint
    context: ssl.SSLContext | None  # TLS, outside loopback; None for a worker in C that has no certificate
    certificate: bytes  # pinned, as DER
    bundle: bytes
    token: bytes
    image: dict[str, Any]  # shape and dtype, as hello tells them
    num_features: int


def workers_of(deployment: Deployment, addresses: Mapping[str, str]) -> list[KnownWorker]:
    """Return the workers of a deployment, in the order of the plan.

    Args:
        deployment: Devices and secrets.
        addresses: `host:port` of the worker of each device; host names are looked up now.

    Raises:
        InputError: If a device has no address, an address cannot be used, or it is that of no device.
    """
    names = [device.name for device in deployment.manifest.devices]
    for name in addresses:
        if name not in names:
            hint = did_you_mean(name, names)
            raise InputError(f"{setting('address')}: {name!r} is not a device of {deployment.path}{hint or '.'}")
    missing = [name for name in names if name not in addresses]
    if missing:
        raise InputError(
            f"{setting('address')} must be given for each device, got none for {missing[0]!r}: add it to devices.json, "
            f"or give {setting('address', f'{missing[0]}=HOST:PORT')}."
        )
    folders = {folder.manifest.device: folder.certificate for folder in deployment.devices}
    return [
        _worker(deployment, device, addresses[device.name], folders[device.name])
        for device in deployment.manifest.devices
    ]


def _worker(deployment: Deployment, device: DeployedDevice, address: str, certificate: Path | None) -> KnownWorker:
    try:
        endpoint = resolve(address)
    except DeviceError as error:
        raise InputError(f"{device.name}: {error}") from None
    manifest = deployment.manifest
    context, pinned = (None, b"") if endpoint.is_loopback or certificate is None else _pinned(certificate)
    return KnownWorker(
        name=device.name,
        endpoint=endpoint,
        context=context,
        certificate=pinned,
        bundle=bytes.fromhex(manifest.bundle),
        token=deployment.token,
        image={"shape": list(manifest.input.shape), "dtype": manifest.input.dtype},
        num_features=device.features,
    )


def _pinned(path: Path) -> tuple[ssl.SSLContext, bytes]:
    """Return TLS that accepts one certificate alone, and that certificate as DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The certificate is known itself: neither the address nor an authority has to vouch for it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        text = path.read_text(encoding="ascii")
        context.load_verify_locations(cadata=text)
        return context, ssl.PEM_cert_to_DER_cert(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: must be a certificate ({getattr(error, 'strerror', None) or error}).") from None
