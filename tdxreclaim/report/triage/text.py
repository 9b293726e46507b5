"""Findings as text for people, and as Markdown for a ticket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tdxreclaim.facts.evidence import printable
from tdxreclaim.report.markup import code as _code
from tdxreclaim.report.markup import plain as _plain
from tdxreclaim.report.page import Page
from tdxreclaim.report.triage.summary import Triage, boot_label, log_line, show_stamp
from tdxreclaim.tables.findings.kind import Severity

if TYPE_CHECKING:
    from tdxreclaim.facts.logs.line import Stamp
    from tdxreclaim.triage.collect import Place
    from tdxreclaim.triage.finding import Finding

_STYLE = {
    Severity.CRITICAL: "bold red",
    Severity.ERROR: "red",
    Severity.WARNING: "yellow",
    Severity.NOTICE: "",
    Severity.BENIGN: "green",
}


# A ticket with ten findings fits into 30 lines; what does not is behind --explain.
_MOST_LINES = 30
_MOST_ROWS = 12
_FEW_ROWS = 5
_SEVERITY_WIDTH = max(len(severity) for severity in Severity) + 2


def render(triage: Triage, *, width: int = 80, color: bool = False, explain: bool = False) -> str:
    """Return the findings as text of *width* columns: the answer, or all with *explain*."""
    page = Page(width, color=color)
    page.paragraph(triage.headline, "bold")
    page.blank()
    page.labelled("host", triage.host)
    if triage.not_read:
        for label, line in not_read(triage):
            page.labelled(label, line)
    for log in triage.logs:
        page.labelled("log", log_line(log))
    for line in triage.skipped:
        page.labelled("not read", line)
    for warning in () if triage.answer is None else triage.answer.warnings:
        page.labelled("warning", warning, "yellow")
    if explain:
        _explained(page, triage)
    else:
        _rows(page, triage)
        _next(page, triage)
    page.blank()
    worst = next((f"; tdxreclaim explain {f.kind.id}" for f in triage.findings), "")
    page.ends(
        f"exit {int(triage.exit_status)}",
        worst.removeprefix("; ") if explain else f"all: --explain{worst}",
    )
    return page.text()


def _rows(page: Page, triage: Triage) -> None:
    """Add a line a finding, in the order in which they happened; what is no log's comes first."""
    asked = triage.answer.kind if triage.answer else None
    counted = triage.to_act_on(asked)
    rows = [finding for finding in counted if finding.line is None]
    rows += [finding for finding in triage.timeline if finding in counted]
    if not rows:
        return
    page.blank()
    shown = rows[:_MOST_ROWS]
    times = [short_stamp(finding.first)[:_LONGEST_TIME] for finding in shown]
    day = _one_day(times)
    if day:
        page.paragraph(day, first="  ")
        times = [time.removeprefix(day).lstrip(" T") for time in times]
    room = max(map(len, times))
    widest = max(len(finding.kind.id) for finding in shown)
    one_log = len({finding.line[0] for finding in shown if finding.line}) <= 1
    for finding, time in zip(shown, times, strict=True):
        critical = finding.severity is Severity.CRITICAL
        word = finding.severity.upper() if critical else finding.severity
        head = f"  {time:>{room}}{'  ' if room else ''}{word:<{_SEVERITY_WIDTH}}"
        head += f"{finding.kind.id:<{widest}}  "
        page.row(
            head,
            finding.sentence,
            _where(finding, one_log=one_log),
            _STYLE[finding.severity],
            most=2 if len(shown) <= _FEW_ROWS else 1,
        )
    if len(rows) > len(shown):
        page.paragraph(f"{len(rows) - len(shown)} more: --explain", first="  ", indent=2)


_LONGEST_TIME = 19


_DAY = re.compile(r"(.*\S)[ T]\d\d:\d\d:\d\d")


def _one_day(times: list[str]) -> str:
    """Return the day of all that have a time; empty if they are of several, or of none.

    >>> _one_day(["", "2026-06-24 11:07:18", "2026-06-24 12:00:01"]), _one_day(["12.5 s"])
    ('2026-06-24', '')
    """
    days = {match[1] if match else "" for time in times if time for match in [_DAY.match(time)]}
    return days.pop() if len(days) == 1 else ""


def _where(finding: Finding, *, one_log: bool) -> str:
    if finding.line is None:
        return ""
    path, number = finding.line
    return f":{number}" if one_log else f"{path.rpartition('/')[2]}:{number}"


def _next(page: Page, triage: Triage) -> None:
    """Add what to do, for the worst first, as far as a screen has room."""
    worst = triage.to_act_on()
    steps = list(dict.fromkeys(_first_sentence(finding.advice) for finding in worst))
    if steps:
        page.blank()
    for number, step in enumerate(steps, start=1):
        if number > 1 and page.lines > _MOST_LINES - 5:
            page.labelled("", f"{len(steps) - number + 1} more: --explain")
            break
        page.labelled("" if number > 1 else "next", f"{number}. {step}")


def _first_sentence(text: str) -> str:
    first, dot, _ = text.partition(". ")
    return f"{first}." if dot else text


def _explained(page: Page, triage: Triage) -> None:
    page.labelled("source", f"{triage.source} ({triage.form})")
    entries = timeline(triage)
    if len(entries) > 1:
        page.heading("In order")
        for entry in entries:
            page.paragraph(entry.what, first=f"{entry.when:>15}  ", indent=17)
    for finding in triage.findings:
        page.blank()
        page.paragraph(
            f"{finding.severity} {finding.kind.id}: {finding.sentence}", _STYLE[finding.severity]
        )
        _body(page, finding)


