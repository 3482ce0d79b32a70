"""The scripts of sweeps/ray_cluster/deploy, run with stand-ins for gcloud, srun and scontrol."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from study.config.hardware import get_slice
from sweeps.ray_cluster import preemption_agent as preemption
from tests.xla import FAST_COMPILE

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "sweeps" / "ray_cluster" / "deploy"
SCRIPTS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name):
    subprocess.run(["bash", "-n", FOLDER / name], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, FOLDER / name], check=True)


@pytest.fixture
def commands_on_path(tmp_path):
    """Puts a script in place of a program; returns the variables that lead to it."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(**scripts: str) -> dict[str, str]:
        for name, text in scripts.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    return put


# Starts the tasks of a step as Slurm does, and returns the highest exit code.
SRUN = f"""#!{sys.executable}
import os, subprocess, sys
count = int(os.environ["TASKS"])
step = {{"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}}
tasks = [
    subprocess.Popen(
        sys.argv[2:],
        env={{**os.environ, **step, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}},
    )
    for i in range(count)
]
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCONTROL = '#!/bin/sh\necho "$@" >> "$HOME/scontrol.log"\n'


@pytest.fixture
def sbatch(commands_on_path, tmp_path):
    env = commands_on_path(srun=SRUN, scontrol=SCONTROL)
    log = tmp_path / "scontrol.log"

    def run(study: str, *args: str, tasks: int = 1, **more: str):
        program = tmp_path / "job" / ".venv" / "bin" / "study"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(study)
        program.chmod(0o755)
        log.unlink(missing_ok=True)
        job = {"SLURM_JOB_ID": "4711", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"}
        done = subprocess.run(
            ["bash", FOLDER / "slurm.sbatch", *args],
            capture_output=True,
            text=True,
            cwd=tmp_path / "job",
            env={**os.environ, **env, **job, "TASKS": str(tasks), **more},
        )
        return done, log.read_text() if log.exists() else ""

    return run


@pytest.mark.parametrize(
    ("code", "more", "requeued"),
    [
        (0, {}, False),
        (1, {}, False),
        (2, {}, False),
        (3, {}, True),
        (3, {"SLURM_RESTART_COUNT": "99"}, True),
        (3, {"SLURM_RESTART_COUNT": "100"}, False),
        (137, {}, True),
    ],
)
def test_slurm_queues_a_worker_again_that_left_cells_or_was_killed(sbatch, code, more, requeued):
    done, log = sbatch(f"#!/bin/sh\nexit {code}\n", "demo", **more)
    assert done.returncode == code and log == ("requeue 4711_2\n" if requeued else "")


@pytest.mark.slow
def test_the_tasks_of_a_slurm_job_find_one_another_and_train_a_cell(sbatch, tmp_path):
    study = f'#!/bin/sh\nexec {sys.executable} -m sweeps.cli.app "$@"\n'
    done, log = sbatch(
        study,
        str(ROOT / "sweeps" / "bench" / "cells.py"),
        *("--machine", "cpux2", "--root", str(tmp_path / "runs")),
        *("--only", "seed=0", "--only", "batch_size=256", "--only", "loss.kind=sigmoid"),
        *("--set", "execution.slice=cpux2", "--set", "budget.examples=2000"),
        tasks=2,
        PYTHONPATH=str(ROOT),
        XLA_FLAGS=FAST_COMPILE,
    )
    assert done.returncode == 0 and not log, done.stderr
    (record,) = (tmp_path / "runs").glob("*/*/DONE.json")
    cell = json.loads((record.parent / "cell.json").read_text())
    assert (cell["devices"]["count"], cell["devices"]["processes"]) == (2, 2)


GCLOUD = """#!/bin/sh
printf "%s\\n" "$*" >> "$HOME/gcloud.log"
case "$*" in
  *describe*) cat "$HOME/state" 2>/dev/null;;
  *"resources create"*) echo ACTIVE > "$HOME/state";;
  *"resources delete"*) rm -f "$HOME/state";;
  *" scp "*) cp "$5" "$HOME/sent.tgz";;
