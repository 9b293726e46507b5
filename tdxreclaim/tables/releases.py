"""How the release of a kernel is written, and which upstream release it is."""

from __future__ import annotations

import re
from typing import NamedTuple


class Version(NamedTuple):
    """An upstream release: 6.18 is ``(6, 18)``."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Return ``6.18``."""
        return f"{self.major}.{self.minor}"


def spell_span(first: Version, last: Version) -> str:
    """Return releases in words.

    >>> spell_span(Version(6, 16), Version(6, 17)), spell_span(Version(6, 18), Version(7, 1))
    ('6.16 and 6.17', '6.18 to 7.1')
    """
    if first == Version(0, 0):
        return f"up to {last}"
    if first == last:
        return str(first)
    return f"{first} {'and' if last == (first.major, first.minor + 1) else 'to'} {last}"


class Release(NamedTuple):
    """A release string taken apart: ``6.18.2-1.fc43`` is 6.18, ``2`` and ``-1.fc43``."""

    series: Version
    third: str | None
    candidate: str | None
    """``rc7``."""
    rest: str
    """What its builder added: anything may be on top of upstream then."""

    def __str__(self) -> str:
        """Return the whole string."""
        return f"{self.base}{self.rest}"

    @property
    def base(self) -> str:
        """Return it without what its builder added."""
        third = f".{self.third}" if self.third else ""
        return f"{self.series}{third}" + (f"-{self.candidate}" if self.candidate else "")


_RELEASE = re.compile(
    r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?(?!\d)(?:-(rc\d{1,4})(?!\d))?(.*)", re.ASCII | re.DOTALL
)


def split_release(text: str) -> Release | None:
    """Return the release that *text* begins with, ``None`` if it begins with none.

    >>> split_release("6.18.2-1.fc43").base, split_release("the kernel")
    ('6.18.2', None)
    """
    match = _RELEASE.match(text)
    if match is None:
        return None
    major, minor, third, candidate, rest = match.groups()
    return Release(Version(int(major), int(minor)), third, candidate, rest)


def release_series(release: str | None) -> Version | None:
    """Return the series that a release string names first, whoever built it; ``None`` if none.

    >>> release_series("6.18.2-1.fc43"), release_series("the kernel")
    (Version(major=6, minor=18), None)
    """
    parsed = split_release(release or "")
    return parsed.series if parsed else None


def upstream_version(release: str) -> Version | None:
    """Return the upstream release of a release string, ``None`` if it is not plainly one.

    >>> upstream_version("6.18.2"), upstream_version("6.17.0-5-generic")
    (Version(major=6, minor=18), None)
    """
    # kernel.org releases, candidates among them.  Whatever else stands in the
    # string ("-generic", "+", "-00123-gabcdef") may be anything on top.
    parsed = split_release(release)
    if parsed is None or parsed.rest:
        return None
    version = parsed.series
    return None if version.minor > _LAST_MINOR.get(version.major, _MOST) else version


# 6.19 was the last of its series: no kernel.org release is called 6.20.
_LAST_MINOR = {3: 19, 4: 20, 5: 19, 6: 19}


_MOST = 9_999
