"""Servers that are spoken to by their REST APIs."""
