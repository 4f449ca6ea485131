"""Records, protocols and small tools that everything else may import. Imports nothing of the package."""
