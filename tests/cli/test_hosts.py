"""Captured hosts x formats, against golden files; the last line is the exit status.

A new host is data only: a tree under hosts/, then ``pytest --accept``, and
the diff is the review.
"""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tdxreclaim.errors import HostReadError
from tdxreclaim.facts.evidence import Origin
from tdxreclaim.facts.host import read_host
from tdxreclaim.facts.sources.base import KERNEL_LOG
from tdxreclaim.facts.sources.tree import Tree
from tdxreclaim.policy.decide import decide
from tdxreclaim.report.schemas import read_schema

if TYPE_CHECKING:
    from conftest import Compare, RunTool

    from tdxreclaim.facts.sources.live import PyCpuinfo

HOSTS = Path(__file__).parents[1] / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir())
FORMATS = ("text", "json", "shell")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_host(name: str, format_: str, run: RunTool, golden: Compare) -> None:
    ran = run("check", "--from", name, "--format", format_, cwd=HOSTS)

    assert ran.err == ""
    golden(f"{name}.{format_}", ran.golden)


@pytest.mark.parametrize("format_", FORMATS)
def test_shared_case(
    case: str, format_: str, run: RunTool, golden: Compare, shared_cases: Path
) -> None:
    ran = run("check", "--from", case, "--format", format_, cwd=shared_cases)

    assert ran.err == ""
    golden(f"case-{case}.{format_}", ran.golden)


@pytest.mark.parametrize("golden_json", sorted((HOSTS.parent / "expected").glob("*.json")))
def test_golden_json_fits_the_schema(golden_json: Path) -> None:
    text = re.sub(r"exit status: \d+\n\Z", "", golden_json.read_text())
    schema = json.loads(read_schema("check"))

    jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", NAMES)
def test_every_host_says_where_it_is_from(name: str) -> None:
    assert (HOSTS / name / "PROVENANCE").read_text().strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_tar_answers_as_its_tree(name: str, run: RunTool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        tar.add(HOSTS / name, f"sosreport-{name}")
    tree = run("check", "--from", name, "--format", "json", "--explain", cwd=HOSTS)
    packed = run("check", "--from", name, "--format", "json", "--explain", cwd=tmp_path)

    assert packed.status == tree.status
    assert packed.out == tree.out.replace('"format": "tree"', '"format": "tar"')


class _Machine(Tree):
    """The machine that a tree was captured from, as the live source would read it."""

    origin = Origin.LIVE

    def read(self, path: str) -> str | None:
        return super().read("var/log/dmesg" if path == KERNEL_LOG else path)


def _no_py_cpuinfo() -> PyCpuinfo:
    raise HostReadError("py-cpuinfo", "not asked in a test")


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("sosreport")])
def test_a_capture_answers_as_the_machine_itself(name: str) -> None:
    tree = str(HOSTS / name)
    live = decide(read_host(_Machine(tree), ask_py_cpuinfo=_no_py_cpuinfo))
    captured = decide(read_host(Tree(tree)))

    assert live.silicon.origin is Origin.LIVE
    for field in ("verdict", "rule", "because", "posture", "posture_because", "advice", "warnings"):
        assert getattr(live, field) == getattr(captured, field)
    for part in ("silicon", "host", "kernel"):
        one, other = getattr(live, part), getattr(captured, part)
        assert one._replace(origin=Origin.CAPTURED) == other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_gives_the_same_status(name: str, format_: str, run: RunTool) -> None:
    quiet = run("check", "--from", name, "--quiet", cwd=HOSTS)

    assert quiet.out == ""
    assert run("check", "--from", name, "--format", format_, cwd=HOSTS).status == quiet.status
    zero = run("check", "--from", name, "--format", format_, "--exit-zero", cwd=HOSTS)
    assert zero.status == 0


@pytest.mark.parametrize("name", NAMES)
def test_text_fits_80_columns_and_cuts_nothing_off(name: str, run: RunTool) -> None:
    wide = run("check", "--from", name, "--explain", cwd=HOSTS).out
    assert max(map(len, wide.splitlines())) <= 80
    assert "…" not in wide
