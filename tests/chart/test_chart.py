"""charts/aldis: renders for every value set, is what Kubernetes takes, and means what the program means."""

import json
import re
import subprocess
import tempfile
import tomllib
import unittest

import helm_python as helm
import kubernetes_validate

import chart
from chart import SETS, backend_pods, component, manifests, named, pods, routes, values

KUBERNETES = ("1.30", "1.37")
BUILT_IN = re.compile(r"^(v1|apps/v1|batch/v1|autoscaling/v2|policy/v1|networking\.k8s\.io/v1)$")


class Renders(unittest.TestCase):
    def test_lint_finds_nothing(self):
        for name in SETS:
            with self.subTest(name):
                report = helm.lint(chart.CHART, values(name), strict=True, namespace=chart.NAMESPACE)
                self.assertEqual(report["errors"], [])
                self.assertEqual([it for it in report["messages"] if it["severity"] > 1], [])

    def test_kubernetes_takes_every_manifest(self):
        for name in SETS:
            for it in manifests(name):
                if not BUILT_IN.match(it["apiVersion"]):
                    continue
                for version in KUBERNETES:
                    with self.subTest(f"{name}: {it['kind']} {it['metadata']['name']}, {version}"):
                        kubernetes_validate.validate(it, version, strict=True)

    def test_custom_resources_have_the_shape_of_their_kinds(self):
        needed = {
            "Certificate": ("cert-manager.io/v1", {"secretName", "issuerRef"}),
            "Issuer": ("cert-manager.io/v1", set()),
            "HTTPRoute": ("gateway.networking.k8s.io/v1", {"parentRefs", "hostnames", "rules"}),
            "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
            "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
        }
        seen = set()
        for name in SETS:
            for it in manifests(name):
                if BUILT_IN.match(it["apiVersion"]):
                    continue
                with self.subTest(f"{name}: {it['kind']} {it['metadata']['name']}"):
                    version, keys = needed[it["kind"]]
                    seen.add(it["kind"])
                    self.assertEqual(it["apiVersion"], version)
                    self.assertLessEqual(keys, set(it["spec"]))
                    for rule in it["spec"].get("rules", []):
                        self.assertLessEqual(len(rule["matches"]), 8)
                    self.assertLessEqual(len(it["spec"].get("rules", [])), 16)
        self.assertEqual(seen, set(needed))

    def test_names_are_there_once_and_short_enough(self):
        for names in [[name] for name in SETS] + [["pair-alpha", "pair-beta"]]:
            found = [(it["kind"], it["metadata"]["name"]) for name in names for it in manifests(name)]
            self.assertEqual(len(found), len(set(found)), names)
            self.assertLessEqual(max(len(name) for _, name in found), 63)
        long = chart.render(values("scaled"), "a-release-with-a-name-that-is-as-long-as-it-may-be-53")
        self.assertNotRegex("".join(long.values()), r"(?m)^ *name: \S{64,}$")

    def test_two_backends_in_one_namespace_leave_each_other_alone(self):
        for mine, other in (("pair-alpha", "pair-beta"), ("pair-beta", "pair-alpha")):
            selectors = [it["spec"]["podSelector"]["matchLabels"] for it in named(mine, "NetworkPolicy").values()]
            selectors += [it["spec"]["selector"] for it in named(mine, "Service").values()]
            for pod in pods(other).values():
                self.assertFalse(any(chart.selects(it, pod) for it in selectors))

    def test_the_notes_say_what_to_publish(self):
        notes = chart.texts("full")["aldis/templates/NOTES.txt"]
        self.assertIn("_wire-server-federator._tcp.example.com. 300 IN SRV 0 10 8443 federator.example.com.", notes)
        self.assertIn("api.example.com.", notes)
        notes = chart.texts("external-secrets")["aldis/templates/NOTES.txt"]
        self.assertIn("SRV 0 10 30443 fed.example.com.", notes)
        self.assertIn("PREVIEW", chart.texts("scaled")["aldis/templates/NOTES.txt"])
        self.assertNotIn("PREVIEW", notes)


