"""What all Python clients share: one call a line on standard input, its outcome a line on standard output.

A process answers any number of calls, since importing an SDK takes longer than calling. `clock` moves
the clock that the SDK sees, in seconds.
"""
import contextlib
import json
import logging
import sys
import time

import time_machine

logging.disable(logging.CRITICAL)


class Refused(Exception):
    """An API error as the SDK reports it."""

    def __init__(self, error, code, status, message, request_id):
        super().__init__(message)
        self.outcome = {
            "ok": False,
            "exception": type(error).__name__,
            "code": code,
            "status": int(status) if status else None,
            "message": message,
            "request_id": request_id,
        }


def serve(call):
    """Answers until the input ends. `call` returns the decoded reply or raises `Refused`."""
    for line in sys.stdin:
        request = json.loads(line)
        clock = contextlib.nullcontext()
        if request.get("clock"):
            clock = time_machine.travel(time.time() + request["clock"], tick=True)
        try:
            with clock:
                outcome = {"ok": True, "response": call(request)}
        except Refused as refused:
            outcome = refused.outcome
        except Exception as error:  # the transport, or the SDK stumbling over the answer
            outcome = {"ok": False, "exception": type(error).__name__, "message": str(error)}
        print(json.dumps(outcome), flush=True)
