"""What one access does to one line: the read and write truth tables.

Theory.  The memory controller marks each line written with a private HKID
(TD Owner bit) and, in Ci, stores a MAC with it.  Nothing is checked on a
write of a full line; damage shows at a later read.  A read with a private
HKID of a line that no TD owns, or (Ci) whose MAC does not fit, poisons the
line.  Poison is sticky: every read of it is a machine check, until a write of
the full line replaces it, and bad hardware is not replaced by that either.
What a shared KeyID reads of a line that a TD owns is zeros in Li; in Ci the
sources contradict each other.

Rules.  A ``Rule`` is a row of the table; ``RULES`` cover every access to
every line exactly once (tested), so their order means nothing.  The erratum
is ``QUIRK_TDX_PW_MCE``, the other reading of the contested cell
``OWNED_READS_POISON``: rows laid over the table, replacing the cells they
name and no others.  What an access does depends on them nowhere else.

Limits.  One MAC bit a line: which private key it was made with is not kept.
Platforms with an access control table (ACT) check otherwise; they are not here.

Sources.  The prose of sections 16.2.2 to 16.2.4 of the TDX Module Base
Architecture Specification, in a Chinese translation; its Tables 16.2 and 16.3
are pictures there, and their cells were not read.  The mails, commits and the
unofficial note that the rows name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, assert_never

from tdxreclaim.engine.states import LINES, Dirty, Health, Line, table256
from tdxreclaim.tables.errata import PW_MCE
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterable


class Mode(StrEnum):
    """How the platform protects private memory; BIOS decides."""

    LI = "Li"
    """Logical integrity: encryption and a TD Owner bit a line."""
    CI = "Ci"
    """Cryptographic integrity: Li and a 28-bit MAC a line."""


class Key(StrEnum):
    """The kind of KeyID an access uses."""

    SHARED = "shared"
    """A shared KeyID without integrity; KeyID 0 is one, and the only one Linux uses."""
    SHARED_INTEGRITY = "shared-integrity"
    TD = "td"
    """The TD's private HKID."""
    GLOBAL = "global"
    """The TDX module's own private HKID."""


PRIVATE = frozenset({Key.TD, Key.GLOBAL})


SHARED = frozenset({Key.SHARED, Key.SHARED_INTEGRITY})


DIRTY_UNDER = {Key.SHARED: Dirty.SHARED, Key.TD: Dirty.TD, Key.GLOBAL: Dirty.GLOBAL}


class Op(StrEnum):
    """What is done to a line."""

    READ = "read"
    FULL_WRITE = "full-write"
    """MOVDIR64B: 64 bytes reach memory at once, past the cache."""
    PARTIAL_WRITE = "partial-write"
    """Less than a line reaches memory: MOVNTI, an uncached store, a short DMA."""
    CACHED_WRITE = "cached-write"
    """An ordinary store: the cache has it, memory does not yet."""
    WRITE_BACK = "write-back"
    """The cache gives up its copy under this KeyID, by itself or by WBINVD."""


class Seen(StrEnum):
    """What the reader got."""

    NOTHING = "nothing"
    """It was a write."""
    DATA = "data"
    ZEROS = "zeros"
    POISON = "poison"
    """Poison was consumed: #MC."""


