"""Answers about a recorded run into text, JSON and a page."""
