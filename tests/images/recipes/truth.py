#!/usr/bin/env python3
"""Writes truth.json: what the real tool says of every image that make.sh has made.

Nothing here reads an image itself: each fact is parsed from the output of `apptainer sif header`,
`sif list`, `sif info`, `sif dump` and `inspect --json --all`, or comes from made.tsv (what was pulled).
"""

import hashlib
import json
import os
import re
import subprocess
import sys


def apptainer(*args):
    done = subprocess.run(["apptainer", *args], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def fields(text):
    """`Name: value` lines as a dictionary, names in snake case."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {re.sub(r"\W+", "_", name.strip().lower()): value.strip() for name, value in pairs}


def objects(path):
    _, text, _ = apptainer("sif", "list", path)
    ids = [match[1] for match in re.finditer(r"^\s*(\d+)\s*\|", text, re.MULTILINE)]
    return [fields(apptainer("sif", "info", number, path)[1]) for number in ids]


def main():
    os.chdir(sys.argv[1])
    images = {}
    for line in open("made.tsv", encoding="utf-8"):
        path, made, pulled = line.rstrip("\n").split("\t")
        entry = {"made": made, "pulled": None if pulled == "-" else pulled}
        if os.path.isfile(path):
            data = open(path, "rb").read()
            entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            entry["header"] = fields(apptainer("sif", "header", path)[1])
            entry["objects"] = objects(path)
            for found in entry["objects"]:
                if found["data_type"] == "Def.FILE":
                    entry["definition"] = apptainer("sif", "dump", found["id"], path)[1]
        status, out, err = apptainer("inspect", "--json", "--all", path)
        if status == 0:
            attributes = json.loads(out)["data"]["attributes"]
            entry["labels"] = attributes.get("labels") or {}
            # `inspect` trims the text; the object has it byte for byte.
            entry.setdefault("definition", attributes.get("deffile", ""))
            entry["apps"] = sorted(attributes.get("apps") or {})
        else:
            entry["inspect_error"] = re.sub(r"\x1b\[[0-9;]*m", "", err).strip().replace(os.getcwd() + "/", "")
        images[path] = entry
    version = apptainer("version")[1].strip()
    with open("truth.json", "w", encoding="utf-8") as out:
        json.dump({"tool": f"apptainer {version}", "images": images}, out, indent=1, ensure_ascii=False)
        out.write("\n")


main()
