"""Clearing this host's memory: the machine code, what is refused, what is recorded."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tdxreclaim.calibrate.clear import calibration, saturates_at
from tdxreclaim.errors import UsageError
from tdxreclaim.facts.formats.cpuinfo import parse_cpuinfo
from tdxreclaim.facts.measure import (
    _LOOPS,
    Measured,
    Pages,
    Run,
    Store,
    _Crew,
    _Loop,
    _Memory,
    choose_stores,
    machine_code,
    measure_clear,
    survives,
)
from tdxreclaim.facts.sources.base import Files
from tdxreclaim.facts.sources.live import Live
from tdxreclaim.tables.teardown import Action

MIB = 1 << 20
CODED = [store for store in Store if store is not Store.MEMSET]
HOSTS = Path(__file__).parents[1] / "hosts"

STORES = {
    Store.MOVDIR64B: ["movdir64b rdi,[rdx]"],
    Store.NT64: ["vmovntdq [rdi],zmm0"],
    Store.NT32: ["vmovntdq [rdi],ymm0", "vmovntdq [rdi+0x20],ymm0"],
    Store.NT16: [
        "movntdq [rdi],xmm0",
        "movntdq [rdi+0x10],xmm0",
        "movntdq [rdi+0x20],xmm0",
        "movntdq [rdi+0x30],xmm0",
    ],
}
ZEROED = {
    Store.MOVDIR64B: [],
    Store.NT64: ["vpxord zmm0,zmm0,zmm0"],
    Store.NT32: ["vpxor ymm0,ymm0,ymm0"],
    Store.NT16: ["pxor xmm0,xmm0"],
}


def _disassemble(code: bytes, folder: Path) -> list[tuple[int, str]]:
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("no objdump on this machine: the encoding was not checked")
    path = folder / "code"
    path.write_bytes(code)
    listing = subprocess.run(
        [objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "-w", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(r"^ +([0-9a-f]+):\t[0-9a-f ]+\t(.*)$", listing, re.MULTILINE)
    return [
        (int(at, 16), " ".join(re.sub(r"\w+ PTR ", "", said).split("#")[0].split()))
        for at, said in found
    ]


@pytest.mark.parametrize("fence_a_page", [True, False])
@pytest.mark.parametrize("store", CODED)
def test_the_encoding_by_a_disassembler(store: Store, fence_a_page: bool, tmp_path: Path) -> None:
    said = _disassemble(machine_code(store, fence_a_page=fence_a_page), tmp_path)
    page = len(ZEROED[store])
    line = page + 1
    expected = [
        *ZEROED[store],
        "lea rcx,[rdi+0x1000]",
        *STORES[store],
        "add rdi,0x40",
        "cmp rdi,rcx",
        f"jb {said[line][0]:#x}",
        *(["mfence"] if fence_a_page else []),
        "cmp rdi,rsi",
        f"jb {said[page][0]:#x}",
        "mfence",
        *(["vzeroupper"] if store in (Store.NT64, Store.NT32) else []),
        "ret",
    ]
    assert [instruction for _, instruction in said] == expected


def test_movdir64b_only_where_every_processor_has_it() -> None:
    block = "processor\t: {}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nflags\t\t: {}\n\n"

    def chosen(*flags: str) -> Store:
        text = "".join(block.format(number, words) for number, words in enumerate(flags))
        return choose_stores(parse_cpuinfo(text), "x86_64")[0]

    assert chosen("fpu avx512f movdir64b", "fpu avx512f movdir64b") is Store.MOVDIR64B
    assert chosen("fpu avx512f movdir64b", "fpu avx512f") is Store.NT64
    assert chosen("fpu avx2") is Store.NT32
    assert chosen("fpu movdiri") is Store.NT16
    assert choose_stores(None, "x86_64") == (Store.NT16, Store.MEMSET)
    assert choose_stores(None, "aarch64") == (Store.MEMSET,)


def test_a_flag_that_lies_costs_a_child_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CPU does not execute raises SIGILL, in a process of its own."""
    if os.uname().machine != "x86_64":
        pytest.skip("x86 machine code")
    monkeypatch.setitem(_LOOPS, Store.MOVDIR64B, _Loop(b"", bytes.fromhex("0f0b"), b""))  # ud2
    assert not survives(Store.MOVDIR64B)
    assert survives(Store.NT16)
    text = (
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
        "flags\t\t: fpu hypervisor movdir64b\nbugs\t\t: spectre_v1\n\n"
    )
    told: list[tuple[int, int]] = []
    measured = measure_clear(
        Files({"proc/cpuinfo": text}),
        size_bytes=MIB,
        threads=(1,),
        pages=Pages.SMALL,
        rounds=1,
        node=None,
        machine="x86_64",
        kernel="6.18",
        seen=lambda done, of: told.append((done, of)),
    )
    assert (measured.store, measured.refused) == (Store.NT16, (Store.MOVDIR64B,))
    assert measured.guest
    assert [done for done, _ in told] == [MIB * each for each in range(1, 7)]
    assert {of for _, of in told} == {MIB * 7}
    record = calibration(measured, name="x", date="d", origin="o")
    assert record.host.endswith("(in a virtual machine)")
    assert any("in a virtual machine, whose memory" in each for each in record.assumptions)
    assert any("flags promise MOVDIR64B" in each for each in record.assumptions)


