"""The situations that clients are brought into, and what each must be told."""
import contextlib
import json
import os
import re
import socket
import subprocess
import threading
from types import SimpleNamespace

from sdk_clients import CLUSTER, UUID, Client, call_of
from site_under_test import TOKEN, until


def all_of_them(suite, site):
    at = servers(site, suite.clients[0])
    listings(suite, at)
    errors_of_the_action(suite, at)
    errors_of_signatures(suite, at)
    errors_of_requests(suite, at)
    requests_too_large(suite, at)
    # The last, for its key cannot be used any more.
    secret_that_others_can_read(suite, at)


def servers(site, first):
    """Agents and control planes, as soon as each is in the state that its situations ask for."""
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
    # One request of a key in half an hour: a rate would leave room for clients that take their time to start.
    narrow = site.control("narrow", auth="max_nonces = 2")

    for cluster in ("real", "failing"):
        until(f"the first scan of {cluster}", lambda: ask(first, url, cluster)["ok"])
    until("the failed scan", lambda: ask(first, url, "rootless").get("code") == "ExecFail")
    expected = agents_own_listing(site.binaries, address)
    if len(expected) < 30:
        raise SystemExit(f"{len(expected)} images are too few to turn pages")
    return SimpleNamespace(
        site=site, failing=failing, expected=expected, url=url, tls=tls, strict=strict, narrow=narrow,
        base={"endpoint": url},
    )


def generic(client):
    return client.generic


def has_clock(client):
    return client.has_clock


def takes_ca(client):
    return client.takes_ca


def takes_any_method(client):
    # pop-core insists on GET and POST itself.
    return client.generic and client.name.startswith(("py call_api", "js c", "js rpc"))


def in_body(client):
    return client.options.get("style") in ("body", "common") or client.options.get("method") == "POST"


def in_query(client):
    return not in_body(client)


def listings(suite, at):
    suite.case("every page, and one past the end", lambda client: listing(client, at.url, at.expected))
    suite.case(
        "the account's own key",
        lambda client: listing(client, at.url, at.expected, key="owner", secret="owner-secret"),
    )
    suite.case(
        "temporary key with its token",
        lambda client: listing(client, at.url, at.expected, key="temporary", secret="temporary-secret", token=TOKEN),
    )
    # Before any client has been told of the authority: one keeps its connections.
    def distrusts(client):
        outcome = client.call(call_of({"endpoint": at.tls}))
        return None if not outcome["ok"] and outcome.get("code") is None else f"trusted: {outcome}"

    suite.case("HTTPS with an unknown authority", distrusts)

    suite.case("HTTPS with a private authority", lambda client: listing(client, at.tls, at.expected, ca=at.site.ca), takes_ca)

    def defaults(client):
        outcome = client.call(call_of({**at.base, "parameters": {"ClusterId": "real"}}))
        page = outcome.get("response", {})
        found = (page.get("PageNumber"), page.get("PageSize"))
        return None if found == (1, 10) else f"{outcome}"

    suite.case("defaults of optional parameters", defaults)


