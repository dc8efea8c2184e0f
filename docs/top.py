#!/usr/bin/env python3
"""Draws docs/top.svg: what `oomguard top` says of a budget that is used up, run here and now.

docs/top.py LAUNCHER [FILE]
"""
import html
import pathlib
import subprocess
import sys
import tempfile
import time

# So many MiB, from so many seconds on.
WORKER = """
import sys, time
time.sleep(float(sys.argv[2]))
held = []
while len(held) < int(sys.argv[1]):
    held.append(bytearray(b"\\1") * (1 << 20))
time.sleep(60)
"""
SCRIPT = """
python3 resize.py 170 0 & python3 index.py 140 0 & python3 thumbnails.py 60 0 &
python3 search.py 600 1.5 2>/dev/null & python3 report.py 250 2 2>/dev/null &
sleep 30
"""
SIZE, LINE, COLUMN, MARGIN = 13, 18, 7.83, 16


def output(launcher):
    launcher = pathlib.Path(launcher).resolve()
    command = [launcher, "run", "--quiet", "--budget", "512Mi", "--patience", "3s", "--", "sh", "-c", " ".join(SCRIPT.split())]
    with tempfile.TemporaryDirectory() as place:
        for name in ("resize", "index", "thumbnails", "search", "report"):
            pathlib.Path(place, f"{name}.py").write_text(WORKER)
        tree = subprocess.Popen(command, cwd=place)
        try:
            for _ in range(200):
                text = subprocess.run([launcher, "top", "--once"], capture_output=True, text=True, check=True).stdout
                if "wants" in text and "died" in text:
                    return text
                time.sleep(0.1)
            raise SystemExit(f"nobody waits, or nobody died:\n{text}")
        finally:
            tree.terminate()
            tree.wait()


def picture(lines):
    width = round(2 * MARGIN + COLUMN * max(map(len, lines)))
    height = 2 * MARGIN + LINE * len(lines)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    yield "<title>oomguard top: who holds what of a budget</title>"
    yield f'<rect width="{width}" height="{height}" rx="8" fill="#1c1f26"/>'
    yield f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="{SIZE}" fill="#d7dae0" xml:space="preserve">'
    for number, line in enumerate(lines):
        colour = "#7fd1ff" if line.startswith(("$", "[")) else "#ffb86c" if "wants" in line else "#ff7b72" if line.startswith("died") else None
        fill = f' fill="{colour}"' if colour else ""
        y = MARGIN + LINE * number + SIZE
        yield f'<text x="{MARGIN}" y="{y}" textLength="{COLUMN * len(line):.1f}"{fill}>{html.escape(line)}</text>'
    yield "</g>"
    yield "</svg>"


if __name__ == "__main__":
    target = sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).with_name("top.svg")
    lines = ["$ oomguard top", *output(sys.argv[1]).rstrip("\n").split("\n")]
    pathlib.Path(target).write_text("\n".join(picture(lines)) + "\n")
