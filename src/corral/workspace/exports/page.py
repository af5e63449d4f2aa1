"""An artifact as one HTML file that needs nothing else: no server, no network, no other file.

tsx, jsx, ts, js     its files and the built script of Corral's own pages, which compiles and draws them in the
                     browser; a policy in the page lets in that one script and no address
html                 the page as it was written, with the local files that it refers to inside of it
svg                  the picture on a page, as a picture: what scripts are in it do not run
markdown             as it reads; HTML in it is shown and not meant
any other            its text, coloured
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import NotSupported, UiMissing
from corral.workspace.code.languages import KINDS, kind_of
from corral.workspace.exports.exported import Exported, Material
from corral.workspace.exports.html import Reference, rewritten, sorted_out
from corral.workspace.exports.modules import OURS, SCRIPTS, check_whole, completed, imports, package
from corral.workspace.exports.vite import given

if TYPE_CHECKING:
    from corral.workspace.code.components import Component

ASSETS = Path(__file__).parents[2] / "ui"
"""Where the built files of Corral's pages lie."""

SCRIPT = "single.js"
"""The one of them that compiles and draws a component on a page of its own."""

_STYLE = """
body { margin: 0; padding: 2rem; font: 16px/1.6 system-ui, sans-serif; color: #1b1b1f; background: #fff; }
main { max-width: 46rem; margin: 0 auto; overflow-wrap: anywhere; }
pre { padding: 1rem; overflow: auto; background: #f4f4f6; font: 14px/1.5 ui-monospace, monospace; }
img { max-width: 100%; } table { border-collapse: collapse; } td, th { border: 1px solid #ccc; padding: .3rem .6rem; }
"""


def page(material: Material, component: Component | None, assets: Path = ASSETS) -> Exported:
    """The artifact as a file that a browser opens from anywhere. Blocks, where it has to read the built script.

    Raises:
        UiMissing: it is a component, and Corral's own pages are not built.
        NotSupported: it imports what a single file cannot hold.
        InvalidRequest: it imports a file that is not there.
    """
    title, notes = material.title or material.stem, tuple[str, ...]()
    if material.kind in SCRIPTS:
        text, notes = _component(material, component, assets)
    elif material.kind == "html":
        text, notes = _whole(material)
    elif material.kind == "svg":
        picture = f'<img src="{_data("image/svg+xml", material.source)}" alt="{html.escape(title)}">'
        text = _document(title, _policy(), f"<main>{picture}</main>", _STYLE)
    elif material.kind == "markdown":
        from markdown_it import MarkdownIt

        read = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
        text = _document(title, _policy(), f"<main>{read.render(material.source)}</main>", _STYLE)
    else:
        text = _document(title, _policy(), _coloured(material), _STYLE)
    return Exported(f"{material.stem}.html", "text/html", text.encode(), notes)


def _component(material: Material, component: Component | None, assets: Path) -> tuple[str, tuple[str, ...]]:
    try:
        script = (assets / SCRIPT).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UiMissing(
            f"Corral's own pages are not built: there is no {SCRIPT}, which a component's page needs.",
            "Build them: make web",
        ) from error
    check_whole(material.files, material.kinds)
    files = {path: completed(text, material.language(path)) for path, text in material.files.items()}
    for path, text in files.items():
        for item in imports(text, material.language(path)):
            if not item.relative and item.specifier not in OURS:
                raise NotSupported(
                    f"{path} imports {package(item.specifier)}, and a single page has no packages but React.",
                    "Export it as a Vite project.",
                )
    values, functions = given(component)
    described = {
        "files": [{"name": path, "kind": material.language(path), "content": text} for path, text in files.items()],
        "entry": material.path,
        "component": None if component is None else component.name,
        "sheets": list(material.sheets),
        "props": values,
        "functions": functions,
    }
    # An element of data ends where the browser sees `</script`, whatever JSON says.
    data = json.dumps(described, ensure_ascii=False).replace("<", "\\u003c")
    # Behind `<!--`, it goes on until the end of that comment, which is nowhere.
    script = script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    body = (
        '<div id="corral"></div><div id="root"></div>\n'
        f'<script type="application/json" id="corral-artifact">{data}</script>\n<script>{script}</script>'
    )
    # The component's own code is made in the browser, from text.
    policy = _policy(f"script-src 'sha256-{hashed}' 'unsafe-eval'")
    return _document(material.title or material.stem, policy, body), ()


def _whole(material: Material) -> tuple[str, tuple[str, ...]]:
    """The page with each local file in the place of its address."""
    addresses = dict[Reference, str]()
    known, notes = sorted_out(material)
    for reference, there in known.items():
        text = material.files[there]
        if reference.module and any(item.relative for item in imports(text, kind_of(there))):
            raise NotSupported(
                f"{there} imports other files, which one page cannot hold.", "Export it as a Vite project."
            )
        addresses[reference] = _data(KINDS[kind_of(there)].media_type, text)
    return rewritten(material.source, addresses), notes


def _coloured(material: Material) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    lexer = get_lexer_by_name(material.kind, stripnl=False)
    return str(highlight(material.source, lexer, HtmlFormatter(noclasses=True, style="friendly")))


def _policy(*more: str) -> str:
    return "; ".join(
        ("default-src 'none'", "style-src 'unsafe-inline'", "img-src data: blob:", "font-src data:", *more)
    )


def _data(media_type: str, text: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(text.encode()).decode()}"


def _document(title: str, policy: str, body: str, style: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n{f'<style>{style}</style>' if style else ''}\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
