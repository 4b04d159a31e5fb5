"""The page for people, in headless Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import urllib3

from serving.client import RestClient
from tests.browser import Page, browse, find_chromium
from tests.serving_support import NAME, Server, place, write_labels


def use(steps: Callable[[Page], Awaitable[None]]) -> None:
    """Runs the steps in a fresh browser."""
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")

    async def run() -> None:
        async with browse(program) as page:
            await steps(page)

    asyncio.run(run())


def text(identifier: str) -> str:
    return f"document.getElementById({identifier!r}).innerText"


SHOWN = "!document.getElementById('answer').hidden"


def test_a_person_picks_a_scan_and_sees_what_it_is(server: Server, scans: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "scan.jpeg").write_bytes(scans["rgb.jpeg"])
    (tmp_path / "notes.png").write_bytes(b"no scan")
    with RestClient(server.url) as client:
        probability = float(client.predict_bytes([scans["rgb.jpeg"]])[0])

    async def steps(page: Page) -> None:
        for dark, width in ((False, 1200), (True, 360)):
            await page.look(dark=dark, width=width, height=800)
            await page.open(server.url)
            assert "not a medical device" in await page.evaluate(text("notice"))
            await page.until(f"{text('model')} === 'Model {NAME}, version 1'")
            await page.pick("#file", tmp_path / "scan.jpeg")
            await page.until(SHOWN)
            assert await page.evaluate(text("label")) == ("CT_COVID" if probability >= 0.5 else "CT_NonCOVID")
            assert await page.evaluate(text("probability")) == f"Probability of CT_COVID: {100 * probability:.1f}%"
            assert await page.evaluate("document.getElementById('mark').innerText") == "threshold 50.0%"
            assert await page.evaluate(text("source")) == "Answered by version 1, from run seed-0"
            await page.until("document.getElementById('preview').naturalWidth === 72")
            # Nothing is cut off, and nothing is hard to read.
            assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == ("rgb(20, 23, 28)" if dark else "rgb(246, 247, 249)")
        assert page.problems == []
        await page.pick("#file", tmp_path / "notes.png")
        assert "not a PNG or JPEG image" in await page.until(text("error"))
        assert not await page.evaluate(SHOWN)

    use(steps)


def test_a_person_drops_a_scan_and_chooses_a_version(
    exported: list[Path], scans: dict[str, bytes], tmp_path: Path
) -> None:
    for number in (1, 2):
        place(exported[number], tmp_path, number)
    write_labels(tmp_path, stable=1, canary=2)
    drop = f"""fetch('data:image/png;base64,{_base64(scans["gray.png"])}').then(r => r.blob()).then(blob => {{
        const data = new DataTransfer();
        data.items.add(new File([blob], 'scan.png'));
        document.getElementById('drop').dispatchEvent(
            new DragEvent('drop', {{dataTransfer: data, bubbles: true, cancelable: true}}));
    }})"""

    async def steps(page: Page) -> None:
        with Server(tmp_path) as server:
            await page.call("Page.setBypassCSP", enabled=True)  # for the test's own data: URL
            await page.open(server.url)
            options = "[...document.getElementById('version').options].map(each => each.text).join()"
            assert await page.until(options) == "version 2 (canary),version 1 (stable)"
            await page.evaluate(drop)
            await page.until(SHOWN)
            assert (await page.evaluate(text("source"))).startswith("Answered by version 2")
            await page.evaluate(
                "(choice => { choice.value = '1'; choice.dispatchEvent(new Event('change')); })"
                "(document.getElementById('version'))"
            )
            await page.until(f"{SHOWN} && {text('source')}.startsWith('Answered by version 1')")
            write_labels(tmp_path, stable=2)  # version 1 goes while the page still asks for it
            await page.until("fetch('versions.json').then(r => r.json()).then(c => c.versions.length === 1)")
            await page.evaluate(drop)
            await page.until(f"{SHOWN} && {text('source')}.startsWith('Answered by version 2')")

    use(steps)


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    response = urllib3.request("GET", f"{server.url}/")
    assert response.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "http://" not in response.data.decode()
    assert "https://" not in response.data.decode()


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()
