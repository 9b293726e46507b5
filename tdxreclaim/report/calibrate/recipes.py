"""How to record a TD's shutdown: scripts that are printed, and never run here.

Which functions there are to be traced depends on the kernel; the names come
from the one table in `kernel_trace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdxreclaim.calibrate.recordings import Traced

_FTRACE = """\
#!/bin/sh
# Record the shutdown of one TD with ftrace, on a TDX host with kernel {kernel}.
# Printed by: tdxreclaim calibrate recipe ftrace
#
#   1. Start a small TD, of 1 or 2 GiB: each page is 8 lines, some 120 MB a GiB.
#   2. As root: sh recipe.sh shutdown.trace
#   3. Shut the TD down, wait until its process is gone, then press Enter.
#   4. tdxreclaim calibrate trace shutdown.trace -o my.toml
#
# Only the functions named here are traced; what the buffer cannot hold is lost,
# and counted as lost.  At the end the tracer is off, the filter
# is empty and the buffer has its old size; a filter or tracer of yours is gone.
set -eu

out=${{1:?usage: sh recipe.sh FILE}}
tracing=/sys/kernel/tracing

functions="
{functions}
"

[ -w "$tracing/current_tracer" ] || {{
    echo "recipe: $tracing: not writable: run this as root" >&2
    exit 1
}}

put_back() {{
    echo 0 >"$tracing/tracing_on"
    echo nop >"$tracing/current_tracer"
    : >"$tracing/set_ftrace_filter"
    echo "$buffer" >"$tracing/buffer_size_kb"
    echo 1 >"$tracing/tracing_on"
}}

buffer=$(cut -d ' ' -f 1 <"$tracing/buffer_size_kb")
trap put_back EXIT
trap 'exit 130' INT TERM

echo 0 >"$tracing/tracing_on"
: >"$tracing/set_ftrace_filter"
for function in $functions; do
    if grep -q -E "^$function( |\\$)" "$tracing/available_filter_functions"; then
        echo "$function" >>"$tracing/set_ftrace_filter"
    else
        echo "recipe: $function: not to be traced on this kernel" >&2
    fi
done
# 64 MiB a CPU.
echo 65536 >"$tracing/buffer_size_kb"
echo function_graph >"$tracing/current_tracer"
echo 1 >"$tracing/options/funcgraph-proc"
echo 1 >"$tracing/options/funcgraph-cpu"
echo 1 >"$tracing/options/funcgraph-tail"
: >"$tracing/trace"
echo 1 >"$tracing/tracing_on"

echo "recipe: recording; shut the TD down, then press Enter" >&2
read -r _

echo 0 >"$tracing/tracing_on"
cat "$tracing/trace" >"$out"
echo "recipe: wrote $out" >&2
"""


_BPFTRACE = """\
#!/usr/bin/env bpftrace
// Record the shutdown of one TD with bpftrace, on a TDX host with kernel {kernel}.
// Printed by: tdxreclaim calibrate recipe bpftrace
//
//   1. As root: bpftrace recipe.bt > shutdown.bpf
//   2. Shut the TD down, wait until its process is gone, then press Ctrl-C.
//   3. tdxreclaim calibrate trace shutdown.bpf -o my.toml
//
// If a function is not there, bpftrace says so: take its two probes out.
// Counting in the kernel loses nothing, but a probe costs more than ftrace does,
// and its cost is in the times.

{probes}
END
{{
{clears}
}}
"""


_PROBE = """\
kprobe:{function} {{ @began_{function}[tid] = nsecs; }}
kretprobe:{function} /@began_{function}[tid]/
{{
    $took = nsecs - @began_{function}[tid];
    @ns["{function}"] = hist($took);
    @all["{function}"] = stats($took);
    delete(@began_{function}[tid]);
}}
"""


# What every interrupt calls first: without it none is seen in what it held up.
_INTERRUPT = "irq_enter_rcu"


def render_ftrace(functions: tuple[Traced, ...], kernel: str) -> str:
    """Return a POSIX shell script that records with ftrace's function_graph."""
    names = "\n".join([*(each.function for each in functions), _INTERRUPT])
    return _FTRACE.format(functions=names, kernel=kernel)


def render_bpftrace(functions: tuple[Traced, ...], kernel: str) -> str:
    """Return a bpftrace program that counts in the kernel."""
    names = _outermost([each for each in functions if each.action is not None])
    return _BPFTRACE.format(
        kernel=kernel,
        probes="\n".join(_PROBE.format(function=name) for name in names),
        clears="\n".join(f"    clear(@began_{name});" for name in names),
    )


def _outermost(functions: list[Traced]) -> list[str]:
    """Names without those that another one of the same step calls: there is no stack here."""
    names = [each.function for each in functions]
    if "tdx_quirk_reset_page" in names:
        names.remove("tdx_quirk_reset_paddr")
    return names
