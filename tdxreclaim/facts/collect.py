"""What a capture of a host takes: what the tool can use, and nothing that identifies.

Files keep their paths, and a kernel log its line numbers: lines that are left
out are empty.  What is said of the host from a capture is what is said of the
host itself.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tdxreclaim.errors import HostReadError, MalformedInputError
from tdxreclaim.facts import places
from tdxreclaim.facts.allowed import LISTINGS, STATE
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo
from tdxreclaim.facts.images.record import read_record, write_record
from tdxreclaim.facts.kernel import TDX_SYMBOLS, parse_release, parse_symbols, whole_heading
from tdxreclaim.facts.logs.line import Speaker, read_line, show_head
from tdxreclaim.facts.logs.needles import begins
from tdxreclaim.facts.logs.stack import begins_stack, frame_function
from tdxreclaim.facts.machine import names_virtual_machine
from tdxreclaim.facts.scrub import (
    SCRUBBED,
    _host_names,
    _local_releases,
    _scrub_uname,
    _scrub_version,
    _unnamed,
    known_names,
    local_release,
    scrub,
)
from tdxreclaim.facts.sources.base import KERNEL_LOG, Source
from tdxreclaim.facts.sources.live import PyCpuinfo, kernel_release, read_py_cpuinfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tdxreclaim.facts.images.installed import InstalledKernels
    from tdxreclaim.facts.sources.tree import Tree

MANIFEST_SCHEMA = "tdxreclaim.capture/1"


QEMU = "tdxreclaim-qemu.json"


# What is looked at beside what `check` reads; a tar has to know before it is read.
ALSO_WANTED = frozenset(
    (
        *LISTINGS,
        *STATE,
        "proc/sys/kernel/osrelease",
        *("proc/cmdline", "proc/meminfo", "proc/sys/kernel/hostname", "etc/hostname", "hostname"),
    )
)


_PLAIN_VALUE = r"(?:[YyNn01]|on|off|auto|force|never)"


_OPTION = re.compile(
    # The kernel takes - for _ in these names.
    r"(?:kvm\.(?:tdp_mmu|enable_virt_at_load|nx_huge_pages|mmio_caching|nested)="
    + _PLAIN_VALUE
    + r"|kvm[-_]intel\.(?:tdx|ept|eptad|enable_apicv|nested|vpid|pml)="
    + _PLAIN_VALUE
    + r"|nohibernate|noresume|hibernate=(?:no|yes|noresume|nocompress|protect_image)"
    r"|crashkernel=(?:auto|[\dkKmMgG:,@x-]{1,80}(?:,(?:high|low|cma))?)"
    r"|(?:set|clear)cpuid=[a-z0-9_,]{1,200}"
    r"|tdx(?:_host)?(?:=" + _PLAIN_VALUE + r")?)"
)


# The last says that an option of that menu which is not written is off.
_CONFIG_LINE = re.compile(
    r"(?:# )?CONFIG_(?:INTEL_TDX_HOST|KVM_INTEL_TDX|KVM_INTEL|KVM|KEXEC|KEXEC_CORE|KEXEC_FILE"
    r"|CRASH_DUMP|HIBERNATION|INTEL_TDX_MODULE_UPDATE|CGROUP_MISC)(?:=[ymn]| is not set)"
    r"|# end of Processor type and features"
)


_MEMINFO = re.compile(r"(?:MemTotal|SwapTotal|HugePages_Total|Hugepagesize|Hugetlb):\s+\d+(?: kB)?")


_STACK_LINES = 150


_RECLAIM_FUNCTION = re.compile(r"(?:__)?(?:tdx|tdh|kvm|vt)_|tdp_mmu_")


_TDX_WARNING = re.compile(r"WARNING: .*(?:/|^)tdx\.c:")


class Taken(NamedTuple):
    """A file of a capture, and what was done to it."""

    path: str
    text: str
    how: str


class LeftOut(NamedTuple):
    """What a capture has not, and why."""

    path: str
    why: str


class HostCapture(NamedTuple):
    """The files of a capture by path, and what could not be read."""

    taken: tuple[Taken, ...]
    left_out: tuple[LeftOut, ...]


def collect(
    source: Source,
    *,
    include: Iterable[str] = (),
    tree: Tree | None = None,
    installed: InstalledKernels | None = None,
    ask_py_cpuinfo: Callable[[], PyCpuinfo] = read_py_cpuinfo,
) -> HostCapture:
    """Return what a capture of *source* takes.

    *include* names further files, which are taken as they are; *tree* is
    where to look for running QEMU processes, *installed* are the kernels of a
    live host.

    Raises:
        MalformedInputError: there is nothing to take.
        HostReadError: an included file is not there or cannot be read.

    """
    include = tuple(include)
    collector = _Collector(source)
    for path, change in LISTINGS.items():
        collector.take(path, change, "known fields")
    _take_py_cpuinfo(collector, source, ask_py_cpuinfo)
    for path, change in STATE.items():
        collector.take(path, change, "of the form that is known")
    collector.take("proc/sys/kernel/osrelease", _first_word, "the release alone")
    collector.take("proc/version", _scrub_version, "the release alone")
    if source.origin is Origin.LIVE and not collector.releases() and (uname := kernel_release()):
        collector.add("proc/sys/kernel/osrelease", f"{uname}\n", "by uname, the release alone")
    collector.take("sos_commands/kernel/uname_-a", _scrub_uname, "without the host's name")
    collector.take(places.KALLSYMS, _filter_symbols, "names of the reclaim code, no addresses")
    collector.take("proc/cmdline", filter_options, "options of KVM, TDX and crash kernels")
    for path in places.FIRMWARE:
        collector.take(path, _filter_firmware, "names of hypervisors alone")
    collector.take("proc/meminfo", _filter_meminfo, "totals")
    names = _host_names(source)
    for release in collector.releases():
        for place in places.CONFIGS:
            collector.take(place.format(release=release), _filter_config, "options that matter")
    _take_kernel_files(collector, installed)
    _take_logs(collector, source, lambda text: _unnamed(filter_log(text), names))
    if tree is not None:
        collector.add(QEMU, json.dumps(_qemu_sizes(tree), indent=2) + "\n", "sizes alone")
    for path in include:
        text = source.read(path)
        if text is None:
            raise HostReadError(path, "not there to be included")
        collector.add(path, text, "as it is, by --include")
    if not any(
        taken.path != QEMU and taken.text != _NO_ANSWER for taken in collector.taken.values()
    ):
        raise MalformedInputError("capture", "nothing that tells of a host could be read")
    return _with_local_releases(collector, included=frozenset(include))


_NO_ANSWER = "{}\n"


def _take_py_cpuinfo(collector: _Collector, source: Source, ask: Callable[[], PyCpuinfo]) -> None:
    """Take what tells of the CPU where /proc/cpuinfo cannot be used, as `check` would ask it."""
    if source.origin is not Origin.LIVE:
        collector.take(places.PY_CPUINFO, _kept_again, "known fields")
        return
    listing = collector.taken.get(places.CPUINFO)
    try:
        if listing is not None:
            parse_cpuinfo(listing.text)
            return
        why = "not there"
    except MalformedInputError as error:
        why = error.why
    try:
        collector.add(places.PY_CPUINFO, ask().keep(), "known fields")
        why += "; py-cpuinfo's answer is kept instead"
    except HostReadError:
        collector.add(places.PY_CPUINFO, _NO_ANSWER, "it did not answer")
        why += ", and py-cpuinfo did not answer"
    if all(each.path != places.CPUINFO for each in collector.left_out):
        collector.left_out.append(LeftOut(places.CPUINFO, why))


def _kept_again(text: str) -> str | None:
    try:
        return PyCpuinfo.kept(text, places.PY_CPUINFO).keep()
    except HostReadError:
        return _NO_ANSWER


def _first_word(text: str) -> str | None:
    return next((f"{word}\n" for word in text.split()), None)


def _with_local_releases(collector: _Collector, included: frozenset[str]) -> HostCapture:
    """Return what was taken with every release that names its builder made ``-local``.

    In paths and texts alike, so that what agreed still agrees.
    """
    record = collector.taken.get(places.KERNEL_FILES)
    known = set(collector.releases())
    known.update(_RECORDED.findall(record.text) if record else ())
    instead = _local_releases(known)
    taken = [
        each
        if each.path in included
        else each._replace(path=instead(each.path), text=instead(each.text))
        for each in collector.taken.values()
    ]
    left_out = [each._replace(path=instead(each.path)) for each in collector.left_out]
    return HostCapture(tuple(sorted(taken)), tuple(sorted(left_out)))


_RECORDED = re.compile(r'"release": "([^"\\]{1,200})"')


class _Collector:
    def __init__(self, source: Source) -> None:
        self._source = source
        self.taken: dict[str, Taken] = {}
        self.left_out: list[LeftOut] = []

    def take(self, path: str, change: Callable[[str], str | None], how: str) -> None:
        try:
            text = self._source.read(path)
        except HostReadError as error:
            self.left_out.append(LeftOut(path, error.why))
            return
        if text is None:
            return
        changed = change(text)
        if changed is None:
            self.left_out.append(LeftOut(path, "not of the form that is known"))
        else:
            self.add(path, changed, how)

    def add(self, path: str, text: str, how: str) -> None:
        self.taken[path] = Taken(path, text, how)

    def releases(self) -> list[str]:
        """Return the kernel releases that the files taken so far tell."""
        releases = [
            parse_release(path, self.taken[path].text)
            for path in places.RELEASES
            if path in self.taken
        ]
        return [each for each in dict.fromkeys(releases) if each and "/" not in each]


def _take_kernel_files(collector: _Collector, installed: InstalledKernels | None) -> None:
    """Take what was concluded from the files of a host's kernels, as `check` would."""
    if installed is None:
        collector.take(places.KERNEL_FILES, _rewritten, "small facts of the kernel's files")
        return
    releases = collector.releases()
    listed = collector.taken.get(places.KALLSYMS)
    symbols = None if listed is None else parse_symbols(listed.text)
    module = symbols is None or not symbols.tells
    record = write_record(installed.read(releases[0], module=module)) if releases else None
    if record is not None:
        collector.add(places.KERNEL_FILES, record, "small facts of the kernel's files")


