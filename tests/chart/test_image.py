"""The Dockerfile: linted, read, and held against the chart and the workspace. No engine is needed, and no image is built."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import yaml

import chart

DOCKERFILE = chart.ROOT / "Dockerfile"


def instructions():
    """(instruction, arguments) in order, continued lines joined."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def pattern(text):
    """A line of .dockerignore as a regular expression that matches a path or what lies below it."""
    parts = re.escape(text).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return re.compile(rf"{parts}(/.*)?$")


def ignored():
    rules = [it for it in (chart.ROOT / ".dockerignore").read_text().splitlines() if it and not it.startswith("#")]
    rules = [(not it.startswith("!"), pattern(it.removeprefix("!"))) for it in rules]

    def is_ignored(path):
        found = False
        for ignores, expression in rules:
            if expression.match(path):
                found = ignores
        return found

    return is_ignored


class Image(unittest.TestCase):
    def setUp(self):
        self.instructions = instructions()
        last = max(at for at, it in enumerate(self.instructions) if it[0] == "FROM")
        self.final = self.instructions[last:]
        self.workspace = tomllib.loads((chart.ROOT / "Cargo.toml").read_text())["workspace"]["package"]

    def value(self, name):
        return [arguments for it, arguments in self.final if it == name][-1]

    def test_the_linter_finds_nothing(self):
        hadolint = pathlib.Path(sys.executable).with_name("hadolint")
        told = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60)
        self.assertEqual((told.returncode, told.stdout), (0, ""))

    def test_the_linter_would_notice(self):
        hadolint = pathlib.Path(sys.executable).with_name("hadolint")
        told = subprocess.run([hadolint, "-"], input="FROM debian\nRUN cd /tmp\n", capture_output=True, text=True, timeout=60)
        self.assertEqual(told.returncode, 1)

    def test_the_image_holds_the_program_and_no_shell(self):
        self.assertRegex(self.final[0][1], r"^gcr\.io/distroless/")
        self.assertFalse([it for it in self.final if it[0] == "RUN"])
        self.assertEqual(self.value("ENTRYPOINT"), '["/usr/local/bin/aldis"]')
        self.assertIn(self.value("CMD").strip('[]"'), chart.program("--help"))

    def test_it_runs_as_the_user_of_the_chart(self):
        user, group = (int(it) for it in self.value("USER").split(":"))
        security = yaml.safe_load((chart.CHART / "values.yaml").read_text())["podSecurityContext"]
        self.assertEqual((user, group), (security["runAsUser"], security["runAsGroup"]))
        self.assertNotEqual(user, 0)

    def test_it_says_what_it_is(self):
        labels = self.value("LABEL")
        for label in ("title", "description", "licenses", "version", "revision", "created"):
            self.assertIn(f"org.opencontainers.image.{label}=", labels)
        self.assertIn(f'licenses="{self.workspace["license"]}"', labels)
        self.assertIn(("ARG", f"VERSION={self.workspace['version']}"), self.final)
        self.assertIn(("ARG", "BUILDKIT_SBOM_SCAN_STAGE=true"), self.instructions)

    def test_versions_agree(self):
        described = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
        self.assertEqual(described["appVersion"], self.workspace["version"])
        self.assertEqual(described["version"], self.workspace["version"])
        rust = dict(it[1].split("=") for it in self.instructions if it[0] == "ARG")["RUST"]
        self.assertGreaterEqual(
            [int(it) for it in rust.split(".")], [int(it) for it in self.workspace["rust-version"].split(".")]
        )

    def test_the_build_gets_what_it_needs_and_nothing_secret(self):
        is_ignored = ignored()
        for path in (".git/config", ".local/alpha.test/aldis.toml", "target/debug/aldis", "docs/install.md",
                     "tests/client/node_modules/x/index.js", "crates/aldis/key.pem", "crates/.env", "charts/aldis/values.yaml"):
            self.assertTrue(is_ignored(path), path)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=chart.ROOT, capture_output=True, timeout=60)
        if listed.returncode != 0:
            self.skipTest("no repository to list")
        with tempfile.TemporaryDirectory() as folder:
            for path in os.fsdecode(listed.stdout).split("\0"):
                if path and not is_ignored(path) and (chart.ROOT / path).is_file():
                    target = pathlib.Path(folder, path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(chart.ROOT / path, target)
            command = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--offline", "--no-deps", "--format-version=1"]
            told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
            self.assertEqual(told.returncode, 0, told.stderr)
            # Whatever a crate takes in at compile time is there too.
            for source in pathlib.Path(folder, "crates").rglob("*.rs"):
                for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
                    self.assertTrue((source.parent / name).is_file(), f"{source} {name}")


if __name__ == "__main__":
    unittest.main()
