"""Runs the vendor's clients against real agents and control planes; `run.sh` prepares and starts this.

Rows are situations, columns are clients; each cell checks code, message, HTTP status and request ID as the
client reports them. Ends with 0 if every cell is as documented and every code of docs/errors.md was met.
"""
import os
import re
import sys
import tempfile

import situations
from sdk_clients import UUID, Client, call_of, clients, shared_clients
from site_under_test import Site

HERE = os.path.dirname(os.path.abspath(__file__))

# The codes that no client can be brought to cause: each signs whole and well-formed requests.
NOT_FROM_CLIENTS = {
    "MissingParameter": "every client names action and version and signs",
    "IncompleteSignature": "every client signs what must be signed",
    "InvalidTimeStamp.Format": "every client writes the one format",
    "InvalidParameter.Format": "every client asks for JSON",
    "BadRequest": "every client speaks HTTP/1.1 and UTF-8",
    "RequestTimeout": "every client sends its request at once",
    "MisdirectedRequest": "only a server that checks no signatures asks for the host",
}


class Suite:
    def __init__(self):
        self.rows, self.seen, self.problems = [], set(), []
        self.clients = clients() + shared_clients()
        self.passed = self.failed = 0

    def case(self, title, check, only=lambda client: True):
        """One situation for every client that can be brought into it."""
        cells = {}
        for client in self.clients:
            if not only(client):
                continue
            problem = check(client)
            cells[client.name] = "ok" if problem is None else "FAIL"
            if problem is None:
                self.passed += 1
            else:
                self.failed += 1
                self.problems.append(f"{title} / {client.name}: {problem}")
        self.rows.append((title, cells))
        bad = [name for name, cell in cells.items() if cell != "ok"]
        print(f"{title:<44} {len(cells) - len(bad):>3} ok" + (f", FAIL: {', '.join(bad)}" if bad else ""), flush=True)

    def refused(self, title, code, status, text, only=lambda client: True, **request):
        """A situation that is answered with an error."""

        def check(client):
            return self.compare(client, client.call(call_of(request)), code, status, text)

        self.case(title, check, only)

    def compare(self, client, outcome, code, status, text):
        """What is wrong with the way an error arrived; `text` is a regular expression for the message."""
        said = (outcome.get("code"), outcome.get("status"))
        # pop-core keeps the status in a place of its own, and only sometimes.
        if said[0] != code or said[1] not in (status, None) or outcome["ok"]:
            return f"expected {code} {status}, got {outcome}"
        self.seen.add(code)
        bare = re.sub(rf"^(?:{re.escape(code)}: )?code: {status}, (.*) request id: {UUID}$", r"\1",
                      outcome["message"], flags=re.S)
        if not re.fullmatch(text, bare, flags=re.S):
            return f"message {bare!r} is not {text!r}"
        if not re.fullmatch(UUID, outcome.get("request_id") or ""):
            return f"request ID {outcome.get('request_id')!r}"
        return None

    def report(self, documented):
        width = max(len(title) for title, _ in self.rows)
        print("\nclients:")
        for number, client in enumerate(self.clients, 1):
            print(f"  {number:>2}  {client.name}")
        print(f"\n{'situation':<{width}}  " + " ".join(f"{n:>4}" for n in range(1, len(self.clients) + 1)))
        for title, cells in self.rows:
            print(f"{title:<{width}}  " + " ".join(f"{cells.get(c.name, '.'):>4}" for c in self.clients))
        for code in sorted(documented - self.seen):
            if code in NOT_FROM_CLIENTS:
                print(f"not from a client: {code} ({NOT_FROM_CLIENTS[code]})")
            else:
                self.problems.append(f"no client met {code} of docs/errors.md")
                self.failed += 1
        for problem in self.problems:
            print(f"\n{problem}")
        print(f"\n{self.passed} passed, {self.failed} failed")
        return 0 if self.failed == 0 else 1


def main():
    binaries, images = sys.argv[1:3]
    with open(f"{HERE}/../../docs/errors.md", encoding="utf-8") as page:
        documented = set(re.findall(r"(?m)^## (\S+)$", page.read()))
    with tempfile.TemporaryDirectory(prefix="sifter-sdk.") as directory:
        site = Site(binaries, images, directory)
        try:
            suite = Suite()
            situations.all_of_them(suite, site)
            return suite.report(documented)
        finally:
            site.stop()
            for process in Client.processes.values():
                process.kill()


if __name__ == "__main__":
    sys.exit(main())
