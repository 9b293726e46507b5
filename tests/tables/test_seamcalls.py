"""Leaf numbers and status names, written a second time: a wrong digit stands in one place only."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tdxreclaim.tables.seamcalls import Operand, Status, name_leaf, name_status

SHARED = Path(__file__).parents[3] / "shared"

# linux v7.3 arch/x86/virt/vmx/tdx/tdx.h
LEAVES = """
0 VP.ENTER, 1 MNG.ADDCX, 2 MEM.PAGE.ADD, 3 MEM.SEPT.ADD, 4 VP.ADDCX, 6 MEM.PAGE.AUG,
7 MEM.RANGE.BLOCK, 8 MNG.KEY.CONFIG, 9 MNG.CREATE, 10 VP.CREATE, 11 MNG.RD, 16 MR.EXTEND,
17 MR.FINALIZE, 18 VP.FLUSH, 19 MNG.VPFLUSHDONE, 20 MNG.KEY.FREEID, 21 MNG.INIT, 22 VP.INIT,
24 PHYMEM.PAGE.RDMD, 26 VP.RD, 28 PHYMEM.PAGE.RECLAIM, 29 MEM.PAGE.REMOVE, 31 SYS.KEY.CONFIG,
33 SYS.INIT, 34 SYS.RD, 35 SYS.LP.INIT, 36 SYS.TDMR.INIT, 38 MEM.TRACK, 40 PHYMEM.CACHE.WB,
41 PHYMEM.PAGE.WBINVD, 43 VP.WR, 45 SYS.CONFIG, 52 SYS.SHUTDOWN, 53 SYS.UPDATE, 69 SYS.DISABLE
"""


@pytest.mark.parametrize("row", LEAVES.split(","), ids=str.strip)
def test_a_leaf_has_its_number(row: str) -> None:
    number, name = row.split()

    assert name_leaf(number) == f"TDH.{name}"
    assert name_leaf(f"{int(number) | 1 << 16:#x}") == f"TDH.{name}", "a later version of it"


def _table(name: str) -> list[dict[str, str]]:
    if not (SHARED / name).is_file():
        pytest.skip(f"no {name} beside the checkout")
    with (SHARED / name).open(newline="") as text:
        return list(csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_modules_own_numbers_agree() -> None:
    rows = [row for row in _table("module-statuses.tsv") if row["number"].isdigit()]

    assert {(r["number"], name_leaf(r["number"])) for r in rows} == {
        (r["number"], r["leaf"]) for r in rows
    }


def test_every_status_and_operand_of_the_module_has_its_number() -> None:
    rows = _table("module-codes.tsv")
    statuses = {row["name"]: int(row["hex"], 16) for row in rows if row["kind"] == "status"}
    operands = {row["name"]: int(row["hex"], 16) for row in rows if row["kind"] == "operand"}
    ours = {status.name: status.value & (1 << 64) - 1 for status in Status}

    assert {name: ours.get(name) for name in statuses} == statuses
    # 0 is RAX, and what a status without an operand has.
    assert operands.pop("RAX") == Operand.NONE
    # By name: two of one number would be one operand.
    named = {name: one.value for name, one in Operand.__members__.items() if one}
    assert named.items() <= operands.items()


def test_a_status_is_named_with_its_operand() -> None:
    assert name_status("0xc000030000000001").startswith("TDX_PAGE_METADATA_INCORRECT")
    assert name_status("0xc000030000000001").endswith("RCX")