class Effect(StrEnum):
    """What happens to the line in memory."""

    KEEP = "nothing changes"
    POISON = "poisoned (integrity)"
    WRITE = "owner and MAC become the writer's, integrity poison goes"
    WRITE_POISONED = "owner becomes the writer's, hardware poison stays"
    DIRTY = "the cache holds it under this KeyID, memory is as it was"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A row: the accesses and lines it is about, and what follows.

    ``None`` in a condition means "whichever".
    """

    name: str
    op: Op
    keys: frozenset[Key]
    modes: frozenset[Mode] = frozenset(Mode)
    owner: bool | None = None
    health: frozenset[Health] = frozenset(Health)
    cached: bool | None = None
    """Whether the cache holds the line under the very KeyID of the access."""
    seen: Seen
    effect: Effect
    certainty: Certainty
    source: str

    def covers(self, mode: Mode, key: Key, line: Line) -> bool:
        """Whether the row is about this access to this line (the operation aside)."""
        return (
            mode in self.modes
            and key in self.keys
            and line.health in self.health
            and self.owner in (None, line.owner)
            and self.cached in (None, line.dirty is DIRTY_UNDER.get(key))
        )


_SOUND = frozenset({Health.MAC_UNFIT, Health.MAC_FITS})


_POISONED = frozenset({Health.POISON_INTEGRITY, Health.POISON_HARDWARE})


_HARDWARE = frozenset({Health.POISON_HARDWARE})


_CURABLE = frozenset(Health) - _HARDWARE


_UNFIT = frozenset({Health.MAC_UNFIT})


_FITS = frozenset({Health.MAC_FITS})


_ALL = frozenset(Key)


_KEY0 = frozenset({Key.SHARED})


_SHARED_INTEGRITY = frozenset({Key.SHARED_INTEGRITY})


_LI = frozenset({Mode.LI})


_CI = frozenset({Mode.CI})


_PROSE = "TDX base architecture specification, prose of 16.2.2 to 16.2.4 (in translation)"


_NOTE = 'Artem Bityutskiy, "TDX Hardware Layers" v0.5 of 9 November 2026 (an unofficial note)'


_DAVE = "Dave Hansen on 20250618120806.113884-3-adrian.hunter@intel.com"


_CACHE = "model: one copy a line, tagged with its KeyID, not snooped under another"


_SKIP = "linux 01fb93a363e0 (x86/tdx: Skip clearing reclaimed pages ...)"


_QUIRK = "linux 1e536e106897 (x86/cpu: Detect TDX partial write machine check erratum)"


_READ_HALF = "a partial write reads the rest of the line first; what that meets, as in a read"


RULES = (
    Rule(
        name="read-cached",
        op=Op.READ, keys=_ALL, cached=True,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.ASSUMED, source=_CACHE,
    ),
    Rule(
        name="read-poisoned-private",
        op=Op.READ, keys=PRIVATE, health=_POISONED, cached=False,
        seen=Seen.POISON, effect=Effect.KEEP, certainty=Certainty.VERIFIED,
        source=_PROSE,
    ),
    Rule(
        name="read-poisoned-shared",
        op=Op.READ, keys=SHARED, health=_POISONED, cached=False,
        seen=Seen.POISON, effect=Effect.KEEP, certainty=Certainty.INFERRED,
        source=f"{_PROSE}: poison 'may' be returned outside SEAM; taken as returned",
    ),
    Rule(
        name="read-keyid0-host-line-li",
        op=Op.READ, keys=_KEY0, modes=_LI, owner=False, health=_SOUND, cached=False,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.VERIFIED,
        source=_PROSE,
    ),
    Rule(
        name="read-keyid0-host-line-ci",
        op=Op.READ, keys=_KEY0, modes=_CI, owner=False, health=_SOUND, cached=False,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.INFERRED,
        source=f"{_SKIP}: KeyID 0 has no integrity, so that no MAC is looked at",
    ),
    Rule(
        name="read-keyid0-owned-line-li",
        op=Op.READ, keys=_KEY0, modes=_LI, owner=True, health=_SOUND, cached=False,
        seen=Seen.ZEROS, effect=Effect.KEEP, certainty=Certainty.VERIFIED,
        source=f"{_PROSE}; {_NOTE}",
    ),
    Rule(
        name="read-keyid0-owned-line-ci",
        op=Op.READ, keys=_KEY0, modes=_CI, owner=True, health=_SOUND, cached=False,
        seen=Seen.ZEROS, effect=Effect.KEEP, certainty=Certainty.CONTESTED,
        source=f"zeros: {_PROSE}; {_SKIP}. Poison: {_NOTE}",
    ),
    Rule(
        name="read-shared-integrity-li",
        op=Op.READ, keys=_SHARED_INTEGRITY, modes=_LI, owner=False, health=_SOUND,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.INFERRED,
        source=_PROSE,
    ),
    Rule(
        name="read-shared-integrity-mac-fits",
        op=Op.READ, keys=_SHARED_INTEGRITY, modes=_CI, owner=False, health=_FITS,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.INFERRED,
        source=_PROSE,
    ),
    Rule(
        name="read-shared-integrity-mac-unfit",
        op=Op.READ, keys=_SHARED_INTEGRITY, modes=_CI, owner=False, health=_UNFIT,
        seen=Seen.POISON, effect=Effect.POISON, certainty=Certainty.INFERRED,
        source=_PROSE,
    ),
    Rule(
        name="read-shared-integrity-owned-line-li",
        op=Op.READ, keys=_SHARED_INTEGRITY, modes=_LI, owner=True, health=_SOUND,
        seen=Seen.ZEROS, effect=Effect.KEEP, certainty=Certainty.VERIFIED,
        source=f"{_PROSE}; {_NOTE}",
    ),
    Rule(
        name="read-shared-integrity-owned-line-ci",
        op=Op.READ, keys=_SHARED_INTEGRITY, modes=_CI, owner=True, health=_SOUND,
        seen=Seen.POISON, effect=Effect.POISON, certainty=Certainty.CONTESTED,
        source=f"poison (the worse one is taken): {_NOTE}. Zeros: {_PROSE}",
    ),
    Rule(
        name="read-private-li",
        op=Op.READ, keys=PRIVATE, modes=_LI, owner=True, health=_SOUND, cached=False,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.INFERRED,
        source=f"{_PROSE}; whose data is not looked at",
    ),
    Rule(
        name="read-private-mac-fits",
        op=Op.READ, keys=PRIVATE, modes=_CI, owner=True, health=_FITS, cached=False,
        seen=Seen.DATA, effect=Effect.KEEP, certainty=Certainty.VERIFIED,
        source=_PROSE,
    ),
    Rule(
        name="read-private-mac-unfit",
        op=Op.READ, keys=PRIVATE, modes=_CI, owner=True, health=_UNFIT, cached=False,
        seen=Seen.POISON, effect=Effect.POISON, certainty=Certainty.VERIFIED,
        source=_PROSE,
    ),
    Rule(
        name="read-private-not-owned",
        op=Op.READ, keys=PRIVATE, owner=False, health=_SOUND, cached=False,
        seen=Seen.POISON, effect=Effect.POISON, certainty=Certainty.VERIFIED,
        source=f"{_PROSE}; {_NOTE}",
    ),
    Rule(
        name="full-write-keyid0-converts",
        op=Op.FULL_WRITE, keys=_KEY0, health=_CURABLE,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.VERIFIED,
        source=f"{_PROSE}; {_DAVE}",
    ),
    Rule(
        name="full-write-converts",
        op=Op.FULL_WRITE, keys=_ALL - _KEY0, health=_CURABLE,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.INFERRED,
        source=_PROSE,
    ),
    Rule(
        name="full-write-hardware-poison",
        op=Op.FULL_WRITE, keys=_ALL, health=_HARDWARE,
        seen=Seen.NOTHING, effect=Effect.WRITE_POISONED, certainty=Certainty.INFERRED,
        source=f"{_DAVE}: the poison stays; whose the line is then, nobody says",
    ),
    Rule(
        name="partial-write-keyid0-converts",
        op=Op.PARTIAL_WRITE, keys=_KEY0, health=_SOUND,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.VERIFIED,
        source=f"{_SKIP}: 'typically', any write converts the page",
    ),
    Rule(
        name="partial-write-poisoned",
        op=Op.PARTIAL_WRITE, keys=_ALL, health=_POISONED,
        seen=Seen.NOTHING, effect=Effect.KEEP, certainty=Certainty.VERIFIED,
        source=f"{_PROSE}; {_NOTE}",
    ),
    Rule(
        name="partial-write-private-li",
        op=Op.PARTIAL_WRITE, keys=PRIVATE, modes=_LI, owner=True, health=_SOUND,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-private-mac-fits",
        op=Op.PARTIAL_WRITE, keys=PRIVATE, modes=_CI, owner=True, health=_FITS,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-private-mac-unfit",
        op=Op.PARTIAL_WRITE, keys=PRIVATE, modes=_CI, owner=True, health=_UNFIT,
        seen=Seen.NOTHING, effect=Effect.POISON, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-private-not-owned",
        op=Op.PARTIAL_WRITE, keys=PRIVATE, owner=False, health=_SOUND,
        seen=Seen.NOTHING, effect=Effect.POISON, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-shared-integrity-li",
        op=Op.PARTIAL_WRITE, keys=_SHARED_INTEGRITY, modes=_LI, health=_SOUND,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-shared-integrity-mac-fits",
        op=Op.PARTIAL_WRITE, keys=_SHARED_INTEGRITY, modes=_CI, owner=False, health=_FITS,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-shared-integrity-mac-unfit",
        op=Op.PARTIAL_WRITE, keys=_SHARED_INTEGRITY, modes=_CI, owner=False, health=_UNFIT,
        seen=Seen.NOTHING, effect=Effect.POISON, certainty=Certainty.INFERRED,
        source=_READ_HALF,
    ),
    Rule(
        name="partial-write-shared-integrity-owned-ci",
        op=Op.PARTIAL_WRITE, keys=_SHARED_INTEGRITY, modes=_CI, owner=True, health=_SOUND,
        seen=Seen.NOTHING, effect=Effect.POISON, certainty=Certainty.CONTESTED,
        source=f"{_READ_HALF}; the worse one is taken",
    ),
    Rule(
        name="cached-write",
        op=Op.CACHED_WRITE, keys=_ALL - _SHARED_INTEGRITY,
        seen=Seen.NOTHING, effect=Effect.DIRTY, certainty=Certainty.ASSUMED, source=_CACHE,
    ),
    Rule(
        name="cached-write-through",
        op=Op.CACHED_WRITE, keys=_SHARED_INTEGRITY, health=_CURABLE,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.ASSUMED, source=_CACHE,
    ),
    Rule(
        name="cached-write-through-hardware-poison",
        op=Op.CACHED_WRITE, keys=_SHARED_INTEGRITY, health=_HARDWARE,
        seen=Seen.NOTHING, effect=Effect.WRITE_POISONED, certainty=Certainty.ASSUMED,
        source=_CACHE,
    ),
    Rule(
        name="write-back",
        op=Op.WRITE_BACK, keys=_ALL, health=_CURABLE, cached=True,
        seen=Seen.NOTHING, effect=Effect.WRITE, certainty=Certainty.INFERRED, source=_PROSE,
    ),
    Rule(
        name="write-back-hardware-poison",
        op=Op.WRITE_BACK, keys=_ALL, health=_HARDWARE, cached=True,
        seen=Seen.NOTHING, effect=Effect.WRITE_POISONED, certainty=Certainty.INFERRED,
        source=_DAVE,
    ),
    Rule(
        name="write-back-nothing",
        op=Op.WRITE_BACK, keys=_ALL, cached=False,
        seen=Seen.NOTHING, effect=Effect.KEEP, certainty=Certainty.ASSUMED, source=_CACHE,
    ),
)  # fmt: skip


QUIRK_TDX_PW_MCE = (
    Rule(
        name=PW_MCE,
        op=Op.PARTIAL_WRITE, keys=SHARED, owner=True, health=_SOUND,
        seen=Seen.NOTHING, effect=Effect.POISON, certainty=Certainty.VERIFIED, source=_QUIRK,
    ),
)  # fmt: skip
"""Sapphire and Emerald Rapids: a partial write to a TD-owned line poisons it, silently."""


OWNED_READS_POISON = (
    Rule(
        name="read-keyid0-owned-line-ci-poisons",
        op=Op.READ, keys=_KEY0, modes=_CI, owner=True, health=_SOUND, cached=False,
        seen=Seen.POISON, effect=Effect.POISON, certainty=Certainty.CONTESTED,
        source=f"poison: {_NOTE}. Zeros: {_PROSE}; {_SKIP}",
    ),
)  # fmt: skip
"""The other reading of what KeyID 0 meets on a TD-owned line in Ci."""


def outcome(rule: Rule, mode: Mode, key: Key, line: Line) -> Line:
    """The line after *rule* happened to it through *key*."""
    under = DIRTY_UNDER.get(key)
    written = Health.MAC_FITS if mode is Mode.CI and key is not Key.SHARED else Health.MAC_UNFIT
    # MOVDIR64B and a write-back leave no copy under their own KeyID; a copy
    # under another KeyID is another cache line, and stays.
    left = line.dirty
    if line.dirty is under and rule.op in (Op.FULL_WRITE, Op.WRITE_BACK):
        left = Dirty.NONE
    match rule.effect:
        case Effect.KEEP:
            return line
        case Effect.POISON:
            return line._replace(health=Health.POISON_INTEGRITY)
        case Effect.WRITE:
            return Line(key in PRIVATE, written, left)
        case Effect.WRITE_POISONED:
            return Line(key in PRIVATE, line.health, left)
        case Effect.DIRTY:
            # There is room for one copy.  A private one is the dangerous one
            # (written back late, it takes the line for the TD again): it stays.
            keeps = line.dirty in (Dirty.TD, Dirty.GLOBAL) and line.dirty is not under
            return line if keeps or under is None else line._replace(dirty=under)
        case _:
            assert_never(rule.effect)


@dataclass(frozen=True, slots=True)
class LineTable:
    """One access as three look-ups over the 32 line codes, and one over 256 page codes."""

    after: bytes
    """Line code to line code."""
    seen: tuple[Seen, ...]
    rules: tuple[Rule, ...]
    pages: bytes
    """Page code to page code: the access done to all 64 lines, whatever the page's use."""
    poisons: bytes
    """Page code to 1 where the access consumes poison, 0 elsewhere."""


