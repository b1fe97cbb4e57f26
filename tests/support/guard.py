"""Runs a command and ends it, with its children, when whoever started us ends or lets go.

A script: `python guard.py COMMAND…`, started as the leader of a process group of its own and with
a pipe as standard input. The pipe closes when the test process closes it, and also when that is
killed; then the group is asked to end, and killed if it takes longer than `GRACE`.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE = 5.0
"""Seconds between asking the group to end and killing it."""


def main(command: list[str]) -> None:
    over = threading.Event()
    # Before the child is there, so that no signal can end the guard and leave the child behind.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def wait_for_child() -> None:
        code = child.wait()
        print(f"guard: {command[0]} ended with code {code}", flush=True)
        over.set()

    def wait_for_end_of_input() -> None:
        sys.stdin.buffer.read()
        over.set()

    child_watch = threading.Thread(target=wait_for_child, daemon=True)
    child_watch.start()
    threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    over.wait()
    os.killpg(0, signal.SIGTERM)
    child_watch.join(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
