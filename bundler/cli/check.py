"""``bundler check``: the installed environment, tried from inside."""

from __future__ import annotations

import os
from typing import Any

import click

from bundler.cli.command import command
from bundler.cli.output import answer, say
from bundler.cli.serving import selection_options
from bundler.environment_check import CHECK_SECONDS
from bundler.errors import DoctorError
from bundler.serve.check import run_check, table
from bundler.serve.launch import Wishes, prepare
from bundler.work.serving import Choice, open_choice

IMPORTS = ("torch", "sglang", "sgl_kernel")


@command("check")
@selection_options
@click.option("--timeout", type=float, default=CHECK_SECONDS, show_default=True, help="Seconds it may take.")
def check_command(timeout: float, allow_launch: tuple[str, ...], **options: Any) -> None:
    """Import torch and sglang, compile a kernel and reduce over the GPUs, as the server would."""
    opened = open_choice(Choice(**options, model_optional=True, wishes=Wishes(allow_launch=allow_launch)))
    software = opened.launch.target.software
    named: tuple[str, ...] = ()
    if opened.installation and software.environment:
        named = opened.installation.environments[software.environment].imports
    prepare(opened.launch, opened.host)
    say(f"checking {software.python}")
    imports = tuple(dict.fromkeys([*IMPORTS, *named]))
    results = run_check(software.python, opened.launch.environment(os.environ), imports, timeout=timeout)
    answer({"python": software.python, "checks": results}, *table(results))
    failed = [one.name for one in results if not one.passed]
    if failed:
        raise DoctorError(f"the environment failed: {', '.join(failed)}", where=software.python)
