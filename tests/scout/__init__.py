"""Tests of the way from MLflow traces to Scout transcripts."""
