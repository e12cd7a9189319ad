"""The vendor's clients, each as something that makes a call and says how its answer came out."""
import json
import os
import subprocess
import sys

from site_under_test import SECRET

HERE = os.path.dirname(os.path.abspath(__file__))
ACTION = {"action": "ListContainerImages", "version": "2018-04-12"}
CLUSTER = {"ClusterId": "real", "ContainerType": "singularity"}
UUID = r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}"


def call_of(request):
    return {"key": "reader", "secret": SECRET, "parameters": CLUSTER, **request}


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
