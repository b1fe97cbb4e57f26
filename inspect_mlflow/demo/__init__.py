"""The bundled demonstration: evaluations that need no API key and no internet."""
