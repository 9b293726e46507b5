"""How fast this host clears memory, with the kernel's own instruction where it has it.

The kernel clears a reclaimed page with 64 times MOVDIR64B and one MFENCE
(`tdx_clear_page()`, `tdx_quirk_reset_paddr()`), through a KeyID without
integrity.  MOVDIR64B is not privileged, so that the same loop runs here, on
memory of this process.  A CPU without it gets the widest non-temporal store
that it has, which also goes past the caches, as a stand-in.

The loop is machine code, mapped readable and executable after it was written
(never writable and executable at once), and called through ctypes, which lets
other threads run meanwhile.  A store is used only where /proc/cpuinfo says that
the CPU has it, and after a child process has lived through it: flags may lie.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import resource
import signal
import statistics
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Self

from tdxreclaim.errors import HostReadError, UnmeasurableError, UsageError
from tdxreclaim.facts.cpu import NO_WORDS, CpuReading
from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdxreclaim.facts.sources.base import Source

_LINE = 64


_HUGE = 2 << 20


WARM_UPS = 1


class Store(StrEnum):
    """How a line is written."""

    MOVDIR64B = "movdir64b"
    NT64 = "nt64"
    NT32 = "nt32"
    NT16 = "nt16"
    MEMSET = "memset"

    @property
    def label(self) -> str:
        """How prose names it."""
        return _LABELS[self]

    @property
    def fenced(self) -> bool:
        """Whether it comes with an MFENCE a page."""
        return self is not Store.MEMSET


_LABELS = {
    Store.MOVDIR64B: "MOVDIR64B",
    Store.NT64: "non-temporal 64-byte stores (VMOVNTDQ zmm)",
    Store.NT32: "non-temporal 32-byte stores (VMOVNTDQ ymm)",
    Store.NT16: "non-temporal 16-byte stores (MOVNTDQ xmm)",
    Store.MEMSET: "the C library's memset",
}


class Pages(StrEnum):
    """What the memory is mapped with."""

    SMALL = "4k"
    THP = "thp"
    HUGETLB = "hugetlb"


class _Loop(NamedTuple):
    before: bytes
    line: bytes
    """Writes the 64 bytes at RDI."""
    after: bytes


# Source: Intel SDM volume 2, MOVDIR64B (66 0F 38 F8 /r), MOVNTDQ, VMOVNTDQ; the
# bytes are checked by a disassembler in tests/facts/test_measure.py.
_LOOPS = {
    Store.MOVDIR64B: _Loop(b"", bytes.fromhex("660f38f83a"), b""),  # movdir64b rdi, [rdx]
    Store.NT64: _Loop(
        bytes.fromhex("62f17d48efc0"),  # vpxord zmm0, zmm0, zmm0
        bytes.fromhex("62f17d48e707"),  # vmovntdq [rdi], zmm0
        bytes.fromhex("c5f877"),  # vzeroupper
    ),
    Store.NT32: _Loop(
        bytes.fromhex("c5fdefc0"),  # vpxor ymm0, ymm0, ymm0
        bytes.fromhex("c5fde707c5fde74720"),  # vmovntdq [rdi] and [rdi+32], ymm0
        bytes.fromhex("c5f877"),
    ),
    Store.NT16: _Loop(
        bytes.fromhex("660fefc0"),  # pxor xmm0, xmm0
        bytes.fromhex("660fe707660fe74710660fe74720660fe74730"),  # movntdq, four times
        b"",
    ),
}


_MFENCE = bytes.fromhex("0faef0")


_RET = b"\xc3"


def machine_code(store: Store, *, fence_a_page: bool) -> bytes:
    """Return ``clear(start, end, zeros)``: whole pages from RDI to RSI, source at RDX.

    With *fence_a_page* there is an MFENCE after each page, as in the kernel;
    without, one at the end.  System V calling convention, x86-64.
    """
    before, line, after = _LOOPS[store]
    lines = _looped(
        line + bytes.fromhex("4883c740") + bytes.fromhex("4839cf")  # add rdi, 64; cmp rdi, rcx
    )
    page = bytes.fromhex("488d8f00100000") + lines  # lea rcx, [rdi+4096]
    page += (_MFENCE if fence_a_page else b"") + bytes.fromhex("4839f7")  # cmp rdi, rsi
    return before + _looped(page) + _MFENCE + after + _RET


def _looped(body: bytes) -> bytes:
    return body + b"\x72" + (-(len(body) + 2)).to_bytes(1, signed=True)  # jb to its start


class Run(NamedTuple):
    """One way of writing, with one number of threads, over all rounds."""

    threads: int
    ns_a_page: tuple[float, ...]
    """By each round, sorted: wall time times threads over pages."""
    bytes_a_second: tuple[float, ...]
    """By each round, sorted: of all threads together."""

    @property
    def median_ns(self) -> float:
        """The median of a page's time on one thread."""
        return statistics.median(self.ns_a_page)

    @property
    def median_rate(self) -> float:
        """The median of all threads' bytes a second."""
        return statistics.median(self.bytes_a_second)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was measured, and on what."""

    store: Store
    refused: tuple[Store, ...]
    """What the flags promise and the CPU does not execute."""
    guest: bool
    """Whether a hypervisor runs this kernel."""
    cpu: str | None
    """``GenuineIntel 6/0x8f``; None: it does not say."""
    model_name: str
    kernel: str
    size_bytes: int
    pages: Pages
    huge_bytes: int | None
    """How much of it was mapped with huge pages; None: it cannot be told."""
    node: int | None
    rounds: int
    cleared: tuple[Run, ...]
    """With a fence a page, by number of threads."""
    streamed: Run
    """The same stores with one fence at the end, one thread."""
    plain: Run
    """The C library's memset, one thread: what the memory takes."""

    @property
    def is_stand_in(self) -> bool:
        """Whether MOVDIR64B was not what ran."""
        return self.store is not Store.MOVDIR64B

    @property
    def ratio(self) -> float:
        """The store's bandwidth over memset's, without the fences; best rounds, as STREAM does."""
        return self.streamed.bytes_a_second[-1] / self.plain.bytes_a_second[-1]


