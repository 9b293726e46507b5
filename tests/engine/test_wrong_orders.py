"""Leaves in the wrong order: the status that the module's source returns, to the bit."""

import pytest

from tdxreclaim.engine.module import Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import Dirty, Health, Line, PageState, Use
from tdxreclaim.tables.modulechecks import CHECKS
from tdxreclaim.tables.seamcalls import Leaf
from tdxreclaim.tables.sources import Certainty

PAGES = {
    "mapped": Use.MAPPED,
    "blocked": Use.BLOCKED,
    "ept": Use.EPT,
    "tdcx": Use.TDCX,
    "tdvpr": Use.TDVPR,
    "tdr": Use.TDR,
    "nda": Use.NDA,
    "rsvd": Use.RSVD,
}
LEAVES = {leaf.spelling.removeprefix("TDH."): leaf for leaf in Leaf}

FLUSHED = "VP.FLUSH; MNG.VPFLUSHDONE"
FREED = f"{FLUSHED}; PHYMEM.CACHE.WB; MNG.KEY.FREEID"
GONE = "; ".join(
    [FREED, *(f"PHYMEM.PAGE.RECLAIM {page}" for page in PAGES if page not in ("nda", "rsvd"))]
)
BLOCKED = "MEM.RANGE.BLOCK mapped"
REMOVED = f"{BLOCKED}; MEM.TRACK; MEM.PAGE.REMOVE mapped"

OK = 0
BUSY_WITH_NOTHING = 0x0000082100000000  # NO_HKID_READY_TO_WBCACHE
ALREADY_BLOCKED = 0x00000B0700000001
NO_KEYS = 0x8000081000000000
CACHES_LEFT = 0x8000081700000000
VCPUS_LEFT = 0x8000082400000000
NOT_ASSOCIATED = 0x8000070200000000
METADATA = 0xC000030000000001
METADATA_RDX = 0xC000030000000002
PAGES_LEFT = 0xC000040000000000
LIFECYCLE = 0xC000060700000000
NOT_BLOCKED = 0xC0000B0600000001
NOT_TRACKED = 0xC0000B0800000001
ENTRY_STATE = 0xC0000B0D00000001
FATAL = 0xE000060400000000

