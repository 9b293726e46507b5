"""The NodeFeatureRule matches the CPUs of the errata table, and no other."""

from __future__ import annotations

import yaml

from tdxreclaim.report.integration import render
from tdxreclaim.tables.cpus import CPUS, INTEL, Vfm
from tdxreclaim.tables.errata import ERRATA, errata_of

RULE = yaml.safe_load(render("nfd-rule"))
# A near miss each: another vendor, another family.
MISSES = (Vfm("AuthenticAMD", 6, 0x8F), Vfm(INTEL, 19, 0x8F))


def labels(vfm: Vfm) -> set[str]:
    """What NFD would do: all expressions of any of the alternatives."""
    model = {
        "vendor_id": "Intel" if vfm.vendor == INTEL else "AMD",
        "family": str(vfm.family),
        "id": str(vfm.model),
    }
    found: set[str] = set()
    for rule in RULE["spec"]["rules"]:
        for alternative in rule["matchAny"]:
            (matcher,) = alternative["matchFeatures"]
            assert matcher["feature"] == "cpu.model"
            expressions = matcher["matchExpressions"]
            assert set(expressions) == set(model)
            assert all(e["op"] == "In" for e in expressions.values())
            if all(model[key] in e["value"] for key, e in expressions.items()):
                found.update(rule["labels"])
    return found


def test_it_labels_what_the_table_lists() -> None:
    assert RULE["kind"] == "NodeFeatureRule"
    for vfm in (*(cpu.vfm for cpu in CPUS), *MISSES):
        expected = {f"feature.node.kubernetes.io/tdxreclaim.erratum.{e.id}" for e in errata_of(vfm)}
        assert labels(vfm) == expected, vfm
    assert any(labels(vfm) for erratum in ERRATA for vfm in erratum.affected)
