"""`arm`, `set_limit`, `task`, `status`: this process, with the library in it and without."""

from __future__ import annotations

import os
from typing import Any

import pytest
from conftest import KEYS

import oomguard

WITHOUT: Any = ()
WITH = (oomguard.launcher(), "run", "--")
EATS = "rows = [bytearray(1 << 20) for _ in range(1000)]\n"


@pytest.fixture(params=[WITHOUT, WITH], ids=["without", "with"])
def library(request: Any) -> Any:
    return request.param


def test_an_uncaught_memory_error_ends_with_the_reserved_code(script: Any, library: Any) -> None:
    ended = script("import oomguard\noomguard.arm('300Mi')\noomguard.task('job-17')\n" + EATS, before=library)
    assert ended.code == 198, ended
    assert "MemoryError" in ended.stderr and "oomguard: out of memory" in ended.stderr, ended
    (report,) = ended.reports
    assert list(report) == KEYS
    assert report["limit"] == 300 << 20 and report["measure"] in ("data", "resident") and report["token"] == "job-17", ended
    assert report["evidence"] == "exact" and report["exit_code"] == 198 and report["limit_source"] == "source", ended


WAYS = {
    "wrapped": "try:\n    " + EATS.strip() + "\nexcept MemoryError as error:\n    raise KeyError(3) from error\n",
    "in a function": "def eat():\n    " + EATS + "eat()\n",
}


@pytest.mark.parametrize("way", WAYS)
def test_so_does_what_was_raised_from_one(script: Any, library: Any, way: str) -> None:
    assert script("import oomguard\noomguard.arm('300Mi')\n" + WAYS[way], before=library).code == 198


SURVIVES = {
    "coped": ("try:\n    " + EATS.strip() + "\nexcept MemoryError:\n    pass\n", 0),
    "coped, exits": ("try:\n    " + EATS.strip() + "\nexcept MemoryError:\n    pass\nraise SystemExit(3)\n", 3),
    "other exception": ("raise KeyError(3)\n", 1),
    "a memory error of its own": ("raise MemoryError('the quota is used up')\n", 1),
    "coped, and one of its own": ("try:\n    " + EATS.strip() + "\nexcept MemoryError:\n    pass\nraise MemoryError\n", 1),
    "a size that no object can have": ("import os, sys\nos.path.exists('/nowhere')\n'a' * sys.maxsize\n", 1),
    "exit": ("import sys\nsys.exit(7)\n", 7),
    "exit with a text": ("raise SystemExit('words')\n", 1),
    "interrupt": ("import os, signal\nsignal.signal(2, signal.SIG_DFL)\nos.kill(os.getpid(), 2)\n", -2),
    "ignored in a destructor": (
        "class Eats:\n    def __del__(self):\n        rows = [bytearray(1 << 20) for _ in range(1000)]\n"
        "one = Eats()\ndel one\nprint('goes on')\n",
        0,
    ),
}


@pytest.mark.parametrize("way", SURVIVES)
def test_everything_else_ends_as_ever(script: Any, way: str) -> None:
    source, code = SURVIVES[way]
    ended = script("import oomguard\noomguard.arm('300Mi')\n" + source)
    assert ended.code == code and ended.reports == [] and "oomguard" not in ended.stderr, ended


def test_a_thread_that_dies_of_memory_ends_the_process(script: Any) -> None:
    eats = "import oomguard, threading, time, _thread\noomguard.arm('300Mi')\ndef eat():\n    " + EATS
    for start in ("threading.Thread(target=eat, name='eater').start()\n", "_thread.start_new_thread(eat, ())\n"):
        ended = script(eats + start + "time.sleep(60)\n")
        assert ended.code == 198 and "Traceback" in ended.stderr, ended
        assert len(ended.reports) == 1 and ended.reports[0]["thread"] != "main"


def test_a_process_of_multiprocessing_ends_with_it(script: Any) -> None:
    for method in ("fork", "spawn"):
        ended = script(
            "import multiprocessing, oomguard\ndef eat():\n    oomguard.arm('300Mi')\n    "
            + EATS
            + f"if __name__ == '__main__':\n    child = multiprocessing.get_context('{method}').Process(target=eat)\n"
            "    child.start()\n    child.join()\n    raise SystemExit(child.exitcode)\n"
        )
        assert ended.code == 198 and len(ended.reports) == 1 and "Process" in ended.stderr, ended


