"""Every exit status of `check`, and what a careful caller does on it."""

from __future__ import annotations

from tdxreclaim.errors import ExitStatus
from tdxreclaim.policy.model import Verdict

ANSWERS = {verdict.exit_status: verdict for verdict in Verdict}


def meaning(status: ExitStatus) -> str:
    """Return the verdict of a status, or what else it tells."""
    answer = ANSWERS.get(status)
    return answer if answer is not None else status.meaning


def safe() -> tuple[ExitStatus, ...]:
    """Return the statuses on which nothing has to be cleared."""
    return tuple(s for s, verdict in ANSWERS.items() if not verdict.must_clear)


def careful() -> tuple[ExitStatus, ...]:
    """Return the statuses that are answers and say: clear."""
    return tuple(s for s, verdict in ANSWERS.items() if verdict.must_clear)


def failures() -> tuple[ExitStatus, ...]:
    """Return the statuses that are no answer."""
    return tuple(s for s in ExitStatus if s not in ANSWERS and s is not ExitStatus.FINDINGS)
