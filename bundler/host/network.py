"""Addresses, interfaces and ports."""

from __future__ import annotations

import ipaddress
import socket

import psutil

from bundler.errors import UsageError


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``.

    :raises UsageError: it isn't of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"--dist-init-addr {text!r} is not HOST:PORT",
            hint="give the first node's address and a free port on it: --dist-init-addr 10.0.0.1:50000",
        )
    return host.strip("[]"), int(port)


def interface_towards(host: str, port: int) -> str:
    """Return the network interface from which packets to an address leave.

    :raises UsageError: the name doesn't resolve, or to this host's loopback, where no other node reaches it;
        there is no route, or no interface has the address.
    """
    hint = "check the first node's address and this node's network"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        _refuse_loopback(host, str(address[0]))
        # Connecting a datagram socket sends nothing: the kernel only chooses the way.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own = probe.getsockname()[0].split("%")[0]
    except OSError as problem:
        raise UsageError(
            f"no way to {host}: {problem.strerror or problem}", where=host, hint=hint
        ) from problem
    # Up or not yet: the kernel has chosen it.
    for name, addresses in psutil.net_if_addrs().items():
        if own in (one.address.split("%")[0] for one in addresses):
            return name
    raise UsageError(f"no interface has the address {own}", where=host, hint=hint)


def _refuse_loopback(host: str, address: str) -> None:
    """Refuse a name that stands for loopback, as Debian's installer writes it into /etc/hosts: 127.0.1.1.

    An address that is given as such is taken as it is: all nodes may be on one host.

    :raises UsageError: it is such a name.
    """
    if address == host or not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return
    raise UsageError(
        f"{host} resolves to {address} here, where no other node reaches it",
        where="/etc/hosts",
        hint=f"give the first node's address instead of its name; this node has {own_addresses()}",
    )


def own_addresses() -> str:
    """Return this host's IPv4 addresses that others may reach, each with its interface, or ``none``."""
    states = psutil.net_if_stats()
    found = [
        f"{one.address} ({name})"
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family == socket.AF_INET
        and not ipaddress.ip_address(one.address).is_loopback
        and name in states
        and states[name].isup
    ]
    return ", ".join(found) or "none"


def client_host(host: str) -> str:
    """Return the address to reach a server on this host that listens on ``host``."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    return "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
