"""Policy decisions about clearing reclaimed Intel TDX private pages.

The layers, left to right, each importing only from its left: ``errors``,
``facts`` (reads a host), ``policy`` (what follows), ``engine`` (what would
happen), ``report`` (how it is said), ``cli``.
"""

__version__ = "0.1.0"
