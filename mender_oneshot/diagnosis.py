"""The command `doctor`: run the checks, print the findings, and collect them with the logs in a bundle."""

import os

from . import bundle, configuration_checks, doctor, findings, logs, paths
from .deadline import deadline
from .findings import Finding
from .options import Options
from .output import Output


def run(options: Options, output: Output) -> int:
    """Print each finding when it is made, and a summary; return the exit code of the first problem."""
    places = paths.find_places(options.config, options.fallback_config, options.data)
    if options.bundle:
        bundle.require_new(options.bundle)
    configuration = configuration_checks.load(places)
    logs.configure(options, configuration.settings._replace(warnings=()))
    if not options.log_level:
        logs.show_errors_only()  # the findings have the warnings
    found: list[Finding] = []
    with deadline(options.max_runtime):
        for finding in doctor.examine(configuration):
            found.append(finding)
            output.write_finding(finding)
    code = next((one.error.exit_code for one in found if one.error), 0)
    facts = {
        "exit_code": code,
        "summary": findings.counts(found),
        "checks": [one.facts() for one in found],
        "bundle": None,
    }
    lines = [findings.summary(found)]
    if options.bundle:
        size = bundle.write(options.bundle, configuration, found, facts)
        facts["bundle"] = {"file": os.path.abspath(options.bundle), "bytes": size}
        lines.append(
            f"Wrote {options.bundle}, {size} bytes. Keys, tokens and passwords were removed; check it before "
            "you send it."
        )
    output.write_facts(facts, lines)
    return code
