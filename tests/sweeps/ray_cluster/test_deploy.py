"""The deployment files agree with the table of hardware and the grids, and their commands parse.

`STUDY_CRDS`, paths of CRD files joined by ":", adds the validation of the manifests against them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import ray
import typer
import yaml

from study.config.hardware import get_slice
from sweeps.cli.app import app
from sweeps.ray_cluster.nodes import demand, not_on_slices
from sweeps.registry import builtin_studies, load_study

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "sweeps" / "ray_cluster" / "deploy"
SCRIPTS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))
# GKE's names of the chips, from its documentation of TPU node pools.
GKE = {"v4": "tpu-v4-podslice", "v5e": "tpu-v5-lite-podslice", "v5p": "tpu-v5p-slice",
       "v6e": "tpu-v6e-slice"}  # fmt: skip
# In place of the variables of scripts.
VALUES = {"STUDY": "table-8", "BUCKET": "my-bucket"}


def manifests(name: str) -> list[dict]:
    """What the command in the header of a file gives to kubectl."""
    header = (FOLDER / name).read_text().partition("apiVersion")[0].replace("#", "")
    command = re.search(r"sed '.*?\.yaml", header, re.DOTALL)[0]
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = "\n".join(line.split("#")[0] for line in done.stdout.splitlines())
    assert not re.search(r"\b(STUDY|SLICES|BUCKET|IMAGE|NAME)\b", manifest)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def cluster():
    return manifests("rayjob.yaml")[0]["spec"]["rayClusterSpec"]


@pytest.fixture(scope="module")
def groups(cluster):
    return {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def check_slice(name: str, hosts: int, pod: dict) -> None:
    """A pod of GKE is a host of the slice of this name."""
    asked = get_slice(name)
    selector = pod["nodeSelector"]
    assert hosts == asked.hosts
    assert selector["cloud.google.com/gke-tpu-topology"] == asked.topology
    assert selector["cloud.google.com/gke-tpu-accelerator"] == GKE[asked.chip.name]
    (container,) = pod["containers"]
    chips = {container["resources"][kind]["google.com/tpu"] for kind in ("requests", "limits")}
    assert chips == {str(asked.chips_per_host)}
    spot = selector.get("cloud.google.com/gke-spot") == "true"
    keys = [toleration["key"] for toleration in pod.get("tolerations", [])]
    assert ("cloud.google.com/gke-spot" in keys) == spot
    assert 8482 in [port["containerPort"] for port in container["ports"]]  # JAX's, see below


def check_mounts(pod: dict) -> None:
    """Data sets are mounted read-only, records are not mounted, and /dev/shm is memory."""
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {"/data", "/dev/shm"}
    assert mounts["/data"]["readOnly"] and volumes[mounts["/data"]["name"]]["csi"]["readOnly"]
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"


def test_there_is_a_worker_group_for_each_slice_type_of_the_grids(groups):
    asked = {
        study.execution_of(cell).slice
        for study in map(load_study, builtin_studies())
        for cell in study.cells
    }
    assert set(groups) == asked - {None}


def test_each_group_is_a_slice_of_the_table(groups):
    markets = set()
    for name, group in groups.items():
        pod = group["template"]["spec"]
        check_slice(name, group["numOfHosts"], pod)
        check_mounts(pod)
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        spot = "cloud.google.com/gke-spot" in pod["nodeSelector"]
        # Of the group: KubeRay refuses those in rayStartParams.
        assert "labels" not in group["rayStartParams"]
        assert group["labels"] == {
            "ray.io/market-type": "spot" if spot else "on-demand",
            "ray.io/tpu-pod-type": get_slice(name).pod_type,
        }
        markets.add(spot)
    assert markets == {True, False}


@pytest.fixture(scope="module")
def autoscaling(cluster):
    """What Ray's autoscaler reads out of the manifest."""
    from ray.autoscaler._private.kuberay import autoscaling_config

    resource = {"metadata": {"name": "study", "namespace": "default"}, "spec": cluster}
    return autoscaling_config._derive_autoscaling_config_from_ray_cr(resource)


def test_rays_autoscaler_reads_slices_out_of_the_groups(autoscaling, groups):
    types = autoscaling["available_node_types"]
    assert autoscaling["idle_timeout_minutes"] == 5 and types["headgroup"]["max_workers"] == 0
    for name, group in groups.items():
        asked = get_slice(name)
        node = types[name]
        assert node["resources"]["TPU"] == asked.chips_per_host
        assert node["resources"][f"TPU-{asked.pod_type}-head"] == 1
        assert node["labels"]["ray.io/tpu-pod-type"] == asked.pod_type
        assert node["max_workers"] == group["maxReplicas"] * asked.hosts


