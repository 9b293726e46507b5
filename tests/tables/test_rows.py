"""A row is enough: a made-up one, written into a copy of the package, is known everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tdxreclaim
from tdxreclaim.tables.errata import ANY
from tdxreclaim.tables.kernels import FIRST_WITH_TDS, KERNELS, FailedPage

if TYPE_CHECKING:
    from collections.abc import Callable

    RunCopy = Callable[..., str]


def _add_row(table: Path, name: str, row: str) -> None:
    text = table.read_text()
    added, count = re.subn(
        rf"(\n{name} = \(\n.*?)\n\)\n", rf"\1\n    {row},\n)\n", text, flags=re.DOTALL
    )
    assert count == 1
    table.write_text(added)


# What becomes of a page is other than in the row before.
OTHER_FATE = next(each for each in FailedPage if each is not KERNELS[-1].failed_page)


MADE_UP_KERNEL = f"""KernelRow(
        first=Version(99, 0),
        last=Version(99, 1),
        clearing=Clearing.ALWAYS,
        certainty=Certainty.VERIFIED,
        summary="a made-up kernel clears again",
        failed_page=FailedPage.{OTHER_FATE.name},
        failed_page_citation=Citation("made up", "leaks"),
        kexec=Kexec.ALLOWED,
        kexec_certainty=Certainty.VERIFIED,
        kexec_summary="made up",
        symbols=("tdx_made_up",),
        functions=(*COMMON_FUNCTIONS, removes_alone("made_up_remove"), clears("tdx_made_up")),
        citations=(Citation("made up", "a kernel"),),
    )"""


MADE_UP_ERRATUM = """Erratum(
        id="made_up",
        summary="reused pages go bad",
        consequence="made up",
        affected=(Vfm(INTEL, 6, 0xAF),),  # Sierra Forest
        flag="made_up_flag",
        honoured_since=Version(99, 0),
        citations=(Citation("made up", "its CPUs"),),
    )"""


@pytest.fixture(scope="module")
def run_copy(tmp_path_factory: pytest.TempPathFactory) -> RunCopy:
    """Run the package with all made-up rows in it."""
    package = Path(tdxreclaim.__file__).parent
    folder = tmp_path_factory.mktemp("copy")
    copy = shutil.copytree(
        package, folder / "tdxreclaim", ignore=shutil.ignore_patterns("__pycache__")
    )
    _add_row(copy / "tables/kernels.py", "KERNELS", MADE_UP_KERNEL)
    _add_row(copy / "tables/errata.py", "ERRATA", MADE_UP_ERRATUM)

    def run(*arguments: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "tdxreclaim", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not ran.stderr, ran.stderr
        return " ".join(ran.stdout.split())

    return run


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("check --cpu gnr --kernel 99.1.7", "every CPU"),
        ("check --cpu gnr --kernel 99.1.7 --format json", '"clearing": "clears-always"'),
        ("simulate --memory 1GiB --vcpus 1 --cpu gnr --kernel 99.0", "on kernel 99.0 on"),
        ("simulate --memory 1GiB --vcpus 1 --cpu gnr --kernel 6.18", "99.0 and 99.1"),
        ("simulate --memory 1GiB --vcpus 1 --cpu gnr --kernel 6.18 --compare 99.1", "99.0 and 99.1"),
        (
            "simulate --memory 1GiB --vcpus 1 --cpu gnr --kernel 6.18 --format json",
            f"linux {FIRST_WITH_TDS} to 99.1 arch/x86/kvm/vmx/tdx.c",
        ),
        (
            "simulate --memory 1GiB --vcpus 1 --cpu gnr --kernel 6.18 --format json",
            "made_up_remove() in 99.0 and 99.1",
        ),
        ("scenario removal-fails", "a kernel (99.0 and 99.1) goes on after the failure"),
        ("scenario poison-reported", "a kernel (99.0 and 99.1) handles the machine check"),
        ("scenario removal-fails", "99.0 and later"),
        ("explain page-removal-failed", "99.0 and later"),
        ("calibrate recipe ftrace --kernel 99.0", "made_up_remove"),
        ("calibrate recipe bpftrace --kernel 99.0", "tdx_made_up"),
        ("errata 99.1", "a made-up kernel clears again"),
        ("errata", "99.0 and 99.1"),
        ("explain 99.1", "tdx_made_up"),
    ],
)  # fmt: skip
def test_a_kernel_row_is_enough(command: str, says: str, run_copy: RunCopy) -> None:
    assert says in run_copy(*command.split())


SRF = "--memory 1GiB --vcpus 1 --cpu srf --kernel"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("check --cpu srf --kernel 99.0", "affected by made_up"),
        ("check --cpu gnr --kernel 99.0", f"not affected by {ANY} or made_up"),
        ("check --cpu srf --kernel 99.0 --explain", "reused pages go bad"),
        (f"simulate {SRF} 99.0 --explain", "Sierra Forest, with made_up"),
        ("simulate --memory 1GiB --vcpus 1 --cpu gnr --kernel 7.0 --explain", f"Granite Rapids, without {ANY} or made_up"),
        ("simulate --memory 1GiB --vcpus 1 --cpu 6/0xde --kernel 99.0", f"the CPU has {ANY} or made_up: it is not known"),
        ("drain --td 1GiB:1 --cpu srf --kernel 99.0", "Sierra Forest, with made_up"),
        ("errata", "made_up"),
        ("explain made_up", "reused pages go bad"),
    ],
)  # fmt: skip
def test_an_erratum_row_is_enough(command: str, says: str, run_copy: RunCopy) -> None:
    assert says in run_copy(*command.split())
