"""The truth tables against a second model, cell by cell, and by hand."""

from dataclasses import dataclass
from itertools import product

import pytest

from tdxreclaim.engine.states import LINES, PAGES, Dirty, Health, Line, PageType, Use
from tdxreclaim.engine.truth import (
    OWNED_READS_POISON,
    QUIRK_TDX_PW_MCE,
    RULES,
    SHARED,
    Effect,
    Key,
    Mode,
    Op,
    Seen,
    rule_for,
    tables,
)
from tdxreclaim.tables.sources import Certainty

PLATFORMS = [(mode, erratum) for mode in Mode for erratum in (False, True)]


def reachable(mode: Mode) -> tuple[Line, ...]:
    """Return the line states that can occur; Li has no MAC that could fit."""
    return tuple(x for x in LINES if mode is Mode.CI or x.health is not Health.MAC_FITS)


@dataclass
class Cell:
    """A line in other words: who wrote it, what the memory controller would find."""

    writer: str  # "td" or "host"
    mac_good: bool
    bad: str  # "", "mismatch" or "broken"
    cached_by: str  # "", "keyid0", "td" or "module"

    @classmethod
    def of(cls, line: Line) -> "Cell":
        return cls(
            writer="td" if line.owner else "host",
            mac_good=line.health is Health.MAC_FITS,
            bad={Health.POISON_INTEGRITY: "mismatch", Health.POISON_HARDWARE: "broken"}.get(
                line.health, ""
            ),
            cached_by=["", "keyid0", "td", "module"][line.dirty],
        )

    def line(self) -> Line:
        if self.bad:
            health = Health.POISON_HARDWARE if self.bad == "broken" else Health.POISON_INTEGRITY
        else:
            health = Health.MAC_FITS if self.mac_good else Health.MAC_UNFIT
        dirty = Dirty(["", "keyid0", "td", "module"].index(self.cached_by))
        return Line(self.writer == "td", health, dirty)

    def store(self, who: str, *, ci: bool) -> None:
        self.writer = "td" if who in ("td", "module") else "host"
        if self.bad != "broken":
            self.bad = ""
            self.mac_good = ci and who != "keyid0"

    def do(self, op: Op, who: str, *, ci: bool, affected: bool) -> str:
        """Do it; what was seen."""
        inside = who in ("td", "module")
        hit = self.cached_by == who
        if op is Op.READ:
            return self.read(who, inside=inside, hit=hit, ci=ci)
        if op is Op.FULL_WRITE:
            self.store(who, ci=ci)
            if hit:
                self.cached_by = ""
        elif op is Op.PARTIAL_WRITE:
            if not self.bad:
                if (affected and self.writer == "td" and not inside) or (
                    who != "keyid0" and not self.sound_to(who, ci=ci)
                ):
                    self.bad = "mismatch"
                else:
                    self.store(who, ci=ci)
        elif op is Op.CACHED_WRITE:
            if who == "other":
                self.store(who, ci=ci)
            elif self.cached_by not in ("td", "module"):
                self.cached_by = who
        elif hit:
            self.store(who, ci=ci)
            self.cached_by = ""
        return "nothing"

    def read(self, who: str, *, inside: bool, hit: bool, ci: bool) -> str:
        if hit:
            return "data"
        if not self.bad:
            if not inside and self.writer == "td" and (who == "keyid0" or not ci):
                return "zeros"
            if self.sound_to(who, ci=ci):
                return "data"
            self.bad = "mismatch"
        return "poison"

    def sound_to(self, who: str, *, ci: bool) -> bool:
        """Whether the controller lets *who* read the line, or the rest of it."""
        if who == "keyid0" or (who == "other" and not ci):
            return True
        theirs = (self.writer == "td") == (who != "other")
        return theirs and (self.mac_good or not ci)


WHO = {Key.SHARED: "keyid0", Key.SHARED_INTEGRITY: "other", Key.TD: "td", Key.GLOBAL: "module"}


