"""A timer for the service: at boot, and every hour at a time of each host's own."""

from __future__ import annotations

_UNIT = """\
[Unit]
Description=Metrics about clearing reclaimed TDX pages, every hour
Documentation=man:tdxreclaim-check(1)

[Timer]
OnBootSec=2min
OnUnitActiveSec=1h
RandomizedDelaySec=5min

[Install]
WantedBy=timers.target
"""


def render() -> str:
    """Return the unit."""
    return _UNIT
