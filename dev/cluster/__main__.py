"""Command line of the embedded cluster: `python -m dev.cluster --help`."""

import argparse
import shlex
import signal
import subprocess
import sys
from types import FrameType

from dev.cluster import lifecycle, memory, nodes
from dev.cluster.config import CONTROL_PLANE, Cluster, ClusterError
from dev.cluster.processes import Processes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.cluster", description="The embedded Kubernetes cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    cluster = Cluster.from_env()

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    add("up", "start the cluster, or repair it; returns when it is ready")
    add("down", "stop it and remove its data").add_argument(
        "--keep", action="store_true", help="keep the data: the next `up` goes on with it"
    )
    add("status", "what runs, with process ids; exit status 1 when something does not")
    add("env", 'shell exports: eval "$(make -s env)"')
    add("memory", "resident memory by part")
    for name, text in (("kill-node", "cut a node's power"), ("start-node", "switch a node on and wait for it")):
        add(name, text).add_argument("node", choices=cluster.nodes)
    stop = add("stop-cp", "stop one process of the control plane, or MinIO")
    stop.add_argument("name", choices=[*CONTROL_PLANE, "minio"])
    stop.add_argument("-9", dest="hard", action="store_true", help="kill it")
    add("start-cp", "start it again").add_argument("name", choices=[*CONTROL_PLANE, "minio"])
    service = add("service", "start, stop, kill or restart a service inside a node; after kill it comes back by itself")
    service.add_argument("node", choices=cluster.nodes)
    service.add_argument("action", choices=["start", "stop", "kill", "restart"])
    service.add_argument("service", choices=nodes.SERVICES)
    run = add("exec", "run a command inside a node")
    run.add_argument("node", choices=cluster.nodes)
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def _status(cluster: Cluster) -> int:
    found = {name: Processes(cluster).alive(name) for name in lifecycle.process_names(cluster)}
    for name, pid in found.items():
        print(f"{name:12} {pid or '-'}")
    return 0 if all(found.values()) else 1


def _run(cluster: Cluster, args: argparse.Namespace) -> int:
    match args.command:
        case "up":
            lifecycle.up(cluster)
        case "down":
            lifecycle.down(cluster, keep=args.keep)
        case "status":
            return _status(cluster)
        case "env":
            for name, value in lifecycle.environment(cluster).items():
                print(f"export {name}={shlex.quote(value)}")
        case "memory":
            memory.report(cluster)
        case "kill-node":
            lifecycle.kill_node(cluster, args.node)
        case "start-node":
            lifecycle.start_node(cluster, args.node)
        case "stop-cp":
            lifecycle.stop_control_plane(cluster, args.name, hard=args.hard)
        case "start-cp":
            lifecycle.start_control_plane(cluster, args.name)
        case "service":
            nodes.service(cluster, args.node, args.action, args.service)
        case "exec":
            return subprocess.run([*nodes.enter(cluster, args.node), *args.argv], check=False).returncode
    return 0


def _interrupted(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run one command; errors are one sentence on stderr and exit status 1."""
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        args = _parser().parse_args()
        return _run(Cluster.from_env(), args)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the next `up` or `down` takes it from here", file=sys.stderr)
        return 130


sys.exit(main())
