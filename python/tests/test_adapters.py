"""The adapters of docs/python.md, each as it stands there, with the real packages. What is not installed is skipped by name."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import tasks
from conftest import DEADLINE_S

import oomguard
from oomguard._celery import TaskMemoryError, adapt

PYTHON = sys.executable


def needs(module: str) -> Any:
    """Skips, and says so to .ci/run, where a package is not there."""
    import importlib.util

    if importlib.util.find_spec(module) is not None:
        return
    listed = os.environ.get("SKIPPED_LIST")
    if listed:
        with open(listed, "a") as file:
            file.write(f"python: {module} cannot be installed here\n")
    pytest.skip(f"{module} is not installed")


def wait_for(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int, path: str) -> int:
    """Returns the status of the answer; 0: none came."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Program:
    """A server in a process group of its own, which ends with the test."""

    def __init__(self, command: "list[str]", directory: Path, **env: str) -> None:
        self.log = directory / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **env}
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


# ---- Celery ------------------------------------------------------------------------------------------------------------

CELERY = """
import sys
from celery import Celery
from celery.signals import worker_process_init
import oomguard

worker_process_init.connect(lambda **_: oomguard.arm("300Mi"), weak=False)

app = Celery("jobs", broker="{broker}", backend="{broker}")
app.conf.broker_connection_retry_on_startup = True

@app.task
def square(number):
    return number * number

@app.task
def eat(mib):
    return len([bytearray(1 << 20) for _ in range(mib)])

@app.task
def raise_by_itself():
    raise MemoryError("said the task")

@app.task
def multiply_too_much():
    return "a" * sys.maxsize

@app.task(autoretry_for=(MemoryError,), max_retries=1, default_retry_delay=0, bind=True)
def eat_less_and_less(self):
    return len([bytearray(1 << 20) for _ in range(100 if self.request.retries else 1000)])
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    server = shutil.which("redis-server")
    if server is None:
        needs("redis-server is not in PATH: Celery's broker, which")
    assert server is not None
    port = free_port()
    with Program([server, "--port", str(port), "--save", "", "--dir", str(tmp_path)], tmp_path):
        wait_for(lambda: _listens(port))
        yield f"redis://127.0.0.1:{port}/0"


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_celery_tells_each_thread_of_its_own_task(monkeypatch: Any) -> None:
    trace: Any = types.ModuleType("celery.app.trace")
    trace.get_pickleable_exception = trace.get_pickleable_etype = lambda given: given
    monkeypatch.setitem(sys.modules, "celery.app.trace", trace)
    adapt(lambda: {"limit": 1, "exit_code": 198}, lambda exception: exception.args == ("real",))
    told = [trace.get_pickleable_exception(MemoryError("own"))]
    thread = threading.Thread(target=lambda: told.append(trace.get_pickleable_exception(MemoryError("real"))))
    thread.start()
    thread.join()
    assert list(map(type, told)) == [TaskMemoryError, oomguard.OutOfMemory]
    assert trace.get_pickleable_etype(MemoryError) is TaskMemoryError


def test_celery_fails_or_retries_the_task_and_lives(tmp_path: Path, redis: str) -> None:
    needs("celery")
    needs("redis")
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "jobs.py").write_text(CELERY.format(broker=redis))
    sys.path.insert(0, str(tmp_path / "worker"))
    try:
        import jobs  # type: ignore[import-not-found]

        command = [PYTHON, "-m", "celery", "-A", "jobs", "worker", "-c", "1", "-P", "prefork", "-l", "warning"]
        with Program(command, tmp_path / "worker") as worker:
            assert jobs.square.delay(3).get(timeout=DEADLINE_S) == 9, worker.said()
            for _ in range(2):
                with pytest.raises(oomguard.OutOfMemory) as raised:
                    jobs.eat.delay(1000).get(timeout=DEADLINE_S)
                assert raised.value.limit == 300 << 20 and raised.value.report is not None
                # Nothing of it is held: the next task of the same process has its memory.
                assert jobs.eat.delay(150).get(timeout=DEADLINE_S) == 150, worker.said()
            with pytest.raises(Exception, match="said the task") as raised:
                jobs.raise_by_itself.delay().get(timeout=DEADLINE_S)
            assert not isinstance(raised.value, oomguard.OutOfMemory)
            with pytest.raises(TaskMemoryError):
                jobs.multiply_too_much.delay().get(timeout=DEADLINE_S)
            assert jobs.eat_less_and_less.delay().get(timeout=DEADLINE_S) == 100, worker.said()
            assert worker.process.poll() is None
    finally:
        sys.path.remove(str(tmp_path / "worker"))
        sys.modules.pop("jobs", None)


# ---- RQ, pebble --------------------------------------------------------------------------------------------------------


def test_rq_under_the_launcher_fails_the_job_alone(tmp_path: Path, redis: str) -> None:
    needs("rq")
    import redis as client
    import rq

    queue = rq.Queue(connection=client.Redis.from_url(redis))
    # Each job is in a forked process: it fails of its MemoryError, or, where there is nothing left to tell that with, of its end.
    jobs = [queue.enqueue(function, argument) for function, argument in [(tasks.square, 3), (tasks.eat, 1000), (tasks.square, 4)]]
    command = [PYTHON, "-m", "oomguard", "run", "-m", "300Mi", "--", PYTHON, "-m", "rq.cli", "worker", "--burst", "--url", redis]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S
    )
    assert [job.get_status(refresh=True).value for job in jobs] == ["finished", "failed", "finished"], done.stdout
    assert done.returncode == 0, done.stdout


def test_pebble_under_the_launcher_replaces_the_process(script: Any) -> None:
    needs("pebble")
    source = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tasks
from pebble import ProcessExpired, ProcessPool
if __name__ == "__main__":
    with ProcessPool(1) as pool:
        futures = [pool.schedule(tasks.eat, [1000]), pool.schedule(tasks.eat_unchecked), pool.schedule(tasks.square, [3])]
        for future in futures:
            try:
                print(future.result())
            except MemoryError:
                print("out of memory")
            except ProcessExpired as error:
                print(error.exitcode)
"""
    ended = script(source, before=[PYTHON, "-m", "oomguard", "run", "-m", "300Mi", "--"])
    assert ended.stdout == "out of memory\n198\n9\n" and ended.code == 0, ended
    assert [report["own_signal"] for report in ended.reports] == [signal.SIGSEGV], ended


