"""From an edit to its picture in the preview: of a prop, and of the code.

    python -m benchmarks.preview [--edits N]

A real Chromium looks at a component of a hundred rows. The page itself measures, by its own marks: from the event of
the edit to the task after the picture with what was edited. An edit of code waits for a pause in the typing first (80
ms), is compiled, and is run in a fresh frame. Beside them what the least edit costs, of a text in the page's own
document.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.serving import served

if TYPE_CHECKING:
    from collections.abc import Sequence

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PAUSE = 80
SOURCE = """\
import { useState } from "react";

export default function Rows({ title = "Rows", many = 100 }: { title?: string; many?: number }) {
  const [chosen, choose] = useState(0);
  return (
    <section>
      <h3>{title} 0</h3>
      <ul>
        {Array.from({ length: many }, (_, row) => (
          <li key={row}><button onClick={() => choose(row)}>{title} {row}{row === chosen ? " *" : ""}</button></li>
        ))}
      </ul>
    </section>
  );
}
"""
LEAST = """
() => new Promise(resolve => {
    const begun = performance.now();
    const painted = new MessageChannel();
    painted.port1.onmessage = () => resolve(performance.now() - begun);
    document.querySelector('h2').textContent = 'Rows ' + begun;
    requestAnimationFrame(() => painted.port2.postMessage(null));
})
"""


async def put(url: str) -> str:
    """The address of the component's preview."""
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        async with session.post(f"{url}/api/v1/projects", json={"name": "bench"}) as answer:
            project = (await answer.json())["project"]["id"]
        path = f"{url}/api/v1/artifacts/content?project={project}&name=Rows.tsx"
        async with session.post(path, data=SOURCE.encode(), headers={"content-type": "text/tsx"}) as answer:
            artifact = (await answer.json())["artifact"]["id"]
    return f"{url}/ui/preview.html?artifact={artifact}"


async def measured(page: Any, name: str) -> float:
    """Milliseconds of the one measure of that name, which is taken away."""
    await page.wait_for_function("name => performance.getEntriesByName(name).length > 0", arg=name)
    taken = await page.evaluate("name => performance.getEntriesByName(name).at(-1).duration", name)
    await page.evaluate("name => performance.clearMeasures(name)", name)
    return float(taken)


async def look(page: Any, address: str, edits: int) -> dict[str, list[float]]:
    """Milliseconds by what was edited."""
    await page.goto(address)
    await page.frame_locator(".host iframe").get_by_text("Rows 99").wait_for()
    props, codes, least = [], [], []
    for number in range(edits):
        await page.get_by_label("title", exact=True).fill(f"Sheep {number}")
        props.append(await measured(page, "corral:props:painted"))
        least.append(float(await page.evaluate(LEAST)))
    await page.get_by_role("tab", name="Code").click()
    await page.locator(".cm-content").click()
    for number in range(edits):
        await page.keyboard.press("ControlOrMeta+a")
        await page.evaluate("performance.clearMarks()")
        await page.keyboard.insert_text(SOURCE.replace("{title} 0<", f"{{title}} {number + 1}<"))
        codes.append(await measured(page, "corral:code:painted"))
        await (
            page.frame_locator(".host iframe:not(.waiting)")
            .get_by_text(f"Sheep {edits - 1} {number + 1}")
            .first.wait_for()
        )
    return {"a text of the page": least, "a prop": props, "the code": codes}


async def measure(edits: int) -> dict[str, list[float]]:
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as home:
        async with served({"home": Path(home)}) as (url, _), async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            try:
                page = await browser.new_page()
                return await look(page, await put(url), edits)
            finally:
                await browser.close()


def printed(what: str, taken: Sequence[float]) -> str:
    """One line of figures."""
    ordered = sorted(taken)
    return f"{what:20} p50 {statistics.median(ordered):6.1f} ms  p95 {ordered[len(ordered) * 95 // 100]:6.1f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=40)
    given = parser.parse_args()
    taken = asyncio.run(measure(given.edits))
    for what, found in taken.items():
        print(printed(what, found))
    prop, code = (statistics.median(taken[what]) for what in ("a prop", "the code"))
    print(f"ratio   {prop / statistics.median(taken['a text of the page']):.1f} of a prop over a text of the page")
    print(f"        {code - PAUSE:.1f} ms of the code without the pause in the typing ({PAUSE} ms)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
