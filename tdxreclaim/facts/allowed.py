"""What a capture keeps of a CPU's listings and of sysfs: known fields, values of known forms.

Of each line that goes a placeholder stays that reads alike (a field of no
interest, or a line that is none), so that line numbers and gaps stay.  A
listing whose filtered form would read otherwise is left out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts import places
from tdxreclaim.facts.formats import cpuid, cpuinfo, lscpu
from tdxreclaim.facts.formats.paste import SIGNS, is_harmless

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.cpu import CpuReading

_GONE = "scrubbed"


_NUMBERS = re.compile(r"[-+]?[\d.,x-]{1,80}|0x[0-9a-fA-F]{1,16}", re.ASCII)


_SIZES = re.compile(
    r"[\d.]{1,20} ?(?:KB|MB|MHz|[KM]iB(?: \(\d{1,5} instances?\))?|4K pages)"
    r"|\d{1,3} bits physical, \d{1,3} bits virtual|yes|no",
    re.ASCII,
)


# The vendor of CPUID has twelve letters.
_VENDOR = re.compile(r"[A-Za-z/0-9]{1,12}", re.ASCII)


_BRAND = re.compile(
    r"(?=.*(?:Intel|Xeon|AMD|EPYC|QEMU|KVM|Neoverse|Cortex))"
    r"(?:(?:Genuine|Intel\(R\)|Xeon\(R\)|Core\(TM\)|AMD|EPYC|QEMU|KVM|Common|Virtual|CPU|@|Gold"
    r"|Silver|Bronze|Platinum|Max|Ultra|Processor|processor|version|ARM|Neoverse|Cortex|\d\d?-Core"
    r"|[\d.]{1,5}GHz|[A-Z]{0,3}\d{4}[A-Z0-9+]{0,5}|[A-Z]\d{1,3}|[\d.]{1,6}\+?|\(?R?\)?)(?:\s+|$))+",
    re.IGNORECASE | re.ASCII,
)


_WORDS = re.compile(r"(?:[\w.+-]{1,32}(?:\s+|$))*", re.ASCII)


_WORD_KEYS = frozenset(
    ("flags", "bugs", "vmx flags", "Flags", "Features", "features", "isa", "power management")
)


# Of other architectures what tells which one it is.
# Source: linux arch/*/kernel, show_cpuinfo().
_OTHERS = frozenset(
    (
        *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
        *(
            "Processor",
            "BogoMIPS",
            "Features",
            "features",
            "bogomips per cpu",
            "hart",
            "isa",
            "mmu",
        ),
        *("CPU Family", "system type", "cpu model", "platform", "revision", "cpucaps"),
        *("# processors", "cpu", "clock", "machine"),
    )
)


_LSCPU = frozenset(
    (
        *("Architecture", "CPU op-mode(s)", "Byte Order", "Address sizes", "CPU(s)"),
        *("On-line CPU(s) list", "Vendor ID", "Model name", "CPU family", "Model", "Stepping"),
        *("Thread(s) per core", "Core(s) per socket", "Core(s) per cluster", "Socket(s)"),
        *("CPU MHz", "CPU max MHz", "CPU min MHz", "BogoMIPS", "Flags", "Virtualization"),
        *("Hypervisor vendor", "Virtualization type", "NUMA node(s)", "NUMA", "L1d", "L1i"),
        *("L2", "L3", "L1d cache", "L1i cache", "L2 cache", "L3 cache", "Caches (sum of all)"),
        *("Virtualization features", "Vulnerabilities"),
    )
)


_OF_WORDS = re.compile(
    r"|x86_64|i[3-6]86|amd64|aarch64|armv[78]l|s390x|ppc64(?:le)?|riscv64|loongarch64|mips64|sparc64"
    r"|(?:32-bit|64-bit)(?:, 64-bit)?|(?:Little|Big) Endian|VT-x|AMD-V|full|para|KVM|VMware|Xen"
    r"|Microsoft|QEMU|IBM/S390|sv\d\d|PowerNV|\d+ \(.{0,8}\)",
    re.ASCII,
)


def _value(key: str, value: str) -> str:
    """Return *value* if it is of a form that its key has."""
    if key in _WORD_KEYS:
        return value if _WORDS.fullmatch(value) else _GONE
    forms = [_NUMBERS, _SIZES, _OF_WORDS]
    if key in ("vendor_id", "Vendor ID"):
        forms.append(_VENDOR)
    if key.lower() == "model name":
        forms.append(_BRAND)
    return value if any(form.fullmatch(value) for form in forms) else _GONE


def _line(number: int, line: str, known: frozenset[str]) -> str:
    key, colon, value = line.partition(":")
    if not line.strip():
        return line
    name = key.strip()
    if colon and name in known:
        stripped = value.strip()
        at = line.index(":") + 1 + len(value) - len(value.lstrip())
        return line if _value(name, stripped) == stripped else f"{line[:at]}{_GONE}"
    if colon and known is _LSCPU and lscpu.is_field(key, value):
        return f"Other: {_GONE}"
    if colon and cpuinfo._ORDINARY_KEY.fullmatch(name) and not SIGNS.search(line):  # noqa: SLF001
        # Within one processor no key comes twice.
        return f"other {number}: {_GONE}"
    if not colon and line[:1].isspace() and _WORDS.fullmatch(line.strip()):
        return line
    return f"# {_GONE}" if is_harmless(line) else f"!{_GONE}"


def _listing(text: str, known: frozenset[str]) -> str:
    ended = re.split(r"(\r?\n)", text)
    return "".join(
        each if number % 2 else _line(number, each, known) for number, each in enumerate(ended)
    )


_CPUINFO = cpuinfo._KNOWN | _OTHERS  # noqa: SLF001


def _cpuinfo(text: str) -> str:
    return _listing(text, _CPUINFO)


def _lscpu(text: str) -> str:
    return _listing(text, _LSCPU)


def _lscpu_json(text: str) -> str:
    try:
        document = json.loads(text)
        fields = list(_flat(document["lscpu"]))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return ""
    return json.dumps({"lscpu": fields}, indent=3) + "\n"


def _flat(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in entries:
        field = str(entry.get("field"))
        name = field.strip().removesuffix(":")
        data = entry.get("data")
        if name in _LSCPU:
            shown = _value(name, data.strip()) if isinstance(data, str) else None
            found.append({"field": field, "data": shown})
        else:
            found.append({"field": "Other:", "data": _GONE})
        found += _flat(entry.get("children") or [])
    return found


# Leaves that identify: 3 (the serial number), 4000_0000 and 8000_0002 on (names).
_LEAVES = re.compile(r"[ \t]*(?:0x|CPUID )0000000[017]\b", re.IGNORECASE)


def _cpuid(text: str) -> str:
    def kept(line: str) -> str:
        row = cpuid._RAW.match(line) or cpuid._LISTED.match(line)  # noqa: SLF001
        if row:
            return row[0] if _LEAVES.match(line) else ""
        if not line.strip() or cpuid._HEAD.fullmatch(line):  # noqa: SLF001
            return line
        return "CPUID 00000000" if cpuid._LIKE_A_ROW.search(line) else ""  # noqa: SLF001

    return "\n".join(kept(line) for line in text.split("\n"))


def _reading(parse: Callable[[str], CpuReading], text: str) -> CpuReading | None:
    try:
        return parse(text)
    except MalformedInputError:
        return None


def _alike(filtered: CpuReading | None, whole: CpuReading | None) -> bool:
    if filtered is None or whole is None:
        return filtered is whole
    return (
        filtered.architecture == whole.architecture
        and filtered.groups == whole.groups
        and filtered.flags == whole.flags
        and filtered.bugs == whole.bugs
        and (filtered.hypervisor, filtered.movdir64b) == (whole.hypervisor, whole.movdir64b)
        and bool(filtered.gaps) == bool(whole.gaps)
    )


def _if_alike(
    change: Callable[[str], str], parse: Callable[[str], CpuReading]
) -> Callable[[str], str | None]:
    def filtered(text: str) -> str | None:
        kept = change(text)
        return kept if _alike(_reading(parse, kept), _reading(parse, text)) else None

    return filtered


def _of_form(form: str) -> Callable[[str], str | None]:
    pattern = re.compile(form, re.ASCII)
    return lambda text: text if pattern.fullmatch(text.strip()) else None


_RESOURCE = re.compile(r"(\S+)( +(?:\d{1,20}|max))\s*", re.ASCII)


def _resources(text: str) -> str | None:
    """Return misc.capacity or misc.current with the names of the resources that are known."""
    kept = ""
    for line in text.splitlines():
        match = _RESOURCE.fullmatch(line)
        if match is None:
            return None
        name = match[1] if match[1] in ("tdx", "sev", "sev_es") else "other"
        kept += f"{name}{match[2]}\n"
    return kept


_SWITCH = _of_form(r"[YyNn01]")


_LIST = _of_form(r"[\d,-]{1,4000}")


LISTINGS: dict[str, Callable[[str], str | None]] = {
    places.CPUINFO: _if_alike(_cpuinfo, cpuinfo.parse_cpuinfo),
    places.LSCPU: _if_alike(_lscpu, lscpu.parse_lscpu),
    places.LSCPU_JSON: _if_alike(_lscpu_json, lscpu.parse_lscpu_json),
    places.CPUID: _if_alike(_cpuid, cpuid.parse_cpuid),
}
"""By path what a capture keeps of a text; ``None``: it cannot be kept without more."""


STATE: dict[str, Callable[[str], str | None]] = {
    places.KVM_PARAMETER: _SWITCH,
    places.MISC_CAPACITY: _resources,
    "sys/fs/cgroup/misc.current": _resources,
    places.MODULE_VERSION: _of_form(r"\d{1,5}(?:\.\d{1,5}){1,3}"),
    "sys/module/kvm_intel/parameters/ept": _SWITCH,
    "sys/module/kvm_intel/parameters/enable_apicv": _SWITCH,
    "sys/module/kvm/parameters/tdp_mmu": _SWITCH,
    "sys/module/kvm/parameters/enable_virt_at_load": _SWITCH,
    "sys/devices/system/node/online": _LIST,
    "sys/devices/system/cpu/online": _LIST,
}
"""The same of what the kernel says of its state."""
