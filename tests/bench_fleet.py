"""`make bench-fleet`: the requests of a fleet, by the real planning function in simulated time.

All devices live until twelve hours after the end of a fault, and every twentieth of them through the week.

DEVICES=1000 takes less time, with more noise. OF=1000000 draws the devices from a larger fleet and multiplies
the rates; a sample is noisier than the fleet, so its peak is not below the fleet's. `--draw` draws the two
plots of the documentation.
"""

import os
import random
import sys
from pathlib import Path

from helpers import fleet_plot
from helpers.fleet import HOUR, SCENARIOS, SETTINGS, Scenario, Seen, watch_in_parallel

DEVICES = int(os.environ.get("DEVICES") or "10000")
FLEET = max(DEVICES, int(os.environ.get("OF") or DEVICES))
GOAL = 2.0
AFTERWARDS = 12 * HOUR
PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def main() -> None:
    """Print a line for each scenario."""
    numbers = random.Random(1).sample(range(FLEET), DEVICES)  # noqa: S311 - the same devices in each run
    print(f"{FLEET} devices, {DEVICES} of them simulated; requests per second, counted by the minute")
    print("| scenario | mean | peak | peak / mean | rejected, peak / mean | longest gap | starved |")
    print("|---|---|---|---|---|---|---|")
    seen = {}
    for scenario in SCENARIOS:
        near = watch_in_parallel(scenario, numbers, scenario.ends + AFTERWARDS)
        week = watch_in_parallel(scenario, numbers[::20])
        seen[scenario.name] = near._replace(gap=max(near.gap, week.gap), starved=near.starved + week.starved)
        print(line(scenario, seen[scenario.name], FLEET / DEVICES), flush=True)
    if "--draw" in sys.argv:
        draw(numbers, seen)


def line(scenario: Scenario, seen: Seen, scale: float) -> str:
    """Return one row of the table; a ratio above the goal is bold."""
    mean, peak = seen.mean(scenario), seen.peak()
    ratio = f"{peak / mean:.2f}"
    return (
        f"| {scenario.name} | {mean * scale / 60:.1f} | {peak * scale / 60:.1f} | "
        f"{f'**{ratio}**' if peak > GOAL * mean else ratio} | {max(seen.rejected) / mean:.1f} | "
        f"{seen.gap / HOUR:.1f} h | {seen.starved} |"
    )


def draw(numbers: list[int], seen: dict[str, Seen]) -> None:
    """Draw the return of the power, and a server that answers 503 for an hour."""
    power = next(one for one in SCENARIOS if one.name == "power back after 12 hours")
    short = power._replace(settings=SETTINGS._replace(start_spread=300))
    until = power.ends + 5 * HOUR
    before = watch_in_parallel(short, numbers, until)
    mean = seen["a quiet week"].mean(Scenario("a quiet week"))
    plots: tuple[tuple[str, str, Scenario, dict[str, list[int]]], ...] = (
        (
            "fleet-power.svg",
            "Power returns to all devices at once",
            power,
            {"all within 300 s": before.answered, "StartSpreadSeconds 3600": seen[power.name].answered},
        ),
        (
            "fleet-outage.svg",
            "The server answers 503 for an hour",
            next(one for one in SCENARIOS if one.name == "503 for an hour"),
            {},
        ),
    )
    for name, title, scenario, lines in plots:
        of = seen[scenario.name]
        shown = lines or {"503": of.rejected, "answered": of.answered}
        begin = int((scenario.ends - 2 * HOUR) / 60)
        cut = {
            label: [value / mean for value in counts[begin : begin + 360]] for label, counts in shown.items()
        }
        (PICTURES / name).write_text(fleet_plot.drawing(title, cut, -2.0))


if __name__ == "__main__":
    main()