class Refuses(unittest.TestCase):
    def refused(self, change, expected):
        given = json.loads(json.dumps(values("minimal"))) | change
        with self.assertRaises(helm.HelmError) as caught:
            chart.render(given)
        self.assertIn(expected, str(caught.exception))

    def test_what_cannot_work_is_refused_with_a_reason(self):
        self.refused({"mode": "scaled"}, "preview")
        self.refused({"domain": ""}, "domain")
        self.refused({"domain": "Example.com"}, "domain")
        self.refused({"image": {"repository": ""}}, "image.repository")
        self.refused({"federation": {"enabled": True}}, "federation")
        self.refused({"federation": {"enabled": True, "secretName": "x"}}, "authorities")
        self.refused({"client": {"gateway": {"enabled": True}}}, "parentRefs")
        self.refused({"surprise": 1}, "surprise")
        self.refused({"containerSecurityContext": {"readOnlyRootFilesystem": False}}, "readOnlyRootFilesystem")
        self.refused({"config": {"domain": "other.example"}}, "domain")

    def test_secrets_among_the_settings_are_refused(self):
        for key in chart.ELSEWHERE:
            table = "x"
            for part in reversed(key.removeprefix("ALDIS_").lower().split("__")):
                table = {part: table}
            self.refused({"config": table}, key)

    def test_every_value_is_used(self):
        templates = "".join(path.read_text() for path in (chart.CHART / "templates").rglob("*") if path.is_file())

        def leaves(table, at=()):
            for key, value in table.items():
                if isinstance(value, dict) and value:
                    yield from leaves(value, (*at, key))
                else:
                    yield (*at, key)

        with helm.Chart.load(chart.CHART) as loaded:
            for path in leaves(loaded.values):
                # Contexts and resources are passed on whole.
                whole = {"resources", "podSecurityContext", "containerSecurityContext", "labels", "matchLabels"}
                if whole & set(path):
                    continue
                self.assertRegex(templates, rf"\.{path[-1]}\b|\"{path[-1]}\"", ".".join(path))


class Configuration(unittest.TestCase):
    def test_the_program_takes_every_configuration(self):
        knows_cql = "cql" in chart.program("config", "print")
        for name in SETS:
            with self.subTest(name):
                text = chart.configuration(name)
                tomllib.loads(text)
                if not knows_cql:
                    # Not there yet, which is why `scaled` is a preview.
                    text = re.sub(r"\[store\.cql\]\n(?:[^\[\n].*\n?)*", "", text)
                status, told = chart.check(name, text)
                self.assertEqual(status, 0, told)

    def test_the_check_would_notice(self):
        status, told = chart.check("minimal", chart.configuration("minimal") + "\n[client.surprise]\nx = 1\n")
        self.assertNotEqual(status, 0)
        self.assertIn("surprise", told)

    def test_values_arrive_as_they_were_given(self):
        config = tomllib.loads(chart.configuration("full"))
        self.assertEqual(config["domain"], "example.com")
        self.assertEqual(config["assets"]["max_bytes"], 1073741824)
        self.assertEqual(config["tracing"]["sample_ratio"], 0.25)
        self.assertEqual(config["users"]["mail"]["from"], 'Aldis "mail" <aldis@example.com>')
        self.assertEqual(config["users"]["registration"], ["example.com"])
        target = {"host": "federator.partner.example", "port": 8443, "address": "192.0.2.10"}
        self.assertEqual(config["federation"]["static_targets"], {"partner.example": [target]})
        self.assertEqual(config["users"]["federation"]["strategy"], "allow_list")

    def test_the_chart_takes_every_table_of_settings(self):
        known = set(re.findall(r"(?m)^#? ?\[([a-z]+)", chart.program("config", "print")))
        with helm.Chart.load(chart.CHART) as loaded:
            taken = set(loaded.schema["properties"]["config"]["propertyNames"]["enum"])
        self.assertEqual(known, taken)

    def test_files_that_the_configuration_names_are_mounted(self):
        for name in SETS:
            paths = set(re.findall(r'"(/(?:etc|var)/[^"]+)"', chart.configuration(name)))
            for key, pod in backend_pods(name).items():
                spec = pod["spec"]
                mounts = {it["mountPath"]: it["name"] for it in spec["containers"][0]["volumeMounts"]}
                volumes = {it["name"] for it in spec["volumes"]}
                if key[0] == "StatefulSet":
                    claims = named(name, "StatefulSet")[key[1]]["spec"].get("volumeClaimTemplates", [])
                    volumes |= {it["metadata"]["name"] for it in claims}
                self.assertEqual(set(mounts.values()), volumes, key)
                for path in paths:
                    if component(pod) not in ("all", "federator") and re.search("federation|authorities", path):
                        continue
                    if component(pod) == "web" and "internal" in path:
                        continue
                    self.assertTrue(any(path.startswith(f"{mount}/") for mount in mounts), f"{name} {key} {path}")
                # A single file would not change in a running pod.
                self.assertFalse(any("subPath" in it for it in spec["containers"][0]["volumeMounts"]))

    def test_no_secret_is_in_a_config_map_or_a_manifest_of_a_pod(self):
        for name in SETS:
            for secret in values(name).get("secrets", {}).values():
                for it in manifests(name):
                    self.assertEqual(secret in json.dumps(it), it["kind"] == "Secret", f"{name} {it['kind']}")

    def test_pods_start_anew_with_another_configuration(self):
        def sum_of(change):
            given = json.loads(json.dumps(values("minimal"))) | change
            text = chart.render(given)["aldis/templates/single.yaml"]
            return re.findall("checksum/.*", text)

        self.assertEqual(sum_of({}), sum_of({"monitoring": {"dashboard": {"enabled": True}}}))
        self.assertNotEqual(sum_of({}), sum_of({"config": {"log": {"format": "human"}}}))
        self.assertNotEqual(sum_of({}), sum_of({"secrets": {"ALDIS_X": "y"}}))

    def test_the_program_knows_the_commands_of_jobs_and_pods(self):
        usage = chart.program("--help")
        for name in SETS:
            for key, pod in pods(name).items():
                for container in pod["spec"]["containers"]:
                    command = container.get("args", [""])[0]
                    if "-evaluation-" in key[1] or (command == "migrate" and " migrate " not in usage):
                        continue
                    self.assertRegex(usage, rf"(?m)^  {command}\b", key)

    def test_helm_test_runs_the_doctor(self):
        for name in ("minimal", "scaled"):
            pod = next(it for it in manifests(name) if it["kind"] == "Pod")
            arguments = pod["spec"]["containers"][0]["args"]
            places = [it for before, it in zip(arguments, arguments[1:]) if before == "--operations"]
            expected = sorted(f"{key[1]}" for key in backend_pods(name))
            if name == "minimal":
                expected = ["aldis-all"]
            self.assertEqual(sorted(it.split(".")[0] for it in places), expected)
            services = named(name, "Service")
            for place in expected:
                self.assertIn("operations", [it["name"] for it in services[place]["spec"]["ports"]])
        with tempfile.TemporaryDirectory() as folder:
            file = chart.on_disk(chart.configuration("minimal"), folder)
            command = [chart.BINARY, "doctor", "--json", "--config", file, "--operations", "127.0.0.1:9"]
            told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(told.returncode, 1, told.stderr)
        checks = {it["name"]: it["outcome"] for it in json.loads(told.stdout)["own"]}
        self.assertEqual(checks["process"], "failed")
        self.assertNotIn("listeners", checks)