def rule_for(op: Op, mode: Mode, key: Key, line: Line, rules: Iterable[Rule]) -> Rule:
    """The one rule that covers this access.

    Raises:
        LookupError: none does, or several do; the table itself is wrong.
    """
    found = [rule for rule in rules if rule.op is op and rule.covers(mode, key, line)]
    if len(found) != 1:
        raise LookupError(f"{op} {mode} {key} {line}: {len(found)} rules")
    return found[0]


@cache
def tables(
    mode: Mode, *, erratum: bool, owned_reads_poison: bool = False
) -> dict[tuple[Op, Key], LineTable]:
    """Every access on this platform, as look-ups.

    *owned_reads_poison* takes the contested cell as `OWNED_READS_POISON` has it.
    """
    overlay: tuple[Rule, ...] = QUIRK_TDX_PW_MCE if erratum else ()
    overlay += OWNED_READS_POISON if owned_reads_poison else ()
    built = {}
    for op, key in product(Op, Key):
        after, seen, rules = bytearray(), [], []
        for state in LINES:
            line = state
            if mode is Mode.LI and line.health is Health.MAC_FITS:
                line = line._replace(health=Health.MAC_UNFIT)
            base = rule_for(op, mode, key, line, RULES)
            rule = next((x for x in overlay if x.op is op and x.covers(mode, key, line)), base)
            after.append(outcome(rule, mode, key, line).code)
            seen.append(rule.seen)
            rules.append(rule)
        built[op, key] = LineTable(
            bytes(after),
            tuple(seen),
            tuple(rules),
            table256(bytes(after)),
            bytes(seen[code & 31] is Seen.POISON for code in range(256)),
        )
    return built
