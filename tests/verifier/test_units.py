"""Units: one name for all the ways to write one, and what two quantities have to do with one another."""

import pytest

from reasoning_ext.verifier import judge_all
from reasoning_ext.verifier.units import is_unit_name, parts_of, unit_key

KEYS = {
    r"\text{ Miles}": "mile", "metres": "meter", r"\text{ cm}^2": "centimeter^2", "square feet": "foot^2",
    "cubic meters": "meter^3", "sq. in": "inch^2", "km/h": "kilometer/hour", "meters per second": "meter/second",
    r"\text{m s}^{-2}": "meter/second^2", r"\text{m/s}^2": "meter/second^2", r"\text{N} \cdot \text{m}": "newton meter",
    "mW": "milliwatt", "MW": "megawatt", "Mb": "megabit", "MB": "megabyte", "PA": "pascal", r"\Omega": "ohm",
    r"\text{k}\Omega": "kiloohm", r"\mu\text{m}": "micrometer", "kHz": "kilohertz", "GHz": "gigahertz", "ms": "millisecond",
    "min": "minute", "hrs": "hour", "lbs": "pound", "bucks": "dollar", r"^\circ": "degree", r"^\circ\text{C}": "celsius",
    "degrees Fahrenheit": "fahrenheit", "apples": "apple", "glass": "glass", "bus": "bus",
}  # fmt: skip


@pytest.mark.parametrize(("unit", "key"), KEYS.items())
def test_a_unit_has_one_name(unit, key):
    assert unit_key(unit) == key


def test_units_of_measurement_are_told_from_what_is_counted():
    known = "km mile Miles sec hours kg dollars cents newton degrees kmh mL litres".split()
    assert all(map(is_unit_name, known)) and not any(map(is_unit_name, ["apples", "boys", "x", "term", "and"]))


def test_a_prefix_is_a_power_of_ten():
    names = ("kilometer", "milligram", "microsecond", "megawatt", "mile", "centigrade", "decade", "minute")
    assert [parts_of(name) for name in names] == [
        ("meter", 3), ("gram", -3), ("second", -6), ("watt", 6), ("mile", 0), ("centigrade", 0), ("decade", 0),
        ("minute", 0),
    ]  # fmt: skip


SAME = """
    5 km = 5000 m; 5000 m = 5 km; 1 mile = 5280 feet; 3 ft = 36 inches; 90 min = 1.5 hours; 2 days = 48 hours
    2 weeks = 14 days
    72 km/h = 20 m/s; 60 mph = 88 ft/s; 1 m^2 = 10000 cm^2; 2 m^3 = 2000 liters; 1 L = 1000 mL; 3 kg = 3000 g
    1 ton = 1000 kg
    2 kN = 2000 N; 5 mW = 0.005 W; 5 MW = 5000000 W; 2 kJ = 2000 J; 50 Hz = 0.05 kHz; 2\\text{ k}\\Omega = 2000 ohms
    3\\ \\mu\\text{m} = 0.000003 m
    20 N m = 20 J; 1 J/s = 1 W; 9.8 m/s^2 = 9.8 N/kg; 3 eV = 3 eV; 16 ounces = 1 pound; 1 byte = 8 bits
    $5 = 500 cents; 250 cents = $2.50; $5 = 5 dollars; $5 = 5; 5 euros = 5; 12 = 12 units; 12 square units = 12
    7 apples = 7 fruits
    3 hours 20 minutes = 200 minutes; 5 feet 6 inches = 66 inches; 5 ft 6 in = 5.5 feet; 2 hours and 30 minutes = 2.5 hours
    1 kg 500 g = 1500 g; 3 dollars 50 cents = $3.50; 20^\\circ C = 20 degrees; 20^\\circ C = 20 celsius
    180^\\circ = \\pi\\text{ radians}
    \\frac{1}{2} km = 500 m; \\pi\\text{ m}^2 = 10000\\pi\\text{ cm}^2; 5 km = 5; 5 = 5 km; 5 million dollars = 5000000
    2 dozen = 24
"""
OTHER = """
    5 km = 500 m; 5 km = 5 m; 1 mile = 1 km; 3 m^2 = 3 m; 3 m = 3 s; 5 mW = 5 MW; 5 Mb = 5 MB; 5 g = 5 kg; 72 km/h = 72 m/s
    1 hour = 60 hours; 60 minutes = 1; 1 = 60 minutes; 5 N = 5 J; 20 ohms = 20 volts; 2 m^3 = 2 liters; 1 L = 100 mL
    $5 = 5 cents; $5 = 5 euros; 5 euros = 5 pounds sterling; $5 = $50; 7 apples = 7 meters; 5 kg = 5 dollars
    7 apples = 8 fruits
    3 hours 20 minutes = 320 minutes; 5 feet 6 inches = 56 inches; 3 hours 20 minutes = 3 minutes 20 hours
    2 hours 30 minutes = 2 hours
    20^\\circ C = 20^\\circ F; 20^\\circ C = 20 kelvin; 20^\\circ C = 68; 30^\\circ = 30 radians; 180^\\circ = 180\\pi
    \\pi\\text{ m}^2 = 100\\pi\\text{ cm}^2
"""


def pairs(table):
    return [one.split(" = ") for line in table.strip().split("\n") for one in line.strip().split("; ")]


@pytest.mark.parametrize(("table", "right"), [(SAME, True), (OTHER, False)])
def test_quantities_are_converted_before_they_are_compared(table, right):
    golds, answers = zip(*pairs(table), strict=True)
    verdicts = judge_all(golds, [rf"\boxed{{{answer}}}".replace("$", r"\$") for answer in answers])
    found = zip(golds, answers, verdicts, strict=True)
    assert [(g, a, v) for g, a, v in found if v.right is not right] == []