class Pods(unittest.TestCase):
    def every(self):
        for name in SETS:
            for key, pod in pods(name).items():
                yield f"{name} {key}", pod

    def test_pods_may_do_nothing_beyond_their_work(self):
        for place, pod in self.every():
            spec = pod["spec"]
            with self.subTest(place):
                self.assertIs(spec["automountServiceAccountToken"], False)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for container in spec["containers"] + spec.get("initContainers", []):
                    security = container["securityContext"]
                    self.assertIs(security["allowPrivilegeEscalation"], False)
                    self.assertIn("memory", container["resources"]["limits"])
                    self.assertIn("cpu", container["resources"]["requests"])
                    if "evaluation-scylla" not in place:
                        self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                        self.assertIs(security["readOnlyRootFilesystem"], True)
                        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                if "evaluation-coturn" not in place:
                    self.assertNotIn("hostNetwork", spec)
                self.assertFalse(any("hostPath" in it for it in spec.get("volumes", [])))

    def test_every_server_has_its_probes(self):
        for name in SETS:
            for key, pod in pods(name).items():
                if key[0] not in ("Deployment", "StatefulSet"):
                    continue
                for container in pod["spec"]["containers"]:
                    ports = {it["name"] for it in container["ports"]}
                    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                        kind = "httpGet" if "-evaluation-" not in key[1] else "tcpSocket"
                        self.assertIn(container[probe][kind]["port"], ports, key)
            for pod in backend_pods(name).values():
                container = pod["spec"]["containers"][0]
                self.assertEqual(container["readinessProbe"]["httpGet"]["path"], "/readyz")
                self.assertEqual(container["livenessProbe"]["httpGet"]["path"], "/healthz")

    def test_service_accounts_are_there_and_hold_no_token(self):
        for name in SETS:
            accounts = named(name, "ServiceAccount")
            for account in accounts.values():
                self.assertIs(account["automountServiceAccountToken"], False)
            used = {it["spec"]["serviceAccountName"] for key, it in pods(name).items() if "-evaluation-" not in key[1]}
            self.assertEqual(used, set(accounts))
            self.assertFalse([it for it in manifests(name) if it["kind"].endswith(("Role", "RoleBinding"))])

    def test_an_end_waits_for_requests_and_sockets(self):
        for name in SETS:
            drain = tomllib.loads(chart.configuration(name))["operations"]["drain_seconds"]
            for pod in backend_pods(name).values():
                spec = pod["spec"]
                pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
                self.assertGreater(spec["terminationGracePeriodSeconds"], pause + drain)

    def test_services_lead_to_ports_that_pods_have(self):
        for name in SETS:
            for key, service in named(name, "Service").items():
                matching = [it for it in pods(name).values() if chart.selects(service["spec"]["selector"], it)]
                self.assertEqual(len(matching), 1, f"{name} {key}")
                ports = matching[0]["spec"]["containers"][0]["ports"]
                known = {it["name"] for it in ports} | {it["containerPort"] for it in ports}
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], known, f"{name} {key}")

    def test_one_pod_owns_an_embedded_store(self):
        for name in SETS:
            sets = named(name, "StatefulSet")
            self.assertEqual(len(sets), 0 if values(name).get("mode") == "scaled" else 1)
            for it in sets.values():
                self.assertEqual(it["spec"]["replicas"], 1)
                self.assertFalse(named(name, "HorizontalPodAutoscaler"))

    def test_services_scale_and_can_be_moved(self):
        for name in ("scaled", "federation-off"):
            deployments = named(name, "Deployment")
            federates = values(name).get("federation", {}).get("enabled", False)
            self.assertEqual(len(deployments), 6 if federates else 4)
            self.assertEqual(set(named(name, "PodDisruptionBudget")), set(deployments))
            autoscalers = named(name, "HorizontalPodAutoscaler")
            for key, it in deployments.items():
                self.assertEqual("replicas" in it["spec"], key not in autoscalers, key)
                spread = it["spec"]["template"]["spec"]["topologySpreadConstraints"]
                self.assertEqual(len(spread), 2)
        metrics = named("scaled", "HorizontalPodAutoscaler")["aldis-notifications"]["spec"]["metrics"]
        self.assertEqual([it["type"] for it in metrics], ["Resource", "Pods"])
        self.assertEqual(metrics[1]["pods"]["metric"]["name"], "aldis_notifications_sockets")
        self.assertEqual(named("scaled", "Deployment")["aldis-federator"]["spec"]["replicas"], 3)

    def test_migrations_run_before_the_pods(self):
        job = named("scaled", "Job")["aldis-migrate"]
        self.assertEqual(job["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade")
        # Everything that the job needs is there before it, and is no part of what comes later.
        needed = [it for it in manifests("scaled") if it["metadata"]["name"] == "aldis-migrate"]
        self.assertEqual({it["kind"] for it in needed}, {"Job", "ConfigMap", "ServiceAccount", "NetworkPolicy"})
        for it in needed:
            self.assertTrue(chart.is_hook(it), it["kind"])
            if it["kind"] != "Job":
                self.assertEqual(it["metadata"]["annotations"]["helm.sh/hook-weight"], "-10")
        self.assertFalse(named("full", "Job"))

    def test_certificates_carry_the_names_that_are_checked(self):
        certificates = named("federation-off", "Certificate")
        for service in ("users", "conversations", "assets", "notifications"):
            spec = certificates[f"aldis-internal-{service}"]["spec"]
            self.assertEqual(spec["dnsNames"], [f"{service}.internal.example.com"])
            self.assertLessEqual({"server auth", "client auth"}, set(spec["usages"]))
        federation = named("full", "Certificate")["aldis-federation"]["spec"]
        self.assertEqual(federation["dnsNames"], ["federator.example.com"])
        self.assertLessEqual({"server auth", "client auth"}, set(federation["usages"]))
        client = named("full", "Certificate")["aldis-client"]["spec"]
        self.assertNotEqual(client["issuerRef"], federation["issuerRef"])
        self.assertEqual(named("full", "Ingress")["aldis-api"]["spec"]["tls"][0]["secretName"], client["secretName"])
        for name in ("full", "scaled"):
            pod = next(it for it in backend_pods(name).values() if component(it) in ("all", "federator"))
            secrets = [it["secret"]["secretName"] for it in pod["spec"]["volumes"] if "secret" in it]
            self.assertIn("aldis-federation", secrets)


if __name__ == "__main__":
    unittest.main()