def test_a_forked_child_has_the_limit_too(script: Any, library: Any) -> None:
    ended = script(
        "import os, oomguard\noomguard.arm('300Mi')\npid = os.fork()\nif pid == 0:\n    " + EATS
        + "_, status = os.waitpid(pid, 0)\nprint(os.WEXITSTATUS(status))\n",
        before=library,
    )
    assert (ended.code, ended.stdout) == (0, "198\n"), ended


def test_a_hook_of_the_programs_own_is_called_first(script: Any) -> None:
    ended = script(
        "import sys, oomguard\nsys.excepthook = lambda *given: print('mine', given[0].__name__)\noomguard.arm('300Mi')\n" + EATS
    )
    assert (ended.code, ended.stdout) == (198, "mine MemoryError\n"), ended


def test_what_is_buffered_is_written(script: Any) -> None:
    ended = script("import oomguard\noomguard.arm('300Mi')\nprint('words')\n" + EATS)
    assert (ended.code, ended.stdout) == (198, "words\n")


LOGS = (
    "import logging, oomguard\noomguard.arm('300Mi', exit_on_uncaught={})\ntry:\n    " + EATS.strip()
    + "\nexcept Exception:\n    logging.exception('a request failed')\nprint('goes on')\n"
)


def test_what_a_framework_logs_ends_the_process_if_it_is_wanted(script: Any) -> None:
    ended = script(LOGS.format(True))
    assert ended.code == 198 and ended.stdout == "" and "MemoryError" in ended.stderr, ended
    ended = script(LOGS.format(False))
    assert (ended.code, ended.stdout) == (0, "goes on\n"), ended


def test_the_environment_has_the_last_word(script: Any) -> None:
    tells = "import oomguard\noomguard.arm('300Mi')\ns = oomguard.status()\nprint(s.limit, s.source, s.measure)\n"
    assert script(tells).stdout == f"{300 << 20} source data\n"
    assert script(tells, env={"OOMGUARD_LIMIT": "1Gi"}).stdout == f"{1 << 30} environment data\n"
    assert script(tells, env={"OOMGUARD_MEASURE": "address-space"}).stdout == f"{300 << 20} source address-space\n"
    ended = script(tells + EATS, env={"OOMGUARD_EXIT_CODE": "77", "OOMGUARD_QUIET": "1"})
    assert ended.code == 77 and "oomguard:" not in ended.stderr
    ended = script(tells, env={"OOMGUARD_LIMIT": "much"})
    assert ended.code == 1 and "OOMGUARD_LIMIT" in ended.stderr


def test_a_lower_rlimit_stays(script: Any) -> None:
    ended = script(
        "import oomguard, resource\nresource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20))\noomguard.arm('300Mi')\n"
        "s = oomguard.status()\nprint(s.limit, s.source)\noomguard.set_limit('100Mi')\nprint(oomguard.status().limit)\n"
    )
    assert ended.stdout == f"{200 << 20} rlimit\n{100 << 20}\n", ended


def test_the_limit_can_be_moved_both_ways(script: Any, library: Any) -> None:
    ended = script(
        "import oomguard\noomguard.arm('300Mi')\noomguard.set_limit('100Mi')\n"
        "s = oomguard.status()\nprint(s.limit, s.armed, s.headroom == s.limit - s.in_use)\n"
        "try:\n    bytearray(200 << 20)\nexcept MemoryError:\n    print('refused')\n"
        "oomguard.set_limit('400Mi')\nprint(len(bytearray(200 << 20)))\n"
        "try:\n    oomguard.set_limit('1Mi')\nexcept MemoryError:\n    print('too low')\nprint(oomguard.status().limit)\n",
        before=library,
    )
    told = f"{100 << 20} True True\nrefused\n{200 << 20}\ntoo low\n{400 << 20}\n"
    assert (ended.code, ended.stdout) == (0, told), ended


def test_a_bad_exit_code_is_told(script: Any) -> None:
    for bad in ("0", "256", "x", ""):
        ended = script("import oomguard\noomguard.arm('300Mi')\n", env={"OOMGUARD_EXIT_CODE": bad})
        assert ended.code == 1 and "OOMGUARD_EXIT_CODE" in ended.stderr and "1 to 255" in ended.stderr, ended.stderr