# ---- Servers -----------------------------------------------------------------------------------------------------------

WSGI = """
import os, threading
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/eat":
        rows = [bytearray(1 << 20) for _ in range(1000)]
    if path == "/thread":
        threading.Thread(target=lambda: [bytearray(1 << 20) for _ in range(1000)]).start()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def test_gunicorn_answers_500_and_goes_on(tmp_path: Path) -> None:
    needs("gunicorn")
    port = free_port()
    (tmp_path / "web.py").write_text(WSGI)
    (tmp_path / "gunicorn.conf.py").write_text(
        'import oomguard\ndef post_fork(server, worker):\n    oomguard.arm("300Mi")\n'
    )
    with Program([PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "web:app"], tmp_path) as server:
        wait_for(lambda: answers(port, "/") == 200)
        for _ in range(2):
            assert answers(port, "/eat") == 500, server.said()
            assert answers(port, "/") == 200, server.said()
        # A thread that dies of it ends the worker, which is replaced.
        answers(port, "/thread")
        wait_for(lambda: "oomguard: out of memory" in server.said())
        wait_for(lambda: answers(port, "/") == 200)
        assert server.process.poll() is None


def test_gunicorn_replaces_a_worker_whose_request_ran_out_if_it_is_wanted(tmp_path: Path) -> None:
    needs("gunicorn")
    port = free_port()
    (tmp_path / "web.py").write_text(WSGI)
    (tmp_path / "gunicorn.conf.py").write_text(
        'import oomguard\ndef post_fork(server, worker):\n    oomguard.arm("300Mi", exit_on_uncaught=True)\n'
    )
    with Program([PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "web:app"], tmp_path) as server:
        wait_for(lambda: answers(port, "/") == 200)
        assert answers(port, "/eat") == 0, server.said()
        wait_for(lambda: answers(port, "/") == 200)
        assert "oomguard: out of memory" in server.said() and server.process.poll() is None


ASGI = """
import oomguard
oomguard.arm("300Mi")

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/eat":
        rows = [bytearray(1 << 20) for _ in range(1000)]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"words"})
