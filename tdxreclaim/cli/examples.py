"""One example a command, shown at the end of its --help and in its manual page."""

from __future__ import annotations

EXAMPLES = {
    "calibrate": "tdxreclaim calibrate show published",
    "calibrate check": "tdxreclaim calibrate check host.toml",
    "calibrate clear": "tdxreclaim calibrate clear --size 4GiB --threads 1,2,4 -o my.toml",
    "calibrate diff": "tdxreclaim calibrate diff published host.toml",
    "calibrate fit": "tdxreclaim calibrate fit observed.csv -o fitted.toml",
    "calibrate list": "tdxreclaim calibrate list",
    "calibrate recipe": "tdxreclaim calibrate recipe ftrace --kernel 7.2",
    "calibrate show": "tdxreclaim calibrate show published --vcpus 64",
    "calibrate trace": "tdxreclaim calibrate trace shutdown.trace --vcpus 32 -o host.toml",
    "capture": "tdxreclaim capture -o host.tar.gz",
    "check": "tdxreclaim check --from sosreport.tar.xz",
    "drain": "tdxreclaim drain --td 400GiB:64 --td 18GiB:4x10 --cpu gnr --kernel 6.18",
    "errata": "tdxreclaim errata tdx_pw_mce",
    "explain": "tdxreclaim explain 0xc000060700000080",
    "findings": "tdxreclaim findings hkid-leaked",
    "fleet": "tdxreclaim fleet captures/ inventory.csv --format html -o fleet.html",
    "integration": "tdxreclaim integration",
    "scenario": "tdxreclaim scenario partial-write-affected",
    "schema": "tdxreclaim schema check",
    "simulate": "tdxreclaim simulate --memory 400GiB --vcpus 64 --cpu gnr --kernel 6.17",
    "sweep": "tdxreclaim sweep plan.toml --svg sweep.svg",
    "triage": "tdxreclaim triage --from sosreport.tar.xz --observed 517s --memory 107GiB --vcpus 32",
    "watch": "tdxreclaim watch 4711 --until-done --record host.toml",
}
