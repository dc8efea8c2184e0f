"""`ProcessPoolExecutor` is concurrent.futures', where a task that runs out of memory fails alone."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import operator
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import tasks
from conftest import DEADLINE_S, KEYS

import oomguard
from oomguard import BrokenProcessPool, OutOfMemory, ProcessPoolExecutor

# Workers that begin anew under the launcher, and workers that are forked off this process.
WAYS = [None, multiprocessing.get_context("fork")]


@pytest.fixture(params=WAYS, ids=["anew", "fork"])
def way(request: Any) -> Any:
    return request.param


@pytest.fixture
def pool(way: Any) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, way, limit="300Mi") as pool:
        yield pool


def result(future: Any) -> Any:
    return future.result(DEADLINE_S)


def error(future: Any) -> Any:
    return future.exception(DEADLINE_S)


def test_tasks_are_done(pool: ProcessPoolExecutor) -> None:
    futures = [pool.submit(tasks.square, number) for number in range(50)]
    assert [result(future) for future in futures] == [number**2 for number in range(50)]
    assert list(pool.map(tasks.square, range(10), timeout=DEADLINE_S)) == [number**2 for number in range(10)]
    assert list(pool.map(pow, range(10), range(10), chunksize=3)) == [number**number for number in range(10)]
    assert list(pool.map(tasks.square, [], chunksize=3)) == []
    with pytest.raises(ValueError):
        pool.map(tasks.square, [], chunksize=0)
    assert result(pool.submit(dict, fn=1, self=2)) == {"fn": 1, "self": 2}
    assert isinstance(pool, concurrent.futures.Executor)


@pytest.mark.parametrize("task", [(tasks.eat, 1000), (tasks.eat_at_once, 1000), (tasks.eat_and_wrap, 1000)])
def test_a_task_out_of_memory_fails_alone(pool: ProcessPoolExecutor, task: Any) -> None:
    before = {result(pool.submit(tasks.pid)) for _ in range(20)}
    others = [pool.submit(tasks.square, number) for number in range(20)]
    out = pool.submit(*task)
    others += [pool.submit(tasks.square, number) for number in range(20, 40)]
    raised = error(out)
    assert isinstance(raised, OutOfMemory), raised
    assert (raised.limit, raised.tries, raised.returncode) == (300 << 20, 1, 198)
    assert raised.report is not None and list(raised.report) == KEYS
    assert raised.report["evidence"] == "exact" and raised.report["limit"] == 300 << 20
    assert [result(future) for future in others] == [number**2 for number in range(40)]
    assert raised.report["pid"] not in {result(pool.submit(tasks.pid)) for _ in range(20)}
    assert before


def test_a_retry_has_more_and_the_next_task_has_not(way: Any) -> None:
    with ProcessPoolExecutor(1, way, limit="100Mi", retries=2, grow=2.0) as pool:
        assert result(pool.submit(tasks.eat, 250)) == 250
        assert result(pool.submit(tasks.status_of_worker)).limit == 100 << 20
        raised = error(pool.submit(tasks.eat, 600))
        assert isinstance(raised, OutOfMemory) and (raised.tries, raised.limit) == (3, 400 << 20)
        assert "3 tries" in str(raised)
        assert result(pool.submit(tasks.square, 3)) == 9
    with ProcessPoolExecutor(1, way, limit="100Mi", retries=5, max_limit="150Mi") as pool:
        raised = error(pool.submit(tasks.eat, 600))
        assert (raised.tries, raised.limit) == (2, 150 << 20)


def test_what_a_retry_leaves_behind_is_not_in_the_way_of_others(way: Any) -> None:
    with ProcessPoolExecutor(1, way, limit="100Mi", retries=1, grow=3.0) as pool:
        assert result(pool.submit(tasks.remember_much, 200)) == 200
        # Its worker holds more than they may have: another one does them.
        assert [result(pool.submit(tasks.square, number)) for number in range(3)] == [0, 1, 4]


def test_without_ctypes_a_retry_has_more_all_the_same(script: Any, tmp_path: Path) -> None:
    (tmp_path / "ctypes.py").write_text("raise ImportError")
    ended = script(
        "import oomguard\ndef eat(mib):\n    return len([bytearray(1 << 20) for _ in range(mib)])\n"
        "if __name__ == '__main__':\n    with oomguard.ProcessPoolExecutor(1, limit='100Mi', retries=1) as pool:\n"
        "        print(pool.submit(eat, 150).result(), pool.submit(eat, 300).exception().tries)\n"
    )
    assert (ended.code, ended.stdout) == (0, "150 2\n"), ended


def test_a_task_that_copes_is_not_out_of_memory(pool: ProcessPoolExecutor) -> None:
    worker = result(pool.submit(tasks.pid))
    assert result(pool.submit(tasks.eat_and_cope, 1000)) == "coped"
    assert result(pool.submit(tasks.pid)) == worker


def test_c_code_that_does_not_check_is_seen_by_the_library() -> None:
    with ProcessPoolExecutor(1, limit="300Mi") as pool:
        raised = error(pool.submit(tasks.eat_unchecked))
        assert isinstance(raised, OutOfMemory) and raised.report is not None
        assert raised.report["evidence"] in ("fault", "missing", "straight")


def test_a_thread_that_dies_of_memory_is_survived_or_out_of_memory(pool: ProcessPoolExecutor) -> None:
    future = pool.submit(tasks.eat_in_a_thread, 1000)
    raised = error(future)
    if raised is None:
        assert result(future) == "goes on"
    else:
        assert isinstance(raised, OutOfMemory) and raised.report is not None and raised.report["thread"] == "eater", raised


def test_a_memory_error_that_the_task_raises_by_itself_is_an_exception_as_any(pool: ProcessPoolExecutor) -> None:
    for task in (tasks.raise_by_itself, tasks.cope_and_raise_by_itself):
        for words in ((), ("said the task",)):
            worker = {result(pool.submit(tasks.pid)) for _ in range(20)}
            raised = error(pool.submit(task, *words))
            assert type(raised) is MemoryError and raised.args == words
            assert {result(pool.submit(tasks.pid)) for _ in range(20)} <= worker
    assert type(error(pool.submit(tasks.raise_with_one_by_itself))) is ValueError
    assert isinstance(error(pool.submit(tasks.eat_and_raise_anew)), OutOfMemory)


def test_a_size_that_no_object_can_have_is_an_exception_as_any(pool: ProcessPoolExecutor) -> None:
    for _ in range(2):
        assert type(error(pool.submit(tasks.multiply_too_much, False))) is MemoryError
        assert isinstance(error(pool.submit(tasks.multiply_too_much, True)), OutOfMemory)
        assert type(error(pool.submit(tasks.multiply_too_much_beside_a_thread))) is MemoryError
        assert isinstance(error(pool.submit(tasks.eat_and_clean_up)), OutOfMemory)
        assert isinstance(error(pool.submit(tasks.raise_what_a_thread_got)), OutOfMemory)


def test_a_memory_error_of_c_code_about_something_else_is_an_exception_as_any() -> None:
    with ProcessPoolExecutor(1, limit="300Mi") as pool:
        assert repr(error(pool.submit(tasks.cope_and_fail_in_c))) == "MemoryError('the table is full')"


def test_exceptions_come_with_their_traceback(pool: ProcessPoolExecutor) -> None:
    raised = error(pool.submit(tasks.fail, 7))
    assert type(raised) is KeyError and raised.args == (7,)
    assert "in fail" in str(raised.__cause__) and "KeyError: 7" in str(raised.__cause__)
    sealed = error(pool.submit(tasks.fail_sealed))
    assert type(sealed) is tasks.Sealed and "in fail_sealed" in str(sealed.__cause__)
    assert type(error(pool.submit(tasks.leave_politely, 3))) is SystemExit
    assert type(error(pool.submit(tasks.interrupt))) is KeyboardInterrupt
    assert result(pool.submit(tasks.square, 2)) == 4


def test_what_cannot_be_pickled_fails_its_own_future(pool: ProcessPoolExecutor) -> None:
    failures = [
        pool.submit(lambda: 0),
        pool.submit(tasks.square, threading.Lock()),  # type: ignore[arg-type]
        pool.submit(tasks.give_unpicklable),
        pool.submit(tasks.fail_unpicklably),
        pool.submit(tasks.fail_without_words),
        pool.submit(tasks.fail_with_an_exit_when_asked),
    ]
    for future in failures:
        assert isinstance(error(future), (pickle.PicklingError, TypeError, AttributeError)), error(future)
    assert "Unpicklable" in str(error(failures[3]))
    assert isinstance(error(pool.submit(tasks.fail_one_way)), RuntimeError)
    assert isinstance(error(pool.submit(tasks.fail_with_an_exit_at_loading)), RuntimeError)
    assert type(error(pool.submit(tasks.give_what_unpickles_badly))) is KeyError
    assert type(error(pool.submit(tasks.fail_with_an_exit_when_asked_at_loading))) is tasks.ExitsWhenAsked
    assert result(pool.submit(tasks.square, 2)) == 4


@pytest.mark.parametrize("death", [(tasks.leave, 3), (tasks.leave, 198), (tasks.kill_itself,)])
def test_a_worker_that_ends_fails_its_own_task(pool: ProcessPoolExecutor, death: Any) -> None:
    others = [pool.submit(tasks.square, number) for number in range(10)]
    dead = pool.submit(*death)
    others += [pool.submit(tasks.square, number) for number in range(10, 20)]
    raised = error(dead)
    assert type(raised) is BrokenProcessPool
    assert ("SIGKILL" if len(death) == 1 else f"exit code {death[1]}") in str(raised)
    assert [result(future) for future in others] == [number**2 for number in range(20)]


def test_a_worker_killed_by_others_is_replaced(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    future = pool.submit(tasks.announce_and_sleep, str(path))
    while not path.exists():
        time.sleep(0.01)
    os.kill(int(path.read_text()), signal.SIGTERM)
    assert "SIGTERM" in str(error(future))
    assert [result(pool.submit(tasks.square, number)) for number in range(10)] == [number**2 for number in range(10)]


def test_futures_can_be_cancelled(way: Any, tmp_path: Path) -> None:
    path = tmp_path / "go"
    with ProcessPoolExecutor(1, way) as pool:
        running = pool.submit(tasks.sleep_until, str(path))
        while not running.running():
            time.sleep(0.01)
        waiting = [pool.submit(tasks.square, number) for number in range(3)]
        assert waiting[1].cancel() and not running.cancel()
        path.touch()
        assert (result(waiting[0]), result(waiting[2])) == (0, 4)
        assert waiting[1].cancelled()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_map_that_fails_cancels_the_rest_and_the_pool_ends(way: Any, workers: int) -> None:
    with pytest.raises(KeyError), ProcessPoolExecutor(workers, way) as pool:
        list(pool.map(tasks.fail, range(20), timeout=DEADLINE_S))


def test_shutdown_cancels_what_has_not_begun(way: Any, tmp_path: Path) -> None:
    path = tmp_path / "go"
    pool = ProcessPoolExecutor(1, way)
    running = pool.submit(tasks.sleep_until, str(path))
    while not running.running():
        time.sleep(0.01)
    waiting = [pool.submit(tasks.square, number) for number in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(tasks.square, 1)
    path.touch()
    pool.shutdown()
    assert result(running) == str(path) and all(future.cancelled() for future in waiting)
    ProcessPoolExecutor(1, way).shutdown()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_callback_raises_ends_nothing(way: Any, kind: Any, tmp_path: Path, caplog: Any) -> None:
    def fall(future: Any) -> None:
        raise kind("in a callback")

    seen = []
    with ProcessPoolExecutor(1, way, limit="300Mi") as pool:
        path = tmp_path / "go"
        futures = [pool.submit(*task) for task in ((tasks.sleep_until, str(path)), (tasks.fail, 7), (tasks.eat, 1000))]
        futures += [pool.submit(tasks.square, threading.Lock()), pool.submit(tasks.leave, 3)]  # type: ignore[arg-type]
        for future in futures:
            future.add_done_callback(fall)
            future.add_done_callback(seen.append)
        path.touch()
        concurrent.futures.wait(futures, DEADLINE_S)
        assert result(pool.submit(tasks.square, 3)) == 9
        path.unlink()
        running = pool.submit(tasks.sleep_until, str(path))
        while not running.running():
            time.sleep(0.01)
        cancelled = [pool.submit(tasks.square, number) for number in range(2)]
        for future in cancelled:
            future.add_done_callback(fall)
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(future.cancelled() for future in cancelled):
            time.sleep(0.01)
        path.touch()
        assert result(running) == str(path)
    assert set(seen) == set(futures)
    assert len([said for said in caplog.records if said.message.startswith("exception calling callback")]) == 7
    # In the user's own thread it is the user's.
    if not issubclass(kind, Exception):
        with pytest.raises(kind):
            running.add_done_callback(fall)


def test_shutdown_leaves_no_process_and_no_descriptor(way: Any) -> None:
    def once() -> int:
        with ProcessPoolExecutor(3, way, limit="300Mi") as pool:
            pids = {result(pool.submit(tasks.pid)) for _ in range(5)}
            assert isinstance(error(pool.submit(tasks.eat, 1000)), OutOfMemory)
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        return len(os.listdir("/proc/self/fd"))

    once()
    gc.collect()
    before = once()
    for _ in range(3):
        assert once() <= before


def test_a_forgotten_executor_does_what_it_has_and_ends(way: Any) -> None:
    pool = ProcessPoolExecutor(2, way)
    futures = [pool.submit(tasks.square, number) for number in range(20)]
    thread = pool._pool.thread
    del pool
    gc.collect()
    assert [result(future) for future in futures] == [number**2 for number in range(20)]
    assert thread is not None
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_initializers_run_in_every_worker(way: Any) -> None:
    with ProcessPoolExecutor(2, way, tasks.remember, ("word",), limit="300Mi") as pool:
        assert result(pool.submit(tasks.remembered)) == ["word"]
        assert isinstance(error(pool.submit(tasks.eat, 1000)), OutOfMemory)
        assert [result(pool.submit(tasks.remembered)) for _ in range(5)] == [["word"]] * 5


@pytest.mark.parametrize(
    ("task", "word"),
    [((tasks.fail, 7), "KeyError"), ((tasks.leave_politely, 3), "SystemExit"), ((tasks.interrupt,), "KeyboardInterrupt")],
)
def test_an_initializer_that_fails_breaks_the_pool(way: Any, task: Any, word: str) -> None:
    with ProcessPoolExecutor(2, way, task[0], task[1:]) as pool:
        futures = [pool.submit(tasks.square, number) for number in range(5)]
        for future in futures:
            assert type(error(future)) is BrokenProcessPool and word in str(error(future))
        with pytest.raises(BrokenProcessPool):
            pool.submit(tasks.square, 1)


def test_an_initializer_that_runs_out_of_memory_breaks_the_pool(way: Any) -> None:
    with ProcessPoolExecutor(2, way, tasks.eat, (1000,), limit="200Mi") as pool:
        raised = error(pool.submit(tasks.square, 1))
        assert type(raised) is BrokenProcessPool and isinstance(raised.__cause__, OutOfMemory)


def test_locks_and_queues_reach_workers_by_initargs(way: Any) -> None:
    queue = (way or multiprocessing.get_context("spawn")).SimpleQueue()
    with ProcessPoolExecutor(1, way, tasks.remember, (queue,)) as pool:
        result(pool.submit(tasks.put, "word"))
        assert queue.get() == "word"


def test_workers_are_replaced_after_so_many_tasks(way: Any) -> None:
    with ProcessPoolExecutor(1, way, max_tasks_per_child=3) as pool:
        pids = [result(pool.submit(tasks.pid)) for _ in range(9)]
        assert len(set(pids)) == 3 and pids[0] == pids[2] != pids[3]


def test_workers_look_like_those_of_multiprocessing(pool: ProcessPoolExecutor) -> None:
    name, parent, stdin = result(pool.submit(tasks.who_am_i))
    assert name.startswith("OomguardWorker-") and parent == os.getpid() and stdin == ""
    assert result(pool.submit(tasks.run_child)) == 0


def test_large_arguments_and_results_pass(pool: ProcessPoolExecutor) -> None:
    body = os.urandom(20 * tasks.MIB)
    futures = [pool.submit(tasks.large, 20, body) for _ in range(4)]
    assert all(result(future) == body[::-1] for future in futures)


def test_an_argument_larger_than_the_limit_is_out_of_memory(way: Any) -> None:
    with ProcessPoolExecutor(1, way, limit="100Mi") as pool:
        assert isinstance(error(pool.submit(tasks.large, 200, bytes(200 * tasks.MIB))), OutOfMemory)
        assert result(pool.submit(tasks.square, 2)) == 4


def test_what_a_task_starts_has_nothing_of_its_worker(pool: ProcessPoolExecutor) -> None:
    assert "socket:" not in pool.submit(tasks.descriptors_of_a_command).result(DEADLINE_S)


def test_what_is_large_goes_there_and_back_in_pieces(pool: ProcessPoolExecutor) -> None:
    for length in (0, (1 << 16) - 100, 1 << 16, 20 << 20):
        block = os.urandom(1 << 10) * (length >> 10)
        assert pool.submit(bytes, block).result(DEADLINE_S) == block



def test_many_threads_submit(pool: ProcessPoolExecutor) -> None:
    sums = []

    def submit(base: int) -> None:
        futures = [pool.submit(tasks.square, base + number) for number in range(50)]
        sums.append(sum(result(future) for future in futures) == sum((base + number) ** 2 for number in range(50)))

    threads = [threading.Thread(target=submit, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [True] * 8


def test_no_future_is_lost_among_many(way: Any) -> None:
    count, bad = 400, 20
    with ProcessPoolExecutor(4, way, limit="300Mi") as pool:
        futures = [pool.submit(tasks.eat_or_square, number, number % (count // bad) == 7) for number in range(count)]
        errors = [error(future) for future in futures]
    for number, raised in enumerate(errors):
        if number % (count // bad) == 7:
            assert isinstance(raised, OutOfMemory) and raised.report is not None
        else:
            assert raised is None and futures[number].result() == number**2


@pytest.mark.parametrize("seed", range(2))
def test_no_future_is_lost_among_random_kills(way: Any, seed: int) -> None:
    draw = random.Random(seed)
    with ProcessPoolExecutor(4, way, limit="300Mi", retries=seed, max_tasks_per_child=5) as pool:
        futures = [pool.submit(tasks.eat_or_square, number, number % 10 == 7) for number in range(150)]
        cancelled = [future for future in draw.sample(futures, 20) if future.cancel()]
        until = time.monotonic() + DEADLINE_S
        while not all(future.done() for future in futures):
            assert time.monotonic() < until, [future for future in futures if not future.done()]
            keeper = pool._pool.keeper
            pids = [worker.pid for worker in list(keeper.workers.values()) if worker.pid and worker.is_ready]  # type: ignore
            if pids:
                try:
                    os.kill(draw.choice(pids), draw.choice((signal.SIGKILL, signal.SIGTERM)))
                except ProcessLookupError:
                    pass
            concurrent.futures.wait(futures, draw.uniform(0, 0.05))
        for number, future in enumerate(futures):
            if future in cancelled:
                assert future.cancelled()
            elif isinstance(error(future), BrokenProcessPool):
                assert "SIGKILL" in str(error(future)) or "SIGTERM" in str(error(future))
            elif number % 10 == 7:
                assert isinstance(error(future), OutOfMemory)
            else:
                assert result(future) == number**2
        # Nobody is killed any more. Those who were while they had no task may be given one before they are missed.
        after = (pool.submit(tasks.square, 3) for _ in range(5))
        assert any(error(future) is None and result(future) == 9 for future in after)


def test_a_thread_that_cannot_be_had_is_an_error_and_not_a_wait(way: Any, monkeypatch: Any) -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with ProcessPoolExecutor(1, way) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                pool.submit(tasks.square, 3)
        assert result(pool.submit(tasks.square, 3)) == 9


LARGE = """
import oomguard, resource
def zeroes(mib):
    return bytes(mib << 20)