def _rewritten(text: str) -> str | None:
    try:
        return write_record(read_record(text, places.KERNEL_FILES))
    except MalformedInputError:
        return None


def _take_logs(collector: _Collector, source: Source, change: Callable[[str], str]) -> None:
    if source.origin is not Origin.LIVE:
        for path in places.KERNEL_LOGS:
            collector.take(path, change, "lines that matter, scrubbed")
        return
    try:
        text = source.read(KERNEL_LOG)
    except HostReadError as error:
        collector.left_out.append(LeftOut(KERNEL_LOG, error.why))
        return
    if text is not None:
        collector.add(places.KERNEL_LOGS[0], change(text), "lines that matter, scrubbed")


_SYMBOL = re.compile(r"[0-9a-fA-F]{1,16} ([A-Za-z?] \S+(?:\s+\[\S+\])?)")


def _filter_symbols(text: str) -> str | None:
    heading = whole_heading(text)
    text = text.removeprefix(heading)
    first = _SYMBOL.match(text)
    if first is None:
        return None
    kept = [f"{heading}{0:016x} {_unmoduled(first[1])}"]
    for line in text.splitlines()[1:]:
        if not any(name in line for name in TDX_SYMBOLS):
            continue
        match = _SYMBOL.fullmatch(line)
        if match:
            kept.append(f"{0:016x} {_unmoduled(match[1])}")
    return "\n".join(kept) + "\n"


