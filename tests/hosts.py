"""Hosts on one machine, in namespaces: each has an address, a name, PIDs and a disk of its own.

A host sees the machine's files read-only, and has its own `/tmp`, `/dev/shm` and home in memory. So
nothing that two of them do together can rest on loopback, on a shared folder or on shared PIDs. The
switch has a namespace too: no name or address is used on the machine itself, and two networks never
meet. All of it ends with the process that made it, however that ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
SUBNET = "10.77.0"

# The first process of a namespace of PIDs: when it ends, the kernel kills the others. It waits for
# the end of its input, which is the end of the test, and leaves no zombies of those it inherits.
_INIT = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("up", flush=True)
sys.stdin.read()
"""
# What leaves the network is refused at once: without it, a library that asks the internet waits.
_SWITCH = f"""
set -e
ip link set lo up
ip link add switch type bridge
ip addr add {SUBNET}.254/24 dev switch
ip link set switch up
ip route add unreachable default
echo 1 > /proc/sys/net/ipv4/ip_forward
"""
_HOST = """
set -e
name=$1 address=$2 names=$3
shift 3
hostname $name
mount -t tmpfs tmpfs /dev/shm
number=0
for folder; do
  number=$((number + 1))
  mkdir /dev/shm/$number
  mount --rbind "$folder" /dev/shm/$number
done
mount -t tmpfs tmpfs /tmp
number=0
for folder; do
  number=$((number + 1))
  mkdir -p "$folder"
  mount --move /dev/shm/$number "$folder"
  rmdir /dev/shm/$number
  mount -o remount,bind,ro "$folder"
done
mount -o remount,bind,ro /
mkdir /tmp/home
echo "$names" > /tmp/home/hosts
: > /tmp/home/resolv.conf
mount --bind /tmp/home/hosts /etc/hosts
mount --bind /tmp/home/resolv.conf /etc/resolv.conf
ip link set lo up
ip addr add $address/24 dev eth0
ip link set eth0 up
ip route add default via ${address%.*}.254
"""


def _visible() -> list[str]:
    """The folders of the checkout and of Python that the `/tmp` of a host would hide."""
    folders = {ROOT, *(Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix))}
    hidden = {folder for folder in folders if folder.is_relative_to("/tmp")}
    return sorted(str(folder) for folder in hidden if not hidden & set(folder.parents))


