"""Opens what a user gave as parts of a kernel: files, folders, packages.

Whoever made them may mean harm: links inside are not followed, nothing is
written or run, and what is unpacked is bounded.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import HostReadError, MalformedInputError, TdxReclaimError
from tdxreclaim.facts.evidence import Evidence, Origin, not_readable
from tdxreclaim.facts.images import elf, image
from tdxreclaim.facts.images.deb import deb_data, looks_like_deb
from tdxreclaim.facts.images.folder import Folder, open_regular
from tdxreclaim.facts.images.lists import StubError, read_list
from tdxreclaim.facts.images.members import Member, member_of, release_in_name
from tdxreclaim.facts.images.module import read_module
from tdxreclaim.facts.images.parts import PART_LIMIT_BYTES, Images, KernelPart, bases, fits
from tdxreclaim.facts.sources import tar
from tdxreclaim.facts.sources.base import read_bounded
from tdxreclaim.facts.sources.unpack import UNPACK_ERRORS, looks_packed, read_head, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# One with debug data has some 20 MB.
_MODULE_LIMIT_BYTES = 96 << 20


# A System.map has some 10 MB.
_LIST_LIMIT_BYTES = 32 << 20


_DAMAGE: tuple[type[Exception], ...] = (*UNPACK_ERRORS, tarfile.TarError, struct.error)


# Shown of a folder with many kernels.
_MOST_NAMED = 6


class Failure(NamedTuple):
    """A part that is there and tells nothing, and why."""

    path: str
    error: TdxReclaimError


def read_images(
    paths: Sequence[str], release: str | None = None, said_by: str = "--kernel"
) -> Images:
    """Return what the parts of one kernel at *paths* tell.

    Of a folder or package with several kernels that of *release* is meant,
    which *said_by* asks for.

    Raises:
        HostReadError: one cannot be read.
        MalformedInputError: one is not a part of a kernel, or they are not
            all of one release.

    """
    parts: list[KernelPart] = []
    failures: list[Failure] = []
    for path in paths:
        found, failed = _read(path, release)
        if not found:
            raise _nothing(path, failed)
        parts += found
        failures += failed
    _check_releases(parts, (said_by, release) if release else None)
    return Images(tuple(parts), as_evidence(failures, Origin.FAKED))


def as_evidence(failures: Iterable[Failure], origin: Origin) -> tuple[Evidence, ...]:
    """Return what could not be used as evidence; that a list is a stub is nothing to note."""
    return tuple(
        Evidence(failure.path, not_readable(failure.error.why), origin)
        for failure in failures
        if not isinstance(failure.error, StubError)
    )


def _nothing(path: str, failures: list[Failure]) -> TdxReclaimError:
    if failures:
        return failures[0].error
    return MalformedInputError(
        path, "no kernel in it (kvm-intel.ko, vmlinuz-RELEASE, config-RELEASE, System.map-RELEASE)"
    )


def _check_releases(parts: Sequence[KernelPart], wanted: tuple[str, str] | None) -> None:
    named = [wanted] if wanted else []
    named += [(part.path, part.release) for part in parts if part.release]
    for path, release in named[1:]:
        if release != named[0][1]:
            raise _not_one_kernel(path, release, *named[0])
    headed = bases(parts)
    for path, base in headed:
        for other_path, other in named[:1] or headed[:1]:
            if not (fits(base, other) if named else base == other):
                raise _not_one_kernel(path, base, other_path, other)


def _not_one_kernel(path: str, release: str, other_path: str, other: str) -> MalformedInputError:
    return MalformedInputError(
        path, f"of {release}, but {other_path} is of {other}: not one kernel, so nothing is decided"
    )


def _read(path: str, release: str | None) -> tuple[list[KernelPart], list[Failure]]:
    if os.path.isdir(path):
        folder = Folder(path)
        return read_members(folder, chosen(path, folder.members(), release))
    with open_regular(path) as file:
        with _as_damage(path):
            package = _package(file, path)
            if package is not None:
                return _read_package(package, path, release)
            file.seek(0)
            parts = list(_parts(file, path))
        # What it says of itself counts; its name may add what that lacks.
        return [_named(part, release_in_name(os.path.abspath(path))) for part in parts], []


def _package(file: io.BufferedReader, name: str) -> io.BufferedReader | None:
    """Return the tar of the files in a .deb or another package, ``None`` if it is none."""
    if looks_like_deb(file.peek(_HEAD_BYTES)):
        return deb_data(file, name)
    head, stream = read_head(unpack(file, name))
    return stream if tar.looks_like_tar(head) else None


_HEAD_BYTES = 32


@contextlib.contextmanager
def _as_damage(name: str) -> Iterator[None]:
    """Turn what reading damaged data raises into one line."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise HostReadError(name, error.strerror, error.errno) from error
        raise MalformedInputError(name, f"damaged or cut short ({error})") from error


def chosen(path: str, members: Sequence[Member], release: str | None) -> list[Member]:
    """Return the members of one kernel: that of *release*, or the only one.

    Raises:
        MalformedInputError: there is none of *release*, or several.

    """
    releases = list(dict.fromkeys(member.release for member in members if member.release))
    meant = releases if release is None else [each for each in releases if each == release]
    if len(meant) == 1 or not releases:
        return [each for each in members if each.release in (None, *meant)]
    listed = ", ".join(releases[:_MOST_NAMED]) + (", ..." if len(releases) > _MOST_NAMED else "")
    if release is not None:
        raise MalformedInputError(path, f"no kernel {release} in it, but {listed}")
    raise MalformedInputError(
        path, f"{len(releases)} kernels are in it ({listed}): choose one with --kernel RELEASE"
    )


