"""A fleet as one page that needs nothing else: groups, and hosts to sort and filter."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from tdxreclaim.policy.model import Posture
from tdxreclaim.report.fleet import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdxreclaim.fleet.tally import Fleet

MOST_HOSTS = 50_000
"""Hosts on the page, worst first: a browser holds no million rows."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #b3261e; --warn: #8a6100; --good: #14691f }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --warn: #ffd180; --good: #8fd694 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem .25rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere }
th button { all: unset; cursor: pointer; font-weight: 600 }
th button:focus-visible { outline: 2px solid }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.at-risk, .contradictory, .refused { color: var(--bad); font-weight: 600 }
.unknown, .clears-needlessly { color: var(--warn) }
.skips-safely, .clears-as-required { color: var(--good) }
input, select { font: inherit; padding: .3rem .5rem; margin: 0 .5rem .5rem 0 }
#filter { width: 22rem; max-width: 100% }
"""

_SCRIPT = """
"use strict";
const rows = JSON.parse(document.getElementById("rows").textContent);
const body = document.querySelector("#hosts tbody"), filter = document.getElementById("filter");
const posture = document.getElementById("posture"), count = document.getElementById("count");
const shown = 500;
let by = 1, down = false, order = rows.map((_, n) => n);
const collator = new Intl.Collator(undefined, {numeric: true});
function compare(a, b) {
  const one = rows[a], other = rows[b];
  const worst = by === 1 ? one[5] - other[5] : collator.compare(one[by], other[by]);
  return (down ? -worst : worst) || collator.compare(one[0], other[0]);
}
function draw() {
  const words = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const found = order.filter(n => {
    const row = rows[n];
    if (posture.value && row[1] !== posture.value) return false;
    const text = row.slice(0, 5).join(" ").toLowerCase();
    return words.every(word => text.includes(word));
  });
  body.replaceChildren(...found.slice(0, shown).map(n => {
    const line = document.createElement("tr");
    rows[n].slice(0, 5).forEach((text, column) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (column === 1) cell.className = text;
      line.append(cell);
    });
    return line;
  }));
  count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} hosts`
    + (found.length > shown ? `, the first ${shown} shown` : "");
}
function sort(column) {
  down = by === column ? !down : false;
  by = column;
  order.sort(compare);
  document.querySelectorAll("#hosts th").forEach((head, n) =>
    n === by ? head.setAttribute("aria-sort", down ? "descending" : "ascending")
             : head.removeAttribute("aria-sort"));
  draw();
}
document.querySelectorAll("#hosts th button").forEach((button, n) =>
  button.addEventListener("click", () => sort(n)));
filter.addEventListener("input", draw);
posture.addEventListener("change", draw);
by = -1;
sort(1);
"""

_COLUMNS = ("host", "posture", "CPU", "kernel", "verdict, what is missing")


def render(fleet: Fleet) -> Iterator[str]:
    """Return the page, piece by piece."""
    title = escape(summary.headline(fleet))
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>tdxreclaim fleet: {title}</title>\n<style>{_STYLE}</style>\n<h1>{title}</h1>\n"
    )
    yield from _sentences(fleet)
    yield from _groups(fleet)
    yield from _findings(fleet)
    yield from _hosts(fleet)
    yield from _sources(fleet)
    yield f"<script>{_SCRIPT}</script>\n</html>\n"


def _sentences(fleet: Fleet) -> Iterator[str]:
    at_risk = summary.hosts_of(fleet.of(Posture.AT_RISK))
    yield "<ul>\n"
    if at_risk:
        names = escape(summary.names(at_risk, None))
        yield f'<li><span class="at-risk">At risk</span>: {names}\n'
    for name, answers in fleet.contradictory:
        said = " or ".join(answer.verdict for answer in answers)
        yield f'<li><span class="contradictory">Two answers</span>: {escape(name)}: {said}\n'
    for rule, count in summary.missing(fleet):
        yield f"<li>Not known of {summary.plural(count, 'host')}: {escape(rule)}\n"
    if fleet.of(Posture.CLEARS_NEEDLESSLY):
        yield f"<li>Clears needlessly: {escape(summary.needless(fleet))}\n"
    yield "</ul>\n"


def _table(heads: tuple[str, ...]) -> str:
    cells = "".join(
        f'<th class="number">{head}' if head == "hosts" else f"<th>{head}" for head in heads
    )
    return f"<table>\n<thead><tr>{cells}</thead>\n<tbody>\n"


def _groups(fleet: Fleet) -> Iterator[str]:
    yield "<h2>Groups</h2>\n" + _table(("hosts", "CPU", "kernel", "posture", "verdict"))
    for group in fleet.groups[:MOST_HOSTS]:
        posture = group.answer.posture
        cells = (summary.cpu(group), summary.kernel(group))
        yield (
            f'<tr><td class="number">{len(group.names):,}'
            + "".join(f"<td>{escape(text)}" for text in cells)
            + f'<td class="{posture}">{posture}<td>{group.answer.verdict}\n'
        )
    yield "</table>\n"


def _findings(fleet: Fleet) -> Iterator[str]:
    if not fleet.findings:
        return
    yield "<h2>Findings of triage</h2>\n" + _table(("hosts", "severity", "finding", "on"))
    for found in fleet.findings:
        yield (
            f'<tr><td class="number">{len(found.hosts):,}<td>{escape(found.severity)}'
            f"<td>{escape(found.id)}<td>{escape(summary.names(found.hosts))}\n"
        )
    yield "</table>\n"


def _hosts(fleet: Fleet) -> Iterator[str]:
    options = "".join(f"<option>{posture}" for posture in ("contradictory", *Posture))
    heads = "".join(f'<th><button type="button">{head}</button>' for head in _COLUMNS)
    yield (
        "<h2>Hosts</h2>\n<p>"
        '<input id="filter" type="search" placeholder="filter: words of any column" '
        'aria-label="Filter hosts">'
        f'<select id="posture" aria-label="Posture"><option value="">every posture{options}</select>'
        '<span id="count" role="status"></span>\n'
        f'<table id="hosts"><thead><tr>{heads}</thead><tbody></tbody></table>\n'
        "<noscript><p>Sorting and filtering need JavaScript; --format csv has the rows.</noscript>\n"
    )
    left_out = fleet.hosts - MOST_HOSTS
    if left_out > 0:
        yield f"<p>{left_out:,} hosts of the last groups are left out; --format csv has all.\n"
    yield '<script id="rows" type="application/json">['
    for number, row in enumerate(_rows(fleet)):
        # Nothing in it can end the element.
        yield ("," if number else "") + json.dumps(row).replace("<", "\\u003c")
    yield "]</script>\n"


def _rows(fleet: Fleet) -> Iterator[tuple[str | int, ...]]:
    left = MOST_HOSTS
    for name, answers in fleet.contradictory[:left]:
        said = " or ".join(answer.verdict for answer in answers)
        yield (name, "contradictory", answers[0].cpu, answers[0].kernel, said, -1)
    left -= len(fleet.contradictory)
    postures = list(dict.fromkeys(group.answer.posture for group in fleet.groups))
    for group in fleet.groups:
        answer = group.answer
        said = ": ".join((answer.verdict, *answer.missing))
        rank = postures.index(answer.posture)
        for name in group.names[: max(0, left)]:
            yield (name, answer.posture, answer.cpu, answer.kernel, said, rank)
        left -= len(group.names)


def _sources(fleet: Fleet) -> Iterator[str]:
    yield (
        f"<h2>Sources</h2>\n<p>{len(fleet.sources):,} read, {fleet.refused_count:,} refused, "
        f"{fleet.duplicates:,} duplicate rows.\n<ul>\n"
    )
    for one in fleet.refused:
        yield f'<li><span class="refused">refused</span> {escape(one.what)}: {escape(one.why)}\n'
    yield "</ul>\n"
