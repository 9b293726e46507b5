"""A seeded campaign of tars and trees, with an oracle.

``python tests/fuzz/trees.py COUNT [SEED]`` runs it at length and prints what
it found.  A trace of an affected CPU anywhere in a capture (another host's
folder, a log or listing under another name, packed, nested in an archive,
early or late) keeps the capture from 0 and 12; without one a whole host keeps
its answer, whatever else its files say.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, os.path.dirname(__file__))

# mypy does not see it: it stands beside this file.
import campaign as texts  # type: ignore[import-not-found]

from tdxreclaim.errors import TdxReclaimError
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.sources.recognise import open_capture
from tdxreclaim.policy.decide import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GNR: int = texts.GNR
SPR: int = texts.SPR

_SAFE = (0, 12)
_SLOW_SECONDS = 20.0


def _cooked(model: int) -> str:
    return "".join(
        f'CPU {number}:\n   vendor_id = "GenuineIntel"\n   version information (1/eax):\n'
        f"      processor type  = primary processor (0)\n      family          = 0x6 (6)\n"
        f"      model           = {model & 15:#x} ({model & 15})\n      stepping id     = 0x8 (8)\n"
        f"      extended family = 0x0 (0)\n      extended model  = {model >> 4:#x} ({model >> 4})\n"
        f"      (family synth)  = 0x6 (6)\n      (model synth)   = {model:#x} ({model})\n"
        for number in range(2)
    )


def _messages(model: int) -> str:
    chatter = "Jan  1 00:00:00 node1 systemd[1]: Started Session 1 of user root.\n" * 40
    return chatter + "".join(
        f"Jan  1 00:00:00 node1 kernel: {line.split('] ', 1)[1]}\n"
        for line in str(texts._log(model)).splitlines()
    )


def _journal(model: int) -> str:
    cpu0 = str(texts._log(model)).splitlines()[2].split("] ", 1)[1]
    return '{"_HOSTNAME":"node1","_TRANSPORT":"kernel","MESSAGE":"' + cpu0 + '"}\n'


def _machine_check(model: int) -> str:
    eax = 0x806F8 if model == SPR else 0xA06D1
    return f"[  12.000000] mce: [Hardware Error]: PROCESSOR 0:{eax:x} TIME 1 SOCKET 0 APIC 0\n"


def _flagged(_model: int) -> str:
    return (
        "[    0.000000] Linux version 6.18.2 (gcc) #1 SMP\n"
        "[   12.000000] kexec: Not allowed on platform with tdx_pw_mce bug\n"
    )


class Place(NamedTuple):
    """Where a listing or a log may be found in a capture, and how it looks."""

    path: str
    text: Callable[[int], str]


LISTINGS = (
    Place("proc/cpuinfo", texts._cpuinfo),
    Place("cpuinfo.txt", texts._cpuinfo),
    Place("sos_commands/processor/lscpu", texts._lscpu),
    Place("sos_commands/processor/lscpu_-v", texts._lscpu),
    Place("node1-lscpu", texts._lscpu),
    Place("lscpu.json", texts._lscpu_json),
    Place("sos_commands/processor/lscpu_-J", texts._lscpu_json),
    Place("sos_commands/processor/cpuid_-r", texts._cpuid),
    Place("sos_commands/processor/cpuid_-1_-r", texts._cpuid),
    Place("sos_commands/processor/cpuid", _cooked),
)
LOGS = (
    Place("sos_commands/kernel/dmesg", texts._log),
    Place("sos_commands/kernel/dmesg_-T", texts._log),
    Place("var/log/dmesg", texts._log),
    Place("var/log/dmesg.0", texts._log),
    Place("var/log/messages", _messages),
    Place("var/log/messages-20260101", _messages),
    Place("var/log/kern.log.1", _messages),
    Place("var/log/syslog", _messages),
    Place("sos_commands/logs/journalctl_--no-pager", _messages),
    Place("sos_commands/logs/journalctl_--no-pager_--boot_-1", _messages),
    Place("sos_commands/logs/journalctl_-o_json", _journal),
    Place("sos_strings/logs/var.log.messages.tailed", _messages),
    Place("var/crash/127.0.0.1-2026-01-01/vmcore-dmesg.txt", texts._log),
    Place("var/log/messages", _machine_check),
    Place("var/log/dmesg.old", _flagged),
    Place("var/log/journal/0123/system.journal", _journal),
)

# What every sosreport has and tells of no CPU, or of the same one.
_TABLE = "CPU NODE SOCKET CORE L1d:L1i:L2:L3 ONLINE\n  0    0      0    0 0:0:0:0          yes\n"
HARMLESS = (
    ("sos_commands/processor/lscpu_-ae", _TABLE),
    ("sos_commands/processor/cpupower_info", "analyzing CPU 0:\nperf-bias: 6\n"),
    ("sos_commands/kernel/lsmod", "Module  Size  Used by\nkvm_intel 1 0\n"),
    ("usr/share/doc/util-linux/lscpu", texts._lscpu(SPR)),
    ("usr/share/bash-completion/completions/lscpu", "texts._lscpu() { :; }\n"),
    ("etc/modules-load.d/cpuid.conf", "cpuid\n"),
    (
        "var/log/secure",
        "Jan  1 00:00:00 node1 sudo: root : COMMAND=/bin/grep tdx_pw_mce /proc/cpuinfo\n",
    ),
    (
        "var/log/messages-2",
        "Jan  1 00:00:00 node1 kernel: smpboot: CPU0: Thermal monitoring enabled (TM1)\n",
    ),
    ("proc/cmdline", "BOOT_IMAGE=/vmlinuz kvm_intel.tdx=1\n"),
    ("sos_reports/sos.txt", "processor: lscpu cpuid\n"),
)

_FOLDERS = ("", "b/", "old/b/", "x/y/z/", "a/b/c/d/e/f/", "../", "./b/./", "node 2/")
_PACKERS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("", bytes),
    (".gz", lambda data: gzip.compress(data, 1)),
    (".bz2", bz2.compress),
    (".xz", lambda data: lzma.compress(data, preset=0)),
)


class Case(NamedTuple):
    """A capture: its members in order; whether a trace of an affected CPU is in it."""

    members: tuple[tuple[str, bytes], ...]
    affected: bool
    whole: int | None
    """The only right status, where there is one."""
    packed: str
    cut: int | None


def tar_of(members: tuple[tuple[str, bytes], ...]) -> bytes:
    """Return an archive of *members*."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _nested(name: str, data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return a member with *data* in it, perhaps packed, or in an archive in the archive."""
    ending, pack = chance.choice(_PACKERS)
    if chance.random() < 0.2:
        inner = pack(tar_of(((name, data),)))
        return f"{name.replace('/', '_')}.tar{ending}", inner
    own = name.removesuffix(".journal") != name
    return (name, data) if own else (f"{name}{ending}", pack(data))


