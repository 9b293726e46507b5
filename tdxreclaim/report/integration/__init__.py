"""What `tdxreclaim integration` prints: one module each, made from the tables.

To add one: a module here with ``render() -> str``, its line below, and a test
in tests/report/integration with the program that reads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple


class Integration(NamedTuple):
    """``place`` is where its carrier looks for it."""

    summary: str
    place: str


INTEGRATIONS = {
    "nfd-rule": Integration(
        "Node Feature Discovery labels nodes whose CPU has an erratum", "kubectl apply -f -"
    ),
    "prometheus-rules": Integration(
        "Prometheus alerts on the metrics of check --format prometheus",
        "/etc/prometheus/rules/tdxreclaim.yml",
    ),
    "systemd-service": Integration(
        "writes the metrics for node_exporter's textfile collector, sandboxed",
        "/etc/systemd/system/tdxreclaim.service",
    ),
    "systemd-timer": Integration(
        "starts that service at boot and every hour", "/etc/systemd/system/tdxreclaim.timer"
    ),
    "ansible-fact": Integration(
        "Ansible fact ansible_local.tdxreclaim, the JSON of check",
        "/etc/ansible/facts.d/tdxreclaim.fact",
    ),
    "ansible-playbook": Integration(
        "asks many hosts and gathers one JSONL for fleet", "tdxreclaim.yml"
    ),
    "shell": Integration("a shell function that handles every exit status", "your script"),
    "python": Integration("a Python function that handles every exit status", "your program"),
    "init-container": Integration(
        "a Kubernetes init container that holds a pod back where clearing is not settled",
        "your pod's manifest",
    ),
}


def render(name: str) -> str:
    """Return one of `INTEGRATIONS` as text, newline at the end."""
    module = import_module(f"tdxreclaim.report.integration.{name.replace('-', '_')}")
    rendered: str = module.render()
    return rendered
