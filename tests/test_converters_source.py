"""What is converted and what it is judged on: crops, ranges, presence; and small things around an artifact."""

from __future__ import annotations

import stat
import threading
import time
from importlib import metadata

import numpy as np
import pytest
import torch
from converting import lively_model
from photographs import write_data_set
from torch import nn

from converters import cells, source
from converters.coreml import make_readable
from converters.graph import ExportGraph
from converters.pt2e import quantise
from converters.sidecar import installed_version
from converters.source import load_source, without, words
from runtime.errors import InputError
from tfpose_edge.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "best.safetensors"
    save_checkpoint(path, lively_model())
    return path


def test_ranges_never_come_from_the_crops_that_are_compared(checkpoint, tmp_path):
    data = write_data_set(tmp_path, 6)
    with pytest.raises(InputError, match="its people are those compared on; int8's ranges need others"):
        load_source(checkpoint, "int8", data, 6, data)
    found = load_source(checkpoint, "int8", f"{data}:1-4", 4, data)  # of the six, two are left
    assert len(found.crops) == 4 and len(found.calibration) == len(without(found.calibration, found.crops)) == 2
    assert (
        found.crops_in_words("int8")
        == "persons of annotations.json 1-4; ranges of int8 from persons of annotations.json"
    )
    assert found.crops_in_words("fp32") == "persons of annotations.json 1-4"
    assert words(f"{data}:5-6") == "persons of annotations.json 5-6" and words(None) == "rendered people"


def test_presence_is_measured_with_the_layers_that_are_kept(checkpoint, monkeypatch):
    found = load_source(checkpoint, "fp32", None, 20)
    seen = []
    monkeypatch.setattr(source, "presence_score", lambda *scores: seen.append(scores) or 0.25)
    assert found.presence_score() == found.presence_score(found.model.config.num_decoder_layers) == found.presence
    assert not seen and found.presence_score(1) == 0.25
    for scores, crops in zip(seen[0], (found.crops, found.empty), strict=True):
        expected = ExportGraph(found.model, "grid_sample", (), 1)(torch.from_numpy(crops).float())[1].detach()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_ranges_are_set_whatever_the_batch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    crops = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    for batch in (1, 4, 8):
        example = torch.from_numpy(np.resize(crops, (batch, 3, 16, 16))).float()
        expected, found = network(example).detach(), quantise(network, example, crops)(example).detach()
        assert (found - expected).abs().max() / expected.abs().max() < 0.03


def test_the_version_of_another_distribution_of_the_same_module(monkeypatch):
    def version(name):
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert installed_version("onnxruntime") == "1.2.3" and installed_version("openvino") == "unknown"


def test_packages_are_readable_by_all_who_may_read_files_made_here(tmp_path):
    package = tmp_path / "pose.mlpackage"
    (package / "weights").mkdir(parents=True)
    (package / "weights" / "weight.bin").write_bytes(b"1")
    (package / "weights" / "weight.bin").chmod(0o600)
    (package / "weights").chmod(0o700)
    (tmp_path / "other").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    make_readable(package)
    mode = lambda path: stat.S_IMODE(path.stat().st_mode)  # noqa: E731
    assert mode(package / "weights" / "weight.bin") == mode(tmp_path / "other")
    assert mode(package / "weights") == mode(package) == mode(tmp_path / "folder")


class Standardised(nn.Conv2d):
    """A convolution that brings its weights to one variance, as some of timm's stems do."""

    def forward(self, x):
        weight = self.weight / self.weight.std(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


def test_a_stem_that_standardises_its_weights_keeps_its_normalisation():
    model = lively_model()
    stem = model.backbone.conv1
    model.backbone.conv1 = Standardised(3, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False)
    crops = torch.randint(0, 256, (2, 3, 128, 96)).float()
    with torch.no_grad():
        expected, found = model(crops).keypoints, ExportGraph(model, "grid_sample", ("fold_normalisation",))(crops)[0]
    assert (found - expected).abs().max() < 1e-5


def test_nothing_is_timed_while_another_thread_still_works():
    ended_s = []

    def spin():
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            pass
        ended_s.append(time.perf_counter())

    threading.Thread(target=spin).start()
    cells.settle()
    assert ended_s and time.perf_counter() >= ended_s[0]