def _host(model: int, chance: random.Random) -> list[tuple[str, bytes]]:
    listings = [place for place in LISTINGS if place.path in _TOLD]
    chosen = {chance.choice(listings)} | {p for p in listings if chance.random() < 0.3}
    logs = [place for place in LOGS if place.text is not _flagged and chance.random() < 0.2]
    texts = {place.path: place.text(model).encode() for place in (*chosen, *logs)}
    texts |= {name: text.encode() for name, text in HARMLESS if chance.random() < 0.5}
    return list(texts.items())


_TOLD = (
    *("proc/cpuinfo", "sos_commands/processor/lscpu", "lscpu.json"),
    "sos_commands/processor/cpuid_-r",
)


def case(chance: random.Random) -> Case:
    """Return one capture."""
    prefix = chance.choice(("", "sosreport-node1/"))
    packed = chance.choice(("", ".gz", ".xz", "tree"))
    affected_host = chance.random() < 0.1
    host = _host(SPR if affected_host else GNR, chance)
    chance.shuffle(host)
    members = [(prefix + name, data) for name, data in host]
    affected = affected_host
    if chance.random() < 0.75:
        place = chance.choice(LISTINGS + LOGS)
        folder = chance.choice(_FOLDERS)
        text = _long(place, chance).encode()
        name, data = _nested(folder + place.path, text, chance)
        if chance.random() < 0.5:
            name = prefix + name
        if packed == "tree":
            members = [member for member in members if member[0] != name]
        members.insert(
            chance.choice((0, len(members), chance.randrange(len(members) + 1))), (name, data)
        )
        affected = True
    cut = chance.randrange(1, 1 << 16) if chance.random() < 0.05 else None
    whole = None if affected or cut else 0
    if affected_host and cut is None and len(members) == len(host):
        whole = 10
    return Case(tuple(members), affected, whole, packed, cut)