@pytest.mark.parametrize(("mode", "erratum"), PLATFORMS)
def test_every_access_to_every_line_agrees_with_the_second_model(mode: Mode, erratum: bool) -> None:
    table = tables(mode, erratum=erratum)

    for op, key, line in product(Op, Key, reachable(mode)):
        cell = Cell.of(line)
        seen = cell.do(op, WHO[key], ci=mode is Mode.CI, affected=erratum)
        where = f"{op} {key} {line}"
        assert LINES[table[op, key].after[line.code]] == cell.line(), where
        assert table[op, key].seen[line.code] == seen, where
        assert LINES[table[op, key].after[line.code]] in reachable(mode), where


@pytest.mark.parametrize("mode", Mode)
def test_every_access_is_covered_by_exactly_one_rule(mode: Mode) -> None:
    for op, key, line in product(Op, Key, reachable(mode)):
        rule_for(op, mode, key, line, RULES)


def test_two_rules_for_one_access_are_refused() -> None:
    with pytest.raises(LookupError, match="2 rules"):
        rule_for(Op.READ, Mode.LI, Key.SHARED, LINES[0], (*RULES, *RULES))


def test_every_rule_decides_some_access_and_says_where_it_was_read() -> None:
    used = {
        rule.name
        for mode, erratum in PLATFORMS
        for cell in tables(mode, erratum=erratum).values()
        for rule in cell.rules
    }

    assert used == {rule.name for rule in (*RULES, *QUIRK_TDX_PW_MCE)}
    assert all(rule.source for rule in (*RULES, *QUIRK_TDX_PW_MCE, *OWNED_READS_POISON))


def test_the_contested_cell_is_one_and_its_other_reading_changes_nothing_else() -> None:
    for mode, erratum in PLATFORMS:
        zeros = tables(mode, erratum=erratum)
        poison = tables(mode, erratum=erratum, owned_reads_poison=True)
        differing = {
            (op, key, line.owner)
            for op, key, line in product(Op, Key, reachable(mode))
            if zeros[op, key].seen[line.code] != poison[op, key].seen[line.code]
            or zeros[op, key].after[line.code] != poison[op, key].after[line.code]
        }
        assert differing == ({(Op.READ, Key.SHARED, True)} if mode is Mode.CI else set())
    contested = {rule.name for rule in RULES if rule.certainty is Certainty.CONTESTED}
    assert contested == {
        "read-keyid0-owned-line-ci",
        "read-shared-integrity-owned-line-ci",
        "partial-write-shared-integrity-owned-ci",
    }


def test_a_partial_write_converts_verified_for_keyid_0_alone() -> None:
    converting = [
        rule for rule in RULES if rule.op is Op.PARTIAL_WRITE and rule.effect is Effect.WRITE
    ]
    verified = [rule.keys for rule in converting if rule.certainty is Certainty.VERIFIED]

    assert verified == [{Key.SHARED}]
    assert len(converting) > 1


def test_the_erratum_changes_partial_writes_through_shared_keys_to_owned_lines_and_nothing_else() -> (
    None
):
    for mode in Mode:
        plain, quirk = tables(mode, erratum=False), tables(mode, erratum=True)
        differing = {
            (op, key, line.owner)
            for op, key, line in product(Op, Key, reachable(mode))
            if plain[op, key].after[line.code] != quirk[op, key].after[line.code]
            or plain[op, key].seen[line.code] != quirk[op, key].seen[line.code]
        }
        # In Ci a key with integrity poisons such a line without the erratum too.
        keys = {Key.SHARED} if mode is Mode.CI else SHARED
        assert differing == {(Op.PARTIAL_WRITE, key, True) for key in keys}


def owned(health: Health) -> Line:
    return Line(True, health, Dirty.NONE)


def hosts(health: Health) -> Line:
    return Line(False, health, Dirty.NONE)