def read_members(
    folder: Folder, members: Iterable[Member]
) -> tuple[list[KernelPart], list[Failure]]:
    """Return what *members* of a folder tell, and those that tell nothing.

    Raises:
        MalformedInputError: one says to be of another release than its name.

    """
    parts: list[KernelPart] = []
    failures: list[Failure] = []
    for member in members:
        name = folder.label(member.path)
        try:
            with folder.stream(member.path) as file, _as_damage(name):
                found = list(_parts(file, name))
        except TdxReclaimError as error:
            failures.append(Failure(name, error))
        else:
            parts += [_named(part, member.release) for part in found]
    return parts, failures


def _read_package(
    stream: io.BufferedReader, name: str, release: str | None
) -> tuple[list[KernelPart], list[Failure]]:
    """Return what the parts in a tar of files tell, in one pass."""
    found: list[tuple[Member, list[KernelPart] | TdxReclaimError]] = []
    for each in tar.members(stream):
        member = member_of(each.name)
        if member is None or each.refusal is not None:
            continue
        label = f"{name}:{each.name}"
        try:
            with _as_damage(label):
                found.append((member, list(_parts(io.BufferedReader(each.stream), label))))
        except TdxReclaimError as error:
            found.append((member, error))
    meant = chosen(name, [member for member, _ in found], release)
    kept = [(member, read) for member, read in found if member in meant]
    failures = [
        Failure(f"{name}:{member.path}", read)
        for member, read in kept
        if isinstance(read, TdxReclaimError)
    ]
    return [
        _named(part, member.release)
        for member, read in kept
        if not isinstance(read, TdxReclaimError)
        for part in read
    ], failures


def _named(part: KernelPart, release: str | None) -> KernelPart:
    """Return *part* with the release of its name, where it has none in it."""
    if release is None or part.release is None:
        return part._replace(release=part.release or release)
    if part.release != release:
        why = f"its name says {release}, and it says to be {part.release}"
        raise MalformedInputError(part.path, why)
    return part


def _parts(file: io.BufferedReader, name: str) -> Iterator[KernelPart]:
    """Yield the parts in *file*, which is told by its beginning."""
    head, stream = read_head(file)
    packed = looks_packed(head)
    if packed:
        head, stream = read_head(unpack(stream, name, limit=PART_LIMIT_BYTES))
    if image.looks_like_vmlinuz(head):
        yield from image.read_vmlinuz(stream, head, name)
    elif head.startswith(elf.MAGIC) and head[16:17] == elf.RELOCATABLE:
        whole = _read_whole(stream, name)
        yield read_module(whole, name)
    elif head.startswith(elf.MAGIC):
        if packed or not file.seekable():
            yield from image.read_packed_vmlinux(stream, name)
        else:
            yield from image.read_vmlinux(file, name)
    else:
        _refuse_others(head, name)
        text = read_bounded(stream, name, _LIST_LIMIT_BYTES).decode("utf-8", "replace")
        part = read_list(text, name)
        if part is None:
            raise MalformedInputError(name, _NOT_RECOGNISED)
        yield part


def _read_whole(stream: io.BufferedReader, name: str) -> io.BytesIO:
    # Grown in place: joining pieces would take twice the memory.
    whole = io.BytesIO()
    while piece := stream.read(1 << 20):
        whole.write(piece)
        if whole.tell() > _MODULE_LIMIT_BYTES:
            raise MalformedInputError(name, f"longer than {_MODULE_LIMIT_BYTES >> 20} MiB")
    return whole


_NOT_RECOGNISED = (
    "not recognised as a part of a kernel (kvm-intel.ko, vmlinuz, vmlinux, config, System.map, "
    "Module.symvers, a directory, a .deb)"
)


# What holds a kernel and is not taken apart here.
_OTHERS = (
    (
        b"\xed\xab\xee\xdb",
        "an RPM package: unpack it (rpm2cpio FILE | cpio -idm) and give lib/modules/RELEASE",
    ),
    (b"070701", "a cpio archive or an initramfs: unpack it (cpio -idm) and give the parts"),
    (b"hsqs", "a squashfs: mount or unpack it (unsquashfs) and give the folder"),
    (b"\x27\x05\x19\x56", "a U-Boot image, which is not for x86"),
)


_UNIFIED = (
    "a unified kernel image: cut the kernel out (objcopy -O binary --only-section=.linux FILE "
    "vmlinuz) and give that"
)


def _refuse_others(head: bytes, name: str) -> None:
    for magic, why in _OTHERS:
        if head.startswith(magic):
            raise MalformedInputError(name, why)
    if head.startswith(b"MZ"):
        why = _UNIFIED if b".linux\0\0" in head else "an EFI program, not an x86 kernel"
        raise MalformedInputError(name, why)
    if not head:
        raise MalformedInputError(name, "empty")
    if b"\0" in head:
        raise MalformedInputError(name, _NOT_RECOGNISED)
