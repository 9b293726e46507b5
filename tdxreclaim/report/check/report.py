"""What a renderer is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim import __version__
from tdxreclaim.facts.evidence import Origin

if TYPE_CHECKING:
    from tdxreclaim.policy.model import Decision

TOOL = "tdxreclaim"


VERSION = __version__


class Report(NamedTuple):
    """A decision, and what it was made about.

    ``source`` names the host: ``this host``, a file, ``command line``;
    ``form`` is ``live``, ``faked`` or what a capture was recognised as.
    ``explain`` asks for every rule that was weighed.  ``expires`` is when the
    answer is to be forgotten, RFC 3339 in UTC.
    """

    decision: Decision
    source: str
    form: str
    explain: bool = False
    expires: str | None = None

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where the facts came from, each once."""
        decision = self.decision
        seen = {decision.silicon.origin, decision.host.origin, decision.kernel.origin}
        return tuple(origin for origin in Origin if origin in seen)

    @property
    def kernel_alone(self) -> bool:
        """Whether a kernel was given and no CPU: there is no verdict without silicon."""
        silicon = self.decision.silicon
        return silicon.origin is Origin.FAKED and not silicon.processors

    @property
    def faked(self) -> bool:
        """Whether any fact was given on the command line."""
        return Origin.FAKED in self.origins
