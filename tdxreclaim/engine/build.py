"""The memory of a TD and its pages, before anything is torn down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.engine.module import Machine, Platform
from tdxreclaim.engine.pages import PageStore
from tdxreclaim.engine.states import Dirty, Health, Line, PageState, Use
from tdxreclaim.engine.truth import Mode

if TYPE_CHECKING:
    from tdxreclaim.engine.shape import Shape


def initial_page(use: Use, mode: Mode) -> PageState:
    """A page of a TD as the teardown finds it.

    Every line counts as changed in the cache and not yet in memory: the most
    that a cache can hold back, so that a missing flush shows.
    """
    fits = Health.MAC_FITS if mode is Mode.CI else Health.MAC_UNFIT
    return PageState(use, Line(True, fits, Dirty.GLOBAL if use is Use.TDR else Dirty.TD))


def build(shape: Shape, platform: Platform) -> Machine:
    """A machine with one TD of this shape, all pages in place."""
    pages = PageStore.of(
        (len(span), initial_page(use, platform.mode).code) for span, use in shape.uses()
    )
    return Machine(
        platform,
        pages,
        vcpus=shape.vcpus,
        base_pfn=shape.base_pfn,
        tdvprs=shape.tdvprs,
    )
