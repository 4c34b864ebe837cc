"""Runs a program on a terminal of its own, and types when it is asked to.

terminal.py '["wait for this", "type that", ...]' PROGRAM [ARGUMENTS]: shows what the program shows, and ends as it does.
"""

import json
import os
import pty
import select
import sys

steps = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])

seen = b""
while True:
    if not select.select([terminal], [], [], 60)[0]:
        sys.exit(f"nothing for a minute; waiting for {steps[:1]}")
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        # Linux says so when the last process has closed its side.
        break
    if not piece:
        break
    seen += piece
    os.write(1, piece)
    if steps and steps[0].encode() in seen:
        seen = b""
        os.write(terminal, steps[1].encode())
        steps = steps[2:]

sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
