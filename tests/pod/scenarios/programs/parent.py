"""Three Python workers at once, one of which wants more memory than it gets at first: again with more on 198.

usage: parent.py LAUNCHER|- MIB MIB MIB     with `-` the workers run as they are
"""

import json
import subprocess
import sys
import tempfile

LIMITS_MIB = (32, 96)
WORKER = """
import sys
held = [b"x" * 100_000 for _ in range(int(sys.argv[1]) * 10)]
print(sum(map(len, held)))
"""


class Attempt:
    def __init__(self, launcher, mib, limit_mib):
        self.mib, self.limit_mib = mib, limit_mib
        self.report = tempfile.NamedTemporaryFile()
        command = [sys.executable, "-c", WORKER, str(mib)]
        if launcher != "-":
            run = ["run", "--limit", f"{limit_mib}Mi", "--report", self.report.name, "--"]
            command = [launcher, *run, *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait(self):
        answer = self.process.communicate()[0]
        return self.process.returncode, answer


def main():
    launcher, *sizes = sys.argv[1:]
    waiting = [Attempt(launcher, int(mib), LIMITS_MIB[0]) for mib in sizes]
    while waiting:
        attempt = waiting.pop(0)
        code, answer = attempt.wait()
        if code == 198 and attempt.limit_mib != LIMITS_MIB[-1]:
            report = json.loads(attempt.report.read())
            assert report["event"] == "out_of_memory" and report["exit_code"] == 198, report
            print(f"{attempt.mib} MiB: out of memory at {report['limit'] >> 20} MiB, again", flush=True)
            waiting.append(Attempt(launcher, attempt.mib, LIMITS_MIB[-1]))
        elif code == 0 and int(answer) == attempt.mib * 1_000_000:
            print(f"{attempt.mib} MiB: right", flush=True)
        else:
            sys.exit(f"{attempt.mib} MiB: return code {code}, answer {answer!r}")


main()
