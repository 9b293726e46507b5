"""What tells at once that a VM came or went: inotify on the folder, KVM's uevents.

Neither holds a reference on a VM.  Both are a help: where one is not to be had,
the samples still see what they see.

Source: linux virt/kvm/kvm_main.c, ``kvm_uevent_notify_change()``; inotify(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from typing import Self

_IN_CREATE, _IN_DELETE = 0x100, 0x200

_NETLINK_KOBJECT_UEVENT = 15


class Events:
    """Descriptors that become readable when a VM came or went."""

    def __init__(self, folder: str) -> None:
        self._socket = _uevents()
        self._inotify = _inotify(folder)
        self.descriptors = [
            each
            for each in (self._inotify, None if self._socket is None else self._socket.fileno())
            if each is not None
        ]

    def drain(self) -> None:
        """Read what is there, so that the next wait waits."""
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                while os.read(descriptor, 1 << 16):
                    pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._inotify is not None:
            os.close(self._inotify)


def _uevents() -> socket.socket | None:
    """Return a socket that gets the kernel's uevents; None where there is none."""
    if not hasattr(socket, "AF_NETLINK"):
        return None
    try:
        found = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT
        )
        found.bind((0, 1))
    except OSError:
        return None
    return found


def _inotify(folder: str) -> int | None:
    """Return a descriptor that tells what comes and goes in *folder*."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "inotify_init1"):
        return None
    descriptor = int(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    if library.inotify_add_watch(descriptor, os.fsencode(folder), _IN_CREATE | _IN_DELETE) < 0:
        os.close(descriptor)
        return None
    return descriptor
