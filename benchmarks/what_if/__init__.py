"""How well a replay foretells what the same DAG takes on another number of workers."""