def errors_of_the_action(suite, at):
    invalid = lambda name: f"The specified parameter {name} is invalid\\."
    for parameters, name in [
        ({"ClusterId": "real", "PageSize": 51}, "PageSize"),
        ({"ClusterId": "real", "PageSize": 0}, "PageSize"),
        ({"ClusterId": "real", "PageNumber": 0}, "PageNumber"),
        ({"ClusterId": "real", "PageNumber": "abc"}, "PageNumber"),
        ({"ClusterId": ""}, "ClusterId"),
    ]:
        row = ", ".join(f"{n}={v}" for n, v in parameters.items() if n == name)
        suite.refused(row, "InvalidParams", 400, invalid(name), **at.base, parameters=parameters)
    suite.refused(
        "ContainerType=docker", "InvalidContainerType", 400, r"Unsupported container type: docker\.", **at.base,
        parameters={"ClusterId": "real", "ContainerType": "docker"},
    )
    missing = ("LoginNotFound", 404, r"The specified login node does not exist\.")
    for cluster in ("no-such", "empty", "a b+c/d~e*f'(中)!é&=%20#?\"x"):
        suite.refused(f"cluster {cluster}", *missing, **at.base, parameters={"ClusterId": cluster})
    suite.refused("another account's cluster", *missing, **at.base, key="stranger", secret="stranger-secret")
    command = rf"Failed to execute the command: .*{re.escape(at.site.dir)}/no-such-root.*No such file or directory.*\."
    suite.refused("root missing on the agent", "ExecFail", 406, command, **at.base,
                  parameters={"ClusterId": "rootless"})
    suite.refused(
        "first scan under way", "ServiceUnavailable", 503,
        "The request has failed due to a temporary failure of the server", **at.base,
        parameters={"ClusterId": "scanning"},
    )
    suite.refused(
        "agent's database fails (played)", "DbError", 406, r"A database service error occurred\.", **at.base,
        parameters={"ClusterId": "database"},
    )
    suite.refused(
        "another program for an agent (played)", "UnknownError", 500, r"An unknown error occurred\.", **at.base,
        parameters={"ClusterId": "other"},
    )
    at.failing.stop()
    suite.refused(
        "agent killed", "AgentError", 406, r"The agent service request failed\.", **at.base,
        parameters={"ClusterId": "failing"},
    )
    forbidden = ("NotAuthorized", 407, r"You are not authorized by RAM for this request\.")
    for key in ("nobody", "elsewhere", "denied"):
        for cluster in ("real", "no-such"):
            suite.refused(f"key {key}, cluster {cluster}", *forbidden, **at.base, key=key, secret=f"{key}-secret",
                          parameters={"ClusterId": cluster})


def errors_of_signatures(suite, at):
    def wrong_secret(client):
        outcome = client.call(call_of({**at.base, "secret": "wrong"}))
        if client.name in ("py core", "shared core"):
            # This SDK compares the server's string to sign with its own (not for a form), and says so.
            found = (outcome.get("code"), outcome.get("message"))
            wanted = ("InvalidAccessKeySecret", "The AccessKeySecret is incorrect. Please check your AccessKeyId and AccessKeySecret.")
            return None if found == wanted else f"{outcome}"
        text = r"Specified signature is not matched with our calculation\. server string to sign is:(GET|POST|ACS3).*"
        return suite.compare(client, outcome, "SignatureDoesNotMatch", 400, text)

    suite.case("wrong secret", wrong_secret)
    suite.refused(
        "unknown access key", "InvalidAccessKeyId.NotFound", 404, r"Specified access key is not found\.", **at.base,
        key="unknown",
    )
    suite.refused(
        "disabled access key", "InvalidAccessKeyId.Inactive", 400, r"Specified access key is disabled\.", **at.base,
        key="inactive", secret="inactive-secret",
    )
    for title, clock in [("clock an hour slow", -3600), ("clock an hour fast", 3600)]:
        suite.refused(
            title, "InvalidTimeStamp.Expired", 400, r"Specified time stamp or date value is expired\.",
            has_clock, **at.base, clock=clock,
        )
    suite.case(
        "clock ten minutes slow", lambda client: listing(client, at.url, at.expected, clock=-600), has_clock,
    )

    def replayed(client):
        way = Replayer(at.url)
        outcome = client.call(call_of({"endpoint": way.url}))
        if not outcome["ok"]:
            return f"the original: {outcome}"
        outcome = client.call(call_of({"endpoint": way.url}))
        text = r"Specified signature nonce was used already\."
        return suite.compare(client, outcome, "SignatureNonceUsed", 400, text)

    suite.case("the same bytes again", replayed)
    temporary = {**at.base, "key": "temporary", "secret": "temporary-secret"}
    for title, code, text, request in [
        ("temporary key without token", "MissingSecurityToken", r"SecurityToken is mandatory for this action\.", temporary),
        ("temporary key with another token", "InvalidSecurityToken.MismatchWithAccessKey",
         r"Specified SecurityToken mismatch with the AccessKey\.", {**temporary, "token": "another"}),
        ("permanent key with a token", "InvalidSecurityToken.MismatchWithAccessKey",
         r"Specified SecurityToken mismatch with the AccessKey\.", {**at.base, "token": TOKEN}),
        ("token with a space inside", "InvalidSecurityToken.Malformed", r"Specified SecurityToken is malformed\.",
         {**temporary, "token": "CAIS token"}),
        ("temporary key that is over", "InvalidSecurityToken.Expired", r"Specified SecurityToken is expired\.",
         {**at.base, "key": "over", "secret": "over-secret", "token": TOKEN}),
    ]:
        suite.refused(title, code, 400, text, **request)
    suite.refused(
        "HTTP where HTTPS is required", "InvalidProtocol.NeedSsl", 404, r"Your request is denied as lack of ssl protect\.",
        endpoint=at.strict,
    )

    def throttled(client):
        for _ in range(20):
            outcome = client.call(call_of({"endpoint": at.narrow}))
            if not outcome["ok"]:
                break
        return suite.compare(client, outcome, "Throttling.User", 400, r"Request was denied due to user flow control\.")

    suite.case("more than the key's share", throttled)


