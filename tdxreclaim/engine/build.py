"""The memory of a TD and its pages, before anything is torn down."""

from __future__ import annotations

from tdxreclaim.engine.module import Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.plan import Action, Plan
from tdxreclaim.engine.recorder import Recorder
from tdxreclaim.engine.reuse import Aftermath
from tdxreclaim.engine.shape import Shape
from tdxreclaim.engine.states import PAGE_BYTES, PAGES, USE_SHIFT, Dirty, Health, Line, Page, Use
from tdxreclaim.engine.teardown import Host
from tdxreclaim.engine.truth import Mode
from tdxreclaim.errors import MalformedInputError


def initial_page(use: Use, mode: Mode) -> Page:
    """A page of a TD as the teardown finds it.

    Every line counts as changed in the cache and not yet in memory: the most
    that a cache can hold back, so that a missing flush shows.
    """
    fits = Health.MAC_FITS if mode is Mode.CI else Health.MAC_UNFIT
    return Page(use, Line(True, fits, Dirty.GLOBAL if use is Use.TDR else Dirty.TD))


def build(
    shape: Shape,
    platform: Platform,
    states: bytes | bytearray | memoryview | None = None,
    partition: bytes | None = None,
) -> Machine:
    """A machine with one TD of this shape, all pages in place.

    *states* gives each guest page a state of its own (``states.Page.code``);
    it is not copied and must not be changed while the machine lives.
    *partition* is ``memory.PageStore.load``'s.

    Raises:
        MalformedInputError: *states* is not a byte for each guest page, or
            holds one that is not a guest page's.
    """
    pages = PageStore(shape.pages, 0)
    for span, use in shape.uses():
        pages.fill(span.start, span.stop, initial_page(use, platform.mode).code)
    if states is not None:
        if len(states) != shape.guest_pages:
            raise MalformedInputError("states", f"expected {shape.guest_pages}, got {len(states)}")
        pages.load(0, states, partition)
        if pages.plain_count(0, shape.guest_pages, _NOT_GUEST)[1]:
            strange = pages.plain_find(0, shape.guest_pages, _NOT_GUEST, 1)
            raise MalformedInputError("states", f"[{strange[0]}]: not a guest page's state")
    return Machine(platform, pages, vcpus=shape.vcpus, base_pfn=shape.base_pfn)


_NOT_GUEST = bytes(Use(code >> USE_SHIFT) not in (Use.MAPPED, Use.BLOCKED) for code in range(256))


_GUEST = bytes(code for code in range(256) if not _NOT_GUEST[code])


def foresee(plan: Plan, platform: Platform, *, fatal: bool) -> bytes:
    """Classes of states that come to the same in all that a simulation asks.

    Found by a rehearsal with one page of each state.  Class 0 is no guest
    page's.
    """
    shape = Shape(memory_bytes=len(_GUEST) * PAGE_BYTES, vcpus=1)
    machine = build(shape, platform, _GUEST)
    machine.td.fatal = fatal
    host = Host(machine, shape, plan, prices=dict.fromkeys(Action, 0))
    host.tear_down()
    after = Aftermath(machine, host.kept_out, Recorder(), 0)
    after.hazards()
    after.use(())
    questions = {tuple(asked[code] for code in _GUEST) for asked in machine.pages.asked}
    questions = {answers for answers in questions if len(set(answers)) > 1}
    kinds = [tuple(answers[i] for answers in questions) for i in range(len(_GUEST))]
    if len(set(kinds)) > len(questions) + 2:
        # Cheaper to ask again than to count so many classes: the use will do.
        kinds = [(PAGES[code].use,) for code in _GUEST]
    number = {kind: i for i, kind in enumerate(dict.fromkeys(kinds), start=1)}
    classes = bytearray(256)
    for code, kind in zip(_GUEST, kinds, strict=True):
        classes[code] = number[kind]
    return bytes(classes)
