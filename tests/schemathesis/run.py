"""Starts a local federation, and lets schemathesis ask one of its backends whatever its description allows, and what it
does not allow. Bounded by SECONDS. Ends with the number of routes that were asked, in the form of cargo's tests."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import people  # noqa: E402

CHECKS = [
    "no_failure",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
# What may end the session that it is asked in, with everything that belongs to it: last, each with an account of its own.
DESTRUCTIVE = (
    "^(/access/logout|/access/self/email|/self/password|/self/handle|/self/email|/cookies/remove|/delete"
    "|/password-reset/complete|/login|/register|/clients/[{]client[}])$"
)
# The sockets are no requests; /self is asked in both parts, to be read and changed, and to be deleted.
SOCKETS = ["/await", "/events"]
START_SECONDS = 120


def start(binary, folder):
    """A running federation: the process and its ready file."""
    local, ready = folder / "local", folder / "ready.json"
    init = [binary, "local", "init", "--base-port", "0", "--throttle", "off", "--dir", str(local)]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    log = open(folder / "up.log", "w")
    up = [binary, "local", "up", "--dir", str(local), "--no-people", "--ready-file", str(ready)]
    process = subprocess.Popen(up, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SystemExit("the federation did not start:\n" + (folder / "up.log").read_text()[-4000:])
        time.sleep(0.1)
    return process, json.loads(ready.read_text())


def world(ready):
    """Users of both backends, connected, and conversations between them."""
    alpha, beta = ready["backends"][:2]
    users = [people.new_user(alpha), people.new_user(alpha), people.new_user(beta)]
    people.connect(alpha, users[0], users[1], alpha)
    people.connect(alpha, users[0], users[2], beta)
    conversations = []
    for with_users in (users[1:2], users[1:]):
        members = [{"domain": user["domain"], "id": user["id"]} for user in with_users]
        body = {"name": "Group", "qualified_users": members}
        group, _ = people.wanted(alpha["api"] + "/v13", "POST", "/conversations", body, users[0]["token"])
        conversations.append(group["qualified_id"])
    return {"backends": [alpha, beta], "users": users, "conversations": conversations}


def tell(answers):
    """How the routes answered: requests that never get anywhere find nothing."""
    routes = json.loads(answers.read_text()) if answers.exists() else {}
    statuses = {}
    for counts in routes.values():
        for status, count in counts.items():
            statuses[status] = statuses.get(status, 0) + count
    text = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
    succeeded = [route for route, counts in routes.items() if any(status < "300" for status in counts)]
    print(f"{len(routes)} routes answered: {text}; {len(succeeded)} of them with success")
    print("never with success:", ", ".join(sorted(set(routes) - set(succeeded))))


def ask(tool, url, seconds, arguments, environment, report, deadline):
    """One run; the number of routes that passed and failed."""
    command = [
        tool, "run", f"{url}/v13/api/openapi.json", "--url", f"{url}/v13", "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing", "--max-time", str(seconds), "--workers", "1",
        "--continue-on-failure", "--warnings", "off", "--request-timeout", "30", "--suppress-health-check", "all",
        "--report-junit-path", str(report), *arguments,
    ]
    for path in SOCKETS:
        command += ["--exclude-path", path]
    answers = report.with_suffix(".answers")
    environment = {**environment, "ALDIS_ANSWERS": str(answers)}
    status = subprocess.run(command, env=environment, cwd=HERE, timeout=deadline).returncode
    tell(answers)
    if not report.exists():
        raise SystemExit(f"schemathesis ended with {status} and without a report")
    passed = failed = 0
    for case in xml.parse(report).iter("testcase"):
        if any(case.iter("failure")) or any(case.iter("error")):
            failed += 1
        elif not any(case.iter("skipped")):
            passed += 1
    return passed, max(failed, 1 if status else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, help="the program aldis")
    parser.add_argument("--seconds", type=int, default=180, help="how long to ask (180)")
    parser.add_argument("--seed", type=int, default=1, help="of what is made up (1)")
    parser.add_argument("--route", help="this path only")
    options = parser.parse_args()
    tool = Path(sys.executable).with_name("schemathesis")
    with tempfile.TemporaryDirectory(prefix="aldis-schemathesis-") as name:
        folder = Path(name)
        process, ready = start(os.path.abspath(options.binary), folder)
        try:
            (folder / "world.json").write_text(json.dumps(world(ready)))
            url = ready["backends"][0]["api"]
            environment = {
                **os.environ,
                "SCHEMATHESIS_HOOKS": "hooks",
                "PYTHONPATH": str(HERE),
                "ALDIS_WORLD": str(folder / "world.json"),
                "ALDIS_SEED": str(options.seed),
            }
            common = ["--seed", str(options.seed)]
            if options.route:
                common += ["--include-path", options.route]
            last = max(options.seconds // 4, 10)
            gentle = common + ["--exclude-path-regex", DESTRUCTIVE, "--exclude-operation-id", "delete-self"]
            passed, failed = ask(
                tool, url, options.seconds - last, gentle, environment, folder / "gentle.xml", options.seconds * 3 + 120
            )
            environment["ALDIS_DESTRUCTIVE"] = "1"
            harsh = common + ["--include-path-regex", DESTRUCTIVE.replace(")$", "|/self)$")]
            more = ask(tool, url, last, harsh, environment, folder / "harsh.xml", options.seconds * 3 + 120)
            passed, failed = passed + more[0], failed + more[1]
            if process.poll() is not None:
                failed += 1
                print("the federation has ended")
        finally:
            process.terminate()
            process.wait(timeout=60)
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
