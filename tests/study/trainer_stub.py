"""A stub of `python -m selfsr train`: writes a run folder and trains nothing."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

arguments = sys.argv[1:]
text = Path(arguments[3]).read_text()
name, steps, seed = (re.search(rf"^{key}: (.*)$", text, re.MULTILINE)[1] for key in ("name", "steps", "seed"))
folder = Path(arguments[arguments.index("--runs") + 1]) / name
weight = float(re.search(r"weight: (.*)$", text, re.MULTILINE)[1])
todo = json.loads(os.environ.get("STUB", "{}")).get(name)

with Path(os.environ["STUB_CALLS"]).open("a") as calls:
    shown = {key: os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    calls.write(json.dumps({"name": name, "arguments": arguments, "time": time.monotonic(), **shown}) + "\n")
if todo == "refuse":
    sys.exit("something before\nselfsr: recipe: data.hr: expected pictures, got none.")
if todo == "crash":
    raise RuntimeError("out of luck")
if todo and todo.startswith("after "):  # what it waits for comes only if runs are trained side by side
    for _ in range(1200):
        time.sleep(0.0 if Path(todo.removeprefix("after ")).exists() else 0.05)
    assert Path(todo.removeprefix("after ")).exists()
if todo == "die":
    os.kill(os.getpid(), signal.SIGKILL)

stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
kept = sorted(folder.glob("checkpoints/step_*"))
first = int(kept[-1].name.removeprefix("step_")) if "--resume" in arguments else 0
folder.mkdir(parents=True, exist_ok=True)
(folder / "recipe.yaml").write_text(text)


def judge(step: int) -> None:
    score = 20.0 + 0.1 * step + 0.01 * int(seed) + weight
    sets = {"first": {"mean": {"psnr_y": score}, "images": {}}}
    with (folder / "eval.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "sets": sets}) + "\n")


def save(step: int) -> None:
    checkpoint = folder / "checkpoints" / f"step_{step:08d}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "state.pt").write_bytes(b"")


if first == 0:
    judge(0)
for step in range(first + 1, int(steps) + 1):
    time.sleep(0.2 if todo == "slow" else 0.0)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")
    if step % 10 == 0:
        judge(step)
    if stopped or step == int(steps):
        save(step)
    if stopped:
        sys.exit(130)
if todo == "no report":
    sys.exit("selfsr: no space left on the disk for: report.html")
if "--no-report" not in arguments:
    (folder / "report.html").write_text("<p>report")
