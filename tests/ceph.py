"""A real S3 server on loopback: monitor, object store and gateway of Ceph, from Debian's ceph-mon, ceph-osd and radosgw."""

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool", "ceph")
HOST = "127.0.0.1"
START_LIMIT_S = 300  # it takes about 20 s
WRITER = ("writer", "writersecret123")  # the server runs for one test session, on loopback

CONFIG = """
[global]
fsid = {fsid}
mon_host = [v2:{host}:{v2_port},v1:{host}:{v1_port}]
public_network = 127.0.0.0/24
cluster_network = 127.0.0.0/24
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
osd_crush_chooseleaf_type = 0
mon_max_pg_per_osd = 1000
run_dir = {root}/run
admin_socket = {root}/run/$name.asok
log_file = {root}/log/$name.log
pid_file = {root}/run/$name.pid
keyring = {root}/keyring
mon_data = {root}/mon
osd_data = {root}/osd
mon_cluster_log_file = {root}/log/cluster.log
[osd]
osd_objectstore = bluestore
bluestore_block_size = 4294967296
bluestore_block_wal_size = 0
bluestore_block_db_size = 0
osd_memory_target = 939524096
[client.rgw]
rgw_frontends = beast endpoint={host}:{port} tcp_nodelay=1
rgw_data = {root}/rgw
rgw_dns_name =
"""


@dataclass(frozen=True)
class S3Server:
    """The server's endpoint, the environment with which clients use it, and the function that adds a user (`Ceph.add_user`)."""

    endpoint: str
    environment: dict[str, str]
    add_user: Callable[[str, str], dict[str, str]]


class Ceph:
    """Starts and stops the server in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._env = os.environ | {"CEPH_CONF": str(root / "ceph.conf")}

    @staticmethod
    def is_installed() -> bool:
        """Return whether this computer has all programs that the server needs."""
        return all(shutil.which(program) for program in PROGRAMS)

    def start(self) -> S3Server:
        """Start the server, which takes about 20 s. Raises `subprocess.CalledProcessError` or `TimeoutError`."""
        for name in ("mon", "osd", "run", "log", "rgw"):
            (self.root / name).mkdir(parents=True)
        v2_port, v1_port, port = _free_ports(3)
        fsid = str(uuid.uuid4())
        config = CONFIG.format(fsid=fsid, host=HOST, v2_port=v2_port, v1_port=v1_port, port=port, root=self.root)
        (self.root / "ceph.conf").write_text(config)
        keyring, monmap = str(self.root / "keyring"), str(self.root / "monmap")
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        for name, caps in {
            "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
            "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
            "client.rgw": ("mon", "allow rw", "osd", "allow rwx"),
        }.items():
            pairs = [word for i in range(0, len(caps), 2) for word in ("--cap", caps[i], caps[i + 1])]
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *pairs)
        address = f"[v2:{HOST}:{v2_port},v1:{HOST}:{v1_port}]"
        self._run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._run("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        self._run("ceph", "--connect-timeout", "30", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0")
        self._run("radosgw", "-n", "client.rgw")
        _wait_for(port)
        self.add_user(*WRITER)
        endpoint = f"http://{HOST}:{port}"
        return S3Server(endpoint, {"AWS_ENDPOINT_URL": endpoint, **_credentials(*WRITER)}, self.add_user)

    def add_user(self, name: str, secret: str) -> dict[str, str]:
        """Add a user without access to the objects of others; return the environment with which clients are that user."""
        user = (f"--uid={name}", f"--display-name={name}", f"--access-key={name}", f"--secret-key={secret}")
        self._run("radosgw-admin", "-n", "client.rgw", "user", "create", *user)
        return _credentials(name, secret)

    def stop(self) -> None:
        """Kill the server's processes."""
        for path in (self.root / "run").glob("*.pid"):
            try:
                os.kill(int(path.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                continue

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self._env, check=True, capture_output=True, timeout=START_LIMIT_S)


def _credentials(key: str, secret: str) -> dict[str, str]:
    region = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
    return region | {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"radosgw did not answer on port {port} within {START_LIMIT_S} s")
