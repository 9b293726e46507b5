"""A seeded campaign of mangled captures, with an oracle.

``python tests/fuzz/campaign.py COUNT [SEED]`` runs it at length and prints what
it found.  An affected host stays affected however its capture is cut, mixed
and dressed: it never gets 0 or 12 while a trace of it is in the text, in
whatever notation.  A boot that is cut between its first and its CPU0 line is
no whole one.  A whole unaffected host gets 0 in every form.
"""

from __future__ import annotations

import random
import re
import resource
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.errors import TdxReclaimError
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.sources.recognise import files_of, recognise
from tdxreclaim.policy.decide import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPR, GNR = 143, 173
_SAFE = (0, 12)
_EIGHT = 8


def _cpuinfo(model: int, count: int = 2, first: int = 0) -> str:
    bugs = "spectre_v1 tdx_pw_mce" if model == SPR else "spectre_v1 bhi"
    return "".join(
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\n"
        f"model name\t: Intel(R) Xeon(R)\nstepping\t: {_EIGHT}\nmicrocode\t: 0x2b000590\n"
        f"cpu MHz\t\t: 1900.000\nflags\t\t: fpu vmx movdir64b tdx_host_platform\n"
        f"bugs\t\t: {bugs}\nbogomips\t: 3800.00\npower management:\n\n"
        for number in range(first, first + count)
    )


def _lscpu(model: int) -> str:
    return (
        "Architecture:          x86_64\nCPU(s):                8\nVendor ID:             GenuineIntel\n"
        f"CPU family:            6\nModel:                 {model}\nStepping:              {_EIGHT}\n"
        "Flags:                 fpu vmx movdir64b tdx_host_platform\nL1d cache:             48 KiB\n"
    )


def _lscpu_json(model: int) -> str:
    fields = (
        *(("Architecture", "x86_64"), ("CPU(s)", "8"), ("Vendor ID", "GenuineIntel")),
        *(("CPU family", "6"), ("Model", str(model)), ("Stepping", str(_EIGHT))),
    )
    rows = ",\n".join(f'{{"field": "{name}:", "data": "{value}"}}' for name, value in fields)
    return f'{{"lscpu": [\n{rows}\n]}}\n'


def _cpuid(model: int) -> str:
    eax = 0x806F8 if model == SPR else 0xA06D1
    return "".join(
        f"CPU {number}:\n   0x00000000 0x00: eax=0x00000020 ebx=0x756e6547 ecx=0x6c65746e "
        f"edx=0x49656e69\n   0x00000001 0x00: eax=0x{eax:08x} ebx=0x00800800 ecx=0x7ffefbff "
        f"edx=0xbfebfbff\n   0x00000007 0x00: eax=0x00000002 ebx=0xf3bfbfef ecx=0xfb417ffe "
        f"edx=0xffdd4432\n"
        for number in range(2)
    )


def _log(model: int) -> str:
    return (
        "[    0.000000] Linux version 6.18.2 (gcc) #1 SMP\n"
        "[    0.000000] Command line: kvm_intel.tdx=1\n"
        f"[    0.300000] smpboot: CPU0: Intel(R) Xeon(R) (family: 0x6, model: {model:#x}, stepping: 0x8)\n"
        "[    0.400000] virt/tdx: BIOS enabled: private KeyID range [64, 128)\n"
    )


FORMS: tuple[Callable[[int], str], ...] = (_cpuinfo, _lscpu, _lscpu_json, _cpuid, _log)


# How a processor of the affected kind shows in a text, in whatever dress.
_TRACE = re.compile(
    r"model\W{1,20}(?:143|0x8f)\b|\b0x000806f8\b|\bdata\W{1,8}143\b|tdx_pw_mce", re.IGNORECASE
)


def is_affected(text: str) -> bool:
    """Whether a trace of the affected CPU is in *text*."""
    return bool(_TRACE.search(re.sub(r"\x1b\[\d*m|\x00", "", text)))


def _dress(text: str, chance: random.Random) -> str:
    dress: Callable[[int, str], str] = chance.choice(
        (
            lambda _n, line: f"> {line}",
            lambda n, line: f"{n}:{line}",
            lambda n, line: f"{n:6d}\t{line}",
            lambda _n, line: f"+{line}",
            lambda _n, line: f"\x1b[32m{line}\x1b[0m",
            lambda _n, line: line.replace(" ", "\xa0"),
            lambda _n, line: line.replace(":", " ="),
            lambda _n, line: line.upper(),
            lambda _n, line: f"| {line} |",
            lambda _n, line: f'"{line}"',
            lambda _n, line: f"[out] {line}",
            lambda _n, line: "\x00".join(line),
            lambda _n, line: f"    {line}",
            lambda _n, line: f"node1: {line}",
        )
    )
    return "".join(dress(n, line) + "\n" for n, line in enumerate(text.splitlines(), start=1))


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text) + 1)]


