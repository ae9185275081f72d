"""Files of ``cluster/`` parse, keep to the pinned versions and the published schemas, and call commands that exist.

Running them needs Docker, Kubernetes and AWS; ``cluster/README.md`` says what was tried.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.scripts.scripts import cli as ray_cli

from asd_ray import __version__
from asd_ray.config.study_file import load_study
from tests.command_lines import REPO, check_command, parse

CLUSTER = REPO / "cluster"
IMAGE = f"asd-ray:{__version__}"
LAUNCHER = ("local", "aws")
GI = 2**30


def requirements() -> dict[str, Requirement]:
    text = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    [listed] = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    return {found.name: found for found in map(Requirement, re.findall(r'^  "([^"]+)"', listed, re.MULTILINE))}


class UniqueKeys(yaml.SafeLoader):
    """YAML takes the last of two equal keys; a manifest should have no two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.load_all((CLUSTER / path).read_text(encoding="utf-8"), UniqueKeys))


def ray_cluster(name: str) -> dict[str, Any]:
    """The RayClusterSpec of a manifest."""
    [document] = documents(f"kubernetes/{name}.yaml")
    return document["spec"] if name == "raycluster" else document["spec"]["rayClusterSpec"]


def groups(name: str) -> list[dict[str, Any]]:
    spec = ray_cluster(name)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def named(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def size(quantity: str) -> float:
    """Bytes of Kubernetes' ``8Gi`` or Docker's ``8g`` (which is binary, too)."""
    number, unit = re.fullmatch(r"(\d+)([KMG])i?b?", quantity, re.IGNORECASE).groups()
    return int(number) * 1024 ** (" KMG".index(unit.upper()))


def ray_starts(commands: list[str]) -> list[dict[str, Any]]:
    """The parsed options of every ``ray start`` among shell commands, which must be valid for bash, too."""
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    starts = [re.search(r"\bray start (.*)", command) for command in commands]
    return [parse(ray_cli, ["start", *shlex.split(found[1])]) for found in starts if found]


def dockerfile() -> list[tuple[str, str]]:
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


@pytest.mark.parametrize("path", sorted(path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*.y*ml")))
def test_yaml_parses_and_holds_no_secret(path: str) -> None:
    found = documents(path)
    assert found
    assert all(document for document in found)
    assert not [document for document in found if document.get("kind") == "Secret"]


# Kubernetes


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_kuberay_knows_every_field(name: str) -> None:
    schema = yaml.safe_load((Path(__file__).parent / "kuberay_schema.yaml").read_text(encoding="utf-8"))

    def close(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("properties"), dict) and "type" not in part:
                part |= {"type": "object", "additionalProperties": False}
            for child in part.values():
                close(child)

    close(schema["$defs"])
    [document] = documents(f"kubernetes/{name}.yaml")
    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert document["apiVersion"] == "ray.io/v1"
    kind = document["kind"]
    assert kind == {"raycluster": "RayCluster", "rayjob": "RayJob"}[name]
    validator = jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{kind}Spec"})
    validator.validate(document["spec"])
    unknown = {**document["spec"], "workerGroups": []}
    assert not validator.is_valid(unknown)


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_pods(name: str) -> None:
    spec = ray_cluster(name)
    assert Requirement(f"ray=={spec['rayVersion']}").specifier.contains(ray_version())
    assert spec["authOptions"] == {"mode": "token"}
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in documents("kubernetes/storage.yaml")}
    assert all(claim["accessModes"] == ["ReadWriteMany"] for claim in claims.values())
    for group in groups(name):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == IMAGE
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        volumes, mounts = named(pod["volumes"]), {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        shm = volumes[mounts["/dev/shm"]["name"]]["emptyDir"]
        assert shm["medium"] == "Memory"
        memory = size(resources["limits"]["memory"])
        assert 0.3 * memory <= size(shm["sizeLimit"]) < 0.5 * memory  # Ray's object store is 30 % of the memory
        used = {
            path: volumes[mounts[path]["name"]]["persistentVolumeClaim"]["claimName"]
            for path in mounts.keys() - {"/dev/shm"}
        }
        assert used == {"/data": "asd-ray-data", "/studies": "asd-ray-studies"}
        assert set(used.values()) == claims.keys()
    [monitor] = documents("kubernetes/podmonitor.yaml")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    for group in groups(name):
        assert endpoint["port"] in named(group["template"]["spec"]["containers"][0]["ports"])


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_rays_autoscaler_reads_the_groups(name: str) -> None:
    """By Ray's own translation of a RayCluster: no trial fits on the head, and one fits on every worker."""
    resource = {"metadata": {"name": "test", "namespace": "test"}, "spec": ray_cluster(name)}
    kuberay = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")  # no public name
    config = kuberay._derive_autoscaling_config_from_ray_cr(resource)
    pytest.importorskip("ray.autoscaler._private.util").validate_config(config)
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    study = load_study(REPO / "studies" / "searches" / "sia_moco_dcase2020.yaml").resources
    for kind in types.keys() - {"headgroup"}:
        assert types[kind]["resources"]["CPU"] >= study.cpus_per_worker
        assert types[kind]["resources"]["GPU"] >= study.gpus_per_worker
        assert 1 <= types[kind]["min_workers"] <= types[kind]["max_workers"]


def test_rayjob() -> None:
    [document] = documents("kubernetes/rayjob.yaml")
    spec = document["spec"]
    [workdir] = [rest for word, rest in dockerfile() if word == "WORKDIR"]
    program, *arguments = shlex.split(spec["entrypoint"])
    assert program == "asd-ray"
    params = check_command([word.removeprefix(f"{workdir}/") for word in arguments])
    assert params["address"] == "auto"
    assert str(params["out"]).startswith("/studies/")
    most = sum(group["maxReplicas"] for group in spec["rayClusterSpec"]["workerGroupSpecs"])
    assert f"resources.max_concurrent_trials={most}" in params["overrides"]
    assert spec["metadata"]["study"] == load_study(REPO / params["file"]).name
    assert spec["shutdownAfterJobFinishes"]  # without it ttlSecondsAfterFinished does nothing
    assert spec["backoffLimit"] >= 1


def test_redis_is_where_the_cluster_looks() -> None:
    service, redis = documents("kubernetes/redis.yaml")
    options = ray_cluster("raycluster")["gcsFaultToleranceOptions"]
    [port] = service["spec"]["ports"]
    assert options["redisAddress"] == f"{service['metadata']['name']}:{port['port']}"
    template = redis["spec"]["template"]
    assert service["spec"]["selector"] == template["metadata"]["labels"] == redis["spec"]["selector"]["matchLabels"]
    [container] = template["spec"]["containers"]
    assert container["env"][0]["valueFrom"] == options["redisPassword"]["valueFrom"]
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    # A job's cluster ends with its head: keeping its state would keep nothing.
    assert "gcsFaultToleranceOptions" not in ray_cluster("rayjob")


# Ray's cluster launcher


def ray_version() -> str:
    [version] = set(re.findall(r'"ray\[[^]]*\]==([\d.]+)"', (CLUSTER / "Dockerfile").read_text()))
    return version


@pytest.mark.parametrize("name", LAUNCHER)
def test_rays_launcher_takes_the_file(name: str) -> None:
    [config] = documents(f"ray/{name}.yaml")
    launcher = pytest.importorskip("ray.autoscaler._private.util")  # what `ray up` calls; it has no public name
    launcher.validate_config(launcher.prepare_config(config))
    starts = {role: ray_starts(config[f"{role}_start_ray_commands"]) for role in ("head", "worker")}
    ray_starts(config["setup_commands"])
    [head], [worker] = starts["head"], starts["worker"]
    assert head["head"]
    assert head["dashboard_host"] == "127.0.0.1"
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert worker["address"].endswith(f":{head['port']}")
    for role in starts:
        assert "RAY_AUTH_MODE=token" in config[f"{role}_start_ray_commands"][-1]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert all((REPO / path).is_file() for path in config["rsync_filter"])
    [install] = [command for command in config["setup_commands"] if "pip install" in command]
    assert f"=={ray_version()}" in install


def test_aws_head_stays_and_workers_are_spot() -> None:
    [config] = documents("ray/aws.yaml")
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"]["CPU"] == 0
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["resources"]["GPU"] >= 1
    assert 1 <= gpu["min_workers"] <= gpu["max_workers"] <= config["max_workers"]


# Image and compose


def test_dockerfile() -> None:
    steps = dockerfile()
    assert {word for word, _ in steps} <= {"FROM", "RUN", "ARG", "ENV", "WORKDIR", "COPY", "USER", "CMD"}
    [base] = [rest for word, rest in steps if word == "FROM"]
    python = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", base)[1]
    requires = re.search(r'^requires-python = "(.*)"', (REPO / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert SpecifierSet(requires).contains(f"{python}.0")
    pinned = requirements()
    installed = {
        found.name: found
        for word, rest in steps
        if word == "RUN"
        for found in map(Requirement, re.findall(r'"([^"]+)"', rest))
    }
    assert installed.keys() == {"torch", "torchaudio", "torchvision", "ray"}
    for name in installed.keys() - {"ray"}:
        assert installed[name] == pinned[name]
    assert installed["ray"].extras == pinned["ray"].extras
    assert pinned["ray"].specifier.contains(ray_version())
    assert [word for word, _ in steps].index("USER") > max(i for i, (word, _) in enumerate(steps) if word == "RUN")
    [user] = [rest for word, rest in steps if word == "USER"]
    assert user not in ("root", "0")
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().split("\n")
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for rest in (rest for word, rest in steps if word == "COPY"):
        for source in shlex.split(rest)[:-1]:
            assert (REPO / source).exists()
            assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def test_compose() -> None:
    [compose] = documents("compose.yaml")
    assert compose.keys() <= {"name", "x-ray", "services", "secrets", "volumes"}
    known = {"image", "environment", "secrets", "volumes", "shm_size", "mem_limit", "init", "restart", "hostname"}
    known |= {"command", "ports", "healthcheck", "depends_on", "profiles", "deploy"}
    services = compose["services"]
    starts = {}
    for name, service in services.items():
        assert service.keys() <= known, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service.get("secrets", [])) <= compose["secrets"].keys()
        assert set(service.get("depends_on", [])) <= services.keys()
        for source in (re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0] for volume in service["volumes"]):
            assert source in compose["volumes"] or (CLUSTER / source).exists() or source in ("../data", "../runs")
        if service["image"] != IMAGE:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])  # a release, never `latest`
            continue
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{service['secrets'][0]}"
        memory = size(re.search(r":-(\w+)}", service["mem_limit"])[1])
        assert size(service["shm_size"]) >= 0.3 * memory
        [starts[name]] = ray_starts([service["command"]])
        assert starts[name]["block"]
    assert starts["head"]["num_cpus"] == 0
    assert starts["worker"]["address"] == f"{services['head']['hostname']}:{starts['head']['port']}"
    assert services["worker-gpu"]["profiles"] == ["gpu"]


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        ray_starts(["ray start --heads"])