if __name__ == "__main__":
    with oomguard.ProcessPoolExecutor(1, limit="off") as pool:
        pool.submit(zeroes, 1).result()
        used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20), resource.RLIM_INFINITY))
        print(repr(pool.submit(zeroes, 200).exception()), len(pool.submit(zeroes, 1).result()))
"""


def test_a_result_for_which_the_executor_has_no_memory_fails_alone(script: Any) -> None:
    ended = script(LARGE)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "MemoryError() 1048576\n", ""), ended


def test_a_worker_killed_before_it_was_given_a_task_loses_none(pool: ProcessPoolExecutor) -> None:
    for number in range(20):
        os.kill(result(pool.submit(tasks.pid)), signal.SIGKILL)
        assert result(pool.submit(tasks.square, number)) == number**2


@pytest.mark.parametrize("is_used", [False, True])
def test_a_forked_child_ends_and_begins_anew(pool: ProcessPoolExecutor, is_used: bool) -> None:
    """Wherever the threads of its parent are: here, one holds the lock of the pool."""
    if is_used:
        assert result(pool.submit(tasks.square, 2)) == 4
    is_held, is_forked = threading.Event(), threading.Event()

    def hold() -> None:
        with pool._pool.lock:
            is_held.set()
            is_forked.wait(DEADLINE_S)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert is_held.wait(DEADLINE_S)
        for target, code in ((os.getpid, 0), (lambda: sys.exit(result(pool.submit(tasks.square, 3))), 9)):
            child = multiprocessing.get_context("fork").Process(target=target)
            child.start()
            child.join(DEADLINE_S)
            assert child.exitcode == code
    finally:
        is_forked.set()
        thread.join()


def test_the_nursery_gone_breaks_the_pool(way: Any, tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(2, way)
    running = pool.submit(tasks.sleep_until, str(tmp_path / "never"))
    while not running.running():
        time.sleep(0.01)
    nursery = pool._pool.keeper.nursery  # type: ignore[union-attr]
    os.kill(nursery.process.pid if nursery.process else nursery.pid, signal.SIGKILL)
    assert type(error(running)) is BrokenProcessPool
    pool.shutdown()


def test_arguments_are_checked() -> None:
    for named in (
        {"max_workers": 0},
        {"limit": "much"},
        {"retries": -1},
        {"grow": 1.0},
        {"max_tasks_per_child": 0},
        {"max_limit": "much"},
    ):
        with pytest.raises(ValueError):
            ProcessPoolExecutor(**named)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ProcessPoolExecutor(initializer=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no_such"):
        ProcessPoolExecutor(no_such=3)


def test_a_limit_too_small_to_start_with_breaks_the_pool() -> None:
    with ProcessPoolExecutor(1, limit="64Ki", measure="data") as pool:
        raised = error(pool.submit(tasks.square, 1))
        # Or it begins, and comes no further: musl needs less.
        assert type(raised) is BrokenProcessPool and ("exit code 125" in str(raised) or "exit code 198" in str(raised))


def test_a_budget_is_the_launchers_or_a_clear_error() -> None:
    help_text = subprocess.run([oomguard.launcher(), "run", "--help"], stdout=subprocess.PIPE, text=True).stdout
    if "--budget" not in help_text:
        with pytest.raises(oomguard.CannotGuard, match="--budget"):
            ProcessPoolExecutor(2, budget="1Gi")
        with pytest.raises(oomguard.CannotGuard, match="--budget"):
            oomguard.run(["true"], budget="1Gi")
        return
    with ProcessPoolExecutor(2, budget="1Gi", limit="300Mi") as pool:
        assert isinstance(error(pool.submit(tasks.eat, 1000)), OutOfMemory)
        assert result(pool.submit(tasks.square, 3)) == 9
    # Two have no room together, and a retry waits until it has.
    with ProcessPoolExecutor(3, budget="450Mi", limit="200Mi", retries=2) as pool:
        futures = [pool.submit(tasks.eat, mib) for mib in (250, 250, 250, 50, 50, 50)]
        assert [result(future) for future in futures] == [250, 250, 250, 50, 50, 50]
    with pytest.raises(ValueError, match="anew"):
        ProcessPoolExecutor(2, multiprocessing.get_context("fork"), budget="1Gi")


MAIN = """
import oomguard, sys
LATER = []
def square(number):
    return number * number + sum(LATER)
