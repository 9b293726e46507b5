"""What a ticket, or this host, is read for, and how often."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tdxreclaim.facts import places, ticket
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.sources.base import KERNEL_LOG, Survey
from tdxreclaim.facts.sources.tree import Tree
from tdxreclaim.facts.ticket import TicketReader

HOSTS = Path(__file__).parents[1] / "hosts"


class Machine(Tree):
    """The machine that a tree was captured from, which counts what is read of it."""

    origin = Origin.LIVE

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.asked: Counter[str] = Counter()

    def read(self, path: str) -> str | None:
        self.asked[path] += 1
        return super().read("var/log/dmesg" if path == KERNEL_LOG else path)

    def label(self, path: str) -> str:
        return "/" + path

    def survey(self) -> Survey:
        return Survey()


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(str(HOSTS / request.param))
    monkeypatch.setattr(ticket, "Live", lambda: made)
    monkeypatch.setattr(ticket, "Tree", lambda _root: Tree(str(HOSTS / request.param / "sys")))
    monkeypatch.setattr(ticket, "installed_kernels", lambda: None)
    return made


def _read() -> ticket.Ticket:
    return TicketReader(lambda _path: lambda _event: None).read(())


@pytest.mark.parametrize("machine", ["spr-6.18-active", "gnr-6.17-active"], indirect=True)
def test_triage_of_this_host_reads_kallsyms_once(machine: Machine) -> None:
    facts = _read().facts
    assert facts.symbols.value is not None
    assert facts.symbols.evidence.path == "/proc/kallsyms"
    assert machine.asked[places.KALLSYMS] == 1
    # The log for its findings, and for what it tells of the host.
    assert {path for path, times in machine.asked.items() if times > 1} == {KERNEL_LOG}


@pytest.mark.parametrize("machine", ["spr-5.14-off", "epyc-bare", "spr-guest"], indirect=True)
def test_triage_reads_no_kallsyms_where_nothing_depends_on_it(machine: Machine) -> None:
    assert _read().facts.symbols.evidence.path == "/proc/kallsyms"
    assert machine.asked[places.KALLSYMS] == 0
