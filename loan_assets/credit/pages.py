"""A page that needs nothing but itself: its style, its tables, and the escaping of every word on it.

Here: HTML for any report. Not here: what a report says (`timeline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b2530;--soft:#566473;--rule:#dde3e9;--accent:#1659b7;--warm:#a84d08;
--third:#6d5a8c;--tint:#1659b726;--pale:#b9c7d6;--wash:#f4f6f8}
@media (prefers-color-scheme:dark){:root{--paper:#12171d;--ink:#e4e9ee;--soft:#9dabb9;--rule:#2a343f;--accent:#78aefc;
--warm:#f0a15a;--third:#bda6e2;--tint:#78aefc2e;--pale:#475667;--wash:#1a2129}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:2.2rem 1.4rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .2rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.8rem 0 .3rem}
h3{font-size:.95rem;margin:0;display:inline}
p{margin:.4rem 0;max-width:46rem}
.soft{color:var(--soft)}.small{font-size:.875rem}
.lead{font-size:1.13rem;line-height:1.55;max-width:50rem;margin:1.1rem 0 1.4rem}
.worth{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:0;margin:0;
border-top:1px solid var(--rule);border-bottom:1px solid var(--rule)}
.worth div{padding:.8rem 1rem .8rem 0}
.worth dt{font-size:.875rem;color:var(--soft)}
.worth dd{margin:0;font-size:1.75rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.25}
.worth dd small{display:block;font-size:.8rem;font-weight:400;color:var(--soft)}
.counts{display:flex;flex-wrap:wrap;gap:.3rem 1.5rem;list-style:none;padding:0;margin:.9rem 0 0}
.counts b{font-variant-numeric:tabular-nums}
.counts svg,.key svg{vertical-align:-.12em;margin-right:.4rem;overflow:visible}
.scroll{overflow-x:auto;margin:.6rem 0 0}
.panel{margin:0 0 .9rem}
.panel figcaption{position:sticky;left:0;width:max-content;max-width:min(100%,calc(100vw - 2.8rem));margin:0 0 .35rem}
.panel figcaption p{font-size:.84rem;color:var(--soft);margin:0;max-width:64rem}
.key{display:inline-block;margin:0 1.1rem 0 0;white-space:nowrap;color:var(--ink);font-size:.84rem}
svg{display:block;width:100%;height:auto;overflow:visible}
.key svg,.counts svg{display:inline-block;width:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}
.grid{stroke:var(--rule)}.upright{stroke:var(--accent);opacity:.55}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.policy{stroke:var(--accent)}.never{stroke:var(--pale);stroke-width:5.5}
.plain{stroke:var(--warm);stroke-dasharray:1 4;stroke-width:2.4}
.expected{stroke:var(--soft);stroke-dasharray:7 4;stroke-width:1.6}
.dot{stroke:none;fill:var(--soft)}.dot.policy{fill:var(--accent)}.dot.plain{fill:var(--warm)}
.dot.never{fill:var(--pale)}
.interval{fill:var(--tint)}
.bar{fill:var(--pale)}.bar.strong{fill:var(--warm)}
.limit{stroke:var(--ink);stroke-dasharray:3 3;stroke-width:1.2}
svg .limit-name{fill:var(--ink)}
svg .count{fill:var(--warm);font-weight:600;font-size:11px}
.aside-requests{fill:var(--pale);opacity:.38}.aside-outcomes{fill:url(#hatch)}
.hatch{stroke:var(--soft);stroke-width:1.6;opacity:.7}
.touch{fill:transparent}.touch:hover{fill:var(--ink);opacity:.09}
.cut{fill:var(--accent)}
.mark{fill:var(--ink);stroke:none}.mark.alarm{fill:var(--warm)}
.mark.retrain{fill:var(--paper);stroke:var(--ink);stroke-width:2}
.mark.promote{fill:var(--accent)}.mark.reject{fill:none;stroke:var(--ink);stroke-width:2.2}
.mark.rollback{fill:var(--third)}
.serves{fill:var(--tint);stroke:var(--accent)}svg .serves-name{fill:var(--ink);font-weight:600}
table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.6rem 0 0}
th,td{text-align:left;vertical-align:top;padding:.42rem 1rem .42rem 0;border-bottom:1px solid var(--rule)}
th{font-weight:600;color:var(--soft);font-size:.8rem;vertical-align:bottom;line-height:1.3}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.whole{white-space:nowrap}td.long{min-width:15rem}td.recipe{min-width:7rem}
th:last-child,td:last-child{padding-right:0}
.meter{display:inline-block;height:.55rem;background:var(--warm);vertical-align:middle;margin-left:.5rem}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,monospace}
@media (max-width:640px){main{padding:1.4rem 1rem 3rem}h1{font-size:1.4rem}.lead{font-size:1.03rem}
.worth{grid-template-columns:1fr}
.worth div{padding:.5rem 0}td.long{min-width:12rem}
table{font-size:.84rem}th,td{padding-right:.65rem}.worth dd{font-size:1.5rem}
.panel figcaption{max-width:calc(100vw - 2rem)}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--rule:#ccc;--accent:#1659b7;--warm:#a84d08;--third:#6d5a8c;
--tint:#1659b726;--pale:#b9c7d6}main{max-width:none;padding:0}body{font-size:10.5pt}.panel{min-width:0!important}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}figure,tr,.worth{break-inside:avoid}
table{font-size:8.5pt}td.long,td.recipe{min-width:0}th,td{padding-right:.5rem}h2{break-after:avoid}
.scroll{overflow:visible}.panel figcaption{position:static}}
"""


@dataclass(frozen=True, slots=True)
class Heading:
    """A column of a table: its name, and how its cells are set (`number`, `whole`, `long` or nothing)."""

    name: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Markup:
    """A piece that was escaped already, where a table would escape it."""

    html: str


Cell = str | Markup


def page(title: str, body: Sequence[str]) -> str:
    """A whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def paragraph(words: str, style: str = "") -> str:
    """A paragraph of plain words."""
    return f'<p class="{style}">{escape(words)}</p>' if style else f"<p>{escape(words)}</p>"


def section(title: str, parts: Sequence[str]) -> str:
    """A heading and what stands under it."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def table(headings: Sequence[Heading], rows: Sequence[Sequence[Cell]], otherwise: str) -> str:
    """A table that scrolls sideways where it must; a sentence where there are no rows."""
    if not rows:
        return paragraph(otherwise, "soft")
    head = "".join(f'<th scope="col"{_styled(one.style)}>{escape(one.name)}</th>' for one in headings)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_styled(one.style)}>{_cell(cell)}</td>" for one, cell in zip(headings, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'
    )


def _cell(cell: Cell) -> str:
    return cell.html if isinstance(cell, Markup) else escape(cell)


def _styled(style: str) -> str:
    return f' class="{style}"' if style else ""
