"""Places are found, and the answer of the API becomes a result that says what it means."""

import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from execution_service.handlers.weather_data import WeatherData, choose, forecast_query, weather_data
from execution_service.handlers.web.bodies import read_model
from execution_service.handlers.web.open_meteo import CONDITIONS, Forecast, FoundPlace, FoundPlaces, condition
from headrace.recorded_apis.server import answer
from headrace.tasks import CodedError, PermanentError, definition_of
from headrace.testing import run_task, run_task_async
from tests.support.bad_upstream import bad_upstream


def _result(**data: Any) -> Any:
    return run_task(weather_data, data).result


def _forecast_answer(**data: Any) -> Any:
    asked = WeatherData(**data)
    place = FoundPlace(latitude=asked.latitude or 0, longitude=asked.longitude or 0)
    query = {name: str(value) for name, value in forecast_query(asked, place).items()}
    return answer("/v1/forecast", query)[1]


_ANSWER = _forecast_answer(latitude=52.52, longitude=13.41, days=2, hourly=True)


def test_a_place_has_its_weather() -> None:
    result = _result(place="Reykjavík", days=2)
    assert result["place"] == {
        "name": "Reykjavík",
        "region": "Capital Region",
        "country": "Iceland",
        "country_code": "IS",
        "latitude": 64.13548,
        "longitude": -21.89541,
        "elevation": 37.0,
        "timezone": "Atlantic/Reykjavik",
    }
    assert result["units"] == {"temperature": "°C", "precipitation": "mm", "wind_speed": "km/h"}
    assert result["current"]["time"] == "2025-04-04T13:45:00Z"
    assert result["current"]["condition"] == "moderate rain"
    assert [day["date"] for day in result["daily"]] == ["2025-04-04", "2025-04-05"]
    assert result["hourly"] is None


def test_the_answer_comes_through_value_by_value() -> None:
    result = _result(latitude=52.52, longitude=13.41, days=2, hourly=True)
    now, day, hour = result["current"], result["daily"][1], result["hourly"][30]
    sent_now, sent_days, sent_hours = _ANSWER["current"], _ANSWER["daily"], _ANSWER["hourly"]
    assert now == {
        "time": "2025-04-04T13:45:00+02:00",
        "code": sent_now["weather_code"],
        "condition": CONDITIONS[sent_now["weather_code"]],
        "temperature": sent_now["temperature_2m"],
        "apparent_temperature": sent_now["apparent_temperature"],
        "humidity": sent_now["relative_humidity_2m"],
        "precipitation": sent_now["precipitation"],
        "cloud_cover": sent_now["cloud_cover"],
        "wind_speed": sent_now["wind_speed_10m"],
        "wind_direction": sent_now["wind_direction_10m"],
        "wind_gusts": sent_now["wind_gusts_10m"],
        "is_day": True,
    }
    assert day == {
        "date": "2025-04-05",
        "code": sent_days["weather_code"][1],
        "condition": CONDITIONS[sent_days["weather_code"][1]],
        "temperature_min": sent_days["temperature_2m_min"][1],
        "temperature_max": sent_days["temperature_2m_max"][1],
        "precipitation": sent_days["precipitation_sum"][1],
        "precipitation_probability": sent_days["precipitation_probability_max"][1],
        "wind_speed_max": sent_days["wind_speed_10m_max"][1],
        "sunrise": "2025-04-05T06:00:00+02:00",
        "sunset": "2025-04-05T20:00:00+02:00",
    }
    assert hour == {
        "time": "2025-04-05T06:00:00+02:00",
        "code": sent_hours["weather_code"][30],
        "condition": CONDITIONS[sent_hours["weather_code"][30]],
        "temperature": sent_hours["temperature_2m"][30],
        "precipitation": sent_hours["precipitation"][30],
        "precipitation_probability": sent_hours["precipitation_probability"][30],
        "wind_speed": sent_hours["wind_speed_10m"][30],
    }
    assert result["place"]["name"] is None


def test_units_can_be_imperial() -> None:
    metric, imperial = (_result(place="Tokyo", days=1, units=units) for units in ("metric", "imperial"))
    assert imperial["units"] == {"temperature": "°F", "precipitation": "inch", "wind_speed": "mp/h"}
    assert imperial["current"]["temperature"] == pytest.approx(metric["current"]["temperature"] * 1.8 + 32, abs=0.2)


def test_a_country_tells_places_of_one_name_apart() -> None:
    assert _result(place="Berlin", days=1)["place"]["country_code"] == "DE"
    assert _result(place="Berlin", country="US", days=1)["place"]["region"] == "New Hampshire"


@pytest.mark.parametrize("data", [{"place": "Xyzzy"}, {"place": "Tokyo", "country": "IS"}, {"place": "To"}])
def test_a_place_that_is_not_known_is_told(data: Mapping[str, Any]) -> None:
    with pytest.raises(PermanentError, match="Open-Meteo knows no place") as refused:
        run_task(weather_data, data)
    assert refused.value.code == "place_not_found"


def test_a_country_is_looked_for_even_if_the_server_does_not() -> None:
    found = read_model(FoundPlaces, json.dumps(answer("/v1/search", {"name": "Berlin"})[1]).encode())
    assert choose(found, WeatherData(place="Berlin", country="US")).country == "United States"
    with pytest.raises(PermanentError):
        choose(found, WeatherData(place="Berlin", country="FR"))


@pytest.mark.parametrize("days", [1, 16])
def test_as_many_days_come_as_are_asked_for(days: int) -> None:
    result = _result(place="Nairobi", days=days, hourly=True)
    assert (len(result["daily"]), len(result["hourly"])) == (days, 24 * days)


