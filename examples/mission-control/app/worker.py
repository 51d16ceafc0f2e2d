"""The webhook worker: takes deliveries from bearers of the token and works through them one by one."""

from __future__ import annotations

import json
import queue
import sys
import threading

from server import (
    Reply,
    Request,
    baked_fault,
    bearer_only,
    health_reply,
    json_reply,
    log,
    serve,
    version_reply,
)

MAX_WAITING = 1000


class Deliveries:
    """Deliveries that wait, and the one thread that handles them."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[object] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.handled = 0

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def accept(self, request: Request) -> Reply:
        """202 once the delivery is queued; 400 where it is not JSON, 503 while the queue is full."""
        try:
            self._waiting.put_nowait(json.loads(request.body))
        except ValueError:
            return json_reply(400, {"error": "a delivery is a JSON document"})
        except queue.Full:
            return json_reply(503, {"error": "too many deliveries wait"}, (("Retry-After", "1"),))
        return json_reply(202, {"queued": True})

    def alive(self) -> bool:
        """Whether the thread still works: a worker that only answers is not healthy."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while True:
            delivery = self._waiting.get()
            event = delivery.get("event") if isinstance(delivery, dict) else None
            self.handled += 1
            log(f"delivery {self.handled} handled: event {event!r}")


def main() -> int:
    """Serves until it is told to end."""
    fault = baked_fault()
    deliveries = Deliveries()

    def health(_: Request) -> Reply:
        if not deliveries.alive():
            return json_reply(503, {"status": "fail", "handled": deliveries.handled})
        return health_reply(fault, handled=deliveries.handled)

    routes = {
        ("GET", "/healthz"): health,
        ("GET", "/version"): lambda _: version_reply("worker", fault),
        ("POST", "/webhooks"): bearer_only(deliveries.accept),
    }
    deliveries.start()
    return serve("worker", routes, fault)


if __name__ == "__main__":
    sys.exit(main())
