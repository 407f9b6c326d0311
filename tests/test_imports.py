"""Rooms import no more than they need: a worker that decodes starts without torch, and help appears without Ray."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("microaction", ["av", "boto3", "cv2", "ray", "torch"]),
        ("microaction.settings", ["boto3", "ray", "torch"]),
        ("microaction.clips.settings", ["boto3", "ray", "torch"]),
        ("microaction.evaluation.settings", ["boto3", "ray", "torch"]),
        ("microaction.labeling.settings", ["boto3", "ray", "torch"]),
        ("microaction.retraining.settings", ["boto3", "ray", "torch"]),
        ("microaction.training.settings", ["boto3", "ray", "torch"]),
        ("microaction.storage", ["boto3", "ray", "torch"]),
        ("microaction.video", ["ray", "torch"]),
        ("microaction.people", ["boto3", "ray", "torch"]),
        ("microaction.labeling.decoder", ["ray", "torch"]),
        ("microaction.models.checkpoint", ["av", "boto3", "ray"]),
        ("microaction.models.inference", ["av", "pydantic", "ray", "safetensors"]),
        ("microaction.evaluation.metrics", ["ray", "torch"]),
        ("microaction.cli", ["pydantic", "ray", "torch"]),
        ("microaction.cli.label", ["av", "boto3", "ray", "torch"]),
        ("microaction.cli.people", ["av", "boto3", "ray", "torch"]),
        ("microaction.cli.train", ["av", "boto3", "ray", "torch"]),
        ("tests.benchmarks.model", ["av", "pyarrow", "pydantic", "ray", "rich", "safetensors"]),
    ],
)
def test_a_module_imports_no_more_than_it_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; sys.exit(', '.join(m for m in {absent!r} if m in sys.modules) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{module} imports {result.stderr}"
