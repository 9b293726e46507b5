"""`sweep`: the same bytes whoever does the work, in however many parts and attempts."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tdxreclaim.cli.executors import Lost, Workers
from tdxreclaim.report.schemas import read_schema
from tdxreclaim.tables.errata import ANY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from conftest import RunTool

PLAN = """
schema = "tdxreclaim.sweep-plan/1"
command = "simulate"
trials = 1100
seed = 3

[axes]
memory = { from = "16GiB", to = "4TiB", scale = "log" }
mapped = { from = "25%", to = "100%" }
vcpus = [8, 32, 128]
cpu = ["spr", "gnr"]
kernel = ["6.17", "7.3"]
"""
CHUNKS = 5


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return str(path)


def write(tmp_path: Path, text: str, name: str = "other.toml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def told(run: RunTool, *arguments: str) -> dict[str, Any]:
    ran = run("sweep", *arguments, "--jobs", "1", "-f", "json")
    assert (ran.status, ran.err) == (0, "")
    document: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(document, json.loads(read_schema("sweep")))
    return document


def test_json_has_the_schema_and_every_policy(plan: str, run: RunTool) -> None:
    document = told(run, plan)

    assert document["trials"] == document["time"]["trials"] == 1100
    assert [(p["clearing"], p["kernels"]) for p in document["policies"]] == [
        ("always", ["6.17"]),
        ("erratum", ["7.3"]),
    ]
    assert sum(p["time"]["trials"] for p in document["policies"]) == 1100
    for policy in document["policies"]:
        assert sum(at["trials"] for at in policy["by_memory"]) == policy["time"]["trials"]
    assert document["spread"][0]["axis"] == "memory"
    assert document["plan"]["axes"]["memory"] == {"from": 16 << 30, "to": 4 << 40}
    assert "not probabilities" in document["cautions"][0]


def test_rows_say_what_simulate_says(plan: str, run: RunTool) -> None:
    ran = run("sweep", plan, "-f", "jsonl", "--jobs", "1")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    schema = json.loads(read_schema("sweep-row"))
    assert [row["trial"] for row in rows] == list(range(1100))
    for row in rows[::181]:
        jsonschema.validate(row, schema)
        cpu = "spr" if row["cpu"] == "Sapphire Rapids" else "gnr"
        arguments = (
            f"--memory={row['memory_bytes']}",
            f"--mapped={row['mapped_bytes']}",
            f"--vcpus={row['vcpus']}",
            f"--cpu={cpu}",
            f"--kernel={row['kernel']}",
        )
        found = json.loads(run("simulate", *arguments, "-f", "json").out)
        total = found["estimate"]["total"]
        assert [row[f"time_{part}_ns"] for part in ("low", "likely", "high")] == [
            total[f"{part}_ns"] for part in ("low", "likely", "high")
        ]
        assert row["clears"] is (cpu == "spr" or row["kernel"] == "6.17")


def test_csv_and_json_lines_say_the_same(plan: str, run: RunTool) -> None:
    lines = [
        json.loads(x) for x in run("sweep", plan, "-f", "jsonl", "--jobs", "1").out.split("\n") if x
    ]
    rows = list(csv.DictReader(io.StringIO(run("sweep", plan, "-f", "csv", "--jobs", "1").out)))

    def shown(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    assert rows == [{name: shown(value) for name, value in line.items()} for line in lines]


def test_parquet_says_what_json_lines_say(plan: str, tmp_path: Path, run: RunTool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "trials.parquet")
    assert run("sweep", plan, "-f", "parquet", "-o", path, "--jobs", "1").status == 0
    lines = run("sweep", plan, "-f", "jsonl", "--jobs", "1").out.splitlines()
    table = parquet.read_table(path)

    assert table.to_pylist() == list(map(json.loads, lines))
    assert table.schema.metadata[b"schema"] == b"tdxreclaim.sweep-row/1"
    assert os.listdir(tmp_path).count("trials.parquet.partial") == 0


def test_parquet_without_pyarrow_is_one_line(
    plan: str, tmp_path: Path, run: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = run("sweep", plan, "-f", "parquet", "-o", str(tmp_path / "x"))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert 'pip install "tdxreclaim[parquet]"' in ran.err


@pytest.mark.parametrize("format_", ["text", "json", "csv"])
def test_processes_say_what_one_says(format_: str, plan: str, run: RunTool) -> None:
    alone = run("sweep", plan, "-f", format_, "--jobs", "1")
    assert alone.status == 0
    assert run("sweep", plan, "-f", format_, "--jobs", "2").out == alone.out


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("format_", ["csv", "jsonl", "text"])
def test_parts_merge_to_the_whole(
    parts: int, format_: str, plan: str, tmp_path: Path, run: RunTool
) -> None:
    files = [str(tmp_path / f"part{part}") for part in range(parts, 0, -1)]
    for number, path in enumerate(reversed(files), 1):
        shard = ("--shard", f"{number}/{parts}", "-o", path, "--jobs", "1")
        assert run("sweep", plan, *shard, "-f", format_) == (0, "", "")
    whole = run("sweep", plan, "-f", format_, "--jobs", "1").out

    assert run("sweep", "merge", *files, "-f", format_).out == whole
    assert run("sweep", "merge", *files, "-f", "json").out == (
        run("sweep", plan, "-f", "json", "--jobs", "1").out
    )
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]


def test_a_part_is_the_same_whoever_writes_it(plan: str, tmp_path: Path, run: RunTool) -> None:
    texts = []
    for jobs in ("1", "2"):
        path = tmp_path / f"part{jobs}"
        run("sweep", plan, "--shard", "1/2", "-o", str(path), "--jobs", jobs, "-f", "csv")
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]


def test_what_does_not_belong_together_is_not_merged(
    plan: str, tmp_path: Path, run: RunTool
) -> None:
    def part(number: str, source: str = plan, name: str = "", form: str = "csv") -> str:
        path = str(tmp_path / f"{name}{number[0]}")
        shard = ("--shard", number, "-o", path, "--jobs", "1", "-f", form)
        assert run("sweep", source, *shard).status == 0
        return path

    def refused(*files: str, form: str = "csv") -> str:
        ran = run("sweep", "merge", *files, "-f", form)
        assert "tdxreclaim.sweep-row/1" not in ran.out
        assert ran.err.count("\n") == 1
        assert ran.status in (2, 3)
        return ran.err

    one, two = part("1/2"), part("2/2")
    assert "part 2 of 2 is missing" in refused(one)
    assert "part 1 of 2 is there twice" in refused(one, one, two)
    other = write(tmp_path, PLAN.replace("seed = 3", "seed = 4"))
    assert "seed 4, not 3" in refused(one, part("2/2", other, "other"))
    assert "rows none, not csv" in refused(one, part("2/2", plan, "text", "text"))
    assert "shards of 1/2, 1/3: not of one run" in refused(one, part("2/3", plan, "third"))
    assert "csv rows are in the parts" in refused(one, two, form="jsonl")
    assert "not a part" in refused(plan)
    assert "No such file" in refused("does-not-exist")
    cut = tmp_path / "cut"
    cut.write_bytes((tmp_path / "1").read_bytes()[:-1])
    assert "not whole" in refused(str(cut), two)
    old = tmp_path / "old"
    from tdxreclaim.cli.parts import open_to_read, open_to_write

    with open_to_read(one) as file, open_to_write(str(old)) as copy:
        copy.start({**file.header, "version": "0.0.9"})
    assert "written by tdxreclaim 0.0.9, not " in refused(str(old), two)
    with open_to_read(one) as file, open_to_write(str(tmp_path / "odd")) as copy:
        copy.start(file.header)
        for number in file.chunks:
            copy.add(number, {"tally": {"times": 3}, "rows": ""})
    assert "is none of sweep" in refused(str(tmp_path / "odd"), two, form="text")


def test_where_it_is_torn_it_goes_on(plan: str, tmp_path: Path, run: RunTool) -> None:
    """Whatever was on disk when it was killed, the end is the same to the byte."""
    path = tmp_path / "out.csv"
    arguments = ("sweep", plan, "-f", "csv", "-o", str(path), "--jobs", "1")
    assert run(*arguments) == (0, "", "")
    whole = path.read_bytes()
    whole_part = tmp_path / "part"
    run("sweep", plan, "-f", "csv", "--shard", "1/1", "-o", str(whole_part), "--jobs", "1")
    log = whole_part.read_bytes()
    partial = tmp_path / "out.csv.partial"
    ends = [0, 1, 15, 16, 17, *range(900, len(log), len(log) // 23), len(log) - 1, len(log)]
    for end in ends:
        path.unlink()
        partial.write_bytes(log[:end])
        ran = run(*arguments)
        assert (ran.status, ran.out) == (0, ""), end
        assert path.read_bytes() == whole, end
        assert not partial.exists()
    path.unlink()
    partial.write_bytes(log[: len(log) // 2] + b"!" + log[len(log) // 2 + 1 :])
    assert run(*arguments).status == 0
    assert path.read_bytes() == whole


def test_going_on_is_said(plan: str, tmp_path: Path, run: RunTool) -> None:
    part, partial = tmp_path / "part", tmp_path / "out.partial"
    run("sweep", plan, "--shard", "1/1", "-o", str(part), "--jobs", "1")
    partial.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:3]))
    ran = run("sweep", plan, "-o", str(tmp_path / "out"), "--jobs", "1")

    assert ran.err == f"tdxreclaim: {partial}: goes on at 500 of 1,100 trials\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seed = 3", "seed = 5"), "seed 3, not 5"),
        (("trials = 1100", "trials = 1200"), "plan "),
    ],
)
def test_results_of_another_run_are_not_gone_on_with(
    change: tuple[str, str], said: str, plan: str, tmp_path: Path, run: RunTool
) -> None:
    part, partial = tmp_path / "part", tmp_path / "out.partial"
    run("sweep", plan, "--shard", "1/1", "-f", "csv", "-o", str(part), "--jobs", "1")
    partial.write_bytes(part.read_bytes())
    before = partial.read_bytes()
    other = write(tmp_path, PLAN.replace(*change))
    ran = run("sweep", other, "-f", "csv", "-o", str(tmp_path / "out"), "--jobs", "1")

    assert (ran.status, ran.out) == (3, "")
    assert ran.err.count("\n") == 1
    assert f"{partial}: is of another run: " in ran.err
    assert said in ran.err
    assert partial.read_bytes() == before


def test_another_format_is_not_gone_on_with(plan: str, tmp_path: Path, run: RunTool) -> None:
    out = str(tmp_path / "out")
    run("sweep", plan, "--shard", "1/1", "-f", "csv", "-o", f"{out}.partial", "--jobs", "1")
    assert "rows csv, not none" in run("sweep", plan, "-o", out).err


def test_a_file_of_somebody_else_is_left_alone(plan: str, tmp_path: Path, run: RunTool) -> None:
    (tmp_path / "out.partial").write_text("hello\n")
    ran = run("sweep", plan, "-o", str(tmp_path / "out"))
    assert (ran.status, "is not of a run" in ran.err) == (3, True)
    assert (tmp_path / "out.partial").read_text() == "hello\n"


def test_only_one_run_writes_a_file(plan: str, tmp_path: Path, run: RunTool) -> None:
    from tdxreclaim.cli.parts import open_to_write

    with open_to_write(str(tmp_path / "out.partial")):
        ran = run("sweep", plan, "-o", str(tmp_path / "out"))
    assert (ran.status, "another run writes it now" in ran.err) == (3, True)


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """As a user does it: the process group gets the signal once results are on disk."""
    big = write(tmp_path, PLAN.replace("trials = 1100", "trials = 2_000_000"))
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    command = [sys.executable, "-m", "tdxreclaim", "sweep", big, "-o", str(out), "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tool:
        while not (partial.exists() and partial.stat().st_size > 200_000):
            assert tool.poll() is None
        tool.send_signal(signal.SIGINT)
        _, err = tool.communicate()
    assert tool.returncode == 130
    assert err.splitlines()[-1].startswith("tdxreclaim: sweep: interrupted at ")
    assert f"{partial} keeps what is done: run the same command to go on" in err
    assert not out.exists()
    assert partial.stat().st_size > 200_000


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("-o", "."), 3, "is a directory"),
        (("-o", "no/such/folder/x"), 3, "No such file or directory"),
        (("-o", ""), 2, "the name is empty"),
        (("--shard", "1/2"), 2, "--shard: needs --output"),
        (("--shard", "3/2", "-o", "x"), 2, "--shard: '3/2' is not I/N"),
        (("--shard", "1/2", "-o", "x", "--svg", "y"), 2, "--svg: has no effect with --shard"),
        (("--svg", "-"), 2, "--svg: needs the name of a file"),
        (("-f", "parquet"), 2, "--output: needed: Parquet is no text"),
        (("--executor", "smoke"), 2, "--executor: "),
        (("--jobs", "many"), 2, "--jobs: "),
        (("--calibration", "moon"), 3, "moon: "),
        (("other",), 2, "other: one plan at a time"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], status: int, said: str, plan: str, tmp_path: Path, run: RunTool
) -> None:
    ran = run("sweep", plan, *arguments, cwd=tmp_path)
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert os.listdir(tmp_path) == ["plan.toml"]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ('kernel = ["6.17", "6.12"]', "axes.kernel[1]: "),
        ('kernel = "linux"', "axes.kernel: 'linux' is not a kernel release"),
        ('cpu = ["gnr", "AuthenticAMD/25/17"]', "axes.cpu[1]: needed"),
        ('cpu = ["gnr", "moon"]', "axes.cpu[1]: 'moon' is not known"),
        (
            f"cpu = {[f'6/{n}' for n in range(100)]}\nkernel = {[f'6.{n}' for n in range(16, 29)]}",
            "",
        ),
    ],
)
def test_a_host_that_runs_no_tds_names_the_field(
    axes: str, said: str, tmp_path: Path, run: RunTool
) -> None:
    head = 'schema = "tdxreclaim.sweep-plan/1"\ncommand = "simulate"\n[axes]\n'
    path = write(tmp_path, f'{head}memory = "18GiB"\nvcpus = 4\n{axes}\n')
    ran = run("sweep", path)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"tdxreclaim: {path}: {said}")
    assert ran.err.count("\n") == 1


def test_a_plan_without_end_is_not_read(tmp_path: Path, run: RunTool) -> None:
    path = write(tmp_path, "#" * (2 << 20))
    ran = run("sweep", path)
    assert (ran.status, ran.err) == (3, f"tdxreclaim: {path}: longer than 1 MiB\n")


def test_what_is_not_known_of_a_host_is_assumed_and_said(tmp_path: Path, run: RunTool) -> None:
    head = 'schema = "tdxreclaim.sweep-plan/1"\ncommand = "simulate"\n[axes]\n'
    document = told(run, write(tmp_path, f'{head}memory = "18GiB"\nvcpus = 4\n'))

    assert document["trials"] == 1
    said = " ".join(document["cautions"])
    assert f"The CPU has {ANY}: it is not known" in said
    assert "clears on the erratum alone" in said


def test_text_is_short_and_fits(plan: str, run: RunTool) -> None:
    out = run("sweep", plan, "--jobs", "1").out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert "not probabilities of a host" in " ".join(out.split())
    assert "on the erratum  7.3" in out


DRAIN = """
schema = "tdxreclaim.sweep-plan/1"
command = "drain"
[axes]
memory = ["18GiB", "107GiB"]
vcpus = 4
tds = { from = 1, to = 8, steps = 8 }
at-once = ["all", 2]
cost = ["range", "drawn-apart"]
"""


def test_a_drain(tmp_path: Path, run: RunTool) -> None:
    path = write(tmp_path, DRAIN)
    document = told(run, path)
    assert document["trials"] == 64
    assert any("alike" in said for said in document["cautions"])
    assert any("apart" in said for said in document["cautions"])
    rows = [json.loads(x) for x in run("sweep", path, "-f", "jsonl").out.splitlines()]
    assert {row["at_once"] for row in rows if row["tds"] == 8} == {2, 8}
    assert all(row["clear_low_ns"] is None for row in rows)
    assert "stop all TDs of a host" in run("sweep", path).out


def test_merge_takes_no_option_of_the_work(run: RunTool) -> None:
    for option in (("--jobs", "2"), ("--calibration", "published"), ("--shard", "1/2", "-o", "x")):
        ran = run("sweep", "merge", "x", *option)
        assert (ran.status, ran.err) == (2, f"tdxreclaim: merge: takes no {option[0]}\n")
    assert "needs the files" in run("sweep", "merge").err


def test_a_device_has_no_file_of_results_beside_it(plan: str, run: RunTool) -> None:
    assert run("sweep", plan, "-o", "/dev/null", "--jobs", "1") == (0, "", "")
    assert not Path("/dev/null.partial").exists()


class Unlucky(Workers):
    """Workers that lose a chunk, and bring another twice."""

    def __init__(self, lost: int) -> None:
        self._lost = lost

    def each(self, work: Any, chunks: Iterable[Any], **_: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
        for chunk in reversed(list(chunks)):
            if chunk.number == self._lost:
                yield chunk, Lost("it killed its worker")
            else:
                yield chunk, work(chunk)
                yield chunk, work(chunk)


def test_a_chunk_that_is_lost_is_said_and_the_others_are_kept(
    plan: str, tmp_path: Path, run: RunTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out.csv")
    whole = run("sweep", plan, "-f", "csv", "--jobs", "1").out
    with monkeypatch.context() as patched:
        patched.setattr("tdxreclaim.cli.sweep.open_workers", lambda *_: Unlucky(2))
        ran = run("sweep", plan, "-f", "csv", "-o", out)
    assert ran.status == 3
    assert ran.err == (
        "tdxreclaim: sweep: 1 of 5 chunks lost, the first: trials 500 to 749: it killed its worker; "
        f"{out}.partial keeps what is done: run the same command to go on\n"
    )
    assert not Path(out).exists()
    assert "goes on at 850 of 1,100" in run("sweep", plan, "-f", "csv", "-o", out).err
    assert Path(out).read_text() == whole
