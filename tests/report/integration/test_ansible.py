"""The fact and the playbook, run by ansible-core against targets on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tdxreclaim.report.integration import render

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent


def test_the_fact_prints_json(tmp_path: Path) -> None:
    fact = tmp_path / "tdxreclaim.fact"
    fact.write_text(render("ansible-fact"))
    ran = subprocess.run(
        ["sh", str(fact)],
        env={"PATH": f"{BIN}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout)["verdict"]


def test_the_playbook_is_yaml() -> None:
    (play,) = yaml.safe_load(render("ansible-playbook"))
    assert play["ignore_unreachable"] is True


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[str]:
    """Start an sshd with two accounts' keys: one finds the tool, one finds no Python."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(sshd).exists(), "Debian: openssh-server"
    bare = tmp_path / "bare"
    bare.mkdir()
    for program in ("sh", "cat", "echo"):
        (bare / program).symlink_to(f"/bin/{program}")
    forced = {"with": f"{BIN}:/usr/bin:/bin", "without": str(bare)}
    keys = []
    for name, path in ({"host": ""} | forced).items():
        key = tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        if path:
            command = f'PATH={path}; export PATH; eval \\"$SSH_ORIGINAL_COMMAND\\"'
            keys.append(f'command="{command}" {(tmp_path / f"{name}.pub").read_text()}')
    (tmp_path / "authorized_keys").write_text("".join(keys))
    port = _free_port()
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {
        "AuthorizedKeysFile": tmp_path / "authorized_keys",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": tmp_path / "pid",
        "ListenAddress": "127.0.0.1",
    }
    daemon = subprocess.Popen(
        [sshd, "-D", "-e", "-f", "/dev/null", "-h", str(tmp_path / "host"), "-p", str(port)]
        + [f"-o{name}={value}" for name, value in options.items()],
        stderr=subprocess.DEVNULL,
    )
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.05)
    ssh = "ansible_host=127.0.0.1 ansible_ssh_common_args='-oStrictHostKeyChecking=no'"
    yield "\n".join(
        [
            f"has-tool {ssh} ansible_port={port} ansible_ssh_private_key_file={tmp_path}/with",
            f"no-python {ssh} ansible_port={port} ansible_ssh_private_key_file={tmp_path}/without",
            f"unreachable {ssh} ansible_port={_free_port()}",
            "",
        ]
    )
    daemon.terminate()
    daemon.wait()


@pytest.mark.consumer
def test_one_jsonl_of_three_hosts(targets: str, tmp_path: Path) -> None:
    (tmp_path / "inventory").write_text(targets)
    (tmp_path / "tdxreclaim.yml").write_text(render("ansible-playbook"))
    playbook = [sys.executable, "-m", "ansible", "playbook", "-i", "inventory", "tdxreclaim.yml"]
    ran = subprocess.run(
        playbook,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = (tmp_path / "tdxreclaim.jsonl").read_text().splitlines()
    found = {(line := json.loads(text))["host_name"]: line for text in lines if text.strip()}

    assert set(found) == {"has-tool", "no-python", "unreachable"}, ran.stdout + ran.stderr
    assert found["has-tool"]["source"]["format"] == "live"
    assert found["no-python"]["source"]["format"] == "cpuinfo"
    assert found["has-tool"]["silicon"]["status"] == found["no-python"]["silicon"]["status"]
    assert found["unreachable"]["error"]["kind"] == "unreachable"
