"""kvm-intel.ko: what it takes from the core, and whether it clears by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tdxreclaim.errors import MalformedInputError
from tdxreclaim.facts.images.elf import Elf, Symbol
from tdxreclaim.facts.images.parts import KernelPart, Module
from tdxreclaim.tables.errata import HONOURING

if TYPE_CHECKING:
    from typing import BinaryIO

# 66 [REX] 0F 38 F8 /r, of which the operand is in memory.  SDM vol. 2, MOVDIR64B.
_MOVDIR64B = re.compile(rb"\x66[\x40-\x4f]?\x0f\x38\xf8[\x00-\xbf]", re.DOTALL)


# 66 0F 01 CF.  SDM vol. 2, SEAMCALL.
_SEAMCALL = b"\x66\x0f\x01\xcf"


# What takes a TD's pages back in KVM, in every generation.
_RECLAIMS = ("__tdx_reclaim_page", "tdx_reclaim_", "tdx_vm_destroy", "tdx_vm_free", "tdx_mmu_")


_KVM_INTEL = "kvm_intel"


def read_module(file: BinaryIO, name: str) -> KernelPart:
    """Return what the kvm-intel.ko in *file* tells.

    Raises:
        MalformedInputError: it is another module, damaged or cut short.

    """
    elf = Elf(file, name)
    info = elf.modinfo()
    if "vermagic" not in info:
        raise MalformedInputError(name, "damaged, or not a kernel module: no vermagic in it")
    if info.get("name", _KVM_INTEL) != _KVM_INTEL:
        raise MalformedInputError(name, f"the module {info['name']!r}, not kvm_intel")
    symbols = elf.symbols()
    if not symbols:
        raise MalformedInputError(name, "it has no symbol table, without which no kernel loads it")
    imports = {symbol.name for symbol in symbols if not symbol.defined}
    clears, seamcalls = 0, False
    for code in elf.code():
        clears += len(_MOVDIR64B.findall(code))
        seamcalls = seamcalls or _SEAMCALL in code
    content = Module(
        tdh_imports=sum(each.startswith("tdh_") for each in imports),
        resets=tuple(each for each in HONOURING if each in imports),
        clears=clears,
        seamcalls=seamcalls or any(each.strip("_").startswith("seamcall") for each in imports),
        reclaims=_reclaims(symbols),
        build_id=elf.build_id(),
    )
    return KernelPart(name, info["vermagic"].split(" ")[0] or None, content)


def _reclaims(symbols: list[Symbol]) -> bool:
    return any(symbol.defined and symbol.name.startswith(_RECLAIMS) for symbol in symbols)