# The read table of the specification, row by row.
READS = [
    ("host line", Key.SHARED, hosts(Health.MAC_UNFIT), "data verified", "data inferred"),
    ("owned line", Key.SHARED, owned(Health.MAC_FITS), "zeros verified", "zeros contested"),
    (
        "integrity key, no MAC",
        Key.SHARED_INTEGRITY,
        hosts(Health.MAC_UNFIT),
        "data inferred",
        "poison inferred",
    ),
    (
        "integrity key, owned",
        Key.SHARED_INTEGRITY,
        owned(Health.MAC_FITS),
        "zeros verified",
        "poison contested",
    ),
    ("TD, MAC fits", Key.TD, owned(Health.MAC_FITS), "data inferred", "data verified"),
    ("TD, MAC fails", Key.TD, owned(Health.MAC_UNFIT), "data inferred", "poison verified"),
    ("TD, not owned", Key.TD, hosts(Health.MAC_UNFIT), "poison verified", "poison verified"),
    *(
        (f"{who}, {name}", key, line, f"poison {known}", f"poison {known}")
        for who, key, known in (
            ("KeyID 0", Key.SHARED, "inferred"),
            ("TD", Key.TD, "verified"),
        )
        for name, line in (
            ("integrity poison", owned(Health.POISON_INTEGRITY)),
            ("hardware poison", hosts(Health.POISON_HARDWARE)),
        )
    ),
]


@pytest.mark.parametrize(
    ("key", "line", "li", "ci"), [r[1:] for r in READS], ids=[r[0] for r in READS]
)
def test_read_cell(key: Key, line: Line, li: str, ci: str) -> None:
    for mode, expected in ((Mode.LI, li), (Mode.CI, ci)):
        cell = tables(mode, erratum=True)[Op.READ, key]
        assert f"{cell.seen[line.code]} {cell.rules[line.code].certainty}" == expected


@pytest.mark.parametrize("mode", Mode)
def test_a_private_read_of_a_host_line_leaves_poison_and_keyid_0_leaves_none(mode: Mode) -> None:
    table = tables(mode, erratum=False)

    after = LINES[table[Op.READ, Key.TD].after[hosts(Health.MAC_UNFIT).code]]
    assert after.health is Health.POISON_INTEGRITY
    for line in reachable(mode):
        assert table[Op.READ, Key.SHARED].after[line.code] == line.code


WRITES = [
    ("MOVDIR64B converts", Op.FULL_WRITE, owned(Health.MAC_FITS), hosts(Health.MAC_UNFIT)),
    (
        "MOVDIR64B cures integrity poison",
        Op.FULL_WRITE,
        owned(Health.POISON_INTEGRITY),
        hosts(Health.MAC_UNFIT),
    ),
    (
        "MOVDIR64B does not cure hardware",
        Op.FULL_WRITE,
        owned(Health.POISON_HARDWARE),
        hosts(Health.POISON_HARDWARE),
    ),
    (
        "a partial write poisons",
        Op.PARTIAL_WRITE,
        owned(Health.MAC_UNFIT),
        owned(Health.POISON_INTEGRITY),
    ),
    (
        "a partial write to a host line",
        Op.PARTIAL_WRITE,
        hosts(Health.MAC_UNFIT),
        hosts(Health.MAC_UNFIT),
    ),
    (
        "poison is sticky to partial writes",
        Op.PARTIAL_WRITE,
        owned(Health.POISON_INTEGRITY),
        owned(Health.POISON_INTEGRITY),
    ),
]


@pytest.mark.parametrize(
    ("op", "line", "after"), [r[1:] for r in WRITES], ids=[r[0] for r in WRITES]
)
def test_write_cell_through_keyid_0_with_the_erratum(op: Op, line: Line, after: Line) -> None:
    cell = tables(Mode.CI, erratum=True)[op, Key.SHARED]

    assert LINES[cell.after[line.code]] == after
    assert cell.seen[line.code] is Seen.NOTHING


def test_without_the_erratum_a_partial_write_converts() -> None:
    cell = tables(Mode.CI, erratum=False)[Op.PARTIAL_WRITE, Key.SHARED]

    assert LINES[cell.after[owned(Health.MAC_FITS).code]] == hosts(Health.MAC_UNFIT)


def test_codes_and_states_are_each_other() -> None:
    assert [line.code for line in LINES] == list(range(32))
    assert [page.code for page in PAGES] == list(range(256))
    assert {use.page_type for use in Use} == set(PageType)
    assert {str(each) for each in Certainty} == {
        "verified",
        "inferred",
        "assumed",
        "contested",
        "unverified",
    }
