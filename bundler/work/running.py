"""The servers of an installation when another generation comes to count: named, or restarted by systemd."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from bundler import generations
from bundler.common.ask import Said, ask
from bundler.errors import PreflightError, ServeError
from bundler.generations import FIRST, root_of
from bundler.serve.server_record import run_folder, servers

if TYPE_CHECKING:
    from bundler.common.progress import Reporter
    from bundler.serve.server_record import ServerState

UNITS = Path("/etc/systemd/system")


def units_of(home: Path, units: Path = UNITS) -> list[Path]:
    """Return systemd's units that start a server of an installation."""
    return [path for path in sorted(units.glob("bundler-*.service")) if _starts_from(path, home)]


def _starts_from(unit: Path, home: Path) -> bool:
    try:
        text = unit.read_text(errors="replace")
    except OSError:
        return False
    program = f"{home}/bin/bundler".replace("%", "%%")
    return any(f"ExecStart={mark}{program}{end}" in text for mark, end in (("", " "), ('"', '"')))


def require_systemd() -> None:
    """Refuse to promise a restart, before anything is written.

    :raises PreflightError: there is no systemd here.
    """
    if shutil.which("systemctl") is None:
        raise PreflightError(
            "no server can be restarted: there is no systemctl here",
            hint="leave --restart out; then bundler stop, and bundler serve",
        )


def restart(home: Path, number: int, reporter: Reporter, units: Path = UNITS) -> None:
    """Restart those units whose server runs from another generation, and wait until each is ready.

    :raises ServeError: one didn't come up.
    """
    running = {one.supervisor: one for one in servers(run_folder(home)) if one.running}
    for unit in units_of(home, units):
        shown = _systemctl("show", "--property=MainPID", "--value", unit.name)
        pid = int(shown.out) if shown.out.strip().isdigit() else 0
        if not pid or (pid in running and runs_from(running[pid], home, number)):
            continue
        reporter.say(f"restarting {unit.name}: it serves from generation {number} when that is ready")
        done = _systemctl("restart", unit.name)
        if done.code:
            raise ServeError(
                f"{unit.name} didn't start again: {done.err.strip() or 'systemctl says nothing'}",
                where=home,
                hint=f"bundler logs says why; generation {number} counts: bundler rollback --restart brings "
                "the older one back",
            )


def _systemctl(*words: str) -> Said:
    return ask(["systemctl", *words])


def say_servers(home: Path, number: int, reporter: Reporter) -> None:
    """Say which servers run on from another generation than the one that counts now."""
    for one in servers(run_folder(home)):
        if one.running and not runs_from(one, home, number):
            reporter.say(
                f"the server of {one.model} on port {one.port} (pid {one.pid}) runs on as it was started; "
                f"to change it: bundler stop --port {one.port}, then bundler serve"
            )


def runs_from(state: ServerState, home: Path, number: int) -> bool:
    """Say whether a server uses a generation's files."""
    below = f"{home / generations.GENERATIONS}/"
    own = [word for word in state.argv if word.startswith(f"{home}/") and not word.startswith(below)]
    if number == FIRST:
        return bool(own)
    return any(word.startswith(f"{root_of(home, number)}/") for word in state.argv)
