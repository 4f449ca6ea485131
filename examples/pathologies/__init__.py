"""Small pipelines, each slow for one reason: `python -m examples.pathologies` lists them."""