def test_every_documented_code_has_a_text_and_others_are_unknown() -> None:
    assert len(CONDITIONS) == 28
    assert (condition(0), condition(99), condition(None)) == ("clear sky", "thunderstorm with heavy hail", None)
    assert condition(42) == "unknown"


def test_values_that_the_models_do_not_have_are_null() -> None:
    sent = deepcopy(_ANSWER)
    for part in ("current", "hourly", "daily"):
        for name, value in sent[part].items():
            if name not in ("time", "interval"):
                sent[part][name] = [None] * len(value) if isinstance(value, list) else None
    found = read_model(Forecast, json.dumps(sent).encode())
    assert (found.current.temperature_2m, found.daily[0].sunrise, found.hourly[0].weather_code) == (None, None, None)


_BREAKAGES: dict[str, Mapping[str, Any]] = {
    "no-current": {"current": None},
    "short-column": {"daily": {**_ANSWER["daily"], "sunset": []}},
    "missing-column": {"daily": {"time": ["2025-04-04"]}},
    "rows-for-columns": {"daily": [{"time": "2025-04-04"}]},
    "scalar-for-column": {"daily": {**_ANSWER["daily"], "sunset": "2025-04-04T20:00"}},
    "too-many-rows": {"hourly": {name: column * 10 for name, column in _ANSWER["hourly"].items()}},
    "unix-time": {"current": {**_ANSWER["current"], "time": 1743767100}},
    "time-with-offset": {"current": {**_ANSWER["current"], "time": "2025-04-04T13:45Z"}},
    "text-for-number": {"current": {**_ANSWER["current"], "temperature_2m": "warm"}},
    "infinite": {"current": {**_ANSWER["current"], "temperature_2m": 10**400}},
    "wild-offset": {"utc_offset_seconds": 10**9},
    "nul-in-text": {"timezone": "Europe/\0"},
    "surrogate-in-text": {"timezone": "Europe/\ud800"},
    "long-text": {"timezone": "x" * 1000},
}


@pytest.mark.parametrize("change", _BREAKAGES.values(), ids=_BREAKAGES)
def test_an_answer_of_another_form_is_malformed(change: Mapping[str, Any]) -> None:
    with pytest.raises(CodedError) as refused:
        read_model(Forecast, json.dumps({**_ANSWER, **change}).encode())
    assert refused.value.code == "malformed_response"


@given(st.integers(-14 * 4, 14 * 4), st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_times_mean_the_same_moment_with_and_without_their_offset(quarters: int, moment: datetime) -> None:
    offset = timedelta(minutes=15 * quarters)
    found = read_model(Forecast, json.dumps({**_ANSWER, "utc_offset_seconds": int(offset.total_seconds())}).encode())
    local = found.local(moment)
    assert local.utcoffset() == offset
    assert local.astimezone(UTC).replace(tzinfo=None) == moment - offset


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_coordinates_are_written_without_exponent(latitude: float, longitude: float) -> None:
    query = forecast_query(
        WeatherData(latitude=latitude, longitude=longitude), FoundPlace(latitude=latitude, longitude=longitude)
    )
    assert "e" not in f"{query['latitude']}{query['longitude']}"
    assert abs(float(query["latitude"]) - latitude) < 1e-5


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"country": "IS"},
        {"latitude": 1},
        {"longitude": 1},
        {"place": "Berlin", "latitude": 1, "longitude": 1},
        {"place": "Berlin", "longitude": 1},
        {"latitude": 1, "longitude": 1, "country": "DE"},
        {"place": "B"},
        {"place": "   "},
        {"place": " Berlin"},
        {"place": "Ber\nlin"},
        {"place": "x" * 101},
        {"place": 5},
        {"place": "Berlin", "country": "de"},
        {"place": "Berlin", "country": "DEU"},
        {"latitude": 90.1, "longitude": 0},
        {"latitude": 0, "longitude": -180.1},
        {"latitude": "1", "longitude": 0},
        {"latitude": True, "longitude": 0},
        {"place": "Berlin", "days": 0},
        {"place": "Berlin", "days": 17},
        {"place": "Berlin", "days": 1.5},
        {"place": "Berlin", "hourly": 1},
        {"place": "Berlin", "units": "kelvin"},
    ],
)
def test_what_is_no_question_about_the_weather_is_refused(data: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        definition_of(weather_data).decode(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"latitude": "95"}, "Latitude must be in range of -90 to 90°. Given: 95.0."),
        ({"longitude": "-181"}, "Longitude must be in range of -180 to 180°. Given: -181.0."),
        ({"forecast_days": "17"}, "Forecast days is invalid. Allowed range 0 to 16. Given 17."),
        ({"hourly": "tempeture_2m"}, "from invalid String value tempeture_2m for key hourly"),
    ],
)
def test_the_stand_in_refuses_as_the_api_does(query: Mapping[str, str], reason: str) -> None:
    status, content = answer("/v1/forecast", {"latitude": "52.52", "longitude": "13.41", **query})
    assert (status, content["error"]) == (400, True)
    assert reason in content["reason"]


async def test_the_api_is_asked_for_what_it_documents_and_with_the_key_of_the_setting(
    settings_from: pytest.MonkeyPatch,
) -> None:
    async with bad_upstream() as upstream:
        settings_from.setenv("HEADRACE_GEOCODING_URL", upstream.url("/status/400?apikey=k"))
        with pytest.raises(PermanentError, match="It is Monday") as failed:
            await run_task_async(weather_data, {"place": "São Paulo & more", "country": "BR"})
    assert failed.value.code == "upstream_refused"
    wanted = "name=S%C3%A3o%20Paulo%20%26%20more&count=20&language=en&format=json&countryCode=BR"
    assert upstream.heads[0].startswith(f"GET /status/400?apikey=k&{wanted} HTTP/1.1")