def test_rays_autoscaler_starts_the_slice_that_a_waiting_worker_asks_for(autoscaling, groups):
    for name in groups:
        assert launched(autoscaling, demand(name), not_on_slices(["lost"])) == {name: 1}
    # Ray Train's own reservation names the first host, by a label that no group can have.
    head = {"ray.io/tpu-worker-id": "0", "ray.io/tpu-pod-type": "v4-32"}
    assert launched(autoscaling, demand("v4-32"), head) == {}


def launched(config: dict, bundles: list[dict], selector: dict[str, str]) -> dict[str, int]:
    """The nodes that Ray's scheduler starts in an empty cluster for a placement group."""
    from unittest.mock import MagicMock

    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import GangResourceRequest
    from ray.core.generated.common_pb2 import LabelSelectorOperator as Operator

    constraints = [
        (
            label,
            Operator.LABEL_OPERATOR_NOT_IN if text.startswith("!") else Operator.LABEL_OPERATOR_IN,
            re.findall(r"[\w-]+", text.removeprefix("!in")),
        )
        for label, text in selector.items()
    ]
    requests = [
        ResourceRequestUtil.make(bundle, label_selectors=[constraints]) for bundle in bundles
    ]
    gang = GangResourceRequest(requests=requests)
    gang.bundle_selectors.add(resource_requests=requests)
    settings = AutoscalingConfig(config, skip_content_hash=True)
    reply = ResourceDemandScheduler(MagicMock()).schedule(
        SchedulingRequest(
            node_type_configs=settings.get_node_type_configs(),
            max_num_nodes=settings.get_max_num_nodes(),
            gang_resource_requests=[gang],
            disable_launch_config_check=True,
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_the_head_stays_and_only_its_dashboard_is_open_which_asks_for_a_token(cluster):
    job, policy = manifests("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]
    check_mounts(head["template"]["spec"])
    text = json.dumps(head)
    assert "google.com/tpu" not in text and "gke-spot" not in text
    assert head["labels"] == {"ray.io/market-type": "on-demand"}
    own = policy["spec"]["podSelector"]["matchLabels"]
    pods = [head, *cluster["workerGroupSpecs"]]
    assert all(own.items() <= pod["template"]["metadata"]["labels"].items() for pod in pods)
    among, dashboard = policy["spec"]["ingress"]
    assert [source["podSelector"]["matchLabels"] for source in among["from"]] == [own]
    assert [port["port"] for port in dashboard["ports"]] == [8265]


def test_workers_of_ray_run_at_normal_priority_and_drain_before_they_end(cluster):
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_worker_niceness", "value": "0"} in container["env"]
    from ray.scripts.scripts import drain_node

    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (*_, command) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        drain, sleep = command.split("; ")
        options = drain_node.make_context("drain-node", shlex.split(drain)[2:]).params
        seconds = options["deadline_remaining_seconds"]
        assert sleep == f"sleep {seconds}" and seconds < pod["terminationGracePeriodSeconds"]


def test_the_jobset_is_one_worker_on_one_slice():
    from jax._src.clusters import cloud_tpu_cluster

    jobset, policy = manifests("jobset.yaml")
    (job,) = jobset["spec"]["replicatedJobs"]
    # With several replicas JAX would join all of them to one program.
    assert job["replicas"] == 1
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"] and spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    command = pod["containers"][0]["command"]
    machine = command[command.index("--machine") + 1]
    check_slice(machine, spec["parallelism"], pod)
    check_mounts(pod)
    assert cloud_tpu_cluster.coordinator_port == "8482"
    own = policy["spec"]["podSelector"]["matchLabels"]
    assert spec["template"]["metadata"]["labels"] == own
    (rule,) = policy["spec"]["ingress"]
    assert [source["podSelector"]["matchLabels"] for source in rule["from"]] == [own]
    # Exit code 2 fails the job for PodFailurePolicy, which fails the set; all else restarts it.
    (fail,) = spec["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [2])
    assert fail["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_jax_finds_the_hosts_of_a_slice_of_gke_by_what_gke_sets(monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster

    found = cloud_tpu_cluster.GkeTpuCluster
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(found, "wait_for_coordinator", lambda *_: None)
    for name in ("MEGASCALE_COORDINATOR_ADDRESS", "MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a-0.a,a-1.a")
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    assert found.is_env_present()
    assert found.get_coordinator_address(1, None) == "a-0.a:8482"
    assert (found.get_process_count(), found.get_process_id()) == (2, 1)


def test_skypilot_asks_for_the_slice_of_its_worker():
    task = yaml.safe_load((FOLDER / "skypilot.yaml").read_text())
    (command,) = [line for line in task["run"].splitlines() if "study work" in line]
    machine = re.search(r"--machine (\S+)", command)[1]
    assert task["resources"]["accelerators"] == f"tpu-{machine}" and get_slice(machine)
    assert task["num_nodes"] == 1 and task["resources"]["use_spot"]
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [3, 134, 137]
    assert set(task["file_mounts"]) == {"/data"}


def commands() -> list[tuple[str, list[str]]]:
    """Every `study` and `ray` command of the files as words, with values for variables."""
    (job, _), (jobset, _) = manifests("rayjob.yaml"), manifests("jobset.yaml")
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    found = [
        ("rayjob.yaml", job["spec"]["entrypoint"].split()),
        ("jobset.yaml", pod["containers"][0]["command"]),
    ]
    values = {**VALUES, "type": "v4-32", "market": "spot", "HEAD": "10.0.0.2", "@": "demo"}
    for path in (FOLDER / name for name in ("README.md", "skypilot.yaml", *SCRIPTS)):
        text = path.read_text().replace("\\\n", " ")
        text = re.sub(r"\$\{?([A-Za-z]+|@)(:\?[^}]*)?\}?", lambda m: values.get(m[1], m[1]), text)
        for match in re.finditer(
            r"(?:^|\.venv/bin/)((study|ray) [a-z][^>&;|#'\n]*)", text, re.MULTILINE
        ):
            for words in match[1].replace('"', "").split(" -- .venv/bin/"):
                found.append((path.name, words.split()))
    return found


def test_every_study_and_ray_command_parses():
    from ray.scripts.scripts import cli as ray_cli

    study_cli = typer.main.get_command(app)
    parsed = set()
    for name, words in commands():
        group = {"study": study_cli, "ray": ray_cli}[words[0]]
        while hasattr(group, "commands"):
            command = group.commands.get(words[1])
            assert command is not None, (name, words)
            group, words = command, words[1:]
        if words[0] == "submit":
            words.append("true")  # the job's command, which is parsed by itself
        values = group.make_context(words[0], words[1:]).params
        if "machine" in values:
            get_slice(values["machine"] or "cpu")
        if "root" in values and name != "slurm.sbatch":
            assert values["root"].startswith("gs://"), (name, words)
        parsed.add((name, words[0]))
    assert parsed >= {
        *((name, "work") for name in ("jobset.yaml", "skypilot.yaml", "slurm.sbatch", "slice.sh")),
        *((name, "run") for name in ("rayjob.yaml", "README.md")),
        *(("README.md", verb) for verb in ("status", "get-auth-token", "start", "submit")),
        ("slice.sh", "start"),
    }


def test_files_say_what_they_were_checked_with():
    for path in FOLDER.iterdir():
        head = "\n".join(path.read_text().split("\n")[:30])
        if path.suffix in (".yaml", ".sbatch") or path.name in ("Dockerfile", "slice.sh"):
            assert "not\n# executed on a c" in head or "not executed on a c" in head, path.name
        if path.name not in ("README.md", "Dockerfile.dockerignore"):
            assert f"]({path.name})" in (FOLDER / "README.md").read_text(), path.name


def without_unknown_fields(schema):
    """The schema of a CRD as JSON Schema, in which a field that it does not name is an error."""
    if isinstance(schema, list):
        return [without_unknown_fields(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: without_unknown_fields(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.skipif("STUDY_CRDS" not in os.environ, reason="STUDY_CRDS names no CRD files")
def test_manifests_are_valid_by_the_crds():
    resources = {r["kind"]: r for name in ("rayjob.yaml", "jobset.yaml") for r in manifests(name)}
    for path in os.environ["STUDY_CRDS"].split(os.pathsep):
        crd = yaml.safe_load(Path(path).read_text())["spec"]
        resource = resources[crd["names"]["kind"]]
        (version,) = [
            v for v in crd["versions"] if resource["apiVersion"] == f"{crd['group']}/{v['name']}"
        ]
        schema = without_unknown_fields(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
        jsonschema.validate(resource, schema)


def test_the_files_are_part_of_the_package():
    assert (files("sweeps.ray_cluster") / "deploy" / "rayjob.yaml").is_file()
