"""A component or a page as a project that Vite builds, in a zip. Pure.

    counter/
    ├── package.json       the scripts dev, build, preview and types, every version exact
    ├── index.html         of a component: where it is drawn; of a page: the page itself
    ├── vite.config.ts     addresses are relative: what is built works in any folder
    ├── tsconfig.json
    ├── README.md
    ├── .gitignore
    ├── src/main.tsx       draws the component, with a value for each prop that it must be given
    ├── src/…              the component and the files that it imports, by their names
    └── public/…           of a page: scripts that are no modules

The same artifact gives the same bytes.
"""

from __future__ import annotations

import html
import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from corral.errors import NotSupported
from corral.workspace.code.languages import kind_of
from corral.workspace.exports.exported import Exported, Material
from corral.workspace.exports.framer import control_of, title
from corral.workspace.exports.html import Reference, rewritten, sorted_out
from corral.workspace.exports.modules import SCRIPTS, check_whole, completed, exports, imports, package
from corral.workspace.exports.modules import resolve as within

if TYPE_CHECKING:
    from corral.workspace.code.components import Component
    from corral.workspace.exports.modules import Import

VERSIONS = {
    "@types/react": "19.3.0",
    "@types/react-dom": "19.3.0",
    "@vitejs/plugin-react": "6.3.0",
    "react": "19.3.1",
    "react-dom": "19.3.1",
    "typescript": "7.0.2",
    "vite": "8.3.8",
}
"""What the project is built with: the versions that Corral's own pages are built with, and so is tested."""

_RUN = {"dev": "vite", "build": "vite build", "preview": "vite preview"}
_OPTIONS = {
    "target": "ES2022",
    "module": "ESNext",
    "moduleResolution": "bundler",
    "lib": ["ES2023", "DOM", "DOM.Iterable"],
    "jsx": "react-jsx",
    "types": ["vite/client"],
    "allowJs": True,
    "noEmit": True,
    "skipLibCheck": True,
    "resolveJsonModule": True,
}
_INDEX = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>{title}</title>
  </head>
  <body>
    <div id="root"></div>
    <script type="module" src="./{main}"></script>
  </body>
</html>
"""
_CONFIG = """import { defineConfig } from "vite"

export default defineConfig({ base: "./", resolve: { alias: { "@": "HOME" } } })
"""
_CONFIG_REACT = """import react from "@vitejs/plugin-react"
import { defineConfig } from "vite"

export default defineConfig({ base: "./", resolve: { alias: { "@": "HOME" } }, plugins: [react()] })
"""
_README = """# {title}

```console
$ npm install
$ npm run dev        # at work, drawn again with every change
$ npm run build      # into dist/
$ npm run preview    # what was built
```
"""


def project(material: Material, component: Component | None) -> Exported:
    """The artifact as a zip whose one folder is a project for `npm install && npm run build`.

    Raises:
        NotSupported, InvalidRequest: as `tree`.
    """
    files, notes = tree(material, component)
    name, made = folder(material), io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            # A fixed time, the earliest that a zip can tell: contents alone decide about the bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}/{path}"), files[path], zipfile.ZIP_DEFLATED)
    return Exported(f"{name}.zip", "application/zip", made.getvalue(), notes)


def folder(material: Material) -> str:
    """What the project is called: a name that npm takes."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", material.stem)
    return re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-") or "component"


