"""Node with the packages that Corral's own pages are built with: what is exported is built and checked with them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

MODULES = Path(__file__).parents[2] / "web" / "node_modules"


@pytest.fixture(scope="module")
def node() -> str:
    found = os.environ.get("NODE") or shutil.which("node")
    if found is None or not (MODULES / "vite").is_dir():
        pytest.skip("the packages of web/ are not installed: make web")
    return found


def run(node: str, folder: Path, script: str, *arguments: str) -> str:
    """What a script of those packages printed; it has to go well."""
    done = subprocess.run(
        [node, str(MODULES / script), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def checked(node: str, folder: Path, *, strict: bool) -> None:
    """The TypeScript of `folder` has no mistake of types."""
    options = {
        "target": "ES2022", "module": "ESNext", "moduleResolution": "bundler", "jsx": "react-jsx", "strict": strict,
        "noEmit": True, "skipLibCheck": True, "types": [], "lib": ["ES2023", "DOM", "DOM.Iterable"],
    }  # fmt: skip
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["*.tsx"]}))
    run(node, folder, "typescript/bin/tsc", "-p", ".")


def built(node: str, files: bytes, folder: Path) -> Path:
    """The project in the zip, built; the folder of what came of it."""
    with zipfile.ZipFile(io.BytesIO(files)) as archive:
        archive.extractall(folder)
    (root,) = folder.iterdir()
    (root / "node_modules").symlink_to(MODULES)
    run(node, root, "vite/bin/vite.js", "build")
    run(node, root, "typescript/bin/tsc", "--noEmit")
    return root / "dist"
