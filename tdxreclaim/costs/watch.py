"""All VMs that are watched together, and what is left over of the global count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.costs.watched import Watched
from tdxreclaim.facts.kvm.counters import Life
from tdxreclaim.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdxreclaim.facts.kvm.counters import Look, Vm

# All counters are not read at one moment: so much may lie between them.
_BETWEEN_READS = 0.02
_FEW_PAGES = 512


class Stated(NamedTuple):
    """What the user says of the TD."""

    memory_bytes: int
    vcpus: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A VM, and what its counter does."""

    vm: Vm
    watched: Watched
    stated: Stated | None

    @property
    def td(self) -> str | None:
        """How it is known to be a TD."""
        return "stated with --td" if self.stated else self.vm.td

    @property
    def memory_bytes(self) -> int | None:
        """The TD's memory: as stated, by its command line, or as counted before its pages went."""
        size = self.watched.size_pages
        known = self.stated.memory_bytes if self.stated else self.vm.memory_bytes
        return known or (None if size is None else size * PAGE_BYTES)

    @property
    def vcpus(self) -> int | None:
        """Its vCPUs."""
        return (self.stated.vcpus if self.stated else None) or self.vm.vcpus


class Watch:
    """The VMs that were asked for, from look to look."""

    def __init__(
        self,
        only: str | None = None,
        *,
        stated: Stated | None = None,
        patience: float = 30.0,
        failures_stay: bool | None = None,
    ) -> None:
        self._only = only
        self._stated = stated
        self._patience = patience
        self.failures_stay = failures_stay
        """Whether a page whose removal fails does not count down: 7.2 and later; None: unknown."""
        self.followed: dict[str, Followed] = {}
        self.began: float | None = None
        self.look: Look | None = None
        self._known: dict[str, Vm] = {}
        self._hidden = self._hidden_before = 0

    @property
    def known(self) -> dict[str, Vm]:
        """All VMs that were seen, those that nobody asked for included."""
        return self._known

    @property
    def seconds(self) -> float:
        """Since the first look."""
        return 0.0 if self.look is None or self.began is None else self.look.at - self.began

    @property
    def hidden_pages(self) -> int:
        """Pages of VMs without a folder: a reused name gets none."""
        return self._hidden

    def see(self, look: Look, describe: Callable[[str], Vm]) -> None:
        """Take a look in."""
        self.began = look.at if self.began is None else self.began
        self.look = look
        for name in look.pages:
            vm = self._known.get(name)
            # Told again while its process is there, as vCPUs come late; kept when it is gone.
            alive = look.lives.get(name) in (Life.ALIVE, Life.UNKNOWN)
            if vm is None or (alive and (vm.pid is None or vm.vcpus is None)):
                self._known[name] = vm = describe(name)
                if name in self.followed:
                    self.followed[name] = replace(self.followed[name], vm=vm)
            if name not in self.followed and self._wanted(vm):
                self._follow(vm)
        for name, each in self.followed.items():
            each.watched.see(
                look.at,
                look.pages.get(name),
                look.lives.get(name, Life.UNKNOWN),
                broken=look.broken is not None,
            )
        self._hidden = self._count_hidden(look)

    def _wanted(self, vm: Vm) -> bool:
        return self._only is None or self._only in (vm.name, str(vm.pid), vm.name.split("-")[0])

    def _follow(self, vm: Vm) -> None:
        stated = self._stated
        known = stated.memory_bytes if stated else vm.memory_bytes if vm.td else None
        watched = Watched(
            size_pages=None if known is None else known // PAGE_BYTES, patience=self._patience
        )
        self.followed[vm.name] = Followed(vm=vm, watched=watched, stated=stated)

    def _count_hidden(self, look: Look) -> int:
        if look.total is None:
            return 0
        over = look.total - sum(look.pages.values())
        now = over if over > max(_FEW_PAGES, _BETWEEN_READS * look.total) else 0
        # Twice in a row: once may be a VM that grows or goes between two reads.
        shown = min(now, self._hidden_before)
        self._hidden_before = now
        return shown

    @property
    def over(self) -> bool:
        """Whether nothing is left to wait for: all are gone, or stuck."""
        return all(
            each.watched.state.ended or each.watched.stuck for each in self.followed.values()
        )

    @property
    def stuck(self) -> tuple[Followed, ...]:
        """Those whose counter should fall and has stood for the stated time."""
        return tuple(each for each in self.followed.values() if each.watched.stuck)

    @property
    def failed(self) -> tuple[Followed, ...]:
        """TDs that went with pages in the counter, on a kernel where those may be failed ones."""
        return tuple(
            each
            for each in self.followed.values()
            if self.failures_stay and each.td and each.watched.left_behind
        )
