"""Debian's own kernels, fetched and read whole: `pytest -m packages` (apt, network, 100 MB)."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tdxreclaim.facts.images.open import read_images
from tdxreclaim.facts.images.parts import Configuration, Module, Text
from tdxreclaim.policy.image import judge_images
from tdxreclaim.tables.kernels import Clearing
from tdxreclaim.tables.sources import Certainty

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.packages

# The oldest and the newest of a stable release: plain modules and packed ones.
_IMAGE = re.compile(r"^(linux-image-(\d\S*-cloud-amd64)-unsigned) -", re.MULTILINE)


def _packages() -> list[str]:
    listed = subprocess.run(
        ["apt-cache", "search", "--names-only", "^linux-image-.*-cloud-amd64-unsigned$"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    names = sorted(match[1] for match in _IMAGE.finditer(listed))
    return [names[0], names[-1]] if names else []


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    names = _packages()
    if not names:
        pytest.skip("apt-cache lists no kernel here (apt-get update)")
    folder = tmp_path_factory.mktemp("packages")
    for name in names:
        got = subprocess.run(["apt-get", "download", name], cwd=folder, check=False)
        if got.returncode:
            pytest.skip(f"apt-get download {name} failed")
    return sorted(folder.glob("*.deb"))


def test_debian_builds_no_tdx_host(packages: list[Path], tmp_path: Path) -> None:
    for package in packages:
        images = read_images([str(package)])
        kinds = {type(part.content) for part in images.parts}
        assert {Module, Configuration} <= kinds
        # Packed as lz4 it is not read, and that is said.
        assert Text in kinds or any("lz4" in piece.observed for piece in images.failures)
        finding = judge_images(images)
        assert (finding.clearing, finding.certainty) == (
            Clearing.NO_TDX_HOST,
            Certainty.VERIFIED,
        )

        root = tmp_path / package.stem
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
        for part in (root, *root.rglob("kvm-intel.ko*"), *root.rglob("config-*")):
            alone = judge_images(read_images([str(part)]))
            assert alone.clearing is Clearing.NO_TDX_HOST
            assert alone.certainty is Certainty.VERIFIED
        for vmlinuz in root.rglob("vmlinuz-*"):
            if Text in kinds:
                alone = judge_images(read_images([str(vmlinuz)]))
                assert (alone.clearing, alone.certainty) == (
                    Clearing.NO_TDX_HOST,
                    Certainty.INFERRED,
                )
