"""A NodeFeatureRule: the errata by vendor, family and model.

NFD takes them from CPUID (``cpu.model``): the vendor by klauspost/cpuid's
name, family and model as display values in decimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdxreclaim.report.check.nfd import PREFIX
from tdxreclaim.tables.cpus import INTEL, Vfm
from tdxreclaim.tables.errata import ERRATA, Erratum

if TYPE_CHECKING:
    from collections.abc import Iterator

_VENDORS = {INTEL: "Intel", "AuthenticAMD": "AMD"}


def render() -> str:
    """Return the rule as YAML."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Labels nodes by their CPU alone: whether the kernel clears, tdxreclaim check tells."
    yield "# Needs Node Feature Discovery 0.13 or later (the feature cpu.model)."
    yield "apiVersion: nfd.k8s-sigs.io/v1alpha1"
    yield "kind: NodeFeatureRule"
    yield "metadata:"
    yield "  name: tdxreclaim-errata"
    yield "spec:"
    yield "  rules:"
    for erratum in ERRATA:
        yield from _rule(erratum)


def _rule(erratum: Erratum) -> Iterator[str]:
    yield f"    - name: {erratum.id}"
    yield "      labels:"
    yield f'        "{PREFIX}erratum.{erratum.id}": "true"'
    yield "      matchAny:"
    for vfm in erratum.affected:
        yield from _match(vfm)


def _match(vfm: Vfm) -> Iterator[str]:
    yield "        - matchFeatures:"
    yield "            - feature: cpu.model"
    yield "              matchExpressions:"
    yield f'                vendor_id: {{op: In, value: ["{_VENDORS[vfm.vendor]}"]}}'
    yield f'                family: {{op: In, value: ["{vfm.family}"]}}'
    yield f'                id: {{op: In, value: ["{vfm.model}"]}}'