def _long(place: Place, chance: random.Random) -> str:
    """Return the text of an affected CPU, in a log perhaps far from its ends."""
    text = place.text(SPR)
    if place in LOGS and chance.random() < 0.02:
        chatter = "Jan  1 00:00:00 node1 systemd[1]: Started Session 1 of user root.\n"
        return chatter * chance.randrange(40_000) + text + chatter * chance.randrange(40_000)
    return text


def status_of(made: Case, folder: Path) -> int:
    """Return the exit status that `check --from` gives *made*, laid out in *folder*."""
    path = folder / "capture"
    if made.packed == "tree":
        for name, data in made.members:
            # Of two of one name the later is the file.
            target = path / name.replace("../", "up/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    else:
        data = dict(_PACKERS)[made.packed](tar_of(made.members))
        path.write_bytes(data[: -min(made.cut, len(data) - 1)] if made.cut else data)
    try:
        source = open_capture(str(path)).source
        try:
            return int(decide(read_host(source)).verdict.exit_status)
        finally:
            source.close()
    except TdxReclaimError as error:
        return int(error.exit_status)
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Found(NamedTuple):
    """An answer that the oracle refuses."""

    why: str
    members: tuple[str, ...]


def campaign(count: int, seed: int, folder: Path) -> Iterator[tuple[int, Found | None]]:
    """Yield the status of each of *count* captures, and what is wrong with it."""
    for number in range(count):
        made = case(random.Random(f"trees-{seed}-{number}"))
        began = time.monotonic()
        try:
            status = status_of(made, folder)
        except Exception as error:  # noqa: BLE001  (what it is there to find)
            yield 1, _found(f"{type(error).__name__}: {error}", number, made)
            continue
        why = _wrong(status, made)
        if time.monotonic() - began > _SLOW_SECONDS:
            why = "slow"
        if list(folder.iterdir()):
            why = "something was written"
        yield status, _found(f"{status}: {why}", number, made) if why else None


def _wrong(status: int, made: Case) -> str:
    if status in _SAFE and made.affected and not (made.cut and made.packed != "tree"):
        return "safe, with an affected CPU in it"
    if status in _SAFE and made.cut and made.packed in (".gz", ".xz"):
        return "safe, and cut off"
    if made.whole is not None and status != made.whole:
        return f"not {made.whole}"
    return ""


def _found(why: str, number: int, made: Case) -> Found:
    return Found(f"{why} (number {number}, {made.packed})", tuple(name for name, _ in made.members))


def main() -> None:
    """Run the campaign at length."""
    count = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    statuses: Counter[int] = Counter()
    wrong = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        for status, found in campaign(count, seed, Path(name)):
            statuses[status] += 1
            if found is not None:
                wrong += 1
                if wrong <= 20:
                    print(f"{found.why}:\n{found.members!r}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{count} captures, seed {seed}, {time.monotonic() - began:.0f} s, {peak} MiB: "
        f"{wrong} wrong"
    )
    print(dict(sorted(statuses.items())))


if __name__ == "__main__":
    main()
