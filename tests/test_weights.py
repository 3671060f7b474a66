"""ImageNet weights for the backbone: whose names are read, where downloads lie, and what a hash guards."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from runtime.errors import InputError
from tfpose_edge import PRESETS, TFPose
from training.options import Options, with_defaults
from training.train import main
from training.weights import load_backbone

NOT_IT = "0" * 64


@pytest.fixture
def truth():
    torch.manual_seed(1)
    return TFPose(PRESETS["tiny"]).backbone.state_dict()


def loads(source, truth, sha256=None):
    """Whether a fresh network gets the true weights from `source`."""
    torch.manual_seed(2)
    model = TFPose(PRESETS["tiny"])
    load_backbone(model, str(source), sha256)
    return all(torch.equal(value, truth[name]) for name, value in model.backbone.state_dict().items())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def serving(folder):
    """The address of a web server that shows a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_timm_names_are_torchvisions(tmp_path, truth):
    """As timm publishes them: safetensors, batch counters and classifier included."""
    save_file({**truth, "fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}, tmp_path / "model.safetensors")
    assert loads(tmp_path / "model.safetensors", truth)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_checkpoints_of_training_programs(tmp_path, truth, wrapper):
    torch.save({wrapper: {f"module.{n}": v for n, v in truth.items()}, "epoch": 3}, tmp_path / "c.pth")
    assert loads(tmp_path / "c.pth", truth)


def test_weights_older_than_batch_counters(tmp_path, truth):
    torch.save({n: v for n, v in truth.items() if "num_batches" not in n}, tmp_path / "old.pth")
    assert loads(tmp_path / "old.pth", truth)


def test_a_missing_tensor_is_named(tmp_path, truth):
    del truth["layer3.0.conv1.weight"]
    torch.save(truth, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"not ImageNet weights of resnet10: .*layer3\.0\.conv1\.weight"):
        loads(tmp_path / "w.pth", truth)


def test_hash_of_a_file(tmp_path, truth):
    path = tmp_path / "w.pth"
    torch.save(truth, path)
    assert loads(path, truth, digest(path).upper())
    with pytest.raises(InputError, match=f"has the SHA-256 {digest(path)}, but --backbone-sha256 is {NOT_IT}"):
        loads(path, truth, NOT_IT)
    assert path.exists()


def test_urls_with_one_name_are_kept_apart(tmp_path, monkeypatch, truth):
    """All of timm's files are called model.safetensors; and a download with a wrong hash is not kept."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    other = {name: value + 1 for name, value in truth.items()}
    for folder, weights in (("a", truth), ("b", other)):
        (tmp_path / folder).mkdir()
        save_file(weights, tmp_path / folder / "model.safetensors")
    a, b = (tmp_path / folder / "model.safetensors" for folder in ("a", "b"))
    with serving(tmp_path) as address:
        of_a, of_b = (f"{address}/{folder}/model.safetensors?download=true" for folder in ("a", "b"))
        with pytest.raises(InputError, match="has the SHA-256"):
            loads(of_a, truth, NOT_IT)
        assert not list((tmp_path / "hub").rglob("*model*"))
        assert loads(of_a, truth, digest(a)) and loads(of_b, other, digest(b))
        with pytest.raises(InputError, match="cannot read backbone weights: HTTP Error 404"):
            loads(f"{address}/c/model.safetensors", truth)
    assert loads(of_a, truth, digest(a)) and loads(of_b, other), "the second time nothing is downloaded"


def test_a_wrong_hash_stops_the_run_before_it_starts(tmp_path, capsys, truth):
    torch.save(truth, tmp_path / "w.pth")
    given = ["--rendered", "4", "--workers", "0", "--threads", "1", "--output", str(tmp_path / "run")]
    given += ["--backbone-weights", str(tmp_path / "w.pth"), "--backbone-sha256", NOT_IT]
    assert main(given) == 4
    assert f"error: {tmp_path / 'w.pth'}: has the SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone_sha256": NOT_IT}, "belongs to --backbone-weights"),
        ({"backbone_sha256": "abc", "backbone_weights": "w.pth"}, "is 'abc'; it must be 64 hexadecimal digits"),
    ],
)
def test_hashes_that_are_none(changes, message):
    with pytest.raises(ValueError, match=message):
        with_defaults(Options(**changes))
