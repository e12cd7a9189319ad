"""A site to ask: real agents, real control planes, their configurations, keys and certificates."""
import os
import re
import shutil
import subprocess
import sys
import time

ACCOUNT = "1000000000000001"
READER = "AliyunEHPCReadOnlyAccess"
SECRET = "reader-secret/+="
TOKEN = "CAIS+token/of=a.temporary_key"

KEYS = f"""
[[key]]
access_key_id = "reader"
secret = "{SECRET}"
account_id = "{ACCOUNT}"
user = "alice"
policies = ["{READER}"]

[[key]]
access_key_id = "owner"
secret = "owner-secret"
account_id = "{ACCOUNT}"
root = true

[[key]]
access_key_id = "nobody"
secret = "nobody-secret"
account_id = "{ACCOUNT}"

[[key]]
access_key_id = "elsewhere"
secret = "elsewhere-secret"
account_id = "{ACCOUNT}"
policies = ["elsewhere"]

[[key]]
access_key_id = "denied"
secret = "denied-secret"
account_id = "{ACCOUNT}"
policies = ["AdministratorAccess", "deny-loopback"]

[[key]]
access_key_id = "inactive"
secret = "inactive-secret"
account_id = "{ACCOUNT}"
status = "inactive"
policies = ["{READER}"]

[[key]]
access_key_id = "temporary"
secret = "temporary-secret"
account_id = "{ACCOUNT}"
security_token = "{TOKEN}"
expires = "2099-01-01T00:00:00Z"
policies = ["{READER}"]

[[key]]
access_key_id = "over"
secret = "over-secret"
account_id = "{ACCOUNT}"
security_token = "{TOKEN}"
expires = "2020-01-01T00:00:00Z"
policies = ["{READER}"]

[[key]]
access_key_id = "unreadable"
secret_file = "unreadable.secret"
account_id = "{ACCOUNT}"
policies = ["{READER}"]

[[key]]
access_key_id = "stranger"
secret = "stranger-secret"
account_id = "2000000000000002"
root = true

[policies.elsewhere]
document = '''{{"Version": "1", "Statement": [{{"Effect": "Allow", "Action": "ehpc:*",
    "Resource": "acs:ehpc:cn-elsewhere:*:*"}}]}}'''

[policies.deny-loopback]
document = '''{{"Version": "1", "Statement": [{{"Effect": "Deny", "Action": "ehpc:List*", "Resource": "*",
    "Condition": {{"IpAddress": {{"acs:SourceIp": "127.0.0.0/8"}}}}}}]}}'''
"""


def until(what, look, seconds=60):
    """Looks again until something true is seen."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up waiting for {what}")
        time.sleep(0.05)  # between two looks


class Process:
    def __init__(self, name, command, directory):
        self.name = name
        self.log = f"{directory}/{name}.log"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self, pattern):
        """What the process printed, once it has."""

        def look():
            with open(self.log, encoding="utf-8", errors="replace") as log:
                text = log.read()
            if self.child.poll() is not None:
                raise SystemExit(f"{self.name} ended by itself:\n{text}")
            return re.search(pattern, text)

        return until(f"{self.name} to say {pattern}", look).group(1)

    def stop(self):
        self.child.kill()
        self.child.wait()


class Site:
    """Everything in one directory; each part a real process."""

    def __init__(self, binaries, images, directory):
        self.binaries, self.images, self.dir = binaries, images, directory
        self.processes = []
        self.clusters = []
        self.write("keys.toml", KEYS)
        self.write("unreadable.secret", "unreadable-secret\n")
        self.certificates()

    def write(self, name, text, mode=0o600):
        path = f"{self.dir}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def start(self, name, command):
        process = Process(name, command, self.dir)
        self.processes.append(process)
        return process

    def stop(self):
        for process in self.processes:
            process.stop()

    def agent(self, name, root, more=""):
        """A real agent; returns the process and its address."""
        config = self.write(f"{name}.toml", f"[[root]]\npath = {root!r}\n{more}".replace("'", '"'))
        address = f"unix:{self.dir}/{name}.sock"
        state = f"{self.dir}/{name}-state"
        os.mkdir(state)
        process = self.start(
            name,
            [f"{self.binaries}/sifter", "agent", "--config", config, "--listen", address]
            + ["--system", "mycluster", "--state-dir", state],
        )
        until(f"the socket of {name}", lambda: os.path.exists(address.removeprefix("unix:")))
        return process, address

    def slow_root(self):
        """More images than one operation a second gets through before the tests are over."""
        os.mkdir(f"{self.dir}/slow")
        for number in range(1000):
            shutil.copy(f"{self.images}/pulled/alpine_latest.sif", f"{self.dir}/slow/{number}.sif")

    def played(self, name, *status):
        process = self.start(name, [sys.executable, f"{os.path.dirname(__file__)}/played.py", *status])
        port = process.said(r"(?m)^(\d+)$")
        return f"http://127.0.0.1:{port}"

    def cluster(self, name, *nodes):
        nodes = ", ".join(f'"{node}"' for node in nodes)
        self.clusters.append(
            f'[[clusters]]\nid = "{name}"\naccount = "{ACCOUNT}"\nregion = "cn-hangzhou"\nlogin_nodes = [{nodes}]\n'
        )

    def control(self, name, server="", limits="", auth=""):
        """A real control plane over all clusters; returns its URL."""
        config = self.write(
            f"{name}.toml",
            f'[auth]\nkeys = "keys.toml"\n{auth}\n[server]\nlisten = ["127.0.0.1:0"]\n'
            f"{server}\n[limits]\n{limits}\n" + "\n".join(self.clusters),
        )
        process = self.start(name, [f"{self.binaries}/sifter-control", "serve", "--config", config])
        return process.said(r"(?m)^listening on (\S+)$")

    def certificates(self):
        """A private authority, and a certificate of it for the loopback address."""

        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], cwd=self.dir, check=True, capture_output=True)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
                "-subj", "/CN=Private CA", "-addext", "basicConstraints=critical,CA:TRUE",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
        self.write("server.ext", "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
                   "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-extfile", "server.ext", "-out", "server.pem")
        self.ca = f"{self.dir}/ca.pem"