"""


def test_uvicorn_workers_answer_500_and_go_on(tmp_path: Path) -> None:
    needs("uvicorn")
    port = free_port()
    (tmp_path / "web.py").write_text(ASGI)
    command = [PYTHON, "-m", "uvicorn", "--port", str(port), "--workers", "2", "web:app"]
    with Program(command, tmp_path) as server:
        wait_for(lambda: answers(port, "/") == 200)
        assert answers(port, "/eat") == 500, server.said()
        assert [answers(port, "/") for _ in range(4)] == [200] * 4, server.said()


# ---- Pools -------------------------------------------------------------------------------------------------------------


def test_concurrent_futures_by_its_initializer() -> None:
    with concurrent.futures.ProcessPoolExecutor(1, initializer=oomguard.arm, initargs=("2Gi",)) as pool:
        assert pool.submit(tasks.status_of_worker).result(DEADLINE_S).limit == 2 << 30
        with pytest.raises(MemoryError):
            pool.submit(tasks.eat_at_once, 4000).result(DEADLINE_S)
        assert pool.submit(tasks.eat_at_once, 100).result(DEADLINE_S) == 100 << 20


def test_joblib_by_its_initializer() -> None:
    needs("joblib")
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=1, initializer=oomguard.arm, initargs=("300Mi",))
    try:
        with pytest.raises(MemoryError):
            pool.submit(tasks.eat, 1000).result(DEADLINE_S)
        assert pool.submit(tasks.eat, 150).result(DEADLINE_S) == 150
    finally:
        pool.shutdown()


def test_joblib_parallel_in_its_words() -> None:
    needs("joblib")
    from joblib import Parallel, delayed

    armed = delayed(tasks.armed_square)
    assert Parallel(n_jobs=2)(armed(number) for number in range(10)) == [number**2 for number in range(10)]
    with pytest.raises(MemoryError):
        Parallel(n_jobs=2)(delayed(tasks.armed_eat)(mib) for mib in (1, 1000))


def test_dask_workers_and_those_in_their_place_by_a_preload(tmp_path: Path) -> None:
    needs("distributed")
    source = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import dask, tasks
from distributed import Client, LocalCluster
dask.config.set({{"distributed.worker.preload": ["import oomguard; oomguard.arm('400Mi')"]}})
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        for workers in ("those", "others in their place"):
            if workers != "those":
                client.restart()
            try:
                client.submit(tasks.eat, 1000).result()
            except MemoryError:
                print("out of memory")
            print(client.submit(tasks.eat, 100).result())
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    done = subprocess.run([PYTHON, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert done.stdout == "out of memory\n100\n" * 2, done


# ---- pytest ------------------------------------------------------------------------------------------------------------

SUITE = """
def test_before(): pass
def test_eats():
    rows = [bytearray(1 << 20) for _ in range(1000)]
def test_after():
    assert len([bytearray(1 << 20) for _ in range(150)]) == 150
def test_limit():
    import oomguard
    assert oomguard.status().limit == 300 << 20 and "test_limit" in oomguard.status().task
"""


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_pytest_names_the_test_that_ate_the_memory(tmp_path: Path, more: Any) -> None:
    if more:
        needs("xdist")
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [PYTHON, "-m", "pytest", "--oomguard-limit", "300Mi", "-p", "no:cacheprovider", *more]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1 and "1 failed, 3 passed" in done.stdout, done.stdout
    assert "out of memory: test_suite.py::test_eats (pid" in done.stdout and "300 MiB" in done.stdout
    command[command.index("300Mi")] = "much"
    wrong = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert wrong.returncode == 4 and "512Mi" in wrong.stderr


CRASHES = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tasks
def test_before(): pass
def test_eats(): tasks.eat_unchecked()
def test_after(): pass
"""


