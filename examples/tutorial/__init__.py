"""The pipeline of docs/tutorial.md: slow as it is, and made fast there step by step."""
