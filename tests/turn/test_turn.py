"""Credentials of /calls/config/v2 against real TURN servers (coturn): one for each of two backends."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

from aioice import turn

ALDIS = os.environ["ALDIS_BIN"]
DOMAINS = ("alpha.test", "beta.test")
PASSWORD = "a long password for tests 1!"
START = 120
WAIT = 15


def free_port():
    """A port that is free for UDP and TCP alike, and likely to stay so for a moment."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} took more than {seconds} s")
        time.sleep(0.05)
    return found


class TurnServer:
    """A coturn with one secret; every server relays from an address of its own."""

    def __init__(self, folder, name, relay_ip):
        self.port, self.secret, self.relay_ip = free_port(), f"secret of {name}", relay_ip
        log = open(folder / f"turn-{name}.log", "wb")
        self.process = subprocess.Popen(
            [
                "turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log",
                f"--pidfile={folder / f'turn-{name}.pid'}", f"--userdb={folder / f'turn-{name}.db'}",
                "--listening-ip=127.0.0.1", f"--listening-port={self.port}", f"--relay-ip={relay_ip}",
                "--min-port=49160", "--max-port=49400", f"--realm={name}", "--allow-loopback-peers",
                "--use-auth-secret", f"--static-auth-secret={self.secret}",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )
        log.close()
        until(self.listens, WAIT, "starting coturn")

    def listens(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Federation:
    """Two backends, each with the TURN server of its own."""

    def __init__(self, folder, servers):
        self.folder = folder
        local = ["--dir", str(folder / "local")]
        subprocess.run([ALDIS, "local", "init", *local, "--base-port", "0"], check=True, stdout=subprocess.DEVNULL)
        for domain in DOMAINS:
            self.configure(folder / "local" / domain / "aldis.toml", servers[domain])
        ready = folder / "ready.json"
        log = open(folder / "up.log", "wb")
        self.process = subprocess.Popen(
            [ALDIS, "local", "up", *local, "--no-people", "--ready-file", str(ready)], stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        until(ready.exists, START, "starting the federation")
        self.backends = {backend["domain"]: backend for backend in json.loads(ready.read_text())["backends"]}

    @staticmethod
    def configure(path, server):
        text = path.read_text()
        uris = f'["turn:127.0.0.1:{server.port}?transport=udp", "turn:127.0.0.1:{server.port}?transport=tcp"]'
        text, lists = re.subn(r"(?m)^turn_uris = .*$", f"turn_uris = {uris}\nturn_credentials = \"rest\"", text)
        section = text.index("[users.calls]")
        rest, secrets = re.subn(r"(?m)^secret = .*$", f'secret = "{server.secret}"', text[section:], count=1)
        assert (lists, secrets) == (1, 1), "the configuration has no TURN servers to replace"
        path.write_text(text[:section] + rest)

    def ask(self, domain, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{self.backends[domain]['api']}/v13{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return json.load(answer)

    def calls_config(self, domain, name):
        """Makes a user and asks as that user."""
        email = f"{name}@mail.test"
        user = ["--email", email, "--password", PASSWORD, "--name", name, "--handle", name]
        config = self.backends[domain]["config"]
        subprocess.run([ALDIS, "user", "create", *user, "--config", config], check=True, stdout=subprocess.DEVNULL)
        token = self.ask(domain, "POST", "/login", {"email": email, "password": PASSWORD})["access_token"]
        return self.ask(domain, "GET", "/calls/config/v2", token=token)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(WAIT)


def server_of(config, transport):
    """Address, name and password of the server with this transport."""
    for server in config["ice_servers"]:
        found = re.fullmatch(r"turn:([\d.]+):(\d+)\?transport=(udp|tcp)", server["urls"][0])
        if found[3] == transport:
            return (found[1], int(found[2])), server["username"], server["credential"]
    raise AssertionError(f"no server with {transport}: {config}")


class Peer(asyncio.DatagramProtocol):
    """Keeps what comes."""

    def __init__(self):
        self.received = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))


async def allocate(address, username, password, transport="udp"):
    return await asyncio.wait_for(
        turn.create_turn_endpoint(
            Peer, server_addr=address, username=username, password=password, transport=transport, lifetime=120
        ),
        WAIT,
    )


class TurnTest(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="aldis-turn-"))
        cls.started = []
        try:
            servers = {}
            for number, domain in enumerate(DOMAINS, 2):
                servers[domain] = TurnServer(cls.folder, domain, f"127.0.0.{number}")
                cls.started.append(servers[domain])
            cls.servers = servers
            cls.federation = Federation(cls.folder, servers)
            cls.started.append(cls.federation)
            cls.config = {
                "alpha.test": cls.federation.calls_config("alpha.test", "ann"),
                "beta.test": cls.federation.calls_config("beta.test", "bob"),
            }
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        for started in reversed(cls.started):
            started.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    async def test_issued_credentials_get_an_allocation(self):
        for transport in ("udp", "tcp"):
            endpoint, _ = await allocate(*server_of(self.config["alpha.test"], transport), transport=transport)
            self.assertEqual(endpoint.get_extra_info("sockname")[0], "127.0.0.2")
            endpoint.close()

    async def test_altered_credentials_get_none(self):
        address, username, password = server_of(self.config["alpha.test"], "udp")
        _, other_username, other_password = server_of(self.config["beta.test"], "udp")
        later = str(int(username.partition(":")[0]) + 3600) + ":" + username.partition(":")[2]
        for name, word in [(username, password[::-1]), (later, password), (other_username, other_password)]:
            with self.assertRaisesRegex(Exception, "401"):
                await allocate(address, name, word)

    async def test_expired_credentials_get_none(self):
        # Signed with the right secret, so that only the time is wrong.
        address, username, _ = server_of(self.config["alpha.test"], "udp")
        for seconds, works in [(60, True), (-60, False)]:
            name = f"{int(time.time()) + seconds}:{username.partition(':')[2]}"
            digest = hmac.new(self.servers["alpha.test"].secret.encode(), name.encode(), hashlib.sha1).digest()
            attempt = allocate(address, name, base64.b64encode(digest).decode())
            if works:
                endpoint, _ = await attempt
                endpoint.close()
            else:
                with self.assertRaisesRegex(Exception, "401"):
                    await attempt

    async def test_the_servers_of_two_backends_relay_between_their_users(self):
        ann, anns = await allocate(*server_of(self.config["alpha.test"], "udp"))
        bob, bobs = await allocate(*server_of(self.config["beta.test"], "udp"))
        ann_relayed, bob_relayed = (it.get_extra_info("sockname") for it in (ann, bob))
        self.assertEqual((ann_relayed[0], bob_relayed[0]), ("127.0.0.2", "127.0.0.3"))
        # Both open the way for the other first; what is sent before may be dropped, as with every datagram.
        for attempt in range(20):
            bob.sendto(b"from bob %d" % attempt, ann_relayed)
            ann.sendto(b"from ann %d" % attempt, bob_relayed)
            with contextlib.suppress(asyncio.TimeoutError):
                at_ann = await asyncio.wait_for(anns.received.get(), 1)
                at_bob = await asyncio.wait_for(bobs.received.get(), 1)
                break
        self.assertTrue(at_ann[0].startswith(b"from bob") and at_bob[0].startswith(b"from ann"))
        self.assertEqual((at_ann[1], at_bob[1]), (bob_relayed, ann_relayed))
        ann.close()
        bob.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
