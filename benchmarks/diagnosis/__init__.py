"""How often the diagnosis is right: runs that are slow for a planted reason, and what is said of them."""
