"""Events of runs and nodes into spans and metrics, and where those go."""