def choose_stores(reading: CpuReading | None, machine: str) -> tuple[Store, ...]:
    """Return the stores of a CPU, best first: MOVDIR64B if every processor has it.

    *machine* is uname's; anything but x86-64 gets memset.
    """
    if machine != "x86_64":
        return (Store.MEMSET,)
    flags = reading.flags if reading is not None else NO_WORDS
    found = [
        store
        for word, store in (
            ("movdir64b", Store.MOVDIR64B),
            ("avx512f", Store.NT64),
            ("avx2", Store.NT32),
        )
        if flags.all_have(word)
    ]
    return (*found, Store.NT16, Store.MEMSET)


def survives(store: Store) -> bool:
    """Whether the CPU executes a store: a child process clears one page with it.

    Raises:
        UnmeasurableError: the host allows no executable mappings.
    """
    if store is Store.MEMSET:
        return True
    with _Code(store) as code, _Memory(PAGE_BYTES, Pages.SMALL) as memory:
        child = os.fork()
        if child == 0:  # pragma: no cover  (another process)
            signal.signal(signal.SIGILL, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code.cleared(memory.start, memory.start + PAGE_BYTES)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def measure_clear(  # noqa: PLR0913  (an option each)
    source: Source,
    *,
    size_bytes: int,
    threads: Sequence[int],
    pages: Pages,
    rounds: int,
    node: int | None,
    machine: str,
    kernel: str,
    seen: Callable[[int, int], None] = lambda _done, _of: None,
) -> Measured:
    """Clear *size_bytes* of this host's memory again and again, and time it.

    All memory is touched before, by a thread on the node in question; the first
    round is not counted.  *seen* is told between the rounds how many bytes of
    how many were written.

    Raises:
        UsageError: there is not that much memory, or no such node.
        UnmeasurableError: the host refuses executable mappings, or the memory.
    """
    reading = _read_cpu(source)
    cpus = _cpus(source, node)
    if max(threads) > len(cpus):
        raise UsageError("--threads", f"{max(threads)}: this process may run on {len(cpus)} CPUs")
    _check_memory(source, size_bytes)
    stores = choose_stores(reading, machine)
    refused = tuple(itertools.takewhile(lambda each: not survives(each), stores))
    store = stores[len(refused)]
    with _Memory(size_bytes, pages) as memory:
        crew = _Crew(cpus)
        crew.run(1, memory, _memset(1))
        huge = _huge_bytes(source, pages, size_bytes)
        with _Code(store) as code:
            ways: list[tuple[int, Callable[[int, int], None]]] = [
                (count, code.cleared) for count in threads
            ]
            ways += [(1, code.streamed), (1, _memset(0))]
            times: list[list[int]] = [[] for _ in ways]
            steps = itertools.count(1)
            total = size_bytes * (1 + (WARM_UPS + rounds) * len(ways))
            # Way by way within a round, so that a slow minute is everybody's.
            for number in range(WARM_UPS + rounds):
                for (count, way), taken in zip(ways, times, strict=True):
                    seen(size_bytes * next(steps), total)
                    spent = crew.run(count, memory, way)
                    if number >= WARM_UPS:
                        taken.append(spent)
    runs = [_run(size_bytes, count, taken) for (count, _), taken in zip(ways, times, strict=True)]
    group = reading.groups[0] if reading is not None and reading.groups else None
    return Measured(
        store=store,
        refused=refused,
        guest=reading is not None and reading.flags.has("hypervisor") is True,
        cpu=f"{group.vendor} {group.number}" if group is not None and group.identified else None,
        model_name=_model_name(source),
        kernel=kernel,
        size_bytes=size_bytes,
        pages=pages,
        huge_bytes=huge,
        node=node,
        rounds=rounds,
        cleared=tuple(runs[:-2]),
        streamed=runs[-2],
        plain=runs[-1],
    )


def _run(size_bytes: int, threads: int, taken: Sequence[int]) -> Run:
    pages = size_bytes // PAGE_BYTES
    return Run(
        threads,
        tuple(sorted(ns * threads / pages for ns in taken)),
        tuple(sorted(size_bytes * 1e9 / ns for ns in taken)),
    )


def _read_cpu(source: Source) -> CpuReading | None:
    text = source.read("proc/cpuinfo")
    return None if text is None else parse_cpuinfo(text)


def _model_name(source: Source) -> str:
    for line in (source.read("proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return "an unnamed CPU"


def _cpus(source: Source, node: int | None) -> tuple[int, ...]:
    """Return the CPUs to run on: those that this process may use, of a node if one is named."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
    if node is None:
        return tuple(sorted(allowed))
    path = f"sys/devices/system/node/node{node}/cpulist"
    listed = source.read(path)
    if listed is None:
        raise UsageError("--node", f"{node}: this host has no such node (/{path})")
    found = sorted(allowed & parse_cpu_list(listed))
    if not found:
        raise UsageError("--node", f"{node}: this process may run on none of its CPUs")
    return tuple(found)


def parse_cpu_list(text: str) -> set[int]:
    r"""Return the numbers in a list as the kernel writes it; what is none is left out.

    >>> sorted(parse_cpu_list("0-2,5\n"))
    [0, 1, 2, 5]
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def _check_memory(source: Source, size_bytes: int) -> None:
    """Refuse to take memory that would have to be taken from others."""
    for line in (source.read("proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdigit():
            available = int(value.split()[0]) << 10
            if size_bytes > available * 9 // 10:
                raise UsageError(
                    "--size", f"{size_bytes >> 20} MiB: only {available >> 20} MiB are available"
                )


def _huge_bytes(source: Source, pages: Pages, size_bytes: int) -> int | None:
    if pages is Pages.HUGETLB:
        return size_bytes
    try:
        text = source.read("proc/self/smaps_rollup")
    except HostReadError:
        return None
    for line in (text or "").splitlines():
        name, _, value = line.partition(":")
        if name == "AnonHugePages" and value.split()[:1] and value.split()[0].isdigit():
            return min(int(value.split()[0]) << 10, size_bytes)
    return None


_MAP_HUGETLB = 0x40000


class _Memory:
    """Memory to be cleared, on a 2 MiB boundary."""

    def __init__(self, size_bytes: int, pages: Pages) -> None:
        self.size = size_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        room = size_bytes + _HUGE
        if pages is Pages.HUGETLB:
            flags |= _MAP_HUGETLB
            room = -(-size_bytes // _HUGE) * _HUGE
        try:
            self._map = mmap.mmap(-1, room, flags=flags)
        except (OSError, ValueError) as error:
            hint = " (are pages reserved in vm.nr_hugepages?)" if pages is Pages.HUGETLB else ""
            raise UnmeasurableError(
                "calibrate clear", f"{size_bytes >> 20} MiB are not to be had: {_why(error)}{hint}"
            ) from error
        advice = {Pages.SMALL: "MADV_NOHUGEPAGE", Pages.THP: "MADV_HUGEPAGE"}.get(pages)
        if advice is not None and hasattr(mmap, advice):
            _advise(self._map, getattr(mmap, advice))
        self._anchor: ctypes.c_char | None = ctypes.c_char.from_buffer(self._map)
        address = ctypes.addressof(self._anchor)
        self.start = -(-address // _HUGE) * _HUGE if pages is not Pages.HUGETLB else address

    def part(self, number: int, of: int) -> tuple[int, int]:
        """Return where the part of one of several threads begins and ends, in whole pages."""
        pages = self.size // PAGE_BYTES
        first, last = pages * number // of, pages * (number + 1) // of
        return self.start + first * PAGE_BYTES, self.start + last * PAGE_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._anchor = None
        self._map.close()


def _advise(memory: mmap.mmap, advice: int) -> None:
    try:
        memory.madvise(advice)
    except OSError:
        return  # a kernel without transparent huge pages has only small ones; it is recorded


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _memset(value: int) -> Callable[[int, int], None]:
    def fill(start: int, end: int) -> None:
        ctypes.memset(start, value, end - start)

    return fill


class _Code:
    """The loops, mapped so that they can be run."""

    def __init__(self, store: Store) -> None:
        self._map: mmap.mmap | None = None
        self._anchor: ctypes.c_char | None = None
        if store is Store.MEMSET:
            self.cleared = self.streamed = _memset(0)
            return
        cleared = machine_code(store, fence_a_page=True)
        streamed = machine_code(store, fence_a_page=False)
        self._map = mmap.mmap(-1, 2 * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # A line of zeros, on a boundary of its own, then the code.
        self._map[PAGE_BYTES : PAGE_BYTES + len(cleared)] = cleared
        self._map[PAGE_BYTES + 512 : PAGE_BYTES + 512 + len(streamed)] = streamed
        self._anchor = ctypes.c_char.from_buffer(self._map)
        address = ctypes.addressof(self._anchor)
        _make_executable(address + PAGE_BYTES)
        self.cleared = _callable(address + PAGE_BYTES, zeros=address)
        self.streamed = _callable(address + PAGE_BYTES + 512, zeros=address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._anchor = None
        if self._map is not None:
            self._map.close()


def _make_executable(address: int) -> None:
    """Make a page readable and executable.

    Raises:
        UnmeasurableError: the host allows no executable mappings.

    """
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if mprotect(address, PAGE_BYTES, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        why = os.strerror(ctypes.get_errno())
        raise UnmeasurableError(
            "calibrate clear",
            f"this host refuses executable mappings ({why}), so that no machine code can be run; "
            "nothing was measured",
        )


def _callable(address: int, *, zeros: int) -> Callable[[int, int], None]:
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    function = prototype(address)

    def call(start: int, end: int) -> None:
        if start < end:
            function(start, end, zeros)

    return call


class _Crew:
    """Threads that begin together, each on a CPU of its own."""

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = cpus

    def run(self, threads: int, memory: _Memory, way: Callable[[int, int], None]) -> int:
        """Return the nanoseconds from the first one's start to the last one's end."""
        barrier = threading.Barrier(threads)
        began, ended = [0] * threads, [0] * threads
        failed: list[BaseException] = []

        def work(number: int) -> None:
            try:
                if hasattr(os, "sched_setaffinity"):
                    os.sched_setaffinity(0, {self._cpus[number]})  # 0: this thread alone
                start, end = memory.part(number, threads)
                barrier.wait()
                began[number] = time.perf_counter_ns()
                way(start, end)
                ended[number] = time.perf_counter_ns()
            except (OSError, threading.BrokenBarrierError) as error:
                failed.append(error)
                barrier.abort()

        crew = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        # An interrupt that ended the wait would have the memory unmapped under
        # threads that still write to it, so it waits until they are done.  They
        # inherit the mask; a thread in machine code could not be stopped anyway.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            _start_all(crew, barrier, failed)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        if failed:
            raise UnmeasurableError("calibrate clear", f"a thread failed: {failed[0]}")
        return max(ended) - min(began)


def _start_all(
    crew: Sequence[threading.Thread], barrier: threading.Barrier, failed: list[BaseException]
) -> None:
    """Start the threads and wait for them; if one cannot start, release the others."""
    started = []
    for each in crew:
        try:
            each.start()
        except RuntimeError as error:
            failed.append(error)
            barrier.abort()
            break
        started.append(each)
    for each in started:
        each.join()
