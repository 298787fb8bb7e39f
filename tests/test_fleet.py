"""The requests of a simulated fleet: the real planning function meets the goals, a broken one is found."""

from xml.etree import ElementTree

import pytest
from helpers.fleet import DAY, HOUR, SETTINGS, Life, Scenario, watch
from helpers.fleet_plot import drawing

from mender_oneshot.settings import Settings

FEW = 1000
POWER = Scenario("power", 2 * HOUR, 12 * HOUR, "power")
AFTER = POWER.ends + 2 * HOUR


def busiest(scenario: Scenario, end: float, minutes: int = 5) -> float:
    """The requests in the busiest minutes, as a multiple of the mean of a fleet that is never disturbed."""
    settings = scenario.settings
    mean = FEW * minutes * 60 * (1 / settings.update_poll_interval + 1 / settings.inventory_poll_interval)
    seen = watch(scenario, range(FEW), end)
    return max(sum(seen.answered[at : at + minutes]) for at in range(len(seen.answered))) / mean


@pytest.mark.parametrize("clock", [True, False], ids=["with a clock", "with a clock in 1970"])
def test_a_fleet_whose_power_returns_stays_below_twice_the_mean(clock: bool) -> None:
    assert busiest(POWER._replace(clock=clock), AFTER) < 2


@pytest.mark.parametrize("spread", [0, 300])
def test_a_spread_that_is_too_short_is_found(spread: int) -> None:
    assert busiest(POWER._replace(settings=SETTINGS._replace(start_spread=spread)), AFTER) > 5


def test_devices_that_all_poll_at_the_same_time_are_found() -> None:
    together = watch(Scenario("quiet"), [7] * FEW, 4 * HOUR)
    assert together.peak() >= FEW > 2 * together.mean(Scenario("quiet"))


def test_after_a_short_cut_each_device_checks_within_an_interval() -> None:
    scenario = Scenario("cut", 2 * HOUR, 600, "power")
    for number in range(50):
        undisturbed = Life(number, Scenario("quiet")).until(6 * HOUR)
        life = Life(number, scenario).until(6 * HOUR)
        due = next(at for at in undisturbed.checks if at > scenario.begins)
        first = next(at for at in life.checks if at > scenario.begins)
        assert first <= max(due, scenario.ends + 1800) + 120


@pytest.mark.parametrize("fault", ["connection", "busy"])
def test_devices_check_within_an_interval_after_a_day_of_failures(fault: str) -> None:
    scenario = Scenario("outage", HOUR, DAY, fault)
    seen = watch(scenario, range(100), 2 * DAY)
    assert seen.starved == 0
    assert DAY < seen.gap < DAY + 3600 + 120


def test_a_device_that_does_not_check_for_a_day_is_starved() -> None:
    lazy = SETTINGS._replace(update_poll_interval=int(2 * DAY))
    assert watch(Scenario("lazy", settings=lazy), range(20), 3 * DAY).starved > 0


@pytest.mark.parametrize(
    ("settings", "rejected"), [(SETTINGS, False), (SETTINGS._replace(update_poll_interval=600), True)]
)
def test_the_limit_of_hosted_mender_rejects_only_those_that_poll_too_often(
    settings: Settings, rejected: bool
) -> None:
    seen = watch(Scenario("limit", limit=1800, settings=settings), range(50), DAY)
    assert bool(sum(seen.rejected)) == rejected
    assert seen.gap <= HOUR


def test_a_pause_that_the_server_asks_for_is_honored() -> None:
    scenario = Scenario("busy", HOUR, HOUR, "busy", retry_after=HOUR)
    for number in range(50):
        rejections = [at for at, status in Life(number, scenario).until(4 * HOUR).asked if status == 503]
        assert len(rejections) <= 2  # a check and an inventory


def test_a_plot_is_xml_with_a_text_for_those_who_cannot_see_it() -> None:
    root = ElementTree.fromstring(drawing("Power <returns>", {"a & b": [1.0] * 120}, -1.0))
    assert root.get("aria-label", "").startswith("Power <returns>: requests per minute")
