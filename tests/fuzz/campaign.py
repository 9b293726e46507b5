"""A seeded campaign of mangled captures, with an oracle.

``python tests/fuzz/campaign.py COUNT [SEED]`` runs it at length and prints what
it found.  An affected host stays affected however its capture is cut, mixed
and dressed: it never gets 0 or 12 while a trace of it is in the text.  A whole
unaffected one gets 0 in every form.
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


_NOTHING_DONE = 6


def mutant(chance: random.Random) -> str:
    """Return one input: a whole host, or two mixed and mangled."""
    first, second = chance.choice(FORMS), chance.choice(FORMS)
    text = first(GNR)
    match chance.randrange(_NOTHING_DONE + 1):
        case 0:
            return text + _cut(second(SPR), chance)
        case 1:
            return text + _dress(second(SPR), chance)
        case 2:
            return second(SPR) + text
        case 3:
            return _mangle(text + second(SPR), chance)
        case 4:
            return _dress(second(SPR), chance) + text
        case 5:
            return _cut(first(SPR), chance)
        case _:
            return text


class Found(NamedTuple):
    """An answer that the oracle refuses."""

    why: str
    text: str


def status_of(text: str) -> int:
    """Return the exit status that `check --from` gives *text*."""
    form = recognise(text)
    if form is None or "\0" in text[:65536]:
        return 3
    try:
        return int(decide(read_host(files_of(text, "x", form), symbols=False)).verdict.exit_status)
    except TdxReclaimError as error:
        return int(error.exit_status)


def campaign(count: int, seed: int) -> Iterator[tuple[int, Found | None]]:
    """Yield the status of each of *count* inputs, and what is wrong with it."""
    for number in range(count):
        text = mutant(random.Random(f"{seed}-{number}"))
        status = status_of(text)
        found = None
        if status in _SAFE and is_affected(text):
            found = Found(f"{status} with an affected CPU", text)
        elif text in _WHOLE and status != 0:
            found = Found(f"{status} for a whole unaffected host", text)
        yield status, found


_WHOLE = frozenset(form(GNR) for form in FORMS)


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
