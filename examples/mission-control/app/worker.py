"""The webhook worker: takes deliveries from bearers of the token and works through them one by one."""

from __future__ import annotations

import json
import queue
import sys
import threading

import server

MAX_WAITING = 1000


class Deliveries:
    """Deliveries that wait, and the one thread that handles them."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[object] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.handled = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def accept(self, request: server.Request) -> server.Reply:
        """Answer 202 once the delivery is queued; 400 where it is not JSON, 503 while the queue is full."""
        try:
            self._waiting.put_nowait(json.loads(request.body))
        except ValueError:
            return server.json_reply(400, {"error": "a delivery is a JSON document"})
        except queue.Full:
            return server.json_reply(503, {"error": "too many deliveries wait"}, (("Retry-After", "1"),))
        return server.json_reply(202, {"queued": True})

    def alive(self) -> bool:
        """Tell whether the thread still works: a worker that only answers is not healthy."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while True:
            delivery = self._waiting.get()
            event = delivery.get("event") if isinstance(delivery, dict) else None
            self.handled += 1
            server.log(f"delivery {self.handled} handled: event {event!r}")


def main() -> int:
    """Serve until it is told to end."""
    fault = server.baked_fault()
    deliveries = Deliveries()

    def health(_: server.Request) -> server.Reply:
        if not deliveries.alive():
            return server.json_reply(503, {"status": "fail", "handled": deliveries.handled})
        return server.health_reply(fault, handled=deliveries.handled)

    routes = {
        ("GET", "/healthz"): health,
        ("GET", "/version"): lambda _: server.version_reply("worker", fault),
        ("POST", "/webhooks"): server.bearer_only(deliveries.accept),
    }
    return server.serve("worker", routes, fault, on_start=deliveries.start)


if __name__ == "__main__":
    sys.exit(main())