@pytest.mark.parametrize("pages", [Pages.SMALL, Pages.THP])
def test_memory_is_cleared_and_timed(pages: Pages) -> None:
    measured = measure_clear(
        Live(),
        size_bytes=8 * MIB,
        threads=(1,),
        pages=pages,
        rounds=3,
        node=None,
        machine=os.uname().machine,
        kernel="6.18",
    )

    assert len(measured.cleared[0].ns_a_page) == measured.rounds == 3
    assert measured.cleared[0].ns_a_page[0] > 0
    assert measured.ratio > 0
    assert measured.is_stand_in is (measured.store is not Store.MOVDIR64B)
    assert measured.huge_bytes is None or 0 <= measured.huge_bytes <= 8 * MIB


def test_every_store_that_this_cpu_has_writes_zeros() -> None:
    """Not MOVDIR64B unless the CPU says that it has it."""
    import ctypes

    from tdxreclaim.facts.measure import _Code, _Memory

    text = Live().read("proc/cpuinfo")
    flags = parse_cpuinfo(text).flags.present if text else frozenset()
    words = {Store.MOVDIR64B: "movdir64b", Store.NT64: "avx512f", Store.NT32: "avx2"}
    for store in Store:
        if words.get(store, "sse2") not in flags and store is not Store.MEMSET:
            continue
        with _Memory(2 * MIB, Pages.SMALL) as memory, _Code(store) as code:
            for way in (code.cleared, code.streamed):
                ctypes.memset(memory.start, 0xAA, memory.size)
                way(memory.start + 4096, memory.start + memory.size - 4096)
                held = ctypes.string_at(memory.start, memory.size)
                assert held == b"\xaa" * 4096 + bytes(memory.size - 8192) + b"\xaa" * 4096


def _refused(**changes: object) -> str:
    texts = {
        "proc/cpuinfo": (HOSTS / "epyc-bare" / "proc" / "cpuinfo").read_text(),
        "proc/meminfo": "MemTotal: 64 kB\nMemAvailable:   65536 kB\n",
        "sys/devices/system/node/node1/cpulist": "4090-4095\n",
    }
    options: dict[str, object] = {
        "size_bytes": MIB,
        "threads": (1,),
        "pages": Pages.SMALL,
        "rounds": 1,
        "node": None,
        "machine": "x86_64",
        "kernel": "6.18",
    }
    with pytest.raises(UsageError) as caught:
        measure_clear(Files(texts), **{**options, **changes})  # type: ignore[arg-type]
    return str(caught.value)


