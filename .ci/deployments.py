"""Whether the files of deploy/ agree with each other, with the programs, and with what docs/supported-versions.md lists.

Takes the folder with node-service and ops, and one with what kubectl kustomize made.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

PROGRAMS, KUBERNETES = map(Path, sys.argv[1:])
DEPLOY = Path("deploy")
VERSION = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["package"]["version"]
OURS = f"node-service:{VERSION}"
# A test of node-service compares this file with the defaults.
DEFAULTS = tomllib.loads(Path("examples/node-service/node-service.toml").read_text())
PROBES = {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": "readiness"}
PATHS = {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}

wrong = []
checked = 0
images = set()
configs_seen = set()


def check(holds, what):
    global checked
    checked += 1
    if not holds:
        wrong.append(what)


def run(program, *arguments):
    command = [str(PROGRAMS / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600}
    parts = re.findall(r"([0-9.]+)\s*(ms|min|s|m|h)", text)
    assert "".join(number + unit for number, unit in parts) == text.replace(" ", ""), text
    return sum(float(number) * units[unit] for number, unit in parts)


def merged(below, above):
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


class Config:
    """One config of node-service, with the defaults."""

    def __init__(self, name, text):
        self.name, self.text = name, text
        self.keys = merged(DEFAULTS, tomllib.loads(text))
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            said = run("node-service", "--config", file.name, "--check")
        check(said.returncode == 0, f"{name}: node-service --check: {said.stderr}")

    def port(self, protocol):
        return int(self.keys[protocol]["listen"].rsplit(":", 1)[1])

    def end(self):
        """The longest that an orderly end takes."""
        keys = self.keys
        return seconds(keys["http"]["drain"]) + seconds(keys["stop_within"]) + 2 * seconds(keys["telemetry"]["timeout"])

    def is_reached_from_outside(self):
        return all(not self.keys[protocol]["listen"].startswith("127.") for protocol in ("http", "grpc"))

    def hosts(self):
        """Of the store and of the bucket."""
        urls = [self.keys["store"].get("url", ""), self.keys["backup"].get("s3", {}).get("endpoint", "")]
        places = [re.fullmatch(r"[a-z+]+://(?:[^@/]*@)?([^/?]+).*", url) for url in urls]
        return [host.split(":")[0] for place in places if place for host in place[1].split(",")]

    def named_below(self, folder):
        return set(re.findall(re.escape(folder) + r"/([a-z0-9-]+)", self.text))


def config(path):
    configs_seen.add(path.resolve())
    return Config(str(path), path.read_text())


def is_below(path, folders):
    return any(Path(path).is_relative_to(folder) for folder in folders)


def compose_service(file, name, service, services):
    at = f"{file}: {name}"
    images.add(service["image"])
    health = service["healthcheck"]
    check(seconds(health["timeout"]) < seconds(health["interval"]), f"{at}: its health check may overlap the next one")
    check("no-new-privileges:true" in service["security_opt"], f"{at}: no-new-privileges is missing")
    for port in service.get("ports", []):
        check(port.startswith("127.0.0.1:"), f"{at}: {port} is published to others")
    for needed, how in service.get("depends_on", {}).items():
        check(needed in services and how["condition"] == "service_healthy", f"{at}: {needed} is not waited for")


def compose_node(file, name, node, services, config, variant):
    at = f"{file}: {name} with {config.name}"
    grace = seconds(node["stop_grace_period"])
    check(grace > config.end(), f"{at}: stop_grace_period {grace:.0f} s, and its end may take {config.end():.0f} s")
    health = f"http://127.0.0.1:{config.port('http')}/readyz"
    check(node["healthcheck"]["test"][-1] == health, f"{at}: the health check does not ask {health}")
    published = {int(port.rsplit(":", 1)[1]) for port in node["ports"]}
    listens = {config.port("http"), config.port("grpc")}
    check(published == listens and config.is_reached_from_outside(), f"{at}: published {published}, listens at {listens}")
    check(node["user"].split(":")[0] not in ("0", "root"), f"{at}: runs as root")
    check(node["read_only"] and node["cap_drop"] == ["ALL"], f"{at}: is not confined")
    check(is_below(config.keys["data"], [volume.split(":")[1] for volume in node["volumes"]]), f"{at}: data is on no volume")
    named = config.named_below("/run/secrets") | {Path(path).name for path in node["environment"].values()}
    check(named <= set(node["secrets"]), f"{at}: {named} are not all among the secrets")
    check(run("node-service", *node["command"], "--help").returncode == 0, f"{at}: node-service does not take its command")
    target = next(entry["target"] for entry in node["configs"])
    check(target in node["command"], f"{at}: {target} is not what the command reads")
    for host in config.hosts():
        there = host in services and services[host].get("profiles", [variant]) == [variant]
        check(there and host in node["depends_on"], f"{at}: {host} is not started before it")


def compose(file):
    document = yaml.safe_load(file.read_text())
    services = document["services"]
    nodes = {name for name, service in services.items() if service["image"] == OURS}
    check(nodes, f"{file}: has no {OURS}")
    # The profiles, and the default of STORE.
    variants = {profile for service in services.values() for profile in service.get("profiles", [])}
    for name, service in services.items():
        compose_service(file, name, service, services)
        if name not in nodes:
            continue
        source = document["configs"][service["configs"][0]["source"]]["file"]
        default = re.search(r"\$\{STORE:-([a-z]+)\}", source)
        for variant in sorted(variants | {default[1]}) if default else [None]:
            path = file.parent / (source.replace(default[0], variant) if default else source)
            compose_node(file, name, service, services, config(path), variant)
    for entry in list(document["configs"].values()):
        path = file.parent / entry["file"]
        check("$" in entry["file"] or path.is_file(), f"{file}: {path} is not there")
    if "prometheus" in services:
        prometheus(file, nodes, services["prometheus"])


def prometheus(file, nodes, service):
    folder = file.parent / "prometheus"
    scrapes = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    objectives = tomllib.loads((folder / "objectives.toml").read_text())
    read = {name: config(file.parent / "config" / f"{name}.toml") for name in nodes}
    targets = {f"{name}:{node.port('http')}" for name, node in read.items()}
    for scrape in scrapes:
        check(set(scrape["static_configs"][0]["targets"]) == targets, f"{scrape['job_name']}: does not ask {targets}")
        token = scrape.get("authorization", {}).get("credentials_file", "/run/secrets/operator-token")
        check(Path(token).name in service["secrets"], f"{scrape['job_name']}: {token} is not there")
    check(objectives["service"]["job"] in [scrape["job_name"] for scrape in scrapes], f"{folder}: nobody has the rules' job")
    for name, node in read.items():
        check(node.keys["objectives"] == objectives["objectives"], f"{name}: has other objectives than the rules")
    made = run("ops", "health", "export", "--config", folder / "objectives.toml", "--for", "prometheus")
    check(made.stdout == (folder / "rules.yml").read_text(), f"{folder}/rules.yml is not what ops exports: {made.stderr}")


def kubernetes(file):
    documents = list(yaml.safe_load_all(file.read_text()))

    def of(kind):
        return [document for document in documents if document["kind"] == kind]

    (pods,) = of("StatefulSet")
    labels = pods["spec"]["template"]["metadata"]["labels"]
    spec = pods["spec"]["template"]["spec"]
    (node,) = spec["containers"]
    maps = {entry["metadata"]["name"]: entry["data"] for entry in of("ConfigMap")}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in node["volumeMounts"]}
    for container in [node, *spec["initContainers"]]:
        at = f"{file.name}: {container['name']}"
        check(container["image"].rsplit("/", 1)[1] == OURS, f"{at}: is not {OURS}")
        confined = container["securityContext"]
        check(
            spec["securityContext"]["runAsNonRoot"]
            and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            and not confined["allowPrivilegeEscalation"]
            and confined["capabilities"] == {"drop": ["ALL"]},
            f"{at}: the restricted profile refuses it",
        )
    for number in range(pods["spec"]["replicas"]):
        pod = f"{pods['metadata']['name']}-{number}"
        at = f"{file.name}: {pod}"
        path = Path(node["args"][1].replace("$(POD_NAME)", pod))
        data = maps[volumes[mounts[str(path.parent)]]["configMap"]["name"]]
        check(path.name in data, f"{at}: {path} is in no ConfigMap")
        if path.name not in data:
            continue
        kubernetes_pod(at, pods, spec, node, mounts, Config(at, data[path.name]))
    prefixes = [tomllib.loads(text)["backup"]["s3"]["prefix"] for data in maps.values() for text in data.values()]
    check(len(set(prefixes)) == len(prefixes), f"{file.name}: two pods share a repository")
    listens = {port["containerPort"]: port["name"] for port in node["ports"]}
    for service in of("Service"):
        for port in service["spec"]["ports"]:
            check(listens.get(port["port"]) == port["targetPort"], f"{file.name}: {service['metadata']['name']}: nobody listens there")
        check(service["spec"]["selector"] == labels, f"{file.name}: {service['metadata']['name']}: finds other pods")
    (policy,) = of("NetworkPolicy")
    ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    check(ports <= set(listens), f"{file.name}: the network policy lets in where nobody listens")
    for selector in [policy["spec"]["podSelector"], *[budget["spec"]["selector"] for budget in of("PodDisruptionBudget")]]:
        check(selector == {"matchLabels": labels}, f"{file.name}: {selector} selects other pods")


def kubernetes_pod(at, pods, spec, node, mounts, config):
    grace = spec["terminationGracePeriodSeconds"]
    check(grace > config.end(), f"{at}: terminationGracePeriodSeconds {grace}, and its end may take {config.end():.0f} s")
    check(run("node-service", *node["args"], "--help").returncode == 0, f"{at}: node-service does not take its arguments")
    ports = {port["name"]: port["containerPort"] for port in node["ports"]}
    listens = {protocol: config.port(protocol) for protocol in ("http", "grpc")}
    check(ports == listens and config.is_reached_from_outside(), f"{at}: has ports {ports}, and listens at {listens}")
    claims = [claim["metadata"]["name"] for claim in pods["spec"]["volumeClaimTemplates"]]
    kept = [path for path, name in mounts.items() if name in claims]
    check(is_below(config.keys["data"], kept), f"{at}: data is on no volume")
    for path in [config.keys["http"]["operator_token_file"], *[entry["value"] for entry in node["env"] if "value" in entry]]:
        check(is_below(path, mounts), f"{at}: {path} is not mounted")
    for key, kind in PROBES.items():
        probe = node[key]
        http, grpc = probe.get("httpGet"), probe.get("grpc")
        check((http is None) != (grpc is None), f"{at}: {key} asks in no way or in two")
        if http:
            right = http["path"] == PATHS[kind] and listens.get(http["port"], http["port"]) == config.port("http")
        else:
            right = grpc["service"] == kind and grpc["port"] == config.port("grpc")
        check(right, f"{at}: {key} does not ask for {kind} where it is served")
        check(probe["timeoutSeconds"] <= probe["periodSeconds"], f"{at}: {key} may overlap the next one")
    startup = any(entry["kind"] == "startup" for entry in config.keys["checks"])
    check(startup, f"{at}: without a startup check its startup probe never succeeds")


def unit(path):
    keys = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            key, value = line.split("=", 1)
            keys.setdefault(key, []).append(value)
    return keys


def systemd(folder):
    service = unit(folder / "node-service.service")
    node = config(folder / "node-service.toml")
    (stop,) = service["TimeoutStopSec"]
    check(seconds(stop) > node.end(), f"{folder}: TimeoutStopSec {stop}, and its end may take {node.end():.0f} s")
    check(service["RestartPreventExitStatus"] == ["2"], f"{folder}: a wrong config is tried again and again")
    check(is_below(node.keys["data"], [f"/var/lib/{name}" for name in service["StateDirectory"]]), f"{folder}: data is not a StateDirectory")
    check(node.keys["backup"]["folder"] in service["ReadWritePaths"], f"{folder}: backup.folder can't be written")
    check(node.keys["blocks"]["folder"] in service["ReadOnlyPaths"], f"{folder}: blocks.folder is not named")
    backup = folder / "backup.toml"
    text = backup.read_text()
    for path in sorted(folder.glob("*.service")):
        keys = unit(path)
        loaded = {entry.split(":")[0] for entry in keys["LoadCredential"]}
        used = set(re.findall(rf"/run/credentials/{path.name}/([a-z-]+)", node.text + text))
        check(used == loaded, f"{path}: loads {loaded}, and the configs use {used}")
        for command in keys["ExecStart"]:
            program, *arguments = command.split()
            taken = run(Path(program).name, *arguments, "--help")
            check(taken.returncode == 0, f"{path}: {command}: {taken.stderr}")
            named = Path(arguments[arguments.index("--config") + 1])
            check((folder / named.name).is_file(), f"{path}: {named} is not here")
    with tempfile.TemporaryDirectory() as temporary:
        moved = Path(temporary) / "backup.toml"
        moved.write_text(text.replace(tomllib.loads(text)["folder"], f"{temporary}/none"))
        # There is no repository, which is another failure than a config that is wrong.
        listed = run("ops", "backup", "list", "--config", moved)
        check(listed.returncode not in (0, 2), f"{backup}: ops backup list exits with {listed.returncode}: {listed.stderr}")
    check(tomllib.loads(text)["folder"] == node.keys["backup"]["folder"], f"{backup}: is another repository")
    configs_seen.add(backup.resolve())


for file in sorted(DEPLOY.glob("compose/*.yaml")):
    compose(file)
for file in sorted(KUBERNETES.glob("*.yaml")):
    kubernetes(file)
systemd(DEPLOY / "systemd")

images |= set(re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
listed = Path("docs/supported-versions.md").read_text()
for image in sorted(images - {OURS}):
    check(re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[a-z0-9.-]*", image), f"{image}: names no version")
    check(f"`{image}`" in listed, f"{image}: docs/supported-versions.md does not list it")
for path in sorted([*DEPLOY.glob("compose/config/*.toml"), *DEPLOY.glob("systemd/*.toml")]):
    check(path.resolve() in configs_seen, f"{path}: nobody reads it")

for problem in wrong:
    print(problem, file=sys.stderr)
print(f"deploy/ agrees in {checked - len(wrong)} of {checked} points")
sys.exit(bool(wrong))