def tree(material: Material, component: Component | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """The project's files by their names, and what should be known of them.

    Raises:
        NotSupported: it is neither a component, nor a script, nor a page.
        InvalidRequest: it imports a file that is not there.
    """
    if material.kind == "html":
        return _page(material)
    if material.kind not in SCRIPTS:
        raise NotSupported(
            f"A Vite project is made of a component, a script or a page; {material.path} is {material.kind}.",
            "Export it as a plain file.",
        )
    check_whole(material.files, material.kinds)
    lead = "" if all(path.startswith("src/") for path in material.files) else "src/"
    files = {lead + path: completed(text, material.language(path)) for path, text in material.files.items()}
    there = lead + material.path
    main = next(name for name in _mains(material.kind) if name not in files)
    files[main] = _main(there, component, material, files)
    needed = {package(item.specifier) for path, text in files.items() for item in _bare(path, text)}
    needed |= {"react", "react-dom"} if component is not None else set()
    headline = material.title or (component.name if component is not None else material.stem)
    files["index.html"] = _INDEX.format(title=html.escape(headline), main=main)
    files |= _around(folder(material), headline, needed, strict=material.kind in ("tsx", "ts"), home=f"{lead}src")
    return files, _left_open(needed)


def given(component: Component | None) -> tuple[dict[str, Any], list[str]]:
    """Values for the props that a component must be given, and the names of those that are functions.

    A value is the one that Framer's panel would begin with; a list is empty, an object too.
    """
    values, functions = dict[str, Any](), list[str]()
    for prop in component.props if component is not None else ():
        if not prop.required or prop.name in ("key", "ref"):
            continue
        control = control_of(prop)
        if prop.type == "function":
            functions.append(prop.name)
        elif control is not None and "defaultValue" in control:
            values[prop.name] = control["defaultValue"]
        elif prop.type in ("array", "object", "node"):
            values[prop.name] = {"array": [], "object": {}, "node": title(prop.name)}[prop.type]
    return values, functions


def _bare(path: str, text: str) -> list[Import]:
    return [item for item in imports(text, kind_of(path)) if not item.relative]


def _mains(kind: str) -> list[str]:
    """Names for the file that begins it all, in the order in which they are tried."""
    suffix = "jsx" if kind in ("jsx", "js") else "tsx"
    return [f"src/{stem}.{suffix}" for stem in ("main", "start", "entry", *(f"main{n}" for n in range(100)))]


def _main(there: str, component: Component | None, material: Material, files: dict[str, str]) -> str:
    """The source of the file that begins it all. A component that is not exported is exported in `files`."""
    lead = there.removesuffix(material.path)
    sheets = "".join(f'import "./{(lead + path).removeprefix("src/")}"\n' for path in material.sheets)
    address = "./" + re.sub(r"\.(tsx|jsx|ts|js)\Z", "", there.removeprefix("src/"))
    if component is None:
        return f'{sheets}import "{address}"\n'
    default, named = exports(files[there], material.kind)
    if not default and component.name not in named:
        files[there] = f"{files[there].rstrip()}\n\nexport default {component.name}\n"
        default = True
    brought = "Component" if default else f"{{ {component.name} as Component }}"
    values, functions = given(component)
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    written |= dict.fromkeys(functions, "() => undefined")
    props = "".join(f"  {json.dumps(name)}: {value},\n" for name, value in written.items())
    begun = f"const props = {{\n{props}}}\n\n" if props else ""
    mark = "" if material.kind in ("jsx", "js") else "!"
    return (
        'import { StrictMode } from "react"\nimport { createRoot } from "react-dom/client"\n'
        f'{sheets}import {brought} from "{address}"\n\n{begun}'
        f'createRoot(document.getElementById("root"){mark}).render(\n  <StrictMode>\n'
        f"    <Component{' {...props}' if props else ''} />\n  </StrictMode>,\n)\n"
    )


def _page(material: Material) -> tuple[dict[str, str], tuple[str, ...]]:
    """A page's project: Vite bundles style sheets and modules; other scripts it leaves as they are."""
    files, addresses = dict[str, str](), dict[Reference, str]()
    known, notes = sorted_out(material)
    for reference, there in known.items():
        public = reference.tag == "script" and not reference.module
        addresses[reference] = f"./{there}"
        files[f"public/{there}" if public else there] = material.files[there]
    modules = [path for path in files if not path.startswith("public/")]
    for path in modules:
        for item in imports(files[path], kind_of(path)):
            brought = within(item.specifier, path, material.files) if item.relative else None
            if brought is not None and brought not in files:
                files[brought] = material.files[brought]
                modules.append(brought)
    files["index.html"] = rewritten(material.source, addresses)
    needed = {package(item.specifier) for path in modules for item in _bare(path, files[path])}
    files |= _around(folder(material), material.title or material.stem, needed, strict=False)
    return files, (*notes, *_left_open(needed))


def _left_open(needed: set[str]) -> tuple[str, ...]:
    """A note on each package whose version is not known here."""
    return tuple(f"The version of {name} is left open: Corral knows none." for name in sorted(needed - VERSIONS.keys()))


def _around(name: str, headline: str, needed: set[str], *, strict: bool, home: str = "src") -> dict[str, str]:
    """The files that every project has; `needed` are the packages that its sources import, `home` their `@`."""
    react = "react" in needed
    tools = ["typescript", "vite", *(["@types/react", "@types/react-dom", "@vitejs/plugin-react"] if react else [])]
    described = {
        "name": name,
        "private": True,
        "version": "0.0.0",
        "type": "module",
        "scripts": _RUN | {"types": "tsc --noEmit"},
        "dependencies": {name: VERSIONS.get(name, "*") for name in sorted(needed)},
        "devDependencies": {name: VERSIONS[name] for name in sorted(tools)},
    }
    options = _OPTIONS | {"strict": strict, "paths": {"@/*": [f"./{home}/*"]}}
    compiler = {"compilerOptions": options, "include": ["."], "exclude": ["dist", "public"]}
    return {
        "package.json": json.dumps(described, indent=2, ensure_ascii=False) + "\n",
        "tsconfig.json": json.dumps(compiler, indent=2) + "\n",
        "vite.config.ts": (_CONFIG_REACT if react else _CONFIG).replace("HOME", f"/{home}"),
        ".gitignore": "node_modules\ndist\n",
        "README.md": _README.format(title=headline.replace("\n", " ")),
    }
