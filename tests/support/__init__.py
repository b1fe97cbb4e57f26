"""Real servers, a real `inspect eval` and an OTLP sink for the tests."""
