"""What is reported of nodes' waits, against what an independent instrument measured. See README.md."""