def test_the_report_is_where_the_program_was_when_it_was_armed(script: Any, tmp_path: Any) -> None:
    moves = f"import os, oomguard\nos.chdir({str(tmp_path)!r})\noomguard.arm('300Mi')\nos.chdir('/')\n" + EATS
    ended = script(moves, env={"OOMGUARD_REPORT": "report.json"})
    assert ended.code == 198, ended.stderr
    assert (tmp_path / "report.json").read_text().startswith('{"oomguard":1,')


def test_what_is_mapped_and_untouched_is_not_resident(script: Any) -> None:
    ended = script(
        "import mmap, oomguard\nreserved = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE)\n"
        "oomguard.arm('300Mi', measure='resident')\nprint(oomguard.status().measure, len(bytearray(200 << 20)))\n" + EATS
    )
    assert (ended.code, ended.stdout) == (198, f"resident {200 << 20}\n"), ended


def test_wrong_arguments_change_nothing(script: Any) -> None:
    for wrong in ("'much'", "1.5", "'300Mi', measure='heap'", "'1Mi'"):
        ended = script(
            f"import oomguard\ntry:\n    oomguard.arm({wrong})\nexcept (ValueError, TypeError, MemoryError):\n    pass\n"
            "print(oomguard.status().limit, oomguard.status().armed)\n"
        )
        assert ended.stdout == "None False\n", ended
    assert script("import oomguard\noomguard.set_limit('1Gi')\n").code == 1


def test_a_process_in_a_budget_knows_it_and_its_lease(script: Any) -> None:
    ended = script(
        "import oomguard\nheld = bytearray(50 << 20)\ns = oomguard.status()\n"
        "print(s.budget, s.source, 50 << 20 <= s.lease <= s.budget)\n",
        before=(oomguard.launcher(), "run", "--budget", "200Mi", "--"),
    )
    assert (ended.code, ended.stdout) == (0, f"{200 << 20} budget True\n"), ended
    told = "import oomguard\ns = oomguard.status()\nprint(s.budget, s.lease)\n"
    assert script(told).stdout == script(told, before=WITH).stdout == "None None\n"


def test_the_library_counts_refusals(script: Any) -> None:
    ended = script(
        "import oomguard\nprint(oomguard.status().refusals)\ntry:\n    bytearray(1 << 40)\nexcept MemoryError:\n    pass\n"
        "print(oomguard.status().refusals, oomguard.status().source)\n",
        before=(oomguard.launcher(), "run", "-m", "1Gi", "--"),
    )
    assert ended.stdout == "0\n1 environment\n", ended
    assert os.environ.get("LD_PRELOAD") is None


def test_what_a_worker_has_no_use_for_is_imported_when_it_is_asked_for(script: Any) -> None:
    ended = script(
        # What the interpreter itself needs for this, 3.14 dataclasses, is there before.
        "import sys, traceback\nhad = {*sys.modules}\nimport oomguard\noomguard.arm('1Gi')\n"
        "print({'concurrent.futures', 'dataclasses', 'tempfile'} & ({*sys.modules} - had))\n"
        "print({*oomguard.__all__} - {*dir(oomguard)}, [oomguard.run, oomguard.Popen] and 'dataclasses' in sys.modules)\n"
        "from oomguard import *\nprint(ProcessPoolExecutor, hasattr(oomguard, 'nothing'))\n"
    )
    told = "set()\nset() True\n<class 'oomguard._executor.ProcessPoolExecutor'> False\n"
    assert (ended.code, ended.stdout) == (0, told), ended


def test_free_threaded_python_is_told_how_a_limit_holds(script: Any) -> None:
    """It has mapped 1 GiB to write to at its start, which is taken from without asking."""
    source = (
        "import mmap, sys\nsys.abiflags = sys.argv[1]\n"
        "held = mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nimport oomguard\noomguard.arm('300Mi')\n"
    )
    for flags in ("t", ""):
        ended = script(source, flags)
        assert ended.code != 0 and "MemoryError: the limit 300 MiB is below the 1" in ended.stderr, ended
        assert ("MIMALLOC_ARENA_RESERVE=32MiB" in ended.stderr) == (flags == "t"), ended