def test_what_the_host_does_not_have_is_refused_before_anything_is_mapped() -> None:
    assert _refused(size_bytes=100 * MIB) == "--size: 100 MiB: only 64 MiB are available"
    assert _refused(node=0).startswith("--node: 0: this host has no such node")
    assert _refused(node=1).endswith("may run on none of its CPUs")
    assert _refused(threads=(1, 1024)).startswith("--threads: 1024: ")


# Forbids what a hardened host forbids, then runs the tool.  prctl(PR_SET_MDWE)
# where the kernel has it (6.3 and later), else a seccomp filter on mprotect.
HARDENED = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if {seccomp} or libc.prctl(65, 1, 0, 0, 0) != 0:
    if libc.prctl(38, 1, 0, 0, 0) != 0:
        sys.exit(77)
    code = [
        (0x20, 0, 0, 0), (0x15, 0, 3, 10),        # mprotect?
        (0x20, 0, 0, 32), (0x45, 0, 1, 4),        # with PROT_EXEC?
        (0x06, 0, 0, 0x00050001),                 # EPERM
        (0x06, 0, 0, 0x7FFF0000),                 # allow
    ]
    raw = b"".join(struct.pack("HBBI", *each) for each in code)
    buffer = ctypes.create_string_buffer(raw)
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(program)
    if libc.prctl(22, 2, ctypes.byref(holder), 0, 0) != 0:
        sys.exit(77)
from tdxreclaim.cli import main
sys.exit(main(["calibrate", "clear", "--size", "1MiB", "--rounds", "1"]))
"""


@pytest.mark.parametrize("seccomp", [False, True], ids=["mdwe", "seccomp"])
def test_a_host_that_forbids_executable_mappings_gets_its_line(seccomp: bool) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", HARDENED.format(seccomp=seccomp)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 77:
        pytest.skip("this kernel has neither PR_SET_MDWE nor seccomp filters")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith(
        "tdxreclaim: calibrate clear: this host refuses executable mappings ("
    )
    assert ran.stderr.count("\n") == 1


def _measured(store: Store) -> Measured:
    run = Run(1, (1800.0, 1900.4, 2600.0), (1e9, 2e9, 3e9))
    return Measured(
        store=store,
        refused=(),
        guest=False,
        cpu="GenuineIntel 6/0x8f",
        model_name="a Xeon",
        kernel="6.18.2",
        size_bytes=1 << 30,
        pages=Pages.THP,
        huge_bytes=1 << 30,
        node=None,
        rounds=3,
        cleared=(run, Run(2, (1900.0, 2000.0, 2100.0), (3e9, 4e9, 5e9))),
        streamed=run,
        plain=run,
    )


def test_a_measured_clear_is_no_stand_in_only_with_the_instruction() -> None:
    real = calibration(_measured(Store.MOVDIR64B), name="x", date="d", origin="o")
    instead = calibration(_measured(Store.NT64), name="x", date="d", origin="o")

    assert set(real.steps) == {Action.CLEAR}
    assert real.steps[Action.CLEAR].at(9) == (1800, 1900, 2600)
    assert real.stand_ins == {}
    assert "MOVDIR64B was not executed on this CPU" in instead.stand_ins[Action.CLEAR]
    assert any("2 threads at once" in each for each in real.assumptions)


def test_where_more_threads_add_nothing() -> None:
    def run(threads: int, rate: float) -> Run:
        return Run(threads, (1.0,), (rate,))

    assert saturates_at([run(1, 10), run(2, 19), run(4, 20)]) == 2
    assert saturates_at([run(1, 10), run(2, 20)]) is None
    assert saturates_at([run(1, 10)]) is None


def test_an_interrupt_waits_for_the_threads() -> None:
    main = threading.main_thread().ident
    assert main is not None
    done = []

    def fill(start: int, end: int) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        for value in range(5):  # long enough for a wait that is not masked to end before
            ctypes.memset(start, value, end - start)
        done.append(True)

    cpus = sorted(os.sched_getaffinity(0))[:1] * 2
    with _Memory(64 * MIB, Pages.SMALL) as memory:
        with pytest.raises(KeyboardInterrupt):
            _Crew(cpus).run(2, memory, fill)
        assert done == [True, True]
