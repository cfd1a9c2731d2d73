"""What `contest score` costs, accuracy and all checks included, beside one plain ONNX Runtime pass.

    python tests/benchmarks/score_speed.py [FILE]

Prints user and system seconds (of all processes together, on one core) of `import torch`, of one pass of ONNX Runtime
over the test images, as it is by default (ORT_ENABLE_ALL) and without graph optimisations, and of `contest score FILE`,
and the ratio of the last to the allowed 3 default passes and 2.0 imports. Needs CIFAR-10 (CONTEST_DATA).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PASS = """
import resource, sys
import numpy as np, onnxruntime
from contest.datasets import load
pixels = load("cifar10").test.pixels.numpy()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
before = resource.getrusage(resource.RUSAGE_SELF)
for start in range(0, len(pixels), 500):
    session.run(None, {name: np.ascontiguousarray(pixels[start : start + 500], np.float32) / 255})
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
"""


def used(*command: str) -> tuple[float, float]:
    """User and system seconds of a command and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(command, env=ONE_CORE, stdout=subprocess.DEVNULL, check=False)
    if found.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {found.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime


def one_pass_of(onnx: str, level: str) -> tuple[float, float]:
    """User and system seconds of one pass of ONNX Runtime at a level of graph optimisation."""
    output = subprocess.run([sys.executable, "-c", PASS, onnx, level], env=ONE_CORE, check=True, stdout=subprocess.PIPE)
    user, system = (float(number) for number in output.stdout.split())
    return user, system


def main() -> None:
    file = sys.argv[1] if len(sys.argv) > 1 else "leaderboard/bundled/inverted-8m-4bit.pt"
    contest = [sys.executable, "-m", "contest"]
    with tempfile.TemporaryDirectory() as folder:
        onnx = str(Path(folder) / "network.onnx")
        subprocess.run([*contest, "convert", file, onnx], env=ONE_CORE, check=True, stdout=subprocess.DEVNULL)
        one_pass, plain_pass = (one_pass_of(onnx, level) for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"))
    torch = used(sys.executable, "-c", "import torch")
    score = used(*contest, "score", file, "--json")
    for what, (user, system) in (
        ("import torch", torch),
        ("ONNX Runtime, one pass", one_pass),
        ("without optimisations", plain_pass),
        ("score", score),
    ):
        print(f"{what:24} {user:7.2f} s user {system:7.2f} s system")
    allowed = 3 * sum(one_pass) + 2.0 * sum(torch)
    print(f"{'ratio to the allowed':24} {sum(score) / allowed:7.2f}   ({allowed:.1f} s)")


if __name__ == "__main__":
    main()
