"""Runners: their options, how a pipeline is launched, waited for and stopped."""