# What happened before ("FATAL": a machine check hit the TD), the call, its RAX.
ORDERS = [
    ("", "MEM.RANGE.BLOCK mapped", OK),
    ("", "MEM.RANGE.BLOCK blocked", ALREADY_BLOCKED),
    (BLOCKED, "MEM.RANGE.BLOCK mapped", ALREADY_BLOCKED),
    (REMOVED, "MEM.RANGE.BLOCK mapped", ENTRY_STATE),
    (FLUSHED, "MEM.RANGE.BLOCK mapped", NO_KEYS),
    (FREED, "MEM.RANGE.BLOCK mapped", NO_KEYS),
    ("FATAL", "MEM.RANGE.BLOCK mapped", FATAL),
    (f"{FLUSHED}; FATAL", "MEM.RANGE.BLOCK mapped", FATAL),
    (GONE, "MEM.RANGE.BLOCK mapped", METADATA_RDX),
    ("", "MEM.TRACK", OK),
    (FLUSHED, "MEM.TRACK", NO_KEYS),
    ("FATAL", "MEM.TRACK", FATAL),
    (GONE, "MEM.TRACK", METADATA),
    ("", "MEM.PAGE.REMOVE mapped", NOT_BLOCKED),
    (BLOCKED, "MEM.PAGE.REMOVE mapped", NOT_TRACKED),
    (f"MEM.TRACK; {BLOCKED}", "MEM.PAGE.REMOVE mapped", NOT_TRACKED),
    (REMOVED, "MEM.PAGE.REMOVE mapped", ENTRY_STATE),
    (FLUSHED, "MEM.PAGE.REMOVE blocked", NO_KEYS),
    (FREED, "MEM.PAGE.REMOVE blocked", NO_KEYS),
    ("FATAL", "MEM.PAGE.REMOVE blocked", FATAL),
    (GONE, "MEM.PAGE.REMOVE mapped", METADATA_RDX),
    ("", "PHYMEM.PAGE.WBINVD mapped", METADATA),
    ("", "PHYMEM.PAGE.WBINVD tdr", METADATA),
    ("", "PHYMEM.PAGE.WBINVD rsvd", METADATA),
    ("", "PHYMEM.PAGE.WBINVD nda", OK),
    (FREED, "PHYMEM.PAGE.WBINVD nda", OK),
    ("FATAL", "PHYMEM.PAGE.WBINVD nda", OK),
    ("VP.FLUSH", "VP.FLUSH", NOT_ASSOCIATED),
    (FLUSHED, "VP.FLUSH", NO_KEYS),
    (FREED, "VP.FLUSH", NO_KEYS),
    ("FATAL", "VP.FLUSH", OK),
    (f"{FREED}; PHYMEM.PAGE.RECLAIM tdvpr", "VP.FLUSH", METADATA),
    ("", "MNG.VPFLUSHDONE", VCPUS_LEFT),
    (FLUSHED, "MNG.VPFLUSHDONE", LIFECYCLE),
    (FREED, "MNG.VPFLUSHDONE", LIFECYCLE),
    ("VP.FLUSH; FATAL", "MNG.VPFLUSHDONE", OK),
    (GONE, "MNG.VPFLUSHDONE", METADATA),
    ("", "PHYMEM.CACHE.WB", BUSY_WITH_NOTHING),
    (FLUSHED, "PHYMEM.CACHE.WB", OK),
    (f"{FLUSHED}; PHYMEM.CACHE.WB", "PHYMEM.CACHE.WB", OK),
    (FREED, "PHYMEM.CACHE.WB", BUSY_WITH_NOTHING),
    ("", "MNG.KEY.FREEID", LIFECYCLE),
    (FLUSHED, "MNG.KEY.FREEID", CACHES_LEFT),
    (FREED, "MNG.KEY.FREEID", LIFECYCLE),
    (GONE, "MNG.KEY.FREEID", METADATA),
    (FREED, "PHYMEM.PAGE.RECLAIM nda", METADATA),
    (FREED, "PHYMEM.PAGE.RECLAIM rsvd", METADATA),
    ("", "PHYMEM.PAGE.RECLAIM mapped", LIFECYCLE),
    (FLUSHED, "PHYMEM.PAGE.RECLAIM mapped", LIFECYCLE),
    ("", "PHYMEM.PAGE.RECLAIM tdr", LIFECYCLE),
    (FREED, "PHYMEM.PAGE.RECLAIM tdr", PAGES_LEFT),
    (FREED, "PHYMEM.PAGE.RECLAIM mapped", OK),
    (f"{FREED}; PHYMEM.PAGE.RECLAIM mapped", "PHYMEM.PAGE.RECLAIM mapped", METADATA),
    (f"FATAL; {FREED}", "PHYMEM.PAGE.RECLAIM mapped", OK),
    (GONE, "PHYMEM.PAGE.RECLAIM tdr", METADATA),
]


def call(machine: Machine, words: str) -> int:
    """Make the call that *words* name; its RAX."""
    name, _, on = words.partition(" ")
    number = list(PAGES).index(on) if on in PAGES else int(on or "0")
    return machine.call(LEAVES[name], number).code


def played(before: str, last: str) -> int:
    line = Line(True, Health.MAC_FITS, Dirty.TD)
    store = PageStore.of((1, PageState(use, line).code) for use in PAGES.values())
    machine = Machine(Platform(erratum=True), store, vcpus=1, tdvprs=[list(PAGES).index("tdvpr")])
    for words in filter(None, before.split("; ")):
        if words == "FATAL":
            machine.td.fatal = True
        else:
            assert call(machine, words) == 0, words
    return call(machine, last)


@pytest.mark.parametrize(("before", "last", "code"), ORDERS)
def test_an_order_gives_its_status(before: str, last: str, code: int) -> None:
    assert f"{played(before, last):#018x}" == f"{code:#018x}"


def test_verified_is_said_of_a_check_only_with_the_function_it_was_read_in() -> None:
    for check in (check for checks in CHECKS.values() for check in checks):
        assert (check.certainty is Certainty.VERIFIED) == check.source.endswith("()"), check
