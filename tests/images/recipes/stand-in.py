#!/usr/bin/env python3
"""A registry and a library on loopback, so that pulls record the references users type.

Serves just enough of the OCI distribution API for `apptainer pull docker://…` and for
`apptainer push/pull oras://…`, and of the library API for `apptainer pull library://…`. The
images are stand-ins: a handful of small text files under the name of a well-known image. Apptainer
is pointed here by registries.conf (a mirror of docker.io, quay.io and nvcr.io), so the reference
in the metadata is the public one although nothing leaves the machine.
"""

import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePath
from urllib.parse import parse_qs, urlparse

PORT = 5000
# The same bytes on every run: layers and digests then differ only when a recipe changes.
LAYER_TIME = 1_700_000_000
# A file served as library://sifter/tests/tools:2.1, given on the command line.
LIBRARY_PATH = "sifter/tests/tools:2.1"

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

# (repositories, tag, name and version of the "distribution", labels of the image configuration)
IMAGES = [
    (["library/ubuntu"], "22.04", ("ubuntu", "22.04"),
     {"org.opencontainers.image.ref.name": "ubuntu", "org.opencontainers.image.version": "22.04"}),
    (["library/alpine"], "latest", ("alpine", "3.22"), {}),
    (["library/alpine"], "3.20", ("alpine", "3.20"), {}),
    (["library/busybox"], "1.37.0", ("busybox", "1.37.0"), {}),
    (["rocker/r-ver"], "4.4.1", ("ubuntu", "24.04"),
     {"org.opencontainers.image.title": "rocker/r-ver", "org.opencontainers.image.licenses": "GPL-2.0-or-later",
      "maintainer": "quotes \" and <angle> brackets, \u00fcml\u00e4ut"}),
    (["biocontainers/fastqc"], "0.12.1--hdfd78af_0", ("busybox", "1.36"), {"bio": "fastqc"}),
    (["biocontainers/multiqc"], "1.25--pyhdfd78af_0", ("busybox", "1.36"), {"bio": "multiqc"}),
    (["biocontainers/bwa"], "0.7.18--he4a0461_1", ("busybox", "1.36"), {"bio": "bwa"}),
    (["nvidia/pytorch"], "24.05-py3", ("ubuntu", "22.04"),
     {"com.nvidia.volumes.needed": "nvidia_driver", "org.opencontainers.image.ref.name": "ubuntu"}),
    (["team/tools/site-tool"], "1.2", ("debian", "12"), {}),
]

blobs = {}
manifests = {}
uploads = {}


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def root_tar(name, version):
    """The stand-in root: what apptainer needs to build on it, and no program."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        def add(path, text=None, kind=tarfile.REGTYPE, link="", mode=0o644):
            info = tarfile.TarInfo(path)
            info.mtime, info.type, info.linkname, info.mode = LAYER_TIME, kind, link, mode
            data = (text or "").encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for directory in ("bin", "etc", "dev", "proc", "sys", "tmp", "root", "var", "usr"):
            add(directory, kind=tarfile.DIRTYPE, mode=0o755)
        # A mount point: builds with %post bind the host's busybox over it.
        add("bin/busybox", "", mode=0o755)
        add("bin/sh", kind=tarfile.SYMTYPE, link="busybox", mode=0o777)
        add("etc/os-release", f'ID={name}\nVERSION_ID="{version}"\nPRETTY_NAME="{name} {version} (stand-in)"\n')
        add("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        add("etc/group", "root:x:0:\n")
        for empty in ("etc/hosts", "etc/resolv.conf", "etc/localtime"):
            add(empty)
    return out.getvalue()


def put_image(repositories, tag, distribution, labels):
    tar = root_tar(*distribution)
    layer = gzip.compress(tar, mtime=0)
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "stand-in"}],
    }, sort_keys=True).encode()
    blobs[digest(layer)], blobs[digest(config)] = layer, config
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
        "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}],
    }, sort_keys=True).encode()
    for repository in repositories:
        manifests[repository, tag] = manifests[repository, digest(manifest)] = (MANIFEST, manifest)


def image_layout(repository, tag, ref_name):
    """The files of an OCI layout of one image, for `oci-archive:`."""
    _, manifest = manifests[repository, tag]
    parsed = json.loads(manifest)
    names = [parsed["config"]["digest"], *(layer["digest"] for layer in parsed["layers"])]
    index = {"schemaVersion": 2, "manifests": [{
        "mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": ref_name}}]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(),
             "blobs/sha256/" + digest(manifest)[7:]: manifest}
    files.update({"blobs/sha256/" + name[7:]: blobs[name] for name in names})
    return files


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for directory in sorted({str(parent) for name in files for parent in PurePath(name).parents} - {"."}):
            info = tarfile.TarInfo(directory)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, LAYER_TIME
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), LAYER_TIME
            tar.addfile(info, io.BytesIO(data))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass  # a client that hangs up early: the readiness probe

    def reply(self, status, body=b"", kind="application/json", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        path = urlparse(self.path).path
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            found = manifests.get(match.groups())
            if found:
                return self.reply(200, found[1], found[0], [("Docker-Content-Digest", digest(found[1]))])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            if match[2] in blobs:
                return self.reply(200, blobs[match[2]], "application/octet-stream", [("Docker-Content-Digest", match[2])])
        elif path in ("/v2/", "/v2"):
            return self.reply(200, b"{}")
        elif path == "/version":
            return self.reply(200, b'{"data": {"apiVersion": "2.0.0-alpha.2", "version": "stand-in"}}')
        elif path == f"/v1/images/{LIBRARY_PATH}":
            data = open(self.server.library_file, "rb").read()
            return self.reply(200, json.dumps({"data": {
                "id": "1", "hash": "sha256." + hashlib.sha256(data).hexdigest(), "size": len(data), "uploaded": True,
                "description": "", "container": "1", "arch": "amd64", "tags": ["2.1"]}}).encode())
        elif path == f"/v1/imagefile/{LIBRARY_PATH}":
            return self.reply(200, open(self.server.library_file, "rb").read(), "application/octet-stream")
        self.reply(404, b'{"errors": [{"code": "NOT_FOUND"}]}')

    do_HEAD = do_GET

    def do_POST(self):
        self.body()
        # Blobs are pushed at the same time: each upload has a place of its own.
        self.reply(202, headers=[("Location", f"{self.path.rstrip('/')}/{uuid.uuid4()}")])

    def do_PATCH(self):
        path = urlparse(self.path).path
        uploads[path] = self.body()
        self.reply(202, headers=[("Location", path)])

    def do_PUT(self):
        data = self.body()
        url = urlparse(self.path)
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", url.path):
            stored = (self.headers["Content-Type"], data)
            manifests[match.groups()] = manifests[match[1], digest(data)] = stored
            name = digest(data)
        else:
            name = parse_qs(url.query)["digest"][0]
            blobs[name] = data or uploads.pop(url.path)
        self.reply(201, headers=[("Location", self.path), ("Docker-Content-Digest", name)])


def main():
    for image in IMAGES:
        put_image(*image)
    command = sys.argv[1]
    if command == "serve":
        server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        server.library_file = sys.argv[2]
        server.serve_forever()
    elif command == "digest":
        print(digest(manifests[sys.argv[2], sys.argv[3]][1]))
    elif command == "oci-archive":
        write_tar(sys.argv[2], image_layout("library/alpine", "3.20", "3.20"))
    else:
        sys.exit(f"unknown command {command}")


if __name__ == "__main__":
    main()
