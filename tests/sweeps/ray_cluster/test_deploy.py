"""The files of sweeps/ray_cluster/deploy ask for what the table of hardware and the grids say."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from importlib.resources import files
from pathlib import Path

import pytest
import ray
import yaml

from study.config.hardware import get_slice
from sweeps.ray_cluster import preemption_agent as preemption
from sweeps.registry import builtin_studies, load_study

FOLDER = Path(__file__).parents[3] / "sweeps" / "ray_cluster" / "deploy"
# GKE's names of the chips, from its documentation of TPU node pools.
GKE = {"v4": "tpu-v4-podslice", "v5e": "tpu-v5-lite-podslice", "v5p": "tpu-v5p-slice",
       "v6e": "tpu-v6e-slice"}  # fmt: skip


@pytest.fixture(scope="module")
def kuberay():
    cluster, policy = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    return cluster, policy


@pytest.fixture(scope="module")
def groups(kuberay):
    return {group["groupName"]: group for group in kuberay[0]["spec"]["workerGroupSpecs"]}


def test_there_is_a_worker_group_for_each_slice_type_of_the_grids(groups):
    wanted = {
        study.execution_of(cell).slice
        for study in map(load_study, builtin_studies())
        for cell in study.cells
    }
    assert set(groups) == wanted - {None}


def test_each_group_is_a_slice_of_the_table(groups):
    for name, group in groups.items():
        wanted = get_slice(name)
        assert group["numOfHosts"] == wanted.hosts_per_slice
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        spec = group["template"]["spec"]
        selector = spec["nodeSelector"]
        assert selector["cloud.google.com/gke-tpu-topology"] == wanted.topology
        assert selector["cloud.google.com/gke-tpu-accelerator"] == GKE[wanted.chip.name]
        (container,) = spec["containers"]
        chips = {container["resources"][kind]["google.com/tpu"] for kind in ("requests", "limits")}
        assert chips == {str(wanted.chips_per_host)}
        assert wanted.hosts_per_slice * int(*chips) == wanted.chips


def test_a_spot_group_tolerates_spot_nodes_and_says_so_to_ray(groups):
    markets = set()
    for group in groups.values():
        spec = group["template"]["spec"]
        spot = spec["nodeSelector"].get("cloud.google.com/gke-spot") == "true"
        tolerated = any(
            t["key"] == "cloud.google.com/gke-spot" for t in spec.get("tolerations", [])
        )
        label = group["rayStartParams"]["labels"]
        assert (
            spot == tolerated and label == f"ray.io/market-type={'spot' if spot else 'on-demand'}"
        )
        (container,) = spec["containers"]
        (*_, command) = container["lifecycle"]["preStop"]["exec"]["command"]
        assert "drain-node --reason DRAIN_NODE_REASON_PREEMPTION" in command
        markets.add(spot)
    assert markets == {True, False}


def test_the_head_is_on_a_cpu_node_that_stays_and_its_dashboard_on_loopback(kuberay):
    cluster, policy = kuberay
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert cluster["spec"]["rayVersion"] == ray.__version__
    head = cluster["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    text = json.dumps(head)
    assert "google.com/tpu" not in text and "gke-spot" not in text
    (rule,) = policy["spec"]["ingress"]
    own = {"ray.io/cluster": cluster["metadata"]["name"]}
    assert policy["spec"]["podSelector"]["matchLabels"] == own
    assert [source["podSelector"]["matchLabels"] for source in rule["from"]] == [own]


def test_the_head_of_the_vms_is_valid_by_rays_own_schema():
    import jsonschema

    head = yaml.safe_load((FOLDER / "head.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(head, schema)
    assert head["max_workers"] == 0
    (start,) = [c for c in head["head_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in start and "0.0.0.0" not in start


@pytest.fixture
def gcloud(tmp_path):
    """A gcloud that notes what it is asked for; its queued resource is made when asked."""
    script = tmp_path / "gcloud"
    script.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$*" >> "$LOG"\n'
        'case "$*" in *describe*) cat "$STATE" 2>/dev/null;; '
        '*"resources create"*) echo ACTIVE > "$STATE";; '
        '*"resources delete"*) rm -f "$STATE";; esac\n'
    )
    script.chmod(0o755)
    state, log = tmp_path / "state", tmp_path / "log"

    def run(*args: str, **env: str) -> tuple[subprocess.CompletedProcess[str], str]:
        log.write_text("")
        done = subprocess.run(
            ["bash", FOLDER / "slice.sh", *args],
            capture_output=True,
            text=True,
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "LOG": str(log),
                "STATE": str(state),
                "POLL": "0",
                "PROJECT": "p",
                "ZONE": "z",
                **env,
            },
        )
        return done, log.read_text()

    run.state = state  # type: ignore[attr-defined]
    return run


def test_a_slice_is_queued_joined_on_every_host_and_watched(gcloud):
    for name in ("v4-32", "v5e-16", "v6e-16", "v5p-16"):
        gcloud.state.unlink(missing_ok=True)
        done, log = gcloud(get_slice(name).cloud_type, "a1", "10.0.0.2")
        assert done.returncode == 0, done.stderr
        assert f"--accelerator-type={get_slice(name).cloud_type} " in log and "--spot" in log
        (ssh,) = [part for part in log.split("compute tpus") if part.startswith(" tpu-vm ssh")]
        assert "--worker=all" in ssh and "ray start --address=10.0.0.2:6379" in ssh
        assert (
            "market-type=spot" in ssh
            and "sweeps.ray_cluster.preemption_agent" in ssh
            and "0.0.0.0" not in ssh
        )


def test_a_slice_that_is_gone_is_deleted_and_queued_again_and_one_that_is_there_is_joined(gcloud):
    gcloud.state.write_text("SUSPENDED\n")
    _, log = gcloud("v4-8", "a1", "h", SPOT="0")
    assert log.index("resources delete") < log.index("resources create")
    assert "--spot" not in log and "market-type=on-demand" in log
    done, log = gcloud("v4-8", "a1", "h")
    assert done.returncode == 0 and "resources create" not in log and "tpu-vm ssh" in log


def test_an_unknown_slice_type_or_a_missing_argument_is_one_line(gcloud):
    for args in (("h100-8", "a1", "h"), ("v4-8",)):
        done, log = gcloud(*args)
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


def test_rays_drain_command_takes_what_it_is_given():
    """The command is no public interface of Ray's, so another version may drop an option."""
    from ray.scripts.scripts import drain_node

    ran = []
    preemption.drain(run=lambda command, check: ran.append(command))
    drain_node.make_context("drain-node", ran[0][2:])


def test_the_files_are_part_of_the_package():
    assert (files("sweeps.ray_cluster") / "deploy" / "kuberay.yaml").is_file()
