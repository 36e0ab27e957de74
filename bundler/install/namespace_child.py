"""The inner side of a network namespace: ``python -m bundler.install.namespace_child COMMAND…``.

A new namespace's loopback interface is down, and a program that serves or connects on 127.0.0.1 needs it up.
Raising it takes an ioctl; nothing of this needs ``ip`` or ``ifconfig``. Then it is proven that nothing beyond
loopback can be reached, and the command takes this process's place.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

GET_FLAGS, SET_FLAGS = 0x8913, 0x8914
"""``SIOCGIFFLAGS`` and ``SIOCSIFFLAGS`` of ``linux/sockios.h``."""
UP = 0x1
"""``IFF_UP`` of ``linux/if.h``."""
NOT_ISOLATED = 97
"""Exit code: the network can be reached from in here, so this is no isolation."""
NO_COMMAND = 98
"""Exit code: the command can't be started."""
OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that RFC 5737 and RFC 3849 keep for documentation: a route to them is a route to anywhere."""


def raise_loopback(name: str = "lo") -> bool:
    """Bring the loopback interface up where it is down.

    :returns: whether it had to be raised.
    :raises OSError: it is down and this process may not raise it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sh14x", name.encode(), 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(one, GET_FLAGS, request))
        if flags & UP:
            return False
        fcntl.ioctl(one, SET_FLAGS, struct.pack("16sh14x", name.encode(), flags | UP))
        return True


def has_route() -> bool:
    """Return whether this host would know where to send a packet for the world; none is sent."""
    for family, address in OUTSIDE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as one:
                one.connect((address, 9))
        except OSError:
            continue
        return True
    return False


def main(command: list[str]) -> int:
    """Raise loopback, prove the isolation, and become the command.

    :returns: an exit code, where the command can't take over; without a command, 0.
    """
    try:
        raise_loopback()
    except OSError as problem:
        print(f"error: the loopback interface can't be raised: {problem.strerror}", file=sys.stderr)
        return NOT_ISOLATED
    if has_route():
        print("error: there is still a route out of the network namespace", file=sys.stderr)
        return NOT_ISOLATED
    if not command:
        return 0
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        print(f"error: {command[0]}: {problem.strerror}", file=sys.stderr)
        return NO_COMMAND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
