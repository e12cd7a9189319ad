"""Runs the vendor's clients against real agents and control planes; `run.sh` prepares and starts this.

Rows are situations, columns are clients; each cell checks code, message, HTTP status and request ID as the
client reports them. Ends with 0 if every cell is as documented and every code of docs/errors.md was met.
"""
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading

from site_under_test import SECRET, TOKEN, Site, until

HERE = os.path.dirname(os.path.abspath(__file__))
ACTION = {"action": "ListContainerImages", "version": "2018-04-12"}
CLUSTER = {"ClusterId": "real", "ContainerType": "singularity"}
UUID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}"

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


class Client:
    """One way to call one SDK; a process that several ways may share."""

    processes = {}

    def __init__(self, name, command, generic=False, **options):
        self.name, self.command, self.generic, self.options = name, command, generic, options
        self.v1 = options.get("algorithm") == "v2" or name.startswith(("py core", "js pop", "js rpc"))
        self.has_clock = True
        # One client can be told of an authority through the environment of its process only.
        self.takes_ca = not name.startswith("js rpc")

    def call(self, request):
        request = {**ACTION, **self.options, **request}
        process = self.processes.get(self.command)
        if process is None:
            process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.processes[self.command] = process
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended by itself")
        return json.loads(line)


class SharedScript:
    """A one-shot script of the project's collection of clients, used where it stands."""

    generic = has_clock = False
    takes_ca = True

    def __init__(self, name, script, v1=False, **environment):
        self.name, self.script, self.v1, self.environment, self.options = name, script, v1, environment, {}

    def call(self, request):
        parameters = request["parameters"]
        optional = [str(parameters.get(n, "-")) for n in ("ContainerType", "PageNumber", "PageSize")]
        environment = {**os.environ, **self.environment, "EHPC_STS_TOKEN": request.get("token") or ""}
        environment["EHPC_CA"] = request.get("ca") or ""
        command = [sys.executable, "-B", self.script, request["endpoint"], request["key"], request["secret"]]
        run = subprocess.run(
            [*command, parameters["ClusterId"], *optional], env=environment, capture_output=True, text=True
        )
        outcome = json.loads(run.stdout)
        outcome["status"] = outcome.pop("http_status", None)
        return outcome


def clients():
    here = f"{HERE}/clients"
    core, tea = (sys.executable, f"{here}/py_core.py"), (sys.executable, f"{here}/py_tea.py")
    pop, openapi = ("node", f"{here}/pop_core.cjs"), ("node", f"{here}/openapi.cjs")
    rpc = ("node", f"{here}/rpc_client.cjs")
    return [
        Client("py core", core, style="typed"),
        Client("py core POST", core, generic=True, style="common"),
        Client("py tea", tea, style="typed"),
        Client("py tea V1", tea, style="typed", algorithm="v2"),
        Client("py tea async", tea, style="async"),
        Client("py call_api", tea, generic=True, style="query"),
        Client("py call_api form", tea, generic=True, style="body"),
        Client("py call_api form V1", tea, generic=True, style="body", algorithm="v2"),
        Client("js pop GET", pop, generic=True, method="GET"),
        Client("js pop POST", pop, generic=True, method="POST"),
        Client("js rpc GET", rpc, generic=True, method="GET"),
        Client("js rpc form", rpc, generic=True, style="body"),
        Client("js client", openapi, generic=True, library="client"),
        Client("js client form", openapi, generic=True, library="client", style="body"),
        Client("js client V1", openapi, generic=True, library="client", algorithm="v2"),
        Client("js core", openapi, generic=True, library="core"),
        Client("js core V1", openapi, generic=True, library="core", algorithm="v2"),
    ]