def _body(page: Page, finding: Finding) -> None:
    if finding.boot:
        page.labelled("when", when(finding))
    for detail in details(finding):
        page.labelled("detail", detail)
    for number, place in enumerate(finding.places):
        page.labelled("" if number else "seen", place_line(place))
    if finding.also:
        page.labelled("also in", ", ".join(finding.also))
    for each in finding.under:
        page.labelled("with it", under_line(each))
    if finding.after:
        page.labelled("after", ", ".join(finding.after))
    page.labelled("means", finding.meaning)
    if not finding.severity.counts:
        # The catalogue has the rest (findings ID); what needs no action is kept short.
        return
    page.labelled("do", finding.advice)
    page.labelled("versions", finding.kind.versions)
    page.labelled("source", "; ".join(map(str, finding.kind.citations)))
    if finding.kind.certainty != "verified":
        page.labelled("known", finding.kind.certainty)


class TimelineEntry(NamedTuple):
    """A line of the time line."""

    when: str
    what: str


def timeline(triage: Triage) -> list[TimelineEntry]:
    """Return what needs action, in the order in which it began, with what it came after."""
    entries: list[TimelineEntry] = []
    for finding in triage.timeline:
        if not finding.severity.counts:
            continue
        place = finding.places[0]
        where = f"line {place.line}" if len(triage.logs) == 1 else place_of(place)
        after = f", after {', '.join(finding.after)}" if finding.after else ""
        ago = f", {boot_label(finding)}" if finding.age else ""
        what = f"{finding.severity} {finding.kind.id} ({where}){ago}{after}"
        entries.append(TimelineEntry(short_stamp(finding.first), what))
    return entries


def short_stamp(stamp: Stamp | None) -> str:
    """Return seconds since boot, else what the log says of the time."""
    if stamp is not None and stamp.seconds is not None:
        return f"{stamp.seconds:,.1f} s"
    return show_stamp(stamp)


def not_read(triage: Triage) -> list[tuple[str, str]]:
    """Return of the first log that was not understood what it is like, and what to do."""
    lost = next((log.unread for log in triage.logs if not log.understood and log.unread), None)
    if lost is None:
        return []
    return [
        ("like", lost.looks_like),
        (f"line {lost.number}", printable(lost.text[:60])),
        ("try", lost.command),
    ]


def when(finding: Finding) -> str:
    """Return boot, count and span of time of a finding, in a line."""
    times = "once" if finding.times == 1 else f"{finding.times:,} times"
    first, last = show_stamp(finding.first), show_stamp(finding.last)
    span = first
    if last and last != first:
        span = f"{first} to {last}" if first else last
    return f"{times}, {boot_label(finding)}" + (f", {span}" if span else "")


def details(finding: Finding) -> tuple[str, ...]:
    """Return what else is known of a finding, a line each."""
    quoted = ("quoted in the text: which host's it is is not known",) if finding.quoted else ()
    return (*quoted, *finding.details)


def under_line(finding: Finding) -> str:
    """Return a finding of the same cause in a line: what it says, and where."""
    where = f" ({place_of(finding.places[0])})" if finding.places else ""
    return f"{finding.severity} {finding.kind.id}: {finding.sentence}{where}"


def place_of(place: Place) -> str:
    """Return file and line number."""
    return place.path if place.line is None else f"{place.path}:{place.line}"


def place_line(place: Place) -> str:
    """Return file, line number and text of what was seen."""
    return f"{place_of(place)}  {place.text}"


def render_markdown(triage: Triage) -> str:
    """Return the findings as Markdown, to be pasted into a ticket.

    What comes from a log stands in code spans, so that it can neither format
    nor link.
    """
    lines = [
        "## tdxreclaim triage",
        "",
        f"**{_plain(triage.headline)}**",
        "",
        f"- host: {_plain(triage.host)}",
        f"- source: {_code(triage.source)} ({triage.form})",
    ]
    if triage.not_read:
        lines += [f"- {label}: {_code(line)}" for label, line in not_read(triage)]
    entries = timeline(triage)
    if len(entries) > 1:
        lines += ["", "### In order", ""]
        lines += [f"- {_plain(f'{entry.when}: {entry.what}')}" for entry in entries]
    for finding in triage.findings:
        lines += ["", f"### {finding.severity}: {_plain(finding.sentence)}", ""]
        lines.append(f"- finding: `{finding.kind.id}` ({finding.kind.certainty})")
        if finding.boot:
            lines.append(f"- when: {_plain(when(finding))}")
        lines += [f"- detail: {_plain(detail)}" for detail in details(finding)]
        lines += [f"- seen: {_code(place_line(place))}" for place in finding.places]
        if finding.also:
            lines.append(f"- also in: {', '.join(map(_code, finding.also))}")
        lines += [f"- with it: {_plain(under_line(each))}" for each in finding.under]
        if finding.after:
            lines.append(f"- after: {', '.join(map(_code, finding.after))}")
        lines.append(f"- means: {_plain(finding.meaning)}")
        if not finding.severity.counts:
            continue
        lines.append(f"- do: {_plain(finding.advice)}")
        lines.append(f"- versions: {_plain(finding.kind.versions)}")
        lines.append(f"- source: {_plain('; '.join(map(str, finding.kind.citations)))}")
    if triage.logs:
        lines += ["", "### Logs", ""]
        lines += [f"- {_plain(log_line(log))}" for log in triage.logs]
    if triage.skipped:
        lines += ["", "### Not read or not used", ""]
        lines += [f"- {_plain(line)}" for line in triage.skipped]
    return "\n".join(lines) + "\n"