def _unmoduled(symbol: str) -> str:
    """Return *symbol* without the name of a module that is not one of TDX or KVM."""
    name, bracket, module = symbol.partition("[")
    if not bracket or module.rstrip("]") in ("kvm", "kvm_intel", "core"):
        return symbol
    return f"{name}[{SCRUBBED}]"


def filter_options(text: str) -> str:
    """Return the options of a kernel command line that have to do with TDX, KVM and kexec."""
    return " ".join(word for word in text.split() if _OPTION.fullmatch(word)) + "\n"


def _filter_firmware(text: str) -> str:
    return text if names_virtual_machine(text) else "\n"


def _filter_meminfo(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if _MEMINFO.fullmatch(line))


def _filter_config(text: str) -> str | None:
    if "CONFIG_" not in text:
        return None
    kept = [line for line in text.splitlines() if _CONFIG_LINE.fullmatch(line)]
    return "\n".join(["# The CONFIG_ options that tdxreclaim looks at.", *kept]) + "\n"


def filter_log(text: str) -> str:
    """Return a kernel log with the lines that matter, scrubbed; the others are empty.

    A stack is kept if KVM or TDX is in it.  What a line of another program
    says is not kept, whatever it looks like.
    """
    lines = _LogFilter()
    for line in text.split("\n"):
        lines.add(line[:4096])
    return lines.text()


_MOST_HOSTS = 64


