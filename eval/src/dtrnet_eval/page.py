"""The report's two forms: one HTML page without outside parts, and Markdown with pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import NamedTuple

from dtrnet_eval.picture import DARK, LIGHT, Picture
from dtrnet_eval.tables import Table
from dtrnet_eval.tasks import DATA

VARIABLES = {
    "light": {
        "page": "#ffffff",
        "ink": "#1c1c1c",
        "dim": "#555555",
        "grid": "#c9c9c8",
        "warn": "#9a3412",
        "good": "#dcfce7",
        "heat": "15,118,110",
    },
    "dark": {
        "page": "#15171a",
        "ink": "#e7e7e7",
        "dim": "#a8adb4",
        "grid": "#454a52",
        "warn": "#fdba74",
        "good": "#14351f",
        "heat": "45,212,191",
    },
}


def _variables(theme: str, series: tuple[str, ...]) -> str:
    named = {**VARIABLES[theme], **{f"s{n}": value for n, value in enumerate(series)}}
    return "".join(f"--{name}:{value};" for name, value in named.items())


FILES = DATA / "report"


def _style() -> str:
    """Variables of both settings, then page.css."""
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables('dark', DARK)} }} }}"
    return f":root {{ color-scheme: light dark; {_variables('light', LIGHT)} }}\n{dark}\n{(FILES / 'page.css').read_text()}"


class Part(NamedTuple):
    """A section: its text, and any of a table, a picture and HTML of its own (which Markdown leaves out)."""

    title: str
    text: str
    table: Table | None = None
    picture: Picture | None = None
    markup: str = ""

    @property
    def anchor(self) -> str:
        """For links."""
        return self.title.lower().replace(" ", "-")

    def file(self, stem: str) -> str:
        """Name of the picture beside `stem`.md."""
        return f"{stem}-{self.anchor}.png"

    @property
    def empty(self) -> bool:
        """True if there is nothing to show."""
        return not (self.table and self.table.rows) and not self.picture and not self.markup


def as_markdown(title: str, parts: list[Part], stem: str) -> str:
    """Markdown; the pictures lie beside it."""
    lines = [f"# {title}", ""]
    for part in parts:
        if not (part.table and part.table.rows) and not part.picture:
            continue
        lines += [f"## {part.title}", "", *([part.text, ""] if part.text else [])]
        if part.table and part.table.rows:
            head = [cell.as_markdown() for cell in part.table.head]
            rows = [head, ["---"] * len(head), *([cell.as_markdown() for cell in row] for row in part.table.rows)]
            lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
        if part.picture:
            lines += [f"![{part.title}]({part.file(stem)})", ""]
    return "\n".join(lines)


def _table(part: Part, table: Table) -> str:
    head = "".join(f'<th scope="col">{cell.as_html()}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{row[0].as_html()}</th>' + "".join(f"<td>{cell.as_html()}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(part.title)}, table">{inside}</div>'


def _picture(part: Part, picture: Picture) -> str:
    name = html.escape(part.title)
    svg = picture.svg.replace("<svg", f'<svg role="img" aria-label="{name}, picture"', 1)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}, drawing">{svg}</div>'


def _section(part: Part) -> str:
    out = f'<section><h2 id="{part.anchor}">{html.escape(part.title)}</h2>'
    out += f'<p class="note">{html.escape(part.text)}</p>' if part.text else ""
    out += _table(part, part.table) if part.table and part.table.rows else ""
    return out + (_picture(part, part.picture) if part.picture else "") + part.markup + "</section>"


def as_html(title: str, parts: list[Part]) -> str:
    """One page; its policy lets a browser load nothing else, and run no script but the filter of items."""
    script = (FILES / "items.js").read_text() if any(part.markup for part in parts) else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'" + (f"; script-src 'sha256-{digest}'" if script else "")
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"><title>{html.escape(title)}</title>'
    head += f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_style()}</style>'
    links = "".join(f'<a href="#{part.anchor}">{html.escape(part.title)}</a> ' for part in parts)
    body = f'<header><h1>{html.escape(title)}</h1></header><nav aria-label="sections">{links}</nav>'
    body += f"<main>{''.join(map(_section, parts))}</main>" + (f"<script>{script}</script>" if script else "")
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