def _mangle(text: str, chance: random.Random) -> str:
    """Return *text* with a few lines or characters gone, doubled or changed."""
    lines = text.splitlines(keepends=True)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines)) if lines else 0
        match chance.randrange(4):
            case 0 if lines:
                del lines[at]
            case 1 if lines:
                lines.insert(at, lines[at])
            case 2 if lines:
                half = chance.randrange(len(lines[at]) + 1)
                lines[at] = f"{lines[at][:half]}\n{lines[at][half:]}"
            case _:
                chance.shuffle(lines)
    return "".join(lines)


# What tells of an affected CPU in lines that are no form of ours.
NOTATIONS = (
    "tdx: kexec: Not allowed on platform with tdx_pw_mce bug",
    "bugs: spectre_v1 spectre_v2 tdx_pw_mce",
    "mce: [Hardware Error]: PROCESSOR 0:806f8 TIME 1764000000 SOCKET 0 APIC 0 microcode 2b000590",
    "PROCESSOR 0:c06f2",
    "microcode: sig=0x806f8, pf=0x10, revision=0x2b000590",
    "smpboot: CPU0: Intel(R) Xeon(R) Gold 6430 (fam: 06, model: 8f, stepping: 08)",
    "Family 6, Model 143",
    "        Signature: Type 0, Family 6, Model 143, Stepping 8",
    "        ID: F8 06 08 00 FF FB EB BF",
    "Family: 6 Model: 143 Stepping: 8",
    "CPU Family: 6, CPU Model: 207",
    "(XEN) CPU Vendor: Intel, Family 6 (0x6), Model 143 (0x8f), Stepping 8 (raw 000806f8)",
    "eax in: 0x00000001, eax = 000c06f2 ebx = 00800800 ecx = 7ffefbff edx = bfebfbff",
    "      version: 6.143.8",
    '  Model: 6.207.2 "INTEL(R) XEON(R) PLATINUM 8558"',
    "CPUID(1): family:model:stepping 0x6:8f:8 (6:143:8) microcode 0x2b000590",
    "      <signature family='6' model='143'/>",
    '"cpu_family": 6, "cpu_model": 143, "stepping": 8',
    "| family | 6 | model | 143 |",
    "<tr><td>CPU family</td><td>6</td></tr><tr><td>Model</td><td>207</td></tr>",
    "intel-ucode/06-8f-08: revision 0x2b000590",
    "cpuid : GenuineIntel-6-8F-8",
    "DisplayFamily_DisplayModel 06_8FH",
    "    family: 6 model-id: 0x8F (143) stepping: 8",
    "      (family synth)  = 0x6 (6)\n      (model synth)   = 0x8f (143)",
)


# What people, grep and loggers put where lines were.
CUTS = (
    *(
        "...",
        "[...]",
        "[snip]",
        "<snip>",
        "<cut>",
        "(truncated)",
        " \u22ee ",
        "\u2026",
        "--",
        "-- ",
    ),
    *("-- Reboot --", "-- Boot 0123456789abcdef --", "** 12 printk messages dropped **", "~", "//"),
    *("[    0.200000] ** 734 printk messages dropped **", "[    0.200000] [snip]", "```", "/* */"),
    *("[    0.200000] ...", "(120 lines omitted)", "some lines removed", "etc.", "-----8<-----"),
    "[    0.900000] ACPI: later than the line that follows",
    "Nov 22 11:49:00 node2 kernel: [    0.200000] ACPI: bus type PCI registered",
    "Nov 22 11:49:00 node1 systemd-journald[400]: Missed 42 kernel messages",
    "node2: [    0.200000] ACPI: bus type PCI registered",
    "imklog: 243 messages lost due to rate-limiting",
)


def _noted(text: str, chance: random.Random) -> str:
    """Return *text* with a line of another machine before, in or behind it."""
    lines = text.splitlines(keepends=True)
    lines.insert(chance.choice((0, len(lines), chance.randrange(len(lines)))), _note(chance))
    return "".join(lines)


def _note(chance: random.Random) -> str:
    note = chance.choice(NOTATIONS)
    if chance.random() < 0.3:
        note = chance.choice((note.upper(), note.lower(), f"> {note}", f"# {note}", f"  {note}"))
    return f"{note}\n"