class _LogFilter:
    """Keeps lines by their number; those of a stack until it is known whose it is."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._stack: list[int] = []
        self._involved = False
        self._hosts: set[str] = set()

    def add(self, line: str) -> None:
        read = read_line(line)
        if read.host and len(self._hosts) < _MOST_HOSTS:
            self._hosts.add(read.host)
        self._kept.append("")
        if read.speaker is Speaker.PROGRAM:
            return
        head, message = show_head(read), read.message or line
        if begins_stack(message):
            if not (self._stack and message.startswith("task:")):
                self._end_stack()
            self._keep_stack_line(head, message)
        elif begins(message) and not message.startswith("task:"):
            if not _left_out(message):
                self._kept[-1] = _kept_line(head, message)
        elif self._stack:
            self._add_to_stack(head, message)

    def text(self) -> str:
        self._end_stack()
        return _unnamed("\n".join(self._kept), known_names(self._hosts))

    def _add_to_stack(self, head: str, message: str) -> None:
        function = frame_function(message)
        if function or "TASK>" in message or "Call Trace:" in message:
            self._keep_stack_line(head, message)
            self._involved = self._involved or bool(_RECLAIM_FUNCTION.match(function))
        if "</TASK>" in message or len(self._kept) - self._stack[0] > _STACK_LINES:
            self._end_stack()

    def _keep_stack_line(self, head: str, message: str) -> None:
        self._kept[-1] = f"{head}{scrub(message)}"
        self._stack.append(len(self._kept) - 1)

    def _end_stack(self) -> None:
        if not self._involved:
            for number in self._stack:
                self._kept[number] = ""
        self._stack.clear()
        self._involved = False


def _left_out(message: str) -> bool:
    return message.startswith("WARNING: ") and not _TDX_WARNING.match(message)


def _kept_line(head: str, message: str) -> str:
    for begin in ("Kernel command line: ", "Command line: "):
        if message.startswith(begin):
            return f"{head}{begin}{filter_options(message.removeprefix(begin)).strip()}"
    if message.startswith("Linux version "):
        return f"{head}Linux version {local_release((message.split() + [''] * 3)[2])}".rstrip()
    return f"{head}{scrub(message)}"


_SIZE = re.compile(r"(?:size=)?(\d{1,12})([KMGTkmgt]?)")


_CPUS = re.compile(r"(?:cpus=)?(\d{1,5})")


_MOST_PROCESSES = 100_000


def _qemu_sizes(tree: Tree) -> list[dict[str, Any]]:
    """Return memory (bytes), vCPUs and kind of each running QEMU; numbers and nothing else."""
    found: list[dict[str, Any]] = []
    for name in tree.names("proc")[:_MOST_PROCESSES]:
        if not name.isdigit():
            continue
        try:
            comm = tree.read(f"proc/{name}/comm") or ""
            if not comm.startswith(("qemu", "kvm")):
                continue
            words = (tree.read(f"proc/{name}/cmdline") or "").split("\0")
        except HostReadError:
            continue
        found.append(qemu_size(words))
    return sorted(found, key=lambda each: (str(each["memory_bytes"]), str(each["vcpus"])))


def qemu_size(words: list[str]) -> dict[str, Any]:
    """Return a QEMU command line's memory and vCPUs, ``None`` where it does not say."""
    options = dict(pairwise(words))
    memory = _SIZE.match(options.get("-m", ""))
    cpus = _CPUS.match(options.get("-smp", ""))
    size = None
    if memory:
        # A bare number is in MiB.
        unit = (memory[2] or "M").upper()
        size = int(memory[1]) * 1024 ** ("KMGT".index(unit) + 1)
    return {
        "memory_bytes": size,
        "vcpus": int(cpus[1]) if cpus else None,
        "td": any("tdx-guest" in word for word in words),
    }


def manifest(captured: HostCapture, *, version: str, date: str) -> str:
    """Return the manifest of a capture as JSON."""
    document = {
        "schema": MANIFEST_SCHEMA,
        "tool": {"name": "tdxreclaim", "version": version},
        "date": date,
        "taken": [{"path": each.path, "how": each.how} for each in captured.taken],
        "left_out": [{"path": each.path, "why": each.why} for each in captured.left_out],
    }
    return json.dumps(document, indent=2) + "\n"


def pack(captured: HostCapture, manifest_text: str) -> bytes:
    """Return the capture as a gzipped tar: the same bytes for the same texts."""
    out = io.BytesIO()
    texts = {each.path: each.text for each in captured.taken} | {places.MANIFEST: manifest_text}
    with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(texts):
            data = texts[path].encode("utf-8", "replace")
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = len(data), 0o644, 0
            tar.addfile(member, io.BytesIO(data))
    # Not the gzip module's, whose header has the time and the system in it.
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(out.getvalue()) + packer.flush()
