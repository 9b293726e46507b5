"""An init container: the pod's other containers start only where nothing is at risk."""

from __future__ import annotations

from tdxreclaim.errors import ExitStatus
from tdxreclaim.report.integration.statuses import meaning, safe

_HEAD = """\
# Part of a pod's manifest.  IMAGE has tdxreclaim in it; the host's /proc and
# /sys come as read-only volumes, so that nothing of the container is read.
"""

_BODY = """\
spec:
  initContainers:
    - name: tdxreclaim
      image: IMAGE
      command: ["/bin/sh", "-c"]
      args:
        - |
          tdxreclaim check --from /host --format text
          case $? in
{cases}
          esac
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {{drop: ["ALL"]}}
      volumeMounts:
        - {{name: host-proc, mountPath: /host/proc, readOnly: true}}
        - {{name: host-sys, mountPath: /host/sys, readOnly: true}}
  volumes:
    - name: host-proc
      hostPath: {{path: /proc, type: Directory}}
    - name: host-sys
      hostPath: {{path: /sys, type: Directory}}
"""


def render() -> str:
    """Return the manifest's part as YAML."""
    status = ExitStatus.REQUIRED
    posture = "tdxreclaim check --from /host --format nagios"
    lines = [f"{s.value}) exit 0 ;; # {meaning(s)}" for s in safe()]
    lines += [
        f"{status.value}) {posture} && exit 0; exit 1 ;; # {meaning(status)}: does it?",
        "*) exit 1 ;; # undetermined, or no answer: do not start",
    ]
    return _HEAD + _BODY.format(cases="\n".join(f"          {line}" for line in lines))
