"""charts/aldis: who reaches what. Routes, network policies, and what monitoring looks at."""

import json
import re
import unittest

import chart
from chart import SETS, backend_pods, component, manifests, named, pods, routes, values


def expected_routes(web=True):
    """Path → service, from the program."""
    known = json.loads(json.dumps(routes()))
    if not web:
        del known["services"]["web"]
    prefixes = {prefix: service for service, paths in known["services"].items() for prefix in paths}
    found = {"/": known["default"]}
    for version in ["", *[f"/v{number}" for number in known["versions"]]]:
        found |= {version + prefix: service for prefix, service in prefixes.items()}
    return found


class Routes(unittest.TestCase):
    def service_of(self, name, backend):
        return backend.removeprefix("aldis-").removesuffix("-client")

    def ingress_paths(self, name):
        found = {}
        for ingress in named(name, "Ingress").values():
            for rule in ingress["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    self.assertEqual(path["pathType"], "Prefix")
                    self.assertNotIn(path["path"], found)
                    found[path["path"]] = path["backend"]["service"]["name"]
        return found

    def test_the_ingress_routes_as_the_program_does(self):
        found = {path: self.service_of(0, it) for path, it in self.ingress_paths("federation-off").items()}
        self.assertEqual(found, expected_routes(web=False))

    def test_the_gateway_routes_as_the_program_does(self):
        found = {}
        for key, route in named("scaled", "HTTPRoute").items():
            services = set()
            for rule in route["spec"]["rules"]:
                services |= {it["name"] for it in rule["backendRefs"]}
                for match in rule["matches"]:
                    self.assertEqual(match["path"]["type"], "PathPrefix")
                    found[match["path"]["value"]] = self.service_of(0, rule["backendRefs"][0]["name"])
            self.assertEqual(services, {f"{key}-client"}, "one route per service")
        self.assertEqual(found, expected_routes())

    def test_one_pod_takes_everything(self):
        self.assertEqual(set(self.ingress_paths("full").values()), {"aldis-client"})
        self.assertIn("/", self.ingress_paths("full"))
        for route in named("gateway", "HTTPRoute").values():
            self.assertEqual({it["name"] for rule in route["spec"]["rules"] for it in rule["backendRefs"]}, {"aldis-client"})

    def test_routes_lead_to_services_that_are_there(self):
        for name in SETS:
            services = named(name, "Service")
            for target in self.ingress_paths(name).values():
                self.assertIn("client", [it["name"] for it in services[target]["spec"]["ports"]])
            for route in named(name, "HTTPRoute").values():
                for reference in [it for rule in route["spec"]["rules"] for it in rule["backendRefs"]]:
                    self.assertIn(reference["port"], [it["port"] for it in services[reference["name"]]["spec"]["ports"]])

    def test_sockets_may_stay_open_for_hours(self):
        for name in SETS:
            for ingress in named(name, "Ingress").values():
                annotations = ingress["metadata"]["annotations"]
                for timeout in ("read", "send"):
                    seconds = int(annotations[f"nginx.ingress.kubernetes.io/proxy-{timeout}-timeout"])
                    self.assertGreaterEqual(seconds, 3600)
            for route in named(name, "HTTPRoute").values():
                for rule in route["spec"]["rules"]:
                    self.assertEqual(rule["timeouts"], {"request": "0s", "backendRequest": "0s"})

    def test_tokens_in_urls_of_sockets_stay_out_of_the_log(self):
        masked = "nginx.ingress.kubernetes.io/enable-access-log"
        for name in ("full", "federation-off", "external-secrets"):
            for key, ingress in named(name, "Ingress").items():
                paths = [it["path"] for rule in ingress["spec"]["rules"] for it in rule["http"]["paths"]]
                sockets = [path for path in paths if re.search("/(await|events)$", path)]
                self.assertIn(len(sockets), (0, len(paths)), "sockets stand apart")
                is_masked = ingress["metadata"]["annotations"].get(masked) == "false"
                self.assertEqual(is_masked, bool(sockets), key)
                self.assertEqual(len(sockets), 14 if sockets else 0)

    def test_annotations_can_be_added(self):
        for ingress in named("full", "Ingress").values():
            self.assertEqual(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/limit-connections"], "1000")

    def test_federation_passes_through_untouched(self):
        for name in SETS:
            federates = values(name).get("federation", {}).get("enabled", False)
            service = next((it for key, it in named(name, "Service").items() if key.endswith("-federation")), None)
            self.assertEqual(service is not None, federates, name)
            if service:
                self.assertNotIn("appProtocol", service["spec"]["ports"][0])
                selected = [component(it) for it in pods(name).values() if chart.selects(service["spec"]["selector"], it)]
                self.assertEqual(selected, ["federator" if values(name).get("mode") == "scaled" else "all"])


class NetworkPolicies(unittest.TestCase):
    def policy_of(self, name, pod):
        found = [
            it["spec"]
            for it in named(name, "NetworkPolicy").values()
            if chart.selects(it["spec"]["podSelector"]["matchLabels"], pod)
        ]
        self.assertEqual(len(found), 1, f"{name}: {pod['metadata']['labels']}")
        return found[0]

    def callers(self, name, policy, port):
        """Who reaches a port: names of components, or peers as they are."""
        found = []
        for rule in policy["ingress"]:
            self.assertTrue(rule.get("from") and rule.get("ports"), f"{name}: a rule for everybody or every port")
            if port not in [it["port"] for it in rule["ports"]]:
                continue
            for peer in rule["from"]:
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                found.append(labels.get("app.kubernetes.io/component") or json.dumps(peer, sort_keys=True))
        return sorted(found)

    def test_every_pod_has_one_and_every_port_is_considered(self):
        for name in SETS:
            for key, pod in pods(name).items():
                if "coturn" in key[1]:
                    continue  # It uses the node's network, where policies do not hold.
                policy = self.policy_of(name, pod)
                self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
                ports = {it["name"]: it["containerPort"] for it in pod["spec"]["containers"][0].get("ports", [])}
                opened = {it["port"] for rule in policy["ingress"] for it in rule["ports"]}
                self.assertLessEqual(opened, set(ports) | set(ports.values()), f"{name} {key}")

    def test_only_ingress_reaches_clients_listeners(self):
        for name in SETS:
            given = values(name).get("networkPolicy", {}).get("ingressFrom")
            usual = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
            expected = sorted(json.dumps(it, sort_keys=True) for it in given or usual)
            for pod in backend_pods(name).values():
                serves = component(pod) != "federator"
                self.assertEqual(self.callers(name, self.policy_of(name, pod), "client"), expected if serves else [])

    def test_only_the_federator_reaches_federation_listeners(self):
        seen = 0
        for name in SETS:
            for pod in backend_pods(name).values():
                callers = self.callers(name, self.policy_of(name, pod), "federation")
                has = "federation" in [it["name"] for it in pod["spec"]["containers"][0]["ports"]]
                self.assertEqual(callers, ["federator"] if has else [], f"{name} {component(pod)}")
                seen += has
        self.assertEqual(seen, 3)

    def test_only_monitoring_and_the_doctor_reach_operations(self):
        monitoring = json.dumps({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}})
        for name in SETS:
            for pod in backend_pods(name).values():
                callers = self.callers(name, self.policy_of(name, pod), "operations")
                self.assertEqual(callers, sorted(["doctor", monitoring]))

    def test_partners_reach_nothing_but_the_federators_ingress(self):
        for name in SETS:
            for pod in backend_pods(name).values():
                policy = self.policy_of(name, pod)
                for rule in policy["ingress"]:
                    if any("ipBlock" in it for it in rule["from"]):
                        self.assertEqual([it["port"] for it in rule["ports"]], ["ingress"])
                        self.assertIn(component(pod), ("all", "federator"))
        policy = self.policy_of("full", next(iter(backend_pods("full").values())))
        self.assertEqual(self.callers("full", policy, "ingress"), ['{"ipBlock": {"cidr": "192.0.2.0/24"}}'])

    def test_services_reach_each_other_where_they_call_and_nowhere_else(self):
        """Each way out has its way in, and both are the calls of the architecture."""
        for name in ("scaled", "federation-off"):
            ways_in, ways_out = set(), set()
            for pod in backend_pods(name).values():
                policy = self.policy_of(name, pod)
                for port in ("internal", "federation"):
                    ways_in |= {(it, component(pod), port) for it in self.callers(name, policy, port)}
                for rule in policy["egress"]:
                    for peer in rule.get("to", []):
                        callee = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
                        if callee:
                            ways_out |= {(component(pod), callee, it["port"]) for it in rule["ports"]}
            self.assertEqual(ways_in, ways_out)
            self.assertIn(("conversations", "users", "internal"), ways_in)
            self.assertNotIn(("notifications", "conversations", "internal"), ways_in)
            self.assertEqual(("users", "federator", "internal") in ways_in, name == "scaled")

    def test_only_the_federator_goes_out_to_partners(self):
        for name in SETS:
            for pod in backend_pods(name).values():
                outside = [it for it in self.policy_of(name, pod)["egress"] if "ipBlock" in json.dumps(it)]
                federates = values(name).get("federation", {}).get("enabled", False)
                self.assertEqual(bool(outside), federates and component(pod) in ("all", "federator"), name)

    def test_servers_that_settings_name_can_be_reached(self):
        policy = self.policy_of("full", next(iter(backend_pods("full").values())))
        open_ports = {port["port"] for rule in policy["egress"] if "to" not in rule for port in rule["ports"]}
        self.assertEqual(open_ports, {53, 465, 9000, 443, 4317})
        policy = self.policy_of("minimal", next(iter(backend_pods("minimal").values())))
        open_ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
        self.assertEqual(open_ports, {53})


def documentation():
    return (chart.ROOT / "docs/operations.md").read_text()


def documented_metrics():
    return set(re.findall(r"(?m)^\| `(aldis_[a-z_]+)`", documentation()))


def metrics_in(text):
    # What Prometheus makes of summaries.
    return {re.sub("_(count|sum)$", "", it) for it in re.findall(r"\baldis_[a-z_]+", text)}


class Monitoring(unittest.TestCase):
    def test_alerts_are_those_of_the_documentation(self):
        table = re.findall(r"(?m)^\| `((?:aldis_|increase\()[^`]+)`( for a day)? \|", documentation().split("## Token keys")[0])
        table = {(it.replace("max_age_days", "30"), "1d" if held else None) for it, held in table}
        rules = named("full", "PrometheusRule")["aldis"]["spec"]["groups"][0]["rules"]
        self.assertEqual({(it["expr"], it.get("for")) for it in rules}, table)
        for rule in rules:
            self.assertLessEqual(metrics_in(rule["expr"]), documented_metrics())
            self.assertIn(rule["labels"]["severity"], ("info", "warning", "critical"))
            self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])

    def test_the_dashboard_shows_metrics_that_are_there(self):
        text = named("full", "ConfigMap")["aldis-dashboard"]["data"]["aldis.json"]
        dashboard = json.loads(text)
        shown = set()
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                self.assertIn("$backend", target["expr"])
                shown |= metrics_in(target["expr"])
        self.assertGreater(len(shown), 20)
        self.assertLessEqual(shown, documented_metrics())
        ids = [it["id"] for it in dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    def test_the_monitor_finds_every_process(self):
        for name in ("full", "scaled"):
            spec = named(name, "ServiceMonitor")["aldis"]["spec"]
            found = set()
            for service in named(name, "Service").values():
                labels = service["metadata"]["labels"]
                matches = all(labels.get(key) == it for key, it in spec["selector"]["matchLabels"].items())
                if matches and spec["endpoints"][0]["port"] in [it["name"] for it in service["spec"]["ports"]]:
                    found |= {key for key, pod in backend_pods(name).items() if chart.selects(service["spec"]["selector"], pod)}
            self.assertEqual(found, set(backend_pods(name)))


if __name__ == "__main__":
    unittest.main()
