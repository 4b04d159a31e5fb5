"""Versions on their way to a server, for the tests of publishing and pulling: made-up versions, a folder that follows a
source, and a server that only says what it has loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from job.errors import UserError
from job.storage import LocalStorage, open_storage
from serving.pull import Plan, Puller
from serving.registry import read_labels


def files(number: int) -> dict[str, bytes | Path]:
    return {"saved_model.pb": b"graph %d" % number, "variables/variables.data": bytes([number]) * 5000}


def add(source: str, *numbers: int) -> None:
    for number in numbers:
        assert open_storage(source).write_bundle(str(number), files(number))


class Follower:
    """A folder that follows a source; what it says is kept, and what its check should refuse is chosen."""

    def __init__(self, source: str, folder: Path, **plan: Any) -> None:
        self.said: list[str] = []
        self.bad: set[str] = set()
        self.checked: list[str] = []
        self.folder = folder
        self.plan = Plan(source, folder, **plan)
        self.puller = Puller(self.plan, self.check, self.said.append)

    def check(self, folder: Path) -> None:
        """Stands in for the warm-up check."""
        assert folder.name.startswith("."), "checked before any server could see it"
        graph = (folder / "saved_model.pb").read_text()
        self.checked.append(graph)
        if graph in self.bad:
            raise UserError("answers with other probabilities")

    def round(self) -> list[int]:
        """One round; the versions that a server sees afterwards."""
        self.puller.round()
        return self.here()

    def here(self) -> list[int]:
        """The versions that a server sees."""
        return sorted(int(each.name) for each in self.folder.iterdir() if each.name.isdecimal())

    def labels(self) -> dict[str, int]:
        """The labels that the local server reads."""
        return read_labels(LocalStorage(self.folder))


class FakeServer:
    """Says which versions are loaded, as TF Serving's REST API does; no model is needed for that."""

    def __init__(self) -> None:
        import threading
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        self.loaded: set[int] = set()
        self.known = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                states = [
                    {"version": str(number), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                    for number in outer.loaded
                ]
                content = {"model_version_status": states} if outer.known else {"error": "Servable not found"}
                body = json.dumps(content).encode()
                self.send_response(200 if outer.known else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops it."""
        self._http.shutdown()
        self._http.server_close()
