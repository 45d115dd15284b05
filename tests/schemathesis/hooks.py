"""What the generated requests need to get anywhere: a token, and ids of things that exist."""

import atexit
import json
import os
import random
import sys
import threading
from pathlib import Path

import schemathesis

sys.path.insert(0, os.path.dirname(__file__))
import people  # noqa: E402

WORLD = json.loads(Path(os.environ["ALDIS_WORLD"]).read_text())
# Where a call may end the session that it is made in: each gets an account of its own.
DESTRUCTIVE = os.environ.get("ALDIS_DESTRUCTIVE") == "1"
CHANCE = random.Random(int(os.environ.get("ALDIS_SEED", "1")))

known = threading.local()
# How often each route was answered how, for run.py.
ANSWERS = {}


@atexit.register
def write_answers():
    Path(os.environ["ALDIS_ANSWERS"]).write_text(json.dumps(ANSWERS))



def caller():
    """The user in whose name this thread asks."""
    if not DESTRUCTIVE:
        return WORLD["users"][0]
    if getattr(known, "user", None) is None:
        known.user = people.new_user(WORLD["backends"][0])
    return known.user


def existing(name, path):
    """Something that exists, for a parameter."""
    me, others = caller(), WORLD["users"][1:]
    other = CHANCE.choice(others)
    conversation = CHANCE.choice(WORLD["conversations"])
    if name in ("client",):
        return me["client"] if path.startswith("/clients") else other["client"]
    if name in ("domain", "user_domain"):
        return CHANCE.choice([me["domain"], other["domain"]])
    if name == "handle":
        return other["handle"]
    if name == "user" or path.startswith(("/users", "/connections", "/one2one")):
        return other["id"]
    if name == "id" and path.startswith("/conversations"):
        return conversation["id"]
    return None


@schemathesis.serializer("application/x-protobuf", "multipart/mixed")
def as_it_is(context, value):
    """Bodies that are no JSON are any bytes."""
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if not path_parameters or CHANCE.random() < 0.3:
        return path_parameters
    path = context.operation.path
    changed = dict(path_parameters)
    for name in changed:
        value = existing(name, path)
        if value is not None:
            changed[name] = value
    # An id and its domain belong together.
    if "domain" in changed and "id" in changed:
        things = WORLD["conversations"] if path.startswith("/conversations") else WORLD["users"][1:]
        thing = CHANCE.choice(things)
        changed["domain"], changed["id"] = thing["domain"], thing["id"]
    return changed


@schemathesis.hook
def before_call(context, case, kwargs):
    security = case.operation.definition.raw.get("security") or []
    names = {name for entry in security for name in entry}
    headers = dict(case.headers or {})
    if "token" in names:
        headers["Authorization"] = f"Bearer {caller()['token']}"
    if "cookie" in names:
        headers["Cookie"] = caller()["cookie"]
    case.headers = headers


@schemathesis.hook
def after_call(context, case, response):
    route = ANSWERS.setdefault(case.operation.label, {})
    route[response.status_code] = route.get(response.status_code, 0) + 1
    if DESTRUCTIVE and (response.status_code < 300 or response.status_code == 401):
        known.user = None


@schemathesis.check
def no_failure(context, response, case):
    """Beyond what says that another backend, or a feature, is not there, the backend never fails."""
    status = response.status_code
    assert status not in (500, 502, 503, 504), f"the backend failed: {status} {response.text[:500]}"
    if status >= 500:
        described = {str(key) for key in case.operation.definition.raw["responses"]}
        assert str(status) in described, f"{status} is not described: {response.text[:500]}"
