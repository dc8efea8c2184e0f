"""A service whose job or request is refused memory, and which goes on: serve.py WAY. Ends with 0."""

import http.server
import logging
import sys
import threading
import urllib.request


def eat():
    rows = []
    while True:
        rows.append(bytearray(1 << 20))


def handled():
    try:
        eat()
    except MemoryError:
        pass


def in_thread(job):
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()


def fail_otherwise():
    handled()
    raise KeyError("x")


def bare_thread():
    import _thread

    ended = threading.Event()

    class Tells:
        def __del__(self):
            ended.set()

    def job(_):
        eat()

    _thread.start_new_thread(job, (Tells(),))
    ended.wait()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/big":
            eat()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def request():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Threads that are still at work when the interpreter ends may need memory to end themselves.
    server.daemon_threads = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        urllib.request.urlopen("http://127.0.0.1:%d/big" % server.server_port).read()
    except OSError:
        pass
    server.shutdown()
    server.server_close()


def logged():
    try:
        eat()
    except Exception:
        logging.exception("request 7 failed")


WAYS = {
    "thread": lambda: in_thread(eat),
    "bare-thread": bare_thread,
    "request": request,
    "logged": lambda: in_thread(logged),
    "handled": lambda: in_thread(handled),
    "other": lambda: in_thread(fail_otherwise),
}
WAYS[sys.argv[1]]()
