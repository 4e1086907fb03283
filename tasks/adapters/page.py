"""Building blocks of a self-contained HTML page: style, tables, pictures, interval bars. Standard library only."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root{--ground:#fbfaf8;--card:#fff;--ink:#23272e;--soft:#6a7280;--line:#e4e2dd;--accent:#0f766e;--green:#1f9d57;
--red:#e0364a;--amber:#b7791f;--shade:#f3f1ec}
@media(prefers-color-scheme:dark){:root{--ground:#14171c;--card:#1c2027;--ink:#e6e8ec;--soft:#98a1af;--line:#2d333d;
--accent:#4fd1c5;--green:#2ecc71;--red:#ff6474;--amber:#f0b95b;--shade:#232831}}
*{box-sizing:border-box}html{scroll-behavior:smooth}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header>div,nav>div{max-width:1120px;margin:0 auto;padding:0 24px}
header{padding:44px 0 20px}h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.02em}
h2{font-size:20px;margin:52px 0 6px;letter-spacing:-.01em}h3{font-size:15px;margin:26px 0 8px}
p{margin:6px 0 12px;max-width:76ch}.soft,figcaption,th,.note{color:var(--soft)}
a{color:var(--accent);text-decoration:none}
nav{position:sticky;top:0;background:var(--ground);border-bottom:1px solid var(--line);z-index:3}
nav>div{display:flex;gap:20px;flex-wrap:wrap;padding-top:9px;padding-bottom:9px;font-size:13px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(235px,1fr));gap:14px;margin:22px 0 8px}
.card,.scene,.box{background:var(--card);border:1px solid var(--line);border-radius:12px}
.card{padding:15px 18px}.card b{display:block;font-size:31px;line-height:1.15;font-weight:650;letter-spacing:-.02em}
.card .name{font-size:13px;color:var(--soft)}.card .rival{font-size:13px;margin-top:2px}
.box{padding:4px 16px;overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;width:100%;font-size:13.5px}th{text-align:left;font-weight:500;font-size:12.5px}
th,td{padding:7px 14px 7px 0;border-bottom:1px solid var(--line);vertical-align:middle}tr:last-child td{border-bottom:0}
td.n,th.n{text-align:right;white-space:nowrap}td.w{white-space:normal;min-width:230px}td small{color:var(--soft)}
td.m{font-weight:650}code{font:12.5px ui-monospace,SFMono-Regular,Menlo,monospace}
figure{margin:0}figure.plot svg{width:100%;height:auto;display:block}
.scenes{display:grid;grid-template-columns:repeat(2,1fr);gap:14px}
.scene{padding:12px 14px 14px;grid-column:span 2;min-width:0}
.scene.small{grid-column:span 1}.scene>p{margin:0 0 8px;font-size:13px;max-width:none}
.title{display:flex;align-items:center;gap:6px;margin-bottom:2px}.title .dot{flex:none;margin:0}
.title span.what{white-space:nowrap;overflow:hidden;text-overflow:ellipsis;flex:1}
.panels{display:grid;grid-template-columns:repeat(var(--n),minmax(0,1fr));gap:12px}
.panel .view{position:relative;border-radius:7px;overflow:hidden;line-height:0;background:var(--shade)}
.panel img{width:100%;display:block}.panel svg{position:absolute;inset:0;width:100%;height:100%}
.panel figcaption{font-size:12.5px;line-height:1.35;padding-top:6px;color:var(--ink)}
.key{display:inline-block;margin-right:16px}
.dot{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:6px}
.tag{font-size:10.5px;line-height:1.5;padding:0 6px;border-radius:99px;border:1px solid currentColor;white-space:nowrap}
.sounding{color:var(--green)}.silent{color:var(--red)}.absent{color:var(--amber)}
.bar{height:4px;border-radius:3px;background:var(--shade);margin-top:5px}
.bar i{display:block;height:4px;border-radius:3px}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent);font-size:14px}
footer{color:var(--soft);font-size:13px;padding:46px 0 60px}
@media(max-width:720px){.scene.small{grid-column:span 2}.panels{grid-template-columns:repeat(2,1fr)}h1{font-size:24px}}
"""
BASELINE_COLOURS = ("#8b93a1", "#d08b2c", "#7a6ff0", "#d6569a", "#4a90d9")


def document(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """Return a page.

    Args:
        title: plain text.
        subtitle: HTML.
        sections: (anchor, title, HTML) in order; an empty title adds no heading and no link.
    """
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in sections if name)
    body = "".join(
        f'<section id="{anchor}">{f"<h2>{escape(name)}</h2>" if name else ""}{html}</section>'
        for anchor, name, html in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f"<header><div><h1>{escape(title)}</h1>{subtitle}</div></header><nav><div>{links}</div></nav>"
        f"<main>{body}<footer>Made by dsol. Everything is inside this file.</footer></main></body></html>"
    )


