"""A pipeline of pandas and NumPy whose heavy nodes run on a Dask cluster."""
