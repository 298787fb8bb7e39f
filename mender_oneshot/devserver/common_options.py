"""The options that several commands share."""

from pathlib import Path

import click

VARIABLE = "MENDER_DEVSERVER_DIRECTORY"

directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, resolve_path=True),
    default="devserver",
    show_default=True,
    envvar=VARIABLE,
    show_envvar=True,
    help="Directory of the server.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
