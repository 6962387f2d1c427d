"""Holds each result against what the demo can work out itself, and puts it into words; one module per kind of input."""
