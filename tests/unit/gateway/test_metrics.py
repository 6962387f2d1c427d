from gateway.metrics import Metrics, exposition


def test_the_text_format_has_help_type_and_samples() -> None:
    text = exposition([("a_total", "counter", "Some.", [({"route": '/x"y\\'}, 3), ({}, 0.25)])])
    assert text == '# HELP a_total Some.\n# TYPE a_total counter\na_total{route="/x\\"y\\\\"} 3\na_total 0.25\n'


def test_requests_are_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.count("GET", "/api/tasks", 200, 0.5)
    metrics.count("GET", "/api/tasks", 200, 0.5)
    assert list(metrics.request_samples()) == [({"method": "GET", "route": "/api/tasks", "status": "200"}, 2)]
    assert list(metrics.seconds_samples()) == [({"route": "/api/tasks"}, 1.0)]
