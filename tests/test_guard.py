"""No network, no pickle, no write outside the places asked for: the guard works, and the runtime keeps to it."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from guard import NetworkUsed

ROOT = Path(__file__).parent.parent
HARMLESS = ("/dev/null", "/dev/urandom")
UNPICKLE = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CONNECT = {"socket", "_socket", "ssl", "urllib", "http", "ftplib", "smtplib", "requests", "urllib3", "httpx", "aiohttp"}
BANNED_NAMES = {"eval", "exec", "__import__"}
BANNED = UNPICKLE | CONNECT | BANNED_NAMES | {"builtins"}
ONLY_TEXT = re.compile(r"urllib\.(parse(\..*)?|request\.url2pathname)")  # what takes addresses apart and opens none


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
        lambda: socket.create_connection(("2001:db8::1", 80), timeout=1),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
        lambda: urllib.request.urlopen("http://192.0.2.1/", timeout=1),
    ],
    ids=["ipv4", "ipv6", "name", "datagram", "url"],
)
def test_the_network_cannot_be_reached(reach):
    with pytest.raises(NetworkUsed, match="tests use no network"):
        reach()


def test_nor_by_a_child_process():
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 1 and "NetworkUsed" in child.stderr


def test_processes_on_this_machine_can_talk():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"hello")
        assert server.accept()[0].recv(5) == b"hello"
    assert socket.getaddrinfo("localhost", 80)


RUN = """
import os, sys
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
never = {"pickle.find_class", "socket.connect", "socket.bind", "subprocess.Popen", "os.system"}
def note(event, arguments):
    if event in never or event in changes:
        print(event, *map(str, arguments[:2]), file=seen)
    elif event == "open" and isinstance(arguments[0], (str, bytes)):
        if set(arguments[1] or "") & set("wax+") or (arguments[2] or 0) & writing:
            print(event, os.fsdecode(arguments[0]), file=seen)
with open(sys.argv[1], "w") as seen:
    sys.addaudithook(note)
    from runtime import webcam
    code = webcam.main(sys.argv[2:])
    note = lambda event, arguments: None
    seen.flush()
    os._exit(code)
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "executorch"])
def test_a_run_writes_what_was_asked_for_and_nothing_else(centroid_artifacts, moving_dots, tmp_path, engine):
    """By the audit events of Python, and by what lies in its home, its temporary and its current folder afterwards."""
    for name in ("home", "tmp", "here"):
        (tmp_path / name).mkdir()
    foreign = ("ORT_", "XDG_", "CI", "TORCHINDUCTOR_")  # of the run of tests
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT)])
    arguments = ["--model", str(centroid_artifacts[engine]), "--source", str(moving_dots[0]), "--no-show"]
    arguments += ["--save", "drawn.mp4", "--json", "poses.jsonl", "--threads", "1"]
    command = [sys.executable, "-c", RUN, str(tmp_path / "events"), *arguments]
    subprocess.run(command, cwd=tmp_path / "here", env=environment, capture_output=True, check=True)
    events = [line.split(" ", 1) for line in (tmp_path / "events").read_text().splitlines()]
    outside = [event for event, what in events if what.split()[0] not in HARMLESS]
    legal = ("open", "os.rename", "os.remove", *(["os.mkdir"] if engine == "executorch" else []))
    assert events and not [event for event in outside if event not in legal]
    places = [what.split()[0] for event, what in events if what.split()[0] not in HARMLESS]
    if engine == "executorch":  # torch, which it imports, tries its temporary folder
        places = [place for place in places if not place.startswith(str(tmp_path / "tmp"))]
    names = {Path(place).name for place in places}
    grows_and_tries = {f".{stem}.{kind}{end}" for stem, end in (("drawn", ".mp4"), ("poses", ".jsonl"))
                       for kind in ("partial", "trial")}  # fmt: skip
    assert names <= {"drawn.mp4", "poses.jsonl", *grows_and_tries}
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"here/drawn.mp4", "here/poses.jsonl", "events", moving_dots[0].name}


def found_in(code: str) -> set[str]:
    """The modules that this code imports, by their full names, and the built-ins that it names, if they are banned."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name) and node.id in BANNED_NAMES:
            names.add(node.id)
    return {name for name in names if name.split(".")[0] in BANNED and not ONLY_TEXT.fullmatch(name)}


def test_the_runtime_names_nothing_that_unpickles_connects_or_runs_text():
    found = {path: found_in(path.read_text()) for path in (ROOT / "runtime").rglob("*.py")}
    assert len(found) > 20 and not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import pickle as p",
        "import json, pickle",
        "from pickle import loads",
        "import urllib",
        "import urllib.request",
        "from urllib import parse, request",
        "from urllib.request import urlopen",
        "import http.client",
        "from http.client import HTTPConnection",
        "def load(path):\n    import socket as s",
        "if True: from ssl import wrap_socket",
        "from builtins import eval as calculate",
        "value = eval('1')",
        "exec(open('a').read())",
        "run = exec",
        "__import__('pickle')",
    ],
)
def test_every_spelling_is_found(code):
    assert found_in(code)


@pytest.mark.parametrize(
    "code",
    [
        "from urllib.parse import urlsplit",
        "from urllib import parse",
        "import urllib.parse",
        "from urllib.request import url2pathname",
        "import json  # no pickle",
        "network.eval()",
        "from .http import x",
    ],
)
def test_what_is_harmless_is_not(code):
    assert not found_in(code)
