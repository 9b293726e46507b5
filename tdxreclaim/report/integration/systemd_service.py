"""A service that writes the metrics once; the timer starts it."""

from __future__ import annotations

PROGRAM = "/usr/local/bin/tdxreclaim"
DIRECTORY = "/var/lib/prometheus/node-exporter"

_UNIT = f"""\
# Metrics for node_exporter --collector.textfile.directory={DIRECTORY}
[Unit]
Description=Metrics about clearing reclaimed TDX pages
Documentation=man:tdxreclaim-check(1)

[Service]
Type=oneshot
ExecStart={PROGRAM} check --format prometheus --exit-zero --output {DIRECTORY}/tdxreclaim.prom
Nice=19
# It reads /proc, /sys, /boot and the kernel log, and writes one file.
CapabilityBoundingSet=CAP_SYSLOG
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={DIRECTORY}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=no
DevicePolicy=closed
DeviceAllow=/dev/kmsg r
PrivateNetwork=yes
PrivateMounts=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=none
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount
SystemCallErrorNumber=EPERM
IPAddressDeny=any
KeyringMode=private
UMask=0022
"""


def render() -> str:
    """Return the unit."""
    return _UNIT
