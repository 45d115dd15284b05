"""What the tests of the chart share: value sets, rendered manifests, and the program's own word."""

import functools
import json
import os
import pathlib
import re
import subprocess
import tempfile

import helm_python as helm
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "aldis"
BINARY = os.environ["ALDIS_BIN"]
NAMESPACE = "chat"
SETS = sorted(path.stem for path in (ROOT / "tests/chart/values").glob("*.yaml"))
# What Secrets hold that are not made by the chart.
ELSEWHERE = {
    "ALDIS_USERS__MAIL__SMTP__PASSWORD": "from elsewhere",
    "ALDIS_USERS__CALLS__SECRET": "from elsewhere",
    "ALDIS_ASSETS__S3__ACCESS_KEY_ID": "from elsewhere",
    "ALDIS_ASSETS__S3__SECRET_ACCESS_KEY": "from elsewhere",
}


class Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, which YAML readers otherwise forgive."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"a key twice: {keys}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


@functools.cache
def values(name):
    return yaml.safe_load((ROOT / f"tests/chart/values/{name}.yaml").read_text())


def release(name):
    return name.removeprefix("pair-") if name.startswith("pair-") else "aldis"


def render(given, name="aldis"):
    """The texts of all templates; raises as `helm template` fails."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(given)
        return chart.render(given, name=name, namespace=NAMESPACE)


@functools.cache
def texts(name):
    return render(values(name), release(name))


@functools.cache
def manifests(name):
    documents = []
    for file, text in texts(name).items():
        if not file.endswith("NOTES.txt"):
            documents += [it for it in yaml.load_all(text, Loader) if it]
    return documents


def named(name, kind):
    return {it["metadata"]["name"]: it for it in manifests(name) if it["kind"] == kind}


def is_hook(manifest):
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def pods(name):
    """Pod templates by (kind, name)."""
    found = {}
    for it in manifests(name):
        if it["kind"] in ("Deployment", "StatefulSet", "Job"):
            found[it["kind"], it["metadata"]["name"]] = it["spec"]["template"]
        elif it["kind"] == "Pod":
            found["Pod", it["metadata"]["name"]] = it
    return found


def backend_pods(name):
    """Pods that run Aldis for good."""
    kinds = ("Deployment", "StatefulSet")
    return {key: pod for key, pod in pods(name).items() if key[0] in kinds and "-evaluation-" not in key[1]}


def component(pod):
    return pod["metadata"]["labels"].get("app.kubernetes.io/component")


def selects(selector, pod):
    labels = pod["metadata"]["labels"]
    return all(labels.get(key) == value for key, value in selector.items())


def configuration(name):
    return next(it for key, it in named(name, "ConfigMap").items() if key.endswith("-config"))["data"]["aldis.toml"]


@functools.cache
def program(*arguments):
    return subprocess.run([BINARY, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


@functools.cache
def routes():
    return json.loads(program("routes"))


def table_of(variable):
    return tuple(variable.removeprefix("ALDIS_").lower().split("__")[:-1])


def tables_of(text):
    return {tuple(it.split(".")) for it in re.findall(r"(?m)^\[(\S+)\]$", text)}


def environment(name):
    """What a pod's environment adds to its configuration."""
    own = {key: it for key, it in os.environ.items() if not key.startswith("ALDIS_")}
    if values(name).get("existingSecrets"):
        # Only what the settings have a use for.
        own |= {key: it for key, it in ELSEWHERE.items() if table_of(key) in tables_of(configuration(name))}
    for secret in named(name, "Secret").values():
        own |= secret["stringData"]
    return own


def on_disk(text, folder):
    """Writes a configuration file as if this machine were the pod."""
    folder = pathlib.Path(folder)
    (folder / "data").mkdir(exist_ok=True)
    text = text.replace("/etc/aldis/", f"{folder}/").replace("/var/lib/aldis/", f"{folder}/data/")
    for path in re.findall(r'_file = "([^"]+)"', text):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text("x")
    file = folder / "aldis.toml"
    file.write_text(text)
    return file


def check(name, text):
    """What the program says about a configuration: exit status and text."""
    with tempfile.TemporaryDirectory() as folder:
        file = on_disk(text, folder)
        told = subprocess.run(
            [BINARY, "config", "check", file], capture_output=True, text=True, timeout=60, env=environment(name)
        )
        return told.returncode, told.stdout + told.stderr
