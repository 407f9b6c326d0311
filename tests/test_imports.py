import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("microaction", ["torch", "ray", "av", "cv2"]),
        ("microaction.config", ["torch", "ray"]),
        ("microaction.storage", ["torch", "ray"]),
        ("microaction.video", ["torch", "ray"]),
        ("microaction.models.checkpoint", ["ray", "av"]),
        ("microaction.models.manet.inference", ["ray", "av", "pydantic", "safetensors"]),
        ("tests.benchmarks.model", ["ray", "av", "pydantic", "rich", "pyarrow", "safetensors"]),
        ("microaction.evaluation.metrics", ["ray", "torch"]),
    ],
)
def test_a_room_pulls_in_no_more_than_it_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; sys.exit(', '.join(m for m in {absent!r} if m in sys.modules) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"{module} imports {result.stderr}"