def text(value: Any) -> str:
    """Escape a value for HTML."""
    return escape(str(value))


def paragraph(html: str, kind: str = "") -> str:
    """Return a paragraph of HTML."""
    return f'<p class="{kind}">{html}</p>' if kind else f"<p>{html}</p>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = (), wide: int = -1) -> str:
    """Return a table of HTML cells.

    Args:
        heads: of the columns, HTML.
        rows: of cells, HTML.
        numbers: columns that stand to the right.
        wide: column that may break its lines.
    """
    right = set(numbers)

    def cells(tag: str, row: Sequence[str]) -> str:
        kind = [' class="n"' if i in right else ' class="w"' if i == wide else "" for i in range(len(row))]
        return "".join(f"<{tag}{kind[i]}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="box"><table><thead><tr>{cells("th", heads)}</tr></thead><tbody>{body}</tbody></table></div>'


def picture(data: bytes, description: str, overlay: str = "") -> str:
    """Return a JPEG with a drawing over it."""
    source = base64.b64encode(data).decode()
    shown = f'<img loading="lazy" alt="{escape(description)}" src="data:image/jpeg;base64,{source}">'
    return f'<div class="view">{shown}{overlay}</div>'


def boxes(found: Iterable[tuple[float, float, float, float, bool, str]]) -> str:
    """Return boxes to lay over a picture: x, y, width, height as fractions, whether it sounds, its name."""
    drawn = "".join(
        f'<rect x="{100 * x:.2f}" y="{100 * y:.2f}" width="{100 * w:.2f}" height="{100 * h:.2f}" fill="none" '
        f'stroke="{"#2ecc71" if sounding else "#ff4757"}" stroke-width="2.5" vector-effect="non-scaling-stroke">'
        f"<title>{escape(name)}</title></rect>"
        for x, y, w, h, sounding, name in found
    )
    return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{drawn}</svg>' if drawn else ""


def interval(value: float, low: float, high: float, rivals: Mapping[str, float | None], width: int = 190) -> str:
    """Return a bar from 0 to 1: the value with its interval, a tick a rival that is known."""

    def at(share: float) -> str:
        return f"{4 + (width - 8) * min(1.0, max(0.0, share)):.1f}"

    ticks = "".join(
        f'<line x1="{at(rival)}" x2="{at(rival)}" y1="4" y2="16" stroke="{colour}" stroke-width="2"><title>'
        f"{escape(name)} {rival:.3f}</title></line>"
        for (name, rival), colour in zip(rivals.items(), BASELINE_COLOURS, strict=False)
        if rival is not None
    )
    return (
        f'<svg width="{width}" height="20" viewBox="0 0 {width} 20" role="img" aria-label="{value:.3f}">'
        f'<line x1="4" x2="{width - 4}" y1="10" y2="10" stroke="var(--line)" stroke-width="2"/>{ticks}'
        f'<line x1="{at(low)}" x2="{at(high)}" y1="10" y2="10" stroke="var(--accent)" stroke-width="4" '
        f'stroke-linecap="round"/><circle cx="{at(value)}" cy="10" r="4.5" fill="var(--accent)"/></svg>'
    )


def legend(names: Sequence[str]) -> str:
    """Return what the ticks of `interval` mean."""
    rivals = "".join(
        f'<span class="key"><span class="dot" style="background:{colour}"></span>{escape(name)}</span>'
        for name, colour in zip(names, BASELINE_COLOURS, strict=False)
    )
    own = '<span class="dot" style="background:var(--accent)"></span>this model, 95 % interval'
    return f'<p class="note"><span class="key">{own}</span>{rivals}</p>'


def dot(colour: tuple[int, int, int]) -> str:
    """Return a dot of a class's colour."""
    return f'<span class="dot" style="background:rgb{colour}"></span>'


def share_bar(share: float, colour: tuple[int, int, int], width: str = "100%") -> str:
    """Return a thin bar filled as far as a share says."""
    return (
        f'<div class="bar" style="width:{width}"><i style="width:{100 * share:.1f}%;background:rgb{colour}"></i></div>'
    )


def grid(scenes: Iterable[str]) -> str:
    """Return scenes below, and where they are small beside, each other."""
    return f'<div class="scenes">{"".join(scenes)}</div>'


def details(title: str, html: str) -> str:
    """Return HTML that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"
