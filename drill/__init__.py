"""Breaks a service of its own on purpose, and measures how soon each alert reaches a webhook."""
