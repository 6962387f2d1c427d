"""Made-up weather in the form of Open-Meteo's forecast API: plausible for latitude and season, and always the same."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

# Local time, wherever the weather is asked for.
NOW = datetime(2025, 4, 4, 13, 45)  # noqa: DTZ001
DAYS_MAX = 16
# Kinds of sky: percent of it that is clouded, millimetres of rain in an hour, and the code of WMO 4677.
_SKIES = ((0, 0.0, 0), (20, 0.0, 1), (45, 0.0, 2), (60, 0.0, 2), (90, 0.0, 3), (95, 0.2, 61), (100, 0.9, 63))


class BadParameterError(Exception):
    """The API would refuse this, with the text as its reason."""


@dataclass(frozen=True, slots=True)
class Weather:
    """The weather of an hour, in metric units."""

    time: datetime
    temperature: float
    clouds: int
    rain: float
    code: int
    wind: float
    direction: int


def weather_at(latitude: float, longitude: float, time: datetime) -> Weather:
    """Return the weather of an hour."""
    chance = hashlib.sha256(f"{latitude:.1f} {longitude:.1f} {time:%Y-%m-%d}".encode()).digest()
    clouds, rain, code = _SKIES[chance[time.hour // 6] % len(_SKIES)]
    season = math.sin(2 * math.pi * (time.timetuple().tm_yday - 105) / 365) * math.sin(math.radians(latitude))
    warmth = math.cos(2 * math.pi * (time.hour - 15) / 24)
    return Weather(
        time=time,
        temperature=25 - 0.3 * abs(latitude) + 12 * season + 4 * warmth - clouds / 25 + chance[4] / 64,
        clouds=clouds,
        rain=rain,
        code=code,
        wind=4 + chance[5] / 12 + 2 * warmth,
        direction=chance[6] * 359 // 255,
    )


def forecast(query: Mapping[str, str], *, timezone: str, offset_seconds: int, elevation: float) -> dict[str, Any]:
    """Return the answer of the forecast API. Raises BadParameterError."""
    latitude, longitude = _number(query, "latitude", 90), _number(query, "longitude", 180)
    days = int(query.get("forecast_days", "7"))
    if not 0 <= days <= DAYS_MAX:
        raise BadParameterError(f"Forecast days is invalid. Allowed range 0 to {DAYS_MAX}. Given {days}.")
    midnight = NOW.replace(hour=0, minute=0)
    hours = [weather_at(latitude, longitude, midnight + timedelta(hours=number)) for number in range(24 * days)]
    answer: dict[str, Any] = {
        "latitude": round(latitude * 8) / 8,
        "longitude": round(longitude * 8) / 8,
        "generationtime_ms": 0.21,
        "utc_offset_seconds": offset_seconds,
        "timezone": timezone,
        "timezone_abbreviation": f"GMT{offset_seconds // 3600:+d}" if offset_seconds else "GMT",
        "elevation": elevation,
    }
    known = variables(query)
    if names := _names(query, "current", known):
        now = weather_at(latitude, longitude, NOW)
        answer["current_units"] = {
            "time": "iso8601",
            "interval": "seconds",
            **{name: known[name].unit for name in names},
        }
        answer["current"] = {"time": _text(NOW), "interval": 900, **{name: known[name].value([now]) for name in names}}
    for part, form, groups in (
        ("hourly", "%Y-%m-%dT%H:%M", [[hour] for hour in hours]),
        ("daily", "%Y-%m-%d", [hours[start : start + 24] for start in range(0, len(hours), 24)]),
    ):
        if names := _names(query, part, known):
            answer[f"{part}_units"] = {"time": "iso8601", **{name: known[name].unit for name in names}}
            columns = {name: [known[name].value(group) for group in groups] for name in names}
            answer[part] = {"time": [f"{group[0].time:{form}}" for group in groups], **columns}
    return answer


class Variable(NamedTuple):
    """What the API calls a variable: its unit, and how its value follows from one hour or from those of a day."""

    unit: str
    value: Callable[[Sequence[Weather]], object]


def variables(query: Mapping[str, str]) -> Mapping[str, Variable]:
    """Return all that can be asked for, in the units of the query."""
    fahrenheit = query.get("temperature_unit") == "fahrenheit"
    miles = query.get("wind_speed_unit") == "mph"
    inches = query.get("precipitation_unit") == "inch"

    def temperature(pick: Callable[[list[float]], float], *, less: float = 0) -> Variable:
        def value(hours: Sequence[Weather]) -> float:
            degrees = pick([hour.temperature for hour in hours]) - less
            return round(degrees * 1.8 + 32 if fahrenheit else degrees, 1)

        return Variable("°F" if fahrenheit else "°C", value)

    def wind(factor: float = 1) -> Variable:
        speed = factor * (0.621371 if miles else 1)
        return Variable("mp/h" if miles else "km/h", lambda hours: round(speed * max(hour.wind for hour in hours), 1))

    rain = Variable(
        "inch" if inches else "mm",
        lambda hours: round(sum(hour.rain for hour in hours) / (25.4 if inches else 1), 2),
    )
    chance = Variable("%", lambda hours: max(hour.clouds // 2 + round(40 * hour.rain) for hour in hours))
    return {
        "temperature_2m": temperature(max),
        "temperature_2m_max": temperature(max),
        "temperature_2m_min": temperature(min),
        "apparent_temperature": temperature(max, less=1.8),
        "relative_humidity_2m": Variable("%", lambda hours: 45 + hours[0].clouds // 2),
        "is_day": Variable("", lambda hours: int(6 <= hours[0].time.hour < 20)),
        "precipitation": rain,
        "precipitation_sum": rain,
        "precipitation_probability": chance,
        "precipitation_probability_max": chance,
        "weather_code": Variable("wmo code", lambda hours: max(hour.code for hour in hours)),
        "cloud_cover": Variable("%", lambda hours: hours[0].clouds),
        "wind_speed_10m": wind(),
        "wind_speed_10m_max": wind(),
        "wind_gusts_10m": wind(1.9),
        "wind_direction_10m": Variable("°", lambda hours: hours[0].direction),
        "sunrise": Variable("iso8601", lambda hours: _text(hours[0].time.replace(hour=6))),
        "sunset": Variable("iso8601", lambda hours: _text(hours[0].time.replace(hour=20))),
    }


def _names(query: Mapping[str, str], part: str, known: Mapping[str, Variable]) -> Sequence[str]:
    names = query[part].split(",") if part in query else []
    for name in names:
        if name not in known:
            reason = f"Cannot initialize WeatherVariable from invalid String value {name} for key {part}"
            raise BadParameterError(reason)
    return names


def _number(query: Mapping[str, str], name: str, limit: int) -> float:
    value = float(query.get(name, "nan"))
    if not -limit <= value <= limit:
        raise BadParameterError(f"{name.capitalize()} must be in range of -{limit} to {limit}°. Given: {value}.")
    return value


def _text(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M}"