def shared_clients():
    scripts = f"{os.environ.get('SIFTER_SHARED', f'{HERE}/../../../shared')}/sdk-clients"
    if not os.path.exists(f"{scripts}/py_core.py"):
        print(f"no {scripts}: its scripts are left out")
        return []
    return [
        SharedScript("shared core", f"{scripts}/py_core.py", v1=True),
        SharedScript("shared tea", f"{scripts}/py_tea.py"),
        SharedScript("shared tea V1", f"{scripts}/py_tea.py", v1=True, EHPC_SIG="v1"),
        SharedScript("shared async", f"{scripts}/py_tea.py", EHPC_ASYNC="1"),
    ]


class Replayer:
    """A way to a server that sends the first request again in place of every later one, byte for byte: what
    a listener on the network could do. The client signs a fresh request and is told of the old one."""

    def __init__(self, url):
        self.to = tuple(url.removeprefix("http://").split(":"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.first = None
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        # A client may go away with its connection open.
        with contextlib.suppress(OSError), stream, stream.makefile("rb") as reader:
            while request := message(reader):
                self.first = self.first or request
                with socket.create_connection(self.to) as server:
                    server.sendall(self.first)
                    stream.sendall(message(server.makefile("rb")))


def message(reader):
    """One HTTP message with its body; nothing at the end of the stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return b""
        head += line
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        size = None
        while size != 0:
            line = reader.readline()
            size = int(line, 16)
            head += line + reader.read(size + 2)
        return head
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head + reader.read(int(length.group(1)) if length else 0)


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


def call_of(request):
    return {"key": "reader", "secret": SECRET, "parameters": CLUSTER, **request}


def listing(client, endpoint, expected, **request):
    """Turns every page; what is wrong with them, compared with what the agent itself lists."""
    seen = []
    for number in range(1, len(expected) // 10 + 3):
        parameters = {**CLUSTER, "PageNumber": number, "PageSize": 10}
        outcome = client.call(call_of({"endpoint": endpoint, "parameters": parameters, **request}))
        if not outcome["ok"]:
            return f"page {number}: {outcome}"
        page = outcome["response"]
        images = page["Images"]["Images"]
        seen += images
        due = min(10, max(0, len(expected) - 10 * (number - 1)))
        head = {name: page.get(name) for name in ("TotalCount", "PageNumber", "PageSize")}
        if head != {"TotalCount": len(expected), "PageNumber": number, "PageSize": due} or len(images) != due:
            return f"page {number} of {len(expected)}: {head}"
        if not re.fullmatch(UUID, page["RequestId"]) or not page["DBInfo"].startswith("sqlite:"):
            return f"page {number}: {page['RequestId']}, {page['DBInfo']}"
    for image in seen:
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", image.pop("UpdateDateTime")):
            return f"UpdateDateTime of {image}"
    differing = [pair for pair in zip(seen, expected) if pair[0] != pair[1]]
    return f"listed {differing[0][0]}, expected {differing[0][1]}" if differing else None


def agents_own_listing(binaries, address):
    """The images as the agent's command line lists them, in the words of the API."""
    run = subprocess.run(
        [f"{binaries}/sifter", "ls", "--json", "--address", address], capture_output=True, text=True, check=True
    )
    images = [json.loads(line) for line in run.stdout.splitlines()]
    return [
        {
            "Type": "singularity",
            "Status": image["status"].removeprefix("STATUS_"),
            "Repository": image["repository"],
            "Tag": image["tag"],
            "System": "mycluster",
            "ImageId": image["imageId"],
        }
        for image in images
        if "path" in image
    ]


def main():
    binaries, images = sys.argv[1:3]
    with open(f"{HERE}/../../docs/errors.md", encoding="utf-8") as page:
        documented = set(re.findall(r"(?m)^## (\S+)$", page.read()))
    with tempfile.TemporaryDirectory(prefix="sifter-sdk.") as directory:
        site = Site(binaries, images, directory)
        try:
            suite = Suite()
            run(suite, site)
            return suite.report(documented)
        finally:
            site.stop()
            for process in Client.processes.values():
                process.kill()


def run(suite, site):
    _, address = site.agent("agent", site.images)
    failing, failing_address = site.agent("failing", site.images)
    _, rootless = site.agent("rootless", f"{site.dir}/no-such-root")
    site.slow_root()
    _, scanning = site.agent("scanning", f"{site.dir}/slow", "operations_per_second = 1\n")
    site.cluster("real", address)
    site.cluster("failing", failing_address)
    site.cluster("rootless", rootless)
    site.cluster("scanning", scanning)
    site.cluster("empty")
    site.cluster("database", site.played("database", "INTERNAL", "CATALOG_FAILED"))
    site.cluster("other", site.played("other", "UNIMPLEMENTED"))
    url = site.control("control")
    secure = 'cert = "server.pem"\nkey = "server.key"\nrequire_tls = true'
    tls = site.control("tls", secure, "max_header_bytes = 262144")
    strict = site.control("strict", 'require_tls = true\ntrusted_proxies = ["10.0.0.0/8"]')
    narrow = site.control("narrow", limits="key_requests_per_second = 1\nkey_burst = 1")

    first = suite.clients[0]
    for cluster in ("real", "failing"):
        until(f"the first scan of {cluster}", lambda: ask(first, url, cluster)["ok"])
    until("the failed scan", lambda: ask(first, url, "rootless").get("code") == "ExecFail")
    expected = agents_own_listing(site.binaries, address)
    if len(expected) < 30:
        raise SystemExit(f"{len(expected)} images are too few to turn pages")

    generic = lambda client: client.generic
    has_clock = lambda client: client.has_clock
    takes_ca = lambda client: client.takes_ca
    # pop-core insists on GET and POST itself.
    other_methods = lambda client: generic(client) and client.name.startswith(("py call_api", "js c", "js rpc"))
    base = {"endpoint": url}

    # Answers.
    suite.case("every page, and one past the end", lambda client: listing(client, url, expected))
    suite.case("the account's own key", lambda client: listing(client, url, expected, key="owner", secret="owner-secret"))
    suite.case(
        "temporary key with its token",
        lambda client: listing(client, url, expected, key="temporary", secret="temporary-secret", token=TOKEN),
    )
    # Before any client has been told of the authority: one keeps its connections.
    def distrusts(client):
        outcome = client.call(call_of({"endpoint": tls}))
        return None if not outcome["ok"] and outcome.get("code") is None else f"trusted: {outcome}"

    suite.case("HTTPS with an unknown authority", distrusts)

    suite.case("HTTPS with a private authority", lambda client: listing(client, tls, expected, ca=site.ca), takes_ca)

    def defaults(client):
        outcome = client.call(call_of({**base, "parameters": {"ClusterId": "real"}}))
        page = outcome.get("response", {})
        found = (page.get("PageNumber"), page.get("PageSize"))
        return None if found == (1, 10) else f"{outcome}"

    suite.case("defaults of optional parameters", defaults)

    # The action's own errors.
    invalid = lambda name: f"The specified parameter {name} is invalid\\."
    for parameters, name in [
        ({"ClusterId": "real", "PageSize": 51}, "PageSize"),
        ({"ClusterId": "real", "PageSize": 0}, "PageSize"),
        ({"ClusterId": "real", "PageNumber": 0}, "PageNumber"),
        ({"ClusterId": "real", "PageNumber": "abc"}, "PageNumber"),
        ({"ClusterId": ""}, "ClusterId"),
    ]:
        row = ", ".join(f"{n}={v}" for n, v in parameters.items() if n == name)
        suite.refused(row, "InvalidParams", 400, invalid(name), **base, parameters=parameters)
    suite.refused(
        "ContainerType=docker", "InvalidContainerType", 400, r"Unsupported container type: docker\.", **base,
        parameters={"ClusterId": "real", "ContainerType": "docker"},
    )
    missing = ("LoginNotFound", 404, r"The specified login node does not exist\.")
    for cluster in ("no-such", "empty", "a b+c/d~e*f'(中)!é&=%20#?\"x"):
        suite.refused(f"cluster {cluster}", *missing, **base, parameters={"ClusterId": cluster})
    suite.refused("another account's cluster", *missing, **base, key="stranger", secret="stranger-secret")
    command = rf"Failed to execute the command: .*{re.escape(site.dir)}/no-such-root.*No such file or directory.*\."
    suite.refused("root missing on the agent", "ExecFail", 406, command, **base, parameters={"ClusterId": "rootless"})
    suite.refused(
        "first scan under way", "ServiceUnavailable", 503,
        "The request has failed due to a temporary failure of the server", **base, parameters={"ClusterId": "scanning"},
    )
    suite.refused(
        "agent's database fails (played)", "DbError", 406, r"A database service error occurred\.", **base,
        parameters={"ClusterId": "database"},
    )
    suite.refused(
        "another program for an agent (played)", "UnknownError", 500, r"An unknown error occurred\.", **base,
        parameters={"ClusterId": "other"},
    )
    failing.stop()
    suite.refused(
        "agent killed", "AgentError", 406, r"The agent service request failed\.", **base,
        parameters={"ClusterId": "failing"},
    )
    forbidden = ("NotAuthorized", 407, r"You are not authorized by RAM for this request\.")
    for key in ("nobody", "elsewhere", "denied"):
        for cluster in ("real", "no-such"):
            suite.refused(f"key {key}, cluster {cluster}", *forbidden, **base, key=key, secret=f"{key}-secret",
                          parameters={"ClusterId": cluster})

    # The gateway's.
    def wrong_secret(client):
        outcome = client.call(call_of({**base, "secret": "wrong"}))
        if client.name in ("py core", "shared core"):
            # This SDK compares the server's string to sign with its own (not for a form), and says so.
            found = (outcome.get("code"), outcome.get("message"))
            wanted = ("InvalidAccessKeySecret", "The AccessKeySecret is incorrect. Please check your AccessKeyId and AccessKeySecret.")
            return None if found == wanted else f"{outcome}"
        text = r"Specified signature is not matched with our calculation\. server string to sign is:(GET|POST|ACS3).*"
        return suite.compare(client, outcome, "SignatureDoesNotMatch", 400, text)

    suite.case("wrong secret", wrong_secret)
    suite.refused(
        "unknown access key", "InvalidAccessKeyId.NotFound", 404, r"Specified access key is not found\.", **base,
        key="unknown",
    )
    suite.refused(
        "disabled access key", "InvalidAccessKeyId.Inactive", 400, r"Specified access key is disabled\.", **base,
        key="inactive", secret="inactive-secret",
    )
    for title, clock in [("clock an hour slow", -3600), ("clock an hour fast", 3600)]:
        suite.refused(
            title, "InvalidTimeStamp.Expired", 400, r"Specified time stamp or date value is expired\.",
            has_clock, **base, clock=clock,
        )
    suite.case(
        "clock ten minutes slow", lambda client: listing(client, url, expected, clock=-600), has_clock,
    )

    def replayed(client):
        way = Replayer(url)
        outcome = client.call(call_of({"endpoint": way.url}))
        if not outcome["ok"]:
            return f"the original: {outcome}"
        outcome = client.call(call_of({"endpoint": way.url}))
        text = r"Specified signature nonce was used already\."
        return suite.compare(client, outcome, "SignatureNonceUsed", 400, text)

    suite.case("the same bytes again", replayed)
    temporary = {**base, "key": "temporary", "secret": "temporary-secret"}
    for title, code, text, request in [
        ("temporary key without token", "MissingSecurityToken", r"SecurityToken is mandatory for this action\.", temporary),
        ("temporary key with another token", "InvalidSecurityToken.MismatchWithAccessKey",
         r"Specified SecurityToken mismatch with the AccessKey\.", {**temporary, "token": "another"}),
        ("permanent key with a token", "InvalidSecurityToken.MismatchWithAccessKey",
         r"Specified SecurityToken mismatch with the AccessKey\.", {**base, "token": TOKEN}),
        ("token with a space inside", "InvalidSecurityToken.Malformed", r"Specified SecurityToken is malformed\.",
         {**temporary, "token": "CAIS token"}),
        ("temporary key that is over", "InvalidSecurityToken.Expired", r"Specified SecurityToken is expired\.",
         {**base, "key": "over", "secret": "over-secret", "token": TOKEN}),
    ]:
        suite.refused(title, code, 400, text, **request)
    suite.refused(
        "HTTP where HTTPS is required", "InvalidProtocol.NeedSsl", 404, r"Your request is denied as lack of ssl protect\.",
        endpoint=strict,
    )

    def throttled(client):
        for _ in range(20):
            outcome = client.call(call_of({"endpoint": narrow}))
            if not outcome["ok"]:
                break
        return suite.compare(client, outcome, "Throttling.User", 400, r"Request was denied due to user flow control\.")

    suite.case("more than the key's share", throttled)
    suite.refused(
        "another action", "InvalidAction.NotFound", 404, r"Specified api is not found, please check your url and method\.",
        generic, **base, action="ListClusters",
    )
    suite.refused(
        "another version", "InvalidVersion", 400, r"Specified parameter Version is not valid\.", generic, **base,
        version="2024-07-30",
    )
    suite.refused(
        "method PUT", "UnsupportedHTTPMethod", 405, r"This HTTP method is not supported: use GET or POST\.",
        other_methods, **base, method="PUT",
    )
    suite.refused(
        "ACS3-HMAC-SM3", "InvalidSignatureMethod", 400, r"Specified signature method is not valid\.",
        lambda client: not client.v1 and isinstance(client, Client), **base, algorithm="ACS3-HMAC-SM3",
    )
    in_body = lambda client: client.options.get("style") in ("body", "common") or client.options.get("method") == "POST"
    long = {"ClusterId": "x" * 100_000}
    suite.refused("body of 100,000 bytes", "RequestTooLarge", 413, r"The body of the request is too large\.",
                  in_body, **base, parameters=long)
    in_query = lambda client: not in_body(client)
    suite.refused("query of 100,000 bytes", "HeadersTooLarge", 431, r"The headers of the request are too large\.",
                  in_query, **base, parameters=long)
    suite.refused("the same where headers may be long", "UriTooLong", 414, r"The request target is too long\.",
                  lambda client: in_query(client) and takes_ca(client), endpoint=tls, ca=site.ca, parameters=long)
    # So much is still being sent when the answer is there.
    huge = {"ClusterId": "x" * 10_000_000}
    no_script = lambda client: isinstance(client, Client)
    suite.refused("body of 10,000,000 bytes", "RequestTooLarge", 413, r"The body of the request is too large\.",
                  in_body, **base, parameters=huge)
    suite.refused("query of 10,000,000 bytes", "HeadersTooLarge", 431, r"The headers of the request are too large\.",
                  lambda client: in_query(client) and no_script(client), **base, parameters=huge)

    # A file of secrets that others can read is not used any more, and no guess is made.
    os.chmod(f"{site.dir}/unreadable.secret", 0o644)
    unreadable = {**base, "key": "unreadable", "secret": "unreadable-secret"}
    until("the reload", lambda: first.call(call_of(unreadable)).get("code") == "AliyunError")
    suite.refused("secret that others can read", "AliyunError", 406, r"An Alibaba Cloud product error occurred\.",
                  **unreadable)


def ask(client, url, cluster):
    return client.call(call_of({"endpoint": url, "parameters": {"ClusterId": cluster}}))


if __name__ == "__main__":
    sys.exit(main())