def errors_of_requests(suite, at):
    suite.refused(
        "another action", "InvalidAction.NotFound", 404, r"Specified api is not found, please check your url and method\.",
        generic, **at.base, action="ListClusters",
    )
    suite.refused(
        "another version", "InvalidVersion", 400, r"Specified parameter Version is not valid\.", generic, **at.base,
        version="2024-07-30",
    )
    suite.refused(
        "method PUT", "UnsupportedHTTPMethod", 405, r"This HTTP method is not supported: use GET or POST\.",
        takes_any_method, **at.base, method="PUT",
    )
    suite.refused(
        "ACS3-HMAC-SM3", "InvalidSignatureMethod", 400, r"Specified signature method is not valid\.",
        lambda client: not client.v1 and isinstance(client, Client), **at.base, algorithm="ACS3-HMAC-SM3",
    )


def requests_too_large(suite, at):
    long = {"ClusterId": "x" * 100_000}
    suite.refused("body of 100,000 bytes", "RequestTooLarge", 413, r"The body of the request is too large\.",
                  in_body, **at.base, parameters=long)
    suite.refused("query of 100,000 bytes", "HeadersTooLarge", 431, r"The headers of the request are too large\.",
                  in_query, **at.base, parameters=long)
    suite.refused("the same where headers may be long", "UriTooLong", 414, r"The request target is too long\.",
                  lambda client: in_query(client) and takes_ca(client), endpoint=at.tls, ca=at.site.ca, parameters=long)
    # So much is still being sent when the answer is there.
    huge = {"ClusterId": "x" * 10_000_000}
    suite.refused("body of 10,000,000 bytes", "RequestTooLarge", 413, r"The body of the request is too large\.",
                  in_body, **at.base, parameters=huge)
    suite.refused("query of 10,000,000 bytes", "HeadersTooLarge", 431, r"The headers of the request are too large\.",
                  lambda client: in_query(client) and isinstance(client, Client), **at.base, parameters=huge)


def secret_that_others_can_read(suite, at):
    # A file of secrets that others can read is not used any more, and no guess is made.
    os.chmod(f"{at.site.dir}/unreadable.secret", 0o644)
    unreadable = {**at.base, "key": "unreadable", "secret": "unreadable-secret"}
    until("the reload", lambda: suite.clients[0].call(call_of(unreadable)).get("code") == "AliyunError")
    suite.refused("secret that others can read", "AliyunError", 406, r"An Alibaba Cloud product error occurred\.",
                  **unreadable)


def ask(client, url, cluster):
    return client.call(call_of({"endpoint": url, "parameters": {"ClusterId": cluster}}))


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