def main():
    LATER.append(int(sys.argv[1]))
    with oomguard.ProcessPoolExecutor(2, limit="300Mi") as pool:
        print(list(pool.map(square, range(4))))
"""


def test_scripts_with_and_without_a_guard_of_main(script: Any) -> None:
    guarded = script(MAIN + 'print("imported")\nif __name__ == "__main__":\n    main()\n', "10")
    assert (guarded.code, guarded.stdout) == (0, "imported\nimported\n[0, 1, 4, 9]\n"), guarded
    # Workers are copies: the script does not run twice.
    bare = script(MAIN + 'print("imported")\nmain()\n', "10")
    assert (bare.code, bare.stdout) == (0, "imported\n[10, 11, 14, 19]\n"), bare
    by_command = subprocess.run([sys.executable, "-c", MAIN + "main()", "10"], stdout=subprocess.PIPE, text=True)
    assert (by_command.returncode, by_command.stdout) == (0, "[10, 11, 14, 19]\n")


def test_a_main_that_cannot_be_imported_breaks_the_pool(script: Any) -> None:
    ended = script(
        "import oomguard\nif __name__ != '__main__':\n    raise KeyError('here')\n"
        "with oomguard.ProcessPoolExecutor(1) as pool:\n    print(pool.submit(abs, 1).exception())\n"
    )
    assert ended.code == 0 and "cannot be started" in ended.stdout and "KeyError: 'here'" in ended.stdout, ended


def test_the_interpreter_waits_for_what_was_submitted(script: Any) -> None:
    for way in ("None", "__import__('multiprocessing').get_context('fork')"):
        ended = script(
            "import oomguard, time\ndef late(word):\n    time.sleep(0.3)\n    print(word, flush=True)\n"
            "if __name__ == '__main__':\n"
            f"    pool = oomguard.ProcessPoolExecutor(1, {way})\n    pool.submit(late, 'one')\n    pool.submit(late, 'two')\n"
        )
        assert (ended.code, ended.stdout, ended.stderr) == (0, "one\ntwo\n", ""), ended


def test_an_executor_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    for way in ("None", "__import__('multiprocessing').get_context('fork')"):
        path = tmp_path / "pid"
        source = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport os, oomguard, tasks, time\n"
            f"pool = oomguard.ProcessPoolExecutor(1, {way})\nfuture = pool.submit(tasks.announce_and_sleep, {str(path)!r})\n"
            # Another child of the executor's process, which has all its descriptors, too.
            "os.fork() or time.sleep(600)\nfuture.result()\n"
        )
        source = source.replace("None", "__import__('multiprocessing').get_context('spawn')")
        process = subprocess.Popen([sys.executable, "-c", source], start_new_session=True)
        while not path.exists():
            time.sleep(0.01)
        worker = int(path.read_text())
        process.kill()
        process.wait()
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until and os.path.exists(f"/proc/{worker}") and _state(worker) != "Z":
            time.sleep(0.01)
        is_gone = not os.path.exists(f"/proc/{worker}") or _state(worker) == "Z"
        os.killpg(process.pid, signal.SIGKILL)
        assert is_gone
        path.unlink()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def test_operators_of_the_standard_library_are_tasks(pool: ProcessPoolExecutor) -> None:
    assert result(pool.submit(operator.add, 1, 2)) == 3