def test_pytest_xdist_replaces_the_worker_of_a_test_that_dies_of_it(tmp_path: Path) -> None:
    needs("xdist")
    (tmp_path / "test_suite.py").write_text(CRASHES)
    command = [PYTHON, "-m", "pytest", "--oomguard-limit", "300Mi", "-p", "no:cacheprovider", "-n", "2"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 1 and "1 failed, 2 passed" in done.stdout, done.stdout
    assert "test_eats" in done.stdout and "may have run out of memory" in done.stdout, done.stdout


def test_pytest_under_the_launcher_says_which_test_ended_it(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(CRASHES)
    command = [PYTHON, "-m", "oomguard", "run", "-m", "300Mi", "--report", "report", "--", PYTHON, "-m", "pytest"]
    done = subprocess.run([*command, "--oomguard-limit", "300Mi", "-p", "no:faulthandler"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 198, done
    assert json.loads((tmp_path / "report").read_text())["token"] == "test_suite.py::test_eats"


TOX = """
[testenv]
skip_install = true
pass_env = LD_PRELOAD, OOMGUARD_*
commands = python -c "rows = [bytearray(1 << 20) for _ in range(1000)]"
"""


def test_tox_hands_the_guard_on_where_it_is_told_to(tmp_path: Path) -> None:
    needs("tox")
    (tmp_path / "tox.ini").write_text(TOX)
    command = [oomguard.launcher(), "run", "-m", "300Mi", "--", PYTHON, "-m", "tox"]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S)
    assert done.returncode == 198 and "oomguard: out of memory: python" in done.stdout, done


# ---- Jupyter -----------------------------------------------------------------------------------------------------------


def test_a_jupyter_kernel_under_the_launcher(tmp_path: Path) -> None:
    needs("ipykernel")
    needs("jupyter_client")
    kernel = tmp_path / "kernels" / "limited"
    kernel.mkdir(parents=True)
    argv = [oomguard.launcher(), "run", "-m", "400Mi", "--", PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "Python, 400 MiB", "language": "python", "interrupt_mode": "message"})
    )
    source = """
import jupyter_client
manager, client = jupyter_client.manager.start_new_kernel(kernel_name="limited", startup_timeout=100)
def run(code):
    reply = client.execute_interactive(code, timeout=100, output_hook=lambda message: None)["content"]
    return reply["status"], reply.get("ename")
print(run("len([bytearray(1 << 20) for _ in range(1000)])"))
print(run("len([bytearray(1 << 20) for _ in range(50)])"))
print(run("import oomguard; assert oomguard.status().limit == 400 << 20"))
client.stop_channels()
manager.shutdown_kernel()
"""
    path = tmp_path / "program.py"
    path.write_text(source)
    done = subprocess.run(
        [PYTHON, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "JUPYTER_PATH": str(tmp_path)},
    )
    assert done.stdout == "('error', 'MemoryError')\n('ok', None)\n('ok', None)\n", done


# ---- One budget for all ------------------------------------------------------------------------------------------------
# Four at a time who want 150 MiB each do not fit, and nothing of ours is in their code: they wait for each other.

IN_A_BUDGET = [oomguard.launcher(), "run", "--budget", "450Mi", "--patience", "60s", "--"]

POOLS = """
import concurrent.futures, multiprocessing
def eat(mib):
    return len(bytearray(mib << 20)) >> 20
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(4) as pool:
        print(pool.map(eat, [150] * 8, chunksize=1) == [150] * 8)
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        print(list(pool.map(eat, [150] * 8)) == [150] * 8)
"""

JOBLIB = """
from joblib import Parallel, delayed
def eat(mib):
    return len(bytearray(mib << 20)) >> 20
if __name__ == "__main__":
    print(Parallel(n_jobs=4)(delayed(eat)(150) for _ in range(8)) == [150] * 8)
"""


@pytest.mark.parametrize(("module", "source", "told"), [("multiprocessing", POOLS, "True\nTrue\n"), ("joblib", JOBLIB, "True\n")])
def test_pools_share_a_budget_unchanged(tmp_path: Path, module: str, source: str, told: str) -> None:
    needs(module)
    (tmp_path / "program.py").write_text(source)
    command = [*IN_A_BUDGET, PYTHON, "program.py"]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S
    )
    assert (done.returncode, done.stdout) == (0, told), done
    assert "oomguard: out of memory" not in done.stderr, done


def test_gunicorn_workers_share_a_budget(tmp_path: Path) -> None:
    needs("gunicorn")
    port = free_port()
    (tmp_path / "web.py").write_text(WSGI.replace("[bytearray(1 << 20) for _ in range(1000)]", "bytearray(150 << 20)"))
    command = [*IN_A_BUDGET, PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "4", "-t", "120", "web:app"]
    with Program(command, tmp_path) as server:
        wait_for(lambda: answers(port, "/") == 200)
        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            assert list(clients.map(lambda _: answers(port, "/eat"), range(8))) == [200] * 8, server.said()
        assert "out of memory" not in server.said() and server.process.poll() is None, server.said()


BUDGETED_CELERY = """
from celery import Celery
app = Celery("shares", broker={broker!r}, backend={broker!r})
@app.task
def eat(mib):
    return len(bytearray(mib << 20)) >> 20
"""


def test_celery_processes_share_a_budget(tmp_path: Path, redis: str) -> None:
    needs("celery")
    needs("redis")
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "shares.py").write_text(BUDGETED_CELERY.format(broker=redis))
    sys.path.insert(0, str(tmp_path / "worker"))
    try:
        import shares  # type: ignore[import-not-found]

        command = [*IN_A_BUDGET, PYTHON, "-m", "celery", "-A", "shares", "worker", "-c", "4", "-P", "prefork"]
        with Program(command, tmp_path / "worker") as worker:
            results = [shares.eat.delay(150) for _ in range(8)]
            assert [result.get(timeout=DEADLINE_S) for result in results] == [150] * 8, worker.said()
            assert "out of memory" not in worker.said() and worker.process.poll() is None, worker.said()
    finally:
        sys.path.remove(str(tmp_path / "worker"))
        sys.modules.pop("shares", None)