def cut_log(chance: random.Random) -> str:
    """Return the log of an unaffected boot of which something may be missing before CPU0."""
    lines = _log(GNR).splitlines()
    lines.insert(chance.randint(1, 2), chance.choice(CUTS))
    return "\n".join(lines) + "\n"


def _recoded(text: str, chance: random.Random) -> str:
    """Return what a reader of UTF-8 sees of *text* in another encoding."""
    codec = chance.choice(("utf-16-le", "utf-16-be", "utf-16", "utf-32-le"))
    return text.encode(codec).decode("utf-8", "replace")


# The kinds of inputs; what is not listed is a whole host.
_KINDS = 11


class Input(NamedTuple):
    """A text, and what is known of it beside what is in it.

    ``unsafe``: it must not get 0 or 12.  ``late``: its end stands for one that
    comes after what a text is recognised by.
    """

    text: str
    unsafe: bool = False
    late: bool = False


def mutant(chance: random.Random) -> Input:
    """Return one input: a whole host, or two mixed and mangled."""
    first, second = chance.choice(FORMS), chance.choice(FORMS)
    text = first(GNR)
    match chance.randrange(_KINDS):
        case 0:
            return Input(text + _cut(second(SPR), chance))
        case 1:
            return Input(text + _dress(second(SPR), chance))
        case 2:
            return Input(second(SPR) + text)
        case 3:
            return Input(_mangle(text + second(SPR), chance))
        case 4:
            return Input(_dress(second(SPR), chance) + text)
        case 5:
            return Input(_cut(first(SPR), chance))
        case 6:
            return Input(_noted(text, chance), unsafe=True)
        case 7:
            return Input(cut_log(chance), unsafe=True)
        case 8:
            appended = chance.choice((second(SPR), _note(chance)))
            return Input(text + _recoded(appended, chance), unsafe=True, late=True)
        case _:
            return Input(chance.choice(WHOLE)(GNR))


class Found(NamedTuple):
    """An answer that the oracle refuses."""

    why: str
    text: str


def status_of(text: str, *, late: bool = False) -> int:
    """Return the exit status that `check --from` gives *text*."""
    form = recognise(text)
    if form is None or ("\0" in text[:65536] and not late):
        return 3
    try:
        return int(decide(read_host(files_of(text, "x", form), symbols=False)).verdict.exit_status)
    except TdxReclaimError as error:
        return int(error.exit_status)


def campaign(count: int, seed: int) -> Iterator[tuple[int, Found | None]]:
    """Yield the status of each of *count* inputs, and what is wrong with it."""
    for number in range(count):
        text, unsafe, late = mutant(random.Random(f"{seed}-{number}"))
        status = status_of(text, late=late)
        found = None
        if status in _SAFE and (unsafe or is_affected(text)):
            found = Found(f"{status} with an affected CPU, or a part missing", text)
        elif text in _WHOLE and status != 0:
            found = Found(f"{status} for a whole unaffected host", text)
        yield status, found


def _tagged(model: int) -> str:
    """Return the log as a journal shows it."""
    return "".join(
        f"Nov 22 11:49:00 node1 kernel: {line[15:]}\n" for line in _log(model).splitlines()
    )


def _iso(model: int) -> str:
    return "".join(
        f"2026-11-22T11:49:00+0000 node1 kernel: {line}\n" for line in _log(model).splitlines()
    )


def _journal_json(model: int) -> str:
    return "".join(
        f'{{"_TRANSPORT":"kernel","_HOSTNAME":"node1","__MONOTONIC_TIMESTAMP":"{number}",'
        f'"MESSAGE":"{line[15:]}"}}\n'
        for number, line in enumerate(_log(model).splitlines(), start=7)
    )


def _quoted_log(model: int) -> str:
    return "".join(f"> {line}\n" for line in _log(model).splitlines())


WHOLE = (*FORMS, _tagged, _iso, _journal_json, _quoted_log)
_WHOLE = frozenset(form(GNR) for form in WHOLE)


def main() -> None:
    """Run the campaign at length."""
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    statuses: Counter[int] = Counter()
    wrong = 0
    began = time.monotonic()
    for status, found in campaign(count, seed):
        statuses[status] += 1
        if found is not None:
            wrong += 1
            if wrong <= 20:
                print(f"{found.why}:\n{found.text!r}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{count} inputs, seed {seed}, {time.monotonic() - began:.0f} s, {peak} MiB: {wrong} wrong"
    )
    print(dict(sorted(statuses.items())))


if __name__ == "__main__":
    main()
