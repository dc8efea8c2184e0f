"""`run` and `Popen` are subprocess's, with a limit."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, KEYS

import oomguard

PYTHON = sys.executable
EATS = [PYTHON, "-c", "print('begins', flush=True); rows = [bytearray(1 << 20) for _ in range(200)]; print(len(rows))"]


def test_a_command_that_runs_out_of_memory_raises_whatever_check_says() -> None:
    for check in (False, True):
        with pytest.raises(oomguard.OutOfMemory) as raised:
            oomguard.run(EATS, limit="100Mi", check=check, capture_output=True)
        error = raised.value
        assert (error.limit, error.tries, error.returncode) == (100 << 20, 1, 198)
        assert error.report is not None and list(error.report) == KEYS
        assert error.report["limit"] == 100 << 20 and error.report["evidence"] == "exact"
        assert error.stdout == b"begins\n" and b"MemoryError" in error.stderr and error.cmd == EATS
        assert str(error).startswith("out of memory: python") and "100 MiB" in str(error)
        again = pickle.loads(pickle.dumps(error))
        assert (again.report, again.limit, again.tries, again.stdout) == (error.report, error.limit, 1, error.stdout)


def test_a_retry_gets_more_and_the_same_input() -> None:
    eats_input = (
        "import sys; words = sys.stdin.read(); rows = [bytearray(1 << 20) for _ in range(200)]; print(words, len(rows))"
    )
    done = oomguard.run(
        [PYTHON, "-c", eats_input], limit="100Mi", retries=2, grow=2.0, input="words", text=True, stdout=subprocess.PIPE
    )
    assert done.stdout == "words 200\n" and done.returncode == 0
    with tempfile.TemporaryFile() as file:
        file.write(b"skipped words")
        file.seek(8)
        done = oomguard.run(
            [PYTHON, "-c", eats_input], limit="100Mi", retries=2, stdin=file, stdout=subprocess.PIPE
        )
        assert done.stdout == b"words 200\n"


def test_retries_end_at_the_largest_limit() -> None:
    with pytest.raises(oomguard.OutOfMemory) as raised:
        oomguard.run(EATS, limit="50Mi", retries=9, grow=1.5, max_limit="100Mi", stderr=subprocess.DEVNULL)
    # 50, 75, 100
    assert (raised.value.tries, raised.value.limit) == (3, 100 << 20)


@pytest.mark.parametrize("code", [0, 1, 3, 125, 127, 137, 255])
def test_exit_codes_are_the_commands(code: int) -> None:
    # 125 of the command's own is told from the launcher's.
    assert oomguard.run([PYTHON, "-c", f"import os; os._exit({code})"], limit="1Gi").returncode == code


def test_the_code_alone_is_no_proof() -> None:
    assert oomguard.run([PYTHON, "-c", "import os; os._exit(198)"], limit="1Gi").returncode == 198


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_told_as_subprocess_tells_it(number: signal.Signals) -> None:
    command = [PYTHON, "-c", f"import os; os.kill(os.getpid(), {int(number)})"]
    assert oomguard.run(command, limit="1Gi").returncode == -number == subprocess.run(command).returncode
    with pytest.raises(subprocess.CalledProcessError) as raised:
        oomguard.run(command, limit="1Gi", check=True)
    assert raised.value.returncode == -number


def test_what_subprocess_raises_is_raised(tmp_path: Path) -> None:
    # For us it is there.
    (tmp_path / "ours").mkdir(mode=0o700)
    unreachable = Path(shutil.copy("/bin/true", tmp_path / "ours" / "true"))
    for kind, given, named in (
        (FileNotFoundError, ["no-such-program"], {}),
        (FileNotFoundError, ["./no-such-program"], {}),
        (FileNotFoundError, ["true"], {"cwd": "/no/such/directory"}),
        (FileNotFoundError, ["python3"], {"env": {"PATH": "/no/such/directory"}}),
        (PermissionError, ["/etc/passwd"], {}),
        (ValueError, ["true"], {"input": b"", "stdin": subprocess.PIPE}),
        (ValueError, ["true"], {"capture_output": True, "stdout": subprocess.PIPE}),
        (TypeError, ["true"], {"no_such_argument": 1}),
        (TypeError, Path("true"), {"shell": True}),
        (ValueError, ["true\0"], {}),
        (ValueError, ["true", "\0"], {}),
        (PermissionError, [str(unreachable)], {"user": "nobody"}),
    ):
        if "user" in named and os.getuid() != 0:
            continue
        with pytest.raises(kind):
            subprocess.run(given, **named)  # type: ignore[call-overload]
        with pytest.raises(kind):
            oomguard.run(given, **named)


def test_wrong_limits_are_told_before_anything_runs() -> None:
    for limit in ("much", "0", "512m", "-1", "101%", "1.5", " 1Gi", ""):
        with pytest.raises(ValueError, match="512Mi"):
            oomguard.run(["true"], limit=limit)
    with pytest.raises(TypeError):
        oomguard.run(["true"], limit=1.5)
    for named in ({"retries": -1}, {"grow": 1.0}, {"max_limit": "much"}):
        with pytest.raises(ValueError):
            oomguard.run(["true"], **named)


def test_a_bad_option_is_told_by_the_error() -> None:
    for named, words in (({"measure": "rss"}, '--measure "rss"'), ({"exit_code": 0}, '--exit-code "0"')):
        with pytest.raises(oomguard.CannotGuard, match=words):
            oomguard.run(["true"], limit="1Gi", capture_output=True, **named)  # type: ignore[call-overload]


def test_the_report_goes_where_it_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(oomguard.OutOfMemory) as raised:
        oomguard.run(EATS, limit="100Mi", report=tmp_path / "report", capture_output=True)
    assert json.loads((tmp_path / "report").read_text()) == raised.value.report


def test_a_limit_too_small_to_start_with_is_no_out_of_memory() -> None:
    with pytest.raises(oomguard.CannotGuard):
        oomguard.run([PYTHON, "-c", "pass"], limit="64Ki", measure="data", stderr=subprocess.DEVNULL)


def test_timeout_ends_the_command_and_what_it_started() -> None:
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as raised:
        oomguard.run("echo out; sleep 600", shell=True, limit="1Gi", timeout=1.5, capture_output=True)
    assert time.monotonic() - begun < DEADLINE_S
    assert raised.value.output == b"out\n" and raised.value.timeout == 1.5


def test_shell_cwd_env_and_preexec_are_the_commands() -> None:
    with tempfile.TemporaryDirectory() as directory:
        done = oomguard.run(
            "pwd; echo $WORD; umask",
            shell=True,
            cwd=directory,
            env={**os.environ, "WORD": "a word"},
            preexec_fn=lambda: os.umask(0o077) and None,
            limit="1Gi",
            capture_output=True,
            text=True,
        )
        assert done.stdout.split("\n")[:3] == [os.path.realpath(directory), "a word", "0077"], done
        path = os.path.join(directory, "here")
        with open(path, "w") as file:
            file.write("#!/bin/sh\necho here\n")
        os.chmod(path, 0o755)
        assert oomguard.run(["./here"], cwd=directory, limit="1Gi", stdout=subprocess.PIPE).stdout == b"here\n"


def test_streams_and_descriptors_are_passed() -> None:
    reads, writes = os.pipe()
    done = oomguard.run(
        ["/bin/sh", "-c", f"cat; echo error >&2; echo passed >/dev/fd/{writes}"],
        input=b"\0\xff" * 100_000,
        capture_output=True,
        pass_fds=[writes],
        limit="1Gi",
    )
    os.close(writes)
    with io.open(reads, "rb") as passed:
        assert passed.read() == b"passed\n"
    assert (done.stdout, done.stderr) == (b"\0\xff" * 100_000, b"error\n")
    left = oomguard.run(
        "echo to stdout; echo to stderr >&2", shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, limit="1Gi"
    )
    assert left.stdout == b"to stdout\nto stderr\n"
    assert oomguard.run(["true"], close_fds=False).returncode == 0
    with io.open(os.devnull) as null, pytest.warns(RuntimeWarning, match="pass_fds overriding close_fds"):
        assert oomguard.run(["true"], close_fds=False, pass_fds=[null.fileno()]).returncode == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_program_whose_own_streams_are_closed_captures_what_the_command_says(tmp_path: Path, closed: Any) -> None:
    source = (
        "import oomguard, sys\ndone = oomguard.run('echo out; echo error >&2', shell=True, limit='1Gi', capture_output=True)\n"
        "open(sys.argv[1], 'w').write(repr((done.returncode, done.stdout, done.stderr)))\n"
    )
    words = " ".join(f"{number}>&-" for number in closed)
    shell = ["/bin/sh", "-c", f'exec "$@" {words}', "sh"]
    subprocess.run([*shell, PYTHON, "-c", source, str(tmp_path / "said")], timeout=DEADLINE_S)
    assert (tmp_path / "said").read_text() == repr((0, b"out\n", b"error\n"))


def test_popen_tells_the_outcome_after_the_end() -> None:
    with oomguard.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, limit="1Gi") as process:
        assert process.poll() is None and process.outcome is None and process.returncode is None
        assert process.communicate("words") == ("words", None)
    assert process.outcome is not None and process.outcome.kind == "success"
    assert process.outcome.limit == 1 << 30 and process.outcome.exit_code == 0
    assert process.outcome.pid not in (None, process.pid)
    process = oomguard.Popen(EATS, limit="100Mi", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait() == 198
    outcome = process.outcome
    assert outcome is not None and outcome.is_out_of_memory and outcome.report is not None
    assert outcome.report["pid"] == outcome.pid and outcome.kind == "out_of_memory"


def test_popen_passes_signals_on() -> None:
    # Blocked, it cannot come between what is printed and the wait.
    waits = (
        "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); print('on', flush=True); "
        "signal.sigwait({signal.SIGUSR1}); sys.exit(7)"
    )
    with oomguard.Popen([PYTHON, "-c", waits], stdout=subprocess.PIPE, limit="1Gi") as process:
        assert process.stdout is not None and process.stdout.readline() == b"on\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(DEADLINE_S) == 7
    for end, code in (("terminate", -15), ("kill", -9)):
        with oomguard.Popen(["sleep", "600"], limit="1Gi") as process:
            getattr(process, end)()
            assert process.wait(DEADLINE_S) == code


def test_no_descriptor_is_left() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    oomguard.run(["true"])
    before = count()
    for _ in range(5):
        oomguard.run(["true"], capture_output=True)
        with pytest.raises(FileNotFoundError):
            oomguard.run(["no-such-program"])
    assert count() == before


def test_the_module_and_the_console_script_are_the_launcher() -> None:
    script = os.path.join(os.path.dirname(PYTHON), "oomguard")
    for words in ([PYTHON, "-m", "oomguard"], [script]):
        done = subprocess.run([*words, "run", "-m", "100Mi", "--", *EATS], capture_output=True)
        assert done.returncode == 198 and b"oomguard: out of memory" in done.stderr
        assert subprocess.run([*words, "run", "--", "sh", "-c", "exit 3"]).returncode == 3
        version = subprocess.run([*words, "--version"], stdout=subprocess.PIPE).stdout
        assert version.split() == [b"oomguard", oomguard.__version__.encode()]