esac
"""


@pytest.fixture
def gcloud(commands_on_path, tmp_path):
    """slice.sh with a gcloud that notes what it is asked for; its slice is there when asked for."""
    found = commands_on_path(gcloud=GCLOUD)
    log, state = tmp_path / "gcloud.log", tmp_path / "state"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("hidden")
    checkout = tmp_path / "checkout"
    shutil.copytree(FOLDER, folder := checkout / "sweeps" / "ray_cluster" / "deploy")
    (checkout / ".gitignore").write_text(".venv/\n")
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "large").write_text("")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "code"]):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *name, *command], cwd=checkout, check=True)

    def run(*args: str, **env: str) -> tuple[subprocess.CompletedProcess[str], str]:
        log.write_text("")
        settings = {"POLL": "0", "PROJECT": "p", "ZONE": "z", "BUCKET": "b", "STUDY": "table-8"}
        done = subprocess.run(
            ["bash", folder / "slice.sh", *args],
            capture_output=True,
            text=True,
            env={**found, **settings, **env},
        )
        return done, log.read_text()

    run.state = state  # type: ignore[attr-defined]
    run.sent = tmp_path / "sent.tgz"  # type: ignore[attr-defined]
    return run


def ssh(log: str) -> str:
    (command,) = [part for part in log.split("compute tpus") if part.startswith(" tpu-vm ssh")]
    subprocess.run(["bash", "-n"], input=command.partition("--command=")[2], text=True, check=True)
    return command


@pytest.mark.parametrize("name", ["v4-32", "v5e-16", "v6e-16", "v5p-16"])
def test_a_slice_is_queued_and_each_host_starts_the_worker_under_the_agent(gcloud, name):
    kind = get_slice(name).cloud_type
    done, log = gcloud(kind, "a1", WANDB_API_KEY="hidden")
    assert done.returncode == 0, done.stderr
    assert f"--accelerator-type={kind} " in log and "--spot" in log
    command = ssh(log)
    assert "--worker=all" in command and "ray start" not in command
    assert (
        f"preemption_agent .venv/bin/study work table-8 --machine {kind} --root gs://b/runs"
        in command
    )
    assert "hidden" not in log  # keys are in the archive
    listing = subprocess.run(
        ["tar", "tzf", gcloud.sent], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"study.env", "study/.git/HEAD", "study/sweeps/ray_cluster/deploy/install.sh"} <= set(
        listing
    )
    assert not [path for path in listing if ".venv" in path]
    text = subprocess.run(
        ["tar", "xzOf", gcloud.sent, "study.env"], capture_output=True, text=True, check=True
    ).stdout
    assert "export WANDB_MODE=online WANDB_API_KEY=hidden" in text


def test_hosts_join_a_ray_cluster_with_its_token(gcloud):
    done, log = gcloud("v4-8", "a1", HEAD="10.0.0.2", SPOT="0", STUDY="")
    assert done.returncode == 0, done.stderr
    command = ssh(log)
    assert "ray start --address=10.0.0.2:6379 --labels=ray.io/market-type=on-demand" in command
    assert "study work" not in command and "hidden" not in log
    text = subprocess.run(
        ["tar", "xzOf", gcloud.sent, "study.env"], capture_output=True, text=True, check=True
    ).stdout
    assert "RAY_worker_niceness=0" in text
    assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=hidden" in text


def test_a_slice_that_is_gone_is_deleted_and_queued_again_and_one_that_is_there_is_used(gcloud):
    gcloud.state.write_text("SUSPENDED\n")
    _, log = gcloud("v4-8", "a1", SPOT="0")
    assert log.index("resources delete") < log.index("resources create")
    assert "--spot" not in log
    done, log = gcloud("v4-8", "a1")
    assert done.returncode == 0 and "resources create" not in log and "tpu-vm ssh" in log


@pytest.mark.parametrize(
    ("args", "env"),
    [(("h100-8", "a1"), {}), (("v4-8",), {}), (("v4-8", "a1"), {"STUDY": ""})],
)
def test_an_unknown_slice_type_or_a_missing_word_is_one_line(gcloud, args, env):
    done, log = gcloud(*args, **env)
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1 and not log


def test_a_preemption_notice_becomes_a_drain():
    asked, answers = [], [b"FALSE", b"FALSE", b"TRUE"]

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Metadata-Flavor"]))
            if len(asked) == 2:
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[len(asked) - 2 if len(asked) > 2 else 0])

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        preemption.wait_for_notice(f"http://127.0.0.1:{server.server_port}/preempted", again=0.01)
        server.shutdown()
    assert {flavor for _, flavor in asked} == {"Google"} and len(asked) == 4
    assert ["wait_for_change" in path for path, _ in asked] == [False, True, True, True]
    ran = []
    preemption.drain(run=lambda command, check: ran.append(command))
    ((ray_path, verb, *options),) = ran
    assert Path(ray_path).name == "ray" and verb == "drain-node"
    assert "DRAIN_NODE_REASON_PREEMPTION" in options


SAVES = (
    "import signal, sys\n"
    "def save(*_):\n    print('saved')\n    sys.exit(3)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "print('up', flush=True)\n"
    "signal.pause()\n"
)


@pytest.mark.parametrize("by", ["notice", "signal"])
def test_the_agent_ends_its_command_with_sigterm_and_passes_its_exit_code_on(by):
    preempted = threading.Event()

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            preempted.wait()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"TRUE")

        def log_message(self, *_):
            pass

    code = (
        "import sys\nfrom sweeps.ray_cluster.preemption_agent import run\n"
        "sys.exit(run(sys.argv[2:], url=sys.argv[1]))"
    )
    with http.server.HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/preempted"
        command = [sys.executable, "-c", code, url, sys.executable, "-c", SAVES]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as agent:
            assert agent.stdout.readline() == "up\n"
            if by == "notice":
                preempted.set()
            else:
                agent.terminate()
            assert agent.stdout.read() == "saved\n"
            assert agent.wait() == 3
        preempted.set()
        server.shutdown()


def test_rays_drain_command_takes_what_it_is_given():
    """The command is no public interface of Ray's, so another version may drop an option."""
    from ray.scripts.scripts import drain_node

    ran = []
    preemption.drain(run=lambda command, check: ran.append(command))
    drain_node.make_context("drain-node", ran[0][2:])