@functools.cache
def refusal() -> str | None:
    """Why this machine allows no namespaces, or None where it does."""
    if missing := [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"hosts in namespaces need {', '.join(missing)} (iproute2 and util-linux)"
    try:
        with network(1) as hosts:
            hosts[0].run(["true"])
    except (OSError, RuntimeError) as error:
        return f"no permission for hosts in namespaces: {error}"
    return None


class Namespaces:
    """Namespaces of their own, and the process that keeps them.

    Arguments:
      user: whose user namespace they share, so that a cable may connect them. Without it, and
        without root, they get a new one.

    Attributes:
      pid: of that process, as the machine counts.
    """

    def __init__(self, user: Namespaces | None = None) -> None:
        self.pid = 0
        self._user = [] if os.geteuid() == 0 else ["--user"]
        inside: list[str] = []
        if self._user and user is not None:
            inside = [*_nsenter(user.pid), "--user"]
        elif self._user:
            inside = ["unshare", "--user", "--map-root-user"]
        kinds = ["--net", "--uts", "--ipc", "--pid", "--mount", "--mount-proc"]
        unshare = ["unshare", *kinds, "--fork", "--kill-child"]
        self._process = subprocess.Popen(
            [*inside, *unshare, sys.executable, "-IS", "-c", _INIT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        if self._process.stdout.readline() != "up\n":
            error = self._process.stderr.read().strip()
            self.close()
            raise RuntimeError(error)
        own = self._process.pid
        self.pid = int(Path(f"/proc/{own}/task/{own}/children").read_text())

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in the namespaces."""
        kinds = ["--net", "--uts", "--ipc", "--pid", "--mount"]
        return [*_nsenter(self.pid), *self._user, *kinds, *command]

    def script(self, text: str, *arguments: str) -> None:
        """Runs a shell script in the namespaces, with the PIDs of the machine.

        Raises:
          RuntimeError: it fails; with its last line.
        """
        command = self.enter(["sh", "-c", text, "sh", *arguments])
        command.remove("--pid")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])

    def close(self) -> None:
        """Kills all processes and removes the namespaces; does nothing the second time."""
        if self._process.poll() is None and self.pid:  # its number is not another's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


class Host:
    """One host of a network.

    Attributes:
      name: its hostname, which all hosts know.
      address: its address in the network.
      environment: variables of all its commands; those of the test are not inherited.
      alive: whether it has power.
    """

    def __init__(self, switch: Namespaces, number: int, count: int):
        self.name, self.address = f"h{number}", f"{SUBNET}.{number + 1}"
        self.environment = {
            "HOME": "/tmp/home",
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._switch, self._port = switch, f"port{number}"
        self._streams: list[IO[str]] = []
        self._processes: list[subprocess.Popen[str]] = []
        self._namespaces = Namespaces(switch)
        self.alive = True
        names = "127.0.0.1 localhost\n" + "\n".join(f"{SUBNET}.{k + 1} h{k}" for k in range(count))
        try:
            pid = str(self._namespaces.pid)
            # A switch has one port of a name: that of a host that lost power may be there still.
            switch.script(
                "ip link del $1 2> /dev/null; set -e; "
                "ip link add $1 type veth peer name eth0 address 02:00:00:00:00:0$3 netns $2; "
                "ip link set $1 master switch up",
                self._port,
                pid,
                str(number),
            )
            self._namespaces.script(_HOST, self.name, self.address, names, *_visible())
        except BaseException:
            self.close()
            raise

    def path(self, path: str | Path) -> Path:
        """Where the test finds a file of this host."""
        return Path(f"/proc/{self._namespaces.pid}/root{path}")

    def start(
        self,
        command: Sequence[str | Path],
        *,
        log: str = "/tmp/home/log",
        env: Mapping[str, str] | None = None,
        cwd: str = "/tmp/home",
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Starts a command in a session of its own, of which `end` kills all.

        Arguments:
          log: file of the host to which its output is appended.
          env: variables beside the host's.
        """
        stream = self.path(log).open("a")
        self._streams.append(stream)
        options = {"stdout": stream, "stderr": stream, "stdin": subprocess.DEVNULL} | options
        process = subprocess.Popen(
            self._namespaces.enter(["env", "-C", cwd, *map(str, command)]),
            env={**self.environment, **(env or {})},
            text=True,
            start_new_session=True,
            **options,
        )
        self._processes.append(process)
        return process

    def run(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; its standard error is in its output.

        Raises:
          RuntimeError: it fails and `check` is set; with its output.
          subprocess.TimeoutExpired: it takes longer; it has been killed.
        """
        process = self.start(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException:
            end(process)
            process.communicate()
            raise
        if check and process.returncode:
            line = " ".join(map(str, command))
            raise RuntimeError(f"{self.name}: {line}: exit code {process.returncode}\n{output}")
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def cut(self) -> None:
        """Takes the host off the network: what it sends and what is sent to it is lost."""
        self._switch.script("ip link set $1 nomaster", self._port)

    def restore(self) -> None:
        """Ends `cut`."""
        self._switch.script("ip link set $1 master switch", self._port)

    def kill(self) -> None:
        """Takes its power: all processes end, and no connection is closed on the other side."""
        self.cut()
        self.close()

    def close(self) -> None:
        self.alive = False
        self._namespaces.close()
        for process in self._processes:
            process.wait()
        for stream in self._streams:
            stream.close()


class Network(list[Host]):
    """Hosts that reach one another, h0 at 10.77.0.1 and so on."""

    def __init__(self, count: int):
        self._count = count
        self._switch = Namespaces()
        try:
            self._switch.script(_SWITCH)
            for _ in range(count):
                self.append(Host(self._switch, len(self), count))
        except BaseException:
            self.close()
            raise

    def replace(self, host: Host) -> Host:
        """Starts an empty host with the name and the address of one that was killed."""
        place = self.index(host)
        self[place] = Host(self._switch, place, self._count)
        return self[place]

    def close(self) -> None:
        for host in self:
            host.close()
        self._switch.close()


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """A network of `count` hosts, gone with the block.

    Raises:
      RuntimeError: this machine does not allow it; see `refusal`.
    """
    hosts = Network(count)
    try:
        yield hosts
    finally:
        hosts.close()


def _nsenter(pid: int) -> list[str]:
    return ["nsenter", "--target", str(pid), "--preserve-credentials"]


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    """Sends a signal to a command that `Host.start` started, and to its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
